"""A declaration, findings, a book in memory, and a world around the keeper, for the rooms' decisions."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from app.decisions.alerts import Alerts
from app.decisions.keeper import Keeper, Rooms
from app.decisions.ledger import Draft, Entry, Ledger, plain, to_iso
from app.decisions.policy import decide
from app.decisions.retrain import Outcome
from app.decisions.situation import Champion, Situation
from app.decisions.snapshots import Snapshots
from app.decisions.work import Underway
from app.journal.rows import FIXED, PROFILES, Step
from app.lineup import Answering, Lineup, read_lineup, write_lineup
from app.monitor.figures import Figures
from app.monitor.findings import Finding
from app.spec import Spec
from app.telemetry import DURATION_BOUNDS, LoopMetrics
from app.workspace import Workspace

DAY = 86_400_000
START = int(dt.datetime(2024, 3, 1, tzinfo=dt.UTC).timestamp() * 1000)
FIRST = Champion("1", "bundles/one", START)


class Book:
    """A ledger in memory, and the situation that moves on with it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.entries: list[Entry] = []
        self.day = 0.0
        self.step = 0
        self.append(Draft("deploy", "1", START, 0, "version 1 answers", {"champion": FIRST.to_json()}, version="1"))

    def append(self, draft: Draft, now: int = 0) -> Entry:
        known = next((entry for entry in self.entries if entry.id == draft.id("rides")), None)
        if known is not None:
            return known
        entry = Entry(
            len(self.entries) + 1,
            draft.id("rides"),
            draft.kind,
            to_iso(draft.at),
            to_iso(now),
            draft.step,
            draft.about,
            draft.version,
            draft.reason,
            plain(draft.evidence),
        )
        self.entries.append(entry)
        return entry

    def situation(self, day: float, *findings: Finding, labels: int = 10**6, faults=(), now: int = 0) -> Situation:
        self.step += 1
        return Situation(self.step, START + round(day * DAY), now, labels, findings, tuple(faults))

    def on(self, day: float, *findings: Finding, labels: int = 10**6, faults=(), now: int = 0) -> list[Entry]:
        """Fold a day, decide, write, and return what was written."""
        drafts = decide(
            self.spec, self.situation(day, *findings, labels=labels, faults=faults, now=now), self.entries
        )
        return [self.append(draft, now) for draft in drafts]

    def answer(self, kind: str, day: float, now: int = 0, **evidence: Any) -> Entry:
        """Write what became of the last entry."""
        at = START + round(day * DAY)
        if kind in ("retrained", "refused", "retrain_failed"):
            evidence = {"cpu_seconds": 1.0, "decision": self.entries[-1].id} | evidence
        return self.append(Draft(kind, "", at, self.step, kind, evidence, self.entries[-1].id), now)

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.entries]


HOUR = 3_600_000


class Killed(BaseException):
    """The process ends here."""


class Bomb:
    """Ends the process before or after the n-th thing that lasts."""

    def __init__(self, at: int = -1) -> None:
        self.left = at

    def around(self, call):
        def guarded(*arguments, **named):
            self.tick()
            result = call(*arguments, **named)
            self.tick()
            return result

        return guarded

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class Journal:
    """Committed steps, and the new ones that `arrive`."""

    def __init__(self, bomb: Bomb) -> None:
        self.committed, self.new, self.expired, self.bomb = [], [], [], bomb

    def commit(self):
        if not self.new:
            return None
        self.committed.append(self.new.pop(0))
        self.bomb.tick()
        return self.committed[-1]

    def steps(self, after=0):
        yield from [step for step in self.committed if step.number > after]

    def expire(self, before):
        self.expired.append(before)

    def arrive(self, *profiles, labels=()):
        number = len(self.committed) + len(self.new) + 1
        counted = pa.Table.from_pylist([dict(profile) for profile in profiles], PROFILES)
        self.new.append(Step(number, FIXED["predictions"].empty_table(), pa.Table.from_pylist(list(labels)), counted))


