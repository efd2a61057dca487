"""The actor on a real Ray: it works off the journal, comes back after kill -9 as it was, and makes way for a new one."""

import json
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from app.data.moments import MOMENT
from app.decisions import actor
from app.decisions.carried import Carried
from app.decisions.ledger import Ledger
from app.decisions.recompute import recompute
from app.declaration import read
from app.journal.rows import label_schema, prediction_schema
from app.journal.writer import SegmentWriter
from app.lineup import Answering, Lineup, read_lineup, write_lineup
from app.model.bundle import open_bundle
from app.workspace import Workspace

pytestmark = pytest.mark.ray

HOUR = 3_600_000
START = 1_719_792_000_000  # 2024-07-01


@pytest.fixture
def service(ray_session, trained, declaration, tmp_path):
    """A workspace of its own with the rides' version in its line-up, and its actor, ended afterwards."""
    workspace = Workspace.open(str(tmp_path))
    given = read(declaration.path, ["drift.interval=200ms", "retrain.policy=never"])
    write_lineup(workspace.uri("rides", "lineup.json"), Lineup(1, Answering("1", trained.bundle)))
    yield Service(given, workspace, trained.bundle)
    actor.stop("rides")


class Service:
    """What replicas would write, and what is to be seen of the actor."""

    def __init__(self, declaration, workspace, bundle) -> None:
        self.declaration, self.workspace = declaration, workspace
        self.plan = open_bundle(bundle).plan
        self.writer = SegmentWriter(workspace.uri("rides", "journal"), "replica")
        self.rows = 0

    def serve(self, hours: int, rows: int = 50) -> None:
        """Write predictions and labels of the next hours."""
        schema, random = prediction_schema(self.plan), np.random.default_rng(self.rows)
        for _ in range(hours):
            ids = [f"row{self.rows + i}" for i in range(rows)]
            moment = START + (self.rows // rows) * HOUR
            times = pa.array([moment] * rows, pa.int64()).cast(MOMENT)
            score = random.random(rows).astype(np.float32)
            columns = {
                "id": ids,
                "event": times,
                "arrival": times,
                "version": ["1"] * rows,
                "role": ["champion"] * rows,
            }
            columns |= {"score": score, "shadow_version": [None] * rows, "shadow_score": [None] * rows}
            features = pa.array([{}] * rows, schema.field("features").type)
            self.writer.write("predictions", pa.table(columns | {"features": features}, schema))
            labels = {"id": ids, "label": [True] * rows, "event": times, "arrival": times}
            self.writer.write("labels", pa.table(labels, label_schema(self.plan.target)))
            self.rows += rows

    def repeat(self) -> None:
        """Write four hours of predictions again, which is a fault upstream."""
        self.rows -= 200
        self.serve(4)

    def differences(self) -> list[str]:
        rooms = actor.furnish(self.declaration, self.workspace, None)
        return list(recompute(rooms.spec, rooms.journal.steps(), rooms.monitor(None), rooms.ledger.entries()))

    def status(self) -> dict:
        path = Path(self.workspace.uri("rides", "status.json"))
        return json.loads(path.read_text()) if path.exists() else {}

    def joined(self) -> bool:
        return self.status().get("labels", {}).get("joined") == self.rows

    def entries(self):
        return Ledger.open(self.workspace, "rides").entries()


def test_it_comes_back_after_kill_9_with_the_same_state_and_repeats_no_entry(service, wait_for):
    service.serve(30)
    actor.start(service.declaration, service.workspace)
    wait_for(service.joined)
    service.repeat()
    wait_for(lambda: len(service.entries()) == 2)
    wait_for(lambda: service.status()["labels"]["predictions"] == service.rows + 200)  # written a moment later
    before, first = service.status(), actor.show("rides")
    assert [entry.kind for entry in service.entries()] == ["deploy", "fault"]

    os.kill(first["pid"], signal.SIGKILL)
    service.serve(3)
    wait_for(service.joined)
    again = actor.show("rides")
    assert again["pid"] != first["pid"]
    assert again["error"] is None
    assert service.status()["labels"]["predictions"] == before["labels"]["predictions"] + 150
    assert [entry.kind for entry in service.entries()] == ["deploy", "fault"]
    assert service.differences() == []


def test_starting_it_again_changes_nothing_and_another_declaration_takes_over(service):
    actor.start(service.declaration, service.workspace)
    first = actor.show("rides")
    actor.start(service.declaration, service.workspace)
    assert actor.show("rides")["pid"] == first["pid"]

    other = read(service.declaration.path, [*service.declaration.overrides, "journal.sample=0.5"])
    actor.start(other, service.workspace)
    assert actor.show("rides")["pid"] != first["pid"]
    assert actor.stop("rides")
    assert actor.show("rides") is None
    assert not actor.stop("rides")


def test_a_turn_that_fails_is_told_and_the_loop_goes_on(service, wait_for):
    lineup = service.workspace.uri("rides", "lineup.json")
    good = read_lineup(lineup)
    Path(lineup).write_text("{")
    actor.start(service.declaration, service.workspace)
    wait_for(lambda: "lineup.json is no line-up" in str(actor.show("rides")["error"]))
    wait_for(lambda: service.status().get("health", {}).get("state") == "degraded")  # written a moment later
    write_lineup(lineup, good)
    wait_for(lambda: actor.show("rides")["error"] is None and actor.show("rides")["turns"] > 0)
    wait_for(lambda: service.status()["health"]["state"] != "degraded")


def test_a_loop_that_ends_by_a_panic_takes_its_process_along(declaration, tmp_path, monkeypatch):
    class PanicError(BaseException):
        pass

    def panic(_):
        raise PanicError

    codes, ended = [], threading.Event()
    monkeypatch.setattr(
        actor, "os", SimpleNamespace(getpid=os.getpid, _exit=lambda code: (codes.append(code), ended.set()))
    )
    monkeypatch.setattr(actor.DriftActor, "_keeper", panic)
    workspace = Workspace.open(str(tmp_path))
    actor.DriftActor(Carried.of(declaration, workspace), workspace.root, None, "rides")
    assert ended.wait(60)
    assert codes == [1]


def test_a_declaration_is_carried_with_its_sources(declaration, tmp_path):
    carried = Carried.of(read(declaration.path, ["train.epochs=2"]), Workspace.open(str(tmp_path)))
    again = carried.read()
    assert again.spec.data.source == str(declaration.path.parent / "rides.parquet")
    assert again.spec.train.epochs == 2
    assert again.path.parent == tmp_path / "rides"
