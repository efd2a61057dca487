"""The baseline learns, scores in the right shapes, and is nothing but text."""

from dataclasses import replace

import numpy as np
import pytest

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.admission import MAX_DEPTH
from app.spec import Spec
from app.training.baseline import Baseline, train_baseline
from app.training.metrics import evaluate
from app.types import Features, UserError

TARGETS = {
    "binary": TargetColumn("y", "binary", (0, 1)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=0.5, std=1.0),
}
SPEC = Spec.model_validate({"name": "x", "task": {"target": "y"}, "data": {"source": "x"}})


def plan_of(task):
    numbers = (NumberColumn("x {1}"), NumberColumn("x2"))  # a name that LightGBM's own text could not hold
    return FeaturePlan(numbers, (CategoryColumn("c", "string", tuple("pqrs")),), TARGETS[task])


def examples_of(task, seed, n=2000):
    random = np.random.default_rng(seed)
    number = random.normal(size=(n, 2)).astype(np.float32)
    number[random.uniform(size=(n, 2)) < 0.1] = np.nan
    category = random.integers(0, 6, (n, 1))
    signal = np.nan_to_num(number[:, 0], nan=2.0) + np.array([0, 0, 3, -3, 2, -2])[category[:, 0]]
    target = {"binary": signal > 0, "multiclass": np.digitize(signal, [-1, 1]), "regression": signal}[task]
    nothing = np.arange(n, dtype=np.int64)
    return Examples(Features(number, category), target.astype(np.float32), nothing, nothing)


@pytest.mark.parametrize(
    ("task", "figure", "best"), [("binary", "auc", 0.98), ("multiclass", "accuracy", 0.9), ("regression", "r2", 0.95)]
)
def test_it_learns_every_task_and_survives_its_own_text(task, figure, best):
    plan = plan_of(task)
    baseline = train_baseline(examples_of(task, 0), examples_of(task, 1), plan, SPEC, threads=1)
    held_out = examples_of(task, 2)
    scores = baseline.score(held_out.features)
    assert scores.dtype == np.float32
    assert scores.shape == ((2000, 3) if task == "multiclass" else (2000,))
    assert evaluate(TARGETS[task], scores, held_out.target)[figure] > best
    again = Baseline(baseline.model, task, plan.target.outputs, baseline.trees, 0.0)
    np.testing.assert_array_equal(again.score(held_out.features), scores)
    assert baseline.score(held_out.features.rows(slice(0, 0))).shape == scores[:0].shape


def test_rows_without_a_label_are_left_aside():
    train = examples_of("binary", 0)
    marred = train._replace(target=np.append(train.target[:-500], np.full(500, np.nan, np.float32)))
    found = train_baseline(marred, marred, plan_of("binary"), SPEC, threads=1)
    fewer = Examples(
        train.features.rows(slice(0, -500)), train.target[:-500], train.time[:-500], train.position[:-500]
    )
    assert found.model == train_baseline(fewer, fewer, plan_of("binary"), SPEC, threads=1).model


@pytest.mark.parametrize(("part", "name"), [(0, "training"), (1, "validation")])
def test_a_part_without_labels_is_the_users_to_mend(part, name):
    parts = [examples_of("binary", 0, 100), examples_of("binary", 1, 100)]
    parts[part] = parts[part]._replace(target=np.full(100, np.nan, np.float32))
    with pytest.raises(UserError, match=rf"no labelled {name} rows; see data.split"):
        train_baseline(*parts, plan_of("binary"), SPEC, threads=1)


def test_weights_of_classes_move_the_trees_and_leave_probabilities():
    """A rare class that weighs as much as all others still gets its own share in the mean of the scores."""
    rows, held_out = examples_of("binary", 0), examples_of("binary", 1)
    random = np.random.default_rng(3)
    rare = rows._replace(target=(rows.target * (random.random(2000) < 0.1)).astype(np.float32))
    spec = SPEC.with_settings({"model.trees.rounds": 60})
    plain = train_baseline(rare, rare, plan_of("binary"), spec, threads=1)
    balanced = spec.model_copy(update={"train": spec.train.model_copy(update={"class_weights": "balanced"})})
    weighted = train_baseline(rare, rare, plan_of("binary"), balanced, threads=1)
    assert weighted.model != plain.model
    share = rare.target.mean()
    assert weighted.score(rare.features).mean() == pytest.approx(share, rel=0.3)
    raw = Baseline(weighted.model, "binary", 1, 0, 0.0).score(held_out.features).mean()
    assert raw > 3 * share


@pytest.mark.parametrize(("loss", "share"), [("absolute", 0.5), ("quantile", 0.9)])
def test_the_declared_part_of_the_rows_lies_below_the_prediction(loss, share):
    plan = plan_of("regression")
    target = TargetColumn("y", "regression", std=1.0, regression_loss=loss, quantile=0.9)
    rows, held_out = examples_of("regression", 0), examples_of("regression", 1)
    noisy = [
        part._replace(target=part.target + np.random.default_rng(i).exponential(1, 2000).astype(np.float32))
        for i, part in enumerate((rows, held_out))
    ]
    found = train_baseline(*noisy, replace(plan, target=target), SPEC, threads=1)
    assert (noisy[1].target < found.score(noisy[1].features)).mean() == pytest.approx(share, abs=0.05)


def test_the_history_has_a_line_every_fifty_trees():
    lines = []
    found = train_baseline(
        examples_of("binary", 0),
        examples_of("binary", 1),
        plan_of("binary"),
        SPEC.with_settings({"model.trees.rounds": 120, "model.trees.learning_rate": 0.01}),
        threads=1,
        on_rounds=lines.append,
    )
    assert found.history == lines
    assert [line["rounds"] for line in lines] == [50, 100]


def test_what_is_told_of_can_end_the_training():
    def enough(line):
        raise InterruptedError(line["rounds"])

    examples = examples_of("binary", 0)
    with pytest.raises(InterruptedError, match="50"):
        train_baseline(examples, examples, plan_of("binary"), SPEC, threads=1, on_rounds=enough)


@pytest.mark.parametrize(("loss", "power"), [("squared", 2), ("absolute", 1), ("quantile", 1)])
def test_losses_are_told_in_units_of_the_standardised_target(loss, power):
    """As a network tells them, so that a search can compare the two."""
    spec = SPEC.with_settings({"model.trees.rounds": 50, "model.trees.learning_rate": 0.01})
    told = []
    for std in (1.0, 4.0):
        target = TargetColumn("y", "regression", std=std, regression_loss=loss, quantile=0.9)
        plan = replace(plan_of("regression"), target=target)
        found = train_baseline(examples_of("regression", 0), examples_of("regression", 1), plan, spec, threads=1)
        told.append(found.history[0]["validation_loss"])
    assert told[0] == pytest.approx(told[1] * 4**power)


def test_no_tree_grows_deeper_than_a_runtime_can_load():
    examples = examples_of("binary", 0)
    spec = SPEC.with_settings({"model.trees.rounds": 1})
    found = train_baseline(examples, examples, plan_of("binary"), spec, threads=1)
    assert f"[max_depth: {MAX_DEPTH}]" in found.model
