"""What every kind of network promises: the same scores alone or among others, in torch, as a file and as a graph."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from app import spec
from app.data.features import FeaturePlan
from app.model.export import OPSET, to_onnx
from app.model.network import Network
from app.model.runtime import Runtime
from app.types import MISSING_ID, UNSEEN_ID, Features

SMALL = spec.Model(width=16, depth=2, number_embedding=4, frequencies=6, category_embedding=5, ensemble=3)
MIXES = [(3, 2), (0, 2), (3, 0), (1, 1)]

pytestmark = pytest.mark.parametrize("kind", ["network", "tabm", "linear"])
each_task = pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])


def model_of(kind: str, **settings: float) -> spec.Model:
    return SMALL.model_copy(update={"kind": kind, **settings})


def tensors(features: Features) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features.number), torch.from_numpy(features.category)


@torch.no_grad()
def trained(make_network, plan: FeaturePlan, kind: str) -> Network:
    """Return a network each of whose weights is what none begins with, in evaluation mode."""
    network: Network = make_network(plan, kind)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) / 5)
    return network


def assert_scores_agree(found, expected, plan: FeaturePlan) -> None:
    """Hold scores to a millionth: of a probability, or of a target's deviation and size."""
    target = plan.target
    scale = target.std + abs(target.mean) if target.task == "regression" else 1.0
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-6)


@each_task
@pytest.mark.parametrize(("numbers", "categories"), MIXES)
@pytest.mark.parametrize("rows", [0, 1, 4097])
def test_the_graph_says_what_the_network_says(
    make_plan, make_features, make_network, kind, task, numbers, categories, rows
) -> None:
    plan = make_plan(task, numbers, categories)
    network, features = trained(make_network, plan, kind), make_features(plan, rows)
    found = Runtime(to_onnx(network), plan).score(features)
    assert found.shape == ((rows, 3) if task == "multiclass" else (rows,))
    assert_scores_agree(found, network.score(*tensors(features)), plan)


@each_task
def test_a_row_does_not_see_its_neighbours(make_plan, make_features, make_network, task, kind) -> None:
    plan = make_plan(task)
    network = trained(make_network, plan, kind)
    runtime, features = Runtime(to_onnx(network), plan), make_features(plan, 257)
    whole = runtime.score(features)
    for size in (1, 2, 7, 64):
        pieces = [runtime.score(features.rows(slice(start, start + size))) for start in range(0, 257, size)]
        # Bit-equal on the machines this was measured on; other processors may pick other kernels by size.
        np.testing.assert_array_max_ulp(np.concatenate(pieces), whole, maxulp=4)
    alone = np.concatenate([network.score(*tensors(features.rows(slice(i, i + 1)))) for i in range(20)])
    assert_scores_agree(alone, network.score(*tensors(features))[:20], plan)


@each_task
def test_rows_of_nothing_and_of_the_unseen_have_scores(make_plan, make_network, task, kind) -> None:
    plan = make_plan(task)
    network = trained(make_network, plan, kind)
    number = np.full((2, len(plan.number)), np.nan, np.float32)
    category = np.repeat([[MISSING_ID], [UNSEEN_ID]], len(plan.category), axis=1)
    features = Features(number, category.astype(np.int64))
    scores = network.score(*tensors(features))
    assert np.isfinite(scores).all()
    assert_scores_agree(Runtime(to_onnx(network), plan).score(features), scores, plan)


@each_task
@pytest.mark.parametrize(("numbers", "categories"), MIXES)
def test_every_weight_is_learned(make_plan, make_features, kind, task, numbers, categories) -> None:
    """From what a network begins with, whatever the mix of features: no factor of 0 keeps another one at 0 for good."""
    plan = make_plan(task, numbers, categories)
    torch.manual_seed(0)
    network = Network(plan, model_of(kind, dropout=0.0)).train()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    target = torch.arange(200) % plan.target.outputs if task == "multiclass" else torch.arange(200) % 2
    for _ in range(2):
        optimizer.zero_grad()
        logits = network(*tensors(make_features(plan, 200)))
        network.loss(logits, target.float() + (1000 if task == "regression" else 0)).backward()
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), name


