"""A quantised graph scores nearly as before, and each row by itself, whatever the batch."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from app import spec
from app.data.features import FeaturePlan
from app.model.admission import check_graph
from app.model.export import to_onnx
from app.model.network import Network
from app.model.quantise import quantise
from app.model.runtime import Runtime
from app.spec import Quantisation
from app.types import MISSING_ID, UNSEEN_ID, Features, UserError

ARITHMETICS: tuple[Quantisation, ...] = get_args(Quantisation)
INTEGERS: tuple[Quantisation, ...] = ("int8_dynamic", "int8_static")
TASKS = ("binary", "multiclass", "regression")


@pytest.fixture(scope="module")
def large(make_plan) -> tuple[FeaturePlan, bytes]:
    plan = make_plan(numbers=20, categories=6)
    torch.manual_seed(0)
    return plan, to_onnx(Network(plan, spec.Model(width=256, depth=3)).eval())


def _operators(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


def _constants(data: bytes) -> dict[str, np.ndarray]:
    return {entry.name: numpy_helper.to_array(entry) for entry in onnx.load_model_from_string(data).graph.initializer}


def _alone(runtime: Runtime, features: Features) -> np.ndarray:
    return np.concatenate([runtime.score(features.rows(slice(i, i + 1))) for i in range(len(features.number))])


@pytest.mark.parametrize("how", ARITHMETICS)
@pytest.mark.parametrize(("numbers", "categories"), [(3, 2), (0, 6), (6, 0)])
@pytest.mark.parametrize("task", TASKS)
def test_scores_stay_near_and_in_shape(
    make_plan, make_features, make_network, task, numbers, categories, how
) -> None:
    plan = make_plan(task, numbers, categories)
    graph, features = to_onnx(make_network(plan)), make_features(plan, 1000)
    smaller = quantise(graph, plan, how, features.rows(slice(0, 500)))
    expected, found = Runtime(graph, plan).score(features), Runtime(smaller, plan).score(features)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    off = np.abs(found - expected) / (plan.target.std if task == "regression" else 1.0)
    assert 0 < off.max() < (0.001 if how == "float16" else 0.02)
    if task == "multiclass":
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("how", ARITHMETICS)
@pytest.mark.parametrize("task", TASKS)
def test_a_row_does_not_see_its_neighbours(make_plan, make_features, make_network, task, how) -> None:
    plan = make_plan(task)
    features = make_features(plan, 1000)
    features.number[500:] *= 50.0
    runtime = Runtime(quantise(to_onnx(make_network(plan)), plan, how, features), plan)
    alone = _alone(runtime, features)
    for size in (2, 256, 1000):
        parts = [runtime.score(features.rows(slice(start, start + size))) for start in range(0, 1000, size)]
        np.testing.assert_array_equal(np.concatenate(parts), alone)


def test_a_row_of_a_large_network_does_not_see_its_neighbours(large, make_features) -> None:
    plan, graph = large
    features = make_features(plan, 300)
    for how in ARITHMETICS:
        runtime = Runtime(quantise(graph, plan, how, features), plan)
        np.testing.assert_array_equal(runtime.score(features), _alone(runtime, features))


def test_onnx_runtimes_own_dynamic_graph_does_see_them(large, make_features, tmp_path) -> None:
    plan, graph = large
    quantize_dynamic(onnx.load_model_from_string(graph), tmp_path / "theirs.onnx", per_channel=True)
    runtime, features = Runtime((tmp_path / "theirs.onnx").read_bytes(), plan), make_features(plan, 256)
    assert (runtime.score(features) != _alone(runtime, features)).mean() > 0.9


@pytest.mark.parametrize("how", ARITHMETICS)
def test_the_graph_is_admitted_and_the_same_each_time(large, make_features, how) -> None:
    plan, graph = large
    smaller = quantise(graph, plan, how, make_features(plan, 100))
    check_graph(smaller, plan, "here")
    assert quantise(graph, plan, how, make_features(plan, 100)) == smaller


@pytest.mark.parametrize("how", ARITHMETICS)
def test_the_file_shrinks(large, make_features, how) -> None:
    plan, graph = large
    smaller = quantise(graph, plan, how, make_features(plan, 100))
    assert len(smaller) < (0.55 if how == "float16" else 0.3) * len(graph)


@pytest.mark.parametrize("how", ARITHMETICS)
def test_rows_without_anything_known_and_no_rows_are_scored(large, make_features, how) -> None:
    plan, graph = large
    runtime = Runtime(quantise(graph, plan, how, make_features(plan, 100)), plan)
    ids = np.array([[MISSING_ID], [UNSEEN_ID]], np.int64).repeat(len(plan.category), axis=1)
    features = Features(np.full((2, len(plan.number)), np.nan, np.float32), ids)
    np.testing.assert_allclose(runtime.score(features), Runtime(graph, plan).score(features), atol=0.02)
    assert runtime.score(features.rows(slice(0, 0))).shape == (0,)


@pytest.mark.parametrize("how", ARITHMETICS)
def test_numbers_far_beyond_calibration_are_scored_nearly_as_before(large, make_features, how) -> None:
    plan, graph = large
    features = make_features(plan, 200)
    runtime = Runtime(quantise(graph, plan, how, features), plan)
    features.number[:] = np.float32(1e30) * np.sign(features.number)
    np.testing.assert_allclose(runtime.score(features), Runtime(graph, plan).score(features), atol=0.05)


def test_large_numbers_keep_their_digits_in_float16(make_plan, make_network) -> None:
    plan = make_plan(numbers=2, categories=1)
    seconds = 1.6e9 + np.linspace(0.0, 1e6, 257)
    column = replace(plan.number[0], mean=seconds.mean(), std=seconds.std(), quantiles=tuple(seconds.tolist()))
    plan = replace(plan, number=(column, column))
    graph = to_onnx(make_network(plan))
    features = Features(seconds.astype(np.float32)[:, None].repeat(2, axis=1), np.zeros((257, 1), np.int64))
    found = Runtime(quantise(graph, plan, "float16", features), plan).score(features)
    np.testing.assert_allclose(found, Runtime(graph, plan).score(features), atol=1e-3)
    assert found.std() > 1e-3


def _loaded(data: bytes, folder: Path) -> bytes:
    """Return the graph that ONNX Runtime makes of another on loading it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(data, options)
    return (folder / "loaded.onnx").read_bytes()


