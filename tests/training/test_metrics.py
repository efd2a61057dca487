"""Figures agree with scikit-learn, and folding them over pieces changes nothing."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from sklearn import metrics as reference

from app.data.features import TargetColumn
from app.training.metrics import Tally, by_month, by_slice, evaluate

BINARY = TargetColumn("late", "binary", (0, 1))
MULTICLASS = TargetColumn("kind", "multiclass", ("a", "b", "c"))
REGRESSION = TargetColumn("delay", "regression", mean=1000.0)
COLUMNS = {
    "binary": BINARY,
    "multiclass": MULTICLASS,
    "regression": REGRESSION,
    "absolute": replace(REGRESSION, regression_loss="absolute"),
    "quantile": replace(REGRESSION, regression_loss="quantile", quantile=0.9),
}


def rows_of(task, seed, n, tied=False):
    random = np.random.default_rng(seed)
    if COLUMNS[task].task == "regression":
        target = random.normal(1000, 3, n)
        return (target + random.normal(0, 1, n)).astype(np.float32), target.astype(np.float32)
    if task == "binary":
        scores = random.uniform(0.001, 0.999, n)
        target = random.uniform(size=n) < scores
    else:
        scores = random.dirichlet([1.0, 2.0, 0.5], n) * 0.99 + 0.01 / 3
        target = (scores.cumsum(axis=1) > random.uniform(size=n)[:, None]).argmax(axis=1)
    scores = np.round(scores, 1) * 0.98 + 0.01 if tied else scores
    return scores.astype(np.float32), target.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 400), tied=st.booleans())
def test_binary_figures_agree_with_scikit_learn(seed, n, tied):
    scores, target = rows_of("binary", seed, n, tied)
    target[:2] = (0, 1)
    found = evaluate(BINARY, scores, target)
    assert found["auc"] == pytest.approx(reference.roc_auc_score(target, scores), abs=1e-12)
    assert found["log_loss"] == pytest.approx(reference.log_loss(target, scores.astype(float)), rel=1e-6)
    assert found["brier"] == pytest.approx(reference.brier_score_loss(target, scores), rel=1e-6)
    assert found["rows"] == n


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 300))
def test_multiclass_figures_agree_with_scikit_learn(seed, n):
    scores, target = rows_of("multiclass", seed, n)
    found = evaluate(MULTICLASS, scores, target)
    wide = scores.astype(float)
    wide /= wide.sum(axis=1, keepdims=True)
    assert found["log_loss"] == pytest.approx(reference.log_loss(target, wide, labels=[0, 1, 2]), rel=1e-5)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(target, scores.argmax(axis=1)))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(target, scores.argmax(axis=1), average="macro"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 300))
def test_regression_figures_agree_with_scikit_learn(seed, n):
    scores, target = rows_of("regression", seed, n)
    found = evaluate(REGRESSION, scores, target)
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(target.astype(float), scores), rel=1e-6)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(target.astype(float), scores), rel=1e-6)
    assert found["r2"] == pytest.approx(reference.r2_score(target.astype(float), scores), rel=1e-6, abs=1e-6)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 300), quantile=st.floats(0.01, 0.99))
def test_of_a_quantile_there_are_also_the_pinball_loss_and_what_it_covers(seed, n, quantile):
    scores, target = rows_of("quantile", seed, n)
    scores[0] = target[0]  # at the prediction is not above it
    column = replace(REGRESSION, regression_loss="quantile", quantile=quantile)
    found, plain = evaluate(column, scores, target), evaluate(REGRESSION, scores, target)
    wide = target.astype(float)
    assert found.pop("pinball") == pytest.approx(reference.mean_pinball_loss(wide, scores, alpha=quantile))
    assert found.pop("coverage") == pytest.approx((target <= scores).mean())
    assert found == plain


def test_calibration_error_is_the_gap_between_score_and_share():
    scores = np.repeat(np.float32([0.25, 0.75]), 400)
    target = np.tile(np.float32([1, 0, 0, 0]), 200)  # a share of .25 everywhere
    assert evaluate(BINARY, scores, target)["calibration_error"] == pytest.approx(0.25)


def test_calibration_error_does_not_depend_on_the_order_of_tied_rows():
    scores, target = rows_of("binary", 3, 500, tied=True)
    order = np.random.default_rng(0).permutation(500)
    first = evaluate(BINARY, scores, target)["calibration_error"]
    assert evaluate(BINARY, scores[order], target[order])["calibration_error"] == pytest.approx(first)


@pytest.mark.parametrize("task", COLUMNS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 500))
def test_a_tally_over_pieces_equals_the_exact_figures(task, seed, cut):
    scores, target = rows_of(task, seed, 500)
    column = COLUMNS[task]
    pieces = [Tally.of(column, scores[:cut], target[:cut]), Tally.of(column, scores[cut:], target[cut:])]
    found = pieces[0].merge(pieces[1]).figures()
    backwards = pieces[1].merge(Tally.zero(column)).merge(pieces[0]).figures()
    exact = evaluate(COLUMNS[task], scores, target)
    assert found == pytest.approx(backwards)
    if task == "binary":
        assert abs(found["auc"] - exact["auc"]) <= found.pop("auc_error") + 1e-12
        assert found.pop("auc") == pytest.approx(exact.pop("auc"), abs=1e-3)
    if "calibration_error" in exact:
        assert found.pop("calibration_error") == pytest.approx(exact.pop("calibration_error"), abs=0.02)
    assert found == pytest.approx(exact)


@pytest.mark.parametrize("task", COLUMNS)
def test_no_rows_have_no_figures(task):
    scores = np.empty((0, 3) if task == "multiclass" else (0,), np.float32)
    assert evaluate(COLUMNS[task], scores, np.empty(0, np.float32)) == {"rows": 0}
    assert Tally.zero(COLUMNS[task]).figures() == {"rows": 0}


def test_one_class_alone_has_no_auc_but_the_rest():
    scores, target = np.float32([0.2, 0.4]), np.float32([0, 0])
    assert set(evaluate(BINARY, scores, target)) == {"rows", "log_loss", "brier", "calibration_error"}
    assert "auc" not in Tally.of(BINARY, scores, target).figures()


@pytest.mark.parametrize("task", COLUMNS)
def test_rows_without_a_label_change_nothing(task):
    scores, target = rows_of(task, 1, 50)
    more_scores, more_target = np.concatenate([scores, scores[:9]]), np.append(target, np.full(9, np.nan, np.float32))
    assert evaluate(COLUMNS[task], more_scores, more_target) == evaluate(COLUMNS[task], scores, target)
    tally = Tally.of(COLUMNS[task], more_scores, more_target)
    assert tally.figures() == Tally.of(COLUMNS[task], scores, target).figures()


def test_months_are_calendar_months():
    time = np.array(["2013-02-28T23:59:59", "2013-03-01", "2013-03-31T10:00"], "datetime64[ms]").astype(np.int64)
    found = by_month(BINARY, np.float32([0.1, 0.2, 0.9]), np.float32([0, 0, 1]), time)
    assert {month: figures["rows"] for month, figures in found.items()} == {"2013-02": 1, "2013-03": 2}
    assert found["2013-03"]["auc"] == 1.0
    assert "auc" not in found["2013-02"]


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("dictionary", [False, True])
def test_slices_hold_their_own_rows_and_nulls_are_a_slice(chunks, dictionary):
    column = pa.array(["AA", None, "UA", "AA", "UA", "ZZ"])
    column = column.dictionary_encode() if dictionary else column
    column = pa.chunked_array([column.slice(0, 3), column.slice(3)]) if chunks == 2 else column
    scores, target = np.float32([0.1, 0.2, 0.3, 0.9, 0.2, 0.5]), np.float32([0, 0, 0, 1, 1, 1])
    found = by_slice(BINARY, scores, target, column)
    assert list(found) == ["AA", "UA", "ZZ", "null"]
    assert found["AA"] == evaluate(BINARY, scores[[0, 3]], target[[0, 3]])
    assert found["null"]["rows"] == 1
    assert list(by_slice(BINARY, scores, target, column, min_rows=2)) == ["AA", "UA"]
