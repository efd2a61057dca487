"""Was every decision the right one? Each is made again from the journal and the entries before it, and compared.

The journal gives the situation after every step, the ledger what had been decided by then; policies and rollout
checks are pure, so the same must come out, word for word. What a probe told, what a job gave and what somebody did by
hand came from outside: those entries are taken as they are.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from app.decisions.ledger import Draft, Entry, Kind, plain, to_iso
from app.decisions.policy import decide, note
from app.decisions.rollout import advance
from app.decisions.situation import look
from app.journal.rows import Step
from app.monitor.findings import Finding
from app.monitor.state import Monitor
from app.spec import Spec

FROM_OUTSIDE: frozenset[Kind] = frozenset({"deploy", "probed", "retrained", "refused", "retrain_failed", "ended"})
BY_POLICY: frozenset[Kind] = frozenset({"alarm_noted", "fault", "fault_over", "probe", "retrain", "page"})


def recompute(spec: Spec, steps: Iterable[Step], monitor: Monitor, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what differs, in words; nothing where every decision comes out again.

    `monitor` is fresh: it folds the steps from the first on.
    """
    by_step: defaultdict[int, list[Entry]] = defaultdict(list)
    for number, entry in enumerate(entries, start=1):
        by_step[entry.step].append(entry)
        if entry.number != number:
            yield f"entry {entry.number} ({entry.kind}) lies in the place of entry {number}"
    for step in steps:
        if monitor.state.step == 0 and step.number > 1:
            yield f"the journal begins with step {step.number}, so that nothing can be made again"
            return
        findings = monitor.fold(step)
        written = by_step.pop(step.number, [])
        for entry in written:
            if entry.kind not in FROM_OUTSIDE:
                yield from _compare(spec, monitor, findings, entries, entry)
        if monitor.watermark is not None:
            yield from _forgotten(spec, monitor, findings, entries, written)
    for number in sorted(by_step):
        if number > monitor.state.step and by_step[number]:
            yield f"entry {by_step[number][0].number} rests on step {number}, which the journal does not have"
        for entry in by_step[number]:
            if number <= monitor.state.step and entry.kind not in FROM_OUTSIDE:
                yield f"entry {entry.number} ({entry.kind}) rests on step {number}, before which nothing is decided"


def _compare(
    spec: Spec,
    monitor: Monitor,
    findings: Sequence[Finding],
    entries: Sequence[Entry],
    entry: Entry,
) -> Iterator[str]:
    """Make the decision of an entry again, from what was known when it was written."""
    before = [other for other in entries if other.number < entry.number and other.step <= entry.step]
    situation = look(monitor, before, findings, entry.written_ms)
    if entry.kind in BY_POLICY:
        drafts = decide(spec, situation, before)
    else:
        generation = int(entry.evidence["generation"])
        draft = advance(spec, situation, before, monitor, generation)
        drafts = [] if draft is None else [draft]
    made = next((draft for draft in drafts if draft.id(spec.name) == entry.id), None)
    if made is None:
        yield f"entry {entry.number} ({entry.kind}) does not come out again: {entry.reason}"
        return
    for what, now, then in _parts(made, entry):
        if now != then:
            yield f"entry {entry.number} ({entry.kind}) has another {what}: {then!r}, made again {now!r}"


def _parts(made: Draft, entry: Entry) -> Iterator[tuple[str, object, object]]:
    yield "moment", to_iso(made.at), entry.at
    yield "step", made.step, entry.step
    yield "reason", made.reason, entry.reason
    yield "version", made.version, entry.version
    yield "evidence", plain(made.evidence), entry.evidence


def _forgotten(
    spec: Spec, monitor: Monitor, findings: Sequence[Finding], entries: Sequence[Entry], written: Sequence[Entry]
) -> Iterator[str]:
    """Yield what the step found and nobody wrote down."""
    ids = {entry.id for entry in written}
    known = [entry for entry in entries if entry.step < monitor.state.step]
    for draft in note(spec, look(monitor, known, findings, 0), known):
        if draft.id(spec.name) not in ids and draft.kind != "fault_over":
            yield f"step {monitor.state.step} found what was not written down: {draft.reason}"
