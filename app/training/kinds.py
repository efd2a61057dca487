"""How is a model of the declared kind trained? One way for all: rows go in, out comes the graph that serves.

- `network`, `tabm`, `linear`: networks, trained by `app.training.trainer`, wherever that trains.
- `lightgbm`: boosted trees, trained here.
- `average`: each member in turn; the graph gives the mean of their scores.
- `auto`: each member and, where there are several, their average; the one with the least loss on the validation rows.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from app.data.features import FeaturePlan
from app.data.loss import row_loss
from app.model import average as averages
from app.model import trees
from app.model.export import to_onnx
from app.model.runtime import Runtime
from app.spec import Model, Single, Spec
from app.training.baseline import train_baseline
from app.training.loader import Parts
from app.training.resources import cpu_count
from app.training.trainer import train
from app.training.warm_start import Learned, warm_start
from app.types import DivergedError, UserError
from app.workspace import Workspace

if TYPE_CHECKING:
    from app.data.prepare import Prepared

log = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
TREES = "trees.txt"

OnEpoch = Callable[[dict[str, float]], None]


class Start(Protocol):
    """What a training may go on from, such as a bundle."""

    @property
    def learned(self) -> Mapping[str, bytes]: ...
    @property
    def plan(self) -> FeaturePlan: ...
    @property
    def spec(self) -> Spec: ...


@dataclass(frozen=True)
class Fitted:
    """A trained model of any kind.

    `model` is what was trained: never `auto`, but the kind that won. `learned` is what a later training goes on from,
    by file name: a network's weights, boosted trees as LightGBM's text; of an average, each member's in a folder.
    `loss` is the graph's mean row loss on the validation rows; `considered` that of every kind that competed.
    `rows_per_second` counts a network's training steps alone; None where no network was trained.
    """

    model: Model
    onnx: bytes
    learned: dict[str, bytes]
    history: list[dict[str, float]]
    loss: float
    rows_per_second: float | None
    seconds: float
    considered: dict[str, float] = field(default_factory=dict)


def fit_model(
    parts: Parts,
    plan: FeaturePlan,
    spec: Spec,
    workspace: Workspace,
    run: str,
    on_epoch: OnEpoch | None = None,
    start: Start | None = None,
    threads: int = 0,
    stream: "Prepared | None" = None,
) -> Fitted:
    """Train the declared kind on rows in memory; networks read those of `stream`, where it is given, block by block.

    A `run` that was stopped goes on after its newest checkpoint. `start` is what networks of the same kind and shape
    begin as. `on_epoch` gets a line of figures every epoch, or every 50 trees; what it raises ends the training.
    `threads` are those of this process, all CPUs it may use unless told.

    Raises UserError as `app.training.trainer.train`.
    """
    fit = _Fit(parts, plan, spec, workspace, run, on_epoch, start, threads or cpu_count(), stream)
    return fit.kind(spec.model)


@dataclass(frozen=True)
class _Fit:
    """One call of `fit_model`, and what its members share."""

    parts: Parts
    plan: FeaturePlan
    spec: Spec
    workspace: Workspace
    run: str
    on_epoch: OnEpoch | None
    start: Start | None
    threads: int
    stream: "Prepared | None"

    def kind(self, model: Model) -> Fitted:
        if model.kind == "auto":
            return self.best(model)
        if model.kind == "average":
            return self.average(model, [self.member(kind) for kind in model.members])
        return self.single(model, self.run)

    def member(self, kind: Single) -> Fitted:
        log.info("training %s", kind)
        return self.single(self.spec.model.model_copy(update={"kind": kind}), f"{self.run}/{kind}")

    def single(self, model: Model, run: str) -> Fitted:
        return self.boost(model) if model.kind == "lightgbm" else self.network(model, run)

    def network(self, model: Model, run: str) -> Fitted:
        spec = self.spec.model_copy(update={"model": model})
        learned = None if self.start is None else _learned(self.start, model.kind)
        weights = None if learned is None else warm_start(self.plan, spec, learned)
        if self.start is not None and weights is None:
            log.info("note: what there is to go on from is of another kind or shape; training begins anew")
        trained = train(
            self.stream or self.parts, self.plan, spec, self.workspace, run, self.on_epoch, weights, self.threads
        )
        onnx = to_onnx(trained.network)
        return Fitted(
            model=model,
            onnx=onnx,
            learned={WEIGHTS: trained.network.to_safetensors()},
            history=trained.history,
            loss=self.loss(onnx),
            rows_per_second=trained.rows_per_second,
            seconds=trained.seconds,
        )

    def boost(self, model: Model) -> Fitted:
        boosted = train_baseline(*self.parts, self.plan, self.spec, self.threads, self.on_epoch)
        onnx = trees.to_onnx(boosted.model, self.plan, np.array(boosted.shift))
        return Fitted(
            model=model,
            onnx=onnx,
            learned={TREES: boosted.model.encode()},
            history=boosted.history,
            loss=self.loss(onnx),
            rows_per_second=None,
            seconds=boosted.seconds,
        )

    def average(self, model: Model, members: list[Fitted]) -> Fitted:
        onnx = averages.average([member.onnx for member in members], self.plan)
        network = next((member for member in members if member.rows_per_second is not None), members[0])
        return Fitted(
            model=model.model_copy(update={"kind": "average", "members": [member.model.kind for member in members]}),
            onnx=onnx,
            learned={
                f"{member.model.kind}/{name}": data for member in members for name, data in member.learned.items()
            },
            history=network.history,
            loss=self.loss(onnx),
            rows_per_second=network.rows_per_second,
            seconds=sum(member.seconds for member in members),
        )

    def best(self, model: Model) -> Fitted:
        members = list(self.in_time(model))
        found = [*members, self.average(model, members)] if len(members) > 1 else members
        considered: dict[str, float] = {one.model.kind: one.loss for one in found}
        log.info("validation loss: %s", ", ".join(f"{kind} {loss:.4f}" for kind, loss in considered.items()))
        best = min(found, key=lambda one: one.loss)
        return replace(best, considered=considered, seconds=sum(member.seconds for member in members))

    def in_time(self, model: Model) -> Iterator[Fitted]:
        """Yield the members one after the other, as long as the budget lets another one begin; who diverges is out.

        Raises DivergedError when none is left.
        """
        budget, begin = self.spec.train.time_budget, time.monotonic()
        found, diverged = 0, None
        for i, kind in enumerate(model.members):
            if i and budget and time.monotonic() - begin >= budget.total_seconds():
                left = ", ".join(itertools.islice(model.members, i, None))
                log.info("note: train.time_budget is used up; not tried: %s", left)
                break
            try:
                member = self.member(kind)
            except DivergedError as error:
                log.warning("%s is out: %s", kind, error)
                diverged = error
            else:
                found += 1
                yield member
        if not found and diverged is not None:
            raise diverged

    def loss(self, onnx: bytes) -> float:
        """Return the graph's mean row loss on the labelled validation rows."""
        known = ~np.isnan(self.parts.validation.target)
        if not known.any():
            raise UserError("there are no labelled validation rows; see data.split and the counts of rejected rows")
        features, target = self.parts.validation.features.rows(known), self.parts.validation.target[known]
        scores = Runtime(onnx, self.plan, threads=self.threads).score(features)
        return float(row_loss(self.plan.target, scores, target).mean())


@dataclass(frozen=True)
class _Member:
    """A network within what a training may go on from."""

    weights: bytes
    plan: FeaturePlan
    spec: Spec


def _learned(start: Start, kind: str) -> Learned | None:
    """Return the network of this kind: all there is, or a member of an average."""
    name = WEIGHTS if start.spec.model.kind == kind else f"{kind}/{WEIGHTS}"
    weights = start.learned.get(name)
    spec = start.spec.model_copy(update={"model": start.spec.model.model_copy(update={"kind": kind})})
    return None if weights is None else _Member(weights, start.plan, spec)