def test_stored_weights_are_float32_again_once_loaded(large, make_features, tmp_path) -> None:
    plan, graph = large
    before = _loaded(graph, tmp_path)
    after = _loaded(quantise(graph, plan, "int8_weights", make_features(plan, 1)), tmp_path)
    assert sorted(_operators(after)) == sorted(_operators(before))
    assert all(value.dtype != np.int8 for value in _constants(after).values())


def test_static_layers_hand_integers_to_one_another(large, make_features, tmp_path) -> None:
    plan, graph = large
    smaller = quantise(graph, plan, "int8_static", make_features(plan, 100))
    assert _constants(smaller)["hidden1.weight_scale"].shape == (256,)
    loaded = _operators(_loaded(smaller, tmp_path))
    assert loaded.count("QGemm") == 3
    assert loaded.count("QuantizeLinear") == loaded.count("DequantizeLinear") == 1


@pytest.mark.parametrize("how", INTEGERS)
def test_no_integer_product_can_saturate(large, make_features, how) -> None:
    """A processor without VNNI adds two products of uint8 and int8 in 16 bits."""
    plan, graph = large
    smaller = quantise(graph, plan, how, make_features(plan, 100))
    hidden = [value for name, value in _constants(smaller).items() if name.startswith("hidden") and value.ndim == 2]
    assert len(hidden) == 3
    assert all(value.dtype == np.int8 and 2 * 255 * np.abs(value.astype(int)).max() < 2**15 for value in hidden)
    products = {"int8_dynamic": "MatMulInteger", "int8_static": "QuantizeLinear"}
    assert _operators(smaller).count(products[how]) >= 3


def test_calibration_rows_decide_the_static_steps_alone(large, make_features) -> None:
    plan, graph = large
    one, all_ = make_features(plan, 1), make_features(plan, 100)
    assert quantise(graph, plan, "int8_static", one) != quantise(graph, plan, "int8_static", all_)
    for how in set(ARITHMETICS) - {"int8_static"}:
        assert quantise(graph, plan, how, one) == quantise(graph, plan, how, all_)
    with pytest.raises(UserError, match="int8_static: found no calibration rows"):
        quantise(graph, plan, "int8_static", one.rows(slice(0, 0)))


