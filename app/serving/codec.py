"""What every request format has in common: the fields a row may have, and how a wrong one is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.features import FeaturePlan
from app.serving.moments import Moments, NoMoment
from app.serving.problems import Problem
from app.spec import Value
from app.types import Features, NumberMatrix, Scores

ID = "id"
ID_LENGTH = 256
"""Most characters of a row's id."""
FLOAT32_MAX = float(np.finfo(np.float32).max)


Sent: TypeAlias = Callable[[int, int], Value | None]
"""From a row's and a category column's number to the value as the client sent it."""


class Batch(NamedTuple):
    """The rows of one request: ids as the caller sent them or new ones, features, and when they happened.

    `event` is None when no row says; `sent` finds the values that the features have lost: those of unseen categories.
    """

    ids: Sequence[str | int] | pa.Array
    features: Features
    event: Moments | None
    sent: Sent

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.features.number)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Rows (n,) of an answer that another model than the codec's own made."""

    model: str
    rows: npt.NDArray[np.bool_]


class Codec(Protocol):
    """One format of bodies. Both directions are pure; `decode` raises Problem and nothing else."""

    content_type: str

    def decode(self, body: bytes) -> Batch:
        """Turn a request's body into features."""
        ...

    def encode(self, batch: Batch, scores: Scores, mixed: Mixed | None = None) -> bytes:
        """Turn scores, one a row of the batch, into the response's body, which tells by which model each was made."""
        ...


