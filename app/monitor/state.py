"""What is known of the model's health after a step? A fold over the journal: the same steps give the same state.

Everything is event time; the clock of the machine that folds is never read. A snapshot and the steps after it give
what all steps give, bit for bit.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from app.journal.rows import Step
from app.monitor import snapshot
from app.monitor.clock import DAY, HOUR, Clock
from app.monitor.detectors.detector import Arrays
from app.monitor.diagnosis import Fault, diagnose
from app.monitor.figures import Figures, keep_newest
from app.monitor.findings import Finding, Subject, SubjectOf
from app.monitor.outcomes import Outcomes, losses
from app.monitor.recent import Recent
from app.monitor.report import report
from app.monitor.samples import Samples
from app.monitor.traffic import Traffic
from app.monitor.watch import Standing, Watch, as_counts
from app.monitor.windows import Hour, LossHours, Windows
from app.spec import Spec

_FORMAT = 1
_CALM = DAY  # a fault that has not been seen for so long is over
_MOST_HOURS = 24 * 800
_CONFIRMING = 24 * HOUR
"""Findings of a fault begin at its first sight; those of drift about the same thing, this long before, are its doing."""


@dataclass
class State:
    """All that a snapshot holds."""

    clock: Clock
    windows: Windows
    outcomes: Outcomes
    format: int = _FORMAT
    step: int = 0
    version: str | None = None  # in force: the champion of the newest rows
    since: int = 0  # arrival of its newest row
    figures: Figures = field(default_factory=Figures)
    samples: Samples = field(default_factory=Samples)
    recent: Recent = field(default_factory=Recent)
    loss_hours: LossHours = field(default_factory=LossHours)
    detectors: dict[str, Arrays] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)  # by thing, after the newest hour
    days: dict[int, int] = field(default_factory=dict)  # predicted rows by day
    traffic: Traffic = field(default_factory=Traffic)
    labelled: dict[int, int] = field(default_factory=dict)  # rows with a loss by hour of their event
    newest_label: int | None = None  # event time of the newest labelled row
    open: list[Finding] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)  # by fault, when it was last seen


class Monitor:
    """The fold. `subject_of` tells what a version is; it is asked once for each."""

    def __init__(self, spec: Spec, subject_of: SubjectOf) -> None:
        self._spec = spec
        self._subject_of = subject_of
        self._subjects: dict[str, Subject] = {}
        self._watch: Watch | None = None
        wait, lateness = (int(d.total_seconds() * 1000) for d in (spec.journal.label_wait, spec.drift.lateness))
        self.state = State(Clock(), Windows(lateness), Outcomes(wait))

    @property
    def watermark(self) -> int | None:
        """Event time reached, ms since 1970; None before the first prediction."""
        return self.state.clock.watermark

    def fold(self, step: Step) -> list[Finding]:
        """Take in the next step and return what it made certain."""
        state = self.state
        assert step.number > state.step, f"step {step.number} after step {state.step}"
        state.step = step.number
        found: list[Finding] = []
        if step.predictions.num_rows:
            self._follow(step.predictions)
            irregular = list(self._traffic(step.predictions))
            found += self._faults(irregular, self.state.clock.watermark or 0)
            state.figures.add_pairs(step.number, step.predictions)
        state.figures.add_profiles(step.number, step.profiles)
        state.windows.add(step.profiles)
        found += self._outcomes(step)
        if state.clock.watermark is not None:
            hours = [hour for hour in state.windows.close(state.clock.watermark) if hour.version == state.version]
            for hour in hours:
                found += self._hour(hour)
            if hours and self._watch:
                state.standings = self._watch.standings()
            found += self._losses(state.clock.watermark)
            self._calm()
        return found

    def subject(self, version: str) -> Subject:
        """Return what is known of a version."""
        if version not in self._subjects:
            self._subjects[version] = self._subject_of(version)
        return self._subjects[version]

    def labelled_since(self, moment: int) -> int:
        """Return the rows with a label whose event lies in the hours after `moment`, ms since 1970."""
        return sum(rows for hour, rows in self.state.labelled.items() if hour + HOUR > moment)

    def faults(self) -> list[Finding]:
        """Return the faults that are open."""
        return [finding for finding in self.state.open if finding.kind == "fault"]

    def report(self) -> dict[str, Any]:
        """Return what `/drift` tells: plain JSON of bounded size."""
        state = self.state
        return report(self._spec.name, state, self.subject(state.version) if state.version else None)

    def to_bytes(self) -> bytes:
        """Return a snapshot: equal states have equal bytes."""
        self.state.detectors = self._watch.to_arrays() if self._watch else {}
        return snapshot.encode(self.state)

    @staticmethod
    def from_bytes(data: bytes, spec: Spec, subject_of: SubjectOf) -> "Monitor":
        """Go on from a snapshot of the same declaration.

        Raises msgspec.DecodeError for anything else: then the journal has to be folded from its beginning.
        """
        monitor = Monitor(spec, subject_of)
        fresh, monitor.state = monitor.state, snapshot.decode(data, State)
        monitor.state.windows.lateness = fresh.windows.lateness
        monitor.state.outcomes.wait = fresh.outcomes.wait
        if monitor.state.version is not None:
            monitor._start_watch(monitor.state.version).restore(monitor.state.detectors)
        return monitor

    def _start_watch(self, version: str) -> Watch:
        self._watch = Watch(self.subject(version), self._spec.drift.false_alarm)
        return self._watch

    def _follow(self, predictions: pa.Table) -> None:
        """Find the version in force: whose row, of those that the champion answered, came last.

        Arrivals are replicas' clocks: one that is an hour ahead of the step's middle is not asked.
        """
        state = self.state
        arrival = predictions["arrival"].cast(pa.int64()).to_numpy()
        middle = int(np.quantile(arrival, 0.5, method="lower"))
        asked = (arrival <= middle + HOUR) & pc.equal(predictions["role"], "champion").to_numpy()
        if not asked.any():
            return
        newest = int(np.flatnonzero(asked)[arrival[asked].argmax()])
        if arrival[newest] < state.since and middle >= state.since - DAY:
            return  # a straggler of the version before
        state.since = int(arrival[newest])
        version = predictions["version"][newest].as_py()
        if version != state.version:
            state.version, state.recent, state.loss_hours = version, Recent(), LossHours()
            state.open, state.standings = self.faults(), {}
            self._start_watch(version)

    def _traffic(self, predictions: pa.Table) -> Iterator[Fault]:
        """Count a step's predictions, n > 0, and yield what is wrong with their clocks and ids."""
        state = self.state
        event, arrival = (predictions[name].cast(pa.int64()).to_numpy() for name in ("event", "arrival"))
        for day, rows in zip(*np.unique(event // DAY * DAY, return_counts=True), strict=True):
            state.days[int(day)] = state.days.get(int(day), 0) + int(rows)
        keep_newest(state.days)
        state.samples.add(state.step, predictions)
        for irregular in state.clock.tick(event, arrival):
            yield Fault("clock", "clock", irregular.direction, irregular.milliseconds / HOUR, 0, irregular.detail)

    def _repeats(self, predictions: pa.Table, repeated: int) -> Iterator[Fault]:
        """Yield what comes twice; `repeated` rows of the step have ids that were known."""
        if predictions.num_rows:
            for found in self.state.traffic.add(predictions["features"], repeated):
                yield Fault("traffic", "repeated", f"the same {found.of} again", found.share, 0, found.detail)

    def _outcomes(self, step: Step) -> list[Finding]:
        state = self.state
        before = state.outcomes.tally.repeated
        at = state.clock.watermark
        if at is None:  # labels alone, so far: they wait from their own time on
            at = int(pc.max(step.labels["event"].cast(pa.int64())).as_py() or 0) if step.labels.num_rows else 0
        joined = state.outcomes.join(step.predictions, step.labels, at)
        found = self._faults(self._repeats(step.predictions, state.outcomes.tally.repeated - before), at)
        if joined.is_empty():
            return found
        known = losses(joined, lambda version: self.subject(version).plan.target)
        state.outcomes.tally.unusable += known["loss"].null_count()
        state.figures.add_losses(step.number, known)
        known = known.filter(known["loss"].is_not_null())
        event = known["event"].to_numpy()
        mine = known.filter((pl.col("version") == state.version) & (pl.col("role") == "champion"))
        state.loss_hours.add(mine["event"].to_numpy(), mine["loss"].to_numpy())
        for hour, rows in zip(*np.unique(event // HOUR * HOUR, return_counts=True), strict=True):
            state.labelled[int(hour)] = state.labelled.get(int(hour), 0) + int(rows)
        for hour in sorted(state.labelled)[: max(0, len(state.labelled) - _MOST_HOURS)]:
            del state.labelled[hour]
        if len(event):
            state.newest_label = max(int(event.max()), state.newest_label or 0)
        return found

    def _losses(self, watermark: int) -> list[Finding]:
        """Take in the losses of hours that most labels of have come by now."""
        state = self.state
        lag = max(state.windows.lateness, int(1000 * state.outcomes.usual_delay))
        found: list[Finding] = []
        for start, loss in state.loss_hours.close(watermark - lag):
            assert self._watch is not None
            found += self._new(self._watch.update_loss(start, loss, state.step))
        return found

    def _new(self, findings: Iterable[Finding]) -> list[Finding]:
        """Keep, as open, the findings that are not known."""
        found = []
        for finding in findings:
            if not any(_same(finding, other) for other in self.state.open):
                self.state.open.append(finding)
                found.append(finding)
        return found

    def _hour(self, hour: Hour) -> list[Finding]:
        """Take in a complete hour of the version in force."""
        state, watch = self.state, self._watch
        assert watch is not None
        subject = self.subject(hour.version)
        state.recent.add(hour.start, as_counts(hour.counts, subject))
        known = {finding.what: finding for finding in self.faults()}
        found = self._faults(diagnose(subject, state.recent, state.samples, known), hour.end)
        broken = {finding.what for finding in self.faults()}
        return found + self._new(watch.update(state.recent, broken, state.step))

    def _faults(self, faults: Iterable[Fault], at: int) -> list[Finding]:
        """Return the faults that are new; drift of the same feature, if it was taken for that, is none."""
        state, found = self.state, []
        for fault in faults:
            state.seen[fault.what] = at
            finding = Finding(
                kind="fault",
                what=fault.what,
                detector=fault.cause,
                direction=fault.direction,
                shift=fault.shift,
                evidence=1.0,
                threshold=1.0,
                onset=fault.onset or at,
                at=at,
                step=state.step,
                version=state.version or "",
                detail=fault.detail,
            )
            if any(other.kind == "fault" and other.what == fault.what for other in state.open):
                continue
            taken = [other for other in state.open if other.what == fault.what and other.at >= at - _CONFIRMING]
            state.open = [*(other for other in state.open if other not in taken), finding]
            found.append(finding)
        return found

    def _calm(self) -> None:
        """Close the faults that the hours have not shown for a day; hours that are open or empty tell nothing."""
        state = self.state
        if not len(state.recent.starts):
            return
        told = int(state.recent.starts[-1]) + HOUR
        for finding in self.faults():
            if told - state.seen[finding.what] > _CALM:
                state.open.remove(finding)
                del state.seen[finding.what]


def _same(finding: Finding, other: Finding) -> bool:
    return (finding.kind, finding.what, finding.direction) == (other.kind, other.what, other.direction)
