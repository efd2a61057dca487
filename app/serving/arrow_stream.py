"""How is an Arrow IPC stream read, so that a small body cannot become a large table?

What would let it: compressed buffers, of which a kilobyte may hold gigabytes; dictionaries that grow or are shared by
thousands of batches, each of which gets one of its own; and long texts that many rows name (dictionaries, views), of
which every step that needs them plain makes a copy a row.
"""

import struct

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.serving.problems import Problem

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_UNFOLDED = 33_554_432
"""Most bytes beyond the body's own that a table, or the text of a column, may have: for 100,000 rows 335 each."""

_SHARED = {kind.id for kind in (pa.dictionary(pa.int8(), pa.string()), pa.string_view(), pa.binary_view())}
"""Types by which rows, or batches, may share one text."""

# Arrow's Message.fbs: Message.header; DictionaryBatch.data and .isDelta; RecordBatch.compression
_HEADER, _DATA, _IS_DELTA, _COMPRESSION = 2, 1, 2, 3


def read_stream(body: bytes) -> pa.Table:
    """Return the table of a whole stream.

    Raises Problem: 400 for anything else, 413 for what unfolds to far more than was sent, 415 for compressed buffers and
    dictionaries that grow.
    """
    if not body.endswith(_END):  # without it, a stream cut between two record batches would lose rows unseen
        raise Problem(
            400, "malformed-arrow", "the body is not a whole Arrow IPC stream: its end-of-stream mark is missing"
        )
    try:
        _check_messages(body)
        with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
            table = reader.read_all()
        shared = [i for i, kind in enumerate(table.schema.types) if kind.id in _SHARED]
        batches = table.column(shared[0]).num_chunks if shared else 1
        if batches > 1 and table.nbytes > _UNFOLDED + len(body):
            detail = f"the stream's {len(body)} bytes make a table of {table.nbytes}: a dictionary is there for many batches"
            raise Problem(413, "table-too-large", detail)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError, struct.error) as error:
        raise Problem(400, "malformed-arrow", f"the body is not a whole Arrow IPC stream: {error}") from None
    for i in shared:
        if _unfolded(table.column(i)) > _UNFOLDED + len(body):
            name = table.field(i).name
            detail = f"column {name!r:.100}: its rows name more than {_UNFOLDED + len(body)} bytes of text"
            raise Problem(413, "column-too-large", detail, field=name[:100])
    return table


def check_single(names: list[str]) -> None:
    """Refuse a column that is there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Problem(422, "duplicate-column", f"column {name!r:.100} is there twice", field=name[:100])
        seen.add(name)


def _check_messages(body: bytes) -> None:
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
        if message.type == "schema":
            continue
        metadata = message.metadata
        batch = _table(metadata, _field(metadata, _table(metadata, 0), _HEADER))
        if message.type == "dictionary":
            delta = _field(metadata, batch, _IS_DELTA)
            if delta and metadata[delta]:
                raise Problem(415, "arrow-delta", "the stream's dictionaries grow; send each of them whole, once")
            batch = _table(metadata, _field(metadata, batch, _DATA))
        if _field(metadata, batch, _COMPRESSION):
            raise Problem(415, "arrow-compressed", "the stream's buffers are compressed; send them as they are")


def _table(metadata: pa.Buffer, place: int) -> int:
    """Follow a flatbuffer's offset to a table."""
    [offset] = struct.unpack_from("<I", metadata, place)
    return place + int(offset)


def _field(metadata: pa.Buffer, table: int, number: int) -> int:
    """Return where a table's field is; 0 where it has none."""
    [back] = struct.unpack_from("<i", metadata, table)
    [size] = struct.unpack_from("<H", metadata, table - back)
    if 4 + 2 * number >= size:
        return 0
    [offset] = struct.unpack_from("<H", metadata, table - back + 4 + 2 * number)
    return table + int(offset) if offset else 0


def _unfolded(column: pa.ChunkedArray) -> int:
    """Return how many bytes of text a column's rows name together; 0 where every row has its own."""
    if pa.types.is_dictionary(column.type):
        most = sum(len(chunk) * int(chunk.dictionary.nbytes) for chunk in column.chunks)
        if most <= _UNFOLDED:  # nearly always, and known at once
            return most
        if _is_view(column.type.value_type) or _is_text(column.type.value_type):
            named = (_sizes(chunk.dictionary)[chunk.indices.drop_null().to_numpy()] for chunk in column.chunks)
            return sum(int(sizes.sum()) for sizes in named)
        return 0
    return sum(int(_sizes(chunk).sum()) for chunk in column.chunks) if _is_view(column.type) else 0


def _sizes(texts: pa.Array) -> npt.NDArray[np.int64]:
    """Return the bytes of every text (n,)."""
    if not len(texts):
        return np.empty(0, np.int64)
    if not _is_view(texts.type):
        return np.asarray(pc.fill_null(pc.binary_length(texts), 0), np.int64)
    views = np.frombuffer(texts.buffers()[1], np.int32)[::4]  # a view is four numbers, its length the first
    return views[texts.offset : texts.offset + len(texts)].astype(np.int64)


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    small = types.is_string(kind) or types.is_binary(kind)
    return bool(small or types.is_large_string(kind) or types.is_large_binary(kind))
