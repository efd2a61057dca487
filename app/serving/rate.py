"""How much may a key ask? A token bucket of rows, in each replica: so many a second on the mean, a second's worth at once.

A request costs its rows, at least one. How many those are is known only once the body is read, so a request is let in
while anything is left, and may overdraw: whoever comes after it waits until that is paid off.
"""

import time
from collections.abc import Callable


class Bucket:
    """Holds up to one second's worth of `rate` rows a second; full at first."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._most = max(rate, 1.0)
        self._left = self._most
        self._at = clock()

    def wait(self) -> float:
        """Take one row, and return 0; or take none, and return the seconds until one will be there."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self.rate, self._most)
        self._at = now
        if self._left < 1.0:
            return (1.0 - self._left) / self.rate
        self._left -= 1.0
        return 0.0

    def take(self, rows: int) -> None:
        """Take rows, whether they are there or not."""
        self._left -= rows
