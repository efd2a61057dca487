"""How does a table become the bytes of one of the journal's files, and a file a table again?"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from app.journal.rows import JournalError
from app.workspace import resolve

_ROW_GROUP = 131_072


class VanishedError(JournalError):
    """A file that was listed is gone: its rows were moved on meanwhile, and a new listing will find them."""


def encode(table: pa.Table) -> pa.Buffer:
    """Return a whole Parquet file.

    Without dictionaries and statistics, which cost a small file half of its time and which nobody here reads.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", use_dictionary=False, write_statistics=False, row_group_size=_ROW_GROUP
    )
    return sink.getvalue()


def decode(data: bytes) -> pa.Table:
    """Return a whole file's table. Raises pa.ArrowException or OSError for bytes that are no such file."""
    return _read(pa.BufferReader(data), None, pre_buffer=False)


def load(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file, or those of some columns that it has; `features.x` is one field of `features`.

    Raises VanishedError when it is not there, JournalError when it cannot be read.
    """
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, pafs.LocalFileSystem)
    with failing(f"{uri} cannot be read"):
        return _read(filesystem.open_input_file(path), columns, pre_buffer=not local)


def _read(source: pa.NativeFile, columns: Sequence[str] | None, pre_buffer: bool) -> pa.Table:
    with source, pq.ParquetFile(source, pre_buffer=pre_buffer) as file:
        table = file.read(columns=None if columns is None else list(columns), use_threads=False)
    return table.replace_schema_metadata(None)


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turn what the system says about a file into a JournalError; of one that is not there, into VanishedError."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise (VanishedError if isinstance(error, FileNotFoundError) else JournalError)(
            f"{what}: {reason}"
        ) from error
