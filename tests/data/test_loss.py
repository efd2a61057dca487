"""One loss for everybody: it is what the textbook says, and the constant that it asks for makes it least."""

import math

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from sklearn import metrics as reference

from app.data.features import RegressionLoss, TargetColumn
from app.data.loss import mean_loss, row_loss
from app.training.evidence import constant
from app.training.metrics import evaluate

Floats = npt.NDArray[np.float32]
BINARY = TargetColumn("late", "binary", (0, 1))
MULTICLASS = TargetColumn("kind", "multiclass", ("a", "b", "c"))
# Quarters are exact in float32, so that ties and halves are, too.
VALUES = st.lists(st.integers(-4000, 4000).map(lambda i: i / 4), min_size=1, max_size=60).map(np.float32)
QUANTILES = st.floats(0.01, 0.99)


def price(loss: RegressionLoss, quantile: float = 0.5) -> TargetColumn:
    return TargetColumn("price", "regression", regression_loss=loss, quantile=quantile)


def errs(labels: Floats, seed: int) -> Floats:
    return (labels + np.random.default_rng(seed).integers(-8, 9, len(labels))).astype(np.float32)


@given(labels=VALUES, seed=st.integers(0, 100), quantile=QUANTILES)
def test_regression_losses_agree_with_scikit_learn(labels: Floats, seed: int, quantile: float) -> None:
    scores = errs(labels, seed)
    found = {
        loss: row_loss(price(loss, quantile), scores, labels).mean() for loss in ("squared", "absolute", "quantile")
    }
    assert found["squared"] == pytest.approx(reference.mean_squared_error(labels, scores))
    assert found["absolute"] == pytest.approx(reference.mean_absolute_error(labels, scores))
    assert found["quantile"] == pytest.approx(reference.mean_pinball_loss(labels, scores, alpha=quantile))


@given(labels=VALUES, seed=st.integers(0, 100))
def test_the_pinball_loss_at_a_half_is_half_the_absolute_error(labels: Floats, seed: int) -> None:
    scores = errs(labels, seed)
    half, whole = (row_loss(price(loss), scores, labels) for loss in ("quantile", "absolute"))
    np.testing.assert_array_equal(2 * half, whole)


@given(labels=VALUES, seed=st.integers(0, 100), quantile=QUANTILES)
def test_a_loss_is_never_negative_and_nothing_where_the_value_is_met(
    labels: Floats, seed: int, quantile: float
) -> None:
    loss = row_loss(price("quantile", quantile), errs(labels, seed), labels)
    assert (loss >= 0).all()
    assert ((loss == 0) == (errs(labels, seed) == labels)).all()


@given(
    labels=VALUES,
    loss=st.sampled_from(["squared", "absolute", "quantile"]),
    quantile=QUANTILES,
    other=st.floats(-1e3, 1e3),
)
def test_no_other_constant_has_less_loss_than_the_best_one(
    labels: Floats, loss: RegressionLoss, quantile: float, other: float
) -> None:
    target = price(loss, quantile)
    best = row_loss(target, constant(target, labels, labels), labels).mean()
    assert best <= row_loss(target, np.full_like(labels, other), labels).mean() + 1e-3


@given(classes=st.lists(st.integers(0, 2), min_size=1, max_size=60), seed=st.integers(0, 100))
def test_no_other_constant_has_less_log_loss_than_the_classes_shares(classes: list[int], seed: int) -> None:
    labels = np.float32(classes)
    scores = np.random.default_rng(seed).dirichlet(np.ones(3)).astype(np.float32) * np.ones(
        (len(labels), 1), np.float32
    )
    best = row_loss(MULTICLASS, constant(MULTICLASS, scores, labels), labels).mean()
    assert best <= row_loss(MULTICLASS, scores, labels).mean() + 1e-6


def test_a_sure_mistake_costs_a_bounded_loss() -> None:
    assert np.isfinite(row_loss(BINARY, np.float32([0.0, 1.0]), np.float32([1, 0]))).all()


@pytest.mark.parametrize(
    "target",
    [BINARY, MULTICLASS, price("squared"), price("absolute"), price("quantile", 0.9)],
    ids=lambda one: one.loss,
)
def test_a_versions_figures_tell_its_mean_row_loss(target: TargetColumn) -> None:
    random = np.random.default_rng(4)
    labels = random.integers(0, 2, 200).astype(np.float32)
    scores = random.dirichlet(np.ones(3), 200) if target.task == "multiclass" else random.random(200)
    scores = scores.astype(np.float32)
    assert mean_loss(target, evaluate(target, scores, labels)) == pytest.approx(
        row_loss(target, scores, labels).mean()
    )
    assert math.isnan(mean_loss(target, {"rows": 0.0}))
