"""A small Arrow stream stays small: what would grow when it is read is refused, unread."""

import struct
from typing import Any

import pyarrow as pa
import pytest

from app.serving.arrow_stream import check_single, read_stream
from app.serving.problems import Problem

MEGABYTE = "z" * 1_048_576


def stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def batch(column: pa.Array) -> pa.RecordBatch:
    return pa.record_batch([column], ["column"])


def named(texts: list[str], *index: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(texts))


def views(text: str, rows: int) -> pa.Array:
    """Return a column whose rows are all the same text, which is there once."""
    view = struct.pack("<i4sii", len(text), text[:4].encode(), 0, 0)
    return pa.Array.from_buffers(
        pa.string_view(), rows, [None, pa.py_buffer(view * rows), pa.py_buffer(text.encode())]
    )


def refused(body: bytes) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        read_stream(body)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("column", [pa.array(["x" * 1000]), named(["x" * 1000], 0)], ids=["plain", "dictionary"])
def test_compressed_buffers_are_refused_and_plain_ones_are_read(codec: str, column: pa.Array) -> None:
    assert refused(stream(batch(column), compression=codec)) == (415, "arrow-compressed")
    assert read_stream(stream(batch(column)))["column"].to_pylist() == ["x" * 1000]


def test_dictionaries_that_grow_are_refused_and_those_that_are_replaced_are_read() -> None:
    one, two = batch(named(["a"], 0)), batch(named(["a", "b"], 1))
    assert refused(stream(one, two, emit_dictionary_deltas=True)) == (415, "arrow-delta")
    assert read_stream(stream(one, two))["column"].to_pylist() == ["a", "b"]


def test_a_dictionary_that_every_batch_would_get_is_refused() -> None:
    assert refused(stream(*[batch(named([MEGABYTE], 0))] * 40)) == (413, "table-too-large")
    assert read_stream(stream(*[batch(named([MEGABYTE], 0))] * 10)).num_rows == 10


@pytest.mark.parametrize("rows", [10, 40])
def test_a_long_text_that_many_rows_name_is_refused(rows: int) -> None:
    for column in (named([MEGABYTE, "short"], *[0] * rows), views(MEGABYTE, rows)):
        body = stream(batch(column))
        if rows == 10:
            assert read_stream(body)["column"][9].as_py() == MEGABYTE
        else:
            assert refused(body) == (413, "column-too-large")


def test_no_dictionary_and_no_nulls_are_in_the_way() -> None:
    columns = (named([], None), named(["a", None], 0, 1, None), pa.nulls(3), pa.array(["a", None], pa.string_view()))
    for column in columns:
        assert read_stream(stream(batch(column)))["column"].to_pylist() == column.to_pylist()
    of_lists = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([[1.0]]))
    assert read_stream(stream(batch(of_lists))).num_rows == 1
    assert read_stream(stream(batch(pa.array([1])).slice(0, 0))).num_rows == 0


def test_a_column_that_is_there_twice_is_found_at_once_among_many() -> None:
    class Name(str):
        """Counts how often it is held against another."""

        asked = 0

        def __eq__(self, other: object) -> bool:
            Name.asked += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names: list[str] = [Name(f"column{number}") for number in range(1000)]
    check_single(names)
    assert Name.asked < 10_000
    with pytest.raises(Problem, match="'column7' is there twice"):
        check_single([*names, "column7"])
