"""Does the model err more than it did? Told the losses of rows whose labels have come, in two ways at once.

- bets, as in the fast detector: a loss is not negative, so x = loss / ((1 + margin) expected) - 1 is at least -1,
  and a bet of size lambda < 1 earns the factor 1 + lambda x > 0: a fair game while the mean loss stays within its
  margin, however large a single loss may be. log M <- log(1 + M) + sum over rows of log(1 + lambda x).
  Guarantee: mean time to a false alarm at least as declared under any dependence, as long as the expected loss of
  a row, given all before it, stays within (1 + margin) times the expected one.
- level, as in the medium detector: hours' mean losses against how far the validation rows' hours and days
  wandered. A week of bad weather is then one event, not seven thousand; where losses hardly wander, hours suffice.
  Guarantee: as declared if losses wander as modelled. Losses are cut off at the largest of the validation rows.

Only a rise alarms. Whatever the loss and its unit: only ratios to the expected loss count.

References: Podkopaev, Ramdas (2022), Tracking the risk of a deployed model and detecting harmful distribution shifts.
"""

import datetime as dt

import numpy as np
import numpy.typing as npt

from app.monitor.detectors.detector import HOUR, Arrays, Episodes, Evidence, log_threshold
from app.monitor.detectors.level import Level
from app.monitor.directions import Floats
from app.monitor.wobble import Losses

WAYS = ("bets", "level")
_BETS = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
_SMALLEST_MARGIN = 0.1
_SMALLEST = 1e-6  # expected loss, of the largest: of a model that never erred, any loss would be infinitely more


class Loss:
    """Evidence of bets and level, as though of two directions (2,); a shift is relative to the expected loss."""

    def __init__(self, losses: Losses, expected: float, false_alarm: dt.timedelta) -> None:
        """`losses` are the reference's; `expected` is the mean row loss on rows the model did not learn from."""
        smallest = _SMALLEST * (losses.largest or 1.0)
        self._losses, self._expected = losses, max(expected, smallest)
        self._sd, self._largest = max(losses.sd, smallest), max(losses.largest, self._expected + losses.sd)
        wobble = losses.wobble
        away = 4 * np.sqrt(np.square(wobble.day) + np.square(wobble.hour)) + 3 * wobble.error
        self._margin = max(_SMALLEST_MARGIN, float(away[0]) * self._sd / self._expected)
        self._threshold = log_threshold(false_alarm, HOUR, np.full(len(WAYS), 1 / len(WAYS)))
        self._log_m = np.full(len(_BETS), -np.inf)
        self._gain = np.zeros(len(_BETS))  # of the best game so far: what has been won since `_onset`
        self._onset = np.zeros(len(_BETS), np.int64)
        self._sum, self._rows = (
            np.zeros(len(_BETS)),
            np.zeros(len(_BETS)),
        )  # of losses over the expected, since `_onset`
        self._hour = np.square(wobble.hour)
        self._level = Level(wobble, np.array([(self._largest - self._expected) / self._sd]))
        self._episodes = Episodes(len(WAYS), HOUR)

    def update(self, start: int, losses: npt.NDArray[np.floating]) -> Evidence:
        """Take the losses (n,) of the rows whose labels belong to the hour that starts at `start`, ms since 1970.

        Hours come in order; those without labels are left out: there have to be some.
        """
        values = losses.astype(np.float64)
        usual = max(self._expected + self._losses.expected(start) - self._losses.mean, self._expected / 10)
        bets = self._bet(start, values, usual)
        cut = np.minimum(values, self._largest).mean()
        standardised = np.array([(cut - usual) / self._sd])
        log_m, shift, onset = self._level.update(start, standardised, np.array([1 / len(values)]), self._hour)
        level = float(log_m[0]), float(shift[0]) * self._sd / self._expected, int(onset[0])

        at = start + HOUR
        of_log_m, of_shift, of_onset = (np.array(pair) for pair in zip(bets, level, strict=True))
        crossed = (of_log_m >= self._threshold) & (of_shift > 0)
        if crossed[0]:
            self._log_m[:], self._gain[:] = -np.inf, 0
        self._level.restart(crossed[1:])
        news = self._episodes.news(crossed, at)
        return Evidence(at, of_log_m, self._threshold, news, of_shift, of_onset)

    def _bet(self, start: int, values: Floats, usual: float) -> tuple[float, float, int]:
        """Bet on the rows' losses (n,), whose season's mean is `usual`; return log M, shift and onset."""
        earned = np.log1p(_BETS[:, None] * (values / (usual * (1 + self._margin)) - 1)).sum(axis=1)
        fresh = self._gain <= 0
        self._onset = np.where(fresh, start, self._onset)
        self._sum = np.where(fresh, 0, self._sum) + values.sum() / usual
        self._rows = np.where(fresh, 0, self._rows) + len(values)
        self._gain = np.where(fresh, 0, self._gain) + earned
        self._log_m = np.logaddexp(0, self._log_m) + earned
        best = int(self._log_m.argmax())
        shift = self._sum[best] / self._rows[best] - 1
        return float(np.logaddexp.reduce(self._log_m) - np.log(len(_BETS))), float(shift), int(self._onset[best])

    def to_arrays(self) -> Arrays:
        """Return the state: of the level, and of the bets."""
        own = {f"bets.{name}": getattr(self, f"_{name}").copy() for name in _STATE}
        return self._level.to_arrays() | own | {"last": self._episodes.last.copy()}

    def restore(self, arrays: Arrays) -> None:
        """Go on from `to_arrays`."""
        self._level.restore(arrays)
        for name in _STATE:
            setattr(self, f"_{name}", arrays[f"bets.{name}"].copy())
        self._episodes.last = arrays["last"].copy()


_STATE = ("log_m", "gain", "onset", "sum", "rows")
