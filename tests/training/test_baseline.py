"""The baseline learns, scores in the right shapes, and is nothing but text."""

import numpy as np
import pytest

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.training.baseline import Baseline, train_baseline
from app.training.metrics import evaluate
from app.types import Features

TARGETS = {
    "binary": TargetColumn("y", "binary", (0, 1)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=0.5, std=1.0),
}


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
    baseline = train_baseline(examples_of(task, 0), examples_of(task, 1), plan, seed=0, threads=1)
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
    found = train_baseline(marred, marred, plan_of("binary"), seed=0, threads=1)
    fewer = Examples(
        train.features.rows(slice(0, -500)), train.target[:-500], train.time[:-500], train.position[:-500]
    )
    assert found.model == train_baseline(fewer, fewer, plan_of("binary"), seed=0, threads=1).model
