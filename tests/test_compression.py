"""A smaller version is made of a large one, as good as it was measured to be; a broken one is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import numpy_helper

from app.compression import _Graph, _Work, compress
from app.declaration import Declaration, read
from app.model.bundle import open_bundle
from app.model.runtime import Runtime
from app.pipeline import Rows, Stopwatch, settle, train_version
from app.registry import Registry
from app.types import UserError
from app.workspace import Workspace

pytestmark = pytest.mark.ray

ROWS = 6000
QUICK = [
    "model.width=32",
    "model.depth=1",
    "train.epochs=4",
    "train.learning_rate=0.005",
    "model.trees.rounds=60",
    "gate.min_rows=100",
    "gate.margin=10",
    "compress.margin=0.5",
    "compress.teacher.width=256",
    "compress.teacher.depth=2",
    "compress.student.width=32",
    "compress.student.depth=1",
    "compress.student.epochs=4",
    "compress.student.frequencies=4",
    "compress.student.number_embedding=4",
    "compress.max_latency=1",
    "compress.max_size=0.5",
    "compress.prune_epochs=1",
]


def declared(folder: Path, *settings: str) -> Declaration:
    """Write a table, a tenth of it without labels, and its declaration."""
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, ROWS))
    place = random.choice(["north", "south", "west"], ROWS)
    signal = 1.5 * x * (place == "north") + np.abs(z) - 0.5 + random.normal(0, 0.5, ROWS)
    late = pa.array(signal > 0, mask=random.random(ROWS) < 0.1)
    pq.write_table(pa.table({"x": x, "z": z, "place": place, "late": late}), folder / "table.parquet")
    path = folder / "table.yaml"
    path.write_text("name: table\ntask: {target: late}\ndata: {source: table.parquet}\n")
    return read(path, [*QUICK, *settings])


@pytest.fixture(scope="module")
def made(ray_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compression")
    declaration, workspace = declared(folder), Workspace.open(str(folder / "ws"))
    return declaration, workspace, compress(declaration, workspace)


def test_the_version_is_small_judged_and_what_was_measured(made):
    declaration, workspace, found = made
    version = settle(declaration.spec, workspace, found.version)
    assert version.verdict.passed, version.verdict.reasons
    bundle = open_bundle(version.bundle)
    by_name = {one.name: one for one in found.variants}
    chosen = by_name[found.chosen]
    assert chosen.size <= 0.5 * by_name["large"].size
    assert chosen.loss == min(one.loss for one in found.variants if one.refused is None)
    assert len(bundle.onnx) == chosen.size
    assert bundle.onnx == found.graphs[found.chosen]
    assert bundle.metrics["compression"]["chosen"] == found.chosen
    assert bundle.metrics["model"]["overall"]["log_loss"] == pytest.approx(chosen.loss, rel=1e-4)
    assert "## Compression" in bundle.card
    assert "plots/pareto.png" in bundle.paths
    assert Registry.open(workspace, "table").champion().number == version.number


def test_every_family_and_arithmetic_is_tried_and_reported(made):
    _, _, found = made
    names = {one.name for one in found.variants}
    for whole in ("large", "student"):
        for how in ("", ", 50% of the units", ", 25% of the units"):
            assert f"{whole}{how}" in names
    assert names >= {"teacher", "large, int8_weights", "large, int8_dynamic", "large, 50% of the units, int8_static"}
    report = json.loads(Path(found.report).read_text())
    assert {(one["family"], one["how"]) for one in report["variants"]} == {(o.family, o.how) for o in found.variants}
    assert Path(found.report).with_name("pareto.png").stat().st_size > 10_000


def test_every_variant_scores_a_row_alike_alone_in_a_batch_and_from_the_bundle(made):
    _, _, found = made
    plan, examples = found.version.contents.plan, found.version.contents
    rows = np.random.default_rng(1)
    features = plan.encode(
        pa.table(
            {
                "x": pa.array(rows.normal(size=300), mask=rows.random(300) < 0.1),
                "z": rows.normal(size=300),
                "place": rows.choice(["north", "south", "east"], 300),
            }
        )
    )
    for name, graph in found.graphs.items():
        offline = Runtime(graph, plan, threads=2).score(features)
        serving = Runtime(graph, plan)  # as a replica has it: one thread, any batch
        alone = np.concatenate([serving.score(features.rows(slice(i, i + 1))) for i in range(0, 300, 7)])
        np.testing.assert_array_max_ulp(serving.score(features), offline, 4), name
        np.testing.assert_array_max_ulp(alone, offline[::7], 4), name
    served = open_bundle(found.version.bundle).runtime().score(features)
    np.testing.assert_array_equal(served, Runtime(examples.onnx, plan).score(features))


def test_weights_of_zero_are_refused_with_the_reason(made):
    declaration, workspace, found = made
    rows = Rows.of(declaration, workspace, Stopwatch())
    work = _Work(declaration, workspace, rows, "broken", Stopwatch())
    spec, large = found.version.contents.spec, found.graphs["large"]
    broken = onnx.load_model_from_string(found.graphs["student"])
    for tensor in broken.graph.initializer:
        if "weight" in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    graphs = [
        _Graph("large", "", large, spec, {}, []),
        _Graph("student", "", broken.SerializeToString(), spec, {}, []),
    ]
    _, zeroed = work.judged(graphs)
    assert zeroed.variant.refused is not None
    assert "not proven to stay within the margin: worse than the large network by" in zeroed.variant.refused


def test_where_nothing_may_serve_nothing_is_registered_and_the_report_says_why(ray_session, tmp_path):
    declaration = declared(tmp_path, "compress.max_size=0.0001", "compress.quantise=[]", "compress.prune=[]")
    workspace = Workspace.open(str(tmp_path / "ws"))
    with pytest.raises(UserError, match=r"no smaller version may serve; .*report.json says of each why not"):
        compress(declaration, workspace)
    assert Registry.open(workspace, "table").versions() == []
    [report] = (tmp_path / "ws/table/compress").glob("*/report.json")
    refused = [one["refused"] for one in json.loads(report.read_text())["variants"]]
    assert all("of the large network's size, allowed 0%" in why for why in refused)


def test_a_smaller_version_has_not_to_beat_the_champion_unless_it_is_told_to(made, tmp_path):
    declaration, _, _ = made
    workspace = Workspace.open(str(tmp_path / "ws"))
    champion = train_version(declaration, workspace)
    assert champion.promoted
    narrow = replace(
        declaration,
        spec=declaration.spec.model_copy(
            update={"compress": declaration.spec.compress.model_copy(update={"prune": [], "quantise": []})}
        ),
    )
    equal = compress(narrow, workspace, "equal").version.verdict
    assert equal.passed, equal.reasons
    assert "is allowed" in " ".join(equal.reasons)
    better = compress(narrow, workspace, "equal", better=True).version.verdict
    assert "is allowed" not in " ".join(better.reasons)
