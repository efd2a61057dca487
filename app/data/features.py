"""The one feature function: raw columns become a float32 matrix and an id matrix, everywhere the same.

A `FeaturePlan` is fitted once (`app.data.fit`), travels in the bundle, and is all that training, batch
prediction and the endpoint know about features.

Numbers go by way of float64 to float32, whatever their type, because a JSON number does. A number beyond
float32 becomes infinite here, never something that looks valid: the contract refuses it in tables before
(`app.data.contract`), the endpoint's codecs refuse an infinite feature after (`Fields.check_finite`).
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.spec import Value
from app.types import FIRST_ID, MISSING_ID, UNSEEN_ID, CategoryMatrix, Features, NumberMatrix, Targets, UserError

Kind: TypeAlias = Literal["string", "integer", "boolean"]
TaskType: TypeAlias = Literal["binary", "multiclass", "regression"]
RegressionLoss: TypeAlias = Literal["squared", "absolute", "quantile"]
Loss: TypeAlias = Literal["log"] | RegressionLoss
Column: TypeAlias = pa.ChunkedArray | pa.Array

_ARROW: dict[Kind, pa.DataType] = {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}


def kind_of(name: str, data_type: pa.DataType) -> Kind:
    """Return which kind of category a column of this Arrow type holds; of a dictionary, its values count.

    Raises UserError for a type that is no category.
    """
    types = pa.types
    if types.is_dictionary(data_type):
        data_type = data_type.value_type
    if types.is_string(data_type) or types.is_large_string(data_type) or types.is_string_view(data_type):
        return "string"
    if types.is_integer(data_type):
        return "integer"
    if types.is_boolean(data_type):
        return "boolean"
    if types.is_null(data_type):  # nothing but nulls
        return "string"
    raise UserError(f"category {name!r}: found {data_type}, allowed text, whole numbers or truth values")


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

    def encode(self, column: Column) -> npt.NDArray[np.int64]:
        """Return the ids (n,) of a column of this kind, dictionary-encoded or plain.

        Raises UserError for a column of another kind: the text "1" is not the number 1.
        """
        ids = np.empty(len(column), np.int64)
        self.encode_into(column, ids)
        return ids

    def encode_into(self, column: Column, ids: npt.NDArray[np.int64]) -> None:
        """Write what `encode` returns into `ids` (n,), which may be a column of a matrix."""
        kind = kind_of(self.name, column.type)
        if kind != self.kind and column.null_count != len(column):
            raise UserError(f"category {self.name!r}: found {column.type}, allowed {self.kind} as in training")
        start = 0
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            ids[start : start + len(chunk)] = self._encode_chunk(chunk)
            start += len(chunk)

    def _encode_chunk(self, chunk: pa.Array) -> npt.NDArray[np.int64]:
        if not pa.types.is_dictionary(chunk.type):
            return self._lookup(chunk)
        known = np.append(self._lookup(chunk.dictionary), MISSING_ID)
        indices = chunk.indices.fill_null(len(known) - 1) if chunk.indices.null_count else chunk.indices
        ids: npt.NDArray[np.int64] = known.take(indices.to_numpy())
        return ids

    def _lookup(self, values: pa.Array) -> npt.NDArray[np.int64]:
        if values.null_count == len(values):
            return np.full(len(values), MISSING_ID)
        found = pc.index_in(values.cast(_ARROW[self.kind]), value_set=self._values)
        ids = _to_numpy(found.fill_null(UNSEEN_ID - FIRST_ID)).astype(np.int64)
        ids += FIRST_ID
        if values.null_count:
            ids[_to_numpy(values.is_null())] = MISSING_ID
        return ids


@dataclass(frozen=True)
class TargetColumn:
    """The target: its task and, for a class, the values; binary is (negative, positive).

    `quantile` is the one predicted where `regression_loss` is "quantile", else without effect.
    """

    name: str
    task: TaskType
    classes: tuple[Value, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    regression_loss: RegressionLoss = "squared"
    quantile: float = 0.5

    @property
    def loss(self) -> Loss:
        """The loss that is learned and counted (`app.data.loss`): of classes always "log"."""
        return self.regression_loss if self.task == "regression" else "log"

    @property
    def outputs(self) -> int:
        """Width of the network's last layer."""
        return len(self.classes) if self.task == "multiclass" else 1

    def encode(self, column: Column) -> Targets:
        """Return float32 (n,): 0/1, the class index or the value; NaN where there is no label (null or NaN).

        Raises UserError for a class that was not there in training, or a value that float32 cannot hold.
        """
        target: Targets = np.empty(len(column), np.float32)
        if self.task == "regression":
            _numbers_into(self.name, column, target)
            if np.isinf(target).any():
                raise UserError(f"target {self.name!r}: found a number beyond float32, allowed |x| <= 3.4028e+38")
            return target
        labels = plain_labels(self.name, column)
        try:
            classes = pa.array(self.classes).cast(labels.type)
        except pa.ArrowException:
            raise UserError(
                f"target {self.name!r}: found {labels.type}, allowed {list(self.classes)} as in training"
            ) from None
        found = pc.index_in(labels, value_set=classes)
        if found.null_count != labels.null_count:
            value = pc.filter(labels, pc.and_(pc.is_null(found), pc.is_valid(labels)))[0].as_py()
            raise UserError(f"target {self.name!r}: found {value!r}, allowed {list(self.classes)}")
        _numbers_into(self.name, found, target)
        return target


