"""Where do a worker's batches come from? From arrays in memory, or from a stream of Ray Data blocks."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from app.data.encode import Examples
from app.spec import Train
from app.training.ranks import Ranks
from app.types import Features, Targets

if TYPE_CHECKING:
    from ray.data import DataIterator

_EVALUATION_ROWS = 8192
_SHUFFLE_BATCHES = 16


class Batch(NamedTuple):
    """This rank's rows of one step, on the training device; valid until the next batch is asked for.

    `share` is this rank's rows x ranks / rows of the whole step: DDP averages gradients over ranks, so a
    mean loss times `share` becomes the mean over all rows of the step. `rows` counts the rows that weigh.
    """

    number: torch.Tensor
    category: torch.Tensor
    target: torch.Tensor
    rows: int
    share: float


class Loader(Protocol):
    """One part (training or validation) of the rows, as one rank sees it."""

    rows: int
    """Training rows over all ranks, from which the learning rate's schedule is made."""

    def shuffled(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's training steps, equally many on every rank."""

    def in_order(self) -> Iterator[Batch]:
        """Yield this rank's rows once, in at least one batch."""


class MemoryLoader:
    """Batches of arrays that lie in memory (also read-only ones, as the object store gives them).

    Targets are (n,), labels or a teacher's probabilities of the positive class, or those of all classes (n, K). A row
    with a NaN in its target is left out.

    Every rank draws the same permutation from (seed, epoch) and takes its contiguous share of each step's
    rows, so that any number of workers takes the same steps. On CUDA the arrays move to the device whole
    when they fill less than half of what is free there.
    """

    def __init__(
        self,
        features: Features,
        target: Targets,
        batch_size: int,
        seed: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        ranks = ranks or Ranks()
        self._labelled = _labelled(target)
        self.rows = len(self._labelled)
        self._batch_size, self._seed, self._ranks = batch_size, seed, ranks
        arrays: list[npt.NDArray[np.generic]] = [features.number, features.category, target]
        self._source: _OnHost | _OnDevice
        if (
            ranks.device.type == "cuda"
            and 2 * sum(a.nbytes for a in arrays) < torch.cuda.mem_get_info(ranks.device)[0]
        ):
            self._source = _OnDevice(arrays, ranks.device)
        else:
            self._source = _OnHost(arrays, max(batch_size, _EVALUATION_ROWS), ranks.device)

    def shuffled(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's training steps; the last one holds what is left over."""
        order = self._labelled[np.random.default_rng((self._seed, epoch)).permutation(self.rows)]
        for start in range(0, self.rows, self._batch_size):
            step = order[start : start + self._batch_size]
            mine = step[self._ranks.share(len(step))]
            share = len(mine) * self._ranks.size / len(step)
            # A rank left without a row still takes part in the step, with one row that weighs nothing.
            yield Batch(*self._source.take(mine if len(mine) else step[:1]), len(mine), share)

    def in_order(self) -> Iterator[Batch]:
        """Yield this rank's contiguous share of the rows; one empty batch when it has none."""
        mine = self._labelled[self._ranks.share(self.rows)]
        for start in range(0, max(len(mine), 1), _EVALUATION_ROWS):
            index = mine[start : start + _EVALUATION_ROWS]
            yield Batch(*self._source.take(index), len(index), 1.0)


def _labelled(target: Targets) -> npt.NDArray[np.int64]:
    """Return the places of rows with a target (n,) or (n, K)."""
    unknown = np.isnan(target)
    return np.flatnonzero(~(unknown.any(axis=1) if target.ndim == 2 else unknown))


_Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class _OnDevice:
    """The arrays themselves are on the device."""

    def __init__(self, arrays: Sequence[npt.NDArray[np.generic]], device: torch.device) -> None:
        self._tensors = [torch.tensor(array, device=device) for array in arrays]
        self._device = device

    def take(self, index: npt.NDArray[np.int64]) -> _Tensors:
        rows = torch.from_numpy(index).to(self._device)
        number, category, target = (tensor.index_select(0, rows) for tensor in self._tensors)
        return number, category, target


class _OnHost:
    """The arrays stay on the host, and rows are gathered into buffers.

    On the CPU these are made once. For CUDA they are pinned, and torch's host allocator gives a block out
    again only when its copy has arrived, so that copies overlap with the work on the device.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[np.generic]], rows: int, device: torch.device) -> None:
        self._arrays, self._device = arrays, device
        self._buffers = [torch.from_numpy(np.empty((rows, *a.shape[1:]), a.dtype)) for a in arrays]

    def take(self, index: npt.NDArray[np.int64]) -> _Tensors:
        filled = [buffer[: len(index)] for buffer in self._buffers]
        if self._device.type == "cuda":
            filled = [torch.empty_like(part, pin_memory=True) for part in filled]
        for array, part in zip(self._arrays, filled, strict=True):
            np.take(array, index, axis=0, out=part.numpy(), mode="clip")
        number, category, target = (part.to(self._device, non_blocking=True) for part in filled)
        return number, category, target


class StreamLoader:
    """Batches of a Ray Data shard with the columns number, category and target; memory stays bounded.

    Every row has a target, as `app.data.encode.dataset` gives them.

    Blocks come in the order in which they were read and rows are shuffled within a window of 16 steps, so two
    runs agree in quality, not bit for bit. Ray cuts the shards equally long: every rank takes the same steps, and
    the short one last.
    """

    def __init__(
        self,
        shard: "DataIterator",
        rows: int,
        batch_size: int,
        seed: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        self.rows = rows
        self._shard, self._seed, self._ranks = shard, seed, ranks or Ranks()
        self._batch_size = math.ceil(batch_size / self._ranks.size)

    def shuffled(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's training steps."""
        seed = int(np.random.SeedSequence((self._seed, epoch, self._ranks.index)).generate_state(1)[0])
        return self._batches(self._batch_size, _SHUFFLE_BATCHES * self._batch_size, seed)

    def in_order(self) -> Iterator[Batch]:
        """Yield this rank's shard once."""
        return self._batches(_EVALUATION_ROWS, None, None)

    def _batches(self, batch_size: int, window: int | None, seed: int | None) -> Iterator[Batch]:
        batches = self._shard.iter_torch_batches(
            batch_size=batch_size,
            local_shuffle_buffer_size=window,
            local_shuffle_seed=seed,
            prefetch_batches=1,  # more are formatted by as many threads, and arrive in any order
            device=str(self._ranks.device),
        )
        for batch in batches:
            target = batch["target"]
            yield Batch(batch["number"], batch["category"], target, len(target), 1.0)


class Parts(NamedTuple):
    """The examples of a training, in memory."""

    train: Examples
    validation: Examples

    def loaders(self, settings: Train, ranks: Ranks) -> tuple[Loader, Loader]:
        """Return a rank's loaders of both parts."""
        batch_size = settings.rows_of_step(len(_labelled(self.train.target)))
        train, validation = (
            MemoryLoader(part.features, part.target, batch_size, settings.seed, ranks) for part in self
        )
        return train, validation


class Streams(NamedTuple):
    """A rank's shards of a training's examples."""

    train: "DataIterator"
    validation: "DataIterator"
    rows: int
    """Training rows over all ranks."""

    def loaders(self, settings: Train, ranks: Ranks) -> tuple[Loader, Loader]:
        """Return a rank's loaders of both parts."""
        batch_size = settings.rows_of_step(self.rows)
        train, validation = (
            StreamLoader(part, self.rows, batch_size, settings.seed, ranks) for part in (self.train, self.validation)
        )
        return train, validation
