"""How does a network become a file that runs anywhere? As an ONNX graph of standard operators, built here.

The graph is written node by node rather than traced: it is a dozen nodes for any number of features, the
constants are folded (frequency x 2 pi, temperature, the target's unit), and the row axis is free.

    number   float32 [n, N]  NaN for missing
    category int64   [n, C]
    score    float32 [n] or [n, K]  calibrated; a regression's in the target's own units
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tabm import LinearBatchEnsemble
from torch import Tensor, nn

from app.model.network import Network

OPSET = 20
IR_VERSION = 10  # the oldest that knows the opset, so that older runtimes read the file too


def to_onnx(network: Network) -> bytes:
    """Return the serialised graph of a network, its temperature included."""
    graph = _Graph()
    plan = network.plan
    parts = []
    if plan.number:
        parts += _numbers(graph, network)
    if plan.category:
        rows = graph.add("Add", ["category", graph.constant("offset", _array(network.offset))])
        found = graph.add("Gather", [graph.constant("embedding", _array(network.category.weight)), rows])
        width = len(plan.category) * network.category.embedding_dim
        parts.append(graph.add("Reshape", [found, graph.constant("category_shape", np.array([-1, width]))]))
    flow = graph.add("Concat", parts, axis=1) if len(parts) > 1 else parts[0]
    for i, layer in enumerate(network.layers[:-1]):
        if isinstance(layer, nn.Linear):
            flow = graph.add("Relu", [_linear(graph, f"hidden{i}", flow, layer.weight, layer.bias)])
        else:
            flow = graph.add("Relu", [_members(graph, f"hidden{i}", flow, layer, first=i == 0)])
    _head(graph, network, flow)
    shape = ["n", plan.target.outputs] if plan.target.task == "multiclass" else ["n"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "evertrue",
            [
                helper.make_tensor_value_info("number", TensorProto.FLOAT, ["n", len(plan.number)]),
                helper.make_tensor_value_info("category", TensorProto.INT64, ["n", len(plan.category)]),
            ],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="evertrue",
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _numbers(graph: "_Graph", network: Network) -> list[str]:
    """Add normalisation, missing-value indicators and periodic embeddings; return the parts' names."""
    missing = graph.add("IsNaN", ["number"])
    # The center goes first and alone: folded into the frequencies it would cancel digits of large numbers.
    flow = graph.add("Sub", ["number", graph.constant("center", _array(network.center))])
    flow = graph.add("Mul", [flow, graph.constant("scale", _array(network.scale))])
    flow = graph.add("Max", [flow, graph.constant("lower", _array(network.lower))])
    flow = graph.add("Min", [flow, graph.constant("upper", _array(network.upper))])
    standard = graph.add("Where", [missing, graph.constant("zero", np.float32(0)), flow])
    flags = graph.add("Cast", [missing], to=TensorProto.FLOAT)
    if network.number is None:
        return [standard, flags]

    linear = network.number.linear
    frequencies = 2 * math.pi * _array(network.number.periodic.weight)
    features, count = frequencies.shape
    # cos(v) = sin(v + pi/2): one sine gives both halves.
    phase = np.repeat(np.array([math.pi / 2, 0.0], np.float32), count)
    flow = graph.add("Unsqueeze", [standard, graph.constant("last_axis", np.array([2]))])
    flow = graph.add("Mul", [flow, graph.constant("frequency", np.tile(frequencies, 2))])
    flow = graph.add("Sin", [graph.add("Add", [flow, graph.constant("phase", phase)])])
    # One linear layer serves every number: rows x numbers become the rows of a single product.
    flow = graph.add("Reshape", [flow, graph.constant("wave_shape", np.array([-1, 2 * count]))])
    flow = graph.add("Relu", [_linear(graph, "number", flow, linear.weight, linear.bias)])
    width = features * linear.out_features
    flow = graph.add("Reshape", [flow, graph.constant("number_shape", np.array([-1, width]))])
    return [flow, standard, flags]


def _members(graph: "_Graph", name: str, flow: str, layer: LinearBatchEnsemble, first: bool) -> str:
    """Add a layer of members, who share one matrix: rows and members (n, k) become the rows of a single product."""
    if first:  # all see the same
        flow = graph.add("Unsqueeze", [flow, graph.constant("members", np.array([1]))])
    flow = graph.add("Mul", [flow, graph.constant(f"{name}.before", _array(layer.r))])
    flow = graph.add("MatMul", [flow, graph.constant(f"{name}.weight", _array(layer.weight).T)])
    flow = graph.add("Mul", [flow, graph.constant(f"{name}.after", _array(layer.s))])
    return graph.add("Add", [flow, graph.constant(f"{name}.bias", _array(layer.bias))])


def _head(graph: "_Graph", network: Network, flow: str) -> None:
    """Add the last layer and what makes a score of it; temperature or the target's unit go into the weights."""
    target, head = network.plan.target, network.head
    weight, bias = _array(head.weight).astype(np.float64), _array(head.bias).astype(np.float64)
    if not isinstance(head, nn.Linear):
        # Members (k, inputs, outputs), whose mean is one product over all their units.
        flow = graph.add("Reshape", [flow, graph.constant("units", np.array([-1, head.k * head.in_features]))])
        weight, bias = weight.reshape(-1, head.out_features).T / head.k, bias.mean(axis=0)
    if target.task == "regression":
        weight, bias = weight * target.std, bias * target.std + target.mean
    else:
        weight, bias = weight / network.temperature.item(), bias / network.temperature.item()
    flow = _linear(graph, "head", flow, weight.astype(np.float32), bias.astype(np.float32))
    if target.task == "multiclass":
        graph.add("Softmax", [flow], to_name="score", axis=1)
        return
    if target.task == "binary":
        flow = graph.add("Sigmoid", [flow])
    graph.add("Reshape", [flow, graph.constant("score_shape", np.array([-1]))], to_name="score")


def _linear(
    graph: "_Graph", name: str, flow: str, weight: Tensor | npt.NDArray[Any], bias: Tensor | npt.NDArray[Any]
) -> str:
    # Stored transposed, as the product wants it, so that no runtime has to turn it round.
    terms = [graph.constant(f"{name}.weight", _array(weight).T), graph.constant(f"{name}.bias", _array(bias))]
    return graph.add("Gemm", [flow, *terms])


def _array(values: Tensor | npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


class _Graph:
    """Nodes and constants in the making; an output's name is its operator's and a number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: list[str], to_name: str | None = None, **attributes: int) -> str:
        output = to_name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: npt.NDArray[Any] | np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name
