"""The network holds for any mix of features, learns what missing and unseen mean, and is calibrated."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from app import spec
from app.data.features import FeaturePlan, NumberColumn
from app.model.network import Network, Normalisation
from app.types import MISSING_ID, UNSEEN_ID

SMALL = spec.Model(width=16, depth=2, number_embedding=4, frequencies=6, category_embedding=5)


def _tensors(features) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features.number), torch.from_numpy(features.category)


@pytest.mark.parametrize(("numbers", "categories"), [(3, 2), (0, 2), (3, 0), (1, 1)])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_any_mix_of_features_trains(make_plan, make_features, task, numbers, categories) -> None:
    plan = make_plan(task, numbers, categories)
    network = Network(plan, SMALL).train()
    logits = network(*_tensors(make_features(plan, 7)))
    assert logits.shape == (7, 3 if task == "multiclass" else 1)
    network.loss(logits, torch.ones(7)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_column_without_a_value_and_a_constant_one_do_no_harm(make_plan) -> None:
    plan = make_plan(numbers=1, categories=0)
    constant = NumberColumn("constant", mean=3.0, std=0.0, quantiles=(3.0,) * 257)
    plan = replace(plan, number=(NumberColumn("empty", nulls=1.0), constant))
    network = Network(plan, SMALL).eval()
    number = torch.tensor([[torch.nan, 3.0], [1e30, -1e30], [0.0, torch.nan]])
    assert network(number, torch.empty(3, 0, dtype=torch.int64)).isfinite().all()


def test_one_wild_value_does_not_flatten_the_others() -> None:
    quantiles = [*np.linspace(0.0, 1.0, 256).tolist(), 1e12]
    column = NumberColumn("n", mean=1e9, std=1e10, quantiles=tuple(quantiles))
    normal = Normalisation.of((column,))
    low, high = ((np.float32([0.25, 0.75]) - normal.center) * normal.scale).tolist()
    assert high - low == pytest.approx(0.5 * np.sqrt(12), rel=0.05)


def test_a_rare_flag_keeps_its_scale() -> None:
    column = NumberColumn("flag", mean=0.002, std=0.0447, quantiles=(*[0.0] * 256, 1.0))
    assert Normalisation.of((column,)).scale == pytest.approx(1 / 0.0447, rel=1e-3)


def test_missing_and_unseen_are_learned_where_training_rows_have_neither(make_plan) -> None:
    plan = make_plan(numbers=1, categories=1)
    torch.manual_seed(0)
    network = Network(plan, SMALL)
    before = network.category.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network.train()
    for _ in range(5):
        logits = network(torch.full((2000, 1), 5.0), torch.full((2000, 1), 2))
        optimizer.zero_grad()
        network.loss(logits, torch.ones(2000)).backward()
        optimizer.step()
    changed = (network.category.weight != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == [MISSING_ID, UNSEEN_ID, 2]


def test_without_dropout_training_is_a_pure_function(make_plan, make_features) -> None:
    plan = make_plan()
    network = Network(plan, SMALL.model_copy(update={"dropout": 0.0}))
    tensors = _tensors(make_features(plan, 500))
    assert torch.equal(network.train()(*tensors), network.eval()(*tensors))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_calibration_undoes_a_scaling_of_the_logits(make_plan, task) -> None:
    plan = make_plan(task)
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, plan.target.outputs, generator=random)
    chance = torch.rand(20_000, 1, generator=random)
    if task == "binary":
        target = (chance < logits.sigmoid()).float().squeeze(1)
    else:
        target = (chance > logits.softmax(dim=1).cumsum(dim=1)).sum(dim=1).float()
    network = Network(plan, SMALL)
    network.calibrate(3 * logits, target)
    assert network.temperature.item() == pytest.approx(3.0, rel=0.05)
    best = network.loss(3 * logits / network.temperature, target)
    for other in (0.98, 1.02):
        assert best < network.loss(3 * logits / (network.temperature * other), target)


def test_a_regression_is_scored_in_the_units_of_its_target(make_plan) -> None:
    network = Network(make_plan("regression"), SMALL)
    logits = torch.tensor([[0.0], [2.0]])
    assert network.to_scores(logits).tolist() == [1000.0, 1100.0]
    assert network.loss(logits, torch.tensor([1000.0, 1100.0])).item() == 0.0
    network.calibrate(logits, torch.tensor([0.0, 0.0]))
    assert network.temperature.item() == 1.0


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_weights_make_the_same_network_again(make_plan, make_features, make_network, task) -> None:
    plan = make_plan(task)
    network = make_network(plan)
    data = network.to_safetensors()
    again = Network.from_safetensors(data, FeaturePlan.from_json(plan.to_json()), SMALL)
    tensors = _tensors(make_features(plan, 50))
    np.testing.assert_array_equal(network.score(*tensors), again.score(*tensors))
    assert again.to_safetensors() == data
