"""Rows of a class weigh what is declared, and scores are probabilities all the same."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.network import Network
from app.spec import Model, Train
from app.training.class_weights import class_weights, count_classes, shift_of
from app.training.loader import MemoryLoader, StreamLoader
from app.training.loop import train_one
from app.types import Features, UserError

TARGETS = {
    "binary": TargetColumn("late", "binary", (False, True)),
    "multiclass": TargetColumn("kind", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("delay", "regression"),
}
CLASSES = ["binary", "multiclass"]
DECLARED = {"binary": {"true": 20.0}, "multiclass": {"b": 20.0}}
MODEL = Model(width=32, depth=1, dropout=0.0, number_embedding=4, frequencies=4, ensemble=3)

counts_of = arrays.arrays(np.float64, 3, elements=st.integers(0, 10**6).map(float))
weights_of = st.dictionaries(st.sampled_from("abc"), st.floats(0.01, 100.0))


def plan_of(task):
    quantiles = tuple(np.linspace(-3, 3, 257).tolist())
    numbers = tuple(NumberColumn(f"x{i}", quantiles=quantiles) for i in range(2))
    return FeaturePlan(numbers, (CategoryColumn("c", "string", tuple("pqrs")),), TARGETS[task], rows=4000)


def rows_of(task, seed, n=4000):
    """Return rows of a world that every kind of model can express; class 1 is rare in it."""
    random = np.random.default_rng(seed)
    features = Features(random.normal(size=(n, 2)).astype(np.float32), random.integers(2, 6, (n, 1)))
    slope, height = [[0.0, 1.5, -1.0], [0.0, 1.0, 1.0]], [0.0, -3.5, 0.0]
    classes = len(TARGETS[task].classes) or 3
    logits = (features.number @ np.array(slope) + np.array(height))[:, :classes]
    target = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return features, target.astype(np.float32)


def network_of(task, kind="network"):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Network(plan_of(task), MODEL.model_copy(update={"kind": kind}))


def trained(network, task, settings, target=None):
    """Train in place; return the scores and labels of other rows."""
    features, labels = rows_of(task, 1)
    train = MemoryLoader(features, labels if target is None else target(labels), 64, settings.seed)
    train_one(network, train, MemoryLoader(*rows_of(task, 2), 64), settings)
    return scores_of(network, task)


def scores_of(network, task):
    features, labels = rows_of(task, 3)
    return network.score(*map(torch.from_numpy, features)), labels


@given(counts_of, weights_of | st.just("balanced") | st.just("none"))
def test_training_rows_weigh_one_in_the_mean(counts, declared) -> None:
    weights = class_weights(Train(class_weights=declared), TARGETS["multiclass"], counts)
    assert (weights > 0).all()
    assert (weights[counts == 0] == 1).all()
    if counts.any():
        assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0)


@given(counts_of.filter(np.any))
def test_balanced_classes_weigh_the_same_together(counts) -> None:
    weights = class_weights(Train(class_weights="balanced"), TARGETS["multiclass"], counts)
    together = (weights * counts)[counts > 0]
    np.testing.assert_allclose(together, counts.sum() / len(together))


def test_a_declared_class_without_rows_weighs_one_as_nothing_was_learned_with_its_weight() -> None:
    weights = class_weights(
        Train(class_weights={"a": 5.0, "b": 2.0}), TARGETS["multiclass"], np.array([0.0, 1.0, 1.0])
    )
    np.testing.assert_allclose(weights, [1.0, 4 / 3, 2 / 3])


def test_a_truth_value_is_written_as_in_the_declaration_and_a_class_left_out_weighs_one() -> None:
    weights = class_weights(Train(class_weights={"true": 3.0}), TARGETS["binary"], np.array([300.0, 100.0]))
    assert weights[1] / weights[0] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("task", "allowed"), [("binary", "'late' never is; allowed: false, true"), ("multiclass", "allowed: a, b, c")]
)
def test_weights_of_an_unknown_class_are_told(task, allowed) -> None:
    with pytest.raises(UserError, match=f"found 'yes'.*{allowed}"):
        trained(network_of(task), task, Train(epochs=1, batch_size=64, class_weights={"yes": 2.0}))


def test_values_have_no_classes_to_weigh() -> None:
    with pytest.raises(UserError, match="class_weights is for classes; 'delay'"):
        trained(network_of("regression"), "regression", Train(epochs=1, class_weights="balanced"))


def test_weights_do_not_hide_that_there_are_no_rows() -> None:
    with pytest.raises(UserError, match="no labelled training rows"):
        trained(network_of("binary"), "binary", Train(epochs=1, class_weights="balanced"), lambda y: y * np.nan)


@given(st.integers(0, 2**32 - 1))
def test_probabilities_count_as_the_rows_they_stand_for(seed) -> None:
    random = np.random.default_rng(seed)
    soft = random.dirichlet(np.ones(3), 50).astype(np.float32)
    soft[random.random(50) < 0.1, 1] = np.nan
    known = soft[~np.isnan(soft[:, 1])]
    np.testing.assert_allclose(count_classes(TARGETS["multiclass"], soft), known.sum(axis=0), rtol=1e-5)
    both = [len(known) - known[:, 1].sum(), known[:, 1].sum()]
    np.testing.assert_allclose(count_classes(TARGETS["binary"], soft[:, 1]), both, rtol=1e-5)
    labels = random.integers(0, 3, 50).astype(np.float32)
    sure = np.eye(3, dtype=np.float32)[labels.astype(np.int64)]
    task = TARGETS["multiclass"]
    np.testing.assert_array_equal(count_classes(task, labels), count_classes(task, sure))


@pytest.mark.parametrize("task", CLASSES)
def test_what_weighs_more_in_training_is_taken_out_of_the_logits(task) -> None:
    """Elkan's law: a weighted world's probabilities are proportional to weight times probability."""
    target = TARGETS[task]
    chances = np.random.default_rng(0).dirichlet(np.ones(len(target.classes)), 20)
    counts = np.arange(1.0, len(target.classes) + 1)
    weights = class_weights(Train(class_weights=DECLARED[task]), target, counts)
    logits = np.log(chances * weights)
    if task == "binary":
        logit = logits[:, 1] - logits[:, 0] + shift_of(target, weights)
        np.testing.assert_allclose(1 / (1 + np.exp(-logit)), chances[:, 1])
    else:
        corrected = np.exp(logits + shift_of(target, weights))
        np.testing.assert_allclose(corrected / corrected.sum(axis=1, keepdims=True), chances)


@pytest.mark.parametrize("task", CLASSES)
def test_a_row_that_weighs_three_times_counts_as_three_rows(task) -> None:
    network, outputs = network_of(task), TARGETS[task].outputs
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, outputs, generator=generator)
    target = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    weights = torch.tensor([1.0, 3.0, 1.0][: 2 if task == "binary" else 3])
    times = (1 + 2 * target).long()
    repeated = network.loss(logits.repeat_interleave(times, dim=0), target.repeat_interleave(times))
    torch.testing.assert_close(network.loss(logits, target, weights) * 6, repeated * times.sum())


@pytest.mark.parametrize("kind", ["network", "tabm", "linear"])
@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("declared", ["balanced", "mapping"])
def test_scores_stay_probabilities(task, declared, kind) -> None:
    """The rare class weighs many times more, and yet is given its share of the rows, no more."""
    weights = "balanced" if declared == "balanced" else DECLARED[task]
    # Until it has learned: half-way there, a linear model is as far off without any weights.
    settings = Train(epochs=8, batch_size=64, learning_rate=0.03, class_weights=weights)
    scores, labels = trained(network_of(task, kind), task, settings)
    rare = scores if task == "binary" else scores[:, 1]
    assert rare.mean() == pytest.approx((labels == 1).mean(), rel=0.2)


@pytest.mark.parametrize("task", CLASSES)
def test_probabilities_weigh_as_labels_do(task) -> None:
    settings = Train(epochs=1, batch_size=64, class_weights="balanced")
    hard, soft = network_of(task), network_of(task)

    def sure(labels):
        return labels if task == "binary" else np.eye(3, dtype=np.float32)[labels.astype(np.int64)]

    expected, _ = trained(hard, task, settings)
    found, _ = trained(soft, task, settings, sure)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("task", CLASSES)
def test_a_network_that_has_learned_begins_as_what_it_was(task) -> None:
    """However short its training: the weights go into the logits before they are taken out."""
    champion = network_of(task)
    trained(champion, task, Train(epochs=2, batch_size=64, learning_rate=0.01))
    champion.temperature.fill_(1.0)
    before, _ = scores_of(champion, task)
    again = copy.deepcopy(champion)
    still = Train(epochs=1, batch_size=4000, learning_rate=1e-12, weight_decay=0, class_weights=DECLARED[task])
    loaders = [MemoryLoader(*rows_of(task, seed), 4000) for seed in (1, 2)]
    train_one(again, *loaders, still, has_learned=True)
    again.temperature.fill_(1.0)
    np.testing.assert_allclose(scores_of(again, task)[0], before, atol=1e-5)


@pytest.mark.parametrize("task", CLASSES)
def test_validation_rows_weigh_as_training_rows_do(task) -> None:
    """On the same rows, and with nothing learned between, both lose the same; and not what they would unweighted."""
    losses = []
    for weights in (DECLARED[task], "none"):
        still = Train(epochs=1, batch_size=4000, learning_rate=1e-12, weight_decay=0, class_weights=weights)
        rows = MemoryLoader(*rows_of(task, 1), 4000)
        line = train_one(network_of(task), rows, rows, still).history[0]
        assert line["validation_loss"] == pytest.approx(line["train_loss"], rel=1e-5)
        losses.append(line["validation_loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


class Shard:
    """A shard of Ray Data, as much of it as a loader asks for."""

    def __init__(self, features, target):
        self._columns = {"number": features.number, "category": features.category, "target": target}

    def iter_torch_batches(self, batch_size, **_):
        for start in range(0, len(self._columns["target"]), batch_size):
            piece = {name: torch.from_numpy(rows[start : start + batch_size]) for name, rows in self._columns.items()}
            yield piece


def test_a_stream_is_counted_before_it_is_learned() -> None:
    settings = Train(epochs=3, batch_size=64, learning_rate=0.01, class_weights="balanced")
    network = network_of("binary")
    loaders = [StreamLoader(Shard(*rows_of("binary", seed)), 4000, 64) for seed in (1, 2)]
    outcome = train_one(network, *loaders, settings)
    scores, labels = scores_of(network, "binary")
    assert scores.mean() == pytest.approx(labels.mean(), rel=0.2)
    line = outcome.history[outcome.best_epoch - 1]
    # An epoch's figures are of rows as they are, as those in the end.
    assert line["validation_log_loss"] == pytest.approx(outcome.validation["log_loss"], rel=0.1)
