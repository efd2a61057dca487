"""The network holds for any mix of features, learns what missing and unseen mean, and is calibrated."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from app import spec
from app.data.features import NumberColumn
from app.model.network import Network, Normalisation
from app.types import MISSING_ID, UNSEEN_ID

SMALL = spec.Model(width=16, depth=2, number_embedding=4, frequencies=6, category_embedding=5)


def _tensors(features) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features.number), torch.from_numpy(features.category)


def test_a_column_without_a_value_and_a_constant_one_do_no_harm(make_plan) -> None:
    plan = make_plan(numbers=1, categories=0)
    constant = NumberColumn("constant", mean=3.0, std=0.0, quantiles=(3.0,) * 257)
    plan = replace(plan, number=(NumberColumn("empty", nulls=1.0), constant))
    network = Network(plan, SMALL).eval()
    number = torch.tensor([[torch.nan, 3.0], [1e30, -1e30], [0.0, torch.nan]])
    assert network(number, torch.empty(3, 0, dtype=torch.int64)).isfinite().all()


def test_a_number_too_small_for_float32_counts_as_constant(make_plan) -> None:
    """The factor that would make it 1 is infinite there, and infinitely many zeros are no number."""
    values = np.linspace(-1e-60, 1e-60, 257)
    column = NumberColumn("tiny", mean=0.0, std=1e-60, quantiles=tuple(values.tolist()))
    network = Network(replace(make_plan(numbers=1, categories=0), number=(column,)), SMALL).eval()
    number = torch.from_numpy(values.astype(np.float32)[:, None])
    assert network(number, torch.empty(257, 0, dtype=torch.int64)).isfinite().all()


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


@pytest.mark.parametrize(("task", "label"), [("binary", 0.0), ("binary", 1.0), ("multiclass", 1.0)])
def test_rows_of_one_class_alone_do_not_calibrate(make_plan, task, label) -> None:
    """They would make every score as sure as it may get: of a rare class a small part has often none."""
    network = Network(make_plan(task), SMALL)
    network.calibrate(torch.randn(300, network.plan.target.outputs), torch.full((300,), label))
    assert network.temperature == 1


def test_a_linear_model_is_a_sum_of_what_each_feature_weighs(make_plan, make_features) -> None:
    """Logistic regression: no unit is hidden, and a row's logit is the base plus what each feature adds to it."""
    plan = make_plan(numbers=2, categories=2)
    network = Network(plan, SMALL.model_copy(update={"kind": "linear"})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    assert len(network.layers) == 1
    features = make_features(plan, 2)
    rows = [(torch.from_numpy(features.number[i]), torch.from_numpy(features.category[i])) for i in (0, 1)]

    def logit(from_second: set[int]) -> Tensor:
        number, category = (
            torch.stack([rows[1 if first + i in from_second else 0][part][i] for i in range(2)])
            for part, first in ((0, 0), (1, 2))
        )
        return network(number[None], category[None])[0, 0]

    base = logit(set())
    added = sum(logit({i}) - base for i in range(4))
    torch.testing.assert_close(logit({0, 1, 2, 3}), base + added)


def test_what_a_linear_model_never_met_weighs_nothing(make_plan) -> None:
    """It hides nothing while it learns, so nothing could teach it what missing and unseen mean."""
    plan = make_plan(numbers=1, categories=1)
    torch.manual_seed(0)
    network = Network(plan, SMALL.model_copy(update={"kind": "linear"})).train()
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    number = torch.linspace(3, 7, 200)[:, None]
    for _ in range(20):
        optimizer.zero_grad()
        network.loss(network(number, torch.full((200, 1), 2)), (number[:, 0] > 4).float()).backward()
        optimizer.step()
    middle, nothing = network.center[None], torch.full((1, 1), torch.nan)
    base = network.head.bias.expand(1, 1)
    for unmet in (MISSING_ID, UNSEEN_ID, 3):
        torch.testing.assert_close(network(middle, torch.tensor([[unmet]])), base)
        torch.testing.assert_close(network(nothing, torch.tensor([[unmet]])), base)
    assert network(middle, torch.tensor([[2]])) != base


def test_members_begin_apart(make_plan, make_features) -> None:
    plan = make_plan()
    torch.manual_seed(0)
    network = Network(plan, SMALL.model_copy(update={"kind": "tabm", "ensemble": 4, "dropout": 0.0})).train()
    members = network(*_tensors(make_features(plan, 20)))[..., 0]
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(members[:, i], members[:, j])


@pytest.mark.parametrize("kind", ["lightgbm", "average", "auto"])
def test_other_kinds_are_no_networks(make_plan, kind) -> None:
    with pytest.raises(AssertionError, match=f"{kind} is no network"):
        Network(make_plan(), SMALL.model_copy(update={"kind": kind}))
