"""Has the level of a wandering mean shifted, and since when? The core of the detectors between hours and weeks.

A window's mean score is y = b + w + noise: b the reference's own error (constant, normal), w the day's effect (AR(1)
over days, the same all day), noise of known variance R. A Kalman filter foretells every window; what remains,
the innovations nu with variance F, is white however autocorrelated the days are. A shift by delta from window j
on would show in innovation t as delta g_jt, with a response g that the same filter gives. So the likelihood ratio
against no shift, with delta ~ N(0, tau^2), is, with S1 = sum g nu / F and S2 = sum g^2 / F,

    log E = q / 2 - log(1 + tau^2 S2) / 2,  q = S1^2 / (S2 + 1 / tau^2)

and the Shiryaev-Roberts statistic is M = sum over starts j of E. Two corrections: the sum of skewed scores, whose
largest is k, has no normal tail but Bennett's (for rare events: Poisson's), so q is multiplied by 2 h(u) / u^2 with
h(u) = (1 + u) log(1 + u) - u and u = k |S1| / S2. And the variances themselves are known only from some days, so
that E becomes a ratio of Student's t: with the degrees of freedom of the reference's days; or, learning on, with
F scaled by one unknown factor that has an inverse-gamma prior of `degrees` of freedom.

Of all starts only some are kept: those of the last four windows, of the last 16 every fourth, of the last 64
every 16th, and so on. Leaving starts out makes M smaller: never a false alarm more.

Shapes: K starts, D directions.
"""

import numpy as np
import numpy.typing as npt

from app.monitor.detectors.detector import DAY, Arrays
from app.monitor.directions import Floats, Integers
from app.monitor.wobble import Wobble

NO_ROWS = 1e-9  # in place of 0: a mean of nothing, of boundless variance
_SHIFT = 0.25  # tau: standard deviations that a shift is expected to have
_BASE = 4  # starts kept per power of itself
_LEVELS = 7


