"""Runs in AutoGluon's own environment: learn from the folder's train.parquet, score its test.parquet."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from autogluon.tabular import TabularPredictor


def main(folder: Path, seconds: int) -> None:
    """Learn for `seconds`, and write scores.npy and told.json."""
    train, validation, test = (
        pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "validation", "test")
    )
    begin = time.perf_counter()
    predictor = TabularPredictor(
        train.columns[-1], problem_type="binary", eval_metric="log_loss", path=str(folder / "model"), verbosity=0
    )
    predictor.fit(train, tuning_data=validation, time_limit=seconds)
    told = {"seconds": time.perf_counter() - begin, "reached": reached(predictor)}
    np.save(folder / "scores.npy", predictor.predict_proba(test)[1].to_numpy(np.float32))
    (folder / "told.json").write_text(json.dumps(told))


def reached(predictor: TabularPredictor) -> list[tuple[float, float]]:
    """Return pairs of seconds and the least validation loss known by then: one after each model, in their order."""
    board = predictor.leaderboard(silent=True).sort_values("fit_order")
    seconds, losses = board["fit_time_marginal"].cumsum(), (-board["score_val"]).cummin()
    return [(float(second), float(loss)) for second, loss in zip(seconds, losses, strict=True)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
