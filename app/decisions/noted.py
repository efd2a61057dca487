"""What is noted of what a step found? At most one entry for all that moved, and one, a page, for all that broke.

One outage breaks many features, and not all in the same step: what breaks later by the same cause, with its onset in
the same hour, joins the fault that is open. A fault is over when all of its things are whole again.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from app.decisions.ledger import Draft, Entry, Kind
from app.decisions.situation import Situation
from app.monitor.clock import HOUR
from app.monitor.findings import Finding
from app.monitor.report import words as told

_NAMED = 3

Noted = dict[str, Any]
"""A finding as it lies in an entry's evidence, `Finding.to_json`."""


def faults(situation: Situation, entries: Sequence[Entry]) -> list[Draft]:
    """Return the entries for what broke, and for the faults that are over."""
    begun = [*_begun(situation, entries)]
    return [*begun, *_over(situation, _open(entries, begun))]


def broken(entries: Sequence[Entry], drafts: Sequence[Draft] = ()) -> list[str]:
    """Return the names of what is broken upstream, by the ledger and what is to be written next."""
    return sorted({name for found in _open(entries, drafts).values() for name in names(found)})


def new(kind: Kind, situation: Situation, entries: Sequence[Entry]) -> list[Finding]:
    """Return what of the step's findings belongs into an entry of this kind; nothing once the step has that entry."""
    if any(entry.kind == kind and entry.step == situation.step for entry in entries):
        return []
    return [finding for finding in situation.findings if (finding.kind == "fault") == (kind == "fault")]


def of_findings(
    kind: Kind,
    situation: Situation,
    findings: Sequence[Finding],
    ending: str,
    more: dict[str, Any] | None = None,
    about: str | None = None,
) -> Draft:
    """Return the one entry for findings, the first of which is told in words."""
    evidence = {"findings": [finding.to_json() for finding in findings]} | (more or {})
    reason = f"{_headline(findings)}; {ending}"
    version = findings[0].version
    return Draft(kind, f"{situation.step}", situation.at, situation.step, reason, evidence, about, version)


def names(findings: Iterable[Noted]) -> list[str]:
    """Return what the findings are about, each once."""
    return list(dict.fromkeys(finding["what"] for finding in findings))


def some(all_of_them: Collection[str]) -> str:
    """Write the first of some names, and how many more there are."""
    more = len(all_of_them) - _NAMED
    return ", ".join([*all_of_them][:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _begun(situation: Situation, entries: Sequence[Entry]) -> Iterator[Draft]:
    known, fresh = broken(entries), new("fault", situation, entries)
    fresh = [finding for finding in fresh if finding.what not in known]
    if not fresh:
        return
    words = "this looks like a fault upstream, so nothing is retrained on it"
    for entry_id, found in _open(entries).items():
        if all(any(_together(finding, other) for other in found) for finding in fresh):
            yield of_findings("fault", situation, fresh, f"it joins the fault that is open: {words}", about=entry_id)
            return
    yield of_findings("fault", situation, fresh, words)


def _over(situation: Situation, open_faults: dict[str, list[Noted]]) -> Iterator[Draft]:
    for entry_id, found in open_faults.items():
        whole = names(found)
        if entry_id and not set(whole) & set(situation.faults):
            look = "looks as it" if len(whole) == 1 else "look as they"
            reason = f"{some(whole)} {look} should again"
            yield Draft("fault_over", "", situation.at, situation.step, reason, {"what": whole}, entry_id)


def _open(entries: Sequence[Entry], drafts: Sequence[Draft] = ()) -> dict[str, list[Noted]]:
    """Return the faults that are not over: by the entry that paged (of a draft: ""), what broke."""
    found: dict[str, list[Noted]] = {}
    both: list[Entry | Draft] = [*entries, *drafts]
    for one in both:
        if one.kind == "fault":
            paged = one.about or (one.id if isinstance(one, Entry) else "")
            found[paged] = [*found.get(paged, ()), *one.evidence["findings"]]
        elif one.kind == "fault_over" and one.about is not None:
            found.pop(one.about, None)
    return found


def _together(finding: Finding, other: Noted) -> bool:
    return (finding.detector, finding.onset // HOUR) == (other["detector"], other["onset"] // HOUR)


def _headline(findings: Sequence[Finding]) -> str:
    """Say the first finding in words, and name some of the others."""
    first = told(findings[0]).rstrip(".")
    others = list(dict.fromkeys(finding.what for finding in findings if finding.what != findings[0].what))
    if not others:
        return first
    return f"{first}, and {len(others)} more: {', '.join(others[:_NAMED])}{' ...' if len(others) > _NAMED else ''}"