class Monitor:
    """A fold that finds what a script says, and sums figures as the real one does."""

    def __init__(self, script, data=None) -> None:
        self.script = script
        self.state = SimpleNamespace(step=0, figures=Figures())
        self.folded = []
        if data is not None:
            for number, labels, profiles in msgspec.json.decode(data):
                self.fold(Step(number, None, pa.Table.from_pylist(labels), pa.Table.from_pylist(profiles, PROFILES)))

    @property
    def watermark(self):
        return START + self.state.step * HOUR if self.state.step else None

    def fold(self, step):
        assert step.number == self.state.step + 1
        self.state.step = step.number
        self.state.figures.add_profiles(step.number, step.profiles)
        for row in step.labels.to_pylist():
            self.state.figures.add_losses(step.number, losses(**row))
        self.folded.append((step.number, step.labels.to_pylist(), step.profiles.to_pylist()))
        return self.script.get(step.number, [])

    def labelled_since(self, moment):
        return 5000

    def faults(self):
        """A fault is open for five steps."""
        recent = range(self.state.step - 4, self.state.step + 1)
        return [one for step in recent for one in self.script.get(step, []) if one.kind == "fault"]

    def subject(self, version):
        target, labels = SimpleNamespace(task="binary", std=1.0), np.array([[60, 40]])
        return SimpleNamespace(plan=SimpleNamespace(target=target), reference=SimpleNamespace(labels=labels))

    def to_bytes(self):
        return msgspec.json.encode(self.folded)

    def report(self):
        labels = dict.fromkeys(("joined", "waiting", "unmatched", "duplicates", "late", "unusable"), 0)
        return {
            "step": self.state.step,
            "as_of": None,
            "labels": labels | {"coverage": None},
            "loss": {"expected": 0.5, "lately": None, "days": []},
            "features": [],
            "findings": [],
        }


class Work:
    """Probes and retrainings that end when they are asked often enough; `begun` is what the cluster saw."""

    def __init__(self) -> None:
        self.begun, self.patience = [], 1
        self.told = SimpleNamespace(relative=0.03, low=0.01, high=0.05, rows=900, days=20, seconds=1.0)
        self.made = Outcome("d", 9.0, 2, "bundles/2", True, ["better than the champion"], {}, START)

    def probe(self, entry):
        return self._ask(entry, self.told)

    def retrain(self, entry):
        number = (
            2 + list(dict.fromkeys(one for one in self.begun if "retrain" in one)).index(entry.id)
            if entry.id in self.begun
            else 0
        )
        made = (
            self.made if self.made.version is None else replace(self.made, version=number, bundle=f"bundles/{number}")
        )
        return self._ask(entry, made)

    def _ask(self, entry, result):
        self.begun.append(entry.id)
        return result if self.begun.count(entry.id) > self.patience else Underway("running")


class Registry:
    """Aliases in memory, as the real one keeps them."""

    def __init__(self, bomb: Bomb) -> None:
        self.line, self.bomb = [1], bomb

    def champion(self):
        return SimpleNamespace(number=self.line[-1])

    def promote(self, number):
        self.line.append(number)
        self.bomb.tick()

    def rollback(self):
        self.line.pop()
        self.bomb.tick()
        return self.champion()