def test_quantising_leaves_the_logging_of_the_process_alone(large, make_features, caplog, capfd) -> None:
    plan, graph = large
    quantise(graph, plan, "int8_static", make_features(plan, 10))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def _graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], plan: FeaturePlan) -> bytes:
    """Return a graph of numbers alone."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "hand-made",
            [
                helper.make_tensor_value_info("number", TensorProto.FLOAT, ["n", len(plan.number)]),
                helper.make_tensor_value_info("category", TensorProto.INT64, ["n", len(plan.category)]),
            ],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("how", ARITHMETICS)
def test_a_graph_without_hidden_layers_or_embeddings_is_refused(make_plan, make_features, how) -> None:
    plan = make_plan(numbers=600, categories=0)
    constants = {"w": np.ones((600, 1), np.float32), "b": np.zeros(1, np.float32), "flat": np.array([-1])}
    nodes = [
        helper.make_node("Gemm", ["number", "w", "b"], ["y"]),
        helper.make_node("Reshape", ["y", "flat"], ["score"]),
    ]
    with pytest.raises(UserError, match=f"{how}: the graph has nothing to quantise"):
        quantise(_graph(nodes, constants, plan), plan, how, make_features(plan, 10))


@pytest.mark.parametrize("how", ARITHMETICS)
def test_an_ensemble_within_a_network_and_operators_not_known_here_are_kept(make_plan, how) -> None:
    plan = make_plan("regression", numbers=32, categories=0)
    random = np.random.default_rng(0)
    constants = {
        "members": random.normal(size=(4, 32)).astype(np.float32),
        "axis": np.array([1]),
        "w1": random.normal(0, 0.1, (32, 48)).astype(np.float32),
        "b1": random.normal(size=48).astype(np.float32),
        "w2": random.normal(0, 0.1, (24, 48)).astype(np.float32),
        "b2": random.normal(size=24).astype(np.float32),
        "flat": np.array([-1, 48]),
        "heads": random.normal(size=(24, 1)).astype(np.float32),
        "grouped": np.array([-1, 4]),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["number", "axis"], ["each"]),
        helper.make_node("Mul", ["each", "members"], ["seen"]),
        helper.make_node("MatMul", ["seen", "w1"], ["y1"]),
        helper.make_node("Add", ["y1", "b1"], ["z1"]),
        helper.make_node("Softplus", ["z1"], ["a1"]),
        helper.make_node("Reshape", ["a1", "flat"], ["f1"]),
        helper.make_node("Gemm", ["f1", "w2", "b2"], ["y2"], transB=1),
        helper.make_node("Tanh", ["y2"], ["a2"]),
        helper.make_node("MatMul", ["a2", "heads"], ["answers"]),
        helper.make_node("Reshape", ["answers", "grouped"], ["by_row"]),
        helper.make_node("ReduceMean", ["by_row", "axis"], ["score"], keepdims=0),
    ]
    graph = _graph(nodes, constants, plan)
    features = Features(random.normal(size=(100, 32)).astype(np.float32), np.zeros((100, 0), np.int64))
    smaller = quantise(graph, plan, how, features)
    runtime, expected = Runtime(smaller, plan), Runtime(graph, plan).score(features)
    np.testing.assert_allclose(runtime.score(features), expected, rtol=0.02)
    np.testing.assert_array_equal(runtime.score(features), _alone(runtime, features))
    assert {"Softplus", "Tanh", "ReduceMean"} <= set(_operators(smaller))
    if how in INTEGERS:
        quantised = {"w1.int8", "w2.int8"} if how == "int8_dynamic" else {"w1_quantized", "w2_quantized"}
        assert quantised <= set(_constants(smaller))


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("how", ["int8_weights", "int8_dynamic"])
def test_a_column_of_weights_keeps_its_digits_however_large_the_others_are(make_plan, how, transposed) -> None:
    plan = make_plan("regression", numbers=32, categories=0)
    random = np.random.default_rng(0)
    sizes = np.logspace(-12, 0, 16).astype(np.float32)
    weights = (random.normal(size=(32, 16)) * sizes).astype(np.float32)
    constants = {
        "w": np.ascontiguousarray(weights.T) if transposed else weights,
        "sizes": sizes,
        "head": random.normal(size=(16, 1)).astype(np.float32),
        "flat": np.array([-1]),
    }
    nodes = [
        helper.make_node("Gemm", ["number", "w"], ["y"], transB=transposed),
        helper.make_node("Div", ["y", "sizes"], ["even"]),
        helper.make_node("MatMul", ["even", "head"], ["z"]),
        helper.make_node("Reshape", ["z", "flat"], ["score"]),
    ]
    graph = _graph(nodes, constants, plan)
    features = Features(random.normal(size=(100, 32)).astype(np.float32), np.zeros((100, 0), np.int64))
    expected = Runtime(graph, plan).score(features)
    found = Runtime(quantise(graph, plan, how, features), plan).score(features)
    np.testing.assert_allclose(found, expected, atol=0.05 * expected.std())


@pytest.fixture(scope="module")
def linear(make_plan) -> Runtime:
    """A hidden layer of integers and nothing that bends: as its rows grow, so do its scores."""
    plan = make_plan("regression", numbers=32, categories=0)
    random = np.random.default_rng(0)
    constants = {
        "w": random.normal(size=(32, 16)).astype(np.float32),
        "head": random.normal(size=(16, 1)).astype(np.float32),
        "flat": np.array([-1]),
    }
    nodes = [
        helper.make_node("Gemm", ["number", "w"], ["y"]),
        helper.make_node("MatMul", ["y", "head"], ["z"]),
        helper.make_node("Reshape", ["z", "flat"], ["score"]),
    ]
    features = Features(np.empty((0, 32), np.float32), np.empty((0, 0), np.int64))
    return Runtime(quantise(_graph(nodes, constants, plan), plan, "int8_dynamic", features), plan)


@given(st.integers(-60, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_a_row_keeps_its_digits_however_large_its_neighbours_are(linear, exponent: int, seed: int) -> None:
    number = np.random.default_rng(seed).normal(size=(2, 32)).astype(np.float32)
    number[1] = number[0] * np.float32(2.0**exponent)
    score = linear.score(Features(number, np.zeros((2, 0), np.int64)))
    assert score[1] == score[0] * np.float32(2.0**exponent)


def test_a_row_of_zeros_has_a_score(linear) -> None:
    assert linear.score(Features(np.zeros((1, 32), np.float32), np.zeros((1, 0), np.int64))) == 0.0
