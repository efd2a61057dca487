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


KINDS = ["network", "tabm", "linear"]
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("task", list(TARGETS))
def test_on_the_same_plan_it_begins_as_the_champion(task, kind):
    plan, spec = plan_of(*OLD, target=TARGETS[task]), spec_of(kind=kind)
    before, now = both(learned_of(plan, spec), plan, rows(), spec)
    np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-6)


@each_kind
def test_moved_statistics_and_reordered_columns_and_values_change_nothing(kind):
    table, spec = rows(), spec_of(kind=kind)
    inside = (np.abs(np.nan_to_num(table["x"].to_numpy())) < 1.5) & (np.abs(table["z"].to_numpy() - 3) < 0.9)
    table = table.filter(pa.array(inside))  # where neither is clipped
    new = plan_of(number("z", 3.2, 0.8), number("x", 0.5, 1.5), category("c", "blue", "red", "green", "mauve"))
    before, now = both(learned_of(plan_of(*OLD), spec), new, table, spec)
    np.testing.assert_allclose(now, before, rtol=1e-4, atol=1e-5)


@each_kind
def test_it_reaches_where_the_champion_was_clipped(kind):
    plan, new, spec = plan_of(number("x")), plan_of(number("x", 2.0, 1.0)), spec_of(kind=kind)
    hot = pa.table({"x": [2.5, 3.0, 3.5]})
    before, now = both(learned_of(plan, spec), new, hot, spec)
    assert len(set(before.tolist())) == 1
    assert len(set(now.tolist())) == 3


@each_kind
def test_a_number_that_left_its_old_range_is_learned_anew(kind):
    plan, new, spec = (
        plan_of(number("x"), number("z")),
        plan_of(number("x", 1000.0, 1.0), number("z")),
        spec_of(kind=kind),
    )
    weights = warm_start(new, spec, learned_of(plan, spec))
    network = Network.from_safetensors(weights, new, spec.model)
    assert network.center.tolist() == pytest.approx([1000.0, 0.0], abs=0.2)
    far = scores(network, pa.table({"x": [999.0, 1001.0], "z": [0.0, 0.0]}))
    assert far[0] == far[1]  # it weighs nothing yet
    near = scores(network, pa.table({"x": [1000.0, 1000.0], "z": [-1.0, 1.0]}))
    assert near[0] != near[1]


@each_kind
def test_a_new_value_begins_as_the_unseen_did(kind):
    spec = spec_of(kind=kind)
    champion = learned_of(plan_of(category("c", "red", "green")), spec)
    new = plan_of(category("c", "mauve", "green", "red"))
    before, now = both(champion, new, pa.table({"c": ["red", "green", "mauve", "never met", None]}), spec)
    np.testing.assert_allclose(now, before, rtol=1e-5)
    assert champion.plan.category[0].encode(pa.array(["mauve"])) == [UNSEEN_ID]


@pytest.mark.parametrize("kind", ["network", "tabm"])
def test_a_vocabulary_that_grew_enough_for_wider_embeddings_changes_nothing(kind):
    few, many = category("c", "red", "green", "blue"), category("c", "blue", "red", "green", *map(str, range(20)))
    plan, new, spec = plan_of(number("x"), few), plan_of(number("x"), many), spec_of(kind=kind)
    assert Network(new, spec.model).category.embedding_dim > Network(plan, spec.model).category.embedding_dim
    before, now = both(learned_of(plan, spec), new, rows(), spec)
    np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-6)


@each_kind
@pytest.mark.parametrize("task", list(TARGETS))
def test_a_new_feature_weighs_nothing_at_first_and_can_be_learned(task, kind):
    spec, old, target = spec_of(kind=kind, dropout=0.0), plan_of(*OLD, target=TARGETS[task]), TARGETS[task]
    new = plan_of(*OLD, number("wind"), category("day", "mon", "tue"), target=target)
    table = rows(wind=np.linspace(-1, 1, 200), day=["mon", "tue"] * 100)
    before, now = both(learned_of(old, spec), new, table, spec)
    np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-6)

    network = Network.from_safetensors(warm_start(new, spec, learned_of(old, spec)), new, spec.model).train()
    features = new.encode(table)
    number_, category_ = torch.from_numpy(features.number), torch.from_numpy(features.category)
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        labels = torch.arange(200) % 2 + target.mean
        network.loss(network(number_, category_), labels.float()).backward()
        optimizer.step()
    windy, other_day = number_.clone(), category_.clone()
    windy[:, new.names.index("wind")] += 1
    other_day[:, 1] = 5 - other_day[:, 1]
    network.eval()
    learned = network(number_, category_)
    assert not torch.allclose(network(windy, category_), learned, rtol=0, atol=1e-7)
    assert not torch.allclose(network(number_, other_day), learned, rtol=0, atol=1e-7)


@each_kind
def test_a_feature_that_is_gone_is_forgotten_without_a_word(kind):
    spec = spec_of(kind=kind)
    for left in (OLD[1:], OLD[:2], (OLD[0], category("day", "mon"))):
        new = plan_of(*left)
        weights = warm_start(new, spec, learned_of(plan_of(*OLD), spec))
        network = Network.from_safetensors(weights, new, spec.model)
        assert np.isfinite(scores(network, rows(day=["mon"] * 200))).all()


@each_kind
def test_classes_are_followed_by_value_and_a_target_by_its_units(kind):
    spec = spec_of(kind=kind)
    plan = plan_of(*OLD, target=TARGETS["multiclass"])
    turned = plan_of(*OLD, target=TargetColumn("y", "multiclass", ("c", "a", "b")))
    before, now = both(learned_of(plan, spec), turned, rows(), spec)
    np.testing.assert_allclose(now, before[:, [2, 0, 1]], rtol=1e-5, atol=1e-6)
    plan = plan_of(*OLD, target=TARGETS["regression"])
    moved = plan_of(*OLD, target=replace(plan.target, mean=90.0, std=7.0))
    before, now = both(learned_of(plan, spec), moved, rows(), spec)
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


@pytest.mark.parametrize(
    ("before", "now"),
    [(spec_of(kind=before), spec_of(kind=now, depth=1)) for before in KINDS for now in KINDS if before != now]
    + [
        (spec_of(kind="tabm"), spec_of(kind="tabm", ensemble=4)),
        (spec_of(kind="tabm"), spec_of(kind="tabm", width=16)),
    ],
)
@pytest.mark.parametrize("task", list(TARGETS))
def test_another_kind_or_other_members_cannot_be_carried_over(task, before, now):
    plan = plan_of(*OLD, target=TARGETS[task])
    deep = before.model_copy(update={"model": before.model.model_copy(update={"depth": now.model.depth})})
    assert warm_start(plan, now, learned_of(plan, deep)) is None


@pytest.mark.parametrize(("old", "new"), [(OLD[:2], OLD[2:]), (OLD[2:], OLD[:2])])
@each_kind
def test_a_plan_that_shares_no_feature_ends_in_no_exception(kind, old, new):
    spec = spec_of(kind=kind)
    weights = warm_start(plan_of(*new), spec, learned_of(plan_of(*old), spec))
    if weights is not None:
        network = Network.from_safetensors(weights, plan_of(*new), spec.model)
        assert len(set(scores(network, rows()).tolist())) == 1  # nothing of it has been learned


@each_kind
def test_numbers_alone_and_categories_alone_are_plans_too(kind):
    for columns in (OLD[:2], OLD[2:]):
        plan, spec = plan_of(*columns), spec_of(kind=kind)
        before, now = both(learned_of(plan, spec), plan, rows(), spec)
        np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-6)
