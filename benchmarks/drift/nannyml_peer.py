"""Runs in NannyML's own environment: Jensen-Shannon by day, weekdays and weekends apart; the PCA's error of a pair."""

import json
import sys
import time
import warnings
from pathlib import Path

import nannyml
import numpy as np
import pandas as pd

DAY = 86_400_000
_SAMPLE = 40_000  # reference rows


def main(folder: Path) -> None:
    """Read `nannyml.todo.json`, write `nannyml.found.json`."""
    warnings.simplefilter("ignore")
    found = []
    for item in json.loads((folder / "nannyml.todo.json").read_text()):
        records, highest = [], -np.inf
        for at, value in sorted(statistics(folder, item)):
            if value > highest:
                highest = value
                records.append((at, value))
        found.append({"case": item["case"], "column": item["column"], "method": "NannyML", "records": records})
    (folder / "nannyml.found.json").write_text(json.dumps(found))


def statistics(folder: Path, item: dict[str, str]) -> list[tuple[int, float]]:
    """Return the end of every day (ms) and its statistic, of both kinds of days."""
    home, case = (np.load(folder / f"{item[name]}.npz") for name in ("home", "case"))
    found = []
    for off in (False, True):
        reference, days = (_frame(table, item["column"], off) for table in (home, case))
        reference = reference.iloc[:: max(1, len(reference) // _SAMPLE)]
        names = [name for name in reference.columns if name != "time"]
        common = {"column_names": names, "timestamp_column_name": "time", "chunk_period": "D"}
        if item["column"] == "pair":
            calculator = nannyml.DataReconstructionDriftCalculator(n_components=1, **common)
            place = ("reconstruction_error", "value")
        elif item["column"] == "missing":
            calculator = nannyml.MissingValuesCalculator(**common)
            place = (names[0], "value")
        else:
            methods = {"continuous_methods": ["jensen_shannon"], "categorical_methods": ["jensen_shannon"]}
            calculator = nannyml.UnivariateDriftCalculator(**common, **methods)
            place = (names[0], "jensen_shannon", "value")
        table = calculator.fit(reference).calculate(days).filter(period="analysis").to_df()
        chunk = ("chunk", "chunk", "start_date") if len(place) == 3 else ("chunk", "start_date")
        values = table[place].to_numpy(np.float64)
        if item["column"] == "pair":  # it moves up or down
            values = np.abs(
                values
                - calculator.fit(reference).calculate(reference).filter(period="analysis").to_df()[place].mean()
            )
        start = pd.to_datetime(table[chunk]).to_numpy("datetime64[ms]").astype(np.int64)
        found += [(int(at // DAY + 1) * DAY, float(value)) for at, value in zip(start, values, strict=True)]
    return [(at, value) for at, value in found if not np.isnan(value)]


def _frame(table: "np.lib.npyio.NpzFile", column: str, off: bool) -> pd.DataFrame:
    chosen = ((table["time"] // DAY + 3) % 7 >= 5) == off
    values = table[column][chosen]
    frame = pd.DataFrame({"time": pd.to_datetime(table["time"][chosen], unit="ms")})
    if column == "pair":
        return frame.assign(first=values[:, 0], second=values[:, 1])
    return frame.assign(value=values.astype(str) if column == "category" else values)


def nanoseconds(rows: int) -> dict[str, float]:
    """Return what one value of a day's chunk costs."""
    random = np.random.default_rng(0)
    time_of = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows) / 4800, unit="D")
    frame = pd.DataFrame({"time": time_of, "value": random.normal(size=rows)})
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=["value"],
        timestamp_column_name="time",
        chunk_period="D",
        continuous_methods=["jensen_shannon"],
    ).fit(frame)
    begin = time.perf_counter()
    calculator.calculate(frame)
    return {"NannyML": (time.perf_counter() - begin) / rows * 1e9}


if __name__ == "__main__":
    if sys.argv[1] == "--cost":
        print(json.dumps(nanoseconds(int(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]))
