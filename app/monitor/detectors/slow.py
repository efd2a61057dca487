"""Has something small come to stay? Days against the days before, with their memory taken out.

The level detector (`level.py`) on days, with Student's t: how far days wander is taken from the reference only as a
beginning, and learned on from the days that come. A single odd day, a holiday, then counts for little; a shift by
a tenth of a standard deviation that stays counts for more every day.

Guarantee: mean time to a false alarm at least as declared if days are AR(1) with the reference's memory, or less,
whatever their variance. A day closes when the first window of a later one comes.
"""

import datetime as dt

import numpy as np
import numpy.typing as npt

from app.monitor.detectors.detector import DAY, Arrays, Episodes, Evidence, log_threshold
from app.monitor.detectors.level import NO_ROWS, Level
from app.monitor.directions import Directions, Window
from app.monitor.wobble import Wobble

_DEGREES = (5.0, 60.0)  # of freedom that the reference's days may count for


class Slow:
    """Shapes: D directions."""

    def __init__(self, directions: Directions, wobble: Wobble, false_alarm: dt.timedelta) -> None:
        size = len(directions)
        self._hour_variance = np.square(wobble.hour)
        self._threshold = log_threshold(false_alarm, DAY, directions.weight)
        self._level = Level(wobble, directions.largest, np.clip(wobble.days, *_DEGREES))
        self._episodes = Episodes(size, DAY)
        self._day = np.full(1, -1, np.int64)
        self._sums, self._rows, self._squares = np.zeros(size), np.zeros(size), np.zeros(size)
        quiet = np.full(size, -np.inf), np.zeros(size), np.zeros(size, np.int64)
        self._log_m, self._shift, self._onset = quiet

    def update(self, window: Window) -> Evidence:
        """Take the next closed hour; the evidence is that of the days that are over."""
        alarm: npt.NDArray[np.bool_] = np.zeros(len(self._log_m), bool)
        if window.start // DAY != self._day[0]:
            if self._rows.any():
                alarm = self._close()
            self._day[0] = window.start // DAY
            self._sums, self._rows, self._squares = (np.zeros_like(self._sums) for _ in range(3))
        self._sums = self._sums + window.sums
        self._rows = self._rows + window.rows
        self._squares = self._squares + np.square(window.rows)
        at = int(self._day[0]) * DAY
        return Evidence(at, self._log_m, self._threshold, alarm, self._shift, self._onset)

    def _close(self) -> npt.NDArray[np.bool_]:
        """Weigh the day that is over; return which directions alarm (D,)."""
        rows = np.maximum(self._rows, NO_ROWS)
        # Of unequal hours the mean's variance is that of an hour by the sum of squared weights.
        hour = self._hour_variance * self._squares / np.square(rows)
        start = int(self._day[0]) * DAY
        self._log_m, self._shift, self._onset = self._level.update(start, self._sums / rows, 1 / rows, hour)
        crossed = self._log_m >= self._threshold
        self._level.restart(crossed)
        return self._episodes.news(crossed, start + DAY)

    def to_arrays(self) -> Arrays:
        """Return the state: of the level, of the open day, and the evidence so far."""
        own = {f"day.{name}": getattr(self, f"_{name}").copy() for name in _STATE}
        return self._level.to_arrays() | own | {"last": self._episodes.last.copy()}

    def restore(self, arrays: Arrays) -> None:
        """Go on from `to_arrays`."""
        self._level.restore(arrays)
        self._episodes.last = arrays["last"].copy()
        for name in _STATE:
            setattr(self, f"_{name}", arrays[f"day.{name}"].copy())


_STATE = ("day", "sums", "rows", "squares", "log_m", "shift", "onset")
