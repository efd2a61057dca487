"""What every kind of model promises alike: rows go in, and the one graph that comes out is all there is to it."""

import datetime as dt

import numpy as np
import pytest

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.data.loss import row_loss
from app.model.admission import check_graph
from app.model.runtime import Runtime
from app.spec import Spec
from app.training import kinds
from app.training.baseline import Baseline
from app.training.kinds import TREES, WEIGHTS, fit_model
from app.training.loader import Parts
from app.types import DivergedError, Features
from app.workspace import Workspace

KINDS = ["network", "tabm", "linear", "lightgbm", "average", "auto"]
TARGETS = {
    "binary": TargetColumn("y", "binary", (False, True)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=100.0, std=10.0),
}
QUANTILES = tuple(np.linspace(-3, 3, 257).tolist())


def plan_of(task):
    return FeaturePlan(
        tuple(NumberColumn(f"x{i}", nulls=0.1, quantiles=QUANTILES) for i in range(3)),
        (CategoryColumn("c", "string", tuple("pqrs")),),
        TARGETS[task],
        rows=900,
    )


def examples_of(task, seed, n):
    random = np.random.default_rng(seed)
    number = random.normal(size=(n, 3)).astype(np.float32)
    number[random.uniform(size=(n, 3)) < 0.1] = np.nan
    category = random.integers(0, 6, (n, 1))
    signal = np.nan_to_num(number[:, 0], nan=1.5) + np.array([0, 0, 2, -2, 1, -1])[category[:, 0]]
    signal = signal + random.normal(0, 0.3, n)
    target = {
        "binary": signal > 0,
        "multiclass": np.digitize(signal, [-1, 1]),
        "regression": 100 + 10 * signal,
    }[task].astype(np.float32)
    return Examples(Features(number, category), target, np.arange(n) * 3_600_000, np.arange(n))


def parts_of(task):
    return Parts(examples_of(task, 1, 900), examples_of(task, 2, 300))


def spec_of(kind, **train):
    shape = {"width": 16, "depth": 1, "dropout": 0.0, "number_embedding": 4, "frequencies": 4, "ensemble": 4}
    return Spec.model_validate(
        {
            "name": "x",
            "task": {"target": "y"},
            "data": {"source": "x"},
            "model": {"kind": kind, "trees": {"rounds": 60, "leaves": 7, "leaf_rows": 10}, **shape},
            "train": {
                "epochs": 15 if kind == "linear" else 3,
                "batch_size": 64,
                "learning_rate": 0.05 if kind == "linear" else 0.01,
                **train,
            },
        }
    )


def fit_of(folder, kind, task="binary", **given):
    spec = given.pop("spec", None) or spec_of(kind)
    return fit_model(parts_of(task), plan_of(task), spec, Workspace.open(str(folder)), "run", threads=1, **given)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request, tmp_path_factory):
    """Each kind by task, trained once."""
    folder = tmp_path_factory.mktemp(request.param)
    return {task: fit_of(folder / task, request.param, task) for task in TARGETS}


@pytest.mark.parametrize("task", TARGETS)
def test_the_graph_is_admitted_and_tells_more_than_a_constant(fitted, task):
    found, validation = fitted[task], parts_of(task).validation
    check_graph(found.onnx, plan_of(task), "here")
    scores = Runtime(found.onnx, plan_of(task)).score(validation.features)
    assert scores.shape == ((300, 3) if task == "multiclass" else (300,))
    loss = row_loss(TARGETS[task], scores, validation.target).mean()
    assert loss == pytest.approx(found.loss, rel=1e-5)
    constant = {"binary": np.log(2), "multiclass": np.log(3), "regression": validation.target.var()}[task]
    assert loss < 0.8 * constant


@pytest.mark.parametrize("task", TARGETS)
def test_a_rows_score_does_not_depend_on_its_neighbours(fitted, task):
    runtime, features = Runtime(fitted[task].onnx, plan_of(task)), parts_of(task).validation.features
    together = runtime.score(features)
    alone = np.concatenate([runtime.score(features.rows(slice(i, i + 1))) for i in range(50)])
    np.testing.assert_array_max_ulp(together[:50], alone, 4)


@pytest.mark.parametrize("task", TARGETS)
def test_no_rows_and_rows_of_nothing_have_scores(fitted, task):
    runtime, plan = Runtime(fitted[task].onnx, plan_of(task)), plan_of(task)
    assert len(runtime.score(Features(np.empty((0, 3), np.float32), np.empty((0, 1), np.int64)))) == 0
    nothing = Features(np.full((2, 3), np.nan, np.float32), np.array([[0], [1]]))
    assert np.isfinite(runtime.score(nothing)).all(), plan


