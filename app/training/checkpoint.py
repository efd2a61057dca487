"""What does a training need to go on where it stopped? One safetensors file an epoch, in the workspace.

Tensors are the network's, the best network's so far and the optimiser's; everything else is JSON in the
file's metadata. A file is written whole or not at all, and nothing in it is ever executed.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field

import safetensors.torch
import torch

from app.data.features import FeaturePlan
from app.spec import Spec
from app.types import UserError
from app.workspace import delete, join, list_files, read_bytes, write_bytes

logger = logging.getLogger(__name__)

_KEPT = 2  # the newest, and the one before in case the newest cannot be read
_IRRELEVANT = {"num_workers", "cpus_per_worker", "use_gpu", "loader", "max_failures", "baseline"}


@dataclass
class Progress:
    """How far a training has come."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """A training after some epoch: its progress, and tensors by name and role (`network`, `best`, `optimizer`)."""

    progress: Progress
    tensors: dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in the folder `uri`; `identity` says what was trained."""

    uri: str
    identity: str

    @staticmethod
    def of(uri: str, plan: FeaturePlan, spec: Spec) -> "Checkpoints":
        """Return the checkpoints of training `spec.model` by `spec.train` on features by `plan`.

        How the work is spread (workers, GPUs, loader) may change between a stop and a resumption.
        """
        train = {key: value for key, value in spec.train.model_dump().items() if key not in _IRRELEVANT}
        what = json.dumps([plan.to_json(), spec.model.model_dump(), train], sort_keys=True)
        return Checkpoints(uri, hashlib.sha256(what.encode()).hexdigest())

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, then remove all but the newest two."""
        tensors = {
            f"{role}/{name}": tensor.detach().cpu().contiguous()
            for role, named in checkpoint.tensors.items()
            for name, tensor in named.items()
        }
        about = {"identity": self.identity, "progress": json.dumps(asdict(checkpoint.progress))}
        data = safetensors.torch.save(tensors, about)
        write_bytes(join(self.uri, f"epoch-{checkpoint.progress.epoch:06d}.safetensors"), data)
        for name in self._names()[_KEPT:]:
            delete(join(self.uri, name))

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that can be read, or None.

        Raises UserError when it is of another declaration or other data.
        """
        for name in self._names():
            try:
                data = read_bytes(join(self.uri, name))
                flat = safetensors.torch.load(data)
                about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            except ConnectionError:  # a store that is away has lost nothing
                raise
            except (OSError, ValueError, safetensors.SafetensorError) as error:
                logger.warning("checkpoint %s cannot be read (%s); trying the one before", name, error)
                continue
            if about["identity"] != self.identity:
                raise UserError(
                    f"{self.uri} holds checkpoints of another declaration or other data; "
                    "choose another run id, or remove that folder to start anew"
                )
            tensors: dict[str, dict[str, torch.Tensor]] = {}
            for key, tensor in flat.items():
                role, _, key = key.partition("/")
                tensors.setdefault(role, {})[key] = tensor
            return Checkpoint(Progress(**json.loads(about["progress"])), tensors)
        return None

    def _names(self) -> list[str]:
        """Return the checkpoints' names, the newest first."""
        return sorted((file.name for file in list_files(self.uri) if file.name.startswith("epoch-")), reverse=True)
