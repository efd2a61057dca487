"""One turn of the loop: journal -> monitor -> decision -> ledger -> action, in this order, over and over.

Whatever is decided is written down before it is done, and everything done can be done again. So a process that was
killed anywhere goes on where it was: the monitor's state is the newest snapshot and the steps behind it, the ledger
says what was decided, and what was not yet done is done.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from app.decisions.alerts import Alerts
from app.decisions.ledger import Draft, Entry, Ledger, newest, pages
from app.decisions.outcomes import probed, retrained
from app.decisions.policy import decide, note
from app.decisions.rollout import advance, by_hand, lineup_of
from app.decisions.shown import shown
from app.decisions.situation import CHAMPIONS, Situation, link, look
from app.decisions.snapshots import Snapshots
from app.decisions.status import degraded, describe
from app.decisions.trial import measure, stage_of
from app.decisions.versions import Versions
from app.decisions.work import Underway, Work
from app.journal.rows import Step
from app.lineup import FILE, Lineup, read_lineup, write_lineup
from app.monitor.findings import Finding
from app.monitor.state import Monitor
from app.spec import Spec
from app.telemetry import LoopMetrics, spans
from app.workspace import Workspace, write_bytes

MOST_STEPS = 8
"""Most steps taken in between two looks at the line-up and the report."""

SNAPSHOT_STEPS = 50
CATCH_UP_STEPS = 1000
"""Steps between two snapshots while all that was committed is folded anew: hours of it, after a year."""

EXPIRY_SECONDS = 3600.0
STATUS = "status.json"

_MOST_ROUNDS = 20

log = logging.getLogger(__name__)


class Steps(Protocol):
    """What is asked of `app.journal.steps.Journal`."""

    def commit(self) -> Step | None:
        """Make a step of what is new."""

    def steps(self, after: int = 0) -> Iterator[Step]:
        """Yield the steps behind a number."""

    def expire(self, before: int) -> None:
        """Delete what arrived before a moment (ms)."""


@dataclass(frozen=True)
class Rooms:
    """Whom the keeper works with. `clock` gives seconds since 1970; `monitor` begins the fold, from a snapshot or anew."""

    spec: Spec
    workspace: Workspace
    journal: Steps
    monitor: Callable[[bytes | None], Monitor]
    snapshots: Snapshots
    ledger: Ledger
    versions: Versions
    work: Work
    alerts: Alerts
    metrics: LoopMetrics
    clock: Callable[[], float]


class Keeper:
    """Keeps one declaration's service true; all calls by one thread."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._spec = rooms.spec
        self._lineup_uri = rooms.workspace.uri(rooms.spec.name, FILE)
        self._status_uri = rooms.workspace.uri(rooms.spec.name, STATUS)
        self._monitor: Monitor | None = None
        self._snapshot = 0  # step of the newest one
        self._registered: str | None = None  # id of the entry whose champion the registry has
        self._expired = 0.0
        self._report: dict[str, Any] = {"model": rooms.spec.name}

    def turn(self) -> None:
        """Read, decide, write down, do, report. Raises whatever a room raises: the next turn goes on from there."""
        self._tell()  # of what a turn wrote that failed behind it
        monitor = self._fold_what_was()
        self._follow_line_up(monitor)
        for findings in self._new_findings(monitor):
            try:
                self._decide(monitor, findings)
            except Exception:
                if findings:  # what is not written down would be forgotten: find it again
                    self._monitor = None
                raise
        self._publish(monitor)
        self._tidy(monitor)
        self._rooms.metrics.turned("ok")
        self._show()

    def rest(self) -> None:
        """Tell the metrics once more what they were told last: a turn may be far away."""
        self._rooms.metrics.repeat()

    def failed(self, error: Exception) -> None:
        """Report a turn that failed. Raises OSError where not even that can be written."""
        self._rooms.metrics.turned("failed")
        words = f"The loop cannot go on: {type(error).__name__}: {error}"
        self._report |= degraded(words, self._now())
        write_bytes(self._status_uri, msgspec.json.encode(self._report))

    def close(self) -> None:
        """Keep the state for the next process."""
        if self._monitor is not None and self._monitor.state.step > self._snapshot:
            self._keep(self._monitor)
        self._rooms.alerts.close()

    # ---- journal and monitor ---------------------------------------------------------------------------------

    def _fold_what_was(self) -> Monitor:
        """Return the monitor, after a start or a failure with all committed steps folded.

        What they found is noted, as far as that was not done; what is to be done about it is decided at the end.
        """
        if self._monitor is not None:
            return self._monitor
        monitor = self._restored()
        self._snapshot = monitor.state.step
        for step in self._rooms.journal.steps(after=monitor.state.step):
            findings = monitor.fold(step)
            if monitor.watermark is not None and findings:
                known = [entry for entry in self._rooms.ledger.entries() if entry.step <= step.number]
                situation = look(monitor, known, findings, self._now())
                self._write(situation, note(self._spec, situation, known))
            if step.number >= self._snapshot + CATCH_UP_STEPS:
                self._keep(monitor)
        self._monitor = monitor
        return monitor

    def _restored(self) -> Monitor:
        for data in self._rooms.snapshots.newest_first():
            try:
                return self._rooms.monitor(data)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                log.warning("a snapshot of the monitor cannot be read and is passed over: %s", error)
        return self._rooms.monitor(None)

    def _new_findings(self, monitor: Monitor) -> Iterator[Sequence[Finding]]:
        """Yield what each new step found; nothing, once, where there is none: time may have come for something."""
        for taken in range(MOST_STEPS):
            try:
                step = self._rooms.journal.commit()
                if step is None:
                    if not taken:
                        yield ()
                    return
                findings = monitor.fold(step)
            except Exception:
                self._monitor = None  # half a step may be folded: begin again from a snapshot
                raise
            yield findings

    # ---- decisions -------------------------------------------------------------------------------------------

    def _decide(self, monitor: Monitor, findings: Sequence[Finding]) -> None:
        """Write down what follows, until nothing more does; then do it."""
        ledger = self._rooms.ledger
        for _ in range(_MOST_ROUNDS):
            before = len(ledger.entries())
            situation = look(monitor, ledger.entries(), findings, self._now())
            if monitor.watermark is not None:
                self._write(situation, decide(self._spec, situation, ledger.entries()))
            self._write(situation, self._outcomes(situation))
            self._write(situation, self._rollout(monitor, situation))
            if len(ledger.entries()) == before:
                break
        self._apply()

    def _outcomes(self, situation: Situation) -> Iterator[Draft]:
        """Begin the work that the ledger asks for, and yield what became of it."""
        last = link(self._rooms.ledger.entries())
        if last is not None and last.kind == "probe":
            result = self._rooms.work.probe(last)
            if not isinstance(result, Underway):
                yield probed(self._spec, situation, last, result)
        elif last is not None and last.kind == "retrain":
            outcome = self._rooms.work.retrain(last)
            if not isinstance(outcome, Underway):
                broken = self._rooms.versions.broken(outcome.bundle) if outcome.bundle and outcome.passed else None
                yield retrained(self._spec, situation, last, outcome, broken)

    def _rollout(self, monitor: Monitor, situation: Situation) -> Iterator[Draft]:
        entries = self._rooms.ledger.entries()
        wanted, found = lineup_of(entries), read_lineup(self._lineup_uri)
        generation = 1 + max(one.generation if one else 0 for one in (wanted, found))
        draft = advance(self._spec, situation, entries, monitor, generation)
        if draft is not None:
            yield draft

    def _write(self, situation: Situation, drafts: Iterable[Draft]) -> None:
        """Write entries at the very moment that they were decided for, so that they can be made again."""
        for draft in drafts:
            before = len(self._rooms.ledger.entries())
            entry = self._rooms.ledger.append(draft, situation.now)
            if entry.number > before:
                log.info("%s %s: %s", entry.at[:16], entry.kind, entry.reason)
                spans.happened(entry.kind)
                if pages(entry):
                    self._rooms.metrics.paged(entry.kind)

    # ---- what is done ----------------------------------------------------------------------------------------

    def _follow_line_up(self, monitor: Monitor) -> None:
        """Write down a line-up that somebody else wrote."""
        entries = self._rooms.ledger.entries()
        found, wanted = read_lineup(self._lineup_uri), lineup_of(entries)
        if found is None or (wanted is not None and found.generation < wanted.generation):
            return
        if wanted is not None and _same(found, wanted):
            return
        known = self._rooms.versions.known_until(found.champion.bundle)
        at = monitor.watermark or known or self._now()
        situation = Situation(monitor.state.step, at, self._now(), 0)
        self._write(situation, [by_hand(situation, entries, found, at if known is None else known)])

    def _apply(self) -> None:
        """Make line-up and registry what the ledger says; the line-up first, for it is what answers."""
        entries = self._rooms.ledger.entries()
        wanted, found = lineup_of(entries), read_lineup(self._lineup_uri)
        if wanted is not None and (found is None or found.generation < wanted.generation):
            write_lineup(self._lineup_uri, wanted)
        last = newest(entries, *CHAMPIONS)
        if last is not None and last.id != self._registered:
            if last.kind in ("promote", "rollback"):
                self._register(last)
            self._registered = last.id

    def _register(self, entry: Entry) -> None:
        registry, number = self._rooms.versions.registry(), int(entry.evidence["champion"]["version"])
        present = registry.champion()
        if present is not None and present.number == number:
            return
        before = entry.version if entry.kind == "rollback" else str(entry.evidence["other"]["version"])
        if self._registered is None and present is not None and str(present.number) != before:
            log.info("version %s was made champion by hand since %s, and stays it", present.number, entry.id)
            return
        if entry.kind == "rollback" and present is not None and str(present.number) == entry.version:
            present = registry.rollback()
        if present is None or present.number != number:
            registry.promote(number)

    # ---- reports ---------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._rooms.alerts.tell(self._rooms.ledger.entries(), self._now())

    def _publish(self, monitor: Monitor) -> None:
        self._tell()
        entries = self._rooms.ledger.entries()
        situation, stage = look(monitor, entries, (), self._now()), stage_of(entries)
        measured = None
        if stage is not None:
            measured = measure(monitor, stage, situation, self._spec.gate.confidence)
        self._report = monitor.report() | describe(self._spec, situation, entries, stage, measured)
        write_bytes(self._status_uri, msgspec.json.encode(self._report))

    def _show(self) -> None:
        rooms, interval = self._rooms, self._spec.drift.interval.total_seconds()
        rooms.metrics.show(shown(self._report, rooms.ledger.entries(), interval, rooms.alerts.waiting, rooms.clock()))

    def _tidy(self, monitor: Monitor) -> None:
        """Keep a snapshot now and then, and delete rows past their retention."""
        if monitor.state.step >= self._snapshot + SNAPSHOT_STEPS:
            self._keep(monitor)
        now = self._rooms.clock()
        if now >= self._expired + EXPIRY_SECONDS:
            self._rooms.journal.expire(round((now - self._spec.journal.retention.total_seconds()) * 1000))
            self._expired = now

    def _keep(self, monitor: Monitor) -> None:
        self._rooms.snapshots.write(monitor.state.step, monitor.to_bytes())
        self._snapshot = monitor.state.step

    def _now(self) -> int:
        return round(self._rooms.clock() * 1000)


def _same(one: Lineup, other: Lineup) -> bool:
    """Say whether the same versions answer the same shares."""
    return (one.champion, one.challenger, one.share) == (other.champion, other.challenger, other.share)
