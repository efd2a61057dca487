"""Examples are the labelled rows of a part, in order, the same whether loaded or streamed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.data import rows as subject
from app.data.encode import Examples, dataset, load, read_columns
from app.data.features import FeaturePlan
from app.data.fit import fit, plan
from app.data.prepare import Prepared, in_process, prepare
from app.data.rows import pieces
from app.data.split import PARTS
from app.data.statistics import Measured, Pool
from app.declaration import Declaration
from app.spec import Spec
from app.types import Features, UserError
from app.workspace import Workspace

ROWS = 3000
HOUR = 3_600_000


def source() -> pa.Table:
    """Return rows out of order in time, with nulls everywhere and one row in ten without a label."""
    random = np.random.default_rng(3)
    return pa.table(
        {
            "x": pa.array(random.normal(size=ROWS), mask=random.random(ROWS) < 0.1),
            "n": random.integers(0, 9, ROWS),
            "c": pa.array(random.choice(["a", "b", "c"], ROWS), mask=random.random(ROWS) < 0.1),
            "k": random.integers(0, 5, ROWS),
            "at": pa.array(random.permutation(ROWS) * HOUR, pa.timestamp("ms", "UTC")),
            "y": pa.array(random.random(ROWS) < 0.3, mask=random.random(ROWS) < 0.1),
        }
    )


def declare(folder: Path, time: bool) -> Spec:
    pq.write_table(source(), folder / "t.parquet", row_group_size=500)
    features = {"x": "number", "n": "number", "c": "category", "k": "category"}
    data = {"source": "t.parquet", **({"time": "at"} if time else {})}
    return Spec.model_validate({"name": "t", "task": {"target": "y"}, "data": data, "features": features})


@pytest.fixture(params=[True, False], ids=["by time", "by position"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Prepared, Spec]:
    spec = declare(tmp_path, request.param)
    workspace = Workspace.open(str(tmp_path / "workspace"))
    return prepare(Declaration(spec, tmp_path / "t.yaml", ""), workspace, in_process), spec


def fit_here(prepared: Prepared, spec: Spec) -> FeaturePlan:
    """Do without a cluster what `fit` does with one."""
    measured = Measured.of(prepared.features, prepared.target, prepared.task)
    pool = Pool()
    for positions, table in pieces(prepared, prepared.fragments, "train", prepared.schema.names):
        pool.add(table, measured, positions)
    return plan(pool.merged(), prepared.features, spec)


def test_parts_hold_every_labelled_row_once(case: tuple[Prepared, Spec]) -> None:
    prepared, spec = case
    fitted = fit_here(prepared, spec)
    parts = {part: load(prepared, fitted, part) for part in PARTS}
    positions = np.concatenate([examples.position for examples in parts.values()])
    labelled = np.flatnonzero(source().column("y").is_valid())
    assert sorted(positions.tolist()) == labelled.tolist()
    assert len(parts["train"].position) == fitted.rows
    assert all(not np.isnan(examples.target).any() for examples in parts.values())


def test_examples_are_the_encoded_rows_in_order_of_position(case: tuple[Prepared, Spec]) -> None:
    prepared, spec = case
    fitted = fit_here(prepared, spec)
    for part in PARTS:
        found = load(prepared, fitted, part)
        assert (np.diff(found.position) > 0).all()
        rows = source().take(pa.array(found.position))
        expected = fitted.encode(rows)
        np.testing.assert_array_equal(found.features.number, expected.number)
        np.testing.assert_array_equal(found.features.category, expected.category)
        np.testing.assert_array_equal(found.target, fitted.target.encode(rows.column("y")))
        if spec.data.time is None:
            assert found.time.shape == (0,)
        else:
            assert found.time.tolist() == rows.column("at").cast(pa.int64()).to_pylist()


def test_raw_columns_lie_row_for_row_beside_the_examples(case: tuple[Prepared, Spec]) -> None:
    prepared, spec = case
    fitted = fit_here(prepared, spec)
    for part in PARTS:
        raw = read_columns(prepared, part, ["k", "c"])
        assert raw.column_names == ["k", "c"]
        np.testing.assert_array_equal(
            fitted.category[1].encode(raw.column("k")), load(prepared, fitted, part).features.category[:, 1]
        )


def test_unlabelled_rows_come_on_request(case: tuple[Prepared, Spec]) -> None:
    prepared, spec = case
    fitted = fit_here(prepared, spec)
    every = [load(prepared, fitted, part, unlabelled=True) for part in PARTS]
    assert sum(len(examples.position) for examples in every) == ROWS
    assert sum(int(np.isnan(examples.target).sum()) for examples in every) == source().column("y").null_count
    assert sum(read_columns(prepared, part, ["x"], unlabelled=True).num_rows for part in PARTS) == ROWS


def test_an_empty_part_has_shapes_and_types(case: tuple[Prepared, Spec]) -> None:
    prepared, spec = case
    fitted = fit_here(prepared, spec)
    without = replace(prepared, cut=replace(prepared.cut, test_from=None, test=0.0))
    found = load(without, fitted, "test")
    assert found.features.number.shape == (0, 2)
    assert found.features.category.shape == (0, 2)
    assert found.target.shape == found.time.shape == found.position.shape == (0,)
    assert read_columns(without, "test", ["x"]).num_rows == 0


def test_an_unknown_part_is_refused(case: tuple[Prepared, Spec]) -> None:
    prepared, spec = case
    with pytest.raises(UserError, match="part: found 'training', allowed train, validation, test"):
        load(prepared, fit_here(prepared, spec), "training")


def test_no_rows_to_train_on_is_refused(case: tuple[Prepared, Spec]) -> None:
    prepared, spec = case
    with pytest.raises(UserError, match="no training rows"):
        fit_here(replace(prepared, fragments=[]), spec)


def sort(stream: dict[str, list[np.ndarray]]) -> Examples:
    columns = {name: np.concatenate(parts) for name, parts in stream.items()}
    order = np.argsort(columns["position"])
    number, category, target, position = (columns[n][order] for n in ("number", "category", "target", "position"))
    time = columns["time"][order] if "time" in columns else np.empty(0, np.int64)
    return Examples(Features(number, category), target, time, position)


@pytest.mark.ray
def test_the_cluster_learns_the_same_plan_and_streams_the_same_examples(
    ray_session: str, case: tuple[Prepared, Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, spec = case
    fitted = fit(prepared, spec)
    assert fitted == fit_here(prepared, spec)
    monkeypatch.setattr(subject, "MOST_FRAGMENTS", 1)  # a task a fragment: some have no row of the part
    assert fit(prepared, spec) == fitted
    for part in PARTS:
        stream: dict[str, list[np.ndarray]] = {}
        for batch in dataset(prepared, fitted, part).iter_batches(batch_size=None, batch_format="numpy"):
            for name, values in batch.items():
                stream.setdefault(name, []).append(values)
        found, expected = sort(stream), load(prepared, fitted, part)
        np.testing.assert_array_equal(found.features.number, expected.features.number)
        np.testing.assert_array_equal(found.features.category, expected.features.category)
        for one, two in zip(found[1:], expected[1:], strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.ray
def test_matrices_reach_torch_as_matrices(ray_session: str, case: tuple[Prepared, Spec]) -> None:
    import torch

    prepared, spec = case
    fitted = fit_here(prepared, spec)
    batch = next(iter(dataset(prepared, fitted, "train").iter_torch_batches(batch_size=64)))
    assert (batch["number"].shape, batch["number"].dtype) == ((64, 2), torch.float32)
    assert (batch["category"].shape, batch["category"].dtype) == ((64, 2), torch.int64)
    assert (batch["target"].shape, batch["target"].dtype) == ((64,), torch.float32)
