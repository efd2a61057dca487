"""May this graph be run? Only one that is data through and through, and that takes and gives what its plan says."""

from collections.abc import Iterator

import onnx

from app.data.features import FeaturePlan
from app.types import UserError

_STANDARD = ("", "ai.onnx")


def check_graph(data: bytes, plan: FeaturePlan, where: str) -> None:
    """Raise UserError, naming `where`, unless the graph can be trusted with rows of `plan`.

    Refused are: operators that are not ONNX's own, functions, weights in files beside the graph, and other
    inputs or outputs than ours.
    """
    try:
        onnx.checker.check_model(data)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise UserError(f"{where}: not a valid ONNX graph: {error}") from error
    model = onnx.load_model_from_string(data)
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in _nodes(model.graph)}
    if foreign := sorted(domains.difference(_STANDARD)):
        raise UserError(f"{where}: found operators of {', '.join(foreign)}; allowed are ONNX's own")
    if model.functions:
        raise UserError(f"{where}: found a function {model.functions[0].name!r}; allowed are plain operators")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UserError(f"{where}: {tensor.name!r} lies in a file of its own; weights must be in the graph")
    ours = _expected(plan)
    found = {value.name: _shape(value) for value in (*model.graph.input, *model.graph.output)}
    if found != ours:
        raise UserError(f"{where}: the graph takes and gives {found}, the feature plan wants {ours}")


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