class Level:
    """The filter, and what speaks for a shift since each of the kept starts."""

    def __init__(self, wobble: Wobble, largest: Floats, degrees: Floats | None = None) -> None:
        size = len(largest)
        self._wobble, self._largest, self._degrees = wobble, largest, degrees
        self._mean = np.zeros((2, size))  # of w and b
        self._covariance = np.stack([np.square(wobble.day), np.zeros(size), np.square(wobble.error)])  # ww, wb, bb
        self._day = np.zeros(1, np.int64)
        self._count = np.zeros(1, np.int64)  # windows so far
        self._squares = np.zeros(size)  # sum of nu^2 / F
        self._restarted = np.zeros(size, np.int64)  # starts before are of no account
        self._number = np.empty(0, np.int64)  # (K,) which window, from 1
        self._start = np.empty(0, np.int64)  # (K,) when it began
        self._response = np.empty((2, 0, size))  # of w and b to a shift by 1 since the start
        self._s1, self._s2 = np.empty((0, size)), np.empty((0, size))
        self._precision = np.empty((0, size))  # S2, were there no wobble

    def update(self, start: int, mean: Floats, noise: Floats, hour: Floats) -> tuple[Floats, Floats, Integers]:
        """Take a window's mean score (D,) and its noise's variance; return log M, shift and onset (D,)."""
        self._begin(start)
        ww, wb, bb = self._covariance
        innovation = mean - self._mean.sum(axis=0)
        spread = ww + 2 * wb + bb + noise + hour
        gain = np.stack([ww + wb, wb + bb]) / spread
        self._mean = self._mean + gain * innovation
        self._covariance = np.stack([ww, wb, bb]) - np.stack([gain[0] ** 2, gain[0] * gain[1], gain[1] ** 2]) * spread
        weight = _bennett(self._largest * np.abs(innovation))
        self._squares = self._squares + np.square(innovation) / spread * weight

        shown = 1 - self._response.sum(axis=0)
        self._response = self._response + gain[:, None] * shown
        self._s1 = self._s1 + shown * (innovation / spread)
        self._s2 = self._s2 + np.square(shown) / spread
        self._precision = self._precision + 1 / noise
        return self._evidence()

    def _begin(self, start: int) -> None:
        """Let the days since the last window pass, and let a shift begin at `start`."""
        day = start // DAY
        if self._count[0]:
            kept = self._wobble.memory ** float(day - self._day[0])
            self._mean[0] *= kept
            self._response[0] *= kept
            ww, wb, bb = self._covariance
            self._covariance = np.stack([kept**2 * ww + (1 - kept**2) * np.square(self._wobble.day), kept * wb, bb])
        self._day[0] = day
        self._count += 1
        now = self._count[0]
        number = np.append(self._number, now)
        stays = np.zeros(len(number), bool)
        for level in range(_LEVELS):
            stays |= (number % _BASE**level == 0) & (now - number < _BASE ** (level + 1))
        size = self._s1.shape[1]
        self._number, self._start = number[stays], np.append(self._start, start)[stays]
        self._response = np.concatenate([self._response, np.zeros((2, 1, size))], axis=1)[:, stays]
        self._s1 = np.concatenate([self._s1, np.zeros((1, size))])[stays]
        self._s2 = np.concatenate([self._s2, np.zeros((1, size))])[stays]
        self._precision = np.concatenate([self._precision, np.zeros((1, size))])[stays]

    def _evidence(self) -> tuple[Floats, Floats, Integers]:
        ratio = np.square(self._s1) / (self._s2 + _SHIFT**-2)
        ratio = ratio * _bennett(self._largest * np.abs(self._s1) / np.maximum(self._s2, 1e-300))
        if self._degrees is None:
            # The variance of the wobble is known from as many days, that of the noise exactly (Satterthwaite).
            share = 1 - self._s2 / self._precision
            days = np.maximum(self._wobble.days, 1.0) / np.maximum(share, 0.1) ** 2
            likelihood = np.log1p(ratio / days) * (days + 1) / 2
        else:
            # Never taken to be smaller than foretold: of rare events, long quiet would make the first one proof.
            known = self._degrees + np.maximum(self._squares, self._count[0])
            likelihood = -np.log1p(-ratio / known) * ((self._degrees + self._count[0]) / 2)
        log_e = likelihood - np.log1p(self._s2 * _SHIFT**2) / 2
        log_e[self._number[:, None] <= self._restarted] = -np.inf
        best = log_e.argmax(axis=0)
        place = (best, np.arange(len(best)))
        top = log_e[place]
        with np.errstate(invalid="ignore"):
            log_m = np.where(np.isinf(top), top, top + np.log(np.exp(log_e - top).sum(axis=0)))
        return log_m, self._s1[place] / (self._s2[place] + _SHIFT**-2), self._start[best]

    def restart(self, directions: npt.NDArray[np.bool_]) -> None:
        """Forget what speaks for a shift in some directions (D,), though not what is known of their level."""
        self._restarted[directions] = self._count[0]

    def to_arrays(self) -> Arrays:
        """Return the state."""
        return {name: getattr(self, f"_{name}").copy() for name in _STATE}

    def restore(self, arrays: Arrays) -> None:
        """Go on from `to_arrays`."""
        for name in _STATE:
            setattr(self, f"_{name}", arrays[name].copy())


def _bennett(u: Floats) -> Floats:
    """Return 2 h(u) / u^2: 1 at 0, falling."""
    u = np.maximum(u, 1e-3)  # below, differences cancel
    factor: Floats = 2 * ((1 + u) * np.log1p(u) - u) / np.square(u)
    return factor


_STATE = (
    "mean",
    "covariance",
    "day",
    "count",
    "squares",
    "restarted",
    "number",
    "start",
    "response",
    "s1",
    "s2",
    "precision",
)
