"""LightGBM's trees as a graph: the same decisions, the same sums, and nothing that could lead a runtime astray."""

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.admission import check_graph
from app.model.runtime import Runtime
from app.model.trees import to_onnx
from app.spec import Spec
from app.training.baseline import Baseline, train_baseline
from app.types import Features

TARGETS = {
    "binary": TargetColumn("y", "binary", (False, True)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=1e6, std=100.0),
}
SPEC = Spec.model_validate({"name": "x", "task": {"target": "y"}, "data": {"source": "x"}})


def plan_of(task, categories=40):
    vocabulary = tuple(f"v{i}" for i in range(categories))
    return FeaturePlan(
        (NumberColumn("x"), NumberColumn("z")), (CategoryColumn("c", "string", vocabulary),), TARGETS[task]
    )


def examples_of(task, seed=0, n=1500, missing=0.1, categories=40):
    random = np.random.default_rng(seed)
    number = random.normal(size=(n, 2)).astype(np.float32)
    number[random.uniform(size=(n, 2)) < missing] = np.nan
    category = random.integers(0, categories + 2, (n, 1))
    signal = np.nan_to_num(number[:, 0], nan=2.0) + np.sin(category[:, 0] * 2.0) + random.normal(0, 0.3, n)
    target = {"binary": signal > 0, "multiclass": np.digitize(signal, [-1, 1]), "regression": 1e6 + 100 * signal}
    return Examples(Features(number, category), target[task].astype(np.float32), np.arange(n), np.arange(n))


def boost(task, **given):
    trees = {"rounds": 40, "leaves": 15, "leaf_rows": 5, **given.pop("trees", {})}
    spec = SPEC.with_settings({f"model.trees.{name}": value for name, value in trees.items()})
    rows = examples_of(task, **given)
    return train_baseline(rows, rows, plan_of(task), spec, threads=1)


