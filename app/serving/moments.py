"""When did a row happen? Its declared time as a client sends it, as int64 milliseconds since 1970, UTC.

ISO 8601 text, with or without an offset, or a whole number of milliseconds. Text without an offset is local to
`data.timezone`, as it is in training.
"""

import datetime as dt
from typing import TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.data.moments import MOMENT, is_time, to_moments

Moments: TypeAlias = npt.NDArray[np.int64]

UNKNOWN = int(np.iinfo(np.int64).min)
"""Stands for the moment of a row that was sent without one."""
LOWEST = -62_135_596_800_000
"""The first moment of the year 1."""
HIGHEST = 253_402_300_799_999
"""The last moment of the year 9999."""
_TOO_HIGH = pa.scalar(HIGHEST + 1, pa.uint64())  # stands for all that is: an int64 need not hold it

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)


class NoMoment(ValueError):  # noqa: N818 - what was found, not what went wrong
    """A value that is no moment; `row` says where, from 0."""

    def __init__(self, row: int, found: object) -> None:
        super().__init__(row, found)
        self.row = row
        self.found = found


class NoTime(TypeError):  # noqa: N818
    """A column whose type holds no times."""


def read_values(sent: list[str | int | None], zone: ZoneInfo) -> Moments | None:
    """Return the moments (n,) of values from JSON, UNKNOWN for null; None when all are. Raises NoMoment."""
    if not any(value is not None for value in sent):
        return None
    moments = np.empty(len(sent), np.int64)
    for row, value in enumerate(sent):
        if value is None:
            moments[row] = UNKNOWN
        elif isinstance(value, int):
            moments[row] = value
        else:
            try:
                moment = dt.datetime.fromisoformat(value)
            except ValueError:
                raise NoMoment(row, value) from None
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=zone)
            moments[row] = min(max((moment - _EPOCH) // _MILLISECOND, LOWEST), HIGHEST)
    return moments


def read_column(sent: pa.ChunkedArray, zone: ZoneInfo) -> Moments | None:
    """Return the moments (n,) of a column of times, UNKNOWN for null; None when all are.

    The column holds timestamps, dates, text or whole numbers; raises NoTime for any other type. Raises NoMoment for a
    value outside the years 1 to 9999 and for text that is no time.
    """
    kind = sent.type.value_type if pa.types.is_dictionary(sent.type) else sent.type
    if not (is_time(kind) or pa.types.is_integer(kind)):
        raise NoTime(str(sent.type))
    sent = sent.cast(kind)
    if sent.null_count == len(sent):
        return None
    if pa.types.is_integer(sent.type):
        if pa.types.is_uint64(kind):
            whole = pc.min_element_wise(sent, _TOO_HIGH, skip_nulls=False).cast(pa.int64())
        else:
            whole = sent.cast(pa.int64())
    else:
        try:
            whole = to_moments(sent, zone.key).cast(pa.int64())
        except pa.ArrowException:
            raise NoMoment(0, f"{sent.type} beyond the year 9999") from None
    wrong = pc.and_(pc.is_valid(sent), pc.fill_null(pc.or_(pc.less(whole, LOWEST), pc.greater(whole, HIGHEST)), True))
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        raise NoMoment(row, _shown(sent[row]))
    moments: Moments = pc.fill_null(whole, UNKNOWN).to_numpy()
    return moments


def _shown(value: pa.Scalar) -> object:
    """Return a value as text or number; a timestamp need not fit Python's."""
    return value.as_py() if not pa.types.is_temporal(value.type) else str(value.value)


def to_column(moments: Moments) -> pa.Array:
    """Return moments as timestamp[ms, UTC]."""
    return pa.array(moments).cast(MOMENT)
