"""Is traffic sent twice? Ids that were there before, and rows that are the same as earlier ones."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

_BLOCK = 200  # rows that are judged together
_REMEMBERED = 20_000
_SHARE = 0.2  # of a block's rows that are too many: ids name rows, and so never come twice
_LEARNING = 0.1


class Repeats(NamedTuple):
    """What comes twice, "ids" or "rows", its share of a block of rows, and figures."""

    of: str
    share: float
    detail: dict[str, Any]


@dataclass
class Traffic:
    """Counts of the block that is being filled, hashes of recent rows, and how many rows usually are the same."""

    rows: int = 0
    repeated: int = 0
    same: int = 0
    usual: float | None = None
    hashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, features: pa.ChunkedArray, repeated: int) -> list[Repeats]:
        """Take in the features (n,) of a step's rows, `repeated` of them with known ids; n > 0."""
        series = pl.Series("features", features.combine_chunks())
        hashes = series.hash(seed=0).to_numpy()
        fresh = ~np.isin(hashes, self.hashes)
        self.rows += len(hashes)
        self.repeated += repeated
        self.same += len(hashes) - len(np.unique(hashes[fresh]))
        self.hashes = np.concatenate([self.hashes, hashes])[-_REMEMBERED:]
        if self.rows < _BLOCK:
            return []
        ids, same = self.repeated / self.rows, self.same / self.rows
        figures = {"rows": self.rows, "repeated": self.repeated, "same": self.same}
        self.rows = self.repeated = self.same = 0
        if ids > _SHARE:
            return [Repeats("ids", ids, figures)]
        # A table of few values is full of equal rows: what counts is that they become many at once.
        usual = same if self.usual is None else self.usual
        if same > usual + _SHARE:
            return [Repeats("rows", same, figures | {"usual": round(usual, 4)})]
        self.usual = usual + _LEARNING * (same - usual)
        return []
