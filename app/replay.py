"""How would this table have arrived as traffic? Rows in event-time order, labels when they were known, as a client sends them.

Event time passes at a chosen pace. Each tick sends the rows that have happened since the last: nearly all as Arrow, every
`SINGLE`-th as a JSON request of its own, and the labels that have become known.
"""

import datetime as dt
import http.client
import json
import logging
import select
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.data.contract import Contract
from app.data.moments import to_moments
from app.data.sources import list_fragments, read, read_schema, with_floats
from app.declaration import Declaration
from app.spec import Data
from app.types import Scores, UserError

log = logging.getLogger(__name__)

ARROW = "application/vnd.apache.arrow.stream"
DAY = 86_400_000  # ms
SINGLE = 100
ROWS_A_REQUEST = 2_000
TICK = 0.1  # s
LONGEST_TICK = DAY // 4  # however slow the service, rows never come in larger heaps of event time than this
PATIENCE = 120.0  # s, for labels that the service could not keep
NEVER = np.iinfo(np.int64).max
"""When a label is known whose moment is null."""
HELD = 0.02
"""Share of the pace that is kept while the replay is held back."""


class Later(Exception):  # noqa: N818 - no error: an answer
    """The service cannot take a request now; `args` are the seconds after which it wants to be asked again."""