def test_what_is_learned_is_data_by_the_names_of_files(fitted):
    found = fitted["binary"]
    members = found.model.members if found.model.kind == "average" else []
    names = [TREES if kind == "lightgbm" else WEIGHTS for kind in [*members, found.model.kind]]
    expected = [f"{kind}/{name}" for kind, name in zip(members, names, strict=False)] or [names[-1]]
    assert list(found.learned) == expected
    assert found.model.kind != "auto"


def test_an_average_is_the_mean_of_its_members(tmp_path):
    spec = spec_of("average")
    average = fit_of(tmp_path / "a", "average", spec=spec)
    features = parts_of("binary").validation.features
    members = [
        Runtime(fit_of(tmp_path / kind, kind).onnx, plan_of("binary")).score(features) for kind in spec.model.members
    ]
    found = Runtime(average.onnx, plan_of("binary")).score(features)
    np.testing.assert_allclose(found, np.mean(members, axis=0), atol=2e-7)


def test_auto_takes_the_least_loss_and_tells_everybodys(tmp_path):
    found = fit_of(tmp_path, "auto")
    assert list(found.considered) == ["network", "lightgbm", "average"]
    assert found.loss == min(found.considered.values())
    assert found.considered[found.model.kind] == found.loss


def test_who_diverges_is_out_and_the_others_compete(tmp_path, caplog):
    spec = spec_of("auto", learning_rate=1e30)
    found = fit_of(tmp_path, "auto", spec=spec)
    assert list(found.considered) == ["lightgbm"]
    assert "network is out: training diverged in epoch 1" in caplog.text
    model = spec.model.model_copy(update={"members": ["network", "linear"]})
    with pytest.raises(DivergedError, match="training diverged"):
        fit_of(tmp_path / "all", "auto", spec=spec.model_copy(update={"model": model}))


def test_a_spent_budget_begins_no_further_kind_and_the_first_one_always(tmp_path, caplog):
    caplog.set_level("INFO")
    spec = spec_of("auto", time_budget=dt.timedelta(microseconds=1))
    found = fit_of(tmp_path, "auto", spec=spec)
    assert list(found.considered) == ["network"]
    assert "not tried: lightgbm" in caplog.text


@pytest.mark.parametrize("kind", ["network", "tabm", "linear"])
def test_a_training_goes_on_from_a_network_of_its_kind(tmp_path, kind):
    start = _Start(fit_of(tmp_path / "1", kind), plan_of("binary"), spec_of(kind))
    still = spec_of(kind, epochs=1, learning_rate=1e-9)
    found = fit_of(tmp_path / "2", kind, spec=still, start=start)
    assert found.loss == pytest.approx(start.fitted.loss, abs=1e-3)
    assert found.loss < fit_of(tmp_path / "3", kind, spec=still).loss - 0.05


def test_a_member_goes_on_from_the_same_kind_and_others_begin_anew(tmp_path, caplog):
    caplog.set_level("INFO")
    average = _Start(fit_of(tmp_path / "1", "average"), plan_of("binary"), spec_of("average"))
    still = spec_of("network", epochs=1, learning_rate=1e-9)
    alone = fit_of(tmp_path / "2", "network", spec=still, start=average)
    assert alone.loss < fit_of(tmp_path / "3", "network", spec=still).loss - 0.05
    assert "begins anew" not in caplog.text
    fit_of(tmp_path / "4", "linear", spec=spec_of("linear", epochs=1), start=average)
    assert "begins anew" in caplog.text


def test_what_a_caller_raises_ends_any_training(tmp_path):
    class EnoughError(Exception):
        pass

    def stop(line):
        raise EnoughError(line)

    for kind in ("network", "lightgbm"):
        with pytest.raises(EnoughError, match="validation_loss"):
            fit_of(tmp_path / kind, kind, on_epoch=stop)


def test_trees_come_back_from_their_text(tmp_path):
    found = fit_of(tmp_path, "lightgbm")
    features = parts_of("binary").validation.features
    theirs = Baseline(found.learned[TREES].decode(), "binary", 1, 0, 0.0).score(features)
    np.testing.assert_allclose(Runtime(found.onnx, plan_of("binary")).score(features), theirs, rtol=1e-5)


class _Start:
    def __init__(self, fitted, plan, spec):
        self.fitted, self.plan = fitted, plan
        self.learned = fitted.learned
        self.spec = spec.model_copy(update={"model": fitted.model})


def test_kinds_are_all_there_are():
    assert set(KINDS) == set(Spec.model_fields["model"].annotation.model_fields["kind"].annotation.__args__)
    assert kinds.__doc__ is not None
    assert all(f"`{kind}`" in kinds.__doc__ for kind in KINDS)
