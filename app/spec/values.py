"""How a declaration writes what YAML has no type for: durations, moments, zones, columns."""

import datetime as dt
import re
import zoneinfo
from decimal import Decimal
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

DURATION = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d|w)$"
MOMENT = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?)?$"
WEB_ADDRESS = r"^https?://[^\s/@]+(/\S*)?$"
ABSOLUTE_PATH = r"^/[^\n]+$"
NAME = r"^[a-z][a-z0-9-]{0,62}$"

_LONGEST = 100  # letters of a duration; decimals of many thousand digits take minutes
_MICROSECONDS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1000,
}


def _duration(value: object) -> dt.timedelta:
    if isinstance(value, str) and len(value) > _LONGEST:
        raise ValueError("longer than any calendar")
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9.]+)([a-z]+)", value)) and re.search(DURATION, value):
        try:
            return dt.timedelta(microseconds=int(Decimal(match[1]) * _MICROSECONDS[match[2]]))
        except OverflowError:
            raise ValueError("longer than any calendar") from None
    if isinstance(value, dt.timedelta) and value >= dt.timedelta(0):
        return value
    raise ValueError("not a duration")


def _longer_than_nothing(value: dt.timedelta) -> dt.timedelta:
    if not value:
        raise ValueError("must be longer than 0s")
    return value


def write_duration(value: dt.timedelta) -> str:
    """Write it in the largest unit that needs no fraction."""
    whole = value // dt.timedelta(microseconds=1)
    for unit, size in _MICROSECONDS.items():
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole // 1000}.{whole % 1000:03}ms" if whole else "0s"


def _moment(value: object) -> dt.datetime:
    if isinstance(value, str) and re.search(MOMENT, value):
        value = dt.datetime.fromisoformat(value)
    if isinstance(value, dt.datetime):
        try:
            return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)
        except OverflowError:
            raise ValueError("outside the calendar") from None
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    raise ValueError("not a moment")


def _zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError("not an IANA zone such as UTC or America/New_York") from None
    return value


Duration = Annotated[
    dt.timedelta,
    BeforeValidator(_duration),
    PlainSerializer(write_duration),
    WithJsonSchema({"type": "string", "pattern": DURATION}),
]
"""A length of time: a number and one of ms, s, m, h, d, w."""

PositiveDuration = Annotated[Duration, AfterValidator(_longer_than_nothing)]
"""A length of time that is not zero."""

Moment = Annotated[dt.datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "pattern": MOMENT})]
"""A date or date and time, ISO 8601; UTC when it names no zone."""

WebAddress = Annotated[str, Field(pattern=WEB_ADDRESS, max_length=500)]
"""A page that a browser opens; without user and password, for whoever sees it is shown it."""

Zone = Annotated[str, AfterValidator(_zone)]
"""An IANA time zone's name."""

Column = Annotated[str, Field(min_length=1)]
"""A column's name."""

Value: TypeAlias = str | int | float | bool
"""What a cell of the table may hold, as the declaration writes it."""
