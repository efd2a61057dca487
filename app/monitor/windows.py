"""Which hours are complete? What replicas counted, by version and hour of event time; and losses, by hour."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.monitor.clock import HOUR

Flat = npt.NDArray[np.uint32]

_MOST = 4096
"""Windows that may be open: half a year of hours. Beyond it those furthest in the future, of wrong clocks, go first."""


class Hour(NamedTuple):
    """A complete hour of one version: `start` in ms since 1970, its rows, their counts flat (W * (bins + 2),)."""

    version: str
    start: int
    rows: int
    counts: Flat

    @property
    def end(self) -> int:
        """The first moment after it."""
        return self.start + HOUR


@dataclass
class Windows:
    """Windows still open. `late` counts rows that came after theirs was closed, `early` those given up."""

    lateness: int
    rows: dict[tuple[str, int], int] = field(default_factory=dict)
    counts: dict[tuple[str, int], Flat] = field(default_factory=dict)
    closed: int | None = None  # all that ends by then is closed
    late: int = 0
    early: int = 0

    def add(self, profiles: pa.Table) -> None:
        """Add the champion's profiles of a step (schema: `app.journal.rows.PROFILES`)."""
        counted = profiles.filter(pc.and_(pc.equal(profiles["role"], "champion"), pc.is_valid(profiles["counts"])))
        columns = (counted[name] for name in ("version", "rows", "counts"))
        starts = counted["window"].cast(pa.int64()).to_pylist()
        for start, version, rows, counts in zip(starts, *(column.to_pylist() for column in columns), strict=True):
            if self.closed is not None and start + HOUR <= self.closed:
                self.late += rows
                continue
            key, new = (version, start), np.frombuffer(counts, "<u4")
            self.rows[key] = self.rows.get(key, 0) + rows
            self.counts[key] = self.counts[key] + new if key in self.counts else new
        for key in sorted(self.rows, key=lambda key: (key[1], key[0]))[_MOST:]:
            self.early += self.rows.pop(key)
            del self.counts[key]

    def close(self, watermark: int) -> list[Hour]:
        """Return the windows that are complete by now, oldest first."""
        until = (watermark - self.lateness - 1) // HOUR * HOUR
        if self.closed is not None and until <= self.closed:
            return []
        self.closed = until
        done = sorted((key for key in self.rows if key[1] + HOUR <= until), key=lambda key: (key[1], key[0]))
        return [Hour(*key, self.rows.pop(key), self.counts.pop(key)) for key in done]


@dataclass
class LossHours:
    """Losses of the version in force, by the hour of their prediction, until most labels of it have come.

    A loss whose hour is closed goes to the first that is not: none is left out, and hours come in order.
    """

    losses: dict[int, list[float]] = field(default_factory=dict)
    closed: int = 0  # all that ends by then is closed

    def add(self, event: npt.NDArray[np.int64], loss: npt.NDArray[np.float64]) -> None:
        """Add rows with a label, their times (n,) in ms since 1970."""
        hours = np.maximum(event // HOUR * HOUR, self.closed)
        for hour in np.unique(hours).tolist():
            self.losses.setdefault(hour, []).extend(loss[hours == hour].tolist())

    def close(self, moment: int) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        """Yield start and losses of the hours that end by `moment`, oldest first."""
        self.closed = max(self.closed, moment // HOUR * HOUR)
        for hour in sorted(hour for hour in self.losses if hour + HOUR <= self.closed):
            yield hour, np.array(self.losses.pop(hour))
