"""What does `/drift` answer? The monitor's report, and what the loop is doing, did, and will do next."""

import math
from collections.abc import Sequence
from typing import Any

from app.decisions.ledger import Entry, Kind, newest, to_iso
from app.decisions.policy import due, obstacle, write_days
from app.decisions.rollout import Breach, Passed, check
from app.decisions.situation import CHAMPIONS, Situation, champion, link
from app.decisions.trial import Measured, Stage, stage_of
from app.spec import Spec


def describe(
    spec: Spec, situation: Situation, entries: Sequence[Entry], stage: Stage | None, measured: Measured | None
) -> dict[str, Any]:
    """Return what the loop adds to the monitor's report, as plain JSON values."""
    return {
        "interval": spec.drift.interval.total_seconds(),
        "rollout": _rollout(spec, stage, measured) if stage and measured else None,
        "retrain": _under_way(entries),
        "versions": _versions(entries),
        "next": outlook(spec, situation, entries, stage, measured),
        "written": to_iso(situation.now),
    }


def outlook(
    spec: Spec,
    situation: Situation,
    entries: Sequence[Entry],
    stage: Stage | None = None,
    measured: Measured | None = None,
) -> str:
    """Say in a sentence what happens next, and when."""
    if stage is not None and measured is not None:
        verdict = check(spec, stage, measured)
        words = "a breach: the version before answers again" if isinstance(verdict, Breach) else verdict.words
        where = {"shadow": "scores unheard", "champion": "is champion, and watched"}
        doing = where.get(stage.role, f"answers {stage.share:.0%} of the rows")
        return f"Version {stage.trial.version} {doing} until the next step: {words}."
    last = link(entries)
    if last is not None and last.kind == "probe":
        return "A probe is telling what a retraining would gain; a proven gain buys one."
    if last is not None and last.kind == "retrain":
        return (
            f"A retraining runs (attempt {last.evidence['attempt']} of {spec.retrain.attempts}); the gate judges it."
        )
    if last is not None and last.kind == "retrain_failed" and last.evidence["attempt"] < spec.retrain.attempts:
        return f"The retraining that failed is tried again at {last.evidence['not_before'][:16]} UTC."
    against = obstacle(spec, situation, entries)
    if against is not None and against.name in ("policy", "champion", "fault"):
        return f"Nothing is retrained: {against.words}."
    what = "probe" if spec.retrain.policy == "probe" else "retraining"
    causes = {"calendar": "", "drift": "an alarm of a feature", "loss": "an alarm of the loss", "probe": "an alarm"}
    cause = causes[spec.retrain.policy]
    if (when := due(spec, entries)) is not None:
        day = to_iso(max(when, situation.at))[:10]
        time = f"on {day}, {write_days(spec.retrain.every)} days after the last one"
        cause = f"{cause}, or {time}" if cause else time
    wait = f"; not yet, for {against.words}" if against is not None else ""
    return f"The next {what} comes {'with ' if cause.startswith('an') else ''}{cause}{wait}."


def degraded(words: str, now: int) -> dict[str, Any]:
    """Return what takes the place of a report's health after a turn that failed."""
    return {"health": {"state": "degraded", "words": words}, "written": to_iso(now)}


def _under_way(entries: Sequence[Entry]) -> dict[str, str] | None:
    """Return the probe or the retraining that is being done; `since` is the clock's."""
    last = link(entries)
    states: dict[Kind, str] = {"probe": "probing", "retrain": "running"}
    if last is None or last.kind not in states:
        return None
    return {"state": states[last.kind], "since": last.written, "id": last.id}


def _rollout(spec: Spec, stage: Stage, measured: Measured) -> dict[str, Any]:
    verdict = check(spec, stage, measured)
    watched = stage.role == "champion"
    needed = spec.rollout.shadow_rows if stage.role == "shadow" else spec.rollout.stage_rows
    return {
        "challenger": stage.trial.version,
        "stage": stage.role,
        "share": stage.share,
        "stages": spec.rollout.stages,
        "rows": measured.labelled if watched else measured.rows,
        "needed": needed,
        "since": to_iso(stage.written),
        "checks": list(_checks(measured, verdict)),
    }


def _checks(measured: Measured, verdict: object) -> Sequence[dict[str, Any]]:
    """Return what was looked at, with its figures; `ok` is None where there is nothing to judge by yet."""
    breached = " ".join(verdict.reasons) if isinstance(verdict, Breach) else ""
    passed = isinstance(verdict, Passed)
    found = measured.difference
    known = math.isfinite(found.low)
    loss = f"by {found.mean:+.4g}, {found.low:+.4g} to {found.high:+.4g}" if known else "too few labels to tell"
    ready = measured.rows > 0
    return [
        _one("errors", "failed on", breached, ready, f"{measured.failures:,} of {measured.rows:,} rows failed"),
        _one("latency", "scoring call", breached, measured.call is not None, _milliseconds(measured.call)),
        _one("scores", "scores are", breached, measured.shift is not None, f"{measured.shift or 0:.3g} apart"),
        _one("loss", "loss is", breached, known, loss),
        {"name": "rows", "ok": True if passed else None, "words": f"{measured.rows:,} scored"},
    ]


def _one(name: str, sign: str, breached: str, ready: bool, words: str) -> dict[str, Any]:
    return {"name": name, "ok": False if sign in breached else True if ready else None, "words": words}


def _milliseconds(seconds: float | None) -> str:
    return "no call yet" if seconds is None else f"{seconds * 1e3:.3g} ms a call"


def _versions(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return every version the ledger knows, the newest first, with its part and why it is there."""
    present, stage = champion(entries), stage_of(entries)
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.version is None or entry.kind not in ("retrained", "refused", "shadow", "stage", *CHAMPIONS):
            continue
        one = found.setdefault(entry.version, {"version": entry.version, "role": "former", "since": entry.at})
        one["reason"] = entry.reason
        if entry.kind == "refused":
            one["role"] = "refused"
        if entry.kind in ("deploy", "promote"):
            one["since"] = entry.at
    for one in found.values():
        if present is not None and one["version"] == present.version:
            one["role"] = "champion"
        elif stage is not None and one["version"] in (stage.trial.version, stage.other.version):
            one["role"] = "shadow" if stage.share == 0 else "challenger"
    last = newest(entries, "retrained")
    if last is not None and not last.evidence["rollout"] and found[str(last.version)]["role"] == "former":
        found[str(last.version)]["role"] = "challenger"
    return list(reversed(found.values()))
