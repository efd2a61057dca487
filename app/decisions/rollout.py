"""May a challenger go on? Shadow, stages, champion under watch: checked at each, back at the first breach.

Every stage is checked for failures, time and scores, and for loss as soon as labels have come. The versions'
figures are the monitor's, a fold over the journal, so a check can be made again from the journal alone. A new
champion's predecessor stays in reserve and scores unheard, until enough labels have confirmed the choice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from app.decisions.ledger import Draft, Entry, Kind, newest
from app.decisions.situation import Champion, Situation, champion, link
from app.decisions.trial import Measured, Stage, measure, stage_of
from app.lineup import Answering, Lineup
from app.monitor.state import Monitor
from app.spec import Spec

SILENCE = 60.0
"""Seconds after which a challenger that has scored nothing, with rows at hand, is taken for one that cannot."""

ENOUGH_CALLS = 20
"""Scoring calls from which their median tells, and which every stage waits for: large requests bring rows in few calls."""
TAIL_CALLS = 100
"""Calls from which one in a hundred is more than an accident."""
ENOUGH_PAIRS = 100
QUICK = 0.0005
"""Seconds of a scoring call below which no difference counts: calls are not told apart there."""


class Passed(NamedTuple):
    """The stage is over; why."""

    words: str


class Waiting(NamedTuple):
    """The stage goes on; what for."""

    words: str


class Breach(NamedTuple):
    """The version before has to answer again; all the reasons."""

    reasons: list[str]


def check(spec: Spec, stage: Stage, measured: Measured) -> Passed | Waiting | Breach:
    """Judge a stage by what it has shown."""
    if reasons := [*_failures(spec, stage, measured), *_worse(spec, stage, measured)]:
        return Breach(reasons)
    if stage.role != "champion" and (reasons := [*_slow(spec, stage, measured), *_shifted(spec, measured)]):
        return Breach(reasons)
    rollout = spec.rollout
    if stage.role == "champion":
        if measured.labelled >= rollout.stage_rows:
            return Passed(f"{measured.labelled:,} labelled rows say nothing against it")
        if measured.waited >= spec.journal.label_wait.total_seconds() * 1000:
            return Passed(f"{measured.labelled:,} labelled rows came in the time that predictions wait for labels")
        return Waiting(f"{measured.labelled:,} of {rollout.stage_rows:,} labelled rows have come")
    needed = rollout.shadow_rows if stage.role == "shadow" else rollout.stage_rows
    if measured.rows < needed:
        return Waiting(f"{measured.rows:,} of {needed:,} rows are scored")
    if measured.calls < (enough := min(ENOUGH_CALLS, needed)):
        return Waiting(f"{measured.calls:,} of {enough:,} scoring calls are timed")
    if stage.role == "challenger" and measured.seconds < rollout.stage_time.total_seconds():
        return Waiting(f"{measured.seconds:,.0f} of {rollout.stage_time.total_seconds():,.0f} seconds are over")
    return Passed(f"{measured.rows:,} rows were scored without a breach")


def advance(
    spec: Spec, situation: Situation, entries: Sequence[Entry], monitor: Monitor, generation: int
) -> Draft | None:
    """Return the rollout's next entry, if it is time: begin, next stage, promote, settle, or roll back.

    `generation` is the line-up's that follows from it.
    """
    stage, present = stage_of(entries), champion(entries)
    if stage is None:
        last = link(entries)
        if last is None or present is None or last.kind != "retrained" or not last.evidence["rollout"]:
            return None
        return _begin(spec, situation, last, present, generation)
    measured = measure(monitor, stage, situation, spec.gate.confidence)
    verdict = check(spec, stage, measured)
    if isinstance(verdict, Waiting):
        return None
    evidence = {"measured": measured.to_json(), "generation": generation}
    name = f"version {stage.trial.version}"
    if isinstance(verdict, Breach):
        words = f"{name} goes back as {_named(stage)}, version {stage.other.version} answers: " + "; ".join(
            verdict.reasons
        )
        return _draft("rollback", "", situation, stage, words, evidence | {"champion": stage.other.to_json()})
    if stage.role == "champion":
        words = f"{name} stays champion: {verdict.words}"
        return _draft("settled", "", situation, stage, words, evidence | {"champion": stage.trial.to_json()})
    share = next((share for share in spec.rollout.stages if stage.role == "shadow" or share > stage.share), None)
    evidence |= {"trial": stage.trial.to_json(), "other": stage.other.to_json()}
    if share is None:
        words = f"{name} is champion: {verdict.words} as {_named(stage)}"
        evidence |= {"share": 0.0, "champion": stage.trial.to_json()}
        return _draft("promote", "", situation, stage, words, evidence)
    words = f"{name} answers {share:.0%} of the rows: {verdict.words} as {_named(stage)}"
    return _draft("stage", f"{share}", situation, stage, words, evidence | {"share": share})


def by_hand(situation: Situation, entries: Sequence[Entry], found: Lineup, known_until: int) -> Draft:
    """Return the entry for a line-up that somebody else wrote: it counts, and ends a rollout."""
    known = Champion(found.champion.version, found.champion.bundle, known_until)
    evidence = {"champion": known.to_json(), "generation": found.generation}
    stage = stage_of(entries)
    if stage is not None:
        words = f"the rollout of version {stage.trial.version} was ended by hand, version {known.version} answers"
        return _draft("ended", "by hand", situation, stage, words, evidence)
    words = f"version {known.version} answers, put up by hand"
    key = f"{known.version}/{found.generation}"
    return Draft("deploy", key, situation.at, situation.step, words, evidence, None, known.version)


def lineup_of(entries: Sequence[Entry]) -> Lineup | None:
    """Return the line-up that the ledger asks for; None as long as no version answers."""
    present, last = (
        champion(entries),
        newest(entries, "deploy", "shadow", "stage", "promote", "settled", "rollback", "ended"),
    )
    if present is None or last is None:
        return None
    stage = stage_of(entries)
    second = None if stage is None else stage.other if stage.role == "champion" else stage.trial
    return Lineup(
        int(last.evidence["generation"]),
        Answering(present.version, present.bundle),
        Answering(second.version, second.bundle) if second else None,
        stage.share if stage else 0.0,
    )


def _begin(spec: Spec, situation: Situation, retrained: Entry, present: Champion, generation: int) -> Draft:
    trial = Champion(**retrained.evidence["trial"])
    evidence = {"trial": trial.to_json(), "other": present.to_json(), "generation": generation}
    if spec.rollout.shadow_rows:
        words = f"version {trial.version} scores {spec.rollout.shadow_rows:,} rows unheard beside version {present.version}"
        kind: Kind = "shadow"
        share = 0.0
    else:
        kind, share = "stage", spec.rollout.stages[0]
        words = f"version {trial.version} answers {share:.0%} of the rows"
    evidence["share"] = share
    return Draft(kind, f"{share}", situation.at, situation.step, words, evidence, retrained.id, trial.version)


def _draft(kind: Kind, key: str, situation: Situation, stage: Stage, words: str, evidence: dict[str, Any]) -> Draft:
    return Draft(kind, key, situation.at, situation.step, words, evidence, stage.retrained, stage.trial.version)


def _named(stage: Stage) -> str:
    return {"shadow": "shadow", "champion": "champion"}.get(stage.role, f"challenger for {stage.share:.0%}")


def _failures(spec: Spec, stage: Stage, measured: Measured) -> list[str]:
    needed = spec.rollout.shadow_rows if stage.role == "shadow" else spec.rollout.stage_rows
    seen = measured.rows + measured.failures
    if measured.failures > spec.rollout.max_errors * max(seen, needed):
        share = measured.failures / seen
        return [f"it failed on {share:.2%} of {seen:,} rows, allowed {spec.rollout.max_errors:.2%}"]
    expected = measured.other_rows * (stage.share or 1.0)
    if stage.role != "champion" and not seen and measured.seconds > SILENCE and expected > needed:
        return [f"it scored none of {measured.other_rows:,} rows in {measured.seconds:,.0f} seconds"]
    return []


def _worse(spec: Spec, stage: Stage, measured: Measured) -> list[str]:
    found = measured.difference
    if found.low <= 0 or measured.paired_labelled == 0:
        return []
    bounds = f"{spec.gate.confidence:.0%} interval {found.low:.4g} to {found.high:.4g}, however often one looks"
    against = f"version {stage.other.version} on the same {measured.paired_labelled:,} rows"
    return [f"its loss is proven worse than that of {against}, by {found.mean:.4g} ({bounds})"]


def _slow(spec: Spec, stage: Stage, measured: Measured) -> list[str]:
    """Hold its time against the champion's by call and by row.

    A shadow scores whole flushes, so its calls are long and its rows cheap; a challenger for few rows the reverse.
    """
    if measured.call is None or measured.row is None or measured.calls < min(ENOUGH_CALLS, spec.rollout.stage_rows):
        return []
    reasons, most = [], spec.rollout.max_slowdown
    usual = max(measured.other_call or 0.0, QUICK)
    if measured.call > most * usual and measured.row > most * (measured.other_row or 0.0):
        words = f"a scoring call takes {measured.call * 1e3:.3g} ms"
        reasons.append(f"{words}, allowed is {most:g} times the champion's {usual * 1e3:.3g} ms")
    limit, tail = spec.gate.max_latency.total_seconds(), measured.tail or 0.0
    timed = measured.calls >= min(TAIL_CALLS, spec.rollout.stage_rows)
    if stage.role == "challenger" and timed and tail > max(limit, measured.other_tail or 0.0):
        reasons.append(f"1 % of its scoring calls take at least {tail * 1e3:.3g} ms, allowed {limit * 1e3:g} ms")
    return reasons


def _shifted(spec: Spec, measured: Measured) -> list[str]:
    if measured.shift is None or measured.pairs < min(ENOUGH_PAIRS, spec.rollout.stage_rows):
        return []
    allowed = spec.rollout.max_score_shift
    if measured.shift <= allowed:
        return []
    return [
        f"its scores are {measured.shift:.3g} away from the champion's on {measured.pairs:,} rows, allowed {allowed:g}"
    ]
