"""How do answered rows become a training table? Labelled ones, in the names and types of the declared source.

A training reads the source and the export as one table, so the export has the source's columns: key, time, target and
features come from the journal, columns that it does not know are null. Its numbers are float32, as the model saw them;
where the source holds whole numbers they are rounded to such.
"""

from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.data.features import FeaturePlan
from app.journal import labels
from app.journal.parquet import failing
from app.journal.rows import prediction_schema
from app.journal.steps import Journal
from app.workspace import write_stream

PIECE_ROWS = 131_072


def export_labelled(
    journal: Journal,
    plan: FeaturePlan,
    schema: pa.Schema,
    uri: str,
    event_from: int | None = None,
    event_until: int | None = None,
    timezone: str = "UTC",
) -> int:
    """Write what `labelled_pieces` yields as one Parquet file, and return the number of rows.

    Raises JournalError when it cannot be written; then there is no file.
    """
    schema = _written(schema, plan)
    rows = 0

    def fill(stream: BinaryIO) -> None:
        nonlocal rows
        with pq.ParquetWriter(stream, schema) as writer:
            for piece in labelled_pieces(journal, plan, schema, event_from, event_until, timezone):
                writer.write_table(piece)
                rows += piece.num_rows

    with failing(f"{uri} cannot be written"):
        write_stream(uri, fill)
    return rows


def labelled_pieces(
    journal: Journal,
    plan: FeaturePlan,
    schema: pa.Schema,
    event_from: int | None = None,
    event_until: int | None = None,
    timezone: str = "UTC",
) -> Iterator[pa.Table]:
    """Yield the journal's labelled rows with event in [from, until) (ms since 1970) as tables of `schema`.

    `schema` is that of the declared source; dictionaries become their values. Times without a zone of their own are
    local to `timezone`, as the declaration says. Each id comes once, as it was first predicted, with its last label;
    an id that does not fit the key's type is left out. In memory are all labels, and about `PIECE_ROWS` rows at once.
    """
    known = labels.last(journal.labels())
    schema = _written(schema, plan)
    unused = np.ones(known.num_rows, np.bool_)
    columns = ["id", "event", "features"]
    for rows in _gathered(journal.pieces("predictions", columns, event_from, event_until)):
        place = labels.places(rows["id"], known).fill_null(-1).to_numpy()
        chosen = _first_of_each(place, unused)
        unused[place[chosen]] = False
        table = rows.take(pa.array(chosen)).append_column("label", known["label"].take(pa.array(place[chosen])))
        piece = _as_source(table, plan, schema, timezone)
        if plan.key is not None and plan.key in schema.names:
            piece = piece.filter(pc.field(plan.key).is_valid())
        if piece.num_rows:
            yield piece


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield runs of neighbouring tables of one schema as one, of about `PIECE_ROWS` rows."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        for start in range(0, table.num_rows, PIECE_ROWS):
            piece = table.slice(start, PIECE_ROWS)
            if waiting and (rows + piece.num_rows > PIECE_ROWS or piece.schema != waiting[0].schema):
                yield pa.concat_tables(waiting)
                waiting, rows = [], 0
            waiting.append(piece)
            rows += piece.num_rows
    if waiting:
        yield pa.concat_tables(waiting)


def _first_of_each(place: npt.NDArray[np.int64], unused: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the rows (ascending) whose label's place is `unused`, the first of several."""
    rows = np.flatnonzero(place >= 0)
    rows = rows[unused[place[rows]]]
    _, first = np.unique(place[rows], return_index=True)
    return np.sort(rows[first])


def _written(schema: pa.Schema, plan: FeaturePlan) -> pa.Schema:
    """Return the schema without dictionaries, whose values go together with both, and without columns of no type."""
    columns = prediction_schema(plan).field("features").type
    types: list[pa.DataType] = []
    for field in schema:
        type_ = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        feature = columns.get_field_index(field.name)
        types.append(columns.field(feature).type if pa.types.is_null(type_) and feature >= 0 else type_)
    return pa.schema(list(zip(schema.names, types, strict=True)))


def _as_source(rows: pa.Table, plan: FeaturePlan, schema: pa.Schema, timezone: str) -> pa.Table:
    struct = rows["features"].combine_chunks()
    struct = pa.concat_arrays(struct.chunks) if isinstance(struct, pa.ChunkedArray) else struct
    found = dict(zip(struct.type.names, struct.flatten(), strict=True))
    columns = []
    for field in schema:
        if field.name in plan.names and field.name in found:
            column = _cast(found[field.name], field.type)
        elif field.name == plan.target.name:
            column = _cast(rows["label"], field.type)
        elif field.name == plan.time:
            column = _time(rows["event"], field.type, timezone)
        elif field.name == plan.key:
            column = _cast(rows["id"], field.type)
        else:
            column = pa.nulls(rows.num_rows, field.type)
        columns.append(column)
    return pa.table(columns, schema=schema)


def _cast(column: pa.Array | pa.ChunkedArray, wanted: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Return the column in another type; null where that cannot hold the value."""
    types = pa.types
    if types.is_floating(column.type) and types.is_integer(wanted):
        column = pc.round(column.cast(pa.float64()), round_mode="half_to_even")
        info = np.iinfo(wanted.to_pandas_dtype())
        # 2**63 is a float64, and one too many: the upper limit itself is out
        held = pc.and_(pc.greater_equal(column, float(info.min)), pc.less(column, float(info.max) + 1.0))
        column = pc.if_else(held, column, pa.scalar(None, pa.float64()))
    elif types.is_floating(column.type) and types.is_boolean(wanted):
        return pc.not_equal(column, 0)
    elif types.is_string(column.type) and types.is_integer(wanted):
        whole = pc.match_substring_regex(column, r"^-?\d+$")  # Arrow would read 0x1f, too
        column = pc.if_else(whole, column, pa.scalar(None, column.type))
    elif types.is_integer(column.type) and types.is_integer(wanted):
        info = np.iinfo(wanted.to_pandas_dtype())
        held = pc.and_(pc.greater_equal(column, int(info.min)), pc.less_equal(column, min(int(info.max), 2**63 - 1)))
        column = pc.if_else(held, column, pa.scalar(None, column.type))
    elif types.is_floating(column.type) and types.is_decimal(wanted):
        held = pc.less(pc.abs(column), 10.0 ** (wanted.precision - wanted.scale))
        column = pc.if_else(held, column, pa.scalar(None, column.type))
    safe = not (types.is_decimal(wanted) or (types.is_integer(column.type) and types.is_floating(wanted)))
    try:
        return column.cast(wanted, safe=safe)
    except pa.ArrowException:  # of which value, it does not say
        known = pc.unique(column)
        return pa.array(map(partial(_value, wanted=wanted), known), wanted).take(pc.index_in(column, value_set=known))


def _value(value: pa.Scalar, wanted: pa.DataType) -> object:
    try:
        return value.cast(wanted).as_py()
    except pa.ArrowException:
        return None


def _time(moments: pa.ChunkedArray, wanted: pa.DataType, timezone: str) -> pa.ChunkedArray:
    """Return moments in the source's type: with its zone, local to `timezone` without one, or as ISO 8601 text."""
    types = pa.types
    if types.is_timestamp(wanted) and wanted.tz is not None:
        return moments.cast(wanted, safe=False)  # the source may know whole seconds only
    if types.is_timestamp(wanted) or types.is_date(wanted):
        local = pc.local_timestamp(moments.cast(pa.timestamp("ms", timezone)))
        return local.cast(wanted, safe=False)
    return pc.strftime(moments, format="%Y-%m-%dT%H:%M:%SZ").cast(wanted)
