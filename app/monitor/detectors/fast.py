"""Has something large happened within hours? Bets on every row that directions keep to their tolerance.

Shiryaev-Roberts e-detector (Shin, Ramdas, Rinaldo: E-detectors). With x = s (phi - season) - delta of a row, s = +-1,
a bet of size lambda earns the factor 1 + lambda x: a fair game has E[x] <= 0, and however rows depend on each
other, no strategy then turns the sum M of all games begun so far into more than t on average after t windows.
log M <- log(1 + M) + sum over rows of log(1 + lambda x).

Guarantee: mean time to a false alarm at least as declared under any dependence, as long as the expected score of
each row, given all before it, stays within the tolerance delta. That is generous (four standard deviations of the
reference's days and hours, three standard errors): this detector is for what is quick and large.

References: Shin, Ramdas, Rinaldo (2023), E-detectors: a nonparametric framework for sequential change detection.
"""

import datetime as dt

import numpy as np

from app.monitor.detectors.detector import HOUR, Arrays, Episodes, Evidence, log_threshold
from app.monitor.directions import Directions, Floats, Window
from app.monitor.wobble import Wobble

_BETS = np.array([0.03, 0.1, 0.3])[:, None, None]  # (G, 1, 1)
_SIGNS = np.array([1.0, -1.0])[:, None]  # (2, 1)
_SMALLEST_TOLERANCE = 0.05
_MOST = 0.9  # of the stake that a single row may lose


class Fast:
    """Shapes: G bets x 2 signs x D directions."""

    def __init__(self, directions: Directions, wobble: Wobble, false_alarm: dt.timedelta) -> None:
        self._directions = directions
        self._threshold = log_threshold(false_alarm, HOUR, directions.weight)
        sd = np.sqrt(np.square(wobble.day) + np.square(wobble.hour))
        error = np.sqrt(np.square(wobble.error) + np.square(directions.season_error))
        self._tolerance: Floats = np.maximum(_SMALLEST_TOLERANCE, 4 * sd + 3 * error)  # (S, D)
        shape = (len(_BETS), len(_SIGNS), len(directions))
        self._log_m = np.full(shape, -np.inf)
        self._gain = np.zeros(shape)  # of the best game so far: what has been won since `_onset`
        self._onset = np.zeros(shape, np.int64)
        self._sums, self._rows = np.zeros(shape), np.zeros(shape)  # since `_onset`
        self._episodes = Episodes(len(directions), HOUR)

    def update(self, window: Window) -> Evidence:
        """Take the next closed hour."""
        earned = self._earned(window)
        self._log_m = np.logaddexp(0, self._log_m) + earned
        fresh = self._gain <= 0
        self._onset = np.where(fresh, window.start, self._onset)
        self._sums = np.where(fresh, 0, self._sums) + window.sums
        self._rows = np.where(fresh, 0, self._rows) + window.rows
        self._gain = np.where(fresh, 0, self._gain) + earned

        at = window.start + HOUR
        games = self._log_m.reshape(-1, self._log_m.shape[2])
        log_m = np.logaddexp.reduce(games, axis=0) - np.log(len(games))
        best = games.argmax(axis=0)
        place = (best // len(_SIGNS), best % len(_SIGNS), np.arange(len(best)))
        shift, onset = self._sums[place] / np.maximum(self._rows[place], 1), self._onset[place]
        crossed = log_m >= self._threshold
        self._log_m[..., crossed], self._gain[..., crossed] = -np.inf, 0.0
        return Evidence(at, log_m, self._threshold, self._episodes.news(crossed, at), shift, onset)

    def _earned(self, window: Window) -> Floats:
        """Return the logarithm (G, 2, D) of what the hour's rows multiply a stake by."""
        tolerance = self._tolerance[window.slot][:, None]
        centred = self._directions.phi - self._directions.season[window.slot][:, None]
        x = _SIGNS[..., None] * centred - tolerance  # (2, D, B)
        bet = np.minimum(_BETS, _MOST / np.maximum((-x).max(axis=2), _MOST))
        earned = np.log1p(bet[..., None] * x)
        counts = window.counts[self._directions.thing].astype(np.float64)
        total: Floats = np.einsum("gsdb,db->gsd", earned, counts)
        return total

    def to_arrays(self) -> Arrays:
        """Return the state: M, and of every game its gain, onset, sum and rows."""
        own = {name: getattr(self, f"_{name}").copy() for name in _STATE}
        return own | {"last": self._episodes.last.copy()}

    def restore(self, arrays: Arrays) -> None:
        """Go on from `to_arrays`."""
        for name in _STATE:
            setattr(self, f"_{name}", arrays[name].copy())
        self._episodes.last = arrays["last"].copy()


_STATE = ("log_m", "gain", "onset", "sums", "rows")