def graph_of(found, task):
    return to_onnx(found.model, plan_of(task), np.array(found.shift))


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_graph_scores_as_lightgbm_does(task, missing):
    """Also rows with missing numbers where the training had none: LightGBM then takes them for 0."""
    found = boost(task, missing=missing)
    features = examples_of(task, seed=1, missing=0.2).features
    edges = np.float32([-np.inf, np.inf, 0.0, -0.0, 1e-40, 3e38])
    strange = Features(np.stack([edges, edges[::-1]], axis=1), np.array([[0], [1], [2], [41], [0], [1]]))
    for some in (features, strange):
        scores = Runtime(graph_of(found, task), plan_of(task)).score(some)
        np.testing.assert_allclose(scores, found.score(some), rtol=1e-6, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    task=st.sampled_from(list(TARGETS)),
    leaves=st.integers(2, 40),
    categories=st.sampled_from([0, 1, 31, 32, 70]),
    missing=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    weights=st.sampled_from(["none", "balanced"]),
    constant=st.booleans(),
)
def test_any_trees_decide_alike(seed, task, leaves, categories, missing, weights, constant):
    """Over numbers that are mostly, always or never there, constants, and sets of ids in one word, two and three."""
    rows = examples_of(task, seed, 400, missing, categories)
    if constant:
        rows.features.number[:, 1] = 7
    plan, trees = plan_of(task, categories), {"rounds": 5, "leaves": leaves, "leaf_rows": 3}
    spec = SPEC.with_settings({f"model.trees.{name}": value for name, value in trees.items()})
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"class_weights": weights})})
    found = train_baseline(rows, rows, plan, spec, threads=1)
    graph = to_onnx(found.model, plan, np.array(found.shift))
    check_graph(graph, plan, "here")
    for features in (rows.features, examples_of(task, seed + 1, 100, 0.5, 70).features):  # ids that no training saw
        scores = Runtime(graph, plan).score(features)
        np.testing.assert_allclose(scores, found.score(features), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("task", TARGETS)
def test_trees_without_a_split_are_a_constant(task):
    found = boost(task, trees={"leaf_rows": 100_000, "rounds": 3})
    features = examples_of(task).features
    scores = Runtime(graph_of(found, task), plan_of(task)).score(features)
    np.testing.assert_allclose(scores, found.score(features), rtol=1e-6)
    assert len(np.unique(scores, axis=0)) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_rows_score_is_the_same_alone_and_among_many(threads):
    found = boost("binary", trees={"rounds": 300, "leaves": 63})
    runtime, features = (
        Runtime(graph_of(found, "binary"), plan_of("binary"), threads=threads),
        examples_of("binary").features,
    )
    together = runtime.score(features)
    alone = np.concatenate([runtime.score(features.rows(slice(i, i + 1))) for i in range(200)])
    np.testing.assert_array_equal(together[:200], alone)


def test_the_same_trees_give_the_same_bytes_and_the_shift_is_in_them():
    found = boost("binary")
    plain, again = (to_onnx(found.model, plan_of("binary")) for _ in range(2))
    assert plain == again
    shifted = to_onnx(found.model, plan_of("binary"), np.array([1.5]))
    features = examples_of("binary").features
    before, after = (Runtime(graph, plan_of("binary")).score(features) for graph in (plain, shifted))
    np.testing.assert_allclose(np.log(after / (1 - after)), np.log(before / (1 - before)) + 1.5, rtol=1e-3, atol=1e-4)


def test_the_library_reads_what_the_graph_was_made_of():
    found = boost("binary")
    assert lightgbm.Booster(model_str=found.model).num_trees() == found.trees
    assert Baseline(found.model, "binary", 1, 0, 0.0).score(examples_of("binary").features).shape == (1500,)


@pytest.mark.parametrize("task", TARGETS)
def test_every_order_of_adding_the_trees_gives_the_same_bits(task):
    """So neither the rows that come along nor the threads matter: by them a runtime chooses its order."""
    found = boost(task, trees={"rounds": 200})
    features = examples_of(task, seed=1).features
    sums = [_sums(graph_of(found, task), features, seed) for seed in range(5)]
    for other in sums[1:]:
        np.testing.assert_array_equal(other, sums[0])


def _sums(graph, features, seed):
    """Return the sums of the trees' leaves, float64, with the trees in an order of their own."""
    model = onnx.load_model_from_string(graph)
    [node] = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
    [roots] = [entry.ints for entry in node.attribute if entry.name == "tree_roots"]
    roots[:] = np.random.default_rng(seed).permutation(roots).tolist()
    model.graph.output.append(onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.DOUBLE, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["sum"], {"number": features.number, "category": features.category})[0]


@pytest.mark.parametrize(("numbers", "categories"), [(2, 0), (0, 2), (3, 1)])
@pytest.mark.parametrize("task", TARGETS)
def test_plans_of_every_shape_have_graphs_that_may_run(task, numbers, categories):
    plan = FeaturePlan(
        tuple(NumberColumn(f"n{i}") for i in range(numbers)),
        tuple(CategoryColumn(f"c{i}", "string", tuple("pqrs")) for i in range(categories)),
        TARGETS[task],
    )
    random = np.random.default_rng(0)
    features = Features(
        random.normal(size=(600, numbers)).astype(np.float32), random.integers(0, 6, (600, categories))
    )
    signal = features.number.sum(axis=1) + np.sin(features.category).sum(axis=1)
    target = {"binary": signal > 0, "multiclass": np.digitize(signal, [-0.5, 0.5]), "regression": signal}[task]
    rows = Examples(features, target.astype(np.float32), np.arange(600), np.arange(600))
    found = train_baseline(rows, rows, plan, SPEC.with_settings({"model.trees.rounds": 10}), threads=1)
    graph = to_onnx(found.model, plan, np.array(found.shift))
    check_graph(graph, plan, "here")
    runtime = Runtime(graph, plan)
    np.testing.assert_allclose(runtime.score(features), found.score(features), rtol=1e-6, atol=1e-6)
    assert runtime.score(features.rows(slice(0, 0))).shape == found.score(features)[:0].shape


def test_small_probabilities_are_as_exact_as_large_ones():
    found, plan, features = boost("binary"), plan_of("binary"), examples_of("binary").features
    plain = found.score(features).astype(np.float64)
    rare = Runtime(to_onnx(found.model, plan, np.array([-12.0])), plan).score(features)
    odds = plain / (1 - plain) * np.exp(-12)
    np.testing.assert_allclose(rare, odds / (1 + odds), rtol=3e-6)
    assert rare.min() < 1e-6


@pytest.mark.parametrize("leaf_rows", [20, 10_000])
def test_the_trees_own_slope_of_the_sigmoid_counts(leaf_rows):
    """LightGBM's `sigmoid` multiplies what the trees say, before the weights of classes are taken out."""
    rows, plan = examples_of("binary"), plan_of("binary")
    table = np.concatenate([rows.features.number, rows.features.category.astype(np.float32)], axis=1)
    given = {"objective": "binary", "sigmoid": 0.3, "verbosity": -1, "num_threads": 1, "min_data_in_leaf": leaf_rows}
    booster = lightgbm.train(given, lightgbm.Dataset(table, rows.target, categorical_feature=[2]), 20)
    raw = booster.predict(table, raw_score=True)
    for shift in (0.0, 1.5):
        scores = Runtime(to_onnx(booster.model_to_string(), plan, np.array([shift])), plan).score(rows.features)
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-0.3 * raw - shift)), rtol=1e-6)
