"""One request, answered: the rows, who scored them, and what of it was heard."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from app.serving.codec import Batch
from app.serving.loaded import Loaded
from app.types import CategoryMatrix, Features, NumberMatrix, Scores

Mask: TypeAlias = npt.NDArray[np.bool_]


def finite(scores: Scores) -> Mask:
    """Say of every row (n,) whether its score, or all of them, is a number."""
    found = np.isfinite(scores)
    return np.asarray(found if found.ndim == 1 else found.all(axis=1), np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Second:
    """What a challenger made of its m of a request's n rows; without features and scores where it failed.

    `asked` (n,) are the rows that were its to answer, `good` (n,) those it did answer; `not_finite` of them had a
    score that is no number.
    """

    asked: Mask
    features: Features | None
    scores: Scores | None
    good: Mask
    not_finite: int = 0

    @staticmethod
    def failed(asked: Mask) -> "Second":
        """Return that none of the rows was answered."""
        return Second(asked, None, None, np.zeros_like(asked))

    @staticmethod
    def of(asked: Mask, features: Features, scores: Scores) -> "Second":
        """Return what a challenger answered; rows whose score is no number are left to the champion."""
        numbers, good = finite(scores), asked.copy()
        good[asked] = numbers
        return Second(asked, features, scores, good, int(len(numbers) - numbers.sum()))

    def answers(self) -> tuple[NumberMatrix, CategoryMatrix, Scores]:
        """Return features and scores of the rows it answered."""
        assert self.features is not None
        assert self.scores is not None
        kept = self.good[self.asked]
        return *self.features.rows(kept), self.scores[kept]

    def merge(self, scores: Scores) -> Scores:
        """Return the champion's scores (n,) with the challenger's where it answered."""
        if self.scores is None:
            return scores
        merged = scores.copy()
        merged[self.good] = self.scores[self.good[self.asked]]
        return merged


class Answered(NamedTuple):
    """A request's rows with the champion's scores of all of them.

    `arrival` is in ms since 1970, `size` the bytes of the body. `challenger` scores the rows unheard later on, unless `second` says what it answered.
    """

    batch: Batch
    scores: Scores
    arrival: int
    champion: Loaded
    challenger: Loaded | None
    second: Second | None
    size: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.scores)

    @property
    def weight(self) -> int:
        """What they take of a bound on waiting rows: as many as there are, or one for each KiB if those are more."""
        return max(self.rows, self.size >> 10)
