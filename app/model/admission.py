"""May this graph be run? Only one that is data through and through, and that takes and gives what its plan says."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from app.data.features import FeaturePlan
from app.types import UserError

_STANDARD = ("", "ai.onnx")
_ENSEMBLE = ("ai.onnx.ml", "TreeEnsemble")
_MEMBER = 6  # the last mode of a node
_OF_NODES = (
    "nodes_featureids",
    "nodes_splits",
    "nodes_truenodeids",
    "nodes_trueleafs",
    "nodes_falsenodeids",
    "nodes_falseleafs",
    "nodes_missing_value_tracks_true",
)


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
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UserError(f"{where}: {tensor.name!r} lies in a file of its own; weights must be in the graph")
    ours = _expected(plan)
    found = {value.name: _shape(value) for value in (*model.graph.input, *model.graph.output)}
    if found != ours:
        raise UserError(f"{where}: the graph takes and gives {found}, the feature plan wants {ours}")


def _check_ensemble(node: onnx.NodeProto, plan: FeaturePlan, where: str) -> None:
    """Raise UserError where an index leads out of the trees, or in a circle: a runtime follows them unasked."""
    found = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}

    def values(name: str) -> npt.NDArray[np.generic]:
        value = found.get(name, [])
        return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)

    modes, features, targets = values("nodes_modes"), values("nodes_featureids"), values("leaf_targetids")
    nodes, leaves = len(modes), len(targets)
    members = values("membership_values").astype(np.float64)
    lengths = [len(values(name)) for name in _OF_NODES] + [len(values("leaf_weights")) - leaves + nodes]
    sound = (
        nodes > 0
        and set(lengths) == {nodes}
        and bool(np.isin(modes, range(_MEMBER + 1)).all())
        and int(np.isnan(members).sum()) == int((modes == _MEMBER).sum())
        and _within(values("tree_roots"), 0, nodes)
        and _within(features, 0, len(plan.names))
        and _within(targets, 0, plan.target.outputs)
        and found.get("n_targets") == plan.target.outputs
    )
    for side in ("true", "false"):
        if sound:
            child, leaf = values(f"nodes_{side}nodeids"), values(f"nodes_{side}leafs").astype(bool)
            later = child[~leaf] > np.arange(nodes)[~leaf]  # so no node is its own ancestor
            sound = _within(child[leaf], 0, leaves) and _within(child[~leaf], 0, nodes) and bool(later.all())
    if not sound:
        raise UserError(f"{where}: the tree ensemble {node.name!r} has nodes or leaves that do not fit together")


def _within(values: npt.NDArray[np.generic], low: int, high: int) -> bool:
    whole = values.astype(np.int64)
    return bool(((whole >= low) & (whole < high)).all())


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
