"""What does a decision rest on? The newest step's findings and counts, and where the ledger says that things stand.

All of it is plain values: the monitor's fold over the journal gives the situation, the ledger gives the standing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from app.decisions.ledger import Entry, Kind, newest
from app.monitor.findings import Finding
from app.monitor.state import Monitor

LINKS: tuple[Kind, ...] = (
    "probe",
    "probed",
    "retrain",
    "retrained",
    "refused",
    "retrain_failed",
    "page",
    "shadow",
    "stage",
    "promote",
    "settled",
    "rollback",
    "ended",
)
"""The kinds of entry that follow one from the other; the last one in the ledger says what is going on."""

CHAMPIONS: tuple[Kind, ...] = ("deploy", "promote", "rollback", "ended")
"""The kinds of entry that say which version answers since then."""


@dataclass(frozen=True)
class Situation:
    """What is known after one step of the journal.

    `at` is the watermark, in ms of event time, `now` the clock in ms. `labels` counts the labelled rows that are
    newer than what the champion's training knew; `faults` names what is broken upstream now.
    """

    step: int
    at: int
    now: int
    labels: int
    findings: tuple[Finding, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Champion:
    """The version that answers; `known_until` is the moment (ms, event time) up to which its training knew the rows."""

    version: str
    bundle: str
    known_until: int

    def to_json(self) -> dict[str, str | int]:
        """Return plain JSON values."""
        return asdict(self)


def look(monitor: Monitor, entries: Sequence[Entry], findings: Sequence[Finding], now: int) -> Situation:
    """Return the situation after the monitor's newest step, which found `findings`."""
    present = champion(entries)
    return Situation(
        step=monitor.state.step,
        at=monitor.watermark or (present.known_until if present else 0),
        now=now,
        labels=monitor.labelled_since(present.known_until) if present else 0,
        findings=tuple(findings),
        faults=tuple(sorted({finding.what for finding in monitor.faults()})),
    )


def champion(entries: Sequence[Entry]) -> Champion | None:
    """Return who answers by the ledger."""
    entry = newest(entries, *CHAMPIONS)
    return None if entry is None else Champion(**entry.evidence["champion"])


def link(entries: Sequence[Entry]) -> Entry | None:
    """Return the last link of the chain of probes, retrainings and rollouts."""
    return newest(entries, *LINKS)


def busy(entries: Sequence[Entry]) -> str | None:
    """Say what is under way, if anything is: there is one thing at a time."""
    last = link(entries)
    words: dict[Kind, str] = {
        "probe": "a probe is running",
        "retrain": "a retraining is running",
        "retrain_failed": "a retraining that failed is to be tried again",
        "shadow": "a rollout is under way",
        "stage": "a rollout is under way",
        "promote": "the new champion is still being watched",
    }
    if last is None:
        return None
    if last.kind == "retrained" and last.evidence["rollout"]:
        return "a rollout is about to begin"
    return words.get(last.kind)
