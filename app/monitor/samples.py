"""Which raw values did recent hours bring? A bounded, repeatable sample of rows an hour, for the diagnosis."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from app.monitor.clock import HOUR

ROWS_AN_HOUR = 128
HOURS = 72


@dataclass
class Samples:
    """Up to `ROWS_AN_HOUR` rows of each of the newest `HOURS` hours of event time that brought any.

    Which rows is decided by a hash of step and place, so that every row of an hour is as likely and the same
    steps always give the same sample.
    """

    rows: pl.DataFrame = field(default_factory=pl.DataFrame)  # hour, order, features

    def add(self, step: int, predictions: pa.Table) -> None:
        """Add a step's predictions, n > 0."""
        hour = predictions["event"].cast(pa.int64()).to_numpy() // HOUR * HOUR
        order = _hash(step, len(hour))
        chosen = np.sort(_smallest(hour, order))
        features = predictions["features"].take(pa.array(chosen)).combine_chunks()
        new = pl.DataFrame({"hour": hour[chosen], "order": order[chosen], "features": pl.Series(features)})
        if len(self.rows) and self.rows.schema != new.schema:  # a version with other features answers
            self.rows = pl.DataFrame()
        both = pl.concat([self.rows, new]) if len(self.rows) else new
        newest = both["hour"].unique().sort().tail(HOURS)
        both = both.filter(pl.col("hour").is_in(newest.implode()))
        kept = _smallest(both["hour"].to_numpy(), both["order"].to_numpy())
        self.rows = both[np.sort(kept)]

    def between(self, start: int, end: int) -> pl.DataFrame:
        """Return the features of sampled rows from `start` to before `end` (ms), in order of arrival."""
        if self.rows.is_empty():
            return self.rows
        chosen = self.rows.filter((pl.col("hour") >= start) & (pl.col("hour") < end))
        return chosen["features"].struct.unnest()


def _hash(step: int, rows: int) -> npt.NDArray[np.uint64]:
    """Mix step and place into evenly spread numbers (Steele, Lea, Flood: SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = (np.arange(rows, dtype=np.uint64) + (np.uint64(step) << np.uint64(32))) * np.uint64(
            0x9E3779B97F4A7C15
        )
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _smallest(hour: npt.NDArray[np.int64], order: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the rows with the smallest `order` of every hour."""
    rank = np.lexsort((order, hour))
    _, start, rows = np.unique(hour[rank], return_index=True, return_counts=True)
    place = np.arange(len(hour)) - np.repeat(start, rows)
    return rank[place < ROWS_AN_HOUR]
