"""One worker's loop: it learns, stops early, resumes exactly, and many ranks equal one."""

import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.network import Network
from app.spec import Model, Spec, Train
from app.training.checkpoint import Checkpoints
from app.training.loader import MemoryLoader
from app.training.loop import choose_device, learning_rate, train_one
from app.training.metrics import evaluate
from app.training.ranks import Ranks
from app.types import Features, UserError

TARGETS = {
    "binary": TargetColumn("y", "binary", (0, 1)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=10.0, std=2.0),
}
MODEL = Model(width=32, depth=1, dropout=0.1, number_embedding=4, frequencies=4, ensemble=3)
STILL = MODEL.model_copy(update={"dropout": 0.0})
KINDS = ["network", "tabm", "linear"]


def plan_of(task="binary"):
    quantiles = tuple(np.linspace(-3, 3, 257).tolist())
    numbers = tuple(NumberColumn(f"x{i}", nulls=0.1, quantiles=quantiles) for i in range(2))
    return FeaturePlan(numbers, (CategoryColumn("c", "string", tuple("pqrs")),), TARGETS[task])


def rows_of(task="binary", seed=0, n=1000):
    random = np.random.default_rng(seed)
    number = random.normal(size=(n, 2)).astype(np.float32)
    number[random.uniform(size=(n, 2)) < 0.1] = np.nan
    category = random.integers(0, 6, (n, 1))
    signal = np.nan_to_num(number[:, 0], nan=2.0) + np.array([0, 0, 2, -2, 1, -1])[category[:, 0]]
    signal += random.normal(0, 0.5, n)
    target = {"binary": signal > 0, "multiclass": np.digitize(signal, [-1, 1]), "regression": 10 + signal}[task]
    return Features(number, category), target.astype(np.float32)


def model_of(kind, model=MODEL):
    return model.model_copy(update={"kind": kind})


def network_of(plan, model=MODEL, seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Network(plan, model)


def fit(settings, task="binary", model=MODEL, ranks=None, checkpoints=None, on_epoch=None, train=None):
    plan = plan_of(task)
    network = network_of(plan, model)
    train = train or rows_of(task, 1)
    loaders = [
        MemoryLoader(*part, settings.rows_of_step(len(train[1])), settings.seed, ranks)
        for part in (train, rows_of(task, 2, 500))
    ]
    return network, train_one(network, *loaders, settings, ranks, checkpoints, on_epoch)


def assert_same_weights(first, second, tolerance=0.0):
    for (name, left), right in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("task", "figure", "enough"),
    [("binary", "auc", 0.93), ("multiclass", "accuracy", 0.7), ("regression", "r2", 0.7)],
)
def test_it_learns_every_task_and_tells_how(task, figure, enough, kind):
    settings = Train(epochs=15, batch_size=64, learning_rate=0.05 if kind == "linear" else 0.01)
    seen = []
    network, outcome = fit(settings, task, model_of(kind), on_epoch=seen.append)
    features, target = rows_of(task, 3)
    network.eval()
    with torch.no_grad():
        scores = network.score(torch.from_numpy(features.number), torch.from_numpy(features.category))
    assert evaluate(TARGETS[task], scores, target)[figure] > enough
    assert outcome.validation[figure] > enough
    assert seen == outcome.history
    assert outcome.best_epoch == 1 + np.argmin([line["validation_loss"] for line in seen])
    assert {"epoch", "learning_rate", "train_loss", f"validation_{figure}", "seconds", "rows_per_second"} <= set(
        seen[0]
    )
    assert not network.training


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_randomness_alone():
    settings = Train(epochs=2, batch_size=128)
    torch.manual_seed(5)
    first, _ = fit(settings)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn
    second, _ = fit(settings)
    assert_same_weights(first, second)
    other, _ = fit(settings.model_copy(update={"seed": 1}))
    with pytest.raises(AssertionError):
        assert_same_weights(first, other)


