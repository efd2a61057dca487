"""How far has event time come? A watermark that wrong clocks neither carry away nor stop."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

HOUR = 3_600_000
DAY = 24 * HOUR

_FEWEST = 20  # rows below which a strange time is an accident
_SHARE = 0.1  # of a step's rows that have to leap before a clock is called wrong while the others go on
_SPREADS = 8  # a leap is this many times the spread of a quarter of the rows next to the middle, and a day at least
_REMEMBERED = 512
_A_STEP = 64

Moments = npt.NDArray[np.int64]


class Irregularity(NamedTuple):
    """What is wrong with the clocks: in a word, by how many ms, and what shows it."""

    direction: str
    milliseconds: int
    detail: dict[str, Any]


@dataclass
class Clock:
    """The watermark follows the median event time of a step's rows and never goes back.

    A leap is a median further ahead of the watermark than event times are usually apart, and than a day. It is
    believed once its own time has gone on for an hour: then the gap was real (a weekend without traffic). When
    medians return before that, a clock was wrong, and no window has been closed by it.
    """

    watermark: int | None = None
    arrival: int | None = None
    moved: int | None = None  # arrival when the watermark last went on
    ahead: int | None = None  # the median that leapt and is not believed yet
    rows_ahead: int = 0
    still: int = 0  # rows since the watermark last went on, while all have had one time
    still_time: int | None = None
    offsets: Moments = field(default_factory=lambda: np.empty(0, np.int64))  # of recent rows from the watermark

    def tick(self, event: Moments, arrival: Moments) -> list[Irregularity]:
        """Take in the times (n,) of a step's rows, n > 0, and say what is wrong with them."""
        came = int(np.quantile(arrival, 0.5, method="lower"))
        found = [*self._advance(event, came), *self._minority(event, arrival), *self._arrivals(came, len(event))]
        self.arrival = came
        assert self.watermark is not None
        if self.ahead is None:
            chosen = event[:: -(-len(event) // _A_STEP)] - self.watermark
            self.offsets = np.concatenate([self.offsets, chosen])[-_REMEMBERED:]
        return found

    @property
    def leap(self) -> int:
        """Distance in ms from which a time is a leap."""
        if not len(self.offsets):
            return DAY
        # The narrower quarter: a third of the rows with wrong clocks widens only the other one.
        low, middle, high = np.quantile(self.offsets, [0.25, 0.5, 0.75], method="lower")
        return max(DAY, int(_SPREADS * min(middle - low, high - middle)))

    def _arrivals(self, came: int, rows: int) -> list[Irregularity]:
        if self.arrival is None or came >= self.arrival - DAY or rows < _FEWEST:
            return []
        return [Irregularity("back", self.arrival - came, {"rows": rows, "of": "arrival"})]

    def _advance(self, event: Moments, came: int) -> list[Irregularity]:
        median = int(np.quantile(event, 0.5, method="lower"))
        if self.watermark is None:
            self._move(median, came)
        elif median <= self.watermark + self.leap:
            returned = self._returned()
            if median > self.watermark:
                self._move(median, came)
                return returned
            return [*returned, *self._stuck(event, came)]
        elif self.ahead is not None and median >= self.ahead + HOUR:
            self._move(self.ahead, came)
            return self._advance(event, came)
        elif self.ahead is None or median < self.ahead - HOUR:
            self.ahead, self.rows_ahead = median, len(event)
        else:
            self.rows_ahead += len(event)
        return []

    def _move(self, to: int, came: int) -> None:
        self.watermark, self.moved, self.ahead, self.rows_ahead = to, came, None, 0
        self.still, self.still_time = 0, None

    def _returned(self) -> list[Irregularity]:
        ahead, rows, self.ahead, self.rows_ahead = self.ahead, self.rows_ahead, None, 0
        if ahead is None or rows < _FEWEST or self.watermark is None:
            return []
        return [Irregularity("ahead", ahead - self.watermark, {"rows": rows, "of": "event"})]

    def _stuck(self, event: Moments, came: int) -> list[Irregularity]:
        assert self.moved is not None
        first, last = int(event.min()), int(event.max())
        same = first == last and self.still_time in (None, first)
        self.still = self.still + len(event) if same else 0
        self.still_time = first if same else -1  # -1: no one time since the watermark went on
        limit = HOUR if self.still >= _FEWEST else DAY
        if came - self.moved <= limit:
            return []
        return [Irregularity("stuck", came - self.moved, {"of": "event"})]

    def _minority(self, event: Moments, arrival: Moments) -> list[Irregularity]:
        """Rows that leap while the step's median does not, as one replica's of several."""
        if self.watermark is None or self.ahead is not None or not len(self.offsets):
            return []
        far = event - self.watermark
        enough = max(_FEWEST, _SHARE * len(event))
        ahead = far > self.leap
        if ahead.sum() >= enough:
            return [Irregularity("ahead", int(np.median(far[ahead])), {"rows": int(ahead.sum()), "of": "event"})]
        # Old rows may come late; but nothing arrives before it arrives.
        back = (far < -self.leap) & (arrival < np.median(arrival) - DAY)
        if back.sum() >= enough:
            return [Irregularity("back", int(-np.median(far[back])), {"rows": int(back.sum()), "of": "event"})]
        return []
