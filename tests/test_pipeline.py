"""What the way from table to version promises for tables of every kind that the shared one is not."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.declaration import Declaration, read
from app.model.bundle import open_bundle
from app.pipeline import train_version
from app.workspace import Workspace

pytestmark = pytest.mark.ray

_ROWS = 3000


def declared(folder: Path, target: np.ndarray | pa.Array, **features: np.ndarray) -> Declaration:
    """Write the table and the three lines that declare it, with a network that trains in a second."""
    pq.write_table(pa.table({**features, "y": target}), folder / "table.parquet")
    path = folder / "table.yaml"
    path.write_text("name: table\ntask: {target: y}\ndata: {source: table.parquet}\n")
    quick = ["model.width=32", "model.depth=1", "train.batch_size=64", "train.epochs=6", "train.learning_rate=0.005"]
    return read(path, [*quick, "gate.min_rows=100", "gate.margin=10"])


def test_three_lines_and_text_labels_make_a_multiclass_champion(ray_session, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=_ROWS)
    names = np.array(["bottom", "läst but one", "top | best"])
    label = names[np.digitize(x + 0.3 * random.normal(size=_ROWS), [-0.5, 0.5])]
    version = train_version(declared(tmp_path, label, x=x), Workspace.open(str(tmp_path / "ws")))
    bundle = open_bundle(version.bundle)
    assert version.promoted, version.verdict.reasons
    assert version.contents.evaluation.overall["accuracy"] > 0.7
    assert bundle.plan.target.classes == tuple(sorted(names.tolist()))


def test_a_heavy_tailed_quantity_makes_a_regression_champion(ray_session, tmp_path):
    random = np.random.default_rng(1)
    x = random.normal(size=_ROWS)
    y = np.exp(0.7 * x) + 0.1 * random.standard_t(3, _ROWS)
    version = train_version(declared(tmp_path, y, x=x), Workspace.open(str(tmp_path / "ws")))
    assert version.prepared.task == "regression"
    assert version.promoted, version.verdict.reasons
    assert version.contents.evaluation.overall["r2"] > 0.5