@dataclass
class Client:
    """One connection to a service that counts what it sends, what fails, and what has to be sent `again`.

    `key` is sent along; `trust` says whom to believe over HTTPS, the authorities of this machine where it is None.
    """

    address: str
    key: str | None = field(default=None, repr=False)
    trust: ssl.SSLContext | None = field(default=None, repr=False)
    sent: int = 0
    failed: int = 0
    again: int = 0
    rows: int = 0
    _connection: http.client.HTTPConnection = field(init=False, repr=False)
    _path: str = field(init=False, repr=False)
    _headers: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Take the address apart; the connection is opened by the first request.

        Raises UserError for a key that no header can carry: the client of HTTP would tell it in its error.
        """
        key = (self.key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError("the key to send along is none: found other than printable ASCII in it")
        parts = urlsplit(self.address)
        self._path = parts.path
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(parts.netloc, timeout=60, context=self.trust)
        else:
            self._connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def post(
        self, page: str, body: bytes, content_type: str, expected: int = 200, patient: bool = False
    ) -> bytes | None:
        """Send one request and return the answer's body; None where it failed, which is counted and logged.

        Where the client is patient, raises Later for a 429 or 503 instead: the service will take it when it can.
        """
        self.sent += 1
        try:
            headers = {"content-type": content_type} | self._headers
            self._reopen()
            self._connection.request("POST", f"{self._path}/{page}", body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens another
            self._fail(f"{page}: {error!r}")
            return None
        if patient and answer.status in (429, 503):
            self.again += 1
            why = content[:500].decode(errors="replace")
            log.warning("%s: %d, to be sent again: %s", page, answer.status, why)
            raise Later(float(answer.headers.get("retry-after", 1)))
        if answer.status != expected:
            self._fail(f"{page}: {answer.status} {content[:500].decode(errors='replace')}")
            return None
        return content

    def get(self, page: str) -> Any:
        """Return a JSON page. Raises UserError when there is none."""
        try:
            self._reopen()
            self._connection.request("GET", f"{self._path}/{page}", headers=self._headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise UserError(f"{self.address}/{page} does not answer: {error!r}") from error
        if answer.status != 200:
            raise UserError(f"{self.address}/{page}: {answer.status} {content[:500].decode(errors='replace')}")
        return json.loads(content)

    def _reopen(self) -> None:
        """Open another connection with the next request where a server has ended this one, as they do with idle ones."""
        if self._connection.sock is not None and select.select([self._connection.sock], [], [], 0)[0]:
            self._connection.close()

    def _fail(self, words: str) -> None:
        self.failed += 1
        log.warning("%s", words)


@dataclass(frozen=True)
class Arrivals:
    """n rows that kept the contract, ascending in time, with every column it knows; `rejected` did not keep it.

    `time` and `known` (n,) are moments in ms since 1970: when a row happened, and when its label was known.
    """

    table: pa.Table
    key: str
    target: str
    time: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64]
    rejected: int


def read_arrivals(declaration: Declaration, source: str, known: str | None, delay: dt.timedelta) -> Arrivals:
    """Read rows to replay; labels are known at the moment in column `known`, or `delay` after their row.

    Raises UserError for a declaration without key or time, and for a table that cannot be read, lacks a column, or has
    no row that keeps the contract.
    """
    spec = declaration.spec
    key, time = spec.data.key, spec.data.time
    if key is None or time is None:
        raise UserError(
            "a replay needs data.key, by which a label finds its row, and data.time, by which rows follow each other"
        )
    fragments = list_fragments(Data(source=source, format=spec.data.format), Path.cwd())
    schema = read_schema(fragments)
    contract = Contract.of(spec, schema)
    if known is not None and known not in schema.names:
        raise UserError(f"{source}: found no column {known!r}, allowed are {', '.join(schema.names)}")
    columns = [*contract.columns]
    if known is not None and known not in columns:
        columns.append(known)
    numbers = {name for name, feature in contract.features.items() if feature.type == "number"}
    schema = with_floats(schema, fragments, numbers)
    kept, moments, rejected = [], [], 0
    for fragment in fragments:
        for _, piece in read(fragment, columns, schema=schema):
            checked = contract.check(piece.select(contract.columns), dt.datetime.now(dt.UTC))
            kept.append(checked.kept)
            rejected += checked.rejected.num_rows
            if known is not None:
                place = pc.index_in(checked.kept[key], value_set=piece[key].cast(checked.kept[key].type))
                moments.append(to_moments(piece[known], spec.data.timezone).take(place))
    table = pa.concat_tables(kept)
    if not table.num_rows:
        raise UserError(
            f"{source}: no row keeps the contract, so there is none to replay; {rejected:,} do not keep it"
        )
    happened = table[time].cast(pa.int64()).to_numpy()
    if known is None:
        told = happened + round(delay.total_seconds() * 1000)
    else:
        found = pa.chunked_array([chunk for column in moments for chunk in column.chunks])
        told = pc.fill_null(found.cast(pa.int64()), NEVER).to_numpy()
    order = np.argsort(happened, kind="stable")
    return Arrivals(table.take(order), key, spec.task.target, happened[order], told[order], rejected)


@dataclass(frozen=True)
class Answers:
    """What was served, in order of row: the place in the replayed table (n,), scores and versions (n,)."""

    row: npt.NDArray[np.int64]
    scores: Scores
    version: npt.NDArray[np.int64]


@dataclass
class Replay:
    """A table on its way to a service. A null label is never sent, nor one whose moment is null."""

    client: Client
    arrivals: Arrivals
    labels_sent: int = 0
    _not_before: float = 0.0  # by the monotonic clock, labels are to be sent
    _answers: list[Answers] = field(default_factory=list)

    def run(self, days_per_second: float, held: Callable[[int], bool]) -> None:
        """Send everything; `held` is asked at every tick, with the time of the newest row sent (ms since 1970; before
        the first row, its own): while it is true, time nearly stands still.
        """
        happened, known = self.arrivals.time, self.arrivals.known
        labelled = np.flatnonzero(self.arrivals.table[self.arrivals.target].is_valid().to_numpy() & (known < NEVER))
        labelled = labelled[np.argsort(known[labelled], kind="stable")]
        now, sent, told = int(happened[0]), 0, 0
        end = max(int(happened[-1]), int(known[labelled].max(initial=0))) + 1
        before = time.monotonic()
        while now < end:
            clock = time.monotonic()
            pace = days_per_second * DAY * (HELD if held(int(happened[max(sent, 1) - 1])) else 1.0)
            now = min(now + min(int((clock - before) * pace), LONGEST_TICK), end)
            before = clock
            until = int(np.searchsorted(happened, now))
            self._predict(sent, until)
            due = int(np.searchsorted(known[labelled], now))
            told += self._label(labelled[told:due])
            sent = until
            time.sleep(max(0.0, TICK - (time.monotonic() - clock)))
        limit = time.monotonic() + PATIENCE
        while told < len(labelled) and time.monotonic() < limit:
            told += self._label(labelled[told:])
            time.sleep(TICK)
        if told < len(labelled):
            self.client.failed += 1
            log.warning("labels: the service never took the last %s", f"{len(labelled) - told:,}")

    def answers(self) -> Answers:
        """Return what was served so far, in order of row. Raises UserError where nothing was."""
        if not self._answers:
            raise UserError(f"none of {self.client.sent:,} requests was answered with a prediction; see above")
        row = np.concatenate([piece.row for piece in self._answers])
        order = np.argsort(row, kind="stable")
        scores = np.concatenate([piece.scores for piece in self._answers])
        version = np.concatenate([piece.version for piece in self._answers])
        return Answers(row[order], scores[order], version[order])

    @cached_property
    def _asked(self) -> pa.Table:
        """What a request may know of a row."""
        return self.arrivals.table.drop_columns([self.arrivals.target])

    def _predict(self, start: int, until: int) -> None:
        rows = np.arange(start, until)
        alone = rows[rows % SINGLE == 0]
        for row in alone.tolist():
            self._ask_alone(row)
        together = rows[rows % SINGLE != 0]
        for piece in _pieces(together):
            self._ask(piece)

    def _ask(self, rows: npt.NDArray[np.int64]) -> None:
        asked = self._asked.take(rows)
        content = self.client.post("predict", _stream(asked), ARROW)
        if content is not None:
            answer = pa.ipc.open_stream(content).read_all()
            scores = answer["score"].to_numpy()
            if "scores" in answer.column_names:  # one a class
                scores = np.array(answer["scores"].to_pylist(), np.float32)
            self._keep(rows, scores, [_version(model) for model in answer["model"].to_pylist()])

    def _ask_alone(self, row: int) -> None:
        [asked] = self._asked.slice(row, 1).to_pylist()
        content = self.client.post("predict", json.dumps({"rows": [asked]}, default=str).encode(), "application/json")
        if content is not None:
            answer = json.loads(content)
            [prediction] = answer["predictions"]
            found = list(prediction["scores"].values()) if "scores" in prediction else prediction["score"]
            version = _version(prediction.get("model", answer["model"]))
            self._keep(np.array([row]), np.array([found], np.float32), [version])

    def _keep(self, rows: npt.NDArray[np.int64], scores: Scores, versions: list[int]) -> None:
        self.client.rows += len(rows)
        self._answers.append(Answers(rows, scores, np.array(versions, np.int64)))

    def _label(self, rows: npt.NDArray[np.int64]) -> int:
        """Send labels; return how many are dealt with: what the service cannot keep now is due again."""
        if time.monotonic() < self._not_before:
            return 0
        done = 0
        for piece in _pieces(rows):
            labels = pa.table(
                {
                    "id": self.arrivals.table[self.arrivals.key].take(piece),
                    "label": self.arrivals.table[self.arrivals.target].take(piece),
                    "time": pa.array(self.arrivals.known[piece]).cast(pa.timestamp("ms", "UTC")),
                }
            )
            try:
                taken = self.client.post("labels", _stream(labels), ARROW, expected=202, patient=True)
            except Later as later:
                self._not_before = time.monotonic() + later.args[0]
                return done
            self.labels_sent += len(piece) if taken is not None else 0
            done += len(piece)
        return done


def _pieces(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(rows), ROWS_A_REQUEST):
        yield rows[start : start + ROWS_A_REQUEST]


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def _version(model: str) -> int:
    return int(model.rpartition("/")[2])
