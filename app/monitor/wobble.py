"""How far do hours and days wander while nothing is wrong? Learned from the reference's own hours.

Of every direction, an hour's mean score is taken to be: its season's mean + a day's effect + an hour's effect +
the chance of drawing these rows. The day's effect is an AR(1) over days. What was learned from few days is
widened accordingly, so that few days make a patient detector, never a jumpy one.

Shapes: H hours, D directions.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.monitor.binning import SLOTS, Season, season_slots
from app.monitor.directions import Floats, Integers, shrunken

DAY, _HOUR = 86_400_000, 3_600_000
_BLOCK = DAY // 4

_SEASONS: dict[Season, int] = {"none": 1, "hour_of_day": 2, "hour_of_week": 7}  # kinds of days
_FEWEST_DAYS = 3  # to learn from; with fewer there are the defaults
_DEFAULT = 0.05  # standard deviation of a day and of an hour
_DEFAULT_MEMORY = 0.5
_LONGEST_MEMORY = 0.95
_UNLIKE = 0.15  # standard deviation of directions' memories from each other
_CONFIDENCE = 0.75  # that a variance is not larger than taken
_ODDEST = 2.5  # standard deviations: no day of the reference itself may count for more


class Hours(NamedTuple):
    """Sums of scores, hour by hour, ascending; an hour may come in several parts."""

    start: Integers  # (H,) ms since 1970 UTC
    sums: Floats  # (H, D) of rows' scores less their season's mean
    rows: Floats  # (H,)

    @staticmethod
    def merged(*parts: "Hours") -> "Hours":
        """Bring parts into one order."""
        order = np.argsort(np.concatenate([part.start for part in parts]), kind="stable")
        return Hours(*(np.concatenate(arrays)[order] for arrays in zip(*parts, strict=True)))


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
    def of(hours: Hours, season: Season, day_off: tuple[Floats, Floats], memory: Floats | None = None) -> "Wobble":
        """Learn from hours.

        The season was fitted to them. A day may be as odd as the oddest of these hours, or as a holiday that they lack: off by `day_off`, as a day and by the hour (D,). `memory` (D,) is learned, if not given.
        """
        total = np.full(hours.sums.shape[1], hours.rows.sum())
        day_sums, day_rows, day = _blocks(hours, DAY)
        kept = day_rows >= np.median(day_rows) / 4 if len(day) else np.empty(0, bool)
        number, free = int(kept.sum()), int(kept.sum()) - _SEASONS[season]
        if free < _FEWEST_DAYS:
            return Wobble.unknown(total)
        mean = day_sums[kept] / day_rows[kept, None]
        noise = (1 / day_rows[kept]).mean()
        seen = np.maximum(np.square(mean).sum(axis=0) / free, 1e-12)

        memory = _memory(mean, day[kept], seen, noise) if memory is None else memory
        days = np.maximum(free * (1 - memory**2) / (1 + memory**2), _FEWEST_DAYS)
        persistence = (1 + memory) / (1 - memory) / number  # variance of the mean of these days, in days' variances
        variance = np.maximum(seen * _widening(days) - noise, 0) / np.maximum(1 - persistence, 0.3)
        oddest = (np.square(mean) / _ODDEST**2 - 1 / day_rows[kept, None]).max(axis=0)
        variance = np.maximum(variance, np.maximum(oddest, np.square(day_off[0] / _ODDEST)))
        hour = np.sqrt(np.maximum(_within(hours, number / free), np.square(day_off[1] / _ODDEST)))
        error = np.sqrt(variance * np.minimum(persistence, 1) + 1 / total)
        return Wobble(hour, np.sqrt(variance), memory, error, days)

    def extended(self, other: "Wobble", theirs: npt.NDArray[np.bool_]) -> "Wobble":
        """Take the directions `theirs` (D,) from the `other`, which has seen fewer days, and not for calmer than ours.

        Scores are a mixture of features, and wander as they do; some days' scores cannot tell how far.
        """
        hour, day = (np.sqrt(np.square(array[~theirs]).mean()) for array in (self.hour, self.day))
        borrowed = other._replace(
            hour=np.maximum(other.hour, hour),
            day=np.maximum(other.day, day),
            days=np.full_like(other.days, self.days[~theirs].mean()),
        )
        return Wobble(*(np.where(theirs, b, a) for a, b in zip(self, borrowed, strict=True)))


class Losses(NamedTuple):
    """The losses of rows that the model did not learn from."""

    mean: float
    sd: float  # of a row
    largest: float
    kind: Season
    season: Floats  # (S,) a slot's mean less the mean, in units of `sd`
    wobble: Wobble  # (1,) of an hour's mean loss, in units of `sd`

    def expected(self, start: int) -> float:
        """Return the expected mean loss of the hour that starts at `start`, ms since 1970 UTC."""
        return self.mean + self.sd * float(self.season[season_slots(self.kind, np.array([start]))[0]])

    @staticmethod
    def of(losses: Floats, time: Integers, kind: Season, memory: float) -> "Losses":
        """Learn from losses (n,) at moments (n,), ms since 1970 UTC; (0,) where there is no time.

        `memory` is the features', which have more days to tell it from.
        """
        mean, sd, largest = (float(f(losses)) if len(losses) else 0.0 for f in (np.mean, np.std, np.max))
        if not len(time) or not sd:
            unknown = Wobble.unknown(np.array([float(len(losses))]))
            return Losses(mean, sd, largest, kind, np.zeros(SLOTS[kind]), unknown)
        hour, group, rows = np.unique(time // _HOUR, return_inverse=True, return_counts=True)
        sums = np.bincount(group, (losses - mean) / sd).astype(np.float64)
        slot = season_slots(kind, hour * _HOUR)
        by_slot = (np.bincount(slot, what, SLOTS[kind]).astype(np.float64)[:, None] for what in (sums, rows))
        season = shrunken(*by_slot)[0][:, 0]
        hours = Hours(hour * _HOUR, (sums - rows * season[slot])[:, None], rows.astype(np.float64))
        return Losses(
            mean, sd, largest, kind, season, Wobble.of(hours, kind, (np.zeros(1), np.zeros(1)), np.array([memory]))
        )


def _blocks(hours: Hours, length: int) -> tuple[Floats, Floats, Integers]:
    """Add hours up to blocks of `length` ms: sums (b, D), rows (b,) and number (b,) of those with rows."""
    number, first = np.unique(hours.start // length, return_index=True)
    if not len(first):
        return hours.sums, hours.rows, number
    return np.add.reduceat(hours.sums, first), np.add.reduceat(hours.rows, first), number


def _memory(mean: Floats, day: Integers, seen: Floats, noise: float) -> Floats:
    """Return the correlation (D,) of a day's effect with the next day's.

    Of days' means (T, D), with variance `seen` (D,) of which `noise` is chance: Yule-Walker, corrected for its bias,
    and drawn towards what is usual among the directions (empirical Bayes).
    """
    number = len(mean)
    next_to = np.diff(day) == 1
    after = (mean[1:] * mean[:-1])[next_to].sum(axis=0) / max(int(next_to.sum()), 1) / seen
    effect = np.maximum(1 - noise / seen, 0.1)
    after = np.clip(after, -effect, effect)
    usual = np.clip((after * effect).sum() / np.square(effect).sum(), 0, _LONGEST_MEMORY)
    own = after / effect
    error = (1 - usual**2) / (number * np.square(effect))
    drawn = (own * _UNLIKE**2 + usual * error) / (_UNLIKE**2 + error)
    memory: Floats = np.clip(drawn + (1 + 4 * np.clip(drawn, 0, 1)) / number, 0, _LONGEST_MEMORY)
    return memory


def _within(hours: Hours, fitted: float) -> Floats:
    """Return the variance (D,) of an hour's effect: analysis of variance of hours, and of blocks of six, within days.

    Effects that last some hours show more in blocks; an hour's variance is then taken so large that as many
    independent hours would move a block as much.
    """
    day_sums, day_rows, day = _blocks(hours, DAY)
    found = []
    for length in (DAY // 24, _BLOCK):
        sums, rows, block = _blocks(hours, length)
        place = np.searchsorted(day, block * length // DAY)
        free = max(len(block) - len(day), 1)
        away = sums / rows[:, None] - (day_sums / day_rows[:, None])[place]
        squares = (rows[:, None] * np.square(away)).sum(axis=0)
        weight = max((rows * (1 - rows / day_rows[place])).sum(), 1.0)
        # Of blocks, whose variance is then multiplied, only what is beyond chance.
        chance = free + (np.sqrt(2 * free) if length == _BLOCK else 0)
        # What the fitted season has taken is given back to the effect alone: chance is not made more by it.
        found.append(np.maximum(squares - chance, 0) * fitted / weight * (length * 24 // DAY))
    variance: Floats = np.maximum(*found)
    return variance


def _widening(free: Floats) -> Floats:
    """Return by what to multiply an estimated variance with `free` degrees of freedom to be on the safe side.

    It is `free` over the quantile of chi squared, by Wilson and Hilferty's approximation.
    """
    part = 2 / (9 * free)
    quantile = 1 - part - NormalDist().inv_cdf(_CONFIDENCE) * np.sqrt(part)
    wide: Floats = np.maximum(quantile, 0.2) ** -3
    return wide
