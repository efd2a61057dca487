"""How does a replica write to the journal? Whole, durable segments; labels of neighbours in one.

Nothing is ever appended to, and no two writers share a file, so that a replica needs to ask nobody.
"""

import asyncio
import datetime as dt
import itertools
import logging
import uuid
from collections.abc import Callable
from concurrent.futures import Executor

import pyarrow as pa

from app.journal.layout import segment_name, segment_uri
from app.journal.parquet import encode, failing
from app.journal.rows import JournalError, Stream
from app.workspace import PROMPT, write_bytes

log = logging.getLogger(__name__)


def now() -> dt.datetime:
    """Return the moment it is, in UTC."""
    return dt.datetime.now(dt.UTC)


class SegmentWriter:
    """Writes one replica's segments below the journal's folder `folder_uri`; may be called by several threads.

    `clock` tells when a segment is written, by which it is ordered and partitioned.
    """

    def __init__(self, folder_uri: str, replica: str, clock: Callable[[], dt.datetime] = now) -> None:
        self._folder = folder_uri
        self._replica = f"{replica}-{uuid.uuid4().hex[:8]}"  # a replica that comes back under its name is another
        self._clock = clock
        self._numbers = itertools.count(1)
        self._unsure: dict[Stream, tuple[pa.Table, str]] = {}  # what failed last, by stream

    def write(self, stream: Stream, table: pa.Table) -> None:
        """Write rows as one segment, whole and durable when this returns; no rows are no segment.

        Raises JournalError where the file cannot be written (a full disk, say, or a store that is away for longer than
        somebody may wait). The same table tried again, as the next of its stream, keeps its name: a store may have taken
        it and only its answer was lost, and rows are not to be there twice.
        """
        if table.num_rows == 0:
            return
        known = self._unsure.pop(stream, None)
        if known is not None and known[0] is table:
            name = known[1]
        else:
            name = segment_name(self._clock(), self._replica, next(self._numbers))
        uri = segment_uri(self._folder, stream, name)
        try:
            with failing(f"{uri} cannot be written"):
                write_bytes(uri, encode(table), PROMPT)
        except JournalError:
            self._unsure[stream] = table, name
            raise


def _heard(commit: asyncio.Task[None]) -> None:
    """Take note of a commit's error: all who waited for it may have hung up."""
    if not commit.cancelled():
        commit.exception()


class LabelCommits:
    """Commits labels in groups: requests that come within `wait` seconds share one durable write.

    `write` takes the rows of all of them (`partial(writer.write, "labels")`) and runs on a thread of `executor` (the
    loop's by default), one at a time: who comes meanwhile is in the next group. `schema` is that of the rows.
    """

    def __init__(
        self, write: Callable[[pa.Table], None], wait: float, schema: pa.Schema, executor: Executor | None = None
    ) -> None:
        self._write = write
        self._wait = wait
        self._schema = schema
        self._executor = executor
        self._waiting: list[pa.Table] = []
        self._commit: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._failing = False

    async def add(self, table: pa.Table) -> None:
        """Return once the rows are durable.

        Raises JournalError, as everyone does who shares the write, when it fails; the next write is a new attempt.
        Raises ValueError or pa.ArrowException for rows that do not have the schema.
        """
        self._waiting.append(table.cast(self._schema))
        if self._commit is None:
            self._commit = asyncio.create_task(self._commit_waiting())
            self._commit.add_done_callback(_heard)
        await asyncio.shield(self._commit)  # a client that hangs up takes no other's labels with it

    async def _commit_waiting(self) -> None:
        await asyncio.sleep(self._wait)
        async with self._turn:
            waiting, self._waiting, self._commit = self._waiting, [], None
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._executor, self._write, pa.concat_tables(waiting))
            except JournalError as error:
                if not self._failing:
                    log.warning("journal: %s; labels are refused until it can be", error)
                self._failing = True
                raise
            self._failing = False
