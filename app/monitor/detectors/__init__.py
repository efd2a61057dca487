"""Detectors with a promise: each says how often, at most, it will cry wolf. One idea a file.

    directions, wobble = reference.directions, reference.wobble
    watch = detectors(reference, drift.false_alarm)                # {"fast": ..., "medium": ..., "slow": ...}
    window = directions.window(start, counts)                      # a closed hour, replicas' counts added
    evidence = watch["fast"].update(window)                        # log_m, threshold, alarm, shift, onset: all (D,)
    watch["fast"].to_arrays(), watch["fast"].restore(arrays)       # snapshots: plain numpy

`directions.thing[d]`, `.name[d]` and `.bin[d]` tell what direction d is about. The loss has a detector of its own,
told row losses instead of counts: `Loss(reference.losses, expected, false_alarm).update(start, losses)`.
"""

import datetime as dt

from app.monitor.detectors.detector import Detector, Evidence
from app.monitor.detectors.fast import Fast
from app.monitor.detectors.loss import Loss
from app.monitor.detectors.medium import Medium
from app.monitor.detectors.slow import Slow
from app.monitor.profile import Reference

__all__ = ["Detector", "Evidence", "Loss", "detectors"]


def detectors(reference: Reference, false_alarm: dt.timedelta) -> dict[str, Detector]:
    """Return the detectors of features and predictions by name; with the loss's they share the budget."""
    directions, wobble = reference.directions, reference.wobble
    return {
        "fast": Fast(directions, wobble, false_alarm),
        "medium": Medium(directions, wobble, false_alarm),
        "slow": Slow(directions, wobble, false_alarm),
    }