@dataclass(frozen=True)
class Fields:
    """The fields a row may have, by the bundle's feature plan: features, and optionally id, key and time.

    `timezone` is the zone of times that carry none.
    """

    plan: FeaturePlan
    max_rows: int
    timezone: str = "UTC"

    @cached_property
    def extras(self) -> tuple[str, ...]:
        """Fields beside the features, ids first: the declared key, `id`, the event time."""
        names = [self.plan.key, ID, self.plan.time]
        return tuple(dict.fromkeys(n for n in names if n is not None and n not in self.plan.names))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Extras that may name a row, the declared key first."""
        return tuple(name for name in self.extras if name in (self.plan.key, ID))

    @cached_property
    def time(self) -> str | None:
        """The extra that says when a row happened."""
        return self.plan.time if self.plan.time in self.extras and self.plan.time not in self.ids else None

    @cached_property
    def zone(self) -> ZoneInfo:
        """The zone of times that carry none."""
        return ZoneInfo(self.timezone)

    @cached_property
    def allowed(self) -> frozenset[str]:
        """Every field a row may have."""
        return frozenset((*self.plan.names, *self.extras))

    def check_count(self, n: int) -> None:
        """Refuse a request without rows, or with too many."""
        if n == 0:
            raise Problem(422, "no-rows", "the request holds no rows; at least one is needed")
        if n > self.max_rows:
            raise Problem(413, "too-many-rows", f"the request holds {n} rows, at most {self.max_rows} are allowed")

    def check_numbers(self, number: NumberMatrix) -> None:
        """Refuse encoded numbers outside their limits, infinite ones, and a missing one that is required."""
        low, high, required = self._bounds
        wrong = (number < low) | (number > high)  # NaN is neither
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            name = self.plan.number[column].name
            if self.limits(name) is None:
                raise self.not_finite(name, row)
            raise self.not_allowed(name, float(number[row, column]), row)
        if len(required):
            absent = np.isnan(number[:, required])
            if absent.any():
                row, column = (int(i) for i in np.argwhere(absent)[0])
                raise self.null(self.plan.number[required[column]].name, row)

    @cached_property
    def _bounds(self) -> tuple[NumberMatrix, NumberMatrix, npt.NDArray[np.int64]]:
        """Least and greatest value by number column, and the columns that are required."""
        columns = self.plan.number
        low = [-FLOAT32_MAX if column.min is None else column.min for column in columns]
        high = [FLOAT32_MAX if column.max is None else column.max for column in columns]
        required = [i for i, column in enumerate(columns) if column.required]
        return np.array(low, np.float32), np.array(high, np.float32), np.array(required, np.int64)

    def kind(self, name: str | None) -> str | None:
        """Say what a field may hold, in words."""
        for number in self.plan.number:
            if number.name == name:
                return "number" if number.required else "number or null"
        for category in self.plan.category:
            if category.name == name:
                return category.kind if category.required else f"{category.kind} or null"
        if name is not None and name == self.time:
            return "ISO 8601 time, whole number of milliseconds since 1970, or null"
        return (
            f"text of up to {ID_LENGTH} characters, whole number of 64 bits, or null" if name in self.extras else None
        )

    def limits(self, name: str | None) -> str | None:
        """Say which values a field allows beyond its kind, in words."""
        for number in self.plan.number:
            if number.name == name:
                low = [f"at least {number.min:g}"] if number.min is not None else []
                high = [f"at most {number.max:g}"] if number.max is not None else []
                return " and ".join(low + high) or None
        for category in self.plan.category:
            if category.name == name and category.values is not None:
                return ", ".join(map(repr, category.values))
            if category.name == name and category.kind == "integer":
                return "a whole number of 64 bits"
        if name is not None and name == self.time:
            return "an ISO 8601 time, or whole milliseconds since 1970, of the years 1 to 9999"
        return f"up to {ID_LENGTH} characters, or 64 bits" if name in self.extras else None

    # ---- refusals, the same words for every format -------------------------------------------------------

    def unknown(self, name: str, row: int | None = None) -> Problem:
        """Refuse a field that is not in the plan."""
        allowed = ", ".join(sorted(self.allowed))
        detail = f"{_where(row)}unknown field {name!r:.100}; allowed are {allowed}"
        return Problem(422, "unknown-field", detail, row=row, field=name[:100], found=name, allowed=allowed)

    def missing(self, name: str, row: int | None = None) -> Problem:
        """Refuse a row without one of the features: a typo must not become a null."""
        detail = f"{_where(row)}field {name!r} is missing; send null where the value is unknown"
        return Problem(422, "missing-field", detail, row=row, field=name, allowed=self.kind(name))

    def null(self, name: str, row: int | None = None) -> Problem:
        """Refuse a null in a required feature."""
        detail = f"{_where(row)}{name!r}: found null, which is not allowed here"
        return Problem(422, "null", detail, row=row, field=name, allowed=self.kind(name))

    def not_finite(self, name: str, row: int | None = None) -> Problem:
        """Refuse infinity, sent as such or made by a number beyond float32."""
        allowed = f"|x| <= {FLOAT32_MAX:.5g}"
        detail = f"{_where(row)}{name!r}: found a number beyond float32, allowed is {allowed}"
        return Problem(422, "not-finite", detail, row=row, field=name, allowed=allowed)

    def not_allowed(self, name: str, found: object, row: int | None = None) -> Problem:
        """Refuse a value outside the declared limits or values."""
        allowed = self.limits(name)
        detail = f"{_where(row)}{name!r}: found {found!r:.100}, allowed is {allowed}"
        return Problem(422, "not-allowed", detail, row=row, field=name, found=found, allowed=allowed)

    def no_moment(self, error: NoMoment) -> Problem:
        """Refuse a time that is none."""
        assert self.time is not None
        return self.not_allowed(self.time, error.found, error.row)

    def wrong_type(self, name: str, found: object, kind: str, row: int | None = None) -> Problem:
        """Refuse a value of another type; `kind` is the type found."""
        allowed = self.kind(name)
        detail = f"{_where(row)}{name!r}: found {kind}, allowed is {allowed}"
        return Problem(422, "wrong-type", detail, row=row, field=name, found=found, allowed=allowed)


def _where(row: int | None) -> str:
    return f"row {row}: " if row is not None else ""
