"""What did each version see and do? Counts by bins and hours of event time, timings and failures, for the monitor."""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from app.journal.rows import PROFILES
from app.monitor.binning import Counts
from app.serving.loaded import Loaded
from app.serving.moments import Moments
from app.telemetry import DURATION_BOUNDS
from app.types import Features, Scores

Role: TypeAlias = Literal["champion", "challenger", "shadow"]

HOUR = 3_600_000
_HOURS_AT_ONCE = 256
_MOST_HOURS = 4096
"""Hours of a flush whose values are counted, as many as the monitor keeps open. A row's time is what a client says it is,
and an hour takes some ten kilobytes.
"""


class Key(NamedTuple):
    """Whose profile it is, and of which hour of event time (ms since 1970)."""

    version: str
    role: Role
    reference: str
    window: int


class Call(NamedTuple):
    """One call of a version's graph that took so many seconds."""

    loaded: Loaded
    role: Role
    seconds: float


@dataclass
class Profile:
    """What is added up under one key."""

    rows: int = 0
    counts: Counts | None = None
    calls: int = 0
    errors: int = 0
    not_finite: int = 0
    seconds: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS) + 1))


class Profiles:
    """The profiles of one flush."""

    def __init__(self) -> None:
        self._found: defaultdict[Key, Profile] = defaultdict(Profile)
        self._newest: dict[tuple[str, Role], int] = {}

    def count(self, loaded: Loaded, role: Role, features: Features, scores: Scores, event: Moments) -> None:
        """Count n rows that a version scored; their values only in the hours that most of them are of."""
        hours, place, sizes = np.unique(event // HOUR, return_inverse=True, return_counts=True)
        if len(hours) > _MOST_HOURS:
            emptiest = np.argsort(-sizes, kind="stable")[_MOST_HOURS:]
            rest = self._found[Key(loaded.version, role, "", int(hours[emptiest[0]]) * HOUR)]
            rest.rows += int(sizes[emptiest].sum())
            kept = ~np.isin(place, emptiest)
            self.count(loaded, role, features.rows(kept), scores[kept], event[kept])
            return
        order = np.argsort(place, kind="stable")
        for first in range(0, len(hours), _HOURS_AT_ONCE):
            some = hours[first : first + _HOURS_AT_ONCE]
            rows = order[slice(*np.searchsorted(place, [first, first + len(some)], sorter=order))]
            group = place[rows] - first
            counts = loaded.binning.count_groups(features.rows(rows), scores[rows], group, len(some))
            sizes = np.bincount(group, minlength=len(some))
            for hour, one, n in zip(some.tolist(), counts, sizes.tolist(), strict=True):
                profile = self.of(loaded, role, hour * HOUR)
                profile.rows += n
                profile.counts = one if profile.counts is None else profile.counts + one
        if len(hours):
            newest = int(hours[-1]) * HOUR
            self._newest[loaded.version, role] = max(newest, self._newest.get((loaded.version, role), newest))

    def of(self, loaded: Loaded, role: Role, window: int) -> Profile:
        """Return the profile of a version's hour."""
        return self._found[Key(loaded.version, role, loaded.reference, window)]

    def failed(self, loaded: Loaded, role: Role, rows: int, not_finite: int, window: int) -> None:
        """Count rows a version failed to score, and those whose score is no number."""
        profile = self.of(loaded, role, window)
        profile.errors += rows
        profile.not_finite += not_finite

    def called(self, call: Call, window: int) -> None:
        """Count a call in the version's newest window of this flush, or in `window` where it counted no rows."""
        profile = self.of(call.loaded, call.role, self._newest.get((call.loaded.version, call.role), window))
        profile.calls += 1
        profile.seconds[bisect_left(DURATION_BOUNDS, call.seconds)] += 1

    def missing(self, version: str, role: Role, window: int) -> None:
        """Count that a version could not even be loaded."""
        self._found[Key(version, role, "", window)].errors += 1

    def table(self, replica: str) -> pa.Table:
        """Return the rows for the journal."""
        rows = [
            {
                **key._asdict(),
                "replica": replica,
                "rows": one.rows,
                "counts": None if one.counts is None else one.counts.astype("<u4").tobytes(),
                "calls": one.calls,
                "errors": one.errors,
                "not_finite": one.not_finite,
                "seconds": one.seconds,
            }
            for key, one in self._found.items()
        ]
        return pa.Table.from_pylist(rows, PROFILES)
