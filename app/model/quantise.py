"""How does a graph become smaller and faster? Its large weights in fewer bits, and its hidden layers' arithmetic too.

    int8_weights  weights stored as int8 with a scale for each column (an embedding: each row), made float32 again
                  when the graph is loaded: a quarter of the file, the arithmetic and the speed of float32
    int8_dynamic  hidden layers multiply integers; a row's activations are scaled by their own largest one
    int8_static   the same by scales from calibration rows, so that nothing is measured while scoring
    float16       hidden layers in half precision, for GPUs; ONNX Runtime's CPU provider computes it in float32

A row's score never depends on its neighbours in a batch, as replicas batch rows of different requests. So
`int8_dynamic` is written here: ONNX Runtime's `quantize_dynamic` takes one scale from the whole batch. Its
`quantize_static` has constant scales, and is used as it is.

Integer products are uint8 x int8, and weights have 7 bits. int8 x int8 has no fast kernel on most x86 processors,
and those without VNNI add two products in 16 bits: 2 x 255 x 64 is below 2^15, so no sum ever saturates, and
integers are the same on every machine. What comes before them is float32, whose last bit is the machine's own: it
can turn a rounding round, which moves one activation by one step, 1/255 of the largest one; a score moves by far
less than quantisation itself moved it. On one machine the same row gives the same score, whatever the batch.

Normalisation, periodic embeddings and the last layer stay float32: little is to be gained there, and numbers may
be large. bfloat16 is not offered: ONNX Runtime's CPU provider has no kernels for it.

Integer arithmetic as in Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018.
"""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from app.data.features import FeaturePlan
from app.model.admission import check_graph
from app.model.rewriting import Layer, Rewriting, Weights
from app.spec import Quantisation
from app.types import CategoryMatrix, Features, NumberMatrix, UserError

_FEWEST = 256  # weights; fewer are not worth their scales
_NARROWEST = 16  # inputs or outputs; of fewer, rounding costs more than integers save
_ROWS, _ROWS_AT_ONCE = 65_536, 1024  # of calibration


def quantise(onnx: bytes, plan: FeaturePlan, how: Quantisation, calibration: Features) -> bytes:
    """Return the graph with its weights, and by `how` its hidden layers, in fewer bits. Inputs and outputs stay.

    `calibration` are training rows; only `int8_static` looks at them, at no more than 65,536. Operators that are
    not known here, as a tree ensemble's, are left as they are.

    Raises UserError when nothing in the graph can be quantised so, or when `int8_static` has no calibration rows.
    """
    if how == "float16":
        smaller = _to_half(onnx)
    elif how == "int8_dynamic":
        smaller = _store(_to_dynamic(onnx))
    elif how == "int8_static":
        smaller = _store(_to_static(onnx, calibration))
    else:
        smaller = _store(onnx)
        if smaller == onnx:
            raise _nothing(how, f"layers or embeddings of at least {_FEWEST} weights")
    check_graph(smaller, plan, how)
    return smaller


def _nothing(how: Quantisation, allowed: str) -> UserError:
    return UserError(f"{how}: the graph has nothing to quantise; what can be are {allowed}, but for the last layer")


def _hidden(graph: Rewriting, how: Quantisation) -> dict[str, Layer]:
    """Return the layers whose arithmetic is worth changing, by their output. Raises UserError if there are none."""
    found = {layer.output: layer for layer in graph.layers() if min(layer.weights.shape) >= _NARROWEST}
    if not found:
        raise _nothing(how, f"layers of at least {_NARROWEST} inputs and outputs")
    return found


def _round(weights: Weights, axis: int, largest: int) -> tuple[npt.NDArray[np.int8], Weights]:
    """Return whole numbers q within +-largest, and scales, one along `axis`, such that weights are about q x scale."""
    scale = np.abs(weights).max(axis=axis, keepdims=True) / np.float32(largest)
    scale[scale == 0] = 1
    return np.round(weights / scale).astype(np.int8), scale


def _store(data: bytes) -> bytes:
    """Return the graph with the float32 weights of layers and embeddings stored as int8; the same if there are none."""
    graph = Rewriting(data)
    large = [layer for layer in graph.layers() if layer.weights.size >= _FEWEST]
    axes = {layer.name: int(layer.transposed) for layer in large}
    axes |= {name: 1 for name in sorted(graph.embeddings()) if graph.constants[name].size >= _FEWEST}
    if not axes:
        return data
    for name, axis in axes.items():
        whole, scale = _round(graph.constants[name].astype(np.float32), axis, 127)
        # Folded into one float32 constant on loading. DequantizeLinear would not be: ONNX Runtime takes it, too, as a
        # wish for integer products, and rounds the activations.
        flow = graph.add("Cast", [graph.constant(f"{name}.int8", whole)], f"{name}.float", to=TensorProto.FLOAT)
        graph.add("Mul", [flow, graph.constant(f"{name}.scale", scale)], name)
        del graph.constants[name]
    for node in graph.old:
        graph.keep(node)
    return graph.to_bytes()


def _to_dynamic(data: bytes) -> bytes:
    """Return the graph with hidden layers of integers, whose steps each row measures for itself."""
    graph = Rewriting(data)
    hidden = _hidden(graph, "int8_dynamic")
    for node in graph.old:
        if node.output[0] in hidden:
            _multiply_integers(graph, hidden[node.output[0]])
        else:
            graph.keep(node)
    return graph.to_bytes()


