"""Training in the driver and on Ray's workers is one and the same, whatever gets killed on the way."""

import math
import os
import signal

import numpy as np
import pytest
import ray
import torch

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.network import Network
from app.spec import Spec
from app.training.checkpoint import Checkpoints
from app.training.loader import Parts, StreamLoader
from app.training.loop import learning_rate, new_network, train_one
from app.training.metrics import evaluate
from app.training.progress import show_epochs
from app.training.resources import workers_use_gpu
from app.training.trainer import train
from app.training.workers import train_on_workers
from app.types import Features, UserError
from app.workspace import Workspace

QUANTILES = tuple(np.linspace(-3, 3, 257).tolist())
PLAN = FeaturePlan(
    tuple(NumberColumn(f"x{i}", nulls=0.1, quantiles=QUANTILES) for i in range(2)),
    (CategoryColumn("c", "string", tuple("pqrs")),),
    TargetColumn("y", "binary", (0, 1)),
    rows=1001,
)


def examples_of(seed, n):
    random = np.random.default_rng(seed)
    number = random.normal(size=(n, 2)).astype(np.float32)
    number[random.uniform(size=(n, 2)) < 0.1] = np.nan
    category = random.integers(0, 6, (n, 1))
    signal = np.nan_to_num(number[:, 0], nan=2.0) + np.array([0, 0, 2, -2, 1, -1])[category[:, 0]]
    target = (signal + random.normal(0, 0.5, n) > 0).astype(np.float32)
    return Examples(Features(number, category), target, np.arange(n), np.arange(n))


PARTS = Parts(examples_of(1, 1001), examples_of(2, 500))


def spec_of(**train):
    train = {"epochs": 4, "batch_size": 50, **train}
    model = {"width": 32, "depth": 1, "dropout": 0.0, "number_embedding": 4, "frequencies": 4}
    declared = {"name": "x", "task": {"target": "y"}, "data": {"source": "x"}, "train": train, "model": model}
    return Spec.model_validate(declared)


def assert_same_weights(first, second, tolerance):
    for (name, left), right in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance, msg=name)


class StoppedError(Exception):
    """The driver goes away."""


def stop_after(epoch):
    def stop(line):
        if line["epoch"] == epoch:
            raise StoppedError

    return stop


def test_training_in_the_driver_gives_a_calibrated_network_ready_to_score(tmp_path):
    threads = torch.get_num_threads()
    trained = train(PARTS, PLAN, spec_of(learning_rate=0.01), Workspace(str(tmp_path)), "one")
    assert not trained.network.training
    assert trained.network.temperature.item() != 1.0
    assert trained.validation["auc"] > 0.9
    assert trained.validation["rows"] == 500
    assert trained.seconds > sum(line["seconds"] for line in trained.history)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("unlabelled", [0, 900])
