"""How sure a mean is: a studentised bootstrap over blocks of days, several means at a time.

Rows of one day share their weather, and a day resembles the day before. So whole blocks of consecutive
days are drawn, ceil(days ** (1/3)) days long, the rate that is best for the variance of a mean (Künsch 1989,
Hall, Horowitz and Jing 1995), though never so long that fewer than seven blocks are left: the interval of a mean of
five is so wide that two weeks of traffic could prove nothing (benchmarks/results/gate.md tells what that costs). Each
resample is divided by its own standard error (the bootstrap-t of Efron and Tibshirani 1993, section 12.5), which
keeps its promise with few blocks, where plain percentiles are far too narrow. Several means get one critical value,
that of the largest deviation among them (Westfall and Young 1993), so that the confidence holds for all of their
intervals together; being correlated, they cost less than Bonferroni's correction.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FEWEST_BLOCKS = 5
"""Blocks below which nothing can be said."""
_ENOUGH_BLOCKS = 7
_BLOCKS_WITHOUT_TIME = 100
_DAY = 86_400_000

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Blocks(NamedTuple):
    """Which block each row (n,) belongs to, how many blocks there are, and of how many days (None: no time)."""

    of_row: Integers
    number: int
    days: int | None


class Intervals(NamedTuple):
    """Means (S,) with the ends of their simultaneous confidence intervals."""

    mean: Floats
    low: Floats
    high: Floats


def blocks_of_days(time: Integers) -> Blocks:
    """Put rows into blocks of consecutive UTC days; `time` (n,) in milliseconds since 1970."""
    days, day = np.unique(time // _DAY, return_inverse=True)
    length = max(1, min(math.ceil(len(days) ** (1 / 3)), len(days) // _ENOUGH_BLOCKS))
    count = -(-len(days) // length)
    return Blocks((day * count // len(days)).astype(np.int64), count, len(days))


def blocks_of_rows(position: Integers) -> Blocks:
    """Put rows without a time into blocks by a hash of their position (n,): the order given does not matter."""
    count = min(_BLOCKS_WITHOUT_TIME, len(position))
    mixed = position.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele, Lea and Flood 2014)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    of_row = np.unique(mixed % np.uint64(count), return_inverse=True)[1]
    return Blocks(of_row.astype(np.int64), int(of_row.max(initial=-1)) + 1, None)


def intervals(sums: Floats, counts: Floats, confidence: float, resamples: int, seed: int) -> Intervals:
    """Return means sums / counts over all blocks with two-sided intervals.

    `sums` and `counts` are (blocks, S): what each block adds to each of S means. Swapping the sign of
    `sums` swaps the sign of the answer exactly. Every mean needs rows in several blocks.
    """
    blocks = len(sums)
    mean = sums.sum(0) / counts.sum(0)
    rest = sums - mean * counts
    error = np.sqrt((rest**2).sum(0)) / counts.sum(0)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples).astype(np.float64)
    drawn = weights @ counts
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may miss a rare slice, or hold one block of it
        shift = (weights @ rest) / drawn
        squares = weights @ rest**2 - 2 * shift * (weights @ (rest * counts)) + shift**2 * (weights @ counts**2)
        deviation = np.abs(shift) * drawn / np.sqrt(np.maximum(squares, 0))
    deviation[np.isnan(deviation)] = np.inf
    deviation[:, error == 0] = 0  # no variation at all: the interval is the mean itself
    critical = np.quantile(deviation.max(1), confidence, method="higher")
    reach = np.where(error == 0, 0.0, critical * error)
    return Intervals(mean, mean - reach, mean + reach)
