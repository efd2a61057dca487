"""Evertrue's detectors over a case's counted hours: when each alarms, and about what."""

import datetime as dt
import json
from dataclasses import asdict, dataclass

import numpy as np

from app.monitor.detectors.detector import HOUR, Detector
from app.monitor.detectors.fast import Fast
from app.monitor.detectors.loss import WAYS, Loss
from app.monitor.detectors.medium import Medium
from app.monitor.detectors.slow import Slow
from app.monitor.profile import Reference
from benchmarks.drift.cases import Case, Counted, Store, version

FALSE_ALARM = dt.timedelta(days=365)
DETECTORS = ("fast", "medium", "slow", "loss")


@dataclass(frozen=True)
class Alarm:
    """One alarm at a moment (ms); `what` is kind, name and direction."""

    detector: str
    at: int
    what: str
    shift: float


def watch(store: Store, case: Case) -> list[Alarm]:
    """Return all alarms of a case in order; kept on disk for as long as the detectors' code stays the same."""
    path = store.folder / f"{case.name}.{version()}.json"
    if not path.exists():
        reference, mean_loss = store.reference(case)
        found = alarms(reference, mean_loss, store.counted(case))
        path.write_text(json.dumps([asdict(alarm) for alarm in found]))
    return [Alarm(**alarm) for alarm in json.loads(path.read_text())]


def alarms(reference: Reference, mean_loss: float, counted: Counted) -> list[Alarm]:
    """Return all alarms in order; labels come within their hour."""
    detectors, directions, found = _detectors(reference), reference.directions, []
    loss = Loss(reference.losses, mean_loss, FALSE_ALARM)
    until = np.searchsorted(counted.time, counted.start + HOUR).tolist()
    watched, first = reference.binning.watched, 0
    for start, last, counts in zip(counted.start.tolist(), until, counted.counts, strict=True):
        window = directions.window(start, counts)
        for name, detector in detectors.items():
            evidence = detector.update(window)
            for i in np.flatnonzero(evidence.alarm):
                kind, thing = watched[directions.thing[i]]
                what = " ".join(part for part in (kind, thing, directions.name[i]) if part)
                found.append(Alarm(name, evidence.at, what, round(float(evidence.shift[i]), 3)))
        if last > first:
            evidence = loss.update(start, counted.loss[first:last])
            found += [
                Alarm("loss", evidence.at, WAYS[i], round(float(evidence.shift[i]), 3))
                for i in np.flatnonzero(evidence.alarm)
            ]
        first = last
    return found


def state_bytes(reference: Reference) -> int:
    """Return the bytes of what the detectors hold after a month of hours."""
    detectors, directions = _detectors(reference), reference.directions
    counts = np.zeros((len(reference.binning.watched), reference.binning.width), np.uint32)
    counts[:, -1] = 200
    for hour in range(24 * 30):
        window = directions.window(hour * 3_600_000, counts)
        for detector in detectors.values():
            detector.update(window)
    return sum(array.nbytes for detector in detectors.values() for array in detector.to_arrays().values())


def _detectors(reference: Reference) -> dict[str, Detector]:
    kinds = {"fast": Fast, "medium": Medium, "slow": Slow}
    return {name: kind(reference.directions, reference.wobble, FALSE_ALARM) for name, kind in kinds.items()}
