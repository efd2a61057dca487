"""What a training that begins with the champion's weights promises: it begins as the champion, on any new plan."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.network import Network
from app.spec import Model, Spec
from app.training.warm_start import warm_start
from app.types import UNSEEN_ID

TARGETS = {
    "binary": TargetColumn("y", "binary", (False, True)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=100.0, std=5.0),
}


@dataclass(frozen=True)
class Learned:
    weights: bytes
    plan: FeaturePlan
    spec: Spec


def number(name, mean=0.0, std=1.0):
    quantiles = np.sort(np.random.default_rng(len(name)).normal(mean, std, 257))
    return NumberColumn(name, mean=mean, std=std, quantiles=tuple(quantiles.tolist()))


def category(name, *values):
    return CategoryColumn(name, "string", values)


def plan_of(*columns, target=TARGETS["binary"]):
    numbers = tuple(column for column in columns if isinstance(column, NumberColumn))
    return FeaturePlan(numbers, tuple(column for column in columns if isinstance(column, CategoryColumn)), target)


def spec_of(**model):
    shape = {"width": 8, "depth": 3, "number_embedding": 3, "frequencies": 4, "category_embedding": 6} | model
    spec = Spec.model_validate({"name": "x", "task": {"target": "y"}, "data": {"source": "x"}})
    return spec.model_copy(update={"model": Model(**shape)})


def learned_of(plan, spec=None):
    """Return a champion whose every weight, temperature among them, is what no other network begins with."""
    network = Network(plan, (spec or spec_of()).model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        if plan.target.task != "regression":
            network.temperature.fill_(1.7)
    return Learned(network.to_safetensors(), plan, spec or spec_of())


def scores(network, table):
    features = network.plan.encode(table)
    return network.score(torch.from_numpy(features.number), torch.from_numpy(features.category))


def both(learned, plan, table, spec=None):
    """Return the champion's scores, and those of the network that begins with its weights."""
    spec = spec or spec_of()
    weights = warm_start(plan, spec, learned)
    old = Network.from_safetensors(learned.weights, learned.plan, learned.spec.model)
    return scores(old, table), scores(Network.from_safetensors(weights, plan, spec.model), table)


def rows(n=200, **columns):
    random = np.random.default_rng(0)
    x, z = random.normal(size=n), random.normal(3.0, 0.5, n)
    x[::7] = np.nan
    names = random.choice(["red", "green", "blue"], n)
    return pa.table({"x": pa.array(x, from_pandas=True), "z": z, "c": names} | columns)


OLD = (number("x"), number("z", 3.0, 0.6), category("c", "red", "green", "blue"))


@pytest.mark.parametrize("task", list(TARGETS))
def test_on_the_same_plan_it_begins_as_the_champion(task):
    plan = plan_of(*OLD, target=TARGETS[task])
    before, now = both(learned_of(plan), plan, rows())
    np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-6)


def test_moved_statistics_and_reordered_columns_and_values_change_nothing():
    table = rows()
    inside = (np.abs(np.nan_to_num(table["x"].to_numpy())) < 1.5) & (np.abs(table["z"].to_numpy() - 3) < 0.9)
    table = table.filter(pa.array(inside))  # where neither is clipped
    new = plan_of(number("z", 3.2, 0.8), number("x", 0.5, 1.5), category("c", "blue", "red", "green", "mauve"))
    before, now = both(learned_of(plan_of(*OLD)), new, table)
    np.testing.assert_allclose(now, before, rtol=1e-4, atol=1e-5)


def test_it_reaches_where_the_champion_was_clipped():
    plan, new = plan_of(number("x")), plan_of(number("x", 2.0, 1.0))
    hot = pa.table({"x": [2.5, 3.0, 3.5]})
    before, now = both(learned_of(plan), new, hot)
    assert len(set(before.tolist())) == 1
    assert len(set(now.tolist())) == 3


