"""Runs in river's own environment: ADWIN and Page-Hinkley on de-seasoned columns.

Both are fed means of ten rows, in units of the reference's standard deviation after its season (hour of the
day, weekday or weekend) has been taken off; a null and an unseen value count as 1, all else as 0. Row by row
they are ten times as dear and see no sooner.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from river.drift import ADWIN, PageHinkley

Floats = npt.NDArray[np.float64]
Record = tuple[int, float]

BLOCK = 10
HOUR = 3_600_000
ADWIN_LEVELS = [3, 5, 8, 12, 16, 20, 25, 30, 35, 40, 50, 60, 80, 100, 140, 200, 300]  # -log10 of its delta
PAGE_HINKLEY_DELTAS = (0.005, 0.05, 0.1)


def main(folder: Path) -> None:
    """Read `river.todo.json`: cases with name, home, column, calibrates, quiet; write `river.found.json`."""
    todo = json.loads((folder / "river.todo.json").read_text())
    found: list[dict[str, object]] = []
    for column in sorted({item["group"] for item in todo}):
        chosen = [item for item in todo if item["group"] == column]
        level = 0
        for item in (i for i in chosen if i["calibrates"]):
            times, values = blocks(folder, item)
            while level < len(ADWIN_LEVELS) - 1 and adwin(values, times, ADWIN_LEVELS[level]):
                level += 1
        for item in chosen:
            times, values = blocks(folder, item)
            first = adwin(values, times, ADWIN_LEVELS[level])
            default = adwin(values, times, -float(np.log10(0.002)), every=True)
            ours = {"case": item["case"], "column": item["column"]}
            found.append({**ours, "method": "ADWIN", "records": [[t, float(level + 1)] for t in first]})
            found.append({**ours, "method": "ADWIN at its default", "records": [[t, 1.0] for t in default]})
            for delta in PAGE_HINKLEY_DELTAS:
                records = page_hinkley(values, times, delta)
                found.append({**ours, "method": f"Page-Hinkley, delta {delta:g}", "records": records})
        print(f"river: {column}, ADWIN silent at delta 1e-{ADWIN_LEVELS[level]}", flush=True)
    (folder / "river.found.json").write_text(json.dumps(found))


def blocks(folder: Path, item: dict[str, str]) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the ends (b,) of blocks of rows, and their de-seasoned means (b,)."""
    home, case = np.load(folder / f"{item['home']}.npz"), np.load(folder / f"{item['case']}.npz")
    known, values = _plain(home, item["column"]), _plain(case, item["column"])
    slot, here = _slot(home["time"]), _slot(case["time"])
    count = np.bincount(slot, minlength=48)
    mean = np.bincount(slot, known, minlength=48) / np.maximum(count, 1)
    left = known - mean[slot]
    values = (values - mean[here]) / left.std()
    size = len(values) // BLOCK * BLOCK
    return case["time"][BLOCK - 1 : size : BLOCK], values[:size].reshape(-1, BLOCK).mean(axis=1)


def _plain(table: "np.lib.npyio.NpzFile", column: str) -> Floats:
    values = table[column]
    if column == "missing":
        return np.isnan(values).astype(np.float64)
    return (values == 1).astype(np.float64) if column == "category" else values.astype(np.float64)


def _slot(moment: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    hours = moment // HOUR
    return hours % 24 + 24 * ((hours // 24 + 3) % 7 >= 5)


def adwin(values: Floats, times: npt.NDArray[np.int64], level: float, every: bool = False) -> list[int]:
    """Return when it first alarms at delta 10**-level (ms), or every time."""
    detector, found = ADWIN(delta=10**-level, clock=1), []
    for i, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(int(times[i]))
            if not every:
                break
    return found


def page_hinkley(values: Floats, times: npt.NDArray[np.int64], delta: float) -> list[Record]:
    """Return every new highest value of its statistic, and when."""
    detector, found, highest = PageHinkley(delta=delta, threshold=float("inf")), [], 0.0
    for i, value in enumerate(values.tolist()):
        detector.update(value)
        up = detector._sum_increase - detector._min_increase
        down = detector._max_decrease - detector._sum_decrease
        if i >= detector.min_instances and max(up, down) > highest:
            highest = max(up, down)
            found.append((int(times[i]), highest))
    return found


def nanoseconds(rows: int) -> dict[str, float]:
    """Return what one value costs each, row by row, as most feed them."""
    values, found = np.random.default_rng(0).normal(size=rows).tolist(), {}
    for name, detector in (("ADWIN", ADWIN()), ("Page-Hinkley", PageHinkley())):
        begin = time.perf_counter()
        for value in values:
            detector.update(value)
        found[name] = (time.perf_counter() - begin) / rows * 1e9
    return found


if __name__ == "__main__":
    if sys.argv[1] == "--cost":
        print(json.dumps(nanoseconds(int(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]))
