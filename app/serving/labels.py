"""What came true: `POST /<name>/labels`, checked against the target and durable before it is acknowledged."""

import asyncio
import re
import time
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.data.features import TargetColumn, plain_labels
from app.journal.rows import JournalError, label_schema
from app.journal.writer import LabelCommits
from app.serving.arrow_codec import ArrowCodec, first, is_id, too_long
from app.serving.arrow_stream import check_single, read_stream
from app.serving.asgi import Answer
from app.serving.bodies import INLINE_BYTES, JSON, value_at, wrong_content_type
from app.serving.codec import FLOAT32_MAX, ID_LENGTH
from app.serving.moments import (
    HIGHEST,
    LOWEST,
    UNKNOWN,
    Moments,
    NoMoment,
    NoTime,
    read_column,
    read_values,
    to_column,
)
from app.serving.problems import Problem
from app.spec import Value
from app.types import UserError

_PLACE = re.compile(r" - at `\$(?:\.labels)?(?:\[(\d+)\])?(?:\.(\w+))?`$")
_FIELD = re.compile(r"field `(.*?)`", re.DOTALL)
_ALLOWED = {
    "id": f"text of up to {ID_LENGTH} characters or a whole number of 64 bits",
    "time": "an ISO 8601 time, or whole milliseconds since 1970, of the years 1 to 9999",
}

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Moment = Annotated[str, msgspec.Meta(max_length=64)] | Annotated[int, msgspec.Meta(ge=LOWEST, le=HIGHEST)] | None


