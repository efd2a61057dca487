"""The graph says what the network says, row by row, whatever the batch."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from app.model.export import OPSET, to_onnx
from app.model.runtime import Runtime
from app.types import Features


@pytest.mark.parametrize("rows", [0, 1, 4096])
@pytest.mark.parametrize(("numbers", "categories"), [(3, 2), (0, 2), (3, 0)])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("kind", ["network", "tabm", "linear"])
def test_graph_and_network_agree(
    make_plan, make_features, make_network, kind, task, numbers, categories, rows
) -> None:
    plan = make_plan(task, numbers, categories)
    network = make_network(plan, kind)
    features = make_features(plan, rows)
    expected = network.score(*map(torch.from_numpy, features))
    found = Runtime(to_onnx(network), plan).score(features)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == ((rows, 3) if task == "multiclass" else (rows,))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["network", "tabm", "linear"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_row_does_not_see_its_neighbours(make_plan, make_features, make_network, task, kind) -> None:
    plan = make_plan(task)
    runtime = Runtime(to_onnx(make_network(plan, kind)), plan)
    features = make_features(plan, 257)
    whole = runtime.score(features)
    for size in (1, 2, 7, 64):
        pieces = [runtime.score(features.rows(slice(start, start + size))) for start in range(0, 257, size)]
        # Bit-equal on the machines this was measured on; other processors may pick other kernels by size.
        np.testing.assert_array_max_ulp(np.concatenate(pieces), whole, maxulp=4)


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


def test_the_graph_is_small_standard_and_the_same_each_time(make_plan, make_network) -> None:
    network = make_network(make_plan(numbers=50, categories=20))
    data = to_onnx(network)
    model = onnx.load_model_from_string(data)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert len(model.graph.node) < 30
    assert to_onnx(network) == data


def test_the_temperature_is_in_the_graph(make_plan, make_features, make_network) -> None:
    plan = make_plan()
    network, features = make_network(plan), make_features(plan, 100)
    warm = Runtime(to_onnx(network), plan).score(features)
    network.temperature.fill_(3.0)
    hot = Runtime(to_onnx(network), plan).score(features)
    logit = np.log(warm / (1 - warm)) * 1.5 / 3.0
    np.testing.assert_allclose(hot, 1 / (1 + np.exp(-logit)), atol=1e-5)
