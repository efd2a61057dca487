"""In which ways can a watched thing move? Standardised scores of its bins, and what they normally are.

A direction gives every bin of one watched thing a score `phi` with mean 0 and variance 1 over the reference's
rows: one row then counts as much in one direction as in another, and a shift is told in standard deviations.

- location, scale, skew: polynomials of the mid-rank, of rising degree, orthogonal to each other (on even bins
  Legendre's); a missing or outside value scores 0
- missing, outside (of a category: unseen), value: 1 in one bin, 0 elsewhere, then standardised

Shapes: W watched things, B = bins + 2 bins, D directions, S season slots.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from app.monitor.binning import FIRST, MISSING, OUTSIDE, SLOTS, Binning, Counts

Name = Literal["location", "scale", "skew", "missing", "outside", "unseen", "value"]
Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

_POLYNOMIALS: tuple[Name, ...] = ("location", "scale", "skew")
_SMALLEST_VARIANCE = 1e-4  # of an indicator: below, one row would weigh as much as thousands
_SMALLEST_SHARE = 1e-3  # of a polynomial's variance that those of lower degree do not explain
_FEWEST = {MISSING: 1.0, OUTSIDE: 2.0}  # rows at least; as many of the next n lie outside the range of n, on average


class Window(NamedTuple):
    """What was seen in one closed hour, counted and projected: all that a detector is told."""

    start: int  # event time, ms since 1970 UTC
    counts: Counts  # (W, B)
    slot: int
    sums: Floats  # (D,) of the rows' scores less their season's mean
    rows: Floats  # (D,) rows that were counted


@dataclass(frozen=True)
class Directions:
    """Scores of bins, and their means by season."""

    binning: Binning
    thing: Integers  # (D,) the direction's row among `binning.watched`
    name: tuple[Name, ...]  # (D,)
    bin: Integers  # (D,) that missing, outside, unseen and value are about; -1 of polynomials
    phi: Floats  # (D, B)
    season: Floats  # (S, D) mean score by season slot
    season_error: Floats  # (S, D) its standard error, were rows independent
    rows: Floats  # (D,) reference rows

    @staticmethod
    def of(binning: Binning, counts: Counts, unseen: Floats) -> "Directions":
        """Choose the directions by the reference's counts (S, W, B) and the unseen share (C,) of categories."""
        smooth = _smooth(binning, counts.astype(np.float64), unseen)
        total = smooth.sum(axis=0)
        thing: list[int] = []
        name: list[Name] = []
        place: list[int] = []
        scores: list[Floats] = []
        for row, (kind, _) in enumerate(binning.watched):
            share = total[row] / total[row].sum()
            coded = kind == "category" or (kind == "prediction" and binning.task == "multiclass")
            found: list[tuple[Name, int, Floats]] = []
            if coded:
                values = [b for b in range(FIRST, len(share)) if counts[:, row, b].any()]
                if len(values) > 1:
                    found += [("value", b, _indicator(share, b)) for b in values]
            else:
                found += [(n, -1, phi) for n, phi in zip(_POLYNOMIALS, _polynomials(share), strict=False)]
            if kind not in ("component", "distance"):
                found.append(("missing", MISSING, _indicator(share, MISSING)))
            found.append(("unseen" if kind == "category" else "outside", OUTSIDE, _indicator(share, OUTSIDE)))
            for chosen, b, phi in found:
                thing.append(row)
                name.append(chosen)
                place.append(b)
                scores.append(phi)
        phi, of = np.stack(scores), np.array(thing)
        season, error = shrunken(np.einsum("sdb,db->sd", smooth[:, of], phi), smooth[:, of].sum(axis=2))
        return Directions(binning, of, tuple(name), np.array(place), phi, season, error, total[of].sum(axis=1))

    def __len__(self) -> int:
        """Return D."""
        return len(self.thing)

    def window(self, start: int, counts: Counts) -> Window:
        """Project the counts (W, B) of the hour that starts at `start`, ms since 1970 UTC."""
        slot = self.binning.slots(np.array([start]))
        sums, rows = self.project(counts[None], slot)
        return Window(start, counts, int(slot[0]), sums[0], rows[0])

    def project(self, counts: Counts, slots: Integers) -> tuple[Floats, Floats]:
        """Return sums (n, D) of scores less their season's mean, and rows (n, D), of counts (n, W, B) in slots (n,)."""
        mine = counts[:, self.thing].astype(np.float64)
        rows = mine.sum(axis=2)
        return np.einsum("ndb,db->nd", mine, self.phi) - rows * self.season[slots], rows

    @cached_property
    def weight(self) -> Floats:
        """Share (D,) of the false-alarm budget: the same for every watched thing, and within it for every direction."""
        many = np.bincount(self.thing, minlength=len(self.binning.watched))
        weight: Floats = 1 / (many[self.thing] * np.count_nonzero(many))
        return weight

    @cached_property
    def day_off(self) -> tuple[Floats, Floats]:
        """How far the mean scores (D,) of a working day like a weekend's would be from what is expected.

        The day's, and the root mean square of its hours' about the day's.
        """
        if len(self.season) == SLOTS["none"]:
            return np.zeros(len(self)), np.zeros(len(self))
        week = len(self.season) == SLOTS["hour_of_week"]
        free = 24 * (5 if week else 1)  # slots before are of working days
        work, off = (part.reshape(-1, 24, len(self)).mean(axis=0) for part in np.split(self.season, [free]))
        return np.abs((off - work).mean(axis=0)), (off - work).std(axis=0)

    @cached_property
    def largest(self) -> Floats:
        """The largest score (D,), up or down, that a single row can have."""
        largest: Floats = np.abs(self.phi).max(axis=1)
        return largest


