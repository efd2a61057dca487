"""May a challenger serve? It has to prove itself on the newest labelled rows, overall and on every slice.

The rules, each with the declared confidence (`gate.confidence`; two-sided intervals of the mean paired
difference in loss, challenger - opponent):

- Against the champion: proven better. The interval lies below 0.
- Against the baseline, when there is no champion: proven not worse than the margin allows. The interval's
  upper end is at most `gate.margin` x the baseline's loss.
- A smaller version, against the larger one that it is made of and against the champion that it would replace: proven
  not worse, too, by more than `compress.margin` x the other's loss. It offers time and memory, not a better answer.
  It is held against both, so that one margin after the other does not add up to a bad model.
  (A test of non-inferiority: at a confidence of 95 %, 2 to 4 % of versions pass that trail by just the margin.)
- Against the best constant prediction, chosen in hindsight on the very rows judged: proven better, too. Where the
  champion is beaten or equalled, who has proven it already, better on the mean will do: its few newest days, of which
  some are nothing like the others, say much of two models that share them, and little of a model and a constant.
- On no slice proven worse than the opponent by more than `gate.margin`, or the margin that holds overall, where that
  is wider. The slices' intervals hold together, so many slices raise no more false alarms than one.
- One row's prediction and the bundle stay within `gate.max_latency` and `gate.max_megabytes`.

What cannot be judged is refused, with the reason.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from app.data.features import TargetColumn
from app.data.loss import NAMES, row_loss
from app.spec import Gate, Spec
from app.training.bootstrap import Blocks, Integers, blocks_of_days, blocks_of_rows
from app.training.evidence import (
    Comparison,
    compare,
    constant,
    everything,
    faults_of_evidence,
    faults_of_input,
    groups_of,
)
from app.types import Scores, Targets

_CONSTANT = "the best constant prediction"


@dataclass(frozen=True)
class Candidate:
    """The version on trial: scores of the judged rows, 99th percentile of one row's prediction (s), size (MB).

    `smaller`: it was made of a larger version, to take the champion's place without being better.
    """

    scores: Scores
    latency: float
    megabytes: float
    smaller: bool = False


@dataclass(frozen=True)
class Opponent:
    """What the challenger is held against, by its scores of the same rows; "large" is what it is a smaller form of."""

    role: Literal["champion", "baseline", "large"]
    scores: Scores

    @property
    def name(self) -> str:
        """What it is called."""
        return "large network" if self.role == "large" else self.role


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger passed; why, in words ("refused: ..." where it did not); the figures as plain JSON."""

    passed: bool
    reasons: list[str]
    figures: dict[str, Any]


class _Finding(NamedTuple):
    holds: bool
    words: str


def judge(
    spec: Spec,
    target: TargetColumn,
    challenger: Candidate,
    against: Opponent | None,
    labels: Targets,
    time: Integers,
    slices: pa.Table | None = None,
    position: Integers | None = None,
) -> Verdict:
    """Try the challenger on n rows; those without a label (NaN) are left out. Losses are `target`'s.

    `time` (n,) is in milliseconds since 1970, empty when the table has none; then `position` (n,) names the
    rows for the bootstrap (left out: the order given does). `slices` holds the columns of `gate.slices` for
    the same rows. Without an opponent only the best constant prediction has to be beaten.
    """
    gate, allowed = spec.gate, _margin(spec, challenger, against)
    limits = [_latency(gate, challenger), _size(gate, challenger)]
    figures: dict[str, Any] = {
        "against": against.role if against else None,
        "confidence": gate.confidence,
        "margin": gate.margin,
        "latency": challenger.latency,
        "megabytes": challenger.megabytes,
    }
    scores = {"challenger": challenger.scores} | ({against.name: against.scores} if against else {})
    position = np.arange(len(labels)) if position is None else position
    faults = list(faults_of_input(target, scores, labels, time, position, slices, gate.slices))
    if faults:
        return _verdict([*_refuse(faults), *limits], figures)

    labelled = ~np.isnan(labels)
    labels = labels[labelled]
    scores = {role: array[labelled] for role, array in scores.items()}
    losses = {role: row_loss(target, array, labels) for role, array in scores.items()}
    blocks = blocks_of_days(time[labelled]) if len(time) else blocks_of_rows(position[labelled])
    figures |= {"rows": len(labels), "days": blocks.days, "blocks": blocks.number}
    faults = list(faults_of_evidence(gate, target, labels, blocks, losses))
    if faults:
        return _verdict([*_refuse(faults), *limits], figures)

    findings: list[_Finding] = []
    ours, whole, loss = losses["challenger"], [everything(len(labels))], NAMES[target.loss]
    if against:
        theirs = losses[against.name]
        [overall] = compare(gate, spec.train.seed, blocks, whole, ours, theirs)
        figures["overall"] = overall.to_json()
        if allowed is None:
            findings.append(_better(gate, f"the {against.name}", loss, overall, blocks))
        else:
            findings.append(_not_worse(gate, allowed, f"the {against.name}", loss, overall, blocks))
    flat = row_loss(target, constant(target, scores["challenger"], labels), labels)
    [prior] = compare(gate, spec.train.seed, blocks, whole, ours, flat)
    figures["prior"] = prior.to_json()
    champions = against is not None and against.role == "champion"
    findings.append((_better_on_the_mean if champions else _better)(gate, _CONSTANT, loss, prior, blocks))
    if against and slices is not None and gate.slices:
        groups = [groups_of(gate, name, slices[name].filter(pa.array(labelled)), blocks) for name in gate.slices]
        by_slice = compare(gate, spec.train.seed, blocks, groups, ours, theirs)
        figures["slices"] = [one.to_json() for one in by_slice]
        findings += _slices(max(gate.margin, allowed or 0), f"the {against.name}", loss, by_slice)
    return _verdict([*findings, *limits], figures)


