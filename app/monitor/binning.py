"""In which bin does a row fall? The fixed bins of one model version, the same in training and in every replica.

Every watched thing has `bins + 2` of them: bin 0 is missing, bin 1 is outside the training range (of a
category: unseen), the rest are the values. Watched are, in this order:

- number:     bins at the training rows' quantiles
- category:   the `bins` - 1 most common values, and one bin for all others
- component:  the numbers' normal scores on their whitened principal components: sees a change of correlation
- distance:   the squared length of all components (squared Mahalanobis distance)
- prediction: bins at the validation scores' quantiles; with several classes the likeliest class
- confidence: the likeliest class's probability (several classes only)

Shapes: n rows, N numbers, C categories, k components, W watched things.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from app.data.features import TaskType
from app.types import FIRST_ID, MISSING_ID, UNSEEN_ID, Features, Scores, Targets

Kind = Literal["number", "category", "component", "distance", "prediction", "confidence"]
Season = Literal["none", "hour_of_week", "hour_of_day"]
Codes: TypeAlias = npt.NDArray[np.uint16]
Counts: TypeAlias = npt.NDArray[np.uint32]

MISSING, OUTSIDE, FIRST = MISSING_ID, UNSEEN_ID, FIRST_ID
SLOTS: dict[Season, int] = {"none": 1, "hour_of_week": 168, "hour_of_day": 48}

_ROWS_AT_ONCE = 2048
_SMALLEST_VARIANCE = 0.01  # of a component, where independent numbers have 1 each
_GRID = 2.0**12


def season_slots(season: Season, time: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the season slots (n,) of moments in ms since 1970 (UTC).

    Hour of the day, and 24 more on a weekend; or hour of the week from Monday; or 0.
    """
    hours = time // 3_600_000
    weekday = (hours // 24 + 3) % 7  # 1970 began on a Thursday
    if season == "hour_of_day":
        return hours % 24 + 24 * (weekday >= 5)
    return hours % 24 + 24 * weekday if season == "hour_of_week" else np.zeros_like(hours)


class Edges(NamedTuple):
    """Bins of w real quantities: value x is in bin FIRST + number of `inner` edges that are <= x."""

    lowest: npt.NDArray[np.float32]  # (w,)
    highest: npt.NDArray[np.float32]  # (w,)
    inner: npt.NDArray[np.float32]  # (w, bins - 1); +inf where ties leave fewer bins

    @staticmethod
    def at(quantiles: list[npt.NDArray[np.floating]], bins: int) -> "Edges":
        """Put the edges at evenly spaced quantiles (each ascending, or empty: then all is outside)."""
        size = len(quantiles)
        lowest, highest = np.full(size, np.inf, np.float32), np.full(size, -np.inf, np.float32)
        inner = np.full((size, bins - 1), np.inf, np.float32)
        for i, values in enumerate(quantiles):
            if len(values):
                place = np.linspace(0, len(values) - 1, bins + 1).round().astype(np.int64)
                chosen = values[place].astype(np.float32)
                lowest[i], highest[i] = chosen[0], chosen[-1]
                kept = np.unique(chosen[1:-1])
                inner[i, : len(kept)] = kept
        return Edges(lowest, highest, inner)

    def codes(self, values: npt.NDArray[np.float32]) -> Codes:
        """Return the bins (w, n) of values (w, n), NaN for missing."""
        # Comparing with every edge beats a search: it never branches, and runs at the width of the registers.
        found = np.full(values.shape, FIRST, np.uint16)
        for edge in self.inner.T:
            found += values >= edge[:, None]
        found[(values < self.lowest[:, None]) | (values > self.highest[:, None])] = OUTSIDE
        found[np.isnan(values)] = MISSING
        return found


class Basis(NamedTuple):
    """Whitened principal components of the numbers' normal scores.

    Both arrays are whole numbers in float64, in units of 1 / 4096: their products and sums are exact, so that
    a row's components are the same in any batch and on any machine.
    """

    normal: npt.NDArray[np.float64]  # (N, bins + 2): the normal score of a bin's middle rank
    directions: npt.NDArray[np.float64]  # (k, N)

    @staticmethod
    def of(codes: Codes, bins: int, most: int) -> "Basis":
        """Fit to the bins (N, n) of training rows' numbers; at most `most` components."""
        normal = np.stack([_normal_scores(np.bincount(row, minlength=bins + FIRST)) for row in codes])
        scores = np.take_along_axis(normal, codes.astype(np.int64), axis=1)
        variance, directions = np.linalg.eigh(np.cov(scores, bias=True).reshape(len(codes), len(codes)))
        chosen = [i for i in np.argsort(-variance)[:most] if variance[i] > _SMALLEST_VARIANCE]
        whitened = (directions[:, chosen] / np.sqrt(variance[chosen])).T
        return Basis(np.rint(normal * _GRID), np.rint(whitened * _GRID))

    def project(self, codes: Codes) -> npt.NDArray[np.float32]:
        """Return the components and, last, their squared length (k + 1, n), of numbers' bins (N, n)."""
        scores = np.empty(codes.shape)
        for row, code, normal in zip(scores, codes, self.normal, strict=True):
            normal.take(code, out=row)
        components = (self.directions @ scores) / _GRID**2
        length = np.square(components).sum(axis=0, keepdims=True)
        return np.concatenate([components, length]).astype(np.float32)


def _normal_scores(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the standard normal quantile of each bin's middle rank; 0, the middle, for missing and outside."""
    values, scores = counts[FIRST:], np.zeros(len(counts))
    if values.any():
        rank = (np.cumsum(values) - values / 2) / values.sum()
        quantile = NormalDist().inv_cdf
        scores[FIRST:] = [quantile(value) for value in np.clip(rank, 0.001, 0.999).tolist()]
    return scores


@dataclass(frozen=True)
class Binning:
    """All that a replica needs to count what it sees."""

    task: TaskType
    classes: int
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    bins: int
    season: Season
    number: Edges
    basis: Basis | None  # None: no components are watched
    component: Edges  # components, then distance
    score: Edges  # of the prediction; with several classes of the confidence
    label: Edges  # of a regression's target; else of nothing

    @property
    def watched(self) -> tuple[tuple[Kind, str], ...]:
        """Kind and name of every row of counts; a name is a column's, or a component's ordinal."""
        found: list[tuple[Kind, str]] = [("number", name) for name in self.numbers]
        found += [("category", name) for name in self.categories]
        if self.basis:
            found += [("component", str(i + 1)) for i in range(len(self.basis.directions))]
            found.append(("distance", ""))
        found.append(("prediction", ""))
        return (*found, ("confidence", "")) if self.task == "multiclass" else tuple(found)

    @property
    def width(self) -> int:
        """Bins of a row of counts, missing and outside among them."""
        return self.bins + FIRST

    @property
    def labels(self) -> int:
        """Bins of a label: 2, the classes, or a regression's bins."""
        return {"binary": 2, "multiclass": self.classes, "regression": self.width}[self.task]

    def slots(self, time: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the season slots (n,) of moments in ms since 1970 (UTC)."""
        return season_slots(self.season, time)

    def count(self, features: Features, scores: Scores) -> Counts:
        """Return the counts (W, bins + 2) of n rows."""
        counts: Counts = self.count_groups(features, scores, np.zeros(len(scores), np.int64), 1)[0]
        return counts

    def count_groups(self, features: Features, scores: Scores, groups: npt.NDArray[np.int64], number: int) -> Counts:
        """Return the counts (number, W, bins + 2) of n rows, each in one of `number` groups (n,)."""

        def code(piece: slice) -> Codes:
            return np.concatenate([self.feature_codes(features.rows(piece)), self.score_codes(scores[piece])])

        return self._tally(code, groups, number)

    def count_features(self, features: Features, groups: npt.NDArray[np.int64], number: int) -> Counts:
        """Return the counts (number, w, bins + 2) of what features alone tell, by the rows' groups (n,)."""
        return self._tally(lambda piece: self.feature_codes(features.rows(piece)), groups, number)

    def count_scores(self, scores: Scores, groups: npt.NDArray[np.int64], number: int) -> Counts:
        """Return the counts (number, w, bins + 2) of prediction and confidence, by the rows' groups (n,)."""
        return self._tally(lambda piece: self.score_codes(scores[piece]), groups, number)

    def _tally(self, code: Callable[[slice], Codes], groups: npt.NDArray[np.int64], number: int) -> Counts:
        """Count the bins that `code` gives to pieces of the rows; pieces stay in the cache."""
        rows = len(code(slice(0, 0)))
        first = np.arange(rows)[:, None] * self.width
        counts = np.zeros(number * rows * self.width, np.int64)
        for start in range(0, len(groups), _ROWS_AT_ONCE):
            piece = slice(start, start + _ROWS_AT_ONCE)
            places = code(piece) + (first + groups[piece] * (rows * self.width))
            counts += np.bincount(places.ravel(), minlength=len(counts))
        return counts.astype(np.uint32).reshape(number, rows, self.width)

    def count_labels(self, scores: Scores, target: Targets) -> Counts:
        """Return how often each bin of the prediction met each label (bins + 2, labels); NaN is no label."""
        known = ~np.isnan(target)
        target = target[known]
        label = self.label.codes(target[None])[0] if self.task == "regression" else target.astype(np.int64)
        places = self.score_codes(scores[known])[0] * np.int64(self.labels) + label
        counts = np.bincount(places, minlength=self.width * self.labels)
        return counts.astype(np.uint32).reshape(self.width, self.labels)

    def feature_codes(self, features: Features) -> Codes:
        """Return the bins (w, n) of numbers, categories, components and distance."""
        number = self.number.codes(np.ascontiguousarray(features.number.T))
        parts = [number, np.minimum(features.category.T, self.width - 1).astype(np.uint16)]
        if self.basis:
            parts.append(self.component.codes(self.basis.project(number)))
        return np.concatenate(parts)

    def score_codes(self, scores: Scores) -> Codes:
        """Return the bins (w, n) of prediction and confidence."""
        if self.task != "multiclass":
            return self.score.codes(scores[None])
        likeliest = np.minimum(scores.argmax(axis=1) + FIRST, self.width - 1).astype(np.uint16)
        return np.concatenate([likeliest[None], self.score.codes(scores.max(axis=1)[None])])
