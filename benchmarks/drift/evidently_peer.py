"""Runs in Evidently's own environment: a column's drift score by its default method, weekdays and weekends apart."""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

DAY = 86_400_000
_SAMPLE = 20_000  # reference rows


def main(folder: Path) -> None:
    """Read `evidently.todo.json`: cases with the days to look at; write `evidently.found.json`."""
    warnings.simplefilter("ignore")
    found = []
    for item in json.loads((folder / "evidently.todo.json").read_text()):
        home, case = (np.load(folder / f"{item[name]}.npz") for name in ("home", "case"))
        day_of, known = case["time"] // DAY, home["time"] // DAY
        references = {off: _sample(home[item["column"]][_off(known) == off]) for off in (False, True)}
        records, highest = [], -np.inf
        for day in np.unique(day_of)[item["first"] : item["until"]]:
            value = score(references[bool(_off(day))], case[item["column"]][day_of == day])
            if value > highest:
                highest = value
                records.append((int(day + 1) * DAY, value))
        found.append({"case": item["case"], "column": item["column"], "method": "Evidently", "records": records})
    (folder / "evidently.found.json").write_text(json.dumps(found))


def score(reference: np.ndarray, day: np.ndarray) -> float:
    """Return the drift score; a p-value, where its default is a test, with its sign turned."""
    coded = reference.dtype == np.uint8
    definition = DataDefinition(**{"categorical_columns" if coded else "numerical_columns": ["value"]})
    tables = [
        Dataset.from_pandas(
            pd.DataFrame({"value": values.astype(str) if coded else values}), data_definition=definition
        )
        for values in (day, reference)
    ]
    metric = Report([ValueDrift(column="value")]).run(*tables).dict()["metrics"][0]
    return -float(metric["value"]) if "p_value" in metric["config"]["method"] else float(metric["value"])


def _sample(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, len(values) // _SAMPLE)]


def _off(day: np.ndarray) -> np.ndarray:
    return (day + 3) % 7 >= 5


def nanoseconds(rows: int) -> dict[str, float]:
    """Return what one value of a day's chunk costs."""
    random = np.random.default_rng(0)
    reference, days = random.normal(size=_SAMPLE), random.normal(size=(rows // 4800, 4800))
    score(reference, days[0])
    begin = time.perf_counter()
    for day in days:
        score(reference, day)
    return {"Evidently": (time.perf_counter() - begin) / days.size * 1e9}


if __name__ == "__main__":
    if sys.argv[1] == "--cost":
        print(json.dumps(nanoseconds(int(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]))
