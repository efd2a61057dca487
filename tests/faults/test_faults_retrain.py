"""A retraining's job is killed half way: the next attempt goes on from its rows, and there is one new version."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from app.data.moments import MOMENT
from app.decisions.retrain import _command, read_outcome
from app.declaration import Declaration, read
from app.journal.rows import label_schema, prediction_schema
from app.journal.writer import SegmentWriter
from app.model.bundle import open_bundle
from app.pipeline import TrainedVersion
from app.registry import Registry
from app.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]  # two jobs, one after the other

START = 1_709_251_200_000  # 2024-03-01, after the last row that trained
A_ROW = 1_000_000  # ms


@pytest.fixture
def service(trained: TrainedVersion, declaration: Declaration, tmp_path: Path) -> tuple[Declaration, Workspace]:
    """Return a service with one version and 1,500 labelled rows in its journal."""
    given = read(
        declaration.path,
        [
            "name=killed",
            f"data.source={declaration.path.parent / 'rides.parquet'}",
            "gate.window=5d",
            "train.epochs=2",
        ],
    )
    workspace = Workspace.open(str(tmp_path))
    registry = Registry.open(workspace, "killed")
    with registry.run(given.spec, "test") as run:
        registry.promote(registry.register(trained.bundle, run.id, "test", "first").number)
    rides, plan = (
        pq.read_table(declaration.path.parent / "rides.parquet").slice(0, 1500),
        open_bundle(trained.bundle).plan,
    )
    schema, n = prediction_schema(plan), rides.num_rows
    ids = [f"new{i}" for i in range(n)]
    times = pa.array(START + np.arange(n) * A_ROW).cast(MOMENT)
    features = schema.field("features").type
    sent = [rides[field.name].combine_chunks().cast(field.type) for field in features]
    columns = [ids, times, times, ["1"] * n, ["champion"] * n, np.full(n, 0.5, np.float32), [None] * n, [None] * n]
    predictions = pa.table([*columns, pa.StructArray.from_arrays(sent, fields=list(features))], schema=schema)
    labels = pa.table([ids, rides["late"], times, times], schema=label_schema(plan.target))
    writer = SegmentWriter(workspace.uri("killed", "journal"), "replica")
    writer.write("predictions", predictions)
    writer.write("labels", labels)
    return given, workspace


EXPORTED = "labelled rows from the journal"


def begin(declaration: Declaration, workspace: Workspace, attempt: int, log: Path) -> subprocess.Popen[bytes]:
    """Start what the drift actor has Ray start for an attempt at a decision."""
    command = _command(declaration, workspace, "d1", "why", None, attempt)
    address = ray.get_runtime_context().gcs_address
    with log.open("wb") as out:
        return subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": address}, stdout=out)


def test_a_killed_job_is_tried_again_and_gives_one_version(service, wait_for, tmp_path):
    declaration, workspace = service
    rows = Path(workspace.uri("killed", "retrain", "d1", "rows.parquet"))
    logs = [tmp_path / "1.log", tmp_path / "2.log"]
    job = begin(declaration, workspace, 1, logs[0])
    wait_for(rows.exists, 120)
    job.kill()
    assert job.wait() == -signal.SIGKILL
    assert read_outcome(workspace, "killed", "d1") is None

    assert begin(declaration, workspace, 2, logs[1]).wait(300) == 0
    assert [EXPORTED in log.read_text() for log in logs] == [True, False]  # the very rows of the attempt before
    assert not rows.exists()
    outcome = read_outcome(workspace, "killed", "d1")
    assert (outcome.error, outcome.attempt) == (None, 2)
    assert [version.number for version in Registry.open(workspace, "killed").versions()] == [1, 2]
    assert outcome.version == 2
    assert open_bundle(outcome.bundle).data["trained_until"] > START
