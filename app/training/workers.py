"""How do Ray's workers train one network? Ray Train starts them and replaces the lost; the rows are shared.

Rows in memory lie once in the object store and every worker reads them there; streams are cut into shards.
Epochs are saved by rank 0 in the workspace, so a group of any size goes on where the one before stopped.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from app.data.features import FeaturePlan
from app.spec import Spec
from app.training.checkpoint import Checkpoints
from app.training.loader import Parts, Streams
from app.training.loop import OnEpoch, Outcome, new_network, train_one
from app.training.ranks import Ranks
from app.training.resources import worker_need, worker_range, workers_use_gpu
from app.types import UserError
from app.workspace import resolve

if TYPE_CHECKING:
    from ray.data import Dataset


@dataclass(frozen=True)
class _Work:
    """What a worker is told. Rows in memory are in the object store; streams come as Ray Train's shards."""

    plan: FeaturePlan
    spec: Spec
    checkpoints: Checkpoints
    parts: "ray.ObjectRef[Parts] | None"
    weights: bytes | None
    lines: Queue | None


class _Result(NamedTuple):
    """What rank 0 gives back: the outcome and the weights (safetensors), or the user's mistake."""

    outcome: Outcome | None
    weights: bytes
    mistake: UserError | None


def train_on_workers(
    rows: "Parts | dict[str, Dataset]",
    plan: FeaturePlan,
    spec: Spec,
    checkpoints: Checkpoints,
    on_epoch: OnEpoch | None,
    weights: bytes | None = None,
) -> tuple[Outcome, bytes]:
    """Train with `spec.train.num_workers`, from `weights` on if given; return the outcome and the weights, safetensors.

    Raises UserError as `train_one`, and when the cluster can never hold the workers;
    `ray.train.TrainingFailedError` when workers were lost more than `train.max_failures` times.
    """
    settings = spec.train
    fewest, most = worker_range(settings)
    use_gpu = workers_use_gpu(settings)
    filesystem, path = resolve(checkpoints.uri)
    folder, _, run_id = path.rpartition("/")
    with _relayed(on_epoch) as lines:
        work = _Work(plan, spec, checkpoints, ray.put(rows) if isinstance(rows, Parts) else None, weights, lines)
        result = TorchTrainer(
            _train,  # type: ignore[arg-type]  # Ray's stubs know neither return values nor elastic ranges
            train_loop_config={"work": work},
            scaling_config=ray.train.ScalingConfig(
                num_workers=fewest if fewest == most else (fewest, most),  # type: ignore[arg-type]
                use_gpu=use_gpu,
                resources_per_worker=worker_need(settings, use_gpu),
            ),
            run_config=ray.train.RunConfig(
                name=run_id,
                storage_path=folder,
                storage_filesystem=filesystem,
                failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
            ),
            datasets=None if isinstance(rows, Parts) else {**rows},
        ).fit()
    found: _Result = result.return_value  # type: ignore[attr-defined]
    if found.outcome is None:
        assert found.mistake is not None, "no outcome without a mistake"
        raise found.mistake
    return found.outcome, found.weights


def _train(config: dict[str, _Work]) -> _Result:
    """Train as one rank of Ray Train's group."""
    work = config["work"]
    settings = work.spec.train
    torch.set_num_threads(max(1, int(settings.cpus_per_worker)))
    ranks = Ranks.here(get_device())
    rows: Parts | Streams
    if work.parts is None:
        train, validation = (ray.train.get_dataset_shard(part) for part in Parts._fields)
        rows = Streams(train, validation, work.plan.rows)
    else:
        rows = ray.get(work.parts)

    def on_epoch(line: dict[str, float]) -> None:
        if work.lines is not None and ranks.index == 0:
            work.lines.put(line)
        ray.train.report(line)

    network = new_network(work.plan, work.spec, work.weights)
    loaders = rows.loaders(settings, ranks)
    try:
        has_learned = work.weights is not None
        outcome = train_one(network, *loaders, settings, ranks, work.checkpoints, on_epoch, has_learned)
    except UserError as mistake:  # every rank finds the same one; raised here, Ray would try again and again
        return _Result(None, b"", mistake)
    return _Result(outcome, network.to_safetensors(), None)


@contextlib.contextmanager
def _relayed(on_epoch: OnEpoch | None) -> Iterator[Queue | None]:
    """Yield a queue whose lines reach `on_epoch` here, as they come; None when nobody listens."""
    if on_epoch is None:
        yield None
        return

    def listen() -> None:
        while (line := lines.get()) is not None:
            on_epoch(line)

    # Beside this process: were it on another node, that one's death would be this training's, which outlives its workers.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lines = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(listen)
        try:
            yield lines
        finally:
            lines.put(None)
        heard.result()
    lines.shutdown()
