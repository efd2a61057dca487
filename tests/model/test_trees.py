"""LightGBM's trees as a graph: the same decisions, the same sums, and nothing that could lead a runtime astray."""

import lightgbm
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.admission import check_graph
from app.model.runtime import Runtime
from app.model.trees import to_onnx
from app.spec import Spec
from app.training.baseline import Baseline, train_baseline
from app.types import Features, UserError

TARGETS = {
    "binary": TargetColumn("y", "binary", (False, True)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=1e6, std=100.0),
}


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
    spec = Spec.model_validate(
        {"name": "x", "task": {"target": "y"}, "data": {"source": "x"}, "model": {"trees": trees}}
    )
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
        np.testing.assert_allclose(scores, found.score(some), rtol=3e-7, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), leaves=st.integers(2, 40), categories=st.sampled_from([1, 31, 32, 70]))
def test_any_trees_decide_alike(seed, leaves, categories):
    rows = examples_of("binary", seed, 400, categories=categories)
    spec = Spec.model_validate({"name": "x", "task": {"target": "y"}, "data": {"source": "x"}}).with_settings(
        {"model.trees.rounds": 5, "model.trees.leaves": leaves, "model.trees.leaf_rows": 3}
    )
    plan = plan_of("binary", categories)
    found = train_baseline(rows, rows, plan, spec, threads=1)
    scores = Runtime(to_onnx(found.model, plan), plan).score(rows.features)
    np.testing.assert_allclose(scores, found.score(rows.features), rtol=3e-7)


@pytest.mark.parametrize("task", TARGETS)
def test_trees_without_a_split_are_a_constant(task):
    found = boost(task, trees={"leaf_rows": 100_000, "rounds": 3})
    features = examples_of(task).features
    scores = Runtime(graph_of(found, task), plan_of(task)).score(features)
    np.testing.assert_allclose(scores, found.score(features), rtol=3e-7)
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


@pytest.mark.parametrize(
    ("attribute", "index", "value"),
    [
        ("nodes_truenodeids", 0, 10**6),
        ("nodes_falsenodeids", 0, -1),
        ("nodes_truenodeids", 3, 0),
        ("nodes_featureids", 0, 3),
        ("tree_roots", 0, 10**6),
        ("leaf_targetids", 0, 1),
        ("nodes_falseleafs", slice(1, None), None),
        ("leaf_weights", slice(1, None), None),
        ("membership_values", slice(1, 2), None),
    ],
)
def test_trees_that_lead_astray_are_refused(attribute, index, value):
    model = onnx.load_model_from_string(graph_of(boost("binary"), "binary"))
    [node] = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
    [entry] = [entry for entry in node.attribute if entry.name == attribute]
    if entry.HasField("t"):
        values = numpy_helper.to_array(entry.t).copy()
        values = values[~np.isnan(values)][:5] if attribute == "membership_values" else np.delete(values, 0)
        entry.t.CopyFrom(numpy_helper.from_array(values, entry.t.name))
    elif value is None:
        del entry.ints[0]
    else:
        entry.ints[index] = value
        if attribute == "nodes_truenodeids" and index == 3:
            [leafs] = [one for one in node.attribute if one.name == "nodes_trueleafs"]
            leafs.ints[3] = 0
    with pytest.raises(UserError, match=r"here: .*(tree ensemble|not a valid)"):
        check_graph(model.SerializeToString(), plan_of("binary"), "here")


def test_of_the_traditional_operators_no_other_is_allowed():
    model = onnx.load_model_from_string(graph_of(boost("binary"), "binary"))
    model.graph.node.add(op_type="Binarizer", domain="ai.onnx.ml", input=["features"], output=["b"], name="b")
    with pytest.raises(UserError, match=r"found the operator Binarizer; of ai.onnx.ml, allowed is TreeEnsemble"):
        check_graph(model.SerializeToString(), plan_of("binary"), "here")
