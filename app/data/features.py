"""The one feature function: raw columns become a float32 matrix and an id matrix, everywhere the same.

A `FeaturePlan` is fitted once (`app.data.fit`), travels in the bundle, and is all that training, batch
prediction and the endpoint know about features.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.spec import Value
from app.types import FIRST_ID, MISSING_ID, UNSEEN_ID, Features, NumberMatrix, Targets, UserError

Kind = Literal["string", "integer", "boolean"]
TaskType = Literal["binary", "multiclass", "regression"]

_ARROW: dict[Kind, pa.DataType] = {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}


@dataclass(frozen=True)
class NumberColumn:
    """A number feature: its limits, and the training rows' statistics that the network normalises with.

    `quantiles` are 257 evenly spaced quantiles of the training rows' present values (none when all are null).
    """

    name: str
    required: bool = False
    min: float | None = None
    max: float | None = None
    mean: float = 0.0
    std: float = 1.0
    nulls: float = 0.0
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True)
class CategoryColumn:
    """A category feature: id `FIRST_ID + i` is `vocabulary[i]`, most common first."""

    name: str
    kind: Kind
    vocabulary: tuple[Value, ...]
    required: bool = False
    values: tuple[Value, ...] | None = None
    nulls: float = 0.0

    @property
    def size(self) -> int:
        """Number of ids, missing and unseen among them."""
        return FIRST_ID + len(self.vocabulary)

    @cached_property
    def ids(self) -> dict[Value | None, int]:
        """Id by value; None is missing."""
        found: dict[Value | None, int] = {value: FIRST_ID + i for i, value in enumerate(self.vocabulary)}
        found[None] = MISSING_ID
        return found

    @cached_property
    def _values(self) -> pa.Array:
        return pa.array(self.vocabulary, type=_ARROW[self.kind])

    def encode(self, column: pa.ChunkedArray | pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the ids (n,) of a column of this kind, dictionary-encoded or plain."""
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if pa.types.is_dictionary(column.type):
            known = self._lookup(column.dictionary)
            if column.null_count == 0:
                taken: np.ndarray[Any, np.dtype[np.int64]] = known[column.indices.to_numpy(zero_copy_only=False)]
                return taken
            indices = column.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
            return np.append(known, MISSING_ID)[indices]
        return self._lookup(column)

    def _lookup(self, values: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
        found = pc.index_in(values.cast(_ARROW[self.kind]), value_set=self._values)
        ids = np.asarray(found.fill_null(UNSEEN_ID - FIRST_ID).to_numpy(zero_copy_only=False), np.int64) + FIRST_ID
        if values.null_count:
            ids[values.is_null().to_numpy(zero_copy_only=False)] = MISSING_ID
        return ids


@dataclass(frozen=True)
class TargetColumn:
    """The target: its task and, for a class, the values; binary is (negative, positive)."""

    name: str
    task: TaskType
    classes: tuple[Value, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @property
    def outputs(self) -> int:
        """Width of the network's last layer."""
        return len(self.classes) if self.task == "multiclass" else 1

    def encode(self, column: pa.ChunkedArray | pa.Array) -> Targets:
        """Return float32 (n,): 0/1, the class index or the value; NaN where there is no label.

        Raises UserError for a class that was not there in training.
        """
        if self.task == "regression":
            return _numbers(column)
        found = pc.index_in(column, value_set=pa.array(self.classes).cast(column.type))
        wrong = pc.and_(pc.is_null(found), pc.is_valid(column))
        if pc.any(wrong).as_py():
            value = pc.filter(column, wrong)[0].as_py()
            raise UserError(f"target {self.name!r}: found {value!r}, allowed {list(self.classes)}")
        return _numbers(found)


def _numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return float32 with NaN for null, by way of float64 as JSON numbers go too."""
    if not pa.types.is_float32(column.type):
        column = column.cast(pa.float64(), safe=False)
    with np.errstate(over="ignore"):
        return np.asarray(
            column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy(), np.float32
        )


@dataclass(frozen=True)
class FeaturePlan:
    """How raw columns become `Features`, and what the target is."""

    number: tuple[NumberColumn, ...]
    category: tuple[CategoryColumn, ...]
    target: TargetColumn
    key: str | None = None
    time: str | None = None
    rows: int = field(default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """Every feature's column, numbers first."""
        return tuple(column.name for column in (*self.number, *self.category))

    def encode(self, table: pa.Table | pa.RecordBatch) -> Features:
        """Return the features of all rows; columns are found by name, others are left aside."""
        number: NumberMatrix = np.empty((table.num_rows, len(self.number)), np.float32)
        for i, number_column in enumerate(self.number):
            number[:, i] = _numbers(table.column(number_column.name))
        category = np.empty((table.num_rows, len(self.category)), np.int64)
        for i, category_column in enumerate(self.category):
            category[:, i] = category_column.encode(table.column(category_column.name))
        return Features(number, category)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` gives back an equal plan."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> "FeaturePlan":
        """Read what `to_json` wrote."""
        tuples = {"vocabulary", "values", "quantiles", "classes"}

        def revive(item: dict[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if k in tuples and v is not None else v for k, v in item.items()}

        return FeaturePlan(
            number=tuple(NumberColumn(**revive(c)) for c in data["number"]),
            category=tuple(CategoryColumn(**revive(c)) for c in data["category"]),
            target=TargetColumn(**revive(data["target"])),
            key=data["key"],
            time=data["time"],
            rows=data["rows"],
        )
