"""How do answered rows reach the journal? A thread gathers them, counts them and writes them; requests wait for nothing.

What cannot be written waits, within bounds of memory; beyond them the oldest rows are dropped and counted, and the
service answers on. With `journal.durable` an answer waits until its rows are written, and is refused when they cannot be.
"""

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from app.journal.rows import JournalError, Stream
from app.serving.answered import Answered
from app.serving.gathered import Gathered
from app.serving.profiles import HOUR, Call, Profiles
from app.serving.trial import score_unheard
from app.spec import Journal

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 16_384
"""So many waiting rows are written without waiting for `journal.flush`, and about so many in one segment. A row of more
than a KiB counts as one for each.
"""
MOST_ROWS = 262_144
"""Most answered rows that wait for the thread, counted in the same way: those that came in 256 MiB at most."""
MOST_CALLS = 65_536
"""Most timings of calls that wait for the thread; older ones are forgotten."""
MOST_BYTES = 67_108_864
"""Most bytes of finished tables that wait for a disk that takes none."""

Write = Callable[[Stream, pa.Table], None]
Promise = asyncio.Future[None]


class _Waiting(NamedTuple):
    answered: Answered
    promise: Promise | None


class Recorder:
    """One replica's way into the journal. `record`, `called` and `missing` cost the caller about a microsecond.

    `write` writes a segment or raises JournalError; `dropped` hears, on whatever thread, of rows given up.
    """

    def __init__(self, journal: Journal, write: Write, replica: str, dropped: Callable[[int], None]) -> None:
        self.durable = journal.durable
        self._seconds = journal.flush.total_seconds()
        self._sample = journal.sample
        self._write = write
        self._replica = replica
        self._dropped = dropped
        # Deques and counters with one writer each: no lock between the event loop and the thread.
        self._waiting: deque[_Waiting] = deque()
        self._calls: deque[Call] = deque(maxlen=MOST_CALLS)
        self._missing: deque[str] = deque(maxlen=MOST_CALLS)
        self._recorded = self._taken = self._lost = 0
        self._outbox: deque[tuple[Stream, pa.Table]] = deque()
        self._failing = False
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end the thread; blocks."""
        self._ended = True
        self._wake.set()
        self._thread.join()

    def record(self, answered: Answered) -> None:
        """Hand over a request's rows. Called by the event loop."""
        self._put(_Waiting(answered, None))

    async def record_durably(self, answered: Answered) -> None:
        """Return once a request's rows are written. Raises JournalError when they cannot be."""
        promise: Promise = asyncio.get_running_loop().create_future()
        self._put(_Waiting(answered, promise))
        self._wake.set()
        await promise

    def _put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._recorded += waiting.answered.weight
        rows = self._recorded - self._taken - self._lost
        if rows >= ROWS_AT_ONCE:
            self._wake.set()
        if rows > MOST_ROWS:
            self._drop_oldest(rows - MOST_ROWS)

    def _drop_oldest(self, rows: int) -> None:
        lost = given_up = 0
        while lost < rows:
            try:
                oldest = self._waiting.popleft()
            except IndexError:  # the thread was quicker
                break
            lost += oldest.answered.weight
            given_up += oldest.answered.rows
            if oldest.promise is not None:
                _settle([oldest.promise], JournalError("the journal cannot keep up"))
        self._lost += lost
        self._give_up(given_up)

    def called(self, call: Call) -> None:
        """Hand over how long a call of a graph took."""
        self._calls.append(call)

    def missing(self, version: str) -> None:
        """Hand over that a challenger could not be loaded."""
        self._missing.append(version)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._seconds)
            self._wake.clear()
            self.flush()
        self.flush()  # what came after the last look, before the end

    def flush(self) -> None:
        """Write all that waits by now. Called by the thread alone.

        What comes meanwhile waits for the next flush: under load there is always some, and a segment for each few rows
        would take more of the interpreter than the requests do.
        """
        left = len(self._waiting)
        while True:
            waiting = self._take()
            left -= len(waiting)
            promises = [one.promise for one in waiting if one.promise is not None]
            try:
                tables = self._tables(waiting)
            except Exception:  # the thread has to outlive a row that it cannot put down
                log.exception("journal: %d requests cannot be put down", len(waiting))
                self._give_up(sum(one.answered.rows for one in waiting))
                _settle(promises, JournalError("the rows cannot be put down"))
                tables, promises = [], []
            while waiting:  # one by one: thousands at once would hold up the event loop until all are freed
                waiting.pop()
            self._send(tables, promises)
            if left <= 0 or not self._waiting:
                return

    def _take(self) -> list[_Waiting]:
        taken, rows = [], 0
        while self._waiting and rows < ROWS_AT_ONCE:
            taken.append(self._waiting.popleft())
            rows += taken[-1].answered.weight
        self._taken += rows
        return taken

    def _give_up(self, rows: int) -> None:
        if rows:
            self._dropped(rows)

    def _tables(self, waiting: list[_Waiting]) -> list[tuple[Stream, pa.Table]]:
        tables: list[tuple[Stream, pa.Table]] = []
        profiles = Profiles()
        answered = [one.answered for one in waiting]
        for (_, challenger), some in itertools.groupby(answered, key=lambda one: (one.champion, one.challenger)):
            gathered = Gathered(list(some))
            version = shadow = None
            if challenger is not None and all(one.second is None for one in gathered.answered):
                version, shadow = challenger.version, score_unheard(challenger, gathered, profiles)
            gathered.profile(profiles)
            tables.append(("predictions", gathered.predictions(version, shadow, self._sample)))
        now = time.time_ns() // 1_000_000 // HOUR * HOUR
        while self._calls:
            profiles.called(self._calls.popleft(), now)
        while self._missing:
            profiles.missing(self._missing.popleft(), "challenger", now)
        tables.append(("profiles", profiles.table(self._replica)))
        return tables

    def _send(self, tables: list[tuple[Stream, pa.Table]], promises: list[Promise]) -> None:
        self._outbox.extend(one for one in tables if one[1].num_rows)
        try:
            while self._outbox:
                self._write(*self._outbox[0])
                self._outbox.popleft()
        except JournalError as error:
            if not self._failing:
                log.warning("journal: %s; answered rows wait for it", error)
            self._failing = True
            unwritten = any(stream == "predictions" for stream, _ in self._outbox)
            if promises and unwritten:  # these rows will not be answered, so they are not to be told of later
                self._outbox.clear()
            self._shrink(0 if self._ended else MOST_BYTES)
            _settle(promises, error if unwritten else None)
            return
        self._failing = False
        _settle(promises, None)

    def _shrink(self, most: int) -> None:
        size = sum(table.nbytes for _, table in self._outbox)
        while self._outbox and size > most:
            stream, table = self._outbox.popleft()
            size -= table.nbytes
            self._give_up(table.num_rows if stream == "predictions" else 0)


def _settle(promises: list[Promise], error: JournalError | None) -> None:
    """Let the requests go on, each on its event loop."""

    def settle(promise: Promise) -> None:
        if not promise.done():  # a client that went away has cancelled it
            if error is None:
                promise.set_result(None)
            else:
                promise.set_exception(error)

    for promise in promises:
        promise.get_loop().call_soon_threadsafe(settle, promise)
