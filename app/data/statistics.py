"""What one pass over rows learns about features and target: partials that merge in any order to the same result.

Every part of a `FeatureStatistics` is a set union or an exact sum, so `merge` is associative and commutative to
the last bit, and the way rows were cut into tables, fragments and tasks does not show:

- category and class counts are whole numbers, kept up to a number of distinct values; a column with more is
  counted in the sample instead, so memory is bounded even where every row has a value of its own;
- the sample is bottom-k: the rows whose hashed position is smallest (Cohen, Kaplan: "Summarizing data using
  bottom-k sketches", 2007), so it depends on the set of rows alone;
- means and squared deviations are kept per piece of the table and only added up at the end, exactly rounded
  (`math.fsum`), by Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample
  variances" (1979). Another cut of the same rows moves them by rounding errors alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.data.features import TaskType, number_array, plain_categories, plain_labels
from app.spec import CategoryFeature, NumberFeature
from app.types import UserError

SAMPLE_ROWS = 65_536
"""Rows of the sample: quantiles are good to about 1 / sqrt(SAMPLE_ROWS) = 0.4 % of the ranks."""

DISTINCT_VALUES = 65_536
"""Distinct values counted exactly; twice `max_categories` where that is more."""

_ANY_HASH = 2**64 - 1
_NULLS = b"nulls"
_POOL = 3  # samples' worth of rows gathered before a merge thins them out

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """Which columns are measured, and how: numbers by moments, categories (with their limit) by counts."""

    number: tuple[str, ...]
    category: Mapping[str, int]
    target: str
    task: TaskType

    @staticmethod
    def of(features: Mapping[str, NumberFeature | CategoryFeature], target: str, task: TaskType) -> "Measured":
        """Measure these features and this target."""
        limits = {n: max(DISTINCT_VALUES, 2 * f.max_categories) for n, f in features.items() if f.type == "category"}
        return Measured(tuple(n for n, f in features.items() if f.type == "number"), limits, target, task)

    @property
    def with_moments(self) -> tuple[str, ...]:
        """Numbers, and the target of a regression last."""
        return (*self.number, self.target) if self.task == "regression" else self.number

    @property
    def with_counts(self) -> dict[str, int]:
        """Limit of distinct values by category, and of the target's classes last."""
        own = {} if self.task == "regression" else {self.target: DISTINCT_VALUES}
        return {**self.category, **own}


class Summary(NamedTuple):
    """A number column in the whole: rows present, their mean and squared deviations from it, extremes."""

    present: int
    mean: float
    squared: float
    min: float
    max: float

    @property
    def std(self) -> float:
        """Population standard deviation; 1 for a column without rows or too constant for float32 to tell."""
        std = math.sqrt(self.squared / self.present) if self.present else 0.0
        return std if self.min < self.max and std > abs(self.mean) * float(np.finfo(np.float32).eps) else 1.0


@dataclass(frozen=True)
class Moments:
    """Summaries (p, N, 5) of N columns in p pieces of the table, by the position of a piece's first row."""

    start: Positions
    rows: npt.NDArray[np.int64]
    summaries: npt.NDArray[np.float64]

    def total(self, i: int) -> Summary:
        """Return column i over all pieces, exactly rounded sums whatever their order."""
        own = self.summaries[self.summaries[:, i, 0] > 0, i]
        if not len(own):
            return Summary(0, 0.0, 0.0, math.nan, math.nan)
        present, mean, squared, low, high = own.T
        n = math.fsum(present)
        center = math.fsum(present * mean) / n
        spread = math.fsum(np.concatenate([squared, present * (mean - center) ** 2]))
        return Summary(int(n), center, spread, float(low.min()), float(high.max()))


