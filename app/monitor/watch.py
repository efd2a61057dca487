"""What do the detectors say of the version in force? Their alarms become findings, told once."""

import datetime as dt
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from app.monitor.binning import FIRST, Counts
from app.monitor.detectors import Detector, Evidence, detectors
from app.monitor.detectors.detector import Arrays
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


class Watch:
    """The detectors of one version's features and predictions."""

    def __init__(self, subject: Subject, false_alarm: dt.timedelta) -> None:
        self._subject = subject
        self._detectors: dict[str, Detector] = detectors(subject.reference, false_alarm)

    @property
    def names(self) -> list[str]:
        """What is watched, row by row of the counts: features by name, `component 1` ..., `distance`, `prediction`."""
        return [
            name if kind in ("number", "category") else f"{kind} {name}".strip()
            for kind, name in self._subject.reference.binning.watched
        ]

    def update(self, recent: Recent, broken: Collection[str], step: int) -> Iterator[Finding]:
        """Take the newest of the recent hours. Features that are `broken` upstream tell the detectors nothing."""
        directions = self._subject.reference.directions
        counts = recent.counts[-1].copy()
        counts[self._silent(broken)] = 0
        window = directions.window(int(recent.starts[-1]), counts)
        for name, detector in self._detectors.items():
            evidence = detector.update(window)
            yield from self._findings(name, evidence, recent, step)

    def _silent(self, broken: Collection[str]) -> npt.NDArray[np.bool_]:
        watched = self._subject.reference.binning.watched
        return np.array([name in broken or (kind in _DERIVED and len(broken) > 0) for kind, name in watched])

    def _findings(self, detector: str, evidence: Evidence, recent: Recent, step: int) -> Iterator[Finding]:
        """Yield one finding for each thing with an alarm: of its directions the one that is most certain."""
        subject, directions = self._subject, self._subject.reference.directions
        excess = np.where(evidence.alarm, evidence.log_m - evidence.threshold, -np.inf)
        for thing in np.unique(directions.thing[evidence.alarm]).tolist():
            d = int(np.where(directions.thing == thing, excess, -np.inf).argmax())
            up, down = _WORDS[directions.name[d]]
            direction = up if evidence.shift[d] >= 0 else down
            if directions.name[d] == "value":
                direction += f" {label(subject.plan, subject.reference.binning, thing, int(directions.bin[d]))}"
            since = recent.since(int(evidence.onset[d]))
            kind, _ = subject.reference.binning.watched[thing]
            yield Finding(
                kind="drift",
                what=self.names[thing],
                detector=detector,
                direction=direction,
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
        return {name: detector.to_arrays() for name, detector in self._detectors.items()}

    def restore(self, arrays: dict[str, Arrays]) -> None:
        """Go on from `to_arrays`."""
        for name, detector in self._detectors.items():
            detector.restore(arrays[name])


def as_counts(flat: npt.NDArray[np.uint32], subject: Subject) -> Counts:
    """Return counts (W, bins + 2) as a replica wrote them."""
    binning = subject.reference.binning
    return flat.reshape(len(binning.watched), binning.bins + FIRST)
