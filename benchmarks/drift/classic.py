"""PSI, and scipy's tests of Kolmogorov-Smirnov and chi squared, day by day, weekdays and weekends apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2_contingency, ks_2samp

from benchmarks.drift.streams import DAY

Values = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Values], float]  # of a day, against a reference

SAMPLE = 20_000  # reference rows that a day is compared with
_FEWEST = 1e-4  # share that an empty bin is taken to have


def psi(reference: Values) -> Statistic:
    """Return the population stability index over the reference's deciles, or over the categories; nulls are a bin."""
    coded = reference.dtype == np.uint8
    edges = np.arange(256) if coded else np.unique(np.nanquantile(reference, np.linspace(0.1, 0.9, 9)))

    def shares(values: Values) -> Floats:
        missing = np.isnan(values)
        bins = np.bincount(np.searchsorted(edges, values[~missing], "right"), minlength=len(edges) + 1)
        return np.asarray(np.maximum(np.append(bins, missing.sum()) / len(values), _FEWEST))

    known = shares(reference)

    def index(day: Values) -> float:
        now = shares(day)
        return float(((now - known) * np.log(now / known)).sum())

    return index


def test_statistic(reference: Values) -> Statistic:
    """Return Kolmogorov and Smirnov's distance of numbers, Cramer's V of categories."""
    if reference.dtype != np.uint8:
        known = np.sort(reference[~np.isnan(reference)])
        return lambda day: float(ks_2samp(known, day[~np.isnan(day)], method="asymp").statistic)

    def cramer(day: Values) -> float:
        table = np.stack([np.bincount(values, minlength=256) for values in (reference, day)])
        table = table[:, table.any(axis=0)]
        return float(np.sqrt(chi2_contingency(table).statistic / table.sum()))

    return cramer


METHODS: dict[str, Callable[[Values], Statistic]] = {"PSI, daily": psi, "KS and chi squared, daily": test_statistic}


def records(folder: Path, home: str, case: str, column: str) -> dict[str, list[tuple[int, float]]]:
    """Return by method every new highest statistic and the end of its day (ms)."""
    known, seen = np.load(folder / f"{home}.npz"), np.load(folder / f"{case}.npz")
    random, statistics = np.random.default_rng(0), {}
    for off in (False, True):
        rows = np.flatnonzero(_off(known["time"] // DAY) == off)
        sample = known[column][random.choice(rows, min(SAMPLE, len(rows)), replace=False)]
        statistics[off] = {name: method(sample) for name, method in METHODS.items()}
    days, first = np.unique(seen["time"] // DAY, return_index=True)
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in METHODS}
    for day, rows in zip(days, np.split(seen[column], first[1:]), strict=True):
        for name, statistic in statistics[bool(_off(day))].items():
            value = statistic(rows)
            if not found[name] or value > found[name][-1][1]:
                found[name].append((int(day + 1) * DAY, value))
    return found


def _off(day: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.asarray((day + 3) % 7 >= 5)
