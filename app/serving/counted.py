"""What a replica writes into its journal, counted: rows that are in it, and attempts that failed."""

from collections.abc import Callable

import pyarrow as pa

from app.journal.rows import JournalError, Stream
from app.serving.recorder import Write
from app.telemetry import ServingMetrics

Soon = Callable[..., object]
"""Arranges a call on the event loop, from whatever thread: `loop.call_soon_threadsafe`."""


def counted(write: Write, metrics: ServingMetrics, soon: Soon) -> Write:
    """Return `write` with its rows counted; `metrics` are the event loop's, and writers are on threads."""

    def write_and_count(stream: Stream, table: pa.Table) -> None:
        try:
            write(stream, table)
        except JournalError:
            soon(metrics.unwritten, stream)
            raise
        soon(metrics.written, stream, table.num_rows)

    return write_and_count
