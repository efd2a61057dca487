"""What is every detector? Told closed hours one by one, it says how much speaks for a shift, and when that is enough."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from app.monitor.directions import Floats, Integers, Window

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

DETECTORS = 4  # that share the budget: fast, medium, slow and loss
HOUR, DAY = 3_600_000, 86_400_000
_EPISODE = {HOUR: 7 * DAY, DAY: 28 * DAY}


@dataclass(frozen=True)
class Evidence:
    """What a detector holds after a window; arrays over its directions (D,).

    `log_m` is the logarithm of the Shiryaev-Roberts statistic, `threshold` the value from which it is certain;
    `alarm` tells the directions for which it has just become so. `shift` is in standard deviations of a reference
    row, its sign the direction's; `onset` is when it is thought to have begun, ms since 1970. Both are a
    guess as long as there is no alarm.
    """

    at: int  # end of the newest window, ms since 1970
    log_m: Floats
    threshold: Floats
    alarm: npt.NDArray[np.bool_]
    shift: Floats
    onset: Integers


class Detector(Protocol):
    """One way to look for shifts in all directions at once."""

    def update(self, window: Window) -> Evidence:
        """Take the next closed hour: its start is later than all before. Hours without rows may be left out."""

    def to_arrays(self) -> Arrays:
        """Return all that `update` has changed; equal states give equal arrays."""

    def restore(self, arrays: Arrays) -> None:
        """Go on from what `to_arrays` of a detector with the same reference and budget returned."""


def log_threshold(false_alarm: dt.timedelta, window: int, weight: Floats) -> Floats:
    """Return from which log M on to alarm, for the `weight` (D,) a direction has in the budget, which add up to 1.

    In control E[M_t] <= t windows. A direction alarms at M >= A / weight; the weighted mean of all M is then at
    least A, whose expected time is at least A windows. With A = `DETECTORS` x `false_alarm`, all detectors
    together alarm falsely not more often than once in `false_alarm`.
    """
    windows = DETECTORS * (false_alarm / dt.timedelta(milliseconds=window))
    threshold: Floats = np.log(windows) - np.log(weight)
    return threshold


class Episodes:
    """Which crossings are news? A direction that crosses again soon after the last time is still the same.

    Soon is a week for windows of an hour, four for those of a day, which need longer to be certain again.
    """

    def __init__(self, directions: int, window: int) -> None:
        self._length = _EPISODE[window]
        self.last = np.full(directions, -self._length, np.int64)

    def news(self, crossed: npt.NDArray[np.bool_], at: int) -> npt.NDArray[np.bool_]:
        """Return which of the directions that crossed the threshold (D,) at `at` begin an episode."""
        news: npt.NDArray[np.bool_] = crossed & (at - self.last >= self._length)
        self.last[crossed] = at
        return news
