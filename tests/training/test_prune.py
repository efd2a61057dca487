"""What pruning promises: a narrower network that is the same function where it can be, and heals where it cannot."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.data.loss import row_loss
from app.model.network import Network
from app.spec import Model, Spec
from app.training.loader import Parts
from app.training.prune import heal, prune
from app.training.trainer import train
from app.types import Features
from app.workspace import Workspace

TARGETS = {
    "binary": TargetColumn("y", "binary", (0, 1)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=10.0, std=2.0),
}
QUANTILES = tuple(np.linspace(-3, 3, 257).tolist())
DEPTH = 3
MODEL = Model(width=12, depth=DEPTH, dropout=0.1, number_embedding=3, frequencies=4, category_embedding=3)


def plan_of(task="binary"):
    numbers = tuple(NumberColumn(f"x{i}", nulls=0.1, quantiles=QUANTILES) for i in range(2))
    return FeaturePlan(numbers, (CategoryColumn("c", "string", tuple("pqrs")),), TARGETS[task])


def features_of(seed=0, n=400):
    random = np.random.default_rng(seed)
    number = random.normal(size=(n, 2)).astype(np.float32)
    number[random.uniform(size=(n, 2)) < 0.1] = np.nan
    return Features(number, random.integers(0, 6, (n, 1)))


def network_of(task="binary", model=MODEL, seed=0):
    """Return a network in whose layers every unit has its own say, its temperature far from 1."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = Network(plan_of(task), model).eval()
    if task != "regression":
        network.temperature.fill_(1.7)
    return network


def layers_of(network):
    return [layer for layer in [*network.hidden, network.head] if isinstance(layer, nn.Linear)]


def scores(network, features):
    return network.score(torch.from_numpy(features.number), torch.from_numpy(features.category))


@torch.no_grad()
def make_dead(network, units, how):
    """Make `units` of every hidden layer such that they can be missed."""
    layers = layers_of(network)
    for layer, following in itertools.pairwise(layers):
        if how == "unheard":
            following.weight[:, units] = 0
        elif how == "constant":
            layer.weight[units] = 0
            layer.bias[units] = torch.linspace(-1, 2, len(units))  # some always silent, some always as loud
        else:  # half as loud as another
            others = [unit for unit in range(layer.out_features) if unit not in units][: len(units)]
            layer.weight[units], layer.bias[units] = 0.5 * layer.weight[others], 0.5 * layer.bias[others]


@pytest.mark.parametrize("task", list(TARGETS))
@pytest.mark.parametrize("how", ["unheard", "constant", "repeating"])
def test_units_that_say_nothing_of_their_own_go_without_a_trace(task, how):
    network = network_of(task)
    make_dead(network, [1, 4, 5, 11], how)
    narrow = prune(network, MODEL, MODEL.width - 4, features_of())
    assert [layer.out_features for layer in layers_of(narrow)[:-1]] == [8] * DEPTH
    unseen = features_of(seed=1)
    np.testing.assert_allclose(scores(narrow, unseen), scores(network, unseen), rtol=1e-4, atol=1e-4)


def test_pruning_to_the_full_width_changes_nothing():
    network, features = network_of(), features_of()
    same = prune(network, MODEL, MODEL.width, features)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], tensor, rtol=0, atol=0)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), width=st.integers(1, MODEL.width))
def test_the_order_of_units_does_not_matter(seed, width):
    network, features = network_of(seed=seed), features_of(n=100)
    shuffled, order = (
        network_of(seed=seed),
        torch.randperm(MODEL.width, generator=torch.Generator().manual_seed(seed)),
    )
    layers = layers_of(shuffled)
    with torch.no_grad():
        for layer, following in itertools.pairwise(layers):
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
            following.weight.copy_(following.weight[:, order])
    expected = scores(prune(network, MODEL, width, features), features)
    np.testing.assert_allclose(scores(prune(shuffled, MODEL, width, features), features), expected, atol=1e-3)


