"""What a replica writes into its journal is counted on its event loop, and a failure stays one."""

import pyarrow as pa
import pytest

from app.journal.rows import JournalError
from app.serving.counted import counted
from app.telemetry import ServingMetrics


def test_rows_and_failures_are_counted_by_stream(counts) -> None:
    arranged = []
    metrics = ServingMetrics("rides", counts, later=lambda *_: None)
    full = False

    def write(stream: str, table: pa.Table) -> None:
        if full:
            raise JournalError("No space left on device")

    def soon(call, *arguments) -> None:
        arranged.append((call, arguments))

    writes = counted(write, metrics, soon)
    writes("labels", pa.table({"id": ["a", "b"]}))
    writes("profiles", pa.table({"id": ["a"]}))
    full = True
    with pytest.raises(JournalError, match="No space"):
        writes("labels", pa.table({"id": ["c"]}))
    metrics.flush()
    assert not counts.values, "counted on the thread that writes"
    for call, arguments in arranged:
        call(*arguments)
    metrics.flush()
    assert counts.values == {
        ("evertrue_journal_rows_total", "rides", "labels"): 2,
        ("evertrue_journal_rows_total", "rides", "profiles"): 1,
        ("evertrue_journal_failed_writes_total", "rides", "labels"): 1,
    }