@dataclass(frozen=True)
class Counts:
    """Rows by value (columns `value`, `count`; None when there were too many values) and rows without one."""

    table: pa.Table | None
    nulls: int

    @staticmethod
    def of(name: str, column: pa.ChunkedArray, limit: int) -> "Counts":
        """Count a category column, dictionary-encoded or plain, or a column of class labels."""
        parts = [_count_chunk(name, chunk) for chunk in column.chunks]
        counted = sum(int(pc.sum(count).as_py() or 0) for _, count in parts)
        tables = [pa.table({"value": value, "count": count}) for value, count in parts]
        return Counts(_union(tables, limit), len(column) - counted)

    @staticmethod
    def merge(parts: Sequence["Counts"], limit: int) -> "Counts":
        """Add up counts of the same column."""
        tables = [part.table for part in parts if part.table is not None]
        table = _union(tables, limit) if len(tables) == len(parts) else None
        return Counts(table, sum(part.nulls for part in parts))

    def to_table(self) -> pa.Table:
        """Return the counts as one table that `from_table` reads."""
        table = pa.table({}) if self.table is None else self.table
        return table.replace_schema_metadata({_NULLS: str(self.nulls)})

    @staticmethod
    def from_table(table: pa.Table) -> "Counts":
        """Read what `to_table` wrote."""
        nulls = int(table.schema.metadata[_NULLS])
        return Counts(table.replace_schema_metadata() if table.num_columns else None, nulls)


