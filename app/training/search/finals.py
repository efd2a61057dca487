"""Are the best trials better than the declared settings, or luckier? Both are trained again, and every row judges once.

The least of many losses on one set of rows is flattered by chance, and by settings that suit the days around the
judging ones but no others: on the flights of January and February the best of 24 trials was worse than the declared
settings on every later month. So the declared settings and the best trials meet again in a cross-validation over
contiguous stretches of days, each judged by models that learned from the other stretches. What is proven better there,
by the intervals that the gate goes by, takes the declared settings' place; where nothing is, they stay.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from app.data.encode import Examples, joined
from app.data.features import FeaturePlan
from app.data.loss import row_loss
from app.model.runtime import Runtime
from app.spec import Spec
from app.training.bootstrap import FEWEST_BLOCKS, Blocks, Floats, blocks_of_days, blocks_of_rows, intervals
from app.training.kinds import fit_model
from app.training.loader import Parts
from app.training.search.space import Settings
from app.training.search.trials import DECLARED, Record, Trial
from app.types import UserError
from app.workspace import Workspace, exists, join, read_bytes, write_bytes

FOLDS = 3
"""Stretches of days. Few, so that each is far from what the models that are judged on it have learned."""


@dataclass(frozen=True)
class Standing:
    """How a trial stands beside the declared settings over all stretches.

    `difference` is its mean row loss less theirs, between `low` and `high`; the intervals of all finalists hold together.
    """

    number: int
    difference: float
    low: float
    high: float

    @property
    def proven(self) -> bool:
        """Whether it is proven better."""
        return self.high < 0


class Losses(NamedTuple):
    """What a training adds to the mean loss: sums and counts of the rows that judged it, by block of days (blocks,)."""

    sums: Floats
    counts: Floats


@dataclass(frozen=True)
class Stretches:
    """The rows of training and validation in `FOLDS` stretches of whole blocks of days, about alike in rows.

    Rows without a time are in blocks by chance.
    """

    rows: Examples
    blocks: Blocks
    of_block: npt.NDArray[np.int64]

    @staticmethod
    def of(parts: Parts) -> "Stretches":
        """Divide the labelled rows."""
        rows = joined(*parts)
        rows = rows.chosen(~np.isnan(rows.target))
        blocks = blocks_of_days(rows.time) if len(rows.time) else blocks_of_rows(rows.position)
        before = np.cumsum(np.bincount(blocks.of_row, minlength=blocks.number))
        middle = before - np.bincount(blocks.of_row, minlength=blocks.number) / 2
        return Stretches(rows, blocks, (middle * FOLDS // max(1, len(rows.target))).astype(np.int64))

    def parts(self, fold: int) -> Parts:
        """Return the other stretches as training rows, and this one as those that validate and judge."""
        judge = self.of_block[self.blocks.of_row] == fold
        return Parts(self.rows.chosen(~judge), self.rows.chosen(judge))

    def losses(
        self, spec: Spec, plan: FeaturePlan, fold: int, workspace: Workspace, run: str, threads: int
    ) -> Losses:
        """Train on the other stretches and return the losses on this one. Raises UserError as `fit_model`."""
        parts = self.parts(fold)
        seeded = spec.with_settings({"train.seed": (spec.train.seed + 1 + fold) % 2**32})  # luck of a seed is none
        fitted = fit_model(parts, plan, seeded, workspace, run, threads=threads)
        scores = Runtime(fitted.onnx, plan, threads=threads).score(parts.validation.features)
        loss = row_loss(plan.target, scores, parts.validation.target)
        of_row = self.blocks.of_row[self.of_block[self.blocks.of_row] == fold]
        number = self.blocks.number
        sums, counts = np.bincount(of_row, loss, number), np.bincount(of_row, minlength=number)
        return Losses(sums.astype(np.float64), counts.astype(np.float64))


@dataclass(frozen=True)
class Heat:
    """One training: a trial's settings, judged on one stretch."""

    number: int
    fold: int
    settings: Settings = field(compare=False)

    @property
    def name(self) -> str:
        """Its name among files and checkpoints."""
        return f"final-{self.number:06d}-{self.fold + 1}-of-{FOLDS}"


