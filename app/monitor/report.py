"""What does `/drift` tell? The state of the fold in figures and in sentences, as plain JSON of bounded size."""

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from app.monitor.findings import Finding, Subject
from app.monitor.outcomes import Outcomes
from app.monitor.recent import bins

if TYPE_CHECKING:
    from app.monitor.state import State

_DAYS = 400
_FEATURES = 500
_WITH_BINS = 60  # the things nearest to an alarm are shown bin by bin
_FINDINGS = 200
_WATCHED = 0.7  # part of the way to an alarm from which a thing is watched
_LOSS_DAYS = 7


def report(model: str, state: "State", subject: Subject | None) -> dict[str, Any]:
    """Return the document; `subject` is the version in force, None before the first prediction."""
    losses = _losses(state)
    lately = _lately(losses, state.version)
    expected = subject.loss if subject else None
    return {
        "model": model,
        "as_of": None if state.clock.watermark is None else _iso(state.clock.watermark),
        "step": state.step,
        "version": state.version,
        "health": _health(state, expected, lately),
        "traffic": {
            "days": [{"day": _day(day), "rows": state.days[day]} for day in sorted(state.days)[-_DAYS:]],
            "late": state.windows.late,
            "early": state.windows.early,
        },
        "labels": _labels(state.outcomes)
        | {"newest": None if state.newest_label is None else _iso(state.newest_label)},
        "loss": {"expected": expected, "lately": lately, "days": losses},
        "features": _features(state, subject) if subject else [],
        "findings": [_finding(finding) for finding in state.open[-_FINDINGS:]],
    }


def words(finding: Finding) -> str:
    """Say a finding in a sentence."""
    what, since, direction = finding.what, f"since {_day(finding.onset)}", finding.direction
    if finding.kind == "fault":
        return f"{_fault(finding)} {since}."
    if finding.kind == "loss":
        return f"The loss is {finding.shift:.0%} higher than expected {since}."
    if direction in ("higher", "lower", "wider", "narrower", "more to the right", "more to the left"):
        verb = {"more to the right": "leans ", "more to the left": "leans "}.get(direction, "is ") + direction
        return f"{what} {verb} than in training by {abs(finding.shift):.2g} standard deviations {since}."
    often = "more often" if direction.startswith("more") else "less often"
    kind = direction.split(" ", 1)[1]
    told = {"missing": "is missing", "outside": "lies outside its training range", "unseen": "has unseen values"}
    return f"{what} {told.get(kind, f'is {kind}')} {often} than in training {since}."


def _fault(finding: Finding) -> str:
    what, detail = finding.what, finding.detail
    match finding.detector:
        case "schema" | "missing":
            return (
                f"{what} is missing in {detail['missing']:.0%} of the rows, in training in {detail['expected']:.1%},"
            )
        case "constant":
            return f"{what} has had the one value {detail['value']:g} in {detail['rows']:,} rows"
        case "unit":
            return f"{what} comes in another unit: it looks like {detail['sent']},"
        case "unseen":
            values = ", ".join(detail["values"])
            return f"{what} has values unseen in training in {detail['unseen']:.0%} of the rows ({values}): {finding.direction},"
        case "repeated":
            share = max(detail["repeated"], detail["same"]) / detail["rows"]
            return f"{share:.0%} of {detail['rows']:,} rows came a second time: {finding.direction},"
        case _:
            hours = f"{finding.shift:,.1f} hours"
            said = {"stuck": f"have stood still for {hours}", "ahead": f"leapt {hours} ahead"}
            return f"The clocks {said.get(finding.direction, f'went back {hours}')}"


def _health(state: "State", expected: float | None, lately: float | None) -> dict[str, str]:
    faults = [finding for finding in state.open if finding.kind == "fault"]
    moved = [finding for finding in state.open if finding.kind != "fault"]
    if faults:
        more = f" So are {len(faults) - 1} more." if len(faults) > 1 else ""
        return {"state": "fault", "words": f"Something is broken upstream. {words(faults[0])}{more}"}
    if moved:
        names = sorted({finding.what for finding in moved})
        said = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        return {"state": "drift", "words": f"Not as in training: {said}. {_said_of_loss(expected, lately)}"}
    if not state.standings:
        return {"state": "unknown", "words": "No hour of traffic is complete yet."}
    name, nearest = max(state.standings.items(), key=lambda one: one[1].reached)
    if nearest.reached >= _WATCHED:
        return {
            "state": "watch",
            "words": f"{name} may be moving: the evidence is {nearest.reached:.0%} of an alarm. "
            f"{_said_of_loss(expected, lately)}",
        }
    return {"state": "ok", "words": f"No feature has moved. {_said_of_loss(expected, lately)}"}


