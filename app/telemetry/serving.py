"""One replica's figures, which cost the request path next to nothing.

Ray's metrics take 2-3 us a call, and its node agent replays each observation of a histogram one by one, at the
middle of its bucket. So a replica counts in plain integers and hands over the sums once a second, and a histogram
is a counter per bucket: exact, and read as ever,
`histogram_quantile(0.99, sum by (le) (rate(ray_evertrue_request_duration_seconds_bucket_total[5m])))`.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from app.telemetry.names import (
    BATCH_ROWS,
    BATCH_ROWS_SUM,
    CHALLENGER_ROWS,
    CHALLENGER_SHARE,
    DURATION,
    DURATION_SUM,
    JOURNAL_DROPPED,
    JOURNAL_FAILED,
    JOURNAL_ROWS,
    LINEUP_FAULTS,
    LINEUP_GENERATION,
    MODEL_INFO,
    REQUESTS,
    ROWS,
    Metric,
)
from app.telemetry.sink import RaySink, Sink

FLUSH_SECONDS = 1.0
DURATION_BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
BATCH_BOUNDS = tuple(2**power for power in range(13))


class Buckets:
    """A histogram in plain numbers, emptied at every flush."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def take(self) -> tuple[float, Iterator[tuple[str, int]]]:
        """Return the sum, and per bound the values at or below it since the last time, as Prometheus' `le`."""
        counts, total = self._counts, self._sum
        self._counts, self._sum = [0] * len(counts), 0.0
        return total, self._cumulative(counts)

    def _cumulative(self, counts: list[int]) -> Iterator[tuple[str, int]]:
        reached = 0
        for bound, count in zip((*self._bounds, None), counts, strict=True):
            reached += count
            yield ("+Inf" if bound is None else f"{bound:g}"), reached


class ServingMetrics:
    """One replica's figures. Called on its event loop alone; flushed every second from the first version on.

    `later(seconds, call)` arranges a call; by default the running event loop does.
    """

    def __init__(
        self,
        model: str,
        sink: Sink | None = None,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._model = model
        self._sink = RaySink() if sink is None else sink
        self._later = later
        self._arranged = False
        self._version: str | None = None
        self._lineup: tuple[int, float] | None = None
        self._rows = 0
        self._counted: defaultdict[tuple[Metric, tuple[str, ...]], int] = defaultdict(int)
        self._outcomes: defaultdict[str, int] = defaultdict(int)
        self._duration = Buckets(DURATION_BOUNDS)
        self._batch_rows = Buckets(BATCH_BOUNDS)

    def request(self, outcome: str, seconds: float) -> None:
        """Count a request; its duration counts when it was answered: quick refusals would hide slow answers."""
        self._outcomes[outcome] += 1
        if outcome == "ok":
            self._duration.observe(seconds)
        if not self._arranged:
            self._arrange()

    def rows(self, n: int) -> None:
        """Count rows predicted."""
        self._rows += n
        if not self._arranged:
            self._arrange()

    def batch(self, rows: int) -> None:
        """Count a batch of this many rows."""
        self._batch_rows.observe(rows)
        if not self._arranged:
            self._arrange()

    def dropped(self, rows: int) -> None:
        """Count rows that the journal could not take."""
        self._count(JOURNAL_DROPPED, rows)

    def written(self, stream: str, rows: int) -> None:
        """Count rows that are in the journal."""
        self._count(JOURNAL_ROWS, rows, stream)

    def unwritten(self, stream: str) -> None:
        """Count an attempt to write to the journal that failed."""
        self._count(JOURNAL_FAILED, 1, stream)

    def challenged(self, answered: int, failed: int) -> None:
        """Count rows that a challenger answered, and those it failed to."""
        self._count(CHALLENGER_ROWS, answered, "answered")
        self._count(CHALLENGER_ROWS, failed, "failed")

    def fault(self) -> None:
        """Count a line-up, or a version of it, that cannot be followed."""
        self._count(LINEUP_FAULTS, 1)

    def _count(self, metric: Metric, value: int, *tags: str) -> None:
        self._counted[metric, tags] += value
        if not self._arranged:
            self._arrange()

    def model_version(self, version: str) -> None:
        """Show the version that answers from now on."""
        if self._version is not None:
            self._sink.set(MODEL_INFO, 0, self._model, self._version)
        self._sink.set(MODEL_INFO, 1, self._model, version)
        self._version = version
        if not self._arranged:
            self._arrange()

    def line_up(self, generation: int, share: float) -> None:
        """Show the line-up that is followed from now on, and the challenger's share of the rows."""
        self._lineup = generation, share
        self._show_line_up()

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        self._arranged = False
        rows, self._rows = self._rows, 0
        outcomes, self._outcomes = self._outcomes, defaultdict(int)
        self._add(ROWS, rows)
        counted, self._counted = self._counted, defaultdict(int)
        for (metric, tags), count in counted.items():
            self._add(metric, count, *tags)
        for outcome, count in outcomes.items():
            self._add(REQUESTS, count, outcome)
        self._add_buckets(DURATION, DURATION_SUM, self._duration)
        self._add_buckets(BATCH_ROWS, BATCH_ROWS_SUM, self._batch_rows)
        if self._version is not None:  # Ray forgets a gauge that is not set again
            self._sink.set(MODEL_INFO, 1, self._model, self._version)
            self._show_line_up()
            self._arrange()

    def _show_line_up(self) -> None:
        if self._lineup is not None:
            generation, share = self._lineup
            self._sink.set(LINEUP_GENERATION, generation, self._model)
            self._sink.set(CHALLENGER_SHARE, share, self._model)

    def _arrange(self) -> None:
        self._arranged = True
        later = self._later or asyncio.get_running_loop().call_later
        later(FLUSH_SECONDS, self.flush)

    def _add_buckets(self, bucket: Metric, total: Metric, buckets: Buckets) -> None:
        value, counts = buckets.take()
        for le, count in counts:
            self._add(bucket, count, le)
        self._add(total, value)

    def _add(self, metric: Metric, value: float, *tags: str) -> None:
        if value > 0:
            self._sink.add(metric, value, self._model, *tags)