def finalists(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Return the `count` best trials that finished with less loss than the declared settings, the best first."""
    [declared] = [trial for trial in trials if trial.number == DECLARED]
    assert declared.loss is not None
    better = [one for one in trials if one.state == "finished" and one.loss is not None and one.loss < declared.loss]
    return sorted(better, key=lambda one: (one.loss, one.number))[:count]


def heats(declared: Trial, others: Sequence[Trial]) -> Iterator[Heat]:
    """Yield all trainings: stretch by stretch, so that what is known after a kill compares alike."""
    for fold in range(FOLDS):
        for trial in (declared, *others):
            yield Heat(trial.number, fold, trial.settings)


def write_heat(record: Record, heat: Heat, losses: Losses) -> None:
    """Keep what came of a training that ended well; the next search tries again what did not."""
    told = {"sums": [*losses.sums], "counts": [*losses.counts]}
    write_bytes(join(record.uri, f"{heat.name}.json"), json.dumps(told).encode())


def read_heat(record: Record, heat: Heat) -> Losses | None:
    """Return what came of a training before; None where it is still to be done."""
    uri = join(record.uri, f"{heat.name}.json")
    if not exists(uri):
        return None
    told = json.loads(read_bytes(uri))
    return Losses(np.array(told["sums"]), np.array(told["counts"]))


def standings(spec: Spec, known: dict[Heat, Losses | str]) -> list[Standing]:
    """Compare every finalist with the declared settings, as far as the trainings of both came to an end.

    Nothing can be said, and the list is empty, where the rows fill too few blocks of days.
    """
    sums, counts, numbers = [], [], []
    by_trial: dict[int, list[Losses | str]] = {}
    for heat, found in known.items():
        by_trial.setdefault(heat.number, []).append(found)
    declared = _whole(by_trial.pop(DECLARED))
    for number, told in by_trial.items():
        if (whole := _whole(told)) is not None and declared is not None:
            numbers.append(number)
            sums.append(whole.sums - declared.sums)
            counts.append(whole.counts)
    if not numbers:
        return []
    gate = spec.gate
    filled = counts[0] > 0
    if filled.sum() < FEWEST_BLOCKS:
        return []
    means = intervals(
        np.stack(sums, axis=1)[filled],
        np.stack(counts, axis=1)[filled],
        gate.confidence,
        gate.resamples,
        spec.tune.seed,
    )
    ends = zip(numbers, means.mean, means.low, means.high, strict=True)
    return [Standing(number, float(mean), float(low), float(high)) for number, mean, low, high in ends]


def winner(found: Sequence[Standing]) -> int:
    """Return the number of the trial that is proven better, by the most; that of the declared settings where none is."""
    proven = [one for one in found if one.proven]
    return min(proven, key=lambda one: one.difference).number if proven else DECLARED


def _whole(found: Sequence[Losses | str]) -> Losses | None:
    """Add up the stretches; None where one failed."""
    if any(isinstance(one, str) for one in found):
        return None
    done = [one for one in found if not isinstance(one, str)]
    return Losses(np.sum([one.sums for one in done], axis=0), np.sum([one.counts for one in done], axis=0))


def describe_heat(found: Losses | str) -> str:
    """Tell what came of a training.

    >>> describe_heat(Losses(np.array([1.0, 2.0]), np.array([4.0, 4.0])))
    'loss 0.3750'
    """
    return f"failed: {found}" if isinstance(found, str) else f"loss {found.sums.sum() / found.counts.sum():.4f}"


def judge_heat(
    stretches: Stretches, plan: FeaturePlan, spec: Spec, heat: Heat, workspace: Workspace, run: str, threads: int
) -> Losses | str:
    """Train and judge; say why where it fails."""
    try:
        found = stretches.losses(spec, plan, heat.fold, workspace, f"{run}/{heat.name}", threads)
    except (UserError, MemoryError, torch.OutOfMemoryError) as error:
        return str(error) or "out of memory"
    return found if np.isfinite(found.sums).all() else "training diverged"
