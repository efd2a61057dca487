"""What do the detectors say of the version in force? Their alarms become findings, told once."""

import datetime as dt
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from app.monitor.binning import FIRST, Counts
from app.monitor.detectors import Detector, Evidence, Loss, detectors
from app.monitor.detectors.detector import Arrays
from app.monitor.detectors.loss import WAYS
from app.monitor.directions import Name
from app.monitor.findings import Finding, Subject
from app.monitor.recent import Recent, bins, label, moved_most

_WORDS: dict[Name, tuple[str, str]] = {
    "location": ("higher", "lower"),
    "scale": ("wider", "narrower"),
    "skew": ("more to the right", "more to the left"),
    "missing": ("more missing", "fewer missing"),
    "outside": ("more outside", "fewer outside"),
    "unseen": ("more unseen", "fewer unseen"),
    "value": ("more", "fewer"),
}
_DERIVED = ("component", "distance", "prediction", "confidence")  # move with whatever feature does


@dataclass(frozen=True)
class Standing:
    """How far one thing is from an alarm: of its directions and detectors, the one that has come furthest."""

    detector: str
    direction: str
    shift: float
    onset: int
    evidence: float
    threshold: float

    @property
    def reached(self) -> float:
        """Part of the way to an alarm, 0 to 1."""
        return min(max(self.evidence / self.threshold, 0.0), 1.0)


class Watch:
    """The detectors of one version's features, predictions and losses."""

    def __init__(self, subject: Subject, false_alarm: dt.timedelta) -> None:
        self._subject = subject
        self._detectors: dict[str, Detector] = detectors(subject.reference, false_alarm)
        self._newest: dict[str, Evidence] = {}
        self._loss: Loss | None = None
        if subject.loss is not None:
            self._loss = Loss(subject.reference.losses, subject.loss, false_alarm)

    @property
    def names(self) -> list[str]:
        """What is watched, row by row of the counts: features by name, `component 1` ..., `distance`, `prediction`."""
        return [
            name if kind in ("number", "category") else f"{kind} {name}".strip()
            for kind, name in self._subject.reference.binning.watched
        ]

    def update(self, recent: Recent, broken: Collection[str], step: int) -> Iterator[Finding]:
        """Take the newest of the recent hours. Features that are `broken` upstream tell the detectors nothing."""
        directions, silent = self._subject.reference.directions, self._silent(broken)
        counts = recent.counts[-1].copy()
        counts[silent] = 0
        window = directions.window(int(recent.starts[-1]), counts)
        for name, detector in self._detectors.items():
            evidence = self._newest[name] = detector.update(window)
            # What was counted before it broke may be about it, too.
            spoken = replace(evidence, alarm=evidence.alarm & ~silent[directions.thing])
            yield from self._findings(name, spoken, recent, step)

    def standings(self) -> dict[str, Standing]:
        """Return how things stand after the newest hour, by name; nothing before the first."""
        names, found = self.names, {}
        thing = self._subject.reference.directions.thing
        if not self._newest:
            return {}
        reached = np.stack([evidence.log_m / evidence.threshold for evidence in self._newest.values()])
        best = reached.argmax(axis=0)
        for i, name in enumerate(names):
            mine = np.flatnonzero(thing == i)
            if len(mine):
                d = int(mine[reached.max(axis=0)[mine].argmax()])
                detector, evidence = list(self._newest.items())[best[d]]
                found[name] = Standing(
                    detector=detector,
                    direction=self._direction(d, float(evidence.shift[d])),
                    shift=float(evidence.shift[d]),
                    onset=int(evidence.onset[d]),
                    evidence=max(float(evidence.log_m[d]), 0.0),
                    threshold=float(np.broadcast_to(evidence.threshold, evidence.log_m.shape)[d]),
                )
        return found

    def _direction(self, d: int, shift: float) -> str:
        """Say in words where direction d points, up or down."""
        subject, directions = self._subject, self._subject.reference.directions
        words = _WORDS[directions.name[d]][shift < 0]
        if directions.name[d] != "value":
            return words
        return f"{words} {label(subject.plan, subject.reference.binning, int(directions.thing[d]), int(directions.bin[d]))}"

    def update_loss(self, start: int, losses: npt.NDArray[np.float64], step: int) -> Iterator[Finding]:
        """Take the losses (n,) of an hour's rows, n > 0."""
        if self._loss is None:
            return
        evidence = self._loss.update(start, losses)
        if evidence.alarm.any():
            d = int(np.where(evidence.alarm, evidence.log_m - evidence.threshold, -np.inf).argmax())
            yield Finding(
                kind="loss",
                what="loss",
                detector="loss",
                direction="higher",
                shift=float(evidence.shift[d]),
                evidence=float(evidence.log_m[d]),
                threshold=float(evidence.threshold[d]),
                onset=int(evidence.onset[d]),
                at=evidence.at,
                step=step,
                version=self._subject.version,
                detail={"way": WAYS[d], "expected": self._subject.loss},
            )

    def _silent(self, broken: Collection[str]) -> npt.NDArray[np.bool_]:
        watched = self._subject.reference.binning.watched
        return np.array([name in broken or (kind in _DERIVED and len(broken) > 0) for kind, name in watched])

    def _findings(self, detector: str, evidence: Evidence, recent: Recent, step: int) -> Iterator[Finding]:
        """Yield one finding for each thing with an alarm: that of its location, or else the one that is most certain."""
        subject, directions = self._subject, self._subject.reference.directions
        location = np.array([name == "location" for name in directions.name])
        excess = np.where(evidence.alarm, np.where(location, np.inf, evidence.log_m - evidence.threshold), -np.inf)
        for thing in np.unique(directions.thing[evidence.alarm]).tolist():
            d = int(np.where(directions.thing == thing, excess, -np.inf).argmax())
            since = recent.since(int(evidence.onset[d]))
            kind, _ = subject.reference.binning.watched[thing]
            yield Finding(
                kind="drift",
                what=self.names[thing],
                detector=detector,
                direction=self._direction(d, float(evidence.shift[d])),
                shift=float(evidence.shift[d]),
                evidence=float(evidence.log_m[d]),
                threshold=float(np.broadcast_to(evidence.threshold, evidence.log_m.shape)[d]),
                onset=int(evidence.onset[d]),
                at=int(evidence.at),
                step=step,
                version=subject.version,
                detail={
                    "thing": kind,
                    "rows": int(since.seen[thing].sum()),
                    "bins": moved_most(bins(subject.plan, since, subject.reference, thing)),
                },
            )

    def to_arrays(self) -> dict[str, Arrays]:
        """Return the detectors' states by name."""
        return {name: detector.to_arrays() for name, detector in self._all.items()}

    def restore(self, arrays: dict[str, Arrays]) -> None:
        """Go on from `to_arrays`."""
        for name, detector in self._all.items():
            detector.restore(arrays[name])

    @property
    def _all(self) -> dict[str, Detector | Loss]:
        return {**self._detectors, **({"loss": self._loss} if self._loss else {})}


def as_counts(flat: npt.NDArray[np.uint32], subject: Subject) -> Counts:
    """Return counts (W, bins + 2) as a replica wrote them."""
    binning = subject.reference.binning
    return flat.reshape(len(binning.watched), binning.bins + FIRST)