def test_a_number_that_left_its_old_range_is_learned_anew():
    plan, new = plan_of(number("x"), number("z")), plan_of(number("x", 1000.0, 1.0), number("z"))
    weights = warm_start(new, spec_of(), learned_of(plan))
    network = Network.from_safetensors(weights, new, spec_of().model)
    assert network.center.tolist() == pytest.approx([1000.0, 0.0], abs=0.2)
    far = scores(network, pa.table({"x": [999.0, 1001.0], "z": [0.0, 0.0]}))
    assert far[0] == far[1]  # it weighs nothing yet
    near = scores(network, pa.table({"x": [1000.0, 1000.0], "z": [-1.0, 1.0]}))
    assert near[0] != near[1]


def test_a_new_value_begins_as_the_unseen_did():
    champion = learned_of(plan_of(category("c", "red", "green")))
    new = plan_of(category("c", "mauve", "green", "red"))
    before, now = both(champion, new, pa.table({"c": ["red", "green", "mauve", "never met", None]}))
    np.testing.assert_allclose(now, before, rtol=1e-5)
    assert champion.plan.category[0].encode(pa.array(["mauve"])) == [UNSEEN_ID]


def test_a_vocabulary_that_grew_enough_for_wider_embeddings_changes_nothing():
    few, many = category("c", "red", "green", "blue"), category("c", "blue", "red", "green", *map(str, range(20)))
    plan, new = plan_of(number("x"), few), plan_of(number("x"), many)
    assert (
        Network(new, spec_of().model).category.embedding_dim > Network(plan, spec_of().model).category.embedding_dim
    )
    before, now = both(learned_of(plan), new, rows())
    np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-6)


def test_a_new_feature_weighs_nothing_at_first_and_can_be_learned():
    new = plan_of(*OLD, number("wind"), category("day", "mon", "tue"))
    table = rows(wind=np.linspace(-1, 1, 200), day=["mon", "tue"] * 100)
    before, now = both(learned_of(plan_of(*OLD)), new, table)
    np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-6)
    weights = warm_start(new, spec_of(), learned_of(plan_of(*OLD)))
    network = Network.from_safetensors(weights, new, spec_of().model).train()
    features = new.encode(table)
    network(torch.from_numpy(features.number), torch.from_numpy(features.category)).sum().backward()
    silent = (network.hidden[0].weight == 0).all(dim=0)
    assert (network.hidden[0].weight.grad[:, silent] != 0).any()


def test_classes_are_followed_by_value_and_a_target_by_its_units():
    plan = plan_of(*OLD, target=TARGETS["multiclass"])
    turned = plan_of(*OLD, target=TargetColumn("y", "multiclass", ("c", "a", "b")))
    before, now = both(learned_of(plan), turned, rows())
    np.testing.assert_allclose(now, before[:, [2, 0, 1]], rtol=1e-5, atol=1e-6)
    plan = plan_of(*OLD, target=TARGETS["regression"])
    before, now = both(learned_of(plan), plan_of(*OLD, target=replace(plan.target, mean=90.0, std=7.0)), rows())
    np.testing.assert_allclose(now, before, rtol=1e-5)


@pytest.mark.parametrize(
    ("plan", "spec"),
    [
        (plan_of(*OLD), spec_of(width=16)),
        (plan_of(*OLD), spec_of(depth=2)),
        (plan_of(*OLD), spec_of(number_embedding=5)),
        (plan_of(*OLD, target=TargetColumn("y", "binary", ("no", "yes"))), spec_of()),
        (plan_of(*OLD, target=TARGETS["regression"]), spec_of()),
    ],
)
def test_another_shape_or_other_classes_cannot_be_carried_over(plan, spec):
    assert warm_start(plan, spec, learned_of(plan_of(*OLD))) is None


def test_numbers_alone_and_categories_alone_are_plans_too():
    for columns in (OLD[:2], OLD[2:]):
        plan = plan_of(*columns)
        before, now = both(learned_of(plan), plan, rows())
        np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-6)
