"""The rooms that share files keep their promises on a store as on a disk: journal, ledger, bundles, checkpoints, line-up."""

import datetime as dt
import runpy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.decisions.ledger import Draft, Ledger
from app.decisions.snapshots import Snapshots
from app.journal.export import export_labelled
from app.journal.steps import Journal
from app.journal.writer import SegmentWriter
from app.lineup import Answering, Lineup, read_lineup, write_lineup
from app.model import bundle
from app.model.contents import Contents, Evaluation, Origin
from app.model.export import to_onnx
from app.model.network import Network
from app.monitor.profile import Reference
from app.spec import Drift, Spec
from app.training.checkpoint import Checkpoint, Checkpoints, Progress
from app.types import Features, UserError
from app.workspace import Workspace, delete, join, list_files, name_of, resolve, write_bytes

SPEC = Spec.model_validate(
    {
        "name": "rides",
        "task": {"target": "late"},
        "data": {"source": "x"},
        "model": {"width": 8, "depth": 1, "number_embedding": 2, "frequencies": 2},
    }
)
ROWS = runpy.run_path(str(Path(__file__).parent.with_name("journal") / "conftest.py"))
predictions: Callable[[int, int], pa.Table] = ROWS["_predictions"]
labels: Callable[[range], pa.Table] = ROWS["_labels"]
PLAN: FeaturePlan = ROWS["PLAN"]


def test_segments_become_steps_and_steps_a_training_table(workspace: Workspace) -> None:
    journal = Journal.open(workspace, "rides")
    assert journal.commit() is None
    writer = SegmentWriter(journal.folder, "a")
    writer.write("predictions", predictions(0, 100))
    writer.write("labels", labels(range(50)))
    first = journal.commit()
    assert first is not None
    assert (first.number, first.predictions.num_rows, first.labels.num_rows, first.corrupt) == (1, 100, 50, 0)
    writer.write("labels", labels(range(50, 80)))
    assert journal.labels().num_rows == 80  # committed or not
    assert journal.commit() is not None
    assert journal.commit() is None
    again = Journal.open(workspace, "rides")
    assert [step.number for step in again.steps()] == [1, 2]
    assert again.predictions(["id", "features.distance"])["id"].to_pylist() == [f"r{i}" for i in range(100)]
    uri = workspace.uri("rides", "export", "rows.parquet")
    schema = pa.schema({"distance": pa.float64(), "late": pa.bool_()})
    assert export_labelled(again, PLAN, schema, uri) == 80
    filesystem, path = resolve(uri)
    assert pq.read_table(path, filesystem=filesystem)["distance"].to_pylist() == [i / 8 for i in range(80)]


def test_a_segment_that_cannot_be_read_is_set_aside(workspace: Workspace) -> None:
    journal = Journal.open(workspace, "rides")
    SegmentWriter(journal.folder, "a").write("predictions", predictions(0, 10))
    [segment] = list_files(join(journal.folder, "new", "predictions"))
    write_bytes(join(journal.folder, "new", "predictions", segment.name), b"no Parquet")
    SegmentWriter(journal.folder, "b").write("predictions", predictions(10, 20))
    step = journal.commit()
    assert step is not None
    assert (step.corrupt, step.predictions.num_rows) == (1, 10)
    assert [file.name for file in list_files(join(journal.folder, "corrupt"))] == [f"predictions-{segment.name}"]


def test_two_committers_lose_no_segment_and_take_none_twice(workspace: Workspace) -> None:
    journal = Journal.open(workspace, "rides")
    writer = SegmentWriter(journal.folder, "a")
    for start in range(0, 60, 5):
        writer.write("predictions", predictions(start, start + 5))

    def commit(committer: Journal) -> None:
        while committer.commit() is not None:
            pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(commit, [Journal.open(workspace, "rides") for _ in range(2)]))
    found = [name for step in journal.steps() for name in step.predictions["id"].to_pylist()]
    assert sorted(found) == sorted(f"r{i}" for i in range(60))