@each_task
def test_without_dropout_training_is_the_function_that_is_evaluated(make_plan, make_features, task, kind) -> None:
    plan = make_plan(task)
    torch.manual_seed(0)
    network = Network(plan, model_of(kind, dropout=0.0))
    rows = tensors(make_features(plan, 500))
    outputs = plan.target.outputs
    found = network.train()(*rows)
    assert found.shape == ((500, SMALL.ensemble, outputs) if kind == "tabm" else (500, outputs))
    evaluated = network.eval()(*rows)
    assert evaluated.shape == (500, outputs)
    torch.testing.assert_close(found.mean(dim=1) if kind == "tabm" else found, evaluated)


@each_task
def test_weights_make_the_same_network_again(make_plan, make_features, make_network, task, kind) -> None:
    plan = make_plan(task)
    network = trained(make_network, plan, kind)
    data = network.to_safetensors()
    again = Network.from_safetensors(data, FeaturePlan.from_json(plan.to_json()), model_of(kind))
    rows = tensors(make_features(plan, 50))
    np.testing.assert_array_equal(network.score(*rows), again.score(*rows))
    assert again.to_safetensors() == data
    assert to_onnx(again) == to_onnx(network)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_calibration_makes_scores_as_sure_as_they_are_right(
    make_plan, make_features, make_network, task, kind
) -> None:
    """Labels in the shares that a network of temperature 3 gives, without the chance of drawing them: it is found."""
    plan = make_plan(task)
    network, features = trained(make_network, plan, kind), make_features(plan, 1000)
    network.temperature.fill_(3.0)
    shares = torch.from_numpy(network.score(*tensors(features)))
    with torch.no_grad():
        network.calibrate(network(*tensors(features)), shares)
    assert network.temperature.item() == pytest.approx(3.0, rel=1e-3)
    assert_scores_agree(Runtime(to_onnx(network), plan).score(features), network.score(*tensors(features)), plan)


@each_task
def test_a_shift_moves_every_rows_logits_alike(make_plan, make_features, make_network, task, kind) -> None:
    plan = make_plan(task)
    network, rows = trained(make_network, plan, kind), tensors(make_features(plan, 50))
    by = torch.tensor([0.5, -1.0, 2.0])[: plan.target.outputs]
    with torch.no_grad():
        before = network(*rows)
        network.shift(by)
        torch.testing.assert_close(network(*rows), before + by)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_sure_probability_counts_as_the_label_and_any_other_as_both(make_plan, task, kind) -> None:
    """The loss is linear in what is thought: so a teacher's answer mixes with a label without a loss of its own."""
    plan = make_plan(task)
    network = Network(plan, model_of(kind))
    generator, outputs = torch.Generator().manual_seed(0), plan.target.outputs
    shape = (40, SMALL.ensemble, outputs) if kind == "tabm" else (40, outputs)
    logits = torch.randn(shape, generator=generator)
    labels = torch.arange(40) % (2 if task == "binary" else 3)
    sure = labels.float() if task == "binary" else torch.eye(3)[labels]
    other = 1 - sure if task == "binary" else torch.eye(3)[(labels + 1) % 3]
    torch.testing.assert_close(network.loss(logits, sure), network.loss(logits, labels.float()))
    mixed = 0.3 * network.loss(logits, sure) + 0.7 * network.loss(logits, other)
    torch.testing.assert_close(network.loss(logits, 0.3 * sure + 0.7 * other), mixed)


@each_task
@pytest.mark.parametrize("loss", ["squared", "absolute", "quantile"])
def test_members_lose_what_they_lose_in_the_mean(make_plan, task, loss, kind) -> None:
    plan = make_plan(task)
    plan = replace(plan, target=replace(plan.target, regression_loss=loss, quantile=0.9))
    network, outputs = Network(plan, model_of(kind)), plan.target.outputs
    members = torch.randn(40, 5, outputs, generator=torch.Generator().manual_seed(0))
    target = torch.arange(40.0) % 2
    alone = torch.stack([network.loss(members[:, i], target) for i in range(5)])
    torch.testing.assert_close(network.loss(members, target), alone.mean())


@each_task
def test_the_graph_is_small_standard_and_the_same_each_time(make_plan, make_network, task, kind) -> None:
    network = make_network(make_plan(task, numbers=50, categories=20), kind)
    data = to_onnx(network)
    model = onnx.load_model_from_string(data)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert len(model.graph.node) < 35
    assert to_onnx(network) == data
    # Every weight is in the file once, and of the members' heads only their mean.
    constants = sum(int(np.prod(constant.dims)) for constant in model.graph.initializer)
    state = network.state_dict()
    assert constants <= sum(tensor.numel() for tensor in state.values()) + 3 * len(state) + 20 + 50 * 6