def test_the_network_itself_stays_as_it_is():
    network = network_of()
    before = network.to_safetensors()
    narrow = prune(network, MODEL, 4, features_of())
    assert network.to_safetensors() == before
    assert not narrow.training
    Network.from_safetensors(narrow.to_safetensors(), network.plan, MODEL.model_copy(update={"width": 4}))


def test_what_matters_stays():
    """Where two units of each layer say nearly everything, these two are enough, and one is not."""
    network = network_of()
    with torch.no_grad():
        layers = layers_of(network)
        for layer, following in itertools.pairwise(layers):
            quiet = torch.ones(layer.out_features, dtype=torch.bool)
            quiet[[3, 7]] = False
            following.weight[:, quiet] *= 1e-4
    features = features_of()

    def far(width):
        return np.abs(scores(prune(network, MODEL, width, features), features) - scores(network, features)).max()

    assert far(2) < far(1) / 20


def spec_of(**train):
    declared = {
        "name": "x",
        "task": {"target": "y"},
        "data": {"source": "x"},
        "model": {"width": 48, "depth": 2, "dropout": 0.0, "number_embedding": 4, "frequencies": 4},
        "train": {"epochs": 12, "batch_size": 64, "learning_rate": 0.01, **train},
        "compress": {"prune_epochs": 3},
    }
    return Spec.model_validate(declared)


def examples_of(seed, n):
    features = features_of(seed, n)
    signal = np.nan_to_num(features.number[:, 0], nan=2.0) + np.array([0, 0, 2, -2, 1, -1])[features.category[:, 0]]
    target = signal + np.random.default_rng(seed).normal(0, 1, n) > 0
    return Examples(features, target.astype(np.float32), np.arange(n), np.arange(n))


def test_healing_brings_back_most_of_what_pruning_took(tmp_path):
    parts, plan, spec = Parts(examples_of(1, 1500), examples_of(2, 800)), plan_of(), spec_of()
    workspace = Workspace(str(tmp_path))
    whole = train(parts, plan, spec, workspace, "whole").network

    def answer(features):
        return scores(whole, features)

    narrow = prune(whole, spec.model, 4, parts.train.features)
    smaller = spec.with_settings({"model.width": 4})
    np.random.default_rng(0).shuffle(parts.train.target)  # what the labels say is of no use any more
    healed = heal(narrow, parts, plan, smaller, answer, workspace, "healed")
    held_out = examples_of(3, 2000)

    def far(network):
        """Return how far a network is from the one that was pruned."""
        return float(np.mean((scores(network, held_out.features) - answer(held_out.features)) ** 2))

    def loss(network):
        return row_loss(plan.target, scores(network, held_out.features), held_out.target).mean()

    assert far(healed.network) < 0.5 * far(narrow)
    assert loss(healed.network) < loss(whole) + 0.01


def test_healing_begins_as_the_pruned_network_calibrated(tmp_path):
    """With a rate of next to nothing, the scores stay those of the network that is healed, temperature and all.

    No pass makes anything better, and still none is left out. Classes weigh the same, whatever is declared.
    """
    parts, plan, network = Parts(examples_of(1, 300), examples_of(2, 300)), plan_of(), network_of()
    spec = spec_of(learning_rate=1e-12, patience=1, class_weights={"1": 5.0}).model_copy(update={"model": MODEL})
    before = network.to_safetensors()
    healed = heal(network, parts, plan, spec, lambda rows: scores(network, rows), Workspace(str(tmp_path)), "x")
    assert network.to_safetensors() == before
    assert len(healed.history) == 3
    features = parts.train.features
    logits = np.log(1 / scores(network, features) - 1) / healed.network.temperature.item()
    np.testing.assert_allclose(scores(healed.network, features), 1 / (1 + np.exp(logits)), rtol=1e-4)