def plain_categories(name: str, column: Column) -> Column:
    """Return a category column without dictionary, as string, int64 or bool: the form in which values are counted.

    Raises UserError for a type that is no category.
    """
    kind = kind_of(name, column.type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(_ARROW[kind])


def plain_labels(name: str, column: Column) -> Column:
    """Return a column of class labels without dictionary, as string, int64, bool or float64, NaN made null.

    Raises UserError for a type that holds no classes.
    """
    if not pa.types.is_floating(column.type):
        return plain_categories(name, column)
    column = column.cast(pa.float64())
    return pc.if_else(pc.is_nan(column), None, column)


def number_array(name: str, column: Column) -> npt.NDArray[np.float64] | npt.NDArray[np.float32]:
    """Return a number column as float64 or float32 (n,) with NaN for null; a view where no copy is needed.

    Whole numbers, decimals and truth values (0 and 1) become float64. Raises UserError for any other type:
    text is no number, even where it looks like one.
    """
    types, data_type = pa.types, column.type
    if types.is_integer(data_type) or types.is_decimal(data_type) or types.is_null(data_type):
        column = column.cast(pa.float64(), safe=False)
    elif types.is_boolean(data_type):
        column = column.cast(pa.uint8()).cast(pa.float64())
    elif types.is_float16(data_type):
        column = column.cast(pa.float32())
    elif not types.is_floating(data_type):
        raise UserError(f"number {name!r}: found {data_type}, allowed numbers or truth values")
    return _to_numpy(column)


def _numbers_into(name: str, column: Column, out: npt.NDArray[np.float32]) -> None:
    with np.errstate(over="ignore"):
        out[:] = number_array(name, column)


def _to_numpy(column: Column) -> npt.NDArray[Any]:
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


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
        return tuple(c.name for c in self.number) + tuple(c.name for c in self.category)

    def encode(self, table: pa.Table | pa.RecordBatch) -> Features:
        """Return the features of all rows; columns are found by name, others are left aside.

        Raises UserError for a column of a type that the feature cannot have, KeyError when one is missing.
        """
        number: NumberMatrix = np.empty((table.num_rows, len(self.number)), np.float32)
        for i, number_column in enumerate(self.number):
            _numbers_into(number_column.name, table.column(number_column.name), number[:, i])
        category: CategoryMatrix = np.empty((table.num_rows, len(self.category)), np.int64)
        for i, category_column in enumerate(self.category):
            category_column.encode_into(table.column(category_column.name), category[:, i])
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
