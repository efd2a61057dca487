"""Where is a network trained? In the driver, or by Ray Train's workers: the same loop and the same checkpoints."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from app.data.encode import dataset, load
from app.data.features import FeaturePlan
from app.data.prepare import Prepared
from app.model.network import Network
from app.spec import Spec
from app.training.checkpoint import Checkpoints
from app.training.loader import Parts, Streams
from app.training.loop import OnEpoch, choose_device, new_network, train_one
from app.training.ranks import Ranks
from app.training.resources import cpu_count, object_store_bytes
from app.workspace import Workspace

if TYPE_CHECKING:
    from ray.data import Dataset


@dataclass(frozen=True)
class Trained:
    """A trained network: on the CPU, in evaluation mode, calibrated.

    `history` has one line an epoch, with the figures before calibration; `validation` the exact ones after it.
    `rows_per_second` counts the training steps alone, `seconds` everything.
    """

    network: Network
    history: list[dict[str, float]]
    best_epoch: int
    validation: dict[str, float]
    rows_per_second: float
    seconds: float


def train(
    data: Prepared | Parts,
    plan: FeaturePlan,
    spec: Spec,
    workspace: Workspace,
    run_id: str,
    on_epoch: OnEpoch | None = None,
    weights: bytes | None = None,
    threads: int = 0,
) -> Trained:
    """Train the declared network; a run id that was stopped goes on after its newest checkpoint.

    `data` is a prepared table, read as `train.loader` says, or rows in memory. `weights` (safetensors of this plan's
    network) take the place of new ones, such as `app.training.warm_start` makes. `threads` are those of this process,
    all CPUs it may use unless told. With `train.num_workers` Ray must be initialised, and `on_epoch` gets the
    history's new lines in a thread of its own while Ray trains.

    Raises UserError when the cluster can never hold the workers, when a GPU is demanded and missing, when the
    run id's checkpoints are of another declaration, when a part has no rows, and when the training diverges.
    """
    begin = time.perf_counter()
    checkpoints = Checkpoints.of(workspace.uri(spec.name, "checkpoints", run_id), plan, spec)
    rows = data if isinstance(data, Parts) else _read(data, plan, spec)
    if spec.train.num_workers == 0:
        network = new_network(plan, spec, weights)
        ranks = Ranks(device=choose_device(spec.train.use_gpu))
        with _threads(threads or cpu_count()):
            loaders = _local(rows, plan).loaders(spec.train, ranks)
            outcome = train_one(
                network, *loaders, spec.train, ranks, checkpoints, on_epoch, has_learned=weights is not None
            )
    else:
        from app.training.workers import train_on_workers  # Ray Train is slow to import

        outcome, learned = train_on_workers(rows, plan, spec, checkpoints, on_epoch, weights)
        network = Network.from_safetensors(learned, plan, spec.model)
    return Trained(
        network.to("cpu").eval(),
        outcome.history,
        outcome.best_epoch,
        outcome.validation,
        outcome.rows_per_second,
        seconds=time.perf_counter() - begin,
    )


def _read(prepared: Prepared, plan: FeaturePlan, spec: Spec) -> "Parts | dict[str, Dataset]":
    """Return the rows in memory, or as streams where they are declared or too large."""
    loader = spec.train.loader
    if loader == "auto":
        width = 4 * len(plan.number) + 8 * len(plan.category) + 4 + 8 + 8
        fits = prepared.rows * width < object_store_bytes() / 3
        loader = "memory" if fits else "stream"
    if loader == "memory":
        return Parts(load(prepared, plan, "train"), load(prepared, plan, "validation"))
    return {part: dataset(prepared, plan, part) for part in Parts._fields}


def _local(rows: "Parts | dict[str, Dataset]", plan: FeaturePlan) -> Parts | Streams:
    """Return the rows as the driver reads them itself."""
    if isinstance(rows, Parts):
        return rows
    return Streams(rows["train"].iterator(), rows["validation"].iterator(), plan.rows)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch compute on `count` threads for a while, whatever the cluster's settings left it with."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
