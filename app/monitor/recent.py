"""What did the last days look like beside what was expected? The newest closed hours of the version in force."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.data.features import FeaturePlan
from app.monitor.binning import FIRST, MISSING, OUTSIDE, Binning, Counts
from app.monitor.profile import Reference

HOURS = 48
_BINS_TOLD = 5

Floats = npt.NDArray[np.float64]


@dataclass
class Recent:
    """The newest `HOURS` closed hours that had rows, oldest first."""

    starts: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # (H,) ms since 1970
    counts: Counts = field(default_factory=lambda: np.empty((0, 0, 0), np.uint32))  # (H, W, bins + 2)

    def add(self, start: int, counts: Counts) -> None:
        """Add an hour; hours come in order."""
        kept = self.counts if len(self.counts) else np.empty((0, *counts.shape), np.uint32)
        self.starts = np.append(self.starts, start)[-HOURS:]
        self.counts = np.concatenate([kept, counts[None]])[-HOURS:]

    def since(self, start: int) -> "Recent":
        """Return the hours from `start` on, the newest one in any case."""
        first = min(int(np.searchsorted(self.starts, start)), max(len(self.starts) - 1, 0))
        return Recent(self.starts[first:], self.counts[first:])

    @property
    def seen(self) -> npt.NDArray[np.int64]:
        """Counts of all hours together (W, bins + 2)."""
        total: npt.NDArray[np.int64] = self.counts.sum(axis=0, dtype=np.int64)
        return total

    def expected(self, reference: Reference) -> Floats:
        """Return the shares (W, bins + 2) of the reference in the same season slots, by the hours' rows."""
        slots = reference.binning.slots(self.starts)
        weight = np.bincount(slots, self.counts[:, 0].sum(axis=1), minlength=len(reference.counts))
        by_slot = reference.counts.sum(axis=2, keepdims=True)
        overall = reference.counts.sum(axis=0) / np.maximum(by_slot.sum(axis=0), 1)
        shares = np.where(by_slot > 0, reference.counts / np.maximum(by_slot, 1), overall)
        mixed: Floats = np.tensordot(weight / max(weight.sum(), 1), shares, axes=1)
        return mixed


class Moved(NamedTuple):
    """A bin in words, and its share of the rows."""

    bin: str
    expected: float
    seen: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"bin": self.bin, "expected": round(self.expected, 4), "seen": round(self.seen, 4)}


def bins(plan: FeaturePlan, recent: Recent, reference: Reference, thing: int) -> list[Moved]:
    """Return every bin of a watched thing that training or the recent hours had rows in."""
    expected = recent.expected(reference)[thing]
    seen = recent.seen[thing] / max(int(recent.seen[thing].sum()), 1)
    return [
        Moved(label(plan, reference.binning, thing, b), float(expected[b]), float(seen[b]))
        for b in np.flatnonzero((expected > 0) | (seen > 0)).tolist()
    ]


def moved_most(found: list[Moved]) -> list[dict[str, Any]]:
    """Return the bins whose share changed most, as plain JSON."""
    ordered = sorted(found, key=lambda one: -abs(one.seen - one.expected))
    return [one.to_json() for one in ordered[:_BINS_TOLD]]


def label(plan: FeaturePlan, binning: Binning, thing: int, b: int) -> str:
    """Say in words what bin `b` of a watched thing holds."""
    kind, name = binning.watched[thing]
    if b == MISSING:
        return "missing"
    if b == OUTSIDE:
        return "unseen" if kind == "category" else "outside the training range"
    if kind == "category":
        column = next(column for column in plan.category if column.name == name)
        last = b == binning.width - 1 and len(column.vocabulary) > binning.bins
        return "other" if last else str(column.vocabulary[b - FIRST])
    if kind == "prediction" and binning.task == "multiclass":
        return str(plan.target.classes[b - FIRST])
    if kind == "number":
        edges, row = binning.number, thing
    elif kind in ("component", "distance"):
        edges, row = binning.component, thing - len(binning.numbers) - len(binning.categories)
    else:
        edges, row = binning.score, 0
    inner = edges.inner[row][np.isfinite(edges.inner[row])]
    ends = [edges.lowest[row], *inner, edges.highest[row]]
    low, high = ends[b - FIRST : b - FIRST + 2] if b - FIRST + 1 < len(ends) else (ends[-1], ends[-1])
    return f"{low:.4g} to {high:.4g}"
