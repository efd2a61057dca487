"""What goes into the graph is folded without a loss: large numbers, the temperature, the members of an ensemble."""

from dataclasses import replace

import numpy as np
import onnx
import torch

from app.model.export import to_onnx
from app.model.runtime import Runtime
from app.types import Features


def test_large_numbers_keep_their_digits(make_plan, make_network) -> None:
    plan = make_plan(numbers=1, categories=0)
    seconds = 1.6e9 + np.linspace(0.0, 1e6, 257)
    column = replace(plan.number[0], mean=seconds.mean(), std=seconds.std(), quantiles=tuple(seconds.tolist()))
    plan = replace(plan, number=(column,))
    network = make_network(plan)
    number = seconds.astype(np.float32)[:, None]
    category = np.empty((257, 0), np.int64)
    found = Runtime(to_onnx(network), plan).score(Features(number, category))
    np.testing.assert_allclose(found, network.score(torch.from_numpy(number), torch.from_numpy(category)), atol=1e-5)
    assert found.std() > 1e-3


def test_the_temperature_is_in_the_graph(make_plan, make_features, make_network) -> None:
    plan = make_plan()
    network, features = make_network(plan), make_features(plan, 100)
    warm = Runtime(to_onnx(network), plan).score(features)
    network.temperature.fill_(3.0)
    hot = Runtime(to_onnx(network), plan).score(features)
    logit = np.log(warm / (1 - warm)) * 1.5 / 3.0
    np.testing.assert_allclose(hot, 1 / (1 + np.exp(-logit)), atol=1e-5)


def test_members_share_a_matrix_and_end_in_one_product(make_plan, make_network) -> None:
    plan = make_plan("multiclass")
    graphs = [onnx.load_model_from_string(to_onnx(make_network(plan, kind))).graph for kind in ("network", "tabm")]
    one, ensemble = ({c.name: tuple(c.dims) for c in graph.initializer} for graph in graphs)
    for name in ("hidden0.weight", "hidden1.weight"):
        assert ensemble[name] == one[name]
    members = ensemble["hidden1.before"][0]
    assert ensemble["head.weight"] == (members * one["head.weight"][0], 3)
    assert ensemble["head.bias"] == (3,)
    assert [node.op_type for node in graphs[1].node][-3:] == ["Reshape", "Gemm", "Softmax"]
