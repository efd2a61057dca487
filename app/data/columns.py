"""Which one type does a column get, and which of its values break what its feature asks?"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from app.data.inference import is_text
from app.spec import CategoryFeature, NumberFeature
from app.types import UserError

CATEGORY = pa.dictionary(pa.int32(), pa.string())
LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Faults:
    """The first reason against each row, gathered check by check."""

    rows: int
    reasons: list[str] = field(default_factory=list)
    first: npt.NDArray[np.int32] | None = None  # (rows,) index + 1 of the reason; 0 is none

    def add(self, reason: str, bad: pa.Array) -> None:
        """Reject the rows where `bad` is true; null is not."""
        mask = bad.fill_null(False).to_numpy(zero_copy_only=False)
        if not mask.any():
            return
        if self.first is None:
            self.first = np.zeros(self.rows, np.int32)
        self.reasons.append(reason)
        self.first[mask & (self.first == 0)] = len(self.reasons)


def single(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, without a copy where it is one already."""
    if column.num_chunks == 1:
        return column.chunk(0)
    joined = column.combine_chunks()
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def plain(column: pa.Array) -> pa.Array:
    """Return text as string, decimals as float64, NaN as null, float16 as float32; everything else as it is."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type):
        return column.cast(pa.string())
    if pa.types.is_decimal(column.type):
        return column.cast(pa.float64())
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())  # Arrow can do little with the other
    if pa.types.is_floating(column.type):
        nan = pc.is_nan(column)
        return pc.if_else(nan, pa.scalar(None, column.type), column) if pc.any(nan).as_py() else column
    return column


def to_number(column: pa.Array, name: str, faults: Faults) -> pa.Array:
    """Return whole or floating numbers; text is parsed, truth values are 0 and 1."""
    column = plain(column)
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int64())
    if pa.types.is_null(column.type):
        return column.cast(pa.float64())
    if is_text(column.type):
        text = pl.Series(name, column, dtype=pl.String).str.strip_chars()
        number = plain(text.cast(pl.Float64, strict=False).to_arrow())
        missing = ((text.str.len_bytes() == 0) | (text.str.to_lowercase() == "nan")).to_arrow()
        faults.add(f"{name}: not a number", pc.and_not(pc.and_(column.is_valid(), number.is_null()), missing))
        return number
    return column


def to_category(column: pa.Array, name: str, faults: Faults) -> pa.Array:
    """Return dictionary<string>, int64 or bool."""
    if is_text(column.type) or pa.types.is_null(column.type):
        return names_of(column)
    column = plain(column)
    if pa.types.is_boolean(column.type) or pa.types.is_int64(column.type):
        return column
    if pa.types.is_integer(column.type) and not pa.types.is_uint64(column.type):
        return column.cast(pa.int64())
    whole = pl.Series(name, column).cast(pl.Int64, strict=False).to_arrow()
    same = pc.equal(whole.cast(column.type, safe=False), column)
    faults.add(f"{name}: not a whole number of 64 bits", pc.and_(column.is_valid(), pc.invert(same.fill_null(False))))
    return whole


def names_of(column: pa.Array) -> pa.Array:
    """Return text, plain or as any dictionary, as dictionary<string>."""
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary.cast(pa.string()))


def check_limits(column: pa.Array, name: str, feature: NumberFeature, faults: Faults) -> None:
    """Reject infinite numbers, those beyond float32, and those beyond the declared limits."""
    found = pc.min_max(column)
    low, high = found["min"].as_py(), found["max"].as_py()
    if low is None:
        return
    if low < -LARGEST or high > LARGEST:  # only floating numbers reach so far
        faults.add(f"{name}: infinite", pc.is_inf(column))
        faults.add(f"{name}: beyond float32", pc.greater(pc.abs(column), LARGEST))
    if pa.types.is_integer(column.type) and (feature.min is not None or feature.max is not None):
        # As the feature will be: Arrow compares no exact 64 bits with a float.
        column = column.cast(pa.float64(), safe=False)
    if feature.min is not None and low < feature.min:
        faults.add(f"{name}: below min {feature.min:g}", pc.less(column, feature.min))
    if feature.max is not None and high > feature.max:
        faults.add(f"{name}: above max {feature.max:g}", pc.greater(column, feature.max))


def allowed_values(name: str, feature: NumberFeature | CategoryFeature, type_: pa.DataType) -> pa.Array | None:
    """Return a category's declared values in the column's kind. Raises UserError when they are of another."""
    if feature.type == "number" or feature.values is None:
        return None
    wanted = pa.int64()
    if is_text(type_) or pa.types.is_null(type_):
        wanted = pa.string()
    elif pa.types.is_boolean(type_):
        wanted = pa.bool_()
    kind = {pa.int64(): int, pa.string(): str, pa.bool_(): bool}[wanted]
    wrong = [value for value in feature.values if type(value) is not kind]
    if wrong:
        raise UserError(
            f"features.{name}.values: found {wrong[0]!r}, but the column holds {type_}; allowed: {wanted} values"
        )
    return pa.array(feature.values, wanted)


def check_values(column: pa.Array, name: str, allowed: pa.Array, faults: Faults) -> None:
    if pa.types.is_dictionary(column.type):
        known = pc.is_in(column.dictionary, value_set=allowed)
        if not pc.all(known).as_py():
            faults.add(f"{name}: value not allowed", pc.invert(known.take(column.indices)))
    else:
        known = pc.is_in(column, value_set=allowed)
        faults.add(f"{name}: value not allowed", pc.and_not(column.is_valid(), known))
