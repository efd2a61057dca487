"""A segment is there whole or not at all; labels are durable when they are acknowledged, and cost one write a group."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.journal.rows import JournalError, label_schema
from app.journal.steps import Journal
from app.journal.writer import LabelCommits, SegmentWriter


def segments(folder):
    return sorted(Path(folder).rglob("*.parquet"))


def test_a_segment_is_a_parquet_file_with_the_rows_as_they_were(folder, predictions):
    SegmentWriter(folder, "r1").write("predictions", predictions(0, 10))
    (path,) = segments(folder)
    assert pq.ParquetFile(path).read().equals(predictions(0, 10))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_no_rows_are_no_segment(folder, predictions):
    SegmentWriter(folder, "r1").write("predictions", predictions(0, 0))
    assert segments(folder) == []


def test_replicas_and_threads_of_one_name_never_share_a_file(folder, labels):
    writers = [SegmentWriter(folder, "same") for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: writers[i % 2].write("labels", labels([i])), range(40)))
    assert len(segments(folder)) == 40
    assert sorted(Journal(folder).labels()["id"].to_pylist()) == sorted(f"r{i}" for i in range(40))


def test_a_full_disk_is_a_clear_error_leaves_nothing_and_is_over_when_there_is_room(folder, labels, disk):
    writer = SegmentWriter(folder, "r1")
    point = 0
    while True:
        point += 1
        disk.fail_at(point, OSError(28, "No space left on device"))
        try:
            writer.write("labels", labels([point]))
        except JournalError as error:
            message = str(error)
        if disk.operations < point:
            break
        disk.fail_at(None)
        assert message.endswith("cannot be written: No space left on device")
        assert not list(Path(folder).rglob(".*"))
    disk.fail_at(None)
    assert point >= 4
    assert f"r{point}" in Journal(folder).labels()["id"].to_pylist()


_LIMITED = """
import resource, sys
import pyarrow as pa
from app.journal.rows import JournalError
from app.journal.writer import SegmentWriter
writer = SegmentWriter(sys.argv[1], "r1")
table = pa.table({"id": [f"{i * 7919 % 10007:x}" for i in range(5000)]})
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
try:
    writer.write("labels", table)
except JournalError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
writer.write("labels", table)
"""


def test_a_file_that_the_system_refuses_half_way_leaves_nothing(folder):
    done = subprocess.run([sys.executable, "-c", _LIMITED, folder], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert [path.suffix for path in Path(folder).rglob("*") if path.is_file()] == [".parquet"]


_KILLED = """
import os, pathlib, signal, sys
import pyarrow as pa
from app.journal.writer import SegmentWriter
writer = SegmentWriter(sys.argv[1], "r1")
table = lambda i: pa.table({name: pa.array([i]).cast(pa.string()) for name in ("id", "label", "event", "arrival")})
for i in range(3):
    writer.write("labels", table(i))
    print(i, flush=True)
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
writer.write("labels", table(3))
"""


def test_a_replica_that_is_killed_loses_nothing_it_acknowledged(folder):
    done = subprocess.run([sys.executable, "-c", _KILLED, folder], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert Journal(folder).labels()["id"].to_pylist() == done.stdout.split() == ["0", "1", "2"]


def in_a_loop(test):
    """Run a test's coroutine to its end."""

    @wraps(test)
    def run(*args, **options):
        asyncio.run(test(*args, **options))

    return run


class Writes:
    """Counts writes, holds them back while `gate` is closed, and fails with `error`."""

    def __init__(self):
        self.tables, self.error = [], None
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, table):
        self.begun.set()
        assert self.gate.wait(30)
        if self.error:
            raise self.error
        self.tables.append(table["id"].to_pylist())


@pytest.fixture
def writes():
    return Writes()


@pytest.fixture
def schema(plan):
    return label_schema(plan.target)


@in_a_loop
async def test_neighbours_share_one_write_and_return_when_it_is_done(writes, schema, labels):
    commits = LabelCommits(writes, 0.01, schema)
    writes.gate.clear()
    adding = [asyncio.create_task(commits.add(labels([i]))) for i in range(20)]
    await asyncio.to_thread(writes.begun.wait)
    assert not any(task.done() for task in adding)
    writes.gate.set()
    await asyncio.gather(*adding)
    assert writes.tables == [[f"r{i}" for i in range(20)]]


@in_a_loop
async def test_who_comes_during_a_write_is_in_the_next(writes, schema, labels):
    commits = LabelCommits(writes, 0, schema)
    writes.gate.clear()
    first = asyncio.create_task(commits.add(labels([1])))
    await asyncio.to_thread(writes.begun.wait)
    later = [asyncio.create_task(commits.add(labels([i]))) for i in (2, 3)]
    await asyncio.sleep(0)
    writes.gate.set()
    await asyncio.gather(first, *later)
    assert writes.tables == [["r1"], ["r2", "r3"]]


@in_a_loop
async def test_a_failed_write_is_everyones_error_is_logged_once_and_the_next_is_a_new_attempt(
    writes, schema, labels, caplog
):
    commits = LabelCommits(writes, 0, schema)
    writes.error = JournalError("cannot be written: No space left on device")
    results = await asyncio.gather(*(commits.add(labels([i])) for i in range(5)), return_exceptions=True)
    results += await asyncio.gather(commits.add(labels([6])), return_exceptions=True)
    assert results == [writes.error] * 6
    assert [line.getMessage() for line in caplog.records if line.name == "app.journal.writer"] == [
        "journal: cannot be written: No space left on device; labels are refused until it can be"
    ]
    writes.error = None
    await commits.add(labels([7]))
    assert writes.tables == [["r7"]]


@in_a_loop
async def test_a_client_that_hangs_up_takes_nobodys_labels_with_it(writes, schema, labels):
    commits = LabelCommits(writes, 0, schema)
    writes.gate.clear()
    gone, stays = (asyncio.create_task(commits.add(labels([i]))) for i in (1, 2))
    await asyncio.to_thread(writes.begun.wait)
    gone.cancel()
    writes.gate.set()
    await stays
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert writes.tables == [["r1", "r2"]]


@in_a_loop
async def test_an_error_that_nobody_waits_for_any_more_is_logged_once(writes, schema, labels, caplog):
    gc.collect()  # so that what other tests left behind is not told of below
    caplog.clear()
    commits = LabelCommits(writes, 0, schema)
    writes.error = JournalError("cannot be written: No space left on device")
    writes.gate.clear()
    gone = asyncio.create_task(commits.add(labels([1])))
    await asyncio.to_thread(writes.begun.wait)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    writes.gate.set()
    with pytest.raises(JournalError):
        await commits.add(labels([2]))
    del gone
    gc.collect()
    told = [line for line in caplog.records if line.name in ("app.journal.writer", "asyncio")]
    assert ["labels are refused" in line.getMessage() for line in told] == [True]


@in_a_loop
async def test_rows_without_the_schema_are_refused_alone(writes, schema, labels):
    commits = LabelCommits(writes, 0, schema)
    with pytest.raises(ValueError, match="schema"):
        await commits.add(pa.table({"id": ["r1"]}))
    await commits.add(labels([2]))
    assert writes.tables == [["r2"]]


@in_a_loop
async def test_labels_are_on_disk_when_they_are_acknowledged(folder, schema, labels, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(fsync(descriptor)))
    commits = LabelCommits(partial(SegmentWriter(folder, "r1").write, "labels"), 0.001, schema)
    await asyncio.gather(*(commits.add(labels([i])) for i in range(50)))
    assert len(synced) == 2  # the file and its folder, for all of them
    assert Journal(folder).labels().equals(labels(range(50)))
