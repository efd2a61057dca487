"""How is a network trained? One worker's loop in plain torch: alone in the driver, or one rank among many.

Any number of ranks takes the same steps over the same rows; what differs is float rounding, and the rows
that dropout meets. A training that resumes from a checkpoint ends in the same weights as one that never stopped.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from app.data.features import FeaturePlan
from app.model.network import Network
from app.spec import Spec, Train
from app.training.checkpoint import Checkpoint, Checkpoints, Progress
from app.training.class_weights import class_weights, count_classes, shift_of
from app.training.loader import Loader
from app.training.metrics import Tally, evaluate
from app.training.ranks import Ranks
from app.types import DivergedError, UserError

OnEpoch = Callable[[dict[str, float]], None]
"""Called with each new line of the history, on every rank."""


@dataclass(frozen=True)
class Outcome:
    """A finished training; the network itself holds the best weights, calibrated.

    `history` has one line an epoch; `validation` the exact figures of the calibrated scores; `seconds` and
    `rows_per_second` count the training steps alone, over all ranks.
    """

    history: list[dict[str, float]]
    best_epoch: int
    validation: dict[str, float]
    seconds: float
    rows_per_second: float


def train_one(
    network: Network,
    train: Loader,
    validation: Loader,
    settings: Train,
    ranks: Ranks | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: OnEpoch | None = None,
    has_learned: bool = False,
) -> Outcome:
    """Train `network` in place on `ranks.device`, stop early, go back to the best weights and calibrate them.

    AdamW (Loshchilov and Hutter, 2019), a linear warm-up and a cosine to zero, clipped gradients. With
    `checkpoints`, rank 0 saves after every epoch and every rank begins at the newest one. A network that
    `has_learned` gives the probabilities of rows as they are, and begins as these whatever `class_weights` says.

    Raises UserError when a part is empty, the loss is no longer finite, or there are no such classes to weigh.
    """
    ranks = ranks or Ranks()
    device = ranks.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _tensor_cores(device):
        training = _Training(network.to(device), train, validation, settings, ranks, checkpoints, has_learned)
        return training.run(on_epoch)


def new_network(plan: FeaturePlan, spec: Spec, weights: bytes | None = None) -> Network:
    """Return the network that training begins with: that of the declared seed, or of `weights` (safetensors).

    The caller's randomness is left alone.
    """
    if weights is not None:
        return Network.from_safetensors(weights, plan, spec.model)
    with torch.random.fork_rng([]):
        torch.manual_seed(spec.train.seed)
        return Network(plan, spec.model)


def choose_device(use_gpu: Literal["auto"] | bool) -> torch.device:
    """Return where this process trains. Raises UserError when a GPU is demanded and there is none."""
    if use_gpu is True and not torch.cuda.is_available():
        raise UserError("train.use_gpu is true, but torch finds no CUDA device here; allowed: auto or false")
    return torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")


def learning_rate(settings: Train, step: int, steps: int) -> float:
    """Return the rate of a step: up linearly for the warm-up's fraction of all steps, then a cosine to zero."""
    rising = max(1, round(settings.warmup * steps))
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    done = min(1.0, (step - rising) / max(1, steps - rising))
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class _Training:
    """One run of `train_one`, and what its epochs share."""

    def __init__(
        self,
        network: Network,
        train: Loader,
        validation: Loader,
        settings: Train,
        ranks: Ranks,
        checkpoints: Checkpoints | None,
        has_learned: bool,
    ) -> None:
        self._network, self._train, self._validation = network, train, validation
        self._settings, self._ranks, self._checkpoints = settings, ranks, checkpoints
        self._parallel = DistributedDataParallel(network, broadcast_buffers=False) if ranks.size > 1 else network
        self._parameters = list(network.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self._half = _half(settings, ranks.device)
        self._weights, self._shift = self._class_weights()
        if has_learned:  # training is where the weights are; what is taken out in the end goes in first
            network.shift(-self._shift)
        self._progress = Progress()
        self._best = _copy(network)

    def run(self, on_epoch: OnEpoch | None) -> Outcome:
        self._resume()
        progress, settings = self._progress, self._settings
        while progress.epoch < settings.epochs and progress.epoch - progress.best_epoch < settings.patience:
            line = self._epoch()
            progress.epoch += 1
            progress.history.append(line)
            if line["validation_loss"] < progress.best_loss:
                progress.best_loss, progress.best_epoch = line["validation_loss"], progress.epoch
                self._best = _copy(self._network)
            if self._checkpoints and self._ranks.index == 0:
                self._checkpoints.save(self._checkpoint())
            if on_epoch:
                on_epoch(line)
        return self._finish()

    def _epoch(self) -> dict[str, float]:
        """Take one epoch's steps and validate; return the history's line."""
        epoch = self._progress.epoch
        begin = time.perf_counter()
        train_loss, rows, rate = self._steps(epoch)
        between = time.perf_counter()
        validation_loss, figures = self._validate()
        if not math.isfinite(train_loss + validation_loss):
            raise DivergedError(
                f"training diverged in epoch {epoch + 1}: training loss {train_loss}, validation loss "
                f"{validation_loss}; try a train.learning_rate below {self._settings.learning_rate:g}"
            )
        return {
            "epoch": epoch + 1,
            "learning_rate": rate,
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            **{f"validation_{name}": value for name, value in figures.items() if name != "rows"},
            "seconds": between - begin,
            "validation_seconds": time.perf_counter() - between,
            "rows_per_second": rows / (between - begin),
        }

    def _steps(self, epoch: int) -> tuple[float, float, float]:
        """Return mean loss and number of the epoch's rows over all ranks, and the last step's rate."""
        torch.manual_seed(int(_seeds(self._settings.seed, epoch, self._ranks.index)))
        self._network.train()
        in_epoch = math.ceil(self._train.rows / self._settings.rows_of_step(self._train.rows))
        loss_sum = torch.zeros((), device=self._ranks.device)
        rows, rate = 0, 0.0
        for step, batch in enumerate(self._train.shuffled(epoch), start=epoch * in_epoch):
            rate = learning_rate(self._settings, step, self._settings.epochs * in_epoch)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            with self._half:
                logits = self._parallel(batch.number, batch.category)
            loss = self._network.loss(logits.float(), batch.target, self._weights)
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss * batch.share)
            torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.gradient_clip)
            self._optimizer.step()
            loss_sum += loss.detach() * batch.rows
            rows += batch.rows
        # Reading the sum waits for the device, so that the clock has seen all of the work.
        mean, total = self._mean(loss_sum.item(), rows, "training")
        return mean, total, rate

    def _validate(self) -> tuple[float, dict[str, float]]:
        """Return mean loss and figures over all ranks' validation rows."""
        column = self._network.plan.target
        loss_sum, rows, tally = 0.0, 0, Tally.zero(column)
        for logits, target in self._logits():
            if len(target):
                loss_sum += self._network.loss(logits, target, self._weights).item() * len(target)
                rows += len(target)
                scores = self._network.to_scores(logits + self._shift)
                tally = tally.merge(Tally.of(column, scores, target.cpu().numpy()))
        mean, _ = self._mean(loss_sum, rows, "validation")
        return mean, Tally(column, self._ranks.total(tally.state)).figures()

    def _class_weights(self) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return the classes' weights, and what takes them out of the logits again."""
        column, device = self._network.plan.target, self._ranks.device
        if self._settings.class_weights == "none":
            return None, torch.zeros((), device=device)
        if column.task == "regression":
            raise UserError(
                f"train.class_weights is for classes; {column.name!r} is found to be a regression's target"
            )
        rows = [count_classes(column, batch.target.cpu().numpy()) for batch in self._train.in_order() if batch.rows]
        classes = 2 if column.task == "binary" else column.outputs
        weights = class_weights(self._settings, column, self._ranks.total(sum(rows, np.zeros(classes))))
        both = weights, shift_of(column, weights)
        tensors = [torch.tensor(values, dtype=torch.float32, device=device) for values in both]
        return tensors[0], tensors[1]

    def _mean(self, loss_sum: float, rows: int, part: str) -> tuple[float, float]:
        """Return mean loss and number of rows over all ranks."""
        loss_total, row_total = self._ranks.total(np.array([loss_sum, rows])).tolist()
        if row_total == 0:
            raise UserError(f"there are no labelled {part} rows; see data.split and the counts of rejected rows")
        return loss_total / row_total, row_total

    @torch.no_grad()
    def _logits(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield float32 logits and targets of this rank's validation rows, in evaluation mode."""
        self._network.eval()
        for batch in self._validation.in_order():
            with self._half:
                logits = self._network(batch.number, batch.category)
            yield logits.float(), batch.target.clone()

    def _finish(self) -> Outcome:
        """Go back to the best weights, take the classes' weights out, calibrate on all ranks' rows, measure exactly."""
        network, progress = self._network, self._progress
        network.load_state_dict(self._best)
        network.shift(self._shift)
        logits, targets = zip(*self._logits(), strict=True)
        logit, target = self._ranks.gather(torch.cat(logits)), self._ranks.gather(torch.cat(targets))
        network.calibrate(logit, target)
        figures = evaluate(network.plan.target, network.to_scores(logit), target.cpu().numpy())
        seconds = sum(line["seconds"] for line in progress.history)
        rows = sum(line["seconds"] * line["rows_per_second"] for line in progress.history)
        return Outcome(progress.history, progress.best_epoch, figures, seconds, rows / seconds)

    def _checkpoint(self) -> Checkpoint:
        moments = {
            f"{index}/{name}": tensor
            for index, state in self._optimizer.state_dict()["state"].items()
            for name, tensor in state.items()
        }
        tensors = {"network": dict(self._network.state_dict()), "best": self._best, "optimizer": moments}
        return Checkpoint(self._progress, tensors)

    def _resume(self) -> None:
        found = self._checkpoints.newest() if self._checkpoints else None
        if found is None:
            return
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in found.tensors["optimizer"].items():
            index, _, name = key.partition("/")
            state.setdefault(int(index), {})[name] = tensor
        self._progress, self._best = found.progress, found.tensors["best"]
        self._network.load_state_dict(found.tensors["network"])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _seeds(*entropy: int) -> np.uint64:
    return np.uint64(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def _copy(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _half(settings: Train, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the forward pass's precision: bfloat16 where it is asked for, or where the GPU has it."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    wanted = settings.precision == "bfloat16" or (settings.precision == "auto" and able)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


@contextlib.contextmanager
def _tensor_cores(device: torch.device) -> Iterator[None]:
    """Let what stays float32 on a GPU use TF32 for as long as training lasts."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
