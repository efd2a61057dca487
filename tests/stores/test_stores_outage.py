"""A store that is away for a moment costs nothing that was acknowledged, and doubles nothing."""

import contextlib
import logging
import select
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.journal import writer as writing
from app.journal.rows import JournalError
from app.journal.steps import Journal
from app.journal.writer import SegmentWriter
from app.lineup import Answering, Lineup, write_lineup
from app.serving.following import Follower
from app.workspace import Workspace, create_bytes, join, list_files, read_bytes, write_bytes

TABLE = pa.table(
    {
        "id": [f"r{i}" for i in range(50)],
        "label": [True] * 50,
        "event": pa.array(np.arange(50), pa.timestamp("ms", "UTC")),
        "arrival": pa.array(np.arange(50), pa.timestamp("ms", "UTC")),
    }
)


@pytest.fixture
def workspace(place: Callable[..., str]) -> Workspace:
    return Workspace.open(place("s3"))


@pytest.fixture
def away(seaweed: Any, caplog: pytest.LogCaptureFixture) -> Callable[..., list[Any]]:
    """Return a function that kills the server, does things at once, and lets the server come back when each has failed."""

    def do(*works: Callable[[], object]) -> list[object]:
        with ThreadPoolExecutor(len(works)) as pool:
            seaweed.kill()
            try:
                begun = [pool.submit(work) for work in works]
                wait_for(lambda: caplog.text.count("tried again") >= len(works) or any(one.done() for one in begun))
            finally:
                seaweed.start()
            return [one.result() for one in begun]

    return do


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came")


