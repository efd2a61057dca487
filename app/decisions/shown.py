"""What of a turn do the metrics show? The report's and the ledger's figures, as numbers."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from app.decisions.ledger import Entry, Kind
from app.decisions.situation import champion
from app.telemetry import LoopState

_LABELS = ("joined", "waiting", "unmatched", "duplicates", "late", "unusable")
_FINDINGS = ("drift", "loss", "fault")


def shown(
    report: Mapping[str, Any], entries: Sequence[Entry], interval: float, waiting: int, now: float
) -> LoopState:
    """Return what is known: `report` is the monitor's, `waiting` are pages, `now` is Unix time."""
    labels, loss = report["labels"], report["loss"]
    findings = Counter(finding["kind"] for finding in report["findings"])
    present, kinds = champion(entries), Counter(entry.kind for entry in entries)
    return LoopState(
        turned=now,
        interval=interval,
        step=report["step"],
        watermark=None if report["as_of"] is None else dt.datetime.fromisoformat(report["as_of"]).timestamp(),
        drift_level=_level(report["features"]),
        coverage=labels["coverage"],
        champion=int(present.version) if present is not None and present.version.isdecimal() else None,
        pages_waiting=waiting,
        findings={kind: findings[kind] for kind in _FINDINGS},
        labels={name: labels[name] for name in _LABELS},
        loss={"expected": loss["expected"], "served": loss["lately"]},
        entries={kind: kinds[kind] for kind in get_args(Kind)},
        newest={entry.kind: entry.written_ms / 1000 for entry in entries},  # the last of a kind stays
    )


def _level(features: Sequence[Mapping[str, Any]]) -> float | None:
    """Return how far the one nearest to an alarm has come."""
    told = [(one["evidence"], one["threshold"]) for one in features]
    reached = [max(evidence / threshold, 0.0) for evidence, threshold in told if evidence is not None and threshold]
    return max(reached, default=None)
