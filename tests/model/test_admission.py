"""Trees are followed unasked, so a graph whose trees lead astray is refused before a runtime sees it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.admission import MAX_DEPTH, check_graph
from app.model.runtime import Runtime
from app.types import Features, UserError

PLAN = FeaturePlan(
    (NumberColumn("x"), NumberColumn("z")),
    (CategoryColumn("c", "string", ("p", "q")),),
    TargetColumn("y", "regression"),
)
SOUND = {  # x <= 0.5 ? (c in {1, 2} ? leaf 0 : leaf 1) : leaf 2; and z <= 1 ? leaf 3 : leaf 4
    "n_targets": 1,
    "aggregate_function": 1,
    "post_transform": 0,
    "tree_roots": [0, 2],
    "nodes_modes": np.array([0, 6, 0], np.uint8),
    "nodes_featureids": [0, 2, 1],
    "nodes_splits": np.array([0.5, 0.0, 1.0]),
    "nodes_missing_value_tracks_true": [1, 0, 0],
    "nodes_truenodeids": [1, 0, 3],
    "nodes_trueleafs": [0, 1, 1],
    "nodes_falsenodeids": [2, 1, 4],
    "nodes_falseleafs": [1, 1, 1],
    "membership_values": np.array([1.0, 2.0, np.nan]),
    "leaf_targetids": [0] * 5,
    "leaf_weights": np.array([1.0, 2.0, 4.0, 8.0, 16.0]),
}
STRAY = "do not fit together|not a valid ONNX graph"


def graph_of(trees):
    given = {
        name: numpy_helper.from_array(value, name) if isinstance(value, np.ndarray) else value
        for name, value in trees.items()
    }
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", ["number"], ["number64"], to=TensorProto.DOUBLE),
                helper.make_node("Cast", ["category"], ["category64"], to=TensorProto.DOUBLE),
                helper.make_node("Concat", ["number64", "category64"], ["features"], axis=1),
                helper.make_node("TreeEnsemble", ["features"], ["sum"], "trees", domain="ai.onnx.ml", **given),
                helper.make_node("Cast", ["sum"], ["sum32"], to=TensorProto.FLOAT),
                helper.make_node("Reshape", ["sum32", "shape"], ["score"]),
            ],
            "trees",
            [
                helper.make_tensor_value_info("number", TensorProto.FLOAT, ["n", 2]),
                helper.make_tensor_value_info("category", TensorProto.INT64, ["n", 1]),
            ],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])],
            [numpy_helper.from_array(np.array([-1]), "shape")],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 5)],
        ir_version=10,
    )
    return model.SerializeToString()


def chain(depth):
    """Return a tree of so many splits one below the other: x <= -i, else the next."""
    return SOUND | {
        "tree_roots": [0],
        "nodes_modes": np.zeros(depth, np.uint8),
        "nodes_featureids": [0] * depth,
        "nodes_splits": -np.arange(depth, dtype=np.float64),
        "nodes_missing_value_tracks_true": [0] * depth,
        "nodes_truenodeids": list(range(depth)),
        "nodes_trueleafs": [1] * depth,
        "nodes_falsenodeids": [*range(1, depth), depth],
        "nodes_falseleafs": [0] * (depth - 1) + [1],
        "membership_values": np.empty(0),
        "leaf_targetids": [0] * (depth + 1),
        "leaf_weights": np.arange(depth + 1, dtype=np.float64),
    }


def score(trees):
    graph = graph_of(trees)
    check_graph(graph, PLAN, "here")
    rows = Features(np.float32([[0, 0], [0, 2], [1, 0], [np.nan, np.nan]]), np.array([[2], [3], [1], [1]]))
    return Runtime(graph, PLAN).score(rows).tolist()


def test_trees_that_are_whole_may_run():
    assert score(SOUND) == [9.0, 18.0, 12.0, 17.0]


def test_trees_may_be_as_deep_as_a_runtime_can_load():
    assert score(chain(MAX_DEPTH)) == [0.0, 0.0, MAX_DEPTH, MAX_DEPTH]
    with pytest.raises(UserError, match=STRAY):
        check_graph(graph_of(chain(MAX_DEPTH + 1)), PLAN, "here")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"nodes_truenodeids": [10**6, 0, 3]}, id="a node beyond the last"),
        pytest.param({"nodes_falsenodeids": [-1, 1, 4]}, id="a leaf before the first"),
        pytest.param({"tree_roots": [0, 3]}, id="a root beyond the last"),
        pytest.param({"tree_roots": [0, 2, 2]}, id="a tree twice, as many more would fill the memory"),
        pytest.param({"tree_roots": [0]}, id="a tree that none reaches"),
        pytest.param({"nodes_truenodeids": [0, 0, 3]}, id="a node below itself"),
        pytest.param(
            {
                "tree_roots": [2],
                "nodes_truenodeids": [1, 0, 2],
                "nodes_falsenodeids": [0, 1, 3],
                "nodes_falseleafs": [0, 1, 1],
                "leaf_targetids": [0] * 4,
                "leaf_weights": np.array([1.0, 2.0, 4.0, 8.0]),
            },
            id="a circle that no root leads into",
        ),
        pytest.param({"nodes_falsenodeids": [1, 1, 4], "nodes_falseleafs": [0, 1, 1]}, id="two ways to a node"),
        pytest.param({"nodes_truenodeids": [1, 0, 4]}, id="one leaf on both sides"),
        pytest.param({"nodes_featureids": [3, 2, 1]}, id="a feature beyond the last"),
        pytest.param({"nodes_featureids": [-1, 2, 1]}, id="a feature before the first"),
        pytest.param({"nodes_modes": np.array([7, 6, 0], np.uint8)}, id="a comparison that there is not"),
        pytest.param({"nodes_splits": np.array([np.nan, 0.0, 1.0])}, id="a comparison with nothing"),
        pytest.param({"leaf_targetids": [1, 0, 0, 0, 0]}, id="an output beyond the last"),
        pytest.param({"n_targets": 2}, id="outputs that the plan has not"),
        pytest.param({"leaf_weights": np.array([1.0, 2.0, 4.0, 8.0, np.inf])}, id="a leaf without an end"),
        pytest.param({"leaf_weights": np.array([1.0, 2.0, 4.0, 8.0])}, id="a leaf too few"),
        pytest.param({"nodes_falseleafs": [1, 1]}, id="a node told by half"),
        pytest.param({"nodes_missing_value_tracks_true": [1, 0]}, id="nothing said on missing values"),
        pytest.param({"membership_values": np.array([np.nan])}, id="an empty set"),
        pytest.param({"membership_values": np.array([1.0])}, id="a set without an end"),
        pytest.param({"membership_values": np.array([1.0, np.nan, 2.0, np.nan])}, id="a set of no node"),
        pytest.param({"aggregate_function": 3}, id="no sum"),
        pytest.param({"post_transform": 4}, id="a transform, which gives NaN"),
    ],
)
def test_trees_that_lead_astray_are_refused(change):
    with pytest.raises(UserError, match=STRAY):
        check_graph(graph_of(SOUND | change), PLAN, "here")


def test_what_trees_of_ours_never_say_is_refused():
    hits = {"nodes_hitrates": np.array([1.0])}
    with pytest.raises(UserError, match=r"here: the tree ensemble has nodes_hitrates|not a valid ONNX graph"):
        check_graph(graph_of(SOUND | hits), PLAN, "here")


def test_of_the_traditional_operators_no_other_is_allowed():
    model = onnx.load_model_from_string(graph_of(SOUND))
    model.graph.node.add(op_type="Binarizer", domain="ai.onnx.ml", input=["number"], output=["b"], name="b")
    with pytest.raises(UserError, match=r"found the operator Binarizer; of ai.onnx.ml, allowed is TreeEnsemble"):
        check_graph(model.SerializeToString(), PLAN, "here")


def test_no_file_is_opened_that_a_graph_names(tmp_path, monkeypatch):
    """Also not to look into trees, some of whose numbers may be said to lie in it."""
    monkeypatch.chdir(tmp_path)
    np.full(5, np.inf).tofile("secret.bin")  # whoever reads it complains of these leaves
    model = onnx.load_model_from_string(graph_of(SOUND))
    [leaves] = [entry.t for node in model.graph.node for entry in node.attribute if entry.name == "leaf_weights"]
    onnx.external_data_helper.set_external_data(leaves, "secret.bin")
    leaves.ClearField("raw_data")
    with pytest.raises(UserError, match="'leaf_weights' lies in a file of its own"):
        check_graph(model.SerializeToString(), PLAN, "here")