def _multiply_integers(graph: Rewriting, layer: Layer) -> None:
    """Add a layer that counts each row's activations in steps of that row's own, and multiplies the counts."""
    name, flow, inputs = layer.name, layer.flow, len(layer.weights)
    positive = graph.is_positive(flow)
    if layer.between:
        flow = graph.add("Reshape", [flow, graph.constant(f"{name}.rows", np.array([-1, inputs]))], f"{name}.flow")
    size = flow if positive else graph.add("Abs", [flow], f"{name}.size")
    top = graph.add("ReduceMax", [size, graph.constant("last_axis", np.array([-1]))], f"{name}.max", keepdims=1)
    top = graph.add("Max", [top, graph.constant("tiny", np.float32(1e-30))], f"{name}.top")  # zeros have a step, too
    step = graph.add(
        "Mul", [top, graph.constant(f"{name}.unit", np.float32(1 / (255 if positive else 127)))], f"{name}.length"
    )
    step = graph.add("Reshape", [step, graph.constant("flat", np.array([-1]))], f"{name}.step")
    if not positive:  # -top .. top is counted from 0 to 254
        flow = graph.add("Add", [flow, top], f"{name}.raised")
    flow = graph.add("QuantizeLinear", [flow, step], f"{name}.count", axis=0)
    counts, scale = _round(layer.weights, 0, 63)
    zero = [] if positive else [graph.constant(f"{name}.zero", np.uint8(127))]
    flow = graph.add("MatMulInteger", [flow, graph.constant(f"{name}.int8", counts), *zero], f"{name}.sum")
    flow = graph.add("DequantizeLinear", [flow, step], f"{name}.product", axis=0)
    flow = graph.add("Mul", [flow, graph.constant(f"{name}.scale", scale[0])], f"{name}.scaled")
    if layer.bias is not None:
        flow = graph.add("Add", [flow, graph.constant(f"{name}.bias", layer.bias)], f"{name}.moved")
    if layer.between:
        shape = np.array([-1, *layer.between, layer.weights.shape[1]])
        flow = graph.add("Reshape", [flow, graph.constant(f"{name}.shape", shape)], f"{name}.shaped")
    graph.rename(flow, layer.output)


def _to_static(data: bytes, calibration: Features) -> bytes:
    """Return the graph with hidden layers of integers, whose steps reach over the calibration rows' activations.

    Their extremes, not a percentile or the least entropy: of ours, those cut what a few rows' scores rest on.
    """
    if not len(calibration.number):
        raise UserError("int8_static: found no calibration rows, at least one is needed")
    graph = Rewriting(data)
    hidden = _hidden(graph, "int8_static")
    chosen = []
    for node in graph.old:
        node.name = node.output[0]
        if node.name in hidden or (node.op_type == "Relu" and node.input[0] in hidden):
            chosen.append(node.name)
    # Says that the model was prepared; without it the root logger gets a handler and a warning.
    helper.set_model_props(graph.model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "smaller.onnx")
        quantize_static(
            graph.model,
            path,
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Gemm", "MatMul", "Relu"],
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load_model(path)
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "evertrue", ""
    smaller: bytes = model.SerializeToString(deterministic=True)
    return smaller


class _Calibration:
    """Calibration rows in the form that ONNX Runtime reads them: batch by batch, then None."""

    def __init__(self, features: Features) -> None:
        thin = features.rows(slice(None, None, -(-len(features.number) // _ROWS)))
        starts = range(0, len(thin.number), _ROWS_AT_ONCE)
        self._batches = iter([thin.rows(slice(start, start + _ROWS_AT_ONCE)) for start in starts])

    def get_next(self) -> dict[str, NumberMatrix | CategoryMatrix] | None:
        batch = next(self._batches, None)
        return batch and batch._asdict()


def _to_half(data: bytes) -> bytes:
    """Return the graph with embeddings, hidden layers and what lies between them in float16."""
    graph = Rewriting(data)
    hidden, embeddings = _hidden(graph, "float16"), graph.embeddings()
    halves: set[str] = set()
    for node in graph.old:
        inputs: list[str] = list(node.input)
        if node.output[0] in hidden or _stays_half(graph, node, halves):
            inputs = [name if name in halves else _cast(graph, name, TensorProto.FLOAT16) for name in inputs]
            halves.update(node.output)
        elif inputs[0] in embeddings:
            inputs[0] = _cast(graph, inputs[0], TensorProto.FLOAT16)
            halves.update(node.output)
        else:
            inputs = [_cast(graph, name, TensorProto.FLOAT) if name in halves else name for name in inputs]
        graph.keep(node, inputs)
    return graph.to_bytes()


def _stays_half(graph: Rewriting, node: onnx.NodeProto, halves: set[str]) -> bool:
    """Does a node lie between layers in float16, so that there is nothing to be had from float32?"""
    flows = {name for name in node.input if name not in graph.constants}
    if node.op_type == "Concat":  # of an embedding and numbers: on its way into a layer
        return not halves.isdisjoint(flows)
    return node.op_type in ("Relu", "Add", "Mul", "Reshape") and flows <= halves


def _cast(graph: Rewriting, name: str, to: int) -> str:
    """Return the name of a tensor in another type of floats; other constants, as a shape, stay what they are."""
    value = graph.constants.get(name)
    if value is not None:
        half = value.dtype == np.float32
        return graph.constant(f"{name}.half", value.astype(np.float16)) if half else name
    output = f"{name}.{TensorProto.DataType.Name(to).lower()}"
    return output if graph.has(output) else graph.add("Cast", [name], output, to=to)
