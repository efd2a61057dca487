"""The contract between the rooms, in the fewest lines: what a row becomes on its way.

rows -> `Features` -> scores. Shapes: n rows, N number features, C category features, K classes.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

NumberMatrix: TypeAlias = npt.NDArray[np.float32]  # (n, N); NaN means missing, never infinite
CategoryMatrix: TypeAlias = npt.NDArray[np.int64]  # (n, C); 0 missing, 1 unseen, 2.. the vocabulary
Scores: TypeAlias = npt.NDArray[np.float32]  # binary (n,) probability of class 1; multiclass (n, K); regression (n,)
Targets: TypeAlias = npt.NDArray[np.float32]  # binary 0/1; multiclass class index; regression value; NaN = no label

MISSING_ID = 0
UNSEEN_ID = 1
FIRST_ID = 2


class Features(NamedTuple):
    """n rows, ready for the network: the only thing a graph ever takes."""

    number: NumberMatrix
    category: CategoryMatrix

    def rows(self, index: slice | npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Features":
        """Return the chosen rows, in the order of `index`."""
        return Features(self.number[index], self.category[index])


class UserError(Exception):
    """A mistake of the user's, said clearly: what was found, what is allowed, where. Never a bug."""


class DivergedError(UserError):
    """A training whose loss is no longer finite."""
