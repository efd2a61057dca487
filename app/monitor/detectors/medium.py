"""Has something of middling size happened within hours or days? Every window length at once, from hours on.

The level detector (`level.py`) on hours. Day-to-day wobble, its memory and the reference's error are in the model
with the variances that the reference's own days had, widened by what few days leave open; so it needs no
tolerance, and sees a shift by a quarter of a standard deviation, far within the tolerance of the fast detector.

Guarantee: mean time to a false alarm at least as declared if days and hours wander as modelled (normal, AR(1)),
at most as far as the reference's. The fast detector needs neither; where its guarantee is too dear, this one's
assumption is the price.
"""

import datetime as dt

import numpy as np

from app.monitor.detectors.detector import HOUR, Arrays, Episodes, Evidence, log_threshold
from app.monitor.detectors.level import NO_ROWS, Level
from app.monitor.directions import Directions, Window
from app.monitor.wobble import Wobble


class Medium:
    """Shapes: D directions."""

    def __init__(self, directions: Directions, wobble: Wobble, false_alarm: dt.timedelta) -> None:
        self._wobble = wobble
        self._season_error = directions.season_error
        self._threshold = log_threshold(false_alarm, HOUR, directions.weight)
        self._level = Level(wobble, directions.largest)
        self._episodes = Episodes(len(directions), HOUR)

    def update(self, window: Window) -> Evidence:
        """Take the next closed hour."""
        at, rows = window.start + HOUR, np.maximum(window.rows, NO_ROWS)
        hour = np.square(self._wobble.hour) + np.square(self._season_error[window.slot])
        log_m, shift, onset = self._level.update(window.start, window.sums / rows, 1 / rows, hour)
        crossed = log_m >= self._threshold
        self._level.restart(crossed)
        return Evidence(at, log_m, self._threshold, self._episodes.news(crossed, at), shift, onset)

    def to_arrays(self) -> Arrays:
        """Return the state."""
        return self._level.to_arrays() | {"last": self._episodes.last.copy()}

    def restore(self, arrays: Arrays) -> None:
        """Go on from `to_arrays`."""
        self._level.restore(arrays)
        self._episodes.last = arrays["last"].copy()
