"""How would one policy have gone? The loop's own monitor, policy and gate, led through the history day by day.

Three things differ from the live loop: a retraining takes no time, what passes the gate answers at once (a rollout takes
hours where this goes in days), and every row has one replica.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.backtest.history import DAY, History
from app.backtest.models import Model
from app.data.loss import row_loss
from app.data.moments import MOMENT
from app.decisions.ledger import Draft, Entry, Kind, plain, to_iso
from app.decisions.outcomes import probed, retrained
from app.decisions.policy import decide
from app.decisions.probe import Gain
from app.decisions.retrain import Outcome
from app.decisions.situation import Champion, Situation, champion
from app.decisions.work import Failed
from app.journal.rows import FIXED, PROFILES, Step, label_schema, prediction_schema
from app.monitor.findings import Finding, Subject
from app.monitor.state import Monitor
from app.retraining import judged_from
from app.spec import Retrain, Spec
from app.training.gate import Candidate, Opponent, Verdict, judge
from app.types import UserError

_HOUR = DAY // 24
_WATCHING = ("probe", "drift", "loss")
"""The policies that look at what the monitor finds; the others need not wait for it."""

Train = Callable[[int, Model | None], Model]
"""Gives the model of all rows before a moment (ms); the champion's weights are for a warm start."""
Probe = Callable[[Model, int], Gain]
"""Tells what retraining a champion on the rows known at a moment (ms) would gain."""