def _smooth(binning: Binning, counts: Floats, unseen: Floats) -> Floats:
    """Return counts (S, W, B) in which no rate of missing, outside or unseen values is zero for want of rows."""
    rows = counts.sum(axis=2)  # (S, W)
    share = rows / np.maximum(rows.sum(axis=0), 1)
    smooth = counts.copy()
    for place in (MISSING, OUTSIDE):
        lacking = np.maximum(_FEWEST[place] - counts[:, :, place].sum(axis=0), 0)
        smooth[:, :, place] += share * lacking
    category = slice(len(binning.numbers), len(binning.numbers) + len(binning.categories))
    known = rows[:, category] - counts[:, category, OUTSIDE]
    smooth[:, category, OUTSIDE] = known * unseen / (1 - unseen)
    return smooth


def _indicator(share: Floats, place: int) -> Floats:
    """Return the standardised indicator of one bin, by the bins' shares of the rows (B,)."""
    phi: Floats = (np.arange(len(share)) == place) - share[place]
    phi /= np.sqrt(max(share[place] * (1 - share[place]), _SMALLEST_VARIANCE))
    return phi


def _polynomials(share: Floats) -> list[Floats]:
    """Return scores (B,) of rising degree, as many as the values' bins tell apart, by the shares of the rows (B,)."""
    values = share[FIRST:]
    if not values.any():
        return []
    middle = (np.cumsum(values) - values / 2) / values.sum() * 2 - 1
    found: list[Floats] = []
    lower = [np.ones_like(middle)]
    for degree in range(1, len(_POLYNOMIALS) + 1):
        raw = middle**degree
        rest = raw.copy()
        for one in lower:
            rest -= one * (values @ (rest * one)) / (values @ np.square(one))
        variance = values @ np.square(rest)
        if variance <= _SMALLEST_SHARE * (values @ np.square(raw)):
            break
        lower.append(rest)
        found.append(np.concatenate([np.zeros(FIRST), rest / np.sqrt(variance)]))
    return found


def shrunken(sums: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Return means (S, D) by season slot and their standard errors, by sums (S, D) over `rows` (S, D) rows' scores.

    A slot's mean is drawn towards the overall mean, 0, by what its few rows leave open: with `between` the variance
    of the true means and 1 within a slot, the posterior of a normal prior (empirical Bayes).
    """
    used = np.maximum(rows, 1e-9)
    spread = (np.square(sums) / used).sum(axis=0) - (np.count_nonzero(rows, axis=0) - 1)
    all_rows = np.maximum(rows.sum(axis=0), 1e-9)
    between = np.maximum(spread, 0) / np.maximum(all_rows - np.square(rows).sum(axis=0) / all_rows, 1e-9)
    shrink = between / (1 + rows * between)
    return sums * shrink, np.sqrt(shrink)
