"""May this graph be run? Only one that is data through and through, and that takes and gives what its plan says."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from app.data.features import FeaturePlan
from app.types import UserError

MAX_DEPTH = 512
"""Splits from a tree's root to a leaf at most: ONNX Runtime loads trees by recursion, whose stack has an end."""

_STANDARD = ("", "ai.onnx")
_ENSEMBLE = ("ai.onnx.ml", "TreeEnsemble")
_MEMBER = 6  # the last mode of a node
_OF_NODES = {
    "nodes_modes",
    "nodes_featureids",
    "nodes_splits",
    "nodes_truenodeids",
    "nodes_trueleafs",
    "nodes_falsenodeids",
    "nodes_falseleafs",
    "nodes_missing_value_tracks_true",
}
_OF_LEAVES = {"leaf_targetids", "leaf_weights"}
_OF_ALL = {"tree_roots", "membership_values", "n_targets", "aggregate_function", "post_transform"}
_SUM, _NO_TRANSFORM = 1, 0

_Values: TypeAlias = npt.NDArray[np.float64]


def check_graph(data: bytes, plan: FeaturePlan, where: str) -> None:
    """Raise UserError, naming `where`, unless the graph can be trusted with rows of `plan`.

    Refused are: operators that are not ONNX's own, of its traditional ones all but tree ensembles, and these unless
    every index is in its place; functions, weights in files beside the graph, and other inputs or outputs than ours.
    """
    try:
        onnx.checker.check_model(data)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise UserError(f"{where}: not a valid ONNX graph: {error}") from error
    model = onnx.load_model_from_string(data)
    for tensor in _tensors(model.graph):  # first, since to read such a tensor is to open the file
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UserError(f"{where}: {tensor.name!r} lies in a file of its own; weights must be in the graph")
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in _nodes(model.graph)}
    if foreign := sorted(domains.difference(_STANDARD, _ENSEMBLE[:1])):
        raise UserError(f"{where}: found operators of {', '.join(foreign)}; allowed are ONNX's own")
    for node in _nodes(model.graph):
        if (node.domain, node.op_type) == _ENSEMBLE:
            _check_ensemble(node, plan, where)
        elif node.domain not in _STANDARD:
            raise UserError(f"{where}: found the operator {node.op_type}; of {node.domain}, allowed is TreeEnsemble")
    if model.functions:
        raise UserError(f"{where}: found a function {model.functions[0].name!r}; allowed are plain operators")
    ours = _expected(plan)
    found = {value.name: _shape(value) for value in (*model.graph.input, *model.graph.output)}
    if found != ours:
        raise UserError(f"{where}: the graph takes and gives {found}, the feature plan wants {ours}")


def _check_ensemble(node: onnx.NodeProto, plan: FeaturePlan, where: str) -> None:
    """Raise UserError unless this is a sum of trees, whole and not too deep: a runtime follows every index unasked."""
    found = {entry.name: _values(entry) for entry in node.attribute}
    if foreign := sorted(found.keys() - _OF_NODES - _OF_LEAVES - _OF_ALL):
        raise UserError(f"{where}: the tree ensemble has {', '.join(foreign)}, which none of ours has")
    empty = np.empty(0)
    sizes = [{len(found.get(name, empty)) for name in names} for names in (_OF_NODES, _OF_LEAVES)]
    kinds = [found.get(name, empty).tolist() for name in ("n_targets", "aggregate_function", "post_transform")]
    sound = (
        all(len(size) == 1 for size in sizes)
        and kinds == [[plan.target.outputs], [_SUM], [_NO_TRANSFORM]]
        and _within(found["nodes_modes"], _MEMBER + 1)
        and _within(found["nodes_featureids"], len(plan.names))
        and _within(found["leaf_targetids"], plan.target.outputs)
        and bool(np.isfinite(found["leaf_weights"]).all())
        and not np.isnan(found["nodes_splits"]).any()
        and _sets_are_whole(found.get("membership_values", empty), int((found["nodes_modes"] == _MEMBER).sum()))
        and _are_trees(found)
    )
    if not sound:
        raise UserError(f"{where}: the tree ensemble {node.name!r} has nodes or leaves that do not fit together")


def _values(attribute: onnx.AttributeProto) -> _Values:
    value = onnx.helper.get_attribute_value(attribute)
    array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)
    if array.dtype.kind not in "iuf" or array.ndim > 1:
        return np.empty(0)  # of no tree
    return np.atleast_1d(array.astype(np.float64))


def _within(values: _Values, limit: int) -> bool:
    return bool(((values >= 0) & (values < limit)).all())


def _sets_are_whole(members: _Values, sets: int) -> bool:
    """Tell whether there are so many sets, none of them empty; a NaN ends each."""
    ends = np.flatnonzero(np.isnan(members))
    between = np.diff(ends, prepend=-1)
    return len(ends) == sets and bool((between > 1).all()) and (len(members) == 0 or bool(np.isnan(members[-1])))


def _are_trees(found: dict[str, _Values]) -> bool:
    """Tell whether one way, and a short one, leads from the roots to each node and leaf."""
    nodes, leaves = len(found["nodes_modes"]), len(found["leaf_weights"])
    children = np.stack([found["nodes_truenodeids"], found["nodes_falsenodeids"]])
    ends = np.stack([found["nodes_trueleafs"], found["nodes_falseleafs"]]) != 0
    roots = found.get("tree_roots", np.empty(0))
    reached = np.concatenate([roots, children[~ends]])
    for indices, count in ((reached, nodes), (children[ends], leaves)):
        if not np.array_equal(np.sort(indices), np.arange(count)):
            return False
    level, seen = roots.astype(np.int64), 0
    for _ in range(MAX_DEPTH):
        seen += len(level)
        level = children[:, level][~ends[:, level]].astype(np.int64)
    return seen == nodes > 0


def _expected(plan: FeaturePlan) -> dict[str, str]:
    score = f"float[n, {plan.target.outputs}]" if plan.target.task == "multiclass" else "float[n]"
    return {
        "number": f"float[n, {len(plan.number)}]",
        "category": f"int64[n, {len(plan.category)}]",
        "score": score,
    }


def _shape(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    sizes = ", ".join(dimension.dim_param or str(dimension.dim_value) for dimension in tensor.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()}[{sizes}]"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
        for inner in _subgraphs(node):
            yield from _tensors(inner)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
