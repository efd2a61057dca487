"""How is a finished graph changed? Node by node in its own order: each is kept, or others take its place."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Weights: TypeAlias = npt.NDArray[np.float32]
Constant: TypeAlias = npt.NDArray[Any]

_PRODUCTS = ("Gemm", "MatMul", "Einsum")


@dataclass(frozen=True)
class Layer:
    """A product with constant weights: `output = flow @ weights (K, N) + bias (N,)`, over the last axis of `flow`."""

    node: onnx.NodeProto
    weights: Weights
    bias: Weights | None
    transposed: bool  # as the constant is stored
    between: tuple[int, ...]  # sizes of the axes of `flow` between rows and inputs

    @property
    def name(self) -> str:
        """Name of the weights."""
        return str(self.node.input[1])

    @property
    def flow(self) -> str:
        """Name of the tensor that is multiplied."""
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        """Name of the result."""
        return str(self.node.output[0])


class Rewriting:
    """A graph in the making: the old one to read, and the new one's nodes and constants."""

    def __init__(self, onnx_: bytes) -> None:
        self.model: onnx.ModelProto = onnx.load_model_from_string(onnx_)
        self.old: list[onnx.NodeProto] = list(self.model.graph.node)
        self._makers: dict[str, onnx.NodeProto] = {name: node for node in self.old for name in node.output}
        self.constants: dict[str, Constant] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer
        }
        self._new: list[onnx.NodeProto] = []

    def layers(self) -> list[Layer]:
        """Return the products with a constant matrix, but none after which only the score follows."""
        found = (self._layer(node) for node in self.old if not self._followed.isdisjoint(node.output))
        return [layer for layer in found if layer]

    def embeddings(self) -> set[str]:
        """Return the names of the float32 matrices whose rows are looked up on the way to a product."""
        found = {node.input[0] for node in self.old if node.op_type == "Gather" and node.output[0] in self._followed}
        return {name for name in found if self._is_matrix(name)}

    def is_positive(self, name: str) -> bool:
        """Can no value of this tensor be below zero?"""
        return name in self._makers and self._makers[name].op_type == "Relu"

    @cached_property
    def _followed(self) -> set[str]:
        """Names of all tensors that some product depends on."""
        found: set[str] = set()
        for node in reversed(self.old):
            if node.op_type in _PRODUCTS or not found.isdisjoint(node.output):
                found.update(node.input)
        return found

    @cached_property
    def _between(self) -> dict[str, tuple[int, ...]]:
        """Sizes of the axes between the first and the last, where they are fixed, by tensor."""
        inferred = onnx.shape_inference.infer_shapes(self.model, strict_mode=True).graph.value_info
        shapes = {value.name: value.type.tensor_type.shape.dim[1:-1] for value in inferred}
        fixed = {name: all(axis.HasField("dim_value") for axis in shape) for name, shape in shapes.items()}
        return {name: tuple(axis.dim_value for axis in shape) for name, shape in shapes.items() if fixed[name]}

    def _is_matrix(self, name: str) -> bool:
        value = self.constants.get(name)
        return value is not None and value.ndim == 2 and value.dtype == np.float32

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        if node.op_type not in ("Gemm", "MatMul") or not self._is_matrix(node.input[1]):
            return None
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        transposed = bool(attributes.pop("transB", 0))
        if any(value != (0 if name == "transA" else 1) for name, value in attributes.items()):
            return None
        weights, bias = self.constants[node.input[1]], None
        if len(node.input) > 2:
            bias = self.constants.get(node.input[2])
            if bias is None or bias.ndim != 1:
                return None
        between = () if node.op_type == "Gemm" else self._between.get(node.input[0])
        if between is None:
            return None
        return Layer(node, weights.T if transposed else weights, bias, transposed, between)

    def keep(self, node: onnx.NodeProto, inputs: list[str] | None = None) -> None:
        """Take over a node as it is, or with other inputs."""
        if inputs is not None:
            node.input[:] = inputs
        self._new.append(node)

    def add(self, operator: str, inputs: list[str], output: str, **attributes: int) -> str:
        """Add a node of one output; return the output's name."""
        self._new.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Add a constant; return its name."""
        assert name not in self.constants
        self.constants[name] = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        return name

    def has(self, name: str) -> bool:
        """Does a new node give this tensor?"""
        return any(name in node.output for node in self._new)

    def rename(self, name: str, to: str) -> None:
        """Give the output of the newest node, `name`, the name that others know it by."""
        assert list(self._new[-1].output) == [name]
        self._new[-1].output[:] = [to]

    def to_bytes(self) -> bytes:
        """Return the new graph: the old one's inputs and outputs, and the constants that its nodes still take."""
        graph = self.model.graph
        used = {name for node in self._new for name in node.input}
        for entries in (graph.node, graph.initializer, graph.value_info):
            del entries[:]
        graph.node.extend(self._new)
        graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self.constants.items() if name in used
        )
        onnx.checker.check_model(self.model, full_check=True)
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data