class World:
    """All that outlives a keeper, and the keeper of the moment."""

    def __init__(self, spec, folder, script) -> None:
        self.spec, self.script, self.bomb, self.time = spec, script, Bomb(), 1e9
        self.workspace = Workspace.open(str(folder))
        self.journal, self.registry, self.work = Journal(self.bomb), Registry(self.bomb), Work()
        self.uri = self.workspace.uri("rides", "lineup.json")
        write_lineup(self.uri, Lineup(4, Answering("1", "bundles/one")))
        self.broken = None
        self.restart()

    def restart(self):
        self.gauges: dict[tuple[str, ...], float] = {}

        def show(metric, value, *tags):
            self.gauges[metric.name, *tags] = value

        metrics = LoopMetrics("rides", SimpleNamespace(add=lambda *_: None, set=show))
        ledger = Ledger.open(self.workspace, "rides")
        versions = SimpleNamespace(
            registry=lambda: self.registry, known_until=lambda uri: START, broken=lambda uri: self.broken
        )
        self.keeper = Keeper(
            Rooms(
                spec=self.spec,
                workspace=self.workspace,
                journal=self.journal,
                monitor=self.monitor,
                snapshots=Snapshots(self.workspace.uri("rides", "monitor"), "d1"),
                ledger=ledger,
                versions=versions,
                work=self.work,
                alerts=Alerts(self.workspace, "rides", None, metrics),
                metrics=metrics,
                clock=lambda: self.time,
            )
        )

    @property
    def entries(self):
        return Ledger.open(self.workspace, "rides").entries()

    def kinds(self):
        return [entry.kind for entry in self.entries]

    def monitor(self, data):
        return Monitor(self.script, data)

    def until(self, kind: str, times: int = 1) -> None:
        """Let time pass until something has been written so often."""
        for _ in range(60):
            if self.kinds().count(kind) >= times:
                return
            self.live(1)
        raise AssertionError(self.kinds())

    def label(self, rows: int, worse: float) -> None:
        """Let labels come for rows of the champion that the other version scored, too, with a higher loss."""
        lineup = read_lineup(self.uri)
        other = lineup.challenger.version
        self.journal.arrive(
            labels=[{"version": lineup.champion.version, "other": other, "rows": rows, "worse": worse}]
        )
        self.keeper.turn()

    def status(self):
        return json.loads((self.folder / "status.json").read_text())

    @property
    def folder(self):
        return Path(self.workspace.uri("rides"))

    def serve(self):
        """Answer some rows with whatever the line-up says, as replicas would report it."""
        lineup = read_lineup(self.uri)
        rows = [profile(lineup.champion.version, "champion", 300)]
        if lineup.challenger is not None:
            rows.append(profile(lineup.challenger.version, "challenger" if lineup.share else "shadow", 300))
        self.journal.arrive(*rows)

    def live(self, turns: int):
        """Let time pass; a keeper that is killed is followed by another."""
        for _ in range(turns):
            self.serve()
            try:
                self.keeper.turn()
            except Killed:
                self.restart()


def profile(version, role, rows, errors=0):
    seconds = [rows] + [0] * len(DURATION_BOUNDS)
    return {"version": version, "role": role, "rows": rows, "calls": rows, "errors": errors, "not_finite": 0} | {
        "seconds": seconds
    }


def losses(version: str, other: str, rows: int, worse: float) -> pl.DataFrame:
    """Return rows with a label that a champion and a shadow have scored, the shadow worse, with some noise."""
    random = np.random.default_rng(rows)
    loss = random.random(rows)
    roles = {"version": [version] * rows, "role": ["champion"] * rows, "shadow_version": [other] * rows}
    shadow = loss + worse + 0.1 * random.standard_normal(rows)
    counted = {"loss": loss, "shadow_loss": shadow, "difference": loss - shadow}
    return pl.DataFrame({"event": START + np.arange(rows), **roles, **counted})


@pytest.fixture
def spec_of() -> Callable[..., Spec]:
    def make(**sections: Any) -> Spec:
        minimal = {"name": "rides", "task": {"target": "late"}, "data": {"source": "rides.parquet"}}
        return Spec.model_validate(minimal | sections)

    return make


@pytest.fixture
def book(spec_of: Callable[..., Spec]) -> Callable[..., Book]:
    return lambda **retrain: Book(spec_of(retrain=retrain))


@pytest.fixture
def finding() -> Callable[..., Finding]:
    def make(kind: str = "drift", what: str = "distance", **changes: Any) -> Finding:
        told = {"kind": kind, "what": what, "detector": "fast", "direction": "higher", "shift": 0.6}
        told |= {"evidence": 9e3, "threshold": 8760.0, "onset": START, "at": START + DAY, "step": 1, "version": "1"}
        told["detail"] = {"missing": 0.9, "expected": 0.01, "sent": "degrees Fahrenheit", "rows": 900}
        return Finding(**(told | changes))

    return make


@pytest.fixture
def make_world(spec_of, finding, tmp_path_factory):
    def make(script=None, rollout=None, **sections):
        rollout = {"stages": [0.5, 1.0], "shadow_rows": 200} | (rollout or {})
        script = {2: [finding(step=2)]} if script is None else script
        return World(spec_of(rollout=rollout, **sections), tmp_path_factory.mktemp("world"), script)

    return make


@pytest.fixture
def profile_of() -> Callable[..., dict[str, Any]]:
    return profile
