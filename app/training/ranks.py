"""How do the workers of one training add up? Sums and gathers over ranks; alone, nothing happens."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This worker's place among `size` workers that train one network on `device`."""

    index: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @staticmethod
    def here(device: torch.device) -> "Ranks":
        """Return this process's place in the default process group, or one alone when there is none."""
        if not dist.is_initialized():
            return Ranks(device=device)
        return Ranks(dist.get_rank(), dist.get_world_size(), device)

    def share(self, rows: int) -> slice:
        """Return this rank's contiguous share of `rows` rows; the shares differ by one row at most."""
        return slice(rows * self.index // self.size, rows * (self.index + 1) // self.size)

    def total(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the elementwise sum over all ranks."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, device=self.device)
        dist.all_reduce(summed)
        return summed.cpu().numpy()

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the rows (n, ...) of every rank, which may hold differing numbers of them, in rank order."""
        if self.size == 1:
            return values
        lengths = np.zeros(self.size)
        lengths[self.index] = len(values)
        lengths = self.total(lengths).astype(np.int64)
        padded = values.new_zeros((int(lengths.max()), *values.shape[1:]))
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths.tolist(), strict=True)])