def test_merged_and_forgotten_steps_leave_no_files(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.journal.manifests.FANOUT", 2)
    journal = Journal.open(workspace, "rides")
    for start in range(4):
        moment = dt.datetime(2024, 1, 1, start, tzinfo=dt.UTC)
        writer = SegmentWriter(journal.folder, "a", clock=lambda moment=moment: moment)
        writer.write("predictions", predictions(start * 5, start * 5 + 5))
        assert journal.commit() is not None
    journal.compact()
    assert [file.name for file in list_files(join(journal.folder, "steps"))] == ["000001-000004.json"]
    SegmentWriter(journal.folder, "b").write("predictions", predictions(20, 25))
    assert journal.commit() is not None
    journal.expire(before=int(dt.datetime(2025, 1, 1, tzinfo=dt.UTC).timestamp() * 1000))
    assert [step.predictions.num_rows for step in Journal.open(workspace, "rides").steps()] == [5]
    kept = [file.name for file in list_files(journal.folder, recursive=True) if file.size]
    assert len(kept) == 2  # a file, and the manifest that names it


def test_writers_of_a_ledger_never_share_a_number(workspace: Workspace) -> None:
    def append(number: int) -> tuple[int, str]:
        draft = Draft("alarm_noted", f"{number % 6}", at=0, step=number, reason="a test")
        entry = Ledger.open(workspace, "rides").append(draft, now=number)
        return entry.number, entry.id

    with ThreadPoolExecutor(8) as pool:
        known = set(pool.map(append, range(12)))  # each decision twice
    entries = Ledger.open(workspace, "rides").entries()
    assert [entry.number for entry in entries] == list(range(1, 7))
    assert {(entry.number, entry.id) for entry in entries} == known
    assert len(list_files(workspace.uri("rides", "ledger"))) == 6


@pytest.fixture(scope="module")
def contents() -> Contents:
    """Return what a bundle is made of: an untrained model of two features."""
    plan = FeaturePlan(
        number=(NumberColumn("distance", 0.0, 1.0, 0.0, quantiles=tuple(np.linspace(-3, 3, 257).tolist())),),
        category=(CategoryColumn("zone", "string", ("north", "south")),),
        target=TargetColumn("late", "binary", (False, True)),
        time="time",
        rows=100,
    )
    network = Network(plan, SPEC.model).eval()
    random = np.random.default_rng(0)
    features = Features(random.normal(size=(100, 1)).astype(np.float32), random.integers(0, 4, (100, 1)))
    target, scores = random.integers(0, 2, 100).astype(np.float32), network.score(*map(torch.from_numpy, features))
    examples = Examples(features, target, np.arange(100) * 3_600_000, np.arange(100))
    figures = Evaluation({"log_loss": 0.7, "rows": 100.0}, {})
    return Contents(
        spec=SPEC,
        plan=plan,
        onnx=to_onnx(network),
        learned={"weights.safetensors": network.to_safetensors()},
        reference=Reference.of(plan, Drift(), examples, examples, scores),
        origin=Origin("f00d", {"train": 100}, {}, ("2013-01-01", "2013-02-28")),
        evaluation=figures,
        target=target,
        scores=scores,
        history=[{"epoch": 1.0, "train_loss": 1.0, "validation_loss": 1.0}],
        baseline=figures,
        baseline_scores=scores,
        importance={},
    )


@pytest.fixture(scope="module")
def rendered(contents: Contents) -> dict[str, bytes]:
    return bundle._render(contents)


def test_a_bundle_opens_as_it_was_written_and_half_of_one_does_not(
    workspace: Workspace, contents: Contents, rendered: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_render", lambda _: rendered)  # its plots are drawn once for all stores
    bundles = workspace.uri("rides", "bundles")
    uri = bundle.write(bundles, contents)
    assert bundle.write(bundles, contents) == uri
    opened = bundle.open_bundle(uri)
    assert (opened.uri, opened.version_id) == (uri, name_of(uri))
    assert (opened.plan, opened.learned, opened.onnx) == (contents.plan, contents.learned, contents.onnx)
    delete(join(uri, "card.md"))
    with pytest.raises(UserError, match=r"card\.md is in the manifest, but not in the folder"):
        bundle.open_bundle(uri)
    delete(join(uri, "manifest.json"))
    with pytest.raises(UserError, match="was never finished: it has no manifest"):
        bundle.open_bundle(uri)
    with pytest.raises(UserError, match="is not there"):
        bundle.open_bundle(join(bundles, "0" * 16))
    assert bundle.write(bundles, contents) == uri  # what was left over makes way
    write_bytes(join(uri, "card.md"), b"changed")
    with pytest.raises(UserError, match=r"card\.md is not what was written"):
        bundle.open_bundle(uri)


def test_a_training_goes_on_from_its_newest_checkpoint_and_keeps_two(workspace: Workspace) -> None:
    checkpoints = Checkpoints.of(workspace.uri("rides", "checkpoints", "run"), PLAN, SPEC)
    assert checkpoints.newest() is None
    for epoch in range(1, 5):
        tensors = {"network": {"weight": torch.full((1000,), float(epoch))}}
        checkpoints.save(Checkpoint(Progress(epoch=epoch), tensors))
    found = checkpoints.newest()
    assert found is not None
    assert found.progress.epoch == 4
    assert torch.equal(found.tensors["network"]["weight"], torch.full((1000,), 4.0))
    assert sorted(file.name for file in list_files(checkpoints.uri)) == [
        "epoch-000003.safetensors",
        "epoch-000004.safetensors",
    ]
    write_bytes(join(checkpoints.uri, "epoch-000004.safetensors"), b"half")
    found = checkpoints.newest()
    assert found is not None
    assert found.progress.epoch == 3


def test_the_monitor_goes_on_from_its_newest_snapshot(workspace: Workspace) -> None:
    snapshots = Snapshots(workspace.uri("rides", "monitor"), "abc0")
    assert list(snapshots.newest_first()) == []
    for step in (9, 10, 11):
        snapshots.write(step, b"%d" % step)
    assert list(snapshots.newest_first()) == [b"11", b"10"]


def test_a_line_up_takes_the_place_of_the_one_before(workspace: Workspace) -> None:
    uri = workspace.uri("rides", "lineup.json")
    assert read_lineup(uri) is None
    first = Lineup(1, Answering("1", workspace.uri("rides", "bundles", "a")))
    for lineup in (first, first.then(first.champion, Answering("2", "b"), 0.5)):
        write_lineup(uri, lineup)
        assert read_lineup(uri) == lineup