def test_writes_and_a_commit_outlast_a_server_that_is_killed_and_comes_back(
    workspace: Workspace, away: Callable[..., list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    write_bytes(workspace.uri("before"), b"1")
    journal = Journal.open(workspace, "rides")
    for name in "abc":
        SegmentWriter(journal.folder, name).write("labels", TABLE)

    def write() -> None:
        write_bytes(workspace.uri("whole"), b"2" * (6 << 20))
        create_bytes(workspace.uri("created"), b"3")

    _, step = away(write, journal.commit)
    assert read_bytes(workspace.uri("before")) == b"1"  # what was acknowledged was kept
    assert read_bytes(workspace.uri("whole")) == b"2" * (6 << 20)
    assert read_bytes(workspace.uri("created")) == b"3"
    assert step.labels.num_rows == 150
    assert journal.commit() is None
    assert sum(step.labels.num_rows for step in Journal.open(workspace, "rides").steps()) == 150
    told = [record for record in caplog.records if record.name == "app.workspace.store"]
    assert {record.levelno for record in told} == {logging.WARNING}
    assert "cannot be reached: " in told[0].message
    away_and_back = [sum(words in record.message for record in told) for words in ("tried again", "answers again")]
    # Two at least: a server that comes back may answer one request and not yet the next.
    assert away_and_back[0] == away_and_back[1] >= 2


def test_patience_has_an_end(
    caplog: pytest.LogCaptureFixture, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []  # and no time goes by but these: a slow machine may take all patience for one attempt
    monkeypatch.setattr("app.workspace.store.time", SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append))
    workspace = Workspace("s3://b/w?endpoint_override=127.0.0.1:1&scheme=http")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1, asked for s3://b/w/x, cannot be reached"):
        write_bytes(workspace.uri("x"), b"1", patience=9)
    assert len(waits) > 1
    assert sum(waits) <= 9
    assert [line.name for line in caplog.records].count("app.workspace.store") == 1


def test_labels_are_refused_in_time_while_the_server_hangs_and_are_there_once_afterwards(
    workspace: Workspace, seaweed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(workspace, "rides")
    writer = SegmentWriter(journal.folder, "a")
    writer.write("labels", TABLE)
    waiting = TABLE.slice(0)
    seaweed.signal(signal.SIGSTOP)
    try:
        with monkeypatch.context() as hanging:
            hanging.setattr(writing, "PROMPT", 1.0)
            for _ in range(2):
                with pytest.raises(JournalError, match="cannot be reached: no answer in time"):
                    writer.write("labels", waiting)
    finally:
        seaweed.signal(signal.SIGCONT)
    writer.write("labels", waiting)  # the puts that timed out may arrive now, too
    writer.write("labels", TABLE.slice(0))
    assert journal.labels().num_rows == 150
    assert len(list_files(join(journal.folder, "new", "labels"))) == 3


class Lossy:
    """A way to a server on which the first answer to a put gets lost after the server has done it."""

    def __init__(self, server: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._server, self._meanwhile = server, meanwhile
        self.lost = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes who waits for a client
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),  # either of them is gone
            client,
            socket.create_connection(("127.0.0.1", self._server)) as server,
        ):
            putting = False
            while True:  # head and body, of either, may come together or one by one
                for one in select.select([client, server], [], [])[0]:
                    if not (data := one.recv(1 << 20)):
                        return
                    if one is client:
                        putting = putting or data.startswith(b"PUT")
                        server.sendall(data)
                        continue
                    if putting and not self.lost:
                        self.lost += 1
                        self._meanwhile()
                        return
                    client.sendall(data)


def through(workspace: Workspace, seaweed: Any, lossy: Lossy) -> Workspace:
    return Workspace(workspace.root.replace(f":{seaweed.port}", f":{lossy.port}"))


def test_a_creation_whose_answer_was_lost_knows_its_own(workspace: Workspace, seaweed: Any) -> None:
    lossy = Lossy(int(seaweed.port))
    create_bytes(through(workspace, seaweed, lossy).uri("entry"), b"mine")
    assert lossy.lost == 1
    assert read_bytes(workspace.uri("entry")) == b"mine"
    with pytest.raises(FileExistsError):
        create_bytes(through(workspace, seaweed, lossy).uri("entry"), b"mine")
    lossy.close()


def test_a_creation_whose_answer_was_lost_takes_no_others_for_its_own(workspace: Workspace, seaweed: Any) -> None:
    uri = workspace.uri("entry")
    lossy = Lossy(int(seaweed.port), meanwhile=lambda: write_bytes(uri, b"another's"))
    with pytest.raises(FileExistsError):
        create_bytes(through(workspace, seaweed, lossy).uri("entry"), b"mine")
    assert read_bytes(uri) == b"another's"
    lossy.close()


def test_a_segment_whose_answer_was_lost_is_not_there_twice(workspace: Workspace, seaweed: Any) -> None:
    lossy = Lossy(int(seaweed.port))
    journal = Journal.open(through(workspace, seaweed, lossy), "rides")
    SegmentWriter(journal.folder, "a").write("labels", TABLE)
    assert lossy.lost == 1
    assert Journal.open(workspace, "rides").labels().num_rows == 50
    lossy.close()


def test_a_replica_goes_on_while_the_line_up_cannot_be_asked_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.serving.following.PROMPT", 0.2)
    faults: list[str | None] = []
    root = "s3://b/w?endpoint_override=127.0.0.1:1&scheme=http"
    follower = Follower(f"{root}", lambda _: None, lambda _: None, faults.append)  # type: ignore[arg-type]
    follower.look()
    assert faults == [None]


def test_a_line_up_that_did_not_change_is_not_read_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = workspace.uri("rides", "lineup.json")
    reads: list[str] = []
    monkeypatch.setattr("app.serving.following.read_lineup", lambda uri: reads.append(uri))
    follower = Follower(uri, lambda _: None, lambda _: None, lambda _: None)  # type: ignore[arg-type]
    lineup = Lineup(1, Answering("1", "b"))
    for _ in range(2):
        write_lineup(uri, lineup)
        for _ in range(3):
            follower.look()
        lineup = lineup.then(lineup.champion)
    assert len(reads) == 2
