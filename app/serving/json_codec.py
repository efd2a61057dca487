"""JSON bodies: `{"rows": [...]}`, `{"columns": {...}}` or one bare row; the answer is a list of predictions.

The types are generated from the bundle's feature plan, so that decoding is validation: one pass by msgspec
makes typed rows, one more makes the arrays.
"""

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from app.data.features import CategoryColumn, NumberColumn
from app.serving.bodies import value_at
from app.serving.codec import FLOAT32_MAX, ID_LENGTH, Batch, Fields, Mixed
from app.serving.identifiers import uuid7, uuid7_array
from app.serving.moments import HIGHEST, LOWEST, Moments, NoMoment, read_values
from app.serving.problems import Problem
from app.spec import Value
from app.types import UNSEEN_ID, CategoryMatrix, Features, Scores

_FIRST_KEY = re.compile(rb'\s*\{\s*"([^"\\]{0,200})"\s*:')
_PLACE = re.compile(r" - at `\$(?:\.(rows|columns))?(?:\[(\d+)\])?(?:\.(.*))?`$", re.DOTALL)
_ITEM = re.compile(r"(.*)\[(\d+)\]", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `.*?`, got `(.*?)`")
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_KINDS: dict[str, Any] = {"string": str, "integer": _Int64, "boolean": bool}
_Identifier = Annotated[str, msgspec.Meta(max_length=ID_LENGTH)] | _Int64 | None
_Moment = Annotated[str, msgspec.Meta(max_length=64)] | Annotated[int, msgspec.Meta(ge=LOWEST, le=HIGHEST)] | None


class JsonCodec:
    """JSON bodies of one model version."""

    content_type = "application/json"

    def __init__(self, fields: Fields, model: str, threshold: float) -> None:
        plan = fields.plan
        self._fields = fields
        self._target = plan.target
        self._model = model
        self._threshold = threshold
        # Structs get attribute names of their own (f0, f1, ...): a column may be called anything.
        names = (*plan.names, *fields.extras)
        attributes = {name: f"f{i}" for i, name in enumerate(names)}
        types = dict(
            zip(plan.names, [*map(_number_type, plan.number), *map(_category_type, plan.category)], strict=True)
        )
        extras: dict[str, Any] = {name: _Moment if name == fields.time else _Identifier for name in fields.extras}
        row = _struct("Row", attributes, types, extras)
        columns = _struct(
            "Columns",
            attributes,
            {name: GenericAlias(list, kind) for name, kind in types.items()},
            {name: GenericAlias(list, kind) | None for name, kind in extras.items()},
        )
        self._row = msgspec.json.Decoder(row)
        self._rows = msgspec.json.Decoder(_struct("Rows", {"rows": "rows"}, {"rows": GenericAlias(list, row)}, {}))
        self._columns = msgspec.json.Decoder(_struct("Table", {"columns": "columns"}, {"columns": columns}, {}))
        self._features = [(name, attrgetter(attributes[name])) for name in plan.names]
        self._numbers = _getter([attributes[c.name] for c in plan.number])
        self._categories = [(attrgetter(attributes[c.name]), c.ids) for c in plan.category]
        self._ids = [attributes[name] for name in fields.ids]
        self._time = attrgetter(attributes[fields.time]) if fields.time is not None else None
        self._encoder = msgspec.json.Encoder()

    def decode(self, body: bytes) -> Batch:
        """Decode and check a body.

        Raises Problem: 400 for what is not JSON, 413 for too many rows, 422 for a value that is not allowed.
        """
        match = _FIRST_KEY.match(body)
        first = match[1] if match else b""
        try:
            if first == b"rows":
                return self._from_rows(self._rows.decode(body).rows)
            if first == b"columns":
                return self._from_columns(self._columns.decode(body).columns)
            return self._from_rows([self._row.decode(body)])
        except msgspec.ValidationError as error:
            raise self._explain(str(error), body) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(400, "malformed-json", f"the body is not JSON: {error}") from None
        except RecursionError:
            raise Problem(400, "malformed-json", "the body is not JSON: nested too deep") from None

    def _from_rows(self, rows: list[Any]) -> Batch:
        n = len(rows)
        self._fields.check_count(n)
        # A list of tuples straight to float64 turns None into NaN; float32 follows, as it does for Arrow columns.
        wide = np.array([self._numbers(row) for row in rows], np.float64)
        category: CategoryMatrix = np.empty((n, len(self._categories)), np.int64)
        for i, (get, ids) in enumerate(self._categories):
            category[:, i] = [ids.get(get(row), UNSEEN_ID) for row in rows]
        event = self._event([self._time(row) for row in rows]) if self._time is not None else None

        def sent(row: int, column: int) -> Value | None:
            value: Value | None = self._categories[column][0](rows[row])
            return value

        return Batch([self._id_of(row) for row in rows], Features(wide.astype(np.float32), category), event, sent)

    def _event(self, sent: list[str | int | None]) -> Moments | None:
        try:
            return read_values(sent, self._fields.zone)
        except NoMoment as error:
            raise self._fields.no_moment(error) from None

    def _id_of(self, row: Any) -> str | int:
        for attribute in self._ids:
            sent: _Identifier = getattr(row, attribute)
            if sent is not None:
                return sent
        return uuid7()

    def _from_columns(self, columns: Any) -> Batch:
        values = {name: get(columns) for name, get in self._features}
        sent = [(name, getattr(columns, at)) for name, at in zip(self._fields.ids, self._ids, strict=True)]
        sent = [(name, column) for name, column in sent if column is not None]
        first, n = next(((name, len(column)) for name, column in values.items()), ("", 0))
        times = self._time(columns) if self._time is not None else None
        for name, column in [*values.items(), *sent, (self._fields.time, times)]:
            if column is not None and len(column) != n:
                detail = (
                    f"column {name!r} has {len(column)} values, column {first!r} has {n}; they must be equally long"
                )
                raise Problem(422, "uneven-columns", detail, field=name)
        self._fields.check_count(n)
        wide = np.empty((n, len(self._fields.plan.number)), np.float64)
        for i, number in enumerate(self._fields.plan.number):
            wide[:, i] = values[number.name]
        category: CategoryMatrix = np.empty((n, len(self._categories)), np.int64)
        for i, (get, ids) in enumerate(self._categories):
            category[:, i] = [ids.get(value, UNSEEN_ID) for value in get(columns)]
        names: Sequence[str | int] | pa.Array = uuid7_array(n)
        if sent:
            names = [_first(row) for row in zip(*(column for _, column in sent), strict=True)]
        lists = [get(columns) for get, _ in self._categories]
        event = self._event(times) if times is not None else None
        return Batch(
            names, Features(wide.astype(np.float32), category), event, lambda row, column: lists[column][row]
        )

    def _explain(self, message: str, body: bytes) -> Problem:
        """Turn msgspec's words about the generated types into ours about the user's columns."""
        place = _PLACE.search(message)
        message = _PLACE.sub("", message)
        shape, index, field = place.groups() if place is not None else (None, None, None)
        if shape == "columns" and field is not None and (item := _ITEM.fullmatch(field)) is not None:
            field, index = item.groups()
        row = int(index) if index is not None else (0 if shape is None and (field or "Object" in message) else None)
        if (unknown := _UNKNOWN.search(message)) is not None:
            return self._fields.unknown(unknown[1], row)
        if (missing := _MISSING.search(message)) is not None:
            return self._fields.missing(missing[1], row)
        if field is None:
            return Problem(422, "wrong-type", f"row {row}: {message}" if row is not None else message, row=row)
        try:
            found = value_at(body, *_place(shape, row, field))
        except LookupError:
            detail = f"row {row}: {field!r}: {message}" if row is not None else f"{field!r}: {message}"
            return Problem(422, "wrong-type", detail, row=row, field=field)
        if found is None:
            return self._fields.null(field, row)
        if (wrong := _WRONG_TYPE.search(message)) is not None:
            return self._fields.wrong_type(field, found, wrong[1], row)
        if isinstance(found, int | float) and abs(found) > FLOAT32_MAX:
            return self._fields.not_finite(field, row)
        return self._fields.not_allowed(field, found, row)

    def encode(self, batch: Batch, scores: Scores, mixed: Mixed | None = None) -> bytes:
        """Return `{"model": ..., "predictions": [{"id", "score", "label"}, ...]}`.

        Regression has no label; multiclass gives the winner's score and all `scores` by class. Rows that another
        model answered carry its name, unless it answered all: then it is the answer's.
        """
        ids = batch.ids.to_pylist() if isinstance(batch.ids, pa.Array) else batch.ids
        pairs = zip(ids, scores.tolist(), strict=True)
        classes = self._target.classes
        if self._target.task == "binary":
            negative, positive = classes
            threshold = self._threshold
            predictions = [{"id": i, "score": s, "label": positive if s >= threshold else negative} for i, s in pairs]
        elif self._target.task == "regression":
            predictions = [{"id": i, "score": s} for i, s in pairs]
        else:
            names = [str(value) for value in classes]
            predictions = [
                {"id": i, "score": s[k], "label": classes[k], "scores": dict(zip(names, s, strict=True))}
                for (i, s), k in zip(pairs, scores.argmax(axis=1).tolist(), strict=True)
            ]
        model = self._model
        if mixed is not None and mixed.rows.all():
            model = mixed.model
        elif mixed is not None:
            for row in np.flatnonzero(mixed.rows).tolist():
                predictions[row]["model"] = mixed.model
        return self._encoder.encode({"model": model, "predictions": predictions})


def _number_type(column: NumberColumn) -> Any:
    low = -FLOAT32_MAX if column.min is None else column.min
    high = FLOAT32_MAX if column.max is None else column.max
    kind: Any = Annotated[float, msgspec.Meta(ge=low, le=high)]
    return kind if column.required else kind | None


def _category_type(column: CategoryColumn) -> Any:
    limited = column.values is not None and column.kind != "boolean"
    kind: Any = Literal[column.values] if limited else _KINDS[column.kind]
    return kind if column.required else kind | None


def _struct(name: str, attributes: dict[str, str], required: dict[str, Any], optional: dict[str, Any]) -> Any:
    """Return a msgspec struct type; `attributes` gives the attribute behind each JSON name."""
    fields = [(attributes[key], kind) for key, kind in required.items()]
    extras = [(attributes[key], kind, None) for key, kind in optional.items()]
    return msgspec.defstruct(
        name,
        [*fields, *extras],
        rename={attribute: key for key, attribute in attributes.items()},
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _first(ids: tuple[_Identifier, ...]) -> str | int:
    """Return the first id that a row was sent with, or a new one."""
    for one in ids:
        if one is not None:
            return one
    return uuid7()


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function from a row to the tuple of its values (attrgetter of one name gives no tuple)."""
    if not names:
        return lambda _: ()
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda row: (only(row),)
    getter: Callable[[Any], tuple[Any, ...]] = attrgetter(*names)
    return getter


def _place(shape: str | None, row: int | None, field: str) -> tuple[str | int, ...]:
    """Return where in the body the value stands that a problem is about."""
    if shape == "columns":
        return ("columns", field) if row is None else ("columns", field, row)
    return (field,) if shape is None or row is None else ("rows", row, field)