@dataclass(frozen=True)
class FeatureStatistics:
    """Everything a feature plan is made of, over the rows seen so far."""

    measured: Measured
    moments: Moments
    counts: Mapping[str, Counts]
    sample: pa.Table
    """The features (numbers with NaN for null), ordered by position: a user's own names, so nothing else is in it."""
    positions: Positions
    """Those of the sample's rows."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.moments.rows.sum())

    @staticmethod
    def of(table: pa.Table, measured: Measured, positions: Positions, below: int = _ANY_HASH) -> "FeatureStatistics":
        """Measure the rows of a table, one at least; `positions` (n,) are theirs in the whole table, ascending.

        Rows hashed above `below` are known not to be in the final sample. Raises UserError for an infinite number.
        """
        numbers = {name: number_array(name, table.column(name)) for name in measured.with_moments}
        summaries = np.array([_summary(name, values) for name, values in numbers.items()], np.float64)
        moments = Moments(
            positions[:1].copy(), np.array([table.num_rows]), summaries.reshape(1, len(numbers), len(Summary._fields))
        )
        counts = {name: Counts.of(name, table.column(name), limit) for name, limit in measured.with_counts.items()}
        chosen = _bottom(positions, below)
        sample = {
            name: pa.array(numbers[name].take(chosen).astype(np.float64, copy=False)) for name in measured.number
        }
        picked = pa.array(chosen)
        sample |= {name: plain_categories(name, table.column(name).take(picked)) for name in measured.category}
        return FeatureStatistics(measured, moments, counts, pa.table(sample), positions[chosen])

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """Return the statistics of both sets of rows, which must not overlap."""
        return FeatureStatistics.merge_all([self, other])

    def to_row(self) -> pa.Table:
        """Return a table of one row, each cell an Arrow stream: the form in which partials travel."""
        moments = pa.table(
            {
                "start": self.moments.start,
                "rows": self.moments.rows,
                "summaries": list(self.moments.summaries.reshape(len(self.moments.start), -1)),
            }
        )
        positions = pa.table({"positions": self.positions})
        tables = {"moments": moments, "sample": self.sample, "positions": positions}
        for name, counts in self.counts.items():
            tables[f"counts of {name}"] = counts.to_table()
        return pa.table({name: _write(table) for name, table in tables.items()})

    @staticmethod
    def from_row(row: pa.Table, measured: Measured) -> "FeatureStatistics":
        """Read what `to_row` wrote for the same columns."""
        tables = {name: _read(row.column(name)[0].as_buffer()) for name in row.column_names}
        moments = tables["moments"]
        summaries = moments.column("summaries").combine_chunks().flatten().to_numpy()
        return FeatureStatistics(
            measured,
            Moments(
                moments.column("start").to_numpy(),
                moments.column("rows").to_numpy(),
                summaries.reshape(moments.num_rows, -1, len(Summary._fields)),
            ),
            {name: Counts.from_table(tables[f"counts of {name}"]) for name in measured.with_counts},
            tables["sample"],
            tables["positions"].column(0).to_numpy(),
        )

    @staticmethod
    def merge_all(parts: Sequence["FeatureStatistics"]) -> "FeatureStatistics":
        """Return the statistics of all the sets of rows together; at least one is needed."""
        measured = parts[0].measured
        start = np.concatenate([part.moments.start for part in parts])
        order = np.argsort(start)
        moments = Moments(
            start[order],
            np.concatenate([part.moments.rows for part in parts])[order],
            np.concatenate([part.moments.summaries for part in parts])[order],
        )
        counts = {
            name: Counts.merge([part.counts[name] for part in parts], limit)
            for name, limit in measured.with_counts.items()
        }
        pool = pa.concat_tables([part.sample for part in parts])
        positions = np.concatenate([part.positions for part in parts])
        chosen = _bottom(positions)
        chosen = chosen[np.argsort(positions[chosen])]
        sample = pool.take(pa.array(chosen)).combine_chunks()
        return FeatureStatistics(measured, moments, counts, sample, positions[chosen])


class Pool:
    """Partials on their way to one: merged now and then, so that a stream of any length takes bounded memory."""

    def __init__(self) -> None:
        self._parts: list[FeatureStatistics] = []
        self._below = _ANY_HASH

    def add(self, table: pa.Table, measured: Measured, positions: Positions) -> None:
        """Measure a table and add what was found; see `FeatureStatistics.of`."""
        self.add_partial(FeatureStatistics.of(table, measured, positions, self._below))

    def add_partial(self, part: FeatureStatistics) -> None:
        """Add what was measured elsewhere."""
        self._parts.append(part)
        if sum(len(part.positions) for part in self._parts) > _POOL * SAMPLE_ROWS:
            merged = FeatureStatistics.merge_all(self._parts)
            self._parts = [merged]
            self._below = int(hash_positions(merged.positions).max())

    def merged(self) -> FeatureStatistics | None:
        """Return the statistics of all rows added; None when there were none."""
        return FeatureStatistics.merge_all(self._parts) if self._parts else None


def hash_positions(positions: Positions) -> npt.NDArray[np.uint64]:
    """Return splitmix64 of each position (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
    2014): a permutation of the 64-bit numbers, so no two rows tie."""
    x = positions.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: npt.NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return hashed


def _bottom(positions: Positions, below: int = _ANY_HASH) -> npt.NDArray[np.int64]:
    """Return the ascending indices of the SAMPLE_ROWS positions with the smallest hashes up to `below`."""
    hashed = hash_positions(positions)
    index = np.flatnonzero(hashed <= np.uint64(below))
    if len(index) > SAMPLE_ROWS:
        index = np.sort(index[np.argpartition(hashed[index], SAMPLE_ROWS)[:SAMPLE_ROWS]])
    return index


def _summary(name: str, values: npt.NDArray[np.float64] | npt.NDArray[np.float32]) -> Summary:
    total = float(values.sum(dtype=np.float64))
    if math.isnan(total):  # far quicker than to look for NaN in every column
        values = values[~np.isnan(values)]
        total = float(values.sum(dtype=np.float64))
    if not len(values):
        return Summary(0, 0.0, 0.0, math.nan, math.nan)
    low, high = float(values.min()), float(values.max())
    if math.isinf(low) or math.isinf(high):
        raise UserError(f"number {name!r}: found {low if math.isinf(low) else high}, allowed finite numbers and null")
    mean = min(max(total / len(values), low), high)  # rounding must not move a constant
    deviation = values - np.float64(mean)
    return Summary(len(values), mean, float(deviation @ deviation), low, high)


def _count_chunk(name: str, chunk: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the distinct values of a chunk, in the plain type of their kind, and how many rows have each."""
    if not pa.types.is_dictionary(chunk.type) or chunk.dictionary.null_count:
        counted = pc.value_counts(plain_labels(name, chunk).drop_null())
        return counted.field("values"), counted.field("counts")
    indices = chunk.indices.drop_null() if chunk.indices.null_count else chunk.indices
    count = np.bincount(indices.to_numpy(), minlength=len(chunk.dictionary))
    seen = np.flatnonzero(count)
    return plain_categories(name, chunk.dictionary.take(pa.array(seen))), pa.array(count[seen])


def _union(tables: Sequence[pa.Table], limit: int) -> pa.Table | None:
    pool = pa.concat_tables(tables)
    if len(tables) > 1:
        pool = pool.group_by("value", use_threads=False).aggregate([("count", "sum")])
        pool = pool.rename_columns(["value", "count"]).combine_chunks()
    return pool if pool.num_rows <= limit else None


def _write(table: pa.Table) -> pa.Array:
    """Return the table as one cell of a column, without a copy of the stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = sink.getvalue()
    offsets = pa.py_buffer(np.array([0, stream.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, stream])


def _read(buffer: pa.Buffer) -> pa.Table:
    with pa.ipc.open_stream(buffer) as reader:
        return reader.read_all()
