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
integers are the same on every machine. What comes before them is float32, whose last bit is the machine's own, and
may turn a rounding round: that moves one activation by one step, 1/255 of the largest one. On the flights a last
bit more in every number changed the scores of 1 % of the rows, none by more than 0.002; quantisation itself moves a
probability by 0.0006 in the mean, and by up to 0.009. On one machine the same row gives the same score, whatever
the batch.

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

_NARROWEST = 16  # inputs or outputs of a layer; where there are fewer, rounding costs more than integers save
_FEWEST = 256  # values of an embedding
_ROWS, _ROWS_AT_ONCE = 65_536, 1024  # of calibration


def quantise(onnx: bytes, plan: FeaturePlan, how: Quantisation, calibration: Features) -> bytes:
    """Return the graph with its weights, and by `how` its hidden layers, in fewer bits. Inputs and outputs stay.

    `calibration` are training rows; only `int8_static` looks at them, at no more than 65,536. Operators that are
    not known here, as a tree ensemble's, are left as they are.

    Raises UserError when nothing in the graph can be quantised so, or when `int8_static` has no calibration rows.
    """
    graph = Rewriting(onnx)
    layers = {layer.output: layer for layer in graph.layers() if min(layer.weights.shape) >= _NARROWEST}
    if not layers and not (how == "int8_weights" and _embeddings(graph)):
        raise UserError(
            f"{how}: the graph has nothing to quantise; there must be a layer of at least {_NARROWEST} inputs and "
            "outputs before the last one" + (", or an embedding" if how == "int8_weights" else "")
        )
    if how == "int8_static" and not len(calibration.number):
        raise UserError("int8_static: found no calibration rows, at least one is needed")
    if how == "float16":
        smaller = _to_half(graph, layers)
    elif how == "int8_dynamic":
        smaller = _store(Rewriting(_to_dynamic(graph, layers)), {})
    elif how == "int8_static":
        smaller = _store(Rewriting(_to_static(graph, layers, calibration)), {})
    else:
        smaller = _store(graph, layers)
    check_graph(smaller, plan, how)
    return smaller


def _embeddings(graph: Rewriting) -> list[str]:
    """Return the names of the embeddings that are worth their scales."""
    return sorted(name for name in graph.embeddings() if graph.constants[name].size >= _FEWEST)


def _round(weights: Weights, axis: int, largest: int) -> tuple[npt.NDArray[np.int8], Weights]:
    """Return whole numbers within +-`largest`, and what to multiply them by: one scale for all that lie along `axis`."""
    scale = np.abs(weights).max(axis=axis, keepdims=True) / np.float32(largest)
    scale[scale == 0] = 1
    return np.round(weights / scale).astype(np.int8), scale


def _store(graph: Rewriting, layers: dict[str, Layer]) -> bytes:
    """Return the graph with the weights of `layers` and the embeddings stored as int8."""
    axes = {layer.name: int(layer.transposed) for layer in layers.values()} | dict.fromkeys(_embeddings(graph), 1)
    for name, axis in axes.items():
        whole, scale = _round(graph.constants.pop(name), axis, 127)
        # Folded into one constant on loading. DequantizeLinear would not be: ONNX Runtime also takes it as leave to
        # round the activations.
        flow = graph.add("Cast", [graph.constant(f"{name}.int8", whole)], f"{name}.float", to=TensorProto.FLOAT)
        graph.add("Mul", [flow, graph.constant(f"{name}.scale", scale)], name)
    for node in graph.old:
        graph.keep(node)
    return graph.to_bytes()


def _to_dynamic(graph: Rewriting, layers: dict[str, Layer]) -> bytes:
    """Return the graph with layers of integers, whose steps each row measures for itself."""
    for node in graph.old:
        if node.output[0] in layers:
            _multiply_integers(graph, layers[node.output[0]])
        else:
            graph.keep(node)
    return graph.to_bytes()


def _multiply_integers(graph: Rewriting, layer: Layer) -> None:
    """Add a layer that counts each row's activations in steps of that row's own, and multiplies the counts."""

    def named(name: str) -> str:
        return f"{layer.name}.{name}"

    def constant(name: str, value: npt.ArrayLike) -> str:
        return graph.constant(named(name), value)

    flow, (inputs, outputs), positive = layer.flow, layer.weights.shape, graph.is_positive(layer.flow)
    if layer.between:
        flow = graph.add("Reshape", [flow, constant("rows", np.array([-1, inputs]))], named("flow"))
    size = flow if positive else graph.add("Abs", [flow], named("size"))
    top = graph.add("ReduceMax", [size, constant("last_axis", np.array([-1]))], named("top"), keepdims=1)
    # A row of zeros has steps of zero: whatever is counted, so many times zero is what comes out.
    step = graph.add("Mul", [top, constant("unit", np.float32(1 / (255 if positive else 127)))], named("length"))
    step = graph.add("Reshape", [step, constant("flat", np.array([-1]))], named("step"))
    if not positive:  # -top .. top is counted from 0 to 254
        flow = graph.add("Add", [flow, top], named("raised"))
    counts = [graph.add("QuantizeLinear", [flow, step], named("count"), axis=0)]
    weights, scale = _round(layer.weights, 0, 63)
    counts += (
        [constant("int8", weights)] if positive else [constant("int8", weights), constant("zero", np.uint8(127))]
    )
    flow = graph.add("MatMulInteger", counts, named("sum"))
    flow = graph.add("DequantizeLinear", [flow, step], named("product"), axis=0)
    flow = graph.add("Mul", [flow, constant("scale", scale[0])], named("scaled"))
    if layer.bias is not None:
        flow = graph.add("Add", [flow, constant("bias", layer.bias)], named("biased"))
    if layer.between:
        flow = graph.add(
            "Reshape", [flow, constant("shape", np.array([-1, *layer.between, outputs]))], named("shaped")
        )
    graph.rename(flow, layer.output)


def _to_static(graph: Rewriting, layers: dict[str, Layer], calibration: Features) -> bytes:
    """Return the graph with layers of integers, whose steps reach over the calibration rows' activations.

    To their extremes: a percentile, or the least entropy, cuts what the scores of a few rows rest on.
    """
    chosen = []
    for node in graph.old:
        node.name = node.output[0]
        if node.name in layers or (node.op_type == "Relu" and node.input[0] in layers):
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


def _to_half(graph: Rewriting, layers: dict[str, Layer]) -> bytes:
    """Return the graph with layers, embeddings and what lies between them in float16."""
    embeddings = graph.embeddings()
    halves: set[str] = set()
    for node in graph.old:
        inputs: list[str] = list(node.input)
        if node.output[0] in layers or _stays_half(graph, node, halves):
            inputs = [name if name in halves else _cast(graph, name, TensorProto.FLOAT16) for name in inputs]
            halves.update(node.output)
        elif embeddings.intersection(inputs[:1]):
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
    return node.op_type in ("Relu", "Add", "Mul", "Reshape") and bool(flows) and flows <= halves


def _cast(graph: Rewriting, name: str, to: int) -> str:
    """Return the name of a tensor in another type of floats; other constants, as a shape, stay what they are."""
    value = graph.constants.get(name)
    if value is not None:
        if value.dtype != np.float32:
            return name
        half = f"{name}.half"
        return half if half in graph.constants else graph.constant(half, value.astype(np.float16))
    output = f"{name}.{TensorProto.DataType.Name(to).lower()}"
    return output if graph.has(output) else graph.add("Cast", [name], output, to=to)
