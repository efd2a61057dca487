"""Two replicas answer steadily while one is killed, the disk is full, and versions are swapped: nothing is lost or refused."""

import os
import resource
import signal
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from app.lineup import Answering, bucket

pytestmark = pytest.mark.ray


def journaled(service, rows: list[str]) -> bool:
    return set(rows) <= set(service.journal.predictions(["id"])["id"].to_pylist())


@pytest.mark.parametrize("killed", [1, 2])
def test_killed_replicas_cost_no_request_and_no_label(service, wait_for, killed):
    """Whatever HAProxy holds as a whole goes to another replica, or waits for one.

    It cannot hold for a request larger than HAProxy's buffer (16 KiB) that its replica had begun to read, nor for an
    answer that had begun to leave: those clients see a broken connection, and may ask again, for ids make twice once.
    """
    before = service.whole()
    with service.load() as load:
        load.until(500)
        for replica in sorted(before)[:killed]:
            os.kill(replica, signal.SIGKILL)
        load.until(500)
        wait_for(lambda: len(service.replicas() - before) == killed, 120)  # Serve starts others
        load.until(500)
    assert load.failures == []
    assert len(load.labelled) > 500
    kept = service.journal.labels()["id"].to_pylist()
    assert set(load.labelled) <= set(kept)


def test_a_full_disk_refuses_labels_in_words_and_holds_up_no_prediction(service, full_disk, wait_for):
    label = {"labels": [{"id": "full", "label": True}]}
    with service.load(tells=False) as load:
        load.until(100)
        full_disk(True)
        wait_for(lambda: all(service.post("labels", json=label).status_code == 503 for _ in range(8)))
        problem = service.post("labels", json=label).json()
        load.until(1000)
        full_disk(False)
        wait_for(lambda: all(service.post("labels", json=label).status_code == 202 for _ in range(8)))
    assert load.failures == []
    assert problem["type"] == "urn:evertrue:problem:journal"
    assert problem["detail"] == "the labels are not kept, send them again: the journal cannot be written"
    wait_for(lambda: journaled(service, [row for row, _ in load.answers]))
    assert "full" in service.journal.labels()["id"].to_pylist()


def test_a_swap_refuses_nothing_and_a_row_has_the_same_version_everywhere(service, bundles, rows, wait_for):
    second = Answering("2", bundles("good"))
    with service.load() as load:
        load.until(200)
        service.share(second, 0.5)
        late = {row["ride"]: "1" for row in rows}  # the champion's are the rows of a challenger that is not in time
        seen = [
            [wait_for(lambda ask=ask: (found := ask(service, rows)) != late and found) for ask in (as_json, as_arrow)]
            for _ in range(6)  # either replica's turn comes
        ]
        load.until(200)
        service.share(None, 0.0)
    assert load.failures == []
    assert load.versions == {"1", "2"}
    theirs = {row["ride"]: "2" if bucket(row["ride"]) < 0.5 else "1" for row in rows}
    assert all(answer == theirs for answers in seen for answer in answers)
    assert all(bucket(row) < 0.5 for row, version in load.answers if version == "2")


def as_json(service, rows) -> dict[str, str]:
    answer = service.post("predict", json={"rows": rows}).json()
    return {one["id"]: one.get("model", answer["model"]).rpartition("/")[2] for one in answer["predictions"]}


def as_arrow(service, rows) -> dict[str, str]:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    kind = {"content-type": "application/vnd.apache.arrow.stream"}
    answer = service.post("predict", content=sink.getvalue().to_pybytes(), headers=kind)
    found = pa.ipc.open_stream(answer.content).read_all()
    return dict(
        zip(found["id"].to_pylist(), [name.rpartition("/")[2] for name in found["model"].to_pylist()], strict=True)
    )


@pytest.fixture
def rows() -> list[dict[str, object]]:
    known = {"distance": 4.5, "passengers": 2, "zone": "airport", "rain": True}
    return [known | {"ride": f"sticky{i}"} for i in range(200)]


@pytest.fixture
def full_disk(service) -> Iterator[Callable[[bool], None]]:
    """Let the system take no more bytes of any file from the replicas, as a full disk does, and then again."""
    usual = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in service.whole()}

    def full(now: bool) -> None:
        for pid, (soft, hard) in usual.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 if now else soft, hard))

    yield full
    full(False)
