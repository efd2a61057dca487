"""A declaration, findings, and a book in memory for the rooms' decisions."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from app.decisions.ledger import Draft, Entry, plain, to_iso
from app.decisions.policy import decide
from app.decisions.situation import Champion, Situation
from app.monitor.findings import Finding
from app.spec import Spec

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
        return Finding(**(told | changes))

    return make
