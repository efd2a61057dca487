"""How far do hours and days wander while nothing is wrong? Learned from the reference's own hours.

Of every direction, an hour's mean score is taken to be: its season's mean + a day's effect + an hour's effect +
the chance of drawing these rows. The day's effect is an AR(1) over days. What was learned from few days is
widened accordingly, so that few days make a patient detector, never a jumpy one.

Shapes: H hours, D directions.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from app.monitor.directions import Floats, Integers

DAY = 86_400_000
_BLOCK = DAY // 4

_FEWEST_DAYS = 3  # to learn from; with fewer there are the defaults
_DEFAULT = 0.05  # standard deviation of a day and of an hour
_DEFAULT_MEMORY = 0.5
_LONGEST_MEMORY = 0.95
_CONFIDENCE = 0.9  # that a variance is not larger than taken
_ODDEST = 3.0  # standard deviations: no day of the reference itself may count for more


class Wobble(NamedTuple):
    """In-control movement of the mean score of D directions; all arrays (D,)."""

    hour: Floats  # standard deviation of an hour's effect
    day: Floats  # standard deviation of a day's effect
    memory: Floats  # correlation of a day's effect with the next day's
    error: Floats  # standard error of the reference's mean
    days: Floats  # independent days that this was learned from; 0: from none

    @staticmethod
    def unknown(rows: Floats) -> "Wobble":
        """Return what is taken for granted of a reference of `rows` (D,) rows without time, or of too few days."""
        sd = np.full_like(rows, _DEFAULT)
        error = np.sqrt(1 / np.maximum(rows, 1) + _DEFAULT**2)
        return Wobble(sd, sd, np.full_like(rows, _DEFAULT_MEMORY), error, np.zeros_like(rows))

    @staticmethod
    def of(start: Integers, sums: Floats, rows: Floats, fitted: int) -> "Wobble":
        """Learn from hours that start at `start` (H,), ascending, with sums (H, D) of `rows` (H,) rows' scores.

        `fitted` is the number of days' seasons that were fitted to the same rows: 2 of weekday and weekend.
        """
        total = np.full(sums.shape[1], rows.sum())
        day_sums, day_rows, day = _blocks(start, sums, rows, DAY)
        kept = day_rows >= np.median(day_rows) / 4 if len(day) else np.empty(0, bool)
        number, free = int(kept.sum()), int(kept.sum()) - fitted
        if free < _FEWEST_DAYS:
            return Wobble.unknown(total)
        mean = day_sums[kept] / day_rows[kept, None]
        noise = (1 / day_rows[kept]).mean()
        seen = np.square(mean).sum(axis=0) / free

        # Yule-Walker; noise of the estimate in the denominator, its bias and one standard error on top.
        follows = np.diff(day[kept]) == 1
        after = (mean[1:] * mean[:-1])[follows].sum(axis=0) / max(int(follows.sum()), 1)
        beyond = np.maximum(seen - noise, 0) + seen / np.sqrt(number)
        memory = np.clip(after / np.maximum(beyond, 1e-12), 0, _LONGEST_MEMORY)
        memory += (1 + 4 * memory) / number + np.sqrt((1 - memory**2) / number)
        memory = np.minimum(memory, _LONGEST_MEMORY)

        days = np.maximum(free * (1 - memory**2) / (1 + memory**2), _FEWEST_DAYS)
        persistence = (1 + memory) / (1 - memory) / number  # variance of the mean of these days, in days' variances
        variance = np.maximum(seen * _widening(days) - noise, 0) / np.maximum(1 - persistence, 0.3)
        oddest = (np.square(mean) - 1 / day_rows[kept, None]).max(axis=0) / _ODDEST**2
        variance = np.maximum(variance, oddest)
        hour = np.sqrt(_within(start, sums, rows, number / free))
        error = np.sqrt(variance * np.minimum(persistence, 1) + 1 / total)
        return Wobble(hour, np.sqrt(variance), memory, error, days)


def _blocks(start: Integers, sums: Floats, rows: Floats, length: int) -> tuple[Floats, Floats, Integers]:
    """Add hours up to blocks of `length` ms: sums (b, D), rows (b,) and number (b,) of those with rows."""
    some = rows > 0
    number, first = np.unique(start[some] // length, return_index=True)
    if not len(first):
        return np.empty((0, sums.shape[1])), np.empty(0), number
    return np.add.reduceat(sums[some], first), np.add.reduceat(rows[some], first), number


def _within(start: Integers, sums: Floats, rows: Floats, fitted: float) -> Floats:
    """Return the variance (D,) of an hour's effect: analysis of variance of hours, and of blocks of six, within days.

    Effects that last some hours show more in blocks; an hour's variance is then taken so large that as many
    independent hours would move a block as much.
    """
    largest = np.zeros(sums.shape[1])
    for length in (DAY // 24, _BLOCK):
        block_sums, block_rows, block = _blocks(start, sums, rows, length)
        day_sums, day_rows, _ = _blocks(start, sums, rows, DAY)
        place = np.unique(block * length // DAY, return_inverse=True)[1]
        away = block_sums / block_rows[:, None] - (day_sums / day_rows[:, None])[place]
        free = len(block) - len(day_rows)
        if free < 1:
            continue
        squares = (block_rows[:, None] * np.square(away)).sum(axis=0) * fitted
        weight = (block_rows * (1 - block_rows / day_rows[place])).sum()
        wide = _widening(np.array([float(free)]))
        variance = np.maximum(squares * wide - free, 0) / weight
        largest = np.maximum(largest, variance * (length * 24 // DAY))
    return largest


def _widening(free: Floats) -> Floats:
    """Return by what to multiply an estimated variance with `free` degrees of freedom to be on the safe side.

    It is `free` over the quantile of chi squared, by Wilson and Hilferty's approximation.
    """
    part = 2 / (9 * free)
    quantile = 1 - part - NormalDist().inv_cdf(_CONFIDENCE) * np.sqrt(part)
    wide: Floats = np.maximum(quantile, 0.2) ** -3
    return wide