def _said_of_loss(expected: float | None, lately: float | None) -> str:
    if not expected or lately is None:
        return "The effect on the loss is unknown: there are no labels yet."
    change = lately / expected - 1
    side = "above" if change >= 0 else "below"
    return f"The loss of the last {_LOSS_DAYS} days with labels is {abs(change):.0%} {side} what was expected."


def _labels(outcomes: Outcomes) -> dict[str, Any]:
    tally, delays = outcomes.tally, outcomes.delays
    p50, p90 = np.quantile(delays, [0.5, 0.9]).tolist() if len(delays) else (None, None)
    return {
        "predictions": tally.predictions,
        "joined": tally.joined,
        "waiting": len(outcomes.predictions),
        "unmatched": tally.unmatched,
        "duplicates": tally.duplicates,
        "late": tally.late,
        "unusable": tally.unusable,
        "coverage": None if outcomes.coverage is None else round(outcomes.coverage, 4),
        "delay_seconds": {"p50": p50, "p90": p90},
    }


def _losses(state: "State") -> list[dict[str, Any]]:
    """Return the mean loss by day and version that answered, whichever its role."""
    found: dict[tuple[int, str], tuple[int, float]] = {}
    for (version, role), losses in state.figures.losses.items():
        if role != "shadow":
            for day, rows, total, _ in losses:
                before = found.get((day, version), (0, 0.0))
                found[day, version] = before[0] + rows, before[1] + total
    days = sorted(found)[-_DAYS:]
    return [
        {"day": _day(day), "version": version, "rows": rows, "loss": float(f"{total / rows:.6g}")}
        for day, version in days
        for rows, total in [found[day, version]]
    ]


def _lately(losses: list[dict[str, Any]], version: str | None) -> float | None:
    days = [day for day in losses if day["version"] == version][-_LOSS_DAYS:]
    rows = sum(day["rows"] for day in days)
    return sum(day["rows"] * day["loss"] for day in days) / rows if rows else None


def _features(state: "State", subject: Subject) -> list[dict[str, Any]]:
    watched = subject.reference.binning.watched
    names = [name if kind in ("number", "category") else f"{kind} {name}".strip() for kind, name in watched]
    open_by_name: dict[str, Finding] = {}
    for finding in state.open:  # a fault before drift, an old finding before a new one
        known = open_by_name.get(finding.what)
        if known is None or (finding.kind == "fault" and known.kind != "fault"):
            open_by_name[finding.what] = finding
    order = sorted(range(len(names)), key=lambda i: _urgency(state, names[i], open_by_name.get(names[i])))
    shown = set(order[:_WITH_BINS]) if len(state.recent.starts) else set()
    found = []
    for i in sorted(order[:_FEATURES]):
        name = names[i]
        told = open_by_name.get(name)
        at = told or state.standings.get(name)
        found.append(
            {
                "name": name,
                "kind": watched[i][0],
                "state": "ok" if told is None else told.kind,
                "detector": at.detector if at else None,
                "direction": at.direction if at else None,
                "shift": _number(at.shift) if at else None,
                "onset": at.onset if at else None,
                "since": told.at if told else None,
                "evidence": _number(at.evidence) if at else None,
                "threshold": _number(at.threshold) if at else None,
                "bins": [b.to_json() for b in bins(subject.plan, state.recent, subject.reference, i)]
                if i in shown
                else [],
            }
        )
    return found


def _urgency(state: "State", name: str, finding: Finding | None) -> tuple[int, float]:
    standing = state.standings.get(name)
    rank = {"fault": 0, "drift": 1}.get(finding.kind, 1) if finding else 2
    return rank, -standing.reached if standing else 0.0


def _finding(finding: Finding) -> dict[str, Any]:
    detail = {name: value for name, value in finding.detail.items() if name != "before"}
    figures = {name: _number(getattr(finding, name)) for name in ("shift", "evidence", "threshold")}
    return finding.to_json() | figures | {"detail": detail, "words": words(finding)}


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _day(moment: int) -> str:
    return _iso(moment)[:10]


def _iso(moment: int) -> str:
    return dt.datetime.fromtimestamp(moment / 1000, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