def test_the_batch_left_to_the_rows_gives_steps_and_schedule_alike(tmp_path, unlabelled):
    """Rows without a target are no rows to learn from, nor to make the schedule of."""
    spec = spec_of(batch_size="auto", warmup=0, patience=100)
    examples = examples_of(1, 3000)
    examples.target[:unlabelled] = np.nan
    trained = train(PARTS._replace(train=examples), PLAN, spec, Workspace(str(tmp_path)), "auto")
    rows = 3000 - unlabelled
    steps = 4 * math.ceil(rows / (rows // 40))
    last = learning_rate(spec.train, steps - 1, steps)
    assert trained.history[-1]["learning_rate"] == last < 1e-2 * spec.train.learning_rate


def test_a_training_from_weights_on_begins_as_what_they_are_whatever_classes_weigh(tmp_path):
    workspace = Workspace(str(tmp_path))
    champion = train(PARTS, PLAN, spec_of(learning_rate=0.01), workspace, "champion").network
    champion.temperature.fill_(1.0)
    still = spec_of(epochs=1, learning_rate=1e-12, weight_decay=0, class_weights={"1": 20.0})
    weights = champion.to_safetensors()
    again = train(PARTS, PLAN, still, workspace, "again", weights=weights).network
    again.temperature.fill_(1.0)
    features = [torch.from_numpy(matrix) for matrix in PARTS.validation.features]
    np.testing.assert_allclose(again.score(*features), champion.score(*features), atol=1e-5)


def test_the_same_run_id_goes_on_and_another_starts_anew(tmp_path):
    workspace = Workspace(str(tmp_path))
    with pytest.raises(StoppedError):
        train(PARTS, PLAN, spec_of(), workspace, "one", stop_after(2))
    seen = []
    resumed = train(PARTS, PLAN, spec_of(), workspace, "one", seen.append)
    assert [line["epoch"] for line in seen] == [3, 4]
    straight = train(PARTS, PLAN, spec_of(), workspace, "two", seen.append)
    assert len(seen) == 6
    assert_same_weights(straight.network, resumed.network, 0.0)
    with pytest.raises(UserError, match="choose another run id"):
        train(PARTS, PLAN, spec_of(learning_rate=0.1), workspace, "one")


def test_a_log_gets_a_line_an_epoch(caplog):
    line = {"epoch": 1, "train_loss": 0.5, "validation_loss": 0.25, "validation_auc": 0.75, "rows_per_second": 1e5}
    with caplog.at_level("INFO"), show_epochs(3) as on_epoch:
        on_epoch(line)
        on_epoch({"epoch": 4.0, "rounds": 200, "validation_loss": 0.25})  # an average's trees know of no epochs
    assert caplog.messages == [
        "epoch 1 of 3: loss 0.5000, validation 0.2500, auc 0.7500, 100,000 rows/s",
        "200 trees: validation 0.2500",
    ]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    line = {"epoch": 1, "train_loss": 0.5, "validation_loss": 0.25, "validation_rmse": 2.0, "rows_per_second": 1e5}
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with show_epochs(3) as on_epoch:
        on_epoch(line)
        on_epoch({"epoch": 4.0, "rounds": 200, "validation_loss": 0.25})
    shown = capsys.readouterr().out
    assert "1/3" in shown
    assert "200 trees, validation 0.2500" in shown
    assert "4/3" not in shown


@pytest.mark.ray
def test_workers_that_can_never_be_had_are_refused(ray_session, tmp_path):
    with pytest.raises(UserError, match=r"asks for 40 workers with 1 CPU each, but the cluster can hold \d+;"):
        train(PARTS, PLAN, spec_of(num_workers=40), Workspace(str(tmp_path)), "one")
    with pytest.raises(UserError, match="asks for 1 workers with 1 CPU and 1 GPU each, but the cluster can hold 0;"):
        train(PARTS, PLAN, spec_of(num_workers=1, use_gpu=True), Workspace(str(tmp_path)), "one")
    assert not workers_use_gpu(spec_of(num_workers=1, use_gpu="auto").train)


@pytest.mark.ray
def test_a_stream_trains_as_well_as_memory(ray_session):
    parts = [ray.data.from_numpy(np.arange(len(part.target))).map_batches(_rows, fn_args=[part]) for part in PARTS]
    spec = spec_of(learning_rate=0.01)
    loaders = [StreamLoader(part.iterator(), 1001, 50) for part in parts]
    steps = [batch.rows for batch in loaders[0].shuffled(0)]
    assert steps == [50] * 20 + [1]
    outcome = train_one(new_network(PLAN, spec), *loaders, spec.train)
    assert outcome.validation["rows"] == 500
    assert outcome.validation["auc"] > 0.9


@pytest.mark.ray
@pytest.mark.slow  # the way of tables larger than memory: Ray Train cuts the streams for its workers
def test_streams_are_shared_by_workers(ray_session, tmp_path):
    numbers = ray.data.from_numpy(np.arange(1000))
    streams = {part: numbers.map_batches(_rows, fn_args=[getattr(PARTS, part)]) for part in ("train", "validation")}
    streams["validation"] = streams["validation"].limit(400)
    spec = spec_of(num_workers=2, learning_rate=0.01)
    outcome, weights = train_on_workers(streams, PLAN, spec, Checkpoints.of(str(tmp_path / "run"), PLAN, spec), None)
    assert [line["epoch"] for line in outcome.history] == [1, 2, 3, 4]
    assert outcome.validation["rows"] == 400
    assert outcome.validation["auc"] > 0.9
    trained = Network.from_safetensors(weights, PLAN, spec.model)
    scores = trained.score(*(torch.from_numpy(matrix) for matrix in PARTS.validation.features))
    assert evaluate(PLAN.target, scores, PARTS.validation.target)["auc"] > 0.9


@pytest.mark.ray
@pytest.mark.slow  # what is told to the loop has to reach the workers, too
def test_workers_begin_as_what_the_weights_are_whatever_classes_weigh(ray_session, tmp_path):
    workspace, features = Workspace(str(tmp_path)), [torch.from_numpy(matrix) for matrix in PARTS.validation.features]
    champion = new_network(PLAN, spec_of())
    still = spec_of(epochs=1, learning_rate=1e-12, weight_decay=0, class_weights={"1": 20.0}, num_workers=1)
    again = train(PARTS, PLAN, still, workspace, "again", weights=champion.to_safetensors()).network
    again.temperature.fill_(1.0)
    np.testing.assert_allclose(again.score(*features), champion.score(*features), atol=1e-5)


@pytest.mark.ray
@pytest.mark.slow  # a worker's UserError must come back as one, and at once: Ray would try it three times more
def test_a_mistake_found_by_workers_is_told_as_one(ray_session, tmp_path):
    with pytest.raises(UserError, match="diverged in epoch 1"):
        train(PARTS, PLAN, spec_of(num_workers=1, learning_rate=1e30), Workspace(str(tmp_path)), "one")


def _rows(batch, part):
    index = batch["data"] % len(part.target)
    return {
        "number": part.features.number[index],
        "category": part.features.category[index],
        "target": part.target[index],
    }


@pytest.fixture(scope="module")
def killed_run(ray_session, tmp_path_factory):
    """A run that is stopped in the driver, goes on with two workers, and loses one of them to SIGKILL."""
    workspace = Workspace(str(tmp_path_factory.mktemp("workspace")))
    with pytest.raises(StoppedError):
        train(PARTS, PLAN, spec_of(epochs=6), workspace, "killed", stop_after(1))
    seen = []

    def kill(line):
        seen.append(line["epoch"])
        if line["epoch"] == 2:
            from ray._private.state import actors

            workers = [
                a for a in actors().values() if a["State"] == "ALIVE" and "RayTrainWorker" in a["ActorClassName"]
            ]
            assert len(workers) == 2
            os.kill(workers[-1]["Pid"], signal.SIGKILL)

    # Epochs enough that workers are at it still where this process hears of the second one some seconds late.
    spread = spec_of(epochs=6, num_workers={"min": 1, "max": 2}, cpus_per_worker=1)
    return train(PARTS, PLAN, spread, workspace, "killed", kill), seen


@pytest.mark.ray
@pytest.mark.slow  # the real thing: Ray starts a group of workers twice
def test_a_killed_worker_costs_no_epoch(killed_run):
    trained, seen = killed_run
    assert [line["epoch"] for line in trained.history] == [1, 2, 3, 4, 5, 6]
    # Who is killed between saving an epoch and telling it has told nothing; it is in the history all the same.
    assert len({*range(2, 7)} - {*seen}) <= 1
    assert {*seen} <= {*range(2, 7)}
    assert (seen[0], seen[-1]) == (2, 6)


@pytest.mark.ray
@pytest.mark.slow  # shares the run above
def test_workers_end_in_the_weights_that_the_driver_alone_ends_in(killed_run, tmp_path):
    trained, _ = killed_run
    alone = train(PARTS, PLAN, spec_of(epochs=6), Workspace(str(tmp_path)), "alone")
    assert_same_weights(alone.network, trained.network, 1e-3)
    assert trained.validation["rows"] == 500
    assert trained.validation["auc"] == pytest.approx(alone.validation["auc"], abs=1e-4)
