"""What distillation promises: a student that learns the teacher's answers, where rows have labels and where not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import from_numpy

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.data.loss import row_loss
from app.model.export import to_onnx
from app.model.runtime import Runtime
from app.spec import Spec
from app.training.distil import distil, mixture, student_spec, teaching, with_answers
from app.training.loader import Parts
from app.training.trainer import train
from app.types import Features
from app.workspace import Workspace

TARGETS = {
    "binary": TargetColumn("y", "binary", (0, 1)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=10.0, std=4.0),
}
QUANTILES = tuple(np.linspace(-3, 3, 257).tolist())


def plan_of(task="binary"):
    numbers = tuple(NumberColumn(f"x{i}", quantiles=QUANTILES) for i in range(3))
    return FeaturePlan(numbers, (CategoryColumn("c", "string", tuple("pqrs")),), TARGETS[task])


def features_of(seed, n):
    random = np.random.default_rng(seed)
    return Features(random.normal(size=(n, 3)).astype(np.float32), random.integers(2, 6, (n, 1)))


def truth(task):
    """Return a teacher that knows how labels come about."""

    def answer(features):
        signal = features.number[:, 0] + np.array([0, 0, 1, -1, 0.5, -0.5])[features.category[:, 0]]
        if task == "binary":
            return (1 / (1 + np.exp(-signal))).astype(np.float32)
        if task == "multiclass":
            odds = np.exp(np.stack([signal, features.number[:, 1], -signal], axis=1))
            return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return (10 + 2 * signal).astype(np.float32)

    return answer


def examples_of(task, seed, n):
    """Return rows whose labels are drawn from what the teacher knows, and so are full of chance."""
    features, random = features_of(seed, n), np.random.default_rng(seed + 100)
    knows = truth(task)(features)
    if task == "binary":
        labels = random.uniform(size=n) < knows
    elif task == "multiclass":
        labels = (random.uniform(size=(n, 1)) > knows.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    else:
        labels = knows + random.normal(0, 6, n)
    return Examples(features, labels.astype(np.float32), np.arange(n), np.arange(n))


def parts_of(task, n=300):
    return Parts(examples_of(task, 1, n), examples_of(task, 2, 5000))


def spec_of(task="binary", student=(), **train):
    declared = {
        "name": "x",
        "task": {"target": "y", "type": task},
        "data": {"source": "x"},
        "train": {"batch_size": 50, **train},
        "compress": {
            "student": {
                "width": 16,
                "number_embedding": 4,
                "frequencies": 4,
                "epochs": 12,
                "learning_rate": 0.01,
                **dict(student),
            }
        },
    }
    return Spec.model_validate(declared)


def scores(trained, features):
    plan = trained.network.plan
    return Runtime(to_onnx(trained.network), plan).score(features)


@pytest.mark.parametrize("task", list(TARGETS))
def test_a_student_learns_more_from_one_who_knows_than_from_chance(task, tmp_path):
    """On 300 rows of labels full of chance, and the same rows answered by one who knows the chances."""
    plan, spec, workspace, parts = plan_of(task), spec_of(task), Workspace(str(tmp_path)), parts_of(task)
    taught = distil(parts, plan, spec, truth(task), None, workspace, "taught")
    alone = train(parts, plan, student_spec(spec), workspace, "alone")
    fresh = examples_of(task, 3, 20_000)

    def behind(found):
        """Return how much more a student loses than one who knows."""
        losses = (row_loss(plan.target, each, fresh.target).mean() for each in (found, truth(task)(fresh.features)))
        return next(losses) - next(losses)

    assert behind(scores(taught, fresh.features)) < 0.5 * behind(scores(alone, fresh.features))
    assert taught.validation["rows"] == 5000


def test_rows_without_a_label_teach_as_well(tmp_path):
    """50 rows are too few to learn the truth from; 2,000 more that only the teacher knows are not."""
    plan, spec, workspace, parts = plan_of(), spec_of(), Workspace(str(tmp_path)), parts_of("binary", 50)
    fresh = features_of(3, 2000)

    def far(trained):
        return float(np.abs(scores(trained, fresh) - truth("binary")(fresh)).mean())

    few = distil(parts, plan, spec, truth("binary"), None, workspace, "few")
    many = distil(parts, plan, spec, truth("binary"), features_of(4, 2000), workspace, "many")
    assert far(many) < 0.03
    assert far(many) < far(few) / 2


def test_the_student_is_the_declared_one_and_not_weighted():
    spec = spec_of(class_weights={"a": 5.0}).with_settings({"model.kind": "average", "compress.student.depth": 1})
    student = student_spec(spec)
    assert (student.model.kind, student.model.width, student.model.depth) == ("network", 16, 1)
    assert (student.model.number_embedding, student.model.frequencies) == (4, 4)
    assert (student.train.epochs, student.train.learning_rate) == (12, 0.01)
    assert student.train.patience == 12
    assert student.train.class_weights == "none"
    assert student.compress == spec.compress


def test_a_student_that_hears_labels_alone_is_trained_as_any_network(tmp_path):
    plan, spec, parts = plan_of(), spec_of(student={"teaching": 0.0}), parts_of("binary")
    workspace = Workspace(str(tmp_path))
    taught = distil(parts, plan, spec, truth("binary"), None, workspace, "taught")
    alone = train(parts, plan, student_spec(spec), workspace, "alone")
    assert taught.network.to_safetensors() == alone.network.to_safetensors()


def test_a_quantile_is_learned_from_labels_as_well_and_whatever_is_declared_counts():
    """A student that hears answers of the .9 quantile alone lies above nine of ten of them, and so above more labels."""
    quantile = TargetColumn("y", "regression", regression_loss="quantile", quantile=0.9)
    assert [teaching(spec_of(), target) for target in (*TARGETS.values(), quantile)] == [1.0, 1.0, 1.0, 0.5]
    declared = spec_of(student={"teaching": 0.8})
    assert [teaching(declared, target) for target in (*TARGETS.values(), quantile)] == [0.8] * 4


@given(labels=st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), min_size=1, max_size=9), weight=st.floats(0, 1))
def test_soft_targets_of_classes_are_probabilities_between_answer_and_label(labels, weight):
    labels = np.array(labels, np.float32)
    answers = np.random.default_rng(0).dirichlet(np.ones(3), len(labels)).astype(np.float32)
    soft = mixture(TARGETS["multiclass"], labels, answers, weight)
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
    for row, label, answer in zip(soft, labels, answers, strict=True):
        expected = answer.copy()
        if not np.isnan(label):
            expected = weight * answer + (1 - weight) * np.eye(3)[int(label)]
        np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_soft_targets_of_values_lie_between_answer_and_label(task):
    labels, answers = np.array([0, 1, np.nan], np.float32), np.array([0.5, 0.5, 0.25], np.float32)
    np.testing.assert_allclose(mixture(TARGETS[task], labels, answers, 0.8), [0.4, 0.6, 0.25])
    np.testing.assert_allclose(mixture(TARGETS[task], labels, answers, 1.0), answers)
    np.testing.assert_allclose(mixture(TARGETS[task], labels, answers, 0.0), [0, 1, 0.25])
    np.testing.assert_allclose(answers, [0.5, 0.5, 0.25])  # the teacher's own stay as they are


def test_rows_of_the_table_without_a_label_are_answered_and_validation_keeps_its_labels():
    parts, plan = parts_of("binary", 10), plan_of()
    parts.train.target[3] = np.nan
    taught = with_answers(parts, plan.target, truth("binary"), 0.5, features_of(4, 7))
    assert taught.train.target.shape == (17,)
    assert taught.train.features.number.shape == (17, 3)
    assert taught.train.features.category.shape == (17, 1)
    assert not np.isnan(taught.train.target).any()
    assert taught.train.target[3] == truth("binary")(parts.train.features)[3]
    np.testing.assert_array_equal(taught.train.target[10:], truth("binary")(features_of(4, 7)))
    assert taught.validation is parts.validation


@pytest.mark.parametrize("task", list(TARGETS))
def test_the_students_graph_scores_as_the_student(task, tmp_path):
    spec, features = spec_of(task, {"epochs": 2}), features_of(5, 300)
    taught = distil(parts_of(task), plan_of(task), spec, truth(task), None, Workspace(str(tmp_path)), "x")
    own = taught.network.score(from_numpy(features.number), from_numpy(features.category))
    np.testing.assert_allclose(scores(taught, features), own, rtol=1e-4, atol=1e-5)
