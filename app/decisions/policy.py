"""What is to be done about it? A pure function of the declaration, the situation and the ledger so far.

Every finding is noted once: a fault pages, an alarm says what it leads to, or why it leads to nothing. A probe or a
retraining then needs a cause (an alarm, or time), and nothing that stands against it: a fault that is open,
something under way, the cooldown, too few new labels, the budget. Time is event time, so that a replay decides as
the year did; only the wait before a failed retraining is tried again is told by the clock.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from app.decisions.ledger import Draft, Entry, Kind, from_iso, newest, to_iso
from app.decisions.noted import Noted, broken, faults, names, new, of_findings, some
from app.decisions.situation import CHAMPIONS, Situation, busy, champion, link
from app.spec import Retrain, Spec

_CAUSES = {"probe": ("drift", "loss"), "drift": ("drift",), "loss": ("loss",), "calendar": (), "never": ()}


class Obstacle(NamedTuple):
    """Why nothing is probed or retrained: a name for programs, words for people."""

    name: str
    words: str


def decide(spec: Spec, situation: Situation, entries: Sequence[Entry]) -> list[Draft]:
    """Return what is to be written down now, and done where it is a probe or a retraining."""
    drafts = note(spec, situation, entries)
    follow_up = _follow_up(spec, situation, entries, drafts)
    if follow_up is None and obstacle(spec, situation, entries, drafts) is None:
        follow_up = _triggered(spec, situation, entries, drafts)
    return [*drafts, follow_up] if follow_up is not None else drafts


def note(spec: Spec, situation: Situation, entries: Sequence[Entry]) -> list[Draft]:
    """Return the entries that the step's findings themselves ask for: faults that begin and end, and an alarm."""
    fault = faults(situation, entries)
    return [*fault, *_alarm(spec, situation, entries, fault)]


def obstacle(
    spec: Spec, situation: Situation, entries: Sequence[Entry], drafts: Sequence[Draft] = ()
) -> Obstacle | None:
    """Return the first thing that stands against a probe or a retraining now, whatever its cause."""
    retrain, present = spec.retrain, champion(entries)
    if retrain.policy == "never":
        return Obstacle("policy", "retrain.policy is never")
    if present is None:
        return Obstacle("champion", "no version answers yet")
    if away := broken(entries, drafts):
        return Obstacle("fault", f"a fault upstream is open ({some(away)}), and faults are not learned")
    if (under_way := busy(entries)) is not None:
        return Obstacle("busy", under_way)
    last = newest(entries, "probe", "retrain")
    if last is not None and situation.at < last.at_ms + _ms(retrain.cooldown):
        until = to_iso(last.at_ms + _ms(retrain.cooldown))
        return Obstacle("cooldown", f"the cooldown after the last {last.kind} lasts until {until}")
    if situation.labels < retrain.min_labels:
        words = f"{situation.labels:,} labelled rows have come since version {present.version} learned"
        return Obstacle("labels", f"{words}, and {retrain.min_labels:,} are needed")
    return _over_budget(retrain, situation, entries)


def due(spec: Spec, entries: Sequence[Entry]) -> int | None:
    """Return the event time (ms) from which time alone is a cause; None where it never is."""
    present, retrain = champion(entries), spec.retrain
    if present is None or retrain.policy not in ("probe", "calendar"):
        return None
    last = newest(entries, "probe", "retrain")
    begin = present.known_until if last is None else max(last.at_ms, present.known_until)
    return begin + _ms(retrain.every)


def spent(retrain: Retrain, situation: Situation, entries: Sequence[Entry]) -> tuple[int, float]:
    """Return the retrainings and their CPU seconds within the budget's period."""
    begin = situation.at - _ms(retrain.budget.per)
    recent = [entry for entry in entries if entry.at_ms > begin]
    bought = sum(entry.kind == "retrain" and entry.evidence["attempt"] == 1 for entry in recent)
    # An attempt's figure holds those of the attempts before.
    cost = {entry.evidence["decision"]: entry.evidence["cpu_seconds"] for entry in recent if entry.kind in _COSTLY}
    return bought, sum(cost.values())


_COSTLY: tuple[Kind, ...] = ("retrained", "refused", "retrain_failed")


def _over_budget(retrain: Retrain, situation: Situation, entries: Sequence[Entry]) -> Obstacle | None:
    budget = retrain.budget
    bought, seconds = spent(retrain, situation, entries)
    if bought >= budget.retrains:
        return Obstacle("budget", f"the budget's {budget.retrains} retrainings of {budget.per.days} days are spent")
    last = newest(entries, *_COSTLY)
    expected = last.evidence["cpu_seconds"] if last else 0.0
    if budget.cpu_seconds is not None and seconds + expected > budget.cpu_seconds:
        words = f"{seconds:,.0f} of {budget.cpu_seconds:,.0f} CPU seconds are spent, and one retraining takes"
        return Obstacle("budget", f"{words} {expected:,.0f}")
    return None


def _alarm(spec: Spec, situation: Situation, entries: Sequence[Entry], fault: Sequence[Draft]) -> Iterator[Draft]:
    """Yield the one alarm for all that moved, unless it was noted not long ago: first the loss, then the most certain."""
    noted = {
        _subject(finding)
        for entry in _since_champion(entries)
        if entry.kind == "alarm_noted" and situation.at < entry.at_ms + _ms(spec.retrain.cooldown)
        for finding in entry.evidence["findings"]
    }
    order = sorted(
        new("alarm_noted", situation, entries),
        key=lambda finding: (finding.kind != "loss", finding.threshold - finding.evidence),
    )
    found = [finding for finding in order if _subject(finding.to_json()) not in noted]
    if not found:
        return
    against = obstacle(spec, situation, entries, fault)
    leads, words = None, f"nothing follows now: {against.words}" if against else ""
    if against is None and any(finding.kind in _CAUSES[spec.retrain.policy] for finding in found):
        leads = "probe" if spec.retrain.policy == "probe" else "retrain"
        words = "a probe follows" if leads == "probe" else "a retraining follows"
    elif against is None:
        words = f"nothing follows: retrain.policy is {spec.retrain.policy}"
    evidence = {"leads_to": leads, "obstacle": against._asdict() if against else None, "labels": situation.labels}
    yield of_findings("alarm_noted", situation, found, words, evidence)