@dataclass
class Course:
    """One policy's way: `loss` (n,) of what it served (NaN: no label, or before the start), and what it cost."""

    name: str
    retrain: Retrain
    loss: npt.NDArray[np.float64]
    retrains: list[dict[str, Any]] = field(default_factory=list)
    probes: int = 0
    alarms: int = 0
    cpu_seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Mean loss of the rows served."""
        return float(np.nanmean(self.loss))


class Simulation:
    """The loop under one policy, over one history."""

    def __init__(self, name: str, spec: Spec, history: History, train: Train, probe: Probe) -> None:
        self._spec = spec
        self._history = history
        self._train = train
        self._probe = probe
        self._models: list[Model] = []
        self._since = history.start  # when the newest model began to answer
        self._entries: list[Entry] = []
        self._monitor = Monitor(spec, self._subject)
        self.course = Course(name, spec.retrain, np.full(len(history.time), np.nan))

    def run(self) -> Course:
        """Go through all days."""
        history = self._history
        self._answer_with(self._train(history.start, None), history.start)
        first = Champion("1", self._models[-1].key, history.start)
        words = "the first version answers"
        self._write(Draft("deploy", "", history.start, 0, words, _answers(first), None, first.version))
        last = int(history.time[-1])
        for number, begin in enumerate(range(history.start, last + 1, DAY), start=1):
            self._day(number, begin, min(begin + DAY, last + 1))
        self._served(last + 1)
        return self.course

    def _day(self, number: int, begin: int, end: int) -> None:
        findings = self._fold(number, begin, end) if self._spec.retrain.policy in _WATCHING else []
        self.course.alarms += len(findings)
        present = champion(self._entries)
        assert present is not None
        labels = len(self._history.known(present.known_until + self._history.delay, end))
        faults = tuple({finding.what for finding in self._monitor.faults()})
        situation = Situation(number, end, end, labels, tuple(findings), faults)
        while action := self._decide(situation):
            self._act(action, situation)
            situation = Situation(number, end, end, situation.labels, (), faults)

    def _decide(self, situation: Situation) -> Entry | None:
        """Write down what the policy decides, and return what is to be done, if anything is."""
        written = [self._write(draft) for draft in decide(self._spec, situation, self._entries)]
        return next((entry for entry in written if entry.kind in ("probe", "retrain")), None)

    def _act(self, entry: Entry, situation: Situation) -> None:
        until = int(entry.evidence["until"])
        if entry.kind == "probe":
            self._write(probed(self._spec, situation, entry, self._ask(until)))
            return
        history, before = self._history, self._models[-1]
        known = history.known(before.trained_until + history.delay, until)
        judged = round(judged_from(self._spec, int(history.time[known[-1]]), before.trained_until).timestamp() * 1000)
        trained = self._train(judged, before)
        verdict = self._judge(trained, before, judged, until)
        self.course.cpu_seconds += trained.cpu_seconds
        day = to_iso(situation.at)[:10]
        self.course.retrains.append({"day": day, "passed": verdict.passed, "reasons": verdict.reasons})
        outcome = Outcome(
            decision=entry.id,
            cpu_seconds=trained.cpu_seconds,
            version=len(self._models) + 1,
            bundle=trained.key,
            passed=verdict.passed,
            reasons=verdict.reasons,
            trained_until=judged,
        )
        told = self._write(retrained(self._spec, situation, entry, outcome, None))
        if verdict.passed:
            self._answer_with(trained, situation.at)
            chosen = Champion(str(outcome.version), trained.key, until)
            steps: tuple[Kind, Kind] = ("promote", "settled")
            for kind in steps:
                evidence = _answers(chosen)
                self._write(
                    Draft(kind, "", situation.at, situation.step, "at once", evidence, told.id, chosen.version)
                )

    def _ask(self, until: int) -> Gain | Failed:
        """Probe the model that answers."""
        try:
            gain = self._probe(self._models[-1], until)
        except UserError as error:
            return Failed(str(error))
        self.course.probes += 1
        self.course.cpu_seconds += gain.seconds
        return gain

    def _judge(self, trained: Model, before: Model, begin: int, until: int) -> Verdict:
        history, spec = self._history, self._spec
        rows = history.known(begin + history.delay, until)
        table = history.table.take(rows)
        return judge(
            spec,
            trained.plan.target,
            Candidate(trained.scores[rows], 0.0, trained.megabytes),
            Opponent("champion", before.scores[rows]),
            trained.plan.target.encode(table[history.prepared.target]),
            history.time[rows],
            table.select(spec.gate.slices),
            rows,
        )

    def _answer_with(self, model: Model, at: int) -> None:
        """Let a model answer from a moment on."""
        self._served(at)
        self._models.append(model)
        self._since = at

    def _served(self, until: int) -> None:
        """Count the loss of what the newest model has answered up to a moment."""
        if not self._models:
            return
        history, model = self._history, self._models[-1]
        rows = np.arange(len(history.time))[history.rows(self._since, until)]
        rows = rows[history.labelled[rows]]
        target = model.plan.target
        known = target.encode(history.table[history.prepared.target].take(rows))
        self.course.loss[rows] = row_loss(target, model.scores[rows], known)

    def _write(self, draft: Draft) -> Entry:
        entry = Entry(
            number=len(self._entries) + 1,
            id=draft.id(self._spec.name),
            kind=draft.kind,
            at=to_iso(draft.at),
            written=to_iso(draft.at),
            step=draft.step,
            about=draft.about,
            version=draft.version,
            reason=draft.reason,
            evidence=plain(draft.evidence),
        )
        self._entries.append(entry)
        return entry

    def _subject(self, version: str) -> Subject:
        model = self._models[int(version) - 1]
        return Subject(version, model.reference, model.plan, model.loss)

    def _fold(self, number: int, begin: int, end: int) -> list[Finding]:
        """Hand the monitor a day as the journal's step would."""
        rows, known = self._history.rows(begin, end), self._history.known(begin, end)
        if rows.start == rows.stop and not len(known):
            return []
        return self._monitor.fold(Step(number, self._predictions(rows), self._labels(known), self._profiles(rows)))

    def _predictions(self, rows: slice) -> pa.Table:
        history, model = self._history, self._models[-1]
        if rows.start == rows.stop:
            return FIXED["predictions"].empty_table()
        schema = prediction_schema(model.plan)
        size = rows.stop - rows.start
        event = pa.array(history.time[rows]).cast(MOMENT)
        sent = history.table.slice(rows.start, size)
        features = [
            sent[item.name].cast(item.type, safe=False).combine_chunks() for item in schema.field("features").type
        ]
        scores = model.scores[rows]
        columns = {
            "id": pa.array(np.arange(rows.start, rows.stop)).cast(pa.string()),
            "event": event,
            "arrival": event,
            "version": pa.array([str(len(self._models))] * size),
            "role": pa.array(["champion"] * size),
            "score": pa.array(list(scores) if scores.ndim > 1 else scores, schema.field("score").type),
            "shadow_version": pa.nulls(size, pa.string()),
            "shadow_score": pa.nulls(size, schema.field("score").type),
            "features": pa.StructArray.from_arrays(features, fields=list(schema.field("features").type)),
        }
        return pa.table(columns, schema=schema)

    def _labels(self, known: npt.NDArray[np.int64]) -> pa.Table:
        history, target = self._history, self._models[-1].plan.target
        if not len(known):
            return FIXED["labels"].empty_table()
        schema = label_schema(target)
        told = pa.array(history.time[known] + history.delay).cast(MOMENT)
        label = history.table[history.prepared.target].take(known).cast(schema.field("label").type)
        columns = {"id": pa.array(known).cast(pa.string()), "label": label, "event": told, "arrival": told}
        return pa.table(columns, schema=schema)

    def _profiles(self, rows: slice) -> pa.Table:
        history, model = self._history, self._models[-1]
        hours = history.time[rows] // _HOUR
        found = []
        for hour in np.unique(hours).tolist():
            first, last = (int(i) + rows.start for i in np.searchsorted(hours, [hour, hour + 1]))
            features = model.plan.encode(history.table.slice(first, last - first))
            counts = model.reference.binning.count(features, model.scores[first:last])
            found.append(
                {
                    "version": str(len(self._models)),
                    "role": "champion",
                    "reference": model.key,
                    "window": dt.datetime.fromtimestamp(hour * 3600, dt.UTC),
                    "replica": "backtest",
                    "rows": last - first,
                    "counts": counts.astype("<u4").tobytes(),
                    "calls": 0,
                    "errors": 0,
                    "not_finite": 0,
                    "seconds": [],
                }
            )
        return pa.Table.from_pylist(found, PROFILES)


def _answers(chosen: Champion) -> dict[str, Any]:
    return {"champion": chosen.to_json(), "generation": int(chosen.version)}