def test_it_stops_when_validation_gets_no_better_and_keeps_the_best_weights():
    settings = Train(epochs=200, batch_size=32, learning_rate=0.05, patience=3)
    features, target = rows_of(n=60)
    train = (features, 1 - target)  # what is learned here is wrong there
    network, outcome = fit(settings, train=train)
    assert len(outcome.history) == outcome.best_epoch + 3 < 200
    features, target = rows_of("binary", 2, 500)
    with torch.no_grad():
        network.temperature.fill_(1.0)
        logits = network(torch.from_numpy(features.number), torch.from_numpy(features.category))
        loss = network.loss(logits, torch.from_numpy(target)).item()
    assert loss == pytest.approx(min(line["validation_loss"] for line in outcome.history), rel=1e-5)


def checkpoints_of(folder, settings, model=MODEL):
    spec = Spec.model_validate({"name": "x", "task": {"target": "y"}, "data": {"source": "x"}})
    return Checkpoints.of(str(folder), plan_of(), spec.model_copy(update={"train": settings, "model": model}))


class StoppedError(Exception):
    """The power goes out."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_equals_one_that_never_stopped(tmp_path, kind):
    settings, model = Train(epochs=4, batch_size=128, class_weights="balanced"), model_of(kind)

    def stop(line):
        if line["epoch"] == 2:
            raise StoppedError

    straight, expected = fit(settings, model=model)
    checkpoints = checkpoints_of(tmp_path, settings, model)
    with pytest.raises(StoppedError):
        fit(settings, model=model, checkpoints=checkpoints, on_epoch=stop)
    seen = []
    resumed, outcome = fit(settings, model=model, checkpoints=checkpoints, on_epoch=seen.append)
    assert [line["epoch"] for line in seen] == [3, 4]
    assert [line["epoch"] for line in outcome.history] == [1, 2, 3, 4]
    assert_same_weights(straight, resumed)
    assert outcome.validation == expected.validation
    finished, _ = fit(
        settings, model=model, checkpoints=checkpoints, on_epoch=lambda line: pytest.fail("nothing was left to do")
    )
    assert_same_weights(straight, finished)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    settings = Train(epochs=3, batch_size=256)
    checkpoints = checkpoints_of(tmp_path, settings)
    fit(settings, checkpoints=checkpoints)
    kept = sorted(tmp_path.iterdir())
    assert [path.name for path in kept] == ["epoch-000002.safetensors", "epoch-000003.safetensors"]
    kept[-1].write_bytes(kept[-1].read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest().progress.epoch == 2
    assert "epoch-000003.safetensors cannot be read" in caplog.text


def test_checkpoints_of_another_network_are_refused(tmp_path):
    settings = Train(epochs=1, batch_size=256)
    fit(settings, checkpoints=checkpoints_of(tmp_path, settings))
    spread = settings.model_copy(update={"num_workers": 2})
    assert checkpoints_of(tmp_path, spread).newest().progress.epoch == 1
    with pytest.raises(UserError, match="choose another run id"):
        checkpoints_of(tmp_path, settings, STILL).newest()


def test_a_diverging_training_says_so():
    with pytest.raises(UserError, match=r"diverged in epoch \d+.*learning_rate below 1e\+30"):
        fit(Train(epochs=3, batch_size=64, learning_rate=1e30))


@pytest.mark.parametrize("n", [0, 5])
def test_no_labelled_rows_are_the_users_to_know(n):
    features, _ = rows_of(n=5)
    with pytest.raises(UserError, match="no labelled training rows"):
        fit(Train(), train=(features.rows(slice(0, n)), np.full(n, np.nan, np.float32)))


def test_a_gpu_that_is_not_there_is_named():
    if torch.cuda.is_available():
        assert choose_device(True).type == "cuda"
    else:
        with pytest.raises(UserError, match="no CUDA device"):
            choose_device(True)
    assert choose_device(False).type == "cpu"


def test_the_learning_rate_rises_then_falls_to_nothing():
    settings = Train(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.001


def test_every_row_is_met_once_an_epoch_whatever_the_ranks():
    features, target = rows_of(n=103)
    features.number[:, 0] = np.arange(103)
    one = [numbers for numbers, _ in steps_of(features, target, 1)]
    three = steps_of(features, target, 3)
    assert [step for step, _ in three] == one
    assert sorted(itertools.chain.from_iterable(one)) == list(range(103))
    assert [weight for _, weight in three] == pytest.approx([3.0] * 11)


def steps_of(features, target, size):
    """Return per step the rows' numbers in rank order, and the sum of the ranks' shares."""
    loaders = [MemoryLoader(features, target, 10, 0, Ranks(index, size)) for index in range(size)]
    steps = []
    for batches in zip(*(loader.shuffled(1) for loader in loaders), strict=True):
        rows = [int(x) for batch in batches for x in batch.number[: batch.rows, 0]]
        steps.append((rows, sum(batch.share for batch in batches)))
    return steps


def _rank(index, size, folder, settings):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=index, world_size=size)
    ranks = Ranks.here(torch.device("cpu"))
    for kind in KINDS:
        network, outcome = fit(settings, model=model_of(kind, STILL), ranks=ranks, train=rows_of("binary", 1, 1001))
        if index == 0:
            assert outcome.validation["rows"] == 500
            figures = np.array([outcome.validation["auc"], outcome.history[0]["validation_auc"]])
            weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
            np.savez(folder / f"{kind}.npz", figures=figures, **weights)
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_equal_one_at_the_same_global_batch(tmp_path):
    """1,001 rows in steps of 50 leave one row over, which one rank alone gets; classes are counted on both."""
    settings = Train(epochs=2, batch_size=50, class_weights={"1": 3.0})
    processes.spawn(_rank, (2, tmp_path, settings), nprocs=2)
    for kind in KINDS:
        alone, outcome = fit(settings, model=model_of(kind, STILL), train=rows_of("binary", 1, 1001))
        together = np.load(tmp_path / f"{kind}.npz")
        for name, tensor in alone.state_dict().items():
            expected = tensor.numpy()
            np.testing.assert_allclose(together[name], expected, rtol=1e-3, atol=1e-5, err_msg=f"{kind} {name}")
        expected = [outcome.validation["auc"], outcome.history[0]["validation_auc"]]
        np.testing.assert_allclose(together["figures"], expected, atol=1e-4)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_row_without_a_target_is_left_out(task):
    """Whether it is a label, a value, or what a teacher thinks of every class; one NaN spoils its row."""
    features, target = rows_of(task, n=40)
    features.number[:, 0] = np.arange(40)
    if task == "multiclass":
        target = np.eye(3, dtype=np.float32)[target.astype(np.int64)]
        target[7, 2] = np.nan
    else:
        target[7] = np.nan
    loader = MemoryLoader(features, target, 8)
    assert loader.rows == 39
    for batches in (loader.shuffled(0), loader.in_order()):
        met = []
        for batch in batches:
            assert batch.target.shape == (batch.rows, *target.shape[1:])
            rows = batch.number[:, 0].long().tolist()
            np.testing.assert_array_equal(batch.target.numpy(), target[rows])
            met += rows
        assert sorted(met) == [row for row in range(40) if row != 7]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_teacher_who_knows_teaches_without_labels(task):
    """No row has a label, only what a teacher thinks of it; the validation rows keep theirs."""
    settings = Train(epochs=10, batch_size=64, learning_rate=0.01)
    teacher, _ = fit(settings, task)
    features, _ = rows_of(task, 4)
    answers = teacher.score(torch.from_numpy(features.number), torch.from_numpy(features.category))
    _, outcome = fit(settings, task, train=(features, answers))
    figure, enough = {"binary": ("auc", 0.93), "multiclass": ("accuracy", 0.7), "regression": ("r2", 0.7)}[task]
    assert outcome.validation[figure] > enough


@pytest.mark.parametrize(("loss", "best"), [("squared", "mean"), ("absolute", "median"), ("quantile", "quantile")])
def test_a_regressions_loss_is_least_at_what_it_predicts(loss, best):
    target = TargetColumn("y", "regression", mean=10.0, std=2.0, regression_loss=loss, quantile=0.9)
    network = network_of(replace(plan_of("regression"), target=target))
    labels = torch.empty(4001).exponential_(0.1, generator=torch.Generator().manual_seed(0))
    wanted = {"mean": labels.mean(), "median": labels.median(), "quantile": labels.quantile(0.9)}[best]
    candidates = torch.linspace(0, 60, 1201)
    losses = [network.loss(((value - 10) / 2).expand(4001, 1), labels).item() for value in candidates]
    assert candidates[int(np.argmin(losses))] == pytest.approx(wanted.item(), abs=0.1)
