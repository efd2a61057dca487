"""How does a column of times, of whatever type, become moments: timestamp[ms, UTC]?"""

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from app.types import UserError

MOMENT = pa.timestamp("ms", "UTC")

# ISO 8601: a date; a time of day, its seconds and their fraction, and the offset may be missing
_ISO = r"^\s*(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?)?\s*(?:([Zz])|([+-]\d{2}):?(\d{2})?)?\s*$"


def is_time(type_: pa.DataType) -> bool:
    """Say whether a column of this type can hold moments: timestamps, dates and text."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return bool(text or pa.types.is_timestamp(type_) or pa.types.is_date(type_) or pa.types.is_null(type_))


def to_moments(column: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """Return timestamp[ms, UTC]; null where text is no ISO 8601 time. Fractions of a millisecond are cut off.

    Times without an offset are local to `timezone`: the earlier moment where the clock shows a time twice, the
    next one that exists where it skips it. Raises UserError for an unknown zone.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        return _floor(column).cast(MOMENT)
    if pa.types.is_timestamp(column.type):
        return _localize(_floor(column), timezone)
    if pa.types.is_date(column.type):
        return _localize(column.cast(pa.timestamp("ms")), timezone)
    return _parse(column, timezone)


def _floor(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whole milliseconds; Arrow's cast alone would round towards 1970."""
    if column.type.unit in ("us", "ns"):
        column = pc.floor_temporal(column, unit="millisecond")
    return column.cast(pa.timestamp("ms", column.type.tz))


def _localize(naive: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    try:
        local = pc.assume_timezone(naive, timezone, ambiguous="earliest", nonexistent="latest")
    except pa.ArrowInvalid as error:
        raise UserError(
            f"data.timezone: {timezone!r} is not known; allowed: an IANA zone, such as UTC or Asia/Tokyo ({error})"
        ) from error
    return local.cast(MOMENT)


def _parse(column: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    text = pl.Series("text", column.cast(pa.large_string()), dtype=pl.String)
    found = text.to_frame().select(pl.col("text").str.extract_groups(_ISO)).unnest("text")
    found.columns = ["date", "time", "second", "fraction", "zulu", "hours", "minutes"]
    hours, minutes = pl.col("hours").cast(pl.Int64), pl.col("minutes").cast(pl.Int64).fill_null(0)
    behind = pl.when(pl.col("hours").str.starts_with("-")).then(hours * 60 - minutes).otherwise(hours * 60 + minutes)
    naive = pl.format(
        "{}T{}:{}.{}",
        "date",
        pl.col("time").fill_null("00:00"),
        pl.col("second").fill_null("00"),
        pl.col("fraction").fill_null("0").str.pad_end(3, "0").str.slice(0, 3),
    ).str.to_datetime("%Y-%m-%dT%H:%M:%S%.3f", time_unit="ms", strict=False)
    parsed = found.select(
        naive.alias("naive"),
        pl.when(pl.col("zulu").is_not_null()).then(0).otherwise(behind).alias("offset"),  # null: none is given
    )
    absolute = parsed.select(pl.col("naive") - pl.duration(minutes="offset", time_unit="ms")).to_series()
    fixed = pa.chunked_array([absolute.to_arrow()]).cast(pa.timestamp("ms")).cast(MOMENT)
    if parsed["offset"].null_count() == 0:
        return fixed
    local = _localize(pa.chunked_array([parsed["naive"].to_arrow()]), timezone)
    return pc.if_else(pc.is_valid(pa.chunked_array([parsed["offset"].to_arrow()])), fixed, local)
