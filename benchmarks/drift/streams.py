"""Traffic whose truth is known: 20 numbers and 6 categories with seasons, wobble, heavy tails and holidays.

Number j of a row is T_j(z), with T_j the identity, a lognormal or a Student t's quantile function, and

    z = level_j * season_j(hour) + weekend_j * (day off) + wobble_j(day) + noise,    noise ~ N(0, 1), correlated.

The wobble is an AR(1) process over days, so that no two days have quite the same mean: that is what a
detector must forgive. Shares of categories and nulls, the base rate of the label and the number of rows a
day wobble, too. A holiday is a working day with a Sunday's level and 60 % of the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.types import FIRST_ID, MISSING_ID, UNSEEN_ID, CategoryMatrix, Features, Scores, Targets

Kind = Literal["none", "mean", "scale", "category", "nulls", "correlation", "concept"]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

HOUR, DAY = 3_600_000, 86_400_000
TARGET = TargetColumn("label", "binary", (0, 1))
BEGIN = 19_723 * DAY  # 2024-01-01, a Monday
NUMBERS, ROWS = 20, 4_800
CARDINALITIES = (5, 8, 12, 20, 40, 200)

# Columns with a part to play; the others can only raise false alarms.
PLAIN, SEASONAL, NULLED, PAIR = 0, 1, 2, (18, 19)
CATEGORY = 3
_LOGNORMAL, _STUDENT = (4, 9, 14), (5, 10, 15)
_NULLS = {NULLED: 0.03, 7: 0.1}
_UNSEEN = 0.001  # share of values too rare for the vocabulary
_FACTORS = (slice(3, 9), slice(9, 16), slice(18, 20))  # columns that share a factor
_LOADINGS = (0.6, 0.6, 0.6**0.5)
_WEIGHTS = np.array([0.8, 0.5, -0.5, 0.4, 0.3, -0.3, 0.25, -0.2, 0.2, 0.15], np.float32)  # of the first numbers' z
_GRID = np.linspace(-5, 5, 2001)
_LONGEST = 600  # days


@dataclass(frozen=True)
class Change:
    """What changes from a moment (ms) on, in which column, and how much."""

    kind: Kind = "none"
    column: int = PLAIN
    size: float = 0.0
    onset: int = 0


@dataclass(frozen=True)
class Process:
    """A world that stays as it is, unless `change` says otherwise."""

    seed: int
    correlation: float = 0.5  # of a day's wobble with the next day's
    wobble: float = 0.03  # its standard deviation, in standard deviations of the number
    unequal: float = 0.1  # standard deviation of the logarithm of a day's rows
    change: Change = Change()

    def changed(self, change: Change) -> "Process":
        """Return the same world, equal row by row until the change."""
        return replace(self, change=change)


class Day(NamedTuple):
    """The rows of one day in order of time."""

    time: npt.NDArray[np.int64]
    features: Features
    score: Scores
    label: Targets


def plan(sample: Features) -> FeaturePlan:
    """Return the feature plan that training rows like these would give."""
    numbers, at = [], np.linspace(0, 1, 257)
    for j, column in enumerate(sample.number.T):
        quantiles = np.quantile(column[~np.isnan(column)], at, method="lower").tolist()
        numbers.append(NumberColumn(f"number{j}", quantiles=tuple(quantiles)))
    categories = (CategoryColumn(f"category{j}", "integer", tuple(range(k))) for j, k in enumerate(CARDINALITIES))
    return FeaturePlan(tuple(numbers), tuple(categories), TARGET, time="time", rows=len(sample.number))


class World:
    """A process on its way through the days: what lasts longer than a day is drawn once, here."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.level, self.weekend = np.full(NUMBERS, 0.3), self._random(0).uniform(-0.2, 0.2, NUMBERS)
        self.level[[SEASONAL, 6, 11]] = 1.0
        self.level[[PLAIN, 12, 13, *PAIR]] = 0.1
        self.phase = self._random(1).uniform(0, 24, NUMBERS)
        strength = self._random(2).uniform(0.5, 1.5, NUMBERS)
        strength[[PLAIN, SEASONAL, NULLED]] = 1
        self.wobble = self._paths(3, NUMBERS) * strength * process.wobble
        self.shares = [self._paths(10 + j, k) * process.wobble for j, k in enumerate(CARDINALITIES)]
        self.unseen = self._paths(4, len(CARDINALITIES)) * process.wobble
        self.nulls = self._paths(5, len(_NULLS)) * process.wobble
        self.base = self._paths(6, 1)[:, 0] * process.wobble
        self.rows = ROWS * np.exp(self._random(7).normal(0, process.unequal, _LONGEST))
        self.holidays = frozenset(np.cumsum(self._random(8).integers(20, 46, 30)).tolist())
        self.effects = [self._random(20 + j).normal(0, 0.2, k + FIRST_ID) for j, k in enumerate(CARDINALITIES)]
        self.heavy = (student.ppf(norm.cdf(_GRID), 3) / 3**0.5).astype(np.float32)

    def days(self, first: int, until: int) -> Iterator[Day]:
        """Yield the days from `first` until before `until`; day 0 is a Monday. A day is the same whoever asks."""
        return map(self._day, range(first, until))

    def _random(self, *path: int) -> np.random.Generator:
        return np.random.default_rng((self.process.seed, *path))

    def _paths(self, path: int, number: int) -> Floats:
        """Return normal AR(1) paths of variance 1 (days, number)."""
        rho, warm = self.process.correlation, 50
        steps = self._random(path).normal(0, np.sqrt(1 - rho**2), (_LONGEST + warm, number))
        for i in range(1, len(steps)):
            steps[i] += rho * steps[i - 1]
        found: Floats = steps[warm:]
        return found

    def _day(self, day: int) -> Day:
        random = self._random(9, day)
        holiday, weekend = day in self.holidays, day % 7 >= 5
        rows = self.rows[day] * (0.6 if holiday else 0.8 if weekend else 1.08)
        shape = 1 + 0.7 * np.sin((np.arange(24) - 9) / 24 * 2 * np.pi)
        hour = np.repeat(np.arange(24), random.poisson(rows * shape / 24))
        clock = np.sort(hour + random.random(len(hour)))
        time = BEGIN + day * DAY + (clock * HOUR).astype(np.int64)
        late = time >= self.process.change.onset if self.process.change.kind != "none" else np.zeros(len(hour), bool)
        latent = self._latent(random, day, hour, weekend or holiday, late)
        category = self._categories(random, day, hour, weekend or holiday, late)
        log_odds = (
            _WEIGHTS @ np.clip(latent[: len(_WEIGHTS)], -4, 4) + self.effects[CATEGORY][category[CATEGORY]] - 0.5
        )
        score = expit(log_odds).astype(np.float32)
        truth = log_odds + self.base[day]
        if self.process.change.kind == "concept":
            truth = truth - self.process.change.size * late * _WEIGHTS[self.process.change.column] * latent[PLAIN]
        label = (random.random(len(hour)) < expit(truth)).astype(np.float32)
        return Day(time, Features(self._numbers(random, day, latent, late).T, category.T), score, label)

    def _latent(self, random: np.random.Generator, day: int, hour: Floats, off: bool, late: Flags) -> Singles:
        change, size = self.process.change, len(hour)
        noise = random.standard_normal((NUMBERS, size), np.float32)
        for columns, loading in zip(_FACTORS, _LOADINGS, strict=True):
            noise[columns] *= np.float32((1 - loading**2) ** 0.5)
            noise[columns] += np.float32(loading) * random.standard_normal(size, np.float32)
        again = self._random(30, day)  # leaves the other draws as they are
        if change.kind == "correlation":
            noise[change.column, late] = again.standard_normal(int(late.sum()), np.float32)
        if change.kind == "scale":
            noise[change.column, late] *= np.float32(change.size)
        season = self.level[:, None] * np.sin((np.arange(24) + self.phase[:, None]) / 12 * np.pi)
        season += (self.wobble[day] + self.weekend * off)[:, None]
        noise += season.astype(np.float32).take(hour, axis=1)
        if change.kind == "mean":
            noise[change.column, late] += np.float32(change.size)
        return noise

    def _numbers(self, random: np.random.Generator, day: int, latent: Singles, late: Flags) -> Singles:
        change, found = self.process.change, latent.copy()
        found[list(_LOGNORMAL)] = np.exp(found[list(_LOGNORMAL)])
        for j in _STUDENT:
            found[j] = np.interp(found[j], _GRID, self.heavy)
        for i, (j, rate) in enumerate(_NULLS.items()):
            rates = np.where(late & (change.kind == "nulls") & (change.column == j), change.size, rate)
            found[j, random.random(len(late)) < expit(logit(rates) + self.nulls[day, i])] = np.nan
        return found

    def _categories(
        self, random: np.random.Generator, day: int, hour: Floats, off: bool, late: Flags
    ) -> CategoryMatrix:
        change = self.process.change
        found = np.empty((len(CARDINALITIES), len(hour)), np.int64)
        swing = np.sin(np.arange(24) / 12 * np.pi)[:, None]
        for j, size in enumerate(CARDINALITIES):
            order = np.arange(size)
            weights = np.exp(-np.log1p(order) + self.shares[j][day] + 0.2 * (swing + off) * (order % 3 == j % 3))
            until = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
            until[:, -1] = 1
            places = np.searchsorted(
                (until + np.arange(24)[:, None]).ravel(), hour + random.random(len(hour)), "right"
            )
            found[j] = np.minimum(places - hour * size, size - 1) + FIRST_ID
            chance = random.random(len(hour))
            added = late * change.size if change.kind == "category" and change.column == j else 0
            found[j, chance < _UNSEEN * np.exp(self.unseen[day, j]) + added] = UNSEEN_ID
            if j == 4:
                found[j, chance > 0.99] = MISSING_ID
        return found
