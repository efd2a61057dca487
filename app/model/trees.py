"""How do boosted trees become a file that runs anywhere? LightGBM's text, read here, as one ONNX tree ensemble.

    number   float32 [n, N] -+-> float64 [n, N + C] -> TreeEnsemble -> + shift -> sigmoid, softmax or nothing -> score
    category int64   [n, C] -+

Thresholds and leaves stay float64, as LightGBM compares and adds: scores differ from its own by the last rounding to
float32 alone. A missing number goes the way that LightGBM has learned for it; a split of a category's ids into two sets
is the operator's own (BRANCH_MEMBER, ai.onnx.ml 5).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.data.features import FeaturePlan
from app.model.export import IR_VERSION, OPSET

ML_OPSET = 5

_LESS_OR_EQUAL, _MEMBER = 0, 6
_CATEGORICAL, _DEFAULT_LEFT = 1, 2  # bits of LightGBM's decision_type; missing values are told by the next two
_MISSING_IS = {0: "zero", 2: "nan"}


@dataclass
class _Ensemble:
    """The operator's arrays: inner nodes and leaves of all trees, one after the other."""

    roots: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    missing_left: list[int] = field(default_factory=list)
    left: list[tuple[int, int]] = field(default_factory=list)  # index, is it a leaf?
    right: list[tuple[int, int]] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def to_onnx(text: str, plan: FeaturePlan, shift: npt.NDArray[np.float64] | None = None) -> bytes:
    """Return the serialised graph of a model that LightGBM wrote as text.

    `shift` (outputs,) is added to the raw scores before they become probabilities.
    """
    outputs = plan.target.outputs
    ensemble, constant = _Ensemble(), np.zeros(outputs) if shift is None else shift.astype(np.float64)
    for number, tree in enumerate(_trees(text)):
        if int(tree["num_leaves"]) == 1:  # the operator knows no tree without a split
            constant[number % outputs] += float(tree["leaf_value"])
        else:
            _append(ensemble, tree, number % outputs)
    nodes = [
        helper.make_node("Cast", ["number"], ["number64"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["category"], ["category64"], to=TensorProto.DOUBLE),
        helper.make_node("Concat", ["number64", "category64"], ["features"], axis=1),
    ]
    constants: dict[str, npt.NDArray[np.generic]] = {"constant": constant}
    if ensemble.roots:
        nodes += [_node(ensemble, outputs), helper.make_node("Add", ["sum", "constant"], ["raw"])]
    else:  # every row has the same score
        constants["nothing"] = np.zeros((len(plan.names), outputs))
        nodes += [
            helper.make_node("IsNaN", ["features"], ["missing"]),
            helper.make_node("Where", ["missing", "zero", "features"], ["known"]),
            helper.make_node("MatMul", ["known", "nothing"], ["sum"]),
            helper.make_node("Add", ["sum", "constant"], ["raw"]),
        ]
        constants["zero"] = np.zeros(())
    nodes += _link(plan, constants)
    shape = ["n", outputs] if plan.target.task == "multiclass" else ["n"]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "evertrue",
            [
                helper.make_tensor_value_info("number", TensorProto.FLOAT, ["n", len(plan.number)]),
                helper.make_tensor_value_info("category", TensorProto.INT64, ["n", len(plan.category)]),
            ],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="evertrue",
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _trees(text: str) -> Iterator[dict[str, str]]:
    """Yield each tree's lines as key and value."""
    for block in text.partition("end of trees")[0].split("\nTree=")[1:]:
        yield dict(line.split("=", 1) for line in block.splitlines()[1:] if "=" in line)


def _append(ensemble: _Ensemble, tree: dict[str, str], target: int) -> None:
    first_node, first_leaf = len(ensemble.modes), len(ensemble.weights)
    thresholds, decisions = (tree[key].split() for key in ("threshold", "decision_type"))
    ensemble.roots.append(first_node)
    ensemble.features += map(int, tree["split_feature"].split())
    for threshold, decision in zip(map(float, thresholds), map(int, decisions), strict=True):
        if decision & _CATEGORICAL:
            ensemble.modes.append(_MEMBER)
            ensemble.splits.append(0.0)
            ensemble.missing_left.append(0)
            ensemble.members += [*_members(tree, int(threshold)), np.nan]  # NaN ends a node's set
            continue
        missing = _MISSING_IS[decision >> 2 & 3]
        ensemble.modes.append(_LESS_OR_EQUAL)
        ensemble.splits.append(threshold)
        ensemble.missing_left.append(int(threshold >= 0 if missing == "zero" else bool(decision & _DEFAULT_LEFT)))
    for side, key in ((ensemble.left, "left_child"), (ensemble.right, "right_child")):
        for child in map(int, tree[key].split()):  # a leaf is written as -1 - its number
            side.append((first_node + child, 0) if child >= 0 else (first_leaf - 1 - child, 1))
    leaves = list(map(float, tree["leaf_value"].split()))
    ensemble.weights += leaves
    ensemble.targets += [target] * len(leaves)


def _members(tree: dict[str, str], number: int) -> list[float]:
    """Return the ids that go left: a bit each, in words of 32."""
    bounds, words = (list(map(int, tree[key].split())) for key in ("cat_boundaries", "cat_threshold"))
    own = words[bounds[number] : bounds[number + 1]]
    return [float(32 * i + bit) for i, word in enumerate(own) for bit in range(32) if word >> bit & 1]


def _node(ensemble: _Ensemble, outputs: int) -> onnx.NodeProto:
    def indices(side: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
        return [index for index, _ in side], [leaf for _, leaf in side]

    left, left_leaf = indices(ensemble.left)
    right, right_leaf = indices(ensemble.right)
    sets = {"membership_values": _tensor("members", ensemble.members)} if ensemble.members else {}
    return helper.make_node(
        "TreeEnsemble",
        ["features"],
        ["sum"],
        domain="ai.onnx.ml",
        n_targets=outputs,
        aggregate_function=1,  # sum
        post_transform=0,  # none
        tree_roots=ensemble.roots,
        nodes_modes=numpy_helper.from_array(np.array(ensemble.modes, np.uint8), "modes"),
        nodes_featureids=ensemble.features,
        nodes_splits=_tensor("splits", ensemble.splits),
        nodes_truenodeids=left,
        nodes_trueleafs=left_leaf,
        nodes_falsenodeids=right,
        nodes_falseleafs=right_leaf,
        nodes_missing_value_tracks_true=ensemble.missing_left,
        leaf_targetids=ensemble.targets,
        leaf_weights=_tensor("weights", ensemble.weights),
        **sets,
    )


def _tensor(name: str, values: list[float]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.float64), name)


def _link(plan: FeaturePlan, constants: dict[str, npt.NDArray[np.generic]]) -> list[onnx.NodeProto]:
    """Return the nodes that make scores of raw ones."""
    if plan.target.task == "multiclass":
        return [
            helper.make_node("Softmax", ["raw"], ["likely"], axis=1),
            helper.make_node("Cast", ["likely"], ["score"], to=TensorProto.FLOAT),
        ]
    constants["score_shape"] = np.array([-1])
    link = [helper.make_node("Sigmoid", ["raw"], ["likely"])] if plan.target.task == "binary" else []
    return [
        *link,
        helper.make_node("Cast", ["likely" if link else "raw"], ["score32"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["score32", "score_shape"], ["score"]),
    ]