class _Label(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: Annotated[str, msgspec.Meta(max_length=ID_LENGTH)] | _Int64
    label: str | int | float | bool
    time: _Moment = None


class _Labels(msgspec.Struct, forbid_unknown_fields=True):
    labels: list[_Label]


class LabelCodec:
    """Bodies of labels for one target, as JSON `{"labels": [{"id", "label", "time"}]}` or as Arrow columns.

    `zone` is that of times that carry none.
    """

    def __init__(self, target: TargetColumn, max_rows: int, zone: ZoneInfo) -> None:
        self.schema = label_schema(target)
        self._kind: pa.DataType = self.schema.field("label").type
        self._classes = target.classes
        self._known = {(type(value), value) for value in target.classes}
        self._max_rows = max_rows
        self._zone = zone
        self._decoder = msgspec.json.Decoder(_Labels)

    @property
    def allowed(self) -> str:
        """Say what a label may be, in words."""
        return ", ".join(map(repr, self._classes)) if self._classes else f"a number, |x| <= {FLOAT32_MAX:.5g}"

    def decode(self, content_type: str, body: bytes, arrival: int) -> pa.Table:
        """Return the labels of a body; `arrival` (ms since 1970) stands in for a time that was not sent.

        Raises Problem: 400 for a broken body, 413 for too many labels, 415 for another format, 422 for a wrong value.
        """
        if content_type == JSON:
            ids, labels, event = self._from_json(body)
        elif content_type == ArrowCodec.content_type:
            ids, labels, event = self._from_arrow(read_stream(body))
        else:
            raise wrong_content_type(content_type, f"{JSON}, {ArrowCodec.content_type}")
        arrivals = np.full(len(ids), arrival)
        happened = arrivals if event is None else np.where(event == UNKNOWN, arrival, event)
        return pa.Table.from_arrays([ids, labels, to_column(happened), to_column(arrivals)], schema=self.schema)

    def _from_json(self, body: bytes) -> tuple[pa.Array, pa.Array, Moments | None]:
        try:
            labels = self._decoder.decode(body).labels
        except msgspec.ValidationError as error:
            raise self._explain(str(error), body) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(400, "malformed-json", f"the body is not JSON: {error}") from None
        self._check_count(len(labels))
        values = [self._label(row, one.label) for row, one in enumerate(labels)]
        try:
            event = read_values([one.time for one in labels], self._zone)
        except NoMoment as error:
            raise _wrong("not-allowed", error.row, "time", error.found, _ALLOWED["time"]) from None
        return pa.array([str(one.id) for one in labels]), pa.array(values, self._kind), event

    def _label(self, row: int, sent: str | int | float | bool) -> Value | float:
        value = sent
        if pa.types.is_floating(self._kind) and isinstance(sent, int) and not isinstance(sent, bool):
            value = float(sent) if abs(sent) < 2**1023 else sent
        elif pa.types.is_integer(self._kind) and isinstance(sent, float) and sent.is_integer():
            value = int(sent)  # to JSON 1.0 and 1 are the same
        if (type(value), value) in self._known or (
            not self._classes and isinstance(value, float) and abs(value) <= FLOAT32_MAX
        ):
            return value
        raise _wrong("not-allowed", row, "label", sent, self.allowed)

    def _explain(self, message: str, body: bytes) -> Problem:
        place = _PLACE.search(message)
        message = _PLACE.sub("", message)
        index, name = place.groups() if place is not None else (None, None)
        row = int(index) if index is not None else None
        if (field := _FIELD.search(message)) is not None:
            code = "missing-field" if "missing" in message else "unknown-field"
            allowed = "id, label and time" if row is not None else "labels"
            return _refused(code, row, field[1], f"{message:.100}; allowed are {allowed}", allowed)
        if row is None or name is None:
            return _refused("wrong-type", row, name, message, None)
        try:
            found = value_at(body, "labels", row, name)
        except LookupError:
            return _refused("wrong-type", row, name, f"{name!r}: {message}", None)
        code = "null" if found is None else "wrong-type"
        return _wrong(code, row, name, found, _ALLOWED.get(name, self.allowed))

    def _from_arrow(self, table: pa.Table) -> tuple[pa.Array, pa.Array, Moments | None]:
        check_single(table.column_names)
        for name in table.column_names:
            if name not in _Label.__struct_fields__:
                allowed = "id, label and time"
                raise _refused(
                    "unknown-field", None, name, f"unknown column {name!r:.100}; allowed are {allowed}", allowed
                )
        for name in ("id", "label"):
            if name not in table.column_names:
                raise _refused("missing-field", None, name, f"column {name!r} is missing", None)
        self._check_count(table.num_rows)
        ids, label = table.column("id"), table.column("label")
        if not is_id(ids.type):
            raise _wrong("wrong-type", None, "id", str(ids.type), _ALLOWED["id"])
        for name, column in (("id", ids), ("label", label)):
            if column.null_count:
                raise _wrong("null", first(pc.is_null(column)), name, None, _ALLOWED.get(name, self.allowed))
        if (row := too_long(ids)) is not None:
            raise _wrong("not-allowed", row, "id", ids[row].as_py(), _ALLOWED["id"])
        event = None
        if "time" in table.column_names:
            try:
                event = read_column(table.column("time"), self._zone)
            except NoTime as error:
                raise _wrong("wrong-type", None, "time", str(error), _ALLOWED["time"]) from None
            except NoMoment as error:
                raise _wrong("not-allowed", error.row, "time", error.found, _ALLOWED["time"]) from None
        return ids.cast(pa.string()).combine_chunks(), self._column(label).combine_chunks(), event

    def _column(self, sent: pa.ChunkedArray) -> pa.ChunkedArray:
        try:
            plain = plain_labels("label", sent)
        except UserError:
            raise _wrong("wrong-type", None, "label", str(sent.type), self.allowed) from None
        except pa.ArrowInvalid as error:  # a whole number beyond 64 bits
            raise _wrong("not-allowed", None, "label", str(error), self.allowed) from None
        if plain.type != self._kind and not (pa.types.is_integer(plain.type) and pa.types.is_floating(self._kind)):
            raise _wrong("wrong-type", None, "label", str(sent.type), self.allowed)
        plain = plain.cast(self._kind, safe=False)
        if self._classes:
            good = pc.is_in(plain, value_set=pa.array(self._classes, self._kind))
        else:
            good = pc.fill_null(pc.less_equal(pc.abs(plain), FLOAT32_MAX), False)  # NaN was made null
        if not pc.all(good).as_py():
            row = first(pc.invert(good))
            raise _wrong("not-allowed", row, "label", sent[row].as_py(), self.allowed)
        return plain

    def _check_count(self, n: int) -> None:
        if n == 0:
            raise Problem(422, "no-rows", "the request holds no labels; at least one is needed")
        if n > self._max_rows:
            raise Problem(413, "too-many-rows", f"the request holds {n} labels, at most {self._max_rows} are allowed")


class LabelDesk:
    """Takes labels for one target and acknowledges those that are on disk."""

    def __init__(self, codec: LabelCodec, commits: LabelCommits) -> None:
        self._codec = codec
        self._commits = commits

    async def accept(self, content_type: str, body: bytes) -> Answer:
        """Return 202 and how many labels are durable.

        Raises Problem for a body that cannot be read, and 503 when the journal cannot be written.
        """
        arrival = time.time_ns() // 1_000_000
        if len(body) <= INLINE_BYTES:
            table = self._codec.decode(content_type, body, arrival)
        else:
            loop = asyncio.get_running_loop()
            table = await loop.run_in_executor(None, self._codec.decode, content_type, body, arrival)
        try:
            await self._commits.add(table)
        except JournalError:  # the reason, which names folders and stores, is in the log
            raise Problem(
                503, "journal", "the labels are not kept, send them again: the journal cannot be written"
            ) from None
        rows = table.num_rows
        return Answer(202, JSON, msgspec.json.encode({"accepted": rows}), "labels", rows=rows)


def _wrong(code: str, row: int | None, field: str, found: object, allowed: str) -> Problem:
    shown = "null" if found is None else f"{found!r:.100}"
    return _refused(code, row, field, f"{field!r}: found {shown}, allowed is {allowed}", allowed, found)


def _refused(
    code: str, row: int | None, field: str | None, detail: str, allowed: str | None, found: Any = None
) -> Problem:
    where = f"row {row}: " if row is not None else ""
    return Problem(422, code, where + detail, row=row, field=field and field[:100], found=found, allowed=allowed)
