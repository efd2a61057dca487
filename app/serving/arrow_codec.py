"""Arrow IPC streams: columns in, columns out, without a Python object for a row."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.data.features import CategoryColumn, NumberColumn, TargetColumn
from app.serving.arrow_stream import check_single, read_stream
from app.serving.codec import ID, ID_LENGTH, Batch, Fields, Mixed
from app.serving.identifiers import uuid7_array
from app.serving.moments import Moments, NoMoment, NoTime, read_column
from app.types import MISSING_ID, Scores

_MOST = pa.scalar(2**63 - 1, pa.uint64())


class ArrowCodec:
    """Arrow bodies of one model version."""

    content_type = "application/vnd.apache.arrow.stream"

    def __init__(self, fields: Fields, model: str, threshold: float) -> None:
        self._fields = fields
        self._model = model
        self._threshold = threshold
        declared = {column.name: column.values for column in fields.plan.category}
        self._values = {name: pa.array(values) for name, values in declared.items() if values is not None}

    def decode(self, body: bytes) -> Batch:
        """Decode and check a stream whose columns are the features (and, if sent, id, key and time).

        Raises Problem: 400 for a broken stream, 413 for too many rows or too long texts, 415 for a compressed one, 422 for
        other columns or values.
        """
        table = read_stream(body)
        self._fields.check_count(table.num_rows)
        plan = self._fields.plan
        names = table.column_names
        for name in names:
            if name not in self._fields.allowed:
                raise self._fields.unknown(name)
        check_single(names)
        for name in plan.names:
            if name not in names:
                raise self._fields.missing(name)
        for number in plan.number:
            self._check_type(number, table.column(number.name).type)
        for category in plan.category:
            self._check_category(category, table.column(category.name))
        features = plan.encode(table)
        self._fields.check_numbers(features.number)
        for i, category in enumerate(plan.category):
            if category.required and (absent := np.flatnonzero(features.category[:, i] == MISSING_ID)).size:
                raise self._fields.null(category.name, int(absent[0]))
        categories = [table.column(category.name) for category in plan.category]
        return Batch(
            self._ids(table), features, self._event(table), lambda row, column: categories[column][row].as_py()
        )

    def _event(self, table: pa.Table) -> Moments | None:
        name = self._fields.time
        if name is None or name not in table.column_names:
            return None
        sent = table.column(name)
        try:
            return read_column(sent, self._fields.zone)
        except NoTime:
            raise self._fields.wrong_type(name, str(sent.type), str(sent.type)) from None
        except NoMoment as error:
            raise self._fields.no_moment(error) from None

    def _check_type(self, column: NumberColumn, kind: pa.DataType) -> None:
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise self._fields.wrong_type(column.name, str(kind), str(kind))

    def _check_category(self, column: CategoryColumn, values: pa.ChunkedArray) -> None:
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        fits = {
            "string": pa.types.is_string(kind) or pa.types.is_large_string(kind),
            "integer": pa.types.is_integer(kind),
            "boolean": pa.types.is_boolean(kind),
        }[column.kind]
        if not fits:
            if pa.types.is_null(kind) and values.null_count == len(values):
                return
            raise self._fields.wrong_type(column.name, str(kind), str(kind))
        allowed = self._values.get(column.name)
        start = 0
        for chunk in values.chunks:
            named = pa.types.is_dictionary(chunk.type)
            plain = chunk.dictionary if named else chunk
            if pa.types.is_uint64(kind) and (place := pc.index(pc.greater(plain, _MOST), True).as_py()) >= 0:
                raise self._fields.not_allowed(column.name, plain[place].as_py(), None if named else start + place)
            if allowed is not None:
                wrong = _none_of(plain, allowed)
                place = pc.index(wrong.take(chunk.indices) if named else wrong, True).as_py()
                if place >= 0:
                    raise self._fields.not_allowed(column.name, chunk[place].as_py(), start + place)
            start += len(chunk)

    def _ids(self, table: pa.Table) -> pa.Array:
        """Return the first id that each row was sent with, or a new one."""
        found: pa.Array | None = None
        for name in self._fields.ids:
            if name not in table.column_names:
                continue
            sent = table.column(name).combine_chunks()
            if sent.null_count == len(sent):
                continue
            if not is_id(sent.type):
                raise self._fields.wrong_type(name, str(sent.type), str(sent.type))
            if (row := too_long(sent)) is not None:
                raise self._fields.not_allowed(name, sent[row].as_py(), row)
            found = sent if found is None else pc.coalesce(found.cast(pa.string()), sent.cast(pa.string()))
        if found is None:
            return uuid7_array(table.num_rows)
        return pc.coalesce(found.cast(pa.string()), uuid7_array(len(found))) if found.null_count else found

    def encode(self, batch: Batch, scores: Scores, mixed: Mixed | None = None) -> bytes:
        """Return a stream of id, score, label and model; regression has no label, multiclass all `scores` as a list.

        The schema's metadata names the model, too: the champion's, unless another answered all rows.
        """
        ids = batch.ids if isinstance(batch.ids, pa.Array) else pa.array(map(str, batch.ids))
        columns = {ID: ids, **predictions(self._fields.plan.target, scores, self._threshold)}
        models, index = [self._model], np.zeros(batch.rows, np.int8)
        if mixed is not None:
            models, index = [self._model, mixed.model], mixed.rows.astype(np.int8)
        columns["model"] = pa.DictionaryArray.from_arrays(pa.array(index), pa.array(models))
        model = models[index.min()] if batch.rows else self._model
        table = pa.table(columns).replace_schema_metadata({"model": model})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _none_of(values: pa.Array, allowed: pa.Array) -> pa.Array:
    """Say of each value (n,) that is no null whether it is none of those allowed."""
    if pa.types.is_integer(values.type):  # a narrow type need not hold all that is allowed
        values = values.cast(pa.int64())
    return pc.and_(pc.invert(pc.is_in(values, value_set=allowed.cast(values.type))), pc.is_valid(values))


def is_id(kind: pa.DataType) -> bool:
    """Say whether a column of this type can hold ids."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def too_long(ids: pa.Array | pa.ChunkedArray) -> int | None:
    """Return the place of the first id that is longer than one may be; None where none is."""
    if pa.types.is_integer(ids.type) or ids.nbytes <= ID_LENGTH:
        return None
    lengths = pc.utf8_length(ids)
    if (pc.max(lengths).as_py() or 0) <= ID_LENGTH:
        return None
    return first(pc.greater(lengths, ID_LENGTH))


def predictions(target: TargetColumn, scores: Scores, threshold: float) -> dict[str, pa.Array]:
    """Return score and label of n rows as columns; regression has no label, multiclass all `scores` as a list."""
    if target.task == "regression":
        return {"score": pa.array(scores)}
    classes = pa.array(target.classes)
    if target.task == "binary":
        return {"score": pa.array(scores), "label": classes.take(pa.array((scores >= threshold).astype("i1")))}
    return {
        "score": pa.array(scores.max(axis=1)),
        "label": classes.take(pa.array(scores.argmax(axis=1))),
        "scores": pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), len(target.classes)),
    }


def first(mask: pa.ChunkedArray) -> int:
    """Return the place of the first true value."""
    return int(pc.index(mask, True).as_py())