def _margin(spec: Spec, challenger: Candidate, against: Opponent | None) -> float | None:
    """Return the fraction of the opponent's loss that the challenger may trail by; None: it has to be better."""
    if against is None or (against.role == "champion" and not challenger.smaller):
        return None
    return spec.gate.margin if against.role == "baseline" else spec.compress.margin


def _verdict(findings: list[_Finding], figures: dict[str, Any]) -> Verdict:
    reasons = [words if holds else f"refused: {words}" for holds, words in findings]
    return Verdict(all(holds for holds, _ in findings), reasons, figures)


def _refuse(faults: list[str]) -> list[_Finding]:
    return [_Finding(False, fault) for fault in faults]


def _better(gate: Gate, opponent: str, loss: str, found: Comparison, blocks: Blocks) -> _Finding:
    holds = found.high < 0
    claim = _claim(gate, opponent, loss, found, blocks)
    return _Finding(holds, claim if holds else f"not proven better than {opponent}: {claim}")


def _better_on_the_mean(gate: Gate, opponent: str, loss: str, found: Comparison, blocks: Blocks) -> _Finding:
    claim = _claim(gate, opponent, loss, found, blocks)
    return _Finding(found.difference < 0, claim if found.difference < 0 else f"not better than {opponent}: {claim}")


def _not_worse(gate: Gate, margin: float, opponent: str, loss: str, found: Comparison, blocks: Blocks) -> _Finding:
    allowed = margin * found.opponent
    holds = found.high <= allowed
    claim = f"{_claim(gate, opponent, loss, found, blocks)}; worse by {_figure(allowed, found)} is allowed"
    return _Finding(holds, claim if holds else f"not proven to stay within the margin: {claim}")


def _slices(margin: float, opponent: str, loss: str, found: list[Comparison]) -> Iterator[_Finding]:
    judged = [one for one in found if one.judged]
    bad = [one for one in judged if one.low > margin * one.opponent]
    for one in bad:
        yield _Finding(
            False,
            f"worse than {opponent} on {one.group} by {_figure(one.difference, one)} {loss} ({one.rows:,} rows), "
            f"proven to be more than the {margin * 100:g} % allowed",
        )
    if judged and not bad:
        yield _Finding(
            True, f"on none of {len(judged)} slices proven worse than {opponent} by over {margin * 100:g} %"
        )
    for one in found:
        if not one.judged:
            yield _Finding(True, f"{one.group} has too few rows ({one.rows:,}) or days to be judged")


def _latency(gate: Gate, challenger: Candidate) -> _Finding:
    allowed = gate.max_latency.total_seconds()
    words = f"99 % of single predictions take up to {challenger.latency * 1e3:.3g} ms, allowed {allowed * 1e3:g} ms"
    return _Finding(challenger.latency <= allowed, words)


def _size(gate: Gate, challenger: Candidate) -> _Finding:
    words = f"the bundle has {challenger.megabytes:.3g} MB, allowed {gate.max_megabytes:g} MB"
    return _Finding(challenger.megabytes <= gate.max_megabytes, words)


def _claim(gate: Gate, opponent: str, loss: str, found: Comparison, blocks: Blocks) -> str:
    worse = found.difference > 0
    ends = (found.low, found.high) if worse else (-found.high, -found.low)
    days = "" if blocks.days is None else f" of {blocks.days:,} days"
    gain = f"{'worse' if worse else 'better'} than {opponent} by {_figure(abs(found.difference), found)} {loss}"
    interval = f"{gate.confidence * 100:g} % interval {_figure(ends[0], found)} to {_figure(ends[1], found)}"
    return f"{gain}, {interval}, on {found.rows:,} rows{days}"


def _figure(value: float, found: Comparison) -> str:
    """Write a value with the digits that the interval's width makes worth reading."""
    width = found.high - found.low
    digits = max(0, 1 - math.floor(math.log10(width))) if 0 < width < math.inf else 4
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0.0 takes the sign from -0.0