def _follow_up(spec: Spec, situation: Situation, entries: Sequence[Entry], drafts: Sequence[Draft]) -> Draft | None:
    """Return what the last link of the chain asks for: what a probe bought, another attempt, or a person."""
    last = link(entries)
    if last is None or broken(entries, drafts):
        return None
    if last.kind == "probed" and last.evidence["buys"]:
        words = f"the probe proved a gain of {last.evidence['relative']:.1%} in loss, so a retraining is bought"
        return _retrain(situation, entries, words, last.id)
    if last.kind != "retrain_failed":
        return None
    attempt = int(last.evidence["attempt"])
    if attempt >= spec.retrain.attempts:
        words = f"retraining failed {attempt} times, the last time so: {last.evidence['error']}"
        return Draft("page", last.id, situation.at, situation.step, words, {"attempts": attempt}, last.id)
    if situation.now < from_iso(last.evidence["not_before"]):
        return None
    [failed] = [entry for entry in entries if entry.id == last.about]
    evidence = failed.evidence | {"attempt": attempt + 1, "decision": last.evidence["decision"]}
    words = f"attempt {attempt + 1} of {spec.retrain.attempts} of the retraining that failed"
    return Draft("retrain", f"{situation.step}", situation.at, situation.step, words, evidence, last.id)


def _triggered(spec: Spec, situation: Situation, entries: Sequence[Entry], drafts: Sequence[Draft]) -> Draft | None:
    """Return the probe or the retraining that an alarm or time asks for."""
    causes = _CAUSES[spec.retrain.policy]
    alarms: list[Entry | Draft] = [*_unanswered(entries), *(one for one in drafts if one.kind == "alarm_noted")]
    found = [(one, finding) for one in alarms for finding in one.evidence["findings"] if finding["kind"] in causes]
    when, first = due(spec, entries), None
    if found:
        cause = f"an alarm ({some(names(finding for _, finding in found))})"
        alarm = found[0][0]
        first = alarm.id if isinstance(alarm, Entry) else alarm.id(spec.name)
    elif when is not None and situation.at >= when:
        cause = f"{write_days(spec.retrain.every)} days have passed"
    else:
        return None
    words = f"after {cause} and with {situation.labels:,} new labelled rows"
    if spec.retrain.policy != "probe":
        return _retrain(situation, entries, f"{words}, a retraining is due", first)
    words += ", a cheap model is to tell what a retraining would gain"
    evidence = _evidence(situation, entries)
    return Draft("probe", f"{situation.step}", situation.at, situation.step, words, evidence, first)


def _retrain(situation: Situation, entries: Sequence[Entry], words: str, about: str | None) -> Draft:
    evidence = _evidence(situation, entries) | {"attempt": 1}
    return Draft("retrain", f"{situation.step}", situation.at, situation.step, words, evidence, about)


def _evidence(situation: Situation, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what a probe or a retraining rests on: it uses the rows of events until `until`."""
    present = champion(entries)
    assert present is not None
    return {"labels": situation.labels, "until": situation.at, "champion": present.to_json()}


def _unanswered(entries: Sequence[Entry]) -> list[Entry]:
    """Return the alarms about the present champion that nothing came after, or only what gave no version to roll out.

    A retraining so soon after a change that its rows show little of it is refused, one during an outage is given up;
    the alarm stands.
    """
    asked = [entry for entry in entries if entry.kind in ("probe", "retrain")]
    vain = _in_vain(entries)
    settled = [entry for entry in asked if not (_decision(entry) in vain or _led_to(entry, asked, vain))]
    begin = settled[-1].number if settled else 0
    return [entry for entry in _since_champion(entries) if entry.kind == "alarm_noted" and entry.number > begin]


def _in_vain(entries: Sequence[Entry]) -> set[str]:
    """Return the decisions to retrain whose version the gate refused, or that a person was paged for."""
    paged = {entry.about for entry in entries if entry.kind == "page"}
    ended = {entry.about for entry in entries if entry.kind == "refused" or entry.id in paged}
    return {_decision(entry) for entry in entries if entry.id in ended}


def _decision(asked: Entry) -> str:
    """Return the id of what was decided first: of a retraining's later attempts, that of the first one."""
    return str(asked.evidence.get("decision", asked.id))


def _led_to(probe: Entry, asked: Sequence[Entry], vain: Collection[str]) -> bool:
    """Say whether the next thing asked for, after a probe, was a retraining in vain."""
    follower = next((entry for entry in asked if entry.number > probe.number), None)
    return (
        probe.kind == "probe" and follower is not None and follower.kind == "retrain" and _decision(follower) in vain
    )


def _since_champion(entries: Sequence[Entry]) -> list[Entry]:
    changed = newest(entries, *CHAMPIONS)
    return [entry for entry in entries if changed is None or entry.number > changed.number]


def _subject(finding: Noted) -> tuple[str, str, str, str]:
    return finding["kind"], finding["what"], finding["direction"], finding["version"]


def write_days(time: dt.timedelta) -> str:
    """Write a duration in days."""
    return f"{time / dt.timedelta(days=1):g}"


def _ms(time: dt.timedelta) -> int:
    return time // dt.timedelta(milliseconds=1)
