"""Is one version proven worse than another, however often one looks?

A rollout is judged at every turn of the drift actor, and an interval that holds once fails when it is looked at a
hundred times. So the mean paired difference in loss gets an asymptotic confidence sequence, which holds at all
times together: mean +- error * sqrt(2 (k r + 1) / (k r) * log(sqrt(k r + 1) / alpha)) after k observations with
the standard error `error` (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, Time-uniform central limit theory
and asymptotic confidence sequences, proposition 2.2). Days are the observations once there are enough of them, because
rows of one day share their weather; a day of few rows beside days of many is hardly one. Rows are until then, and how far
days differ is taken for granted: many rows of one day would else prove the day's weather.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FEWEST_ROWS = 50
FEWEST_RARE = 10
"""Rows that are expected not to be of the commonest class, before labels tell anything."""
FEWEST_DAYS = 5
DAYS_DIFFER = 1 / 6
"""Standard deviation of days' means that is taken for granted until enough days tell it, in those of a row."""


class Sums(NamedTuple):
    """Paired differences in loss: how many, their sum, and the sum of their squares."""

    rows: int
    total: float
    squares: float


class Interval(NamedTuple):
    """A mean difference with the ends of its interval; unbounded where there is too little to tell."""

    mean: float
    low: float
    high: float


def fewest_rows(classes: npt.NDArray[np.integer]) -> int:
    """Return how many rows tell anything, by how often each class (K,) came in the reference.

    As long as only the commonest class has come, differences hardly differ, and look like proof.
    """
    rare = int(classes.sum() - classes.max())
    return max(FEWEST_ROWS, math.ceil(FEWEST_RARE * int(classes.sum()) / rare)) if rare else FEWEST_ROWS


def interval(rows: Sums, days: Sequence[Sums], confidence: float, fewest: int = FEWEST_ROWS) -> Interval:
    """Return the mean difference of all rows, unbounded below `fewest`; `days` are the same rows' sums by day.

    Its interval holds with the confidence, at this look and all others, before and after.
    """
    n, total, squares = rows
    if n < fewest:
        return Interval(total / n if n else math.nan, -math.inf, math.inf)
    mean = total / n
    among = sum(day.rows for day in days)
    alike = (
        among**2 / sum(day.rows**2 for day in days) if among else 1.0
    )  # so many days of as many rows would tell as much
    if alike >= FEWEST_DAYS:
        k, daily = len(days), sum(day.total for day in days) / among
        error = math.sqrt(sum((day.total - daily * day.rows) ** 2 for day in days) * k / (k - 1)) / among
        reach = error * _factor(alike, 4 * FEWEST_DAYS, 1 - confidence)
    else:
        error = math.sqrt(max(0.0, squares / n - mean**2) * (1 / n + DAYS_DIFFER**2 / alike))
        reach = error * _factor(n, 4 * FEWEST_ROWS, 1 - confidence)
    return Interval(mean, mean - reach, mean + reach)


def _factor(k: float, best: int, alpha: float) -> float:
    """Return how many standard errors the sequence reaches after k observations; it is narrowest around `best`."""
    spread = -2 * math.log(alpha)
    r = (spread + math.log(spread) + 1) / best
    return math.sqrt(2 * (k * r + 1) / (k * r) * math.log(math.sqrt(k * r + 1) / alpha))
