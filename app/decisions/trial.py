"""What has a version on trial shown so far? Sums of the monitor's figures since its stage began.

The figures are a fold over the journal, so what a rollout was judged by can be summed up again from it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from app.decisions.ledger import Entry, Kind
from app.decisions.proof import FEWEST_ROWS, Interval, Sums, fewest_rows, interval
from app.decisions.situation import Champion, Situation, link
from app.monitor.figures import FIGURES, Figures
from app.monitor.state import Monitor
from app.telemetry import DURATION_BOUNDS

Floats: TypeAlias = npt.NDArray[np.float64]
Role: TypeAlias = Literal["champion", "challenger", "shadow"]

_ON_TRIAL: tuple[Role, Role] = ("shadow", "challenger")
_DAY = 86_400_000
_EDGES: tuple[float, ...] = (0.0, *DURATION_BOUNDS, 2.0 * DURATION_BOUNDS[-1])


@dataclass(frozen=True)
class Stage:
    """Where a rollout stands: the version on trial, the one it is held against, and since when.

    `role` is the trial's: shadow, challenger, or champion while it is watched. `step` and `at` (event ms) are where
    the stage began, `written` (ms) is when by the clock; the trial as a whole began at `trial_step` and `trial_at`.
    """

    role: Role
    share: float
    trial: Champion
    other: Champion
    step: int
    at: int
    written: int
    trial_step: int
    trial_at: int
    retrained: str


@dataclass(frozen=True)
class Measured:
    """What a stage has shown, and the other version meanwhile; None where there was nothing to see.

    `call` and `row` are seconds: the median scoring call's, and those of all calls by row; `tail` is what 1 % of the
    calls took at least. `shift` is the mean distance of the two versions' scores of the
    same rows (of a regression in standard deviations of the target). `difference` is the mean loss of the trial less the other's, on the same `paired_labelled` rows.
    """

    rows: int
    other_rows: int
    failures: int
    calls: int
    call: float | None
    other_call: float | None
    row: float | None
    other_row: float | None
    tail: float | None
    other_tail: float | None
    pairs: int
    shift: float | None
    labelled: int
    paired_labelled: int
    difference: Interval
    seconds: float
    waited: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, once JSON has made nulls of what is not finite."""
        return asdict(self) | {"difference": self.difference._asdict()}


def stage_of(entries: Sequence[Entry]) -> Stage | None:
    """Return where the rollout stands by the ledger; None when there is none."""
    last = link(entries)
    if last is None or last.kind not in ("shadow", "stage", "promote"):
        return None
    begun = [entry for entry in entries if entry.kind in ("shadow", "stage") and entry.about == last.about]
    first = last if last.kind == "promote" else begun[0]
    roles: dict[Kind, Role] = {"shadow": "shadow", "stage": "challenger", "promote": "champion"}
    assert last.about is not None
    return Stage(
        role=roles[last.kind],
        share=float(last.evidence["share"]),
        trial=Champion(**last.evidence["trial"]),
        other=Champion(**last.evidence["other"]),
        step=last.step,
        at=last.at_ms,
        written=last.written_ms,
        trial_step=first.step,
        trial_at=first.at_ms,
        retrained=last.about,
    )


def measure(monitor: Monitor, stage: Stage, situation: Situation, confidence: float) -> Measured:
    """Gather what the monitor summed up since the stage began."""
    figures, subject = monitor.state.figures, monitor.subject(stage.other.version)
    target, scale, fewest = subject.plan.target, 1.0, FEWEST_ROWS
    if target.task == "regression":
        scale = target.std
    else:
        fewest = fewest_rows(subject.reference.labels.sum(axis=0))
    trial, other = stage.trial.version, stage.other.version
    watched = stage.role == "champion"
    here = _since(figures, trial, stage.role, stage.step)
    there = _since(figures, other, "shadow" if watched else "champion", stage.step)
    # A champion scores every row; those that its challenger answered are counted under it as a shadow, its calls are not.
    there_rows = there["rows"] + (0.0 if watched else _since(figures, other, "shadow", stage.step)["rows"])
    # A version that could not even be loaded failed as challenger, whatever part it was to have.
    tried = [here] if watched else [_since(figures, trial, role, stage.step) for role in _ON_TRIAL]
    paired = other if watched else trial  # pairs are summed under the version that is not champion
    sign = -1.0 if watched else 1.0
    whole = [_since(figures, paired, role, stage.trial_step) for role in _ON_TRIAL]
    pairs = sum(part["pairs"] for part in whole)
    rows = Sums(
        round(sum(part["paired_labelled"] for part in whole)),
        sign * sum(part["loss_difference"] for part in whole),
        sum(part["loss_difference_squares"] for part in whole),
    )
    first_day = stage.trial_at // _DAY * _DAY
    by_day = figures.paired.get(paired, ())
    days = [Sums(n, sign * total, squares) for day, n, total, squares in by_day if day >= first_day and n]
    return Measured(
        rows=round(here["rows"]),
        other_rows=round(there_rows),
        failures=round(sum(part["errors"] + part["not_finite"] for part in tried)),
        calls=round(here["calls"]),
        call=_median(here.times),
        other_call=_median(there.times),
        row=_by_row(here.times, here["rows"]),
        other_row=_by_row(there.times, there_rows),
        tail=_tail(here.times),
        other_tail=_tail(there.times),
        pairs=round(pairs),
        shift=sum(part["distance"] for part in whole) / pairs / scale if pairs else None,
        labelled=round(here["labelled"]),
        paired_labelled=rows.rows,
        difference=interval(rows, days, confidence, fewest),
        seconds=(situation.now - stage.written) / 1000,
        waited=situation.at - stage.at,
    )


class _Sums:
    """Sums by name, zero where nothing was summed; `times` counts the scoring calls by DURATION_BOUNDS."""

    def __init__(self, values: Floats) -> None:
        self._values: dict[str, float] = dict(zip(FIGURES, values.tolist(), strict=False))
        self.times: list[float] = values[len(FIGURES) :].tolist()

    def __getitem__(self, name: str) -> float:
        return self._values.get(name, 0.0)


def _since(figures: Figures, version: str, role: Role, step: int) -> _Sums:
    series = figures.series.get((version, role))
    return _Sums(np.zeros(0) if series is None else series.since(step))


def _median(times: Sequence[float]) -> float | None:
    """Return the median of counted times, evenly spread within their bucket."""
    if not (total := sum(times)):
        return None
    bucket, reached = next((i, reached) for i, reached in enumerate(accumulate(times)) if reached >= total / 2)
    low, high = _EDGES[bucket], _EDGES[bucket + 1]
    return high - (high - low) * (reached - total / 2) / times[bucket]


def _by_row(times: Sequence[float], rows: float) -> float | None:
    """Return seconds a row, with every call in the middle of its bucket."""
    if not sum(times) or not rows:
        return None
    middles = [(low + high) / 2 for low, high in pairwise(_EDGES)]
    return sum(count * middle for count, middle in zip(times, middles, strict=True)) / rows


def _tail(times: Sequence[float]) -> float | None:
    """Return the lower bound of the bucket that the 99th percentile lies in."""
    if not (total := sum(times)):
        return None
    return _EDGES[next(i for i, reached in enumerate(accumulate(times)) if reached >= 0.99 * total)]
