"""How do boosted trees become a file that runs anywhere? LightGBM's text, read here, as one ONNX tree ensemble.

    number   float32 [n, N] -+-> float64 [n, N + C] -> TreeEnsemble -> + shift -> sigmoid, softmax or nothing -> score
    category int64   [n, C] -+

Thresholds stay float64, as LightGBM compares; a missing number goes the way that LightGBM has learned for it; a split of
a category's ids into two sets is the operator's own (BRANCH_MEMBER, ai.onnx.ml 5).

A row's score is the same among any others, to the last bit. A runtime adds the trees in an order that depends on
the rows and threads at hand, so leaves lie on a grid on which every sum is exact, whatever the order; it is finer than
float64 resolves the largest sum. The link is computed in float32, where ONNX Runtime takes each value alike: its
float64 exponentials differ in the last bits with the place in the batch. Both move a score by parts in ten million.
"""

import math
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
    largest: float = 0.0  # what the trees add up to at most, either way


_STUMP = {  # a tree that says nothing, for models without any split: the operator wants one
    "split_feature": "0",
    "threshold": "0",
    "decision_type": "0",
    "left_child": "-1",
    "right_child": "-2",
    "leaf_value": "0 0",
}


def to_onnx(text: str, plan: FeaturePlan, shift: npt.NDArray[np.float64] | None = None) -> bytes:
    """Return the serialised graph of a model that `app.training.baseline` has LightGBM write as text.

    `shift` (outputs,) is added to the raw scores before they become probabilities.
    """
    outputs, task = plan.target.outputs, plan.target.task
    head, trees = _read(text)
    assert int(head["num_tree_per_iteration"]) == outputs
    scale = _sigmoid(head["objective"]) if task == "binary" else 1.0
    ensemble, constant = _Ensemble(), np.zeros(outputs)
    for number, tree in enumerate(trees):
        if int(tree["num_leaves"]) == 1:  # the operator knows no tree without a split
            constant[number % outputs] += float(tree["leaf_value"])
        else:
            _append(ensemble, tree, number % outputs)
    if not ensemble.roots:
        _append(ensemble, _STUMP, 0)
    constant = constant * scale + (0.0 if shift is None else shift)
    if task == "binary":  # 1 / (1 + exp(-raw)), and the minus is in the numbers
        scale, constant = -scale, -constant
    constants: dict[str, npt.NDArray[np.generic]] = {"constant": constant}
    nodes = [
        helper.make_node("Cast", ["number"], ["number64"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["category"], ["category64"], to=TensorProto.DOUBLE),
        helper.make_node("Concat", ["number64", "category64"], ["features"], axis=1),
        _node(ensemble, outputs, scale),
        helper.make_node("Add", ["sum", "constant"], ["raw64"]),
        helper.make_node("Cast", ["raw64"], ["raw"], to=TensorProto.FLOAT),
        *_link(plan, constants),
    ]
    shape = ["n", outputs] if task == "multiclass" else ["n"]
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


def _read(text: str) -> tuple[dict[str, str], Iterator[dict[str, str]]]:
    """Return the model's lines and each tree's, as key and value."""
    head, *blocks = text.partition("end of trees")[0].split("\nTree=")
    return _lines(head), map(_lines, blocks)


def _lines(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _sigmoid(objective: str) -> float:
    """Return by what raw scores are multiplied before they become probabilities, such as 1 of "binary sigmoid:1"."""
    return float(dict(part.split(":") for part in objective.split() if ":" in part)["sigmoid"])


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
        missing = _MISSING_IS[decision >> 2 & 3]  # the third, zeros that count as missing, is never asked for
        ensemble.modes.append(_LESS_OR_EQUAL)
        ensemble.splits.append(threshold)
        ensemble.missing_left.append(int(threshold >= 0 if missing == "zero" else bool(decision & _DEFAULT_LEFT)))
    for side, key in ((ensemble.left, "left_child"), (ensemble.right, "right_child")):
        for child in map(int, tree[key].split()):  # a leaf is written as -1 - its number
            side.append((first_node + child, 0) if child >= 0 else (first_leaf - 1 - child, 1))
    leaves = list(map(float, tree["leaf_value"].split()))
    ensemble.largest += max(map(abs, leaves))
    ensemble.weights += leaves
    ensemble.targets += [target] * len(leaves)


def _members(tree: dict[str, str], number: int) -> list[float]:
    """Return the ids that go left: a bit each, in words of 32."""
    bounds, words = (list(map(int, tree[key].split())) for key in ("cat_boundaries", "cat_threshold"))
    own = words[bounds[number] : bounds[number + 1]]
    return [float(32 * i + bit) for i, word in enumerate(own) for bit in range(32) if word >> bit & 1]


def _on_grid(weights: npt.NDArray[np.float64], largest: float) -> npt.NDArray[np.float64]:
    """Return the leaves as multiples of a power of two so large that float64 holds every sum of theirs exactly."""
    _, exponent = math.frexp(largest)
    return np.asarray(np.ldexp(np.rint(np.ldexp(weights, 52 - exponent)), exponent - 52))


def _node(ensemble: _Ensemble, outputs: int, scale: float) -> onnx.NodeProto:
    def indices(side: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
        return [index for index, _ in side], [leaf for _, leaf in side]

    left, left_leaf = indices(ensemble.left)
    right, right_leaf = indices(ensemble.right)
    sets = {"membership_values": _tensor("members", ensemble.members)} if ensemble.members else {}
    leaves = _on_grid(np.array(ensemble.weights) * scale, ensemble.largest * abs(scale))
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
        leaf_weights=_tensor("weights", leaves),
        **sets,
    )


def _tensor(name: str, values: npt.ArrayLike) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float64), name)


def _link(plan: FeaturePlan, constants: dict[str, npt.NDArray[np.generic]]) -> list[onnx.NodeProto]:
    """Return the nodes that make scores of raw ones; a binary target's raw score has the other sign."""
    if plan.target.task == "multiclass":
        return [helper.make_node("Softmax", ["raw"], ["score"], axis=1)]
    constants["score_shape"] = np.array([-1])
    if plan.target.task == "regression":
        return [helper.make_node("Reshape", ["raw", "score_shape"], ["score"])]
    constants["one"] = np.array(1, np.float32)
    return [  # ONNX Runtime's Sigmoid is off by 1e-7 whatever the score, which is much where the score is small
        helper.make_node("Exp", ["raw"], ["odds_against"]),
        helper.make_node("Add", ["odds_against", "one"], ["one_in"]),
        helper.make_node("Div", ["one", "one_in"], ["likely"]),
        helper.make_node("Reshape", ["likely", "score_shape"], ["score"]),
    ]
