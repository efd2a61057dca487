"""Every metric in one place: names, units, tags, and recorders that cost the request path next to nothing.

Ray's metrics take 2-3 us a call, and its node agent replays each observation of a histogram one by one, at the
middle of its bucket. So a replica counts in plain integers and hands over the sums once a second, and a histogram
is a counter per bucket: exact, and read as ever,
`histogram_quantile(0.99, sum by (le) (rate(ray_evertrue_request_duration_seconds_bucket_total[5m])))`.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge

FLUSH_SECONDS = 1.0
MAX_SERIES = 200
"""Most combinations of tags a process writes to one metric; whatever comes later is counted as `other`."""


@dataclass(frozen=True)
class Metric:
    """A metric's name (Ray puts `ray_` before it), kind, meaning and tags."""

    name: str
    kind: Literal["counter", "gauge"]
    description: str
    tags: tuple[str, ...]


REQUESTS = Metric(
    "evertrue_requests_total",
    "counter",
    "Requests, by outcome: ok (predicted), page, or a problem's code.",
    ("model", "outcome"),
)
ROWS = Metric("evertrue_rows_total", "counter", "Rows predicted.", ("model",))
DURATION = Metric(
    "evertrue_request_duration_seconds_bucket_total",
    "counter",
    "Requests answered ok within `le` seconds.",
    ("model", "le"),
)
DURATION_SUM = Metric(
    "evertrue_request_duration_seconds_sum_total", "counter", "Seconds spent on requests answered ok.", ("model",)
)
BATCH_ROWS = Metric("evertrue_batch_rows_bucket_total", "counter", "Batches of at most `le` rows.", ("model", "le"))
BATCH_ROWS_SUM = Metric("evertrue_batch_rows_sum_total", "counter", "Rows of all batches.", ("model",))
MODEL_INFO = Metric("evertrue_model_info", "gauge", "1 for the version a replica answers with.", ("model", "version"))
JOURNAL_DROPPED = Metric(
    "evertrue_journal_dropped_rows_total",
    "counter",
    "Answered rows the journal could not take: its disk is full, or it cannot keep up.",
    ("model",),
)
CHALLENGER_ROWS = Metric(
    "evertrue_challenger_rows_total",
    "counter",
    "Rows that were a challenger's to answer: answered, or failed and answered by the champion.",
    ("model", "outcome"),
)
LINEUP_FAULTS = Metric(
    "evertrue_lineup_faults_total",
    "counter",
    "Versions of the line-up a replica could not load, or line-ups it could not read.",
    ("model",),
)
PREPARED_ROWS = Metric("evertrue_prepared_rows_total", "counter", "Rows that kept the contract.", ("model",))
QUARANTINED_ROWS = Metric(
    "evertrue_quarantined_rows_total", "counter", "Rows set aside, by reason.", ("model", "reason")
)
TRAINING_SPEED = Metric(
    "evertrue_training_rows_per_second", "gauge", "Training rows a second of the last training.", ("model",)
)
DECISIONS = Metric(
    "evertrue_decisions_total",
    "counter",
    "Entries of the ledger that this process wrote, by kind.",
    ("model", "kind"),
)
PAGES = Metric(
    "evertrue_pages_total", "counter", "Decisions that a person has to hear of, by kind.", ("model", "kind")
)
PAGES_FAILED = Metric(
    "evertrue_pages_failed_total", "counter", "Attempts to post a page to the webhook that failed.", ("model",)
)
TURNS = Metric(
    "evertrue_loop_turns_total",
    "counter",
    "Turns of the drift actor, by outcome: ok or failed.",
    ("model", "outcome"),
)
VERDICTS = Metric(
    "evertrue_gate_verdicts_total", "counter", "Verdicts of the gate: pass or fail.", ("model", "verdict")
)

METRICS = (
    REQUESTS,
    ROWS,
    DURATION,
    DURATION_SUM,
    BATCH_ROWS,
    BATCH_ROWS_SUM,
    MODEL_INFO,
    JOURNAL_DROPPED,
    CHALLENGER_ROWS,
    LINEUP_FAULTS,
    PREPARED_ROWS,
    QUARANTINED_ROWS,
    TRAINING_SPEED,
    DECISIONS,
    PAGES,
    PAGES_FAILED,
    TURNS,
    VERDICTS,
)

DURATION_BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
BATCH_BOUNDS = tuple(2**power for power in range(13))


class Sink(Protocol):
    """Where figures go. `tags` are in the order of `metric.tags`."""

    def add(self, metric: Metric, value: float, *tags: str) -> None:
        """Add to a counter; `value` is above 0."""

    def set(self, metric: Metric, value: float, *tags: str) -> None:
        """Set a gauge."""


class RaySink:
    """Hands figures to `ray.util.metrics`, with a bound on the number of series."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._series: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)

    def add(self, metric: Metric, value: float, *tags: str) -> None:
        """Add to a counter, which is made when it is first used."""
        from ray.util.metrics import Counter

        if metric.name not in self._counters:
            self._counters[metric.name] = Counter(metric.name, metric.description, metric.tags)
        self._counters[metric.name].inc(value, self._tags(metric, tags))

    def set(self, metric: Metric, value: float, *tags: str) -> None:
        """Set a gauge, which is made when it is first used."""
        from ray.util.metrics import Gauge

        if metric.name not in self._gauges:
            self._gauges[metric.name] = Gauge(metric.name, metric.description, metric.tags)
        self._gauges[metric.name].set(value, self._tags(metric, tags))

    def _tags(self, metric: Metric, tags: tuple[str, ...]) -> dict[str, str]:
        known = self._series[metric.name]
        if tags not in known:
            if len(known) >= MAX_SERIES:
                tags = (*tags[:-1], "other")
            known.add(tags)
        return dict(zip(metric.tags, tags, strict=True))


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
            self._arrange()

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


class JobMetrics:
    """What jobs report of their work: a few figures a run, handed over at once."""

    def __init__(self, model: str, sink: Sink | None = None) -> None:
        self._model = model
        self._sink = RaySink() if sink is None else sink

    def prepared(self, rows: int, quarantined: Mapping[str, int]) -> None:
        """Report rows that kept the contract, and those set aside by reason."""
        if rows > 0:
            self._sink.add(PREPARED_ROWS, rows, self._model)
        for reason, count in quarantined.items():
            if count > 0:
                self._sink.add(QUARANTINED_ROWS, count, self._model, reason)

    def trained(self, rows_per_second: float) -> None:
        """Report the speed of a training."""
        self._sink.set(TRAINING_SPEED, rows_per_second, self._model)

    def judged(self, passed: bool) -> None:
        """Report a verdict of the gate."""
        self._sink.add(VERDICTS, 1, self._model, "pass" if passed else "fail")


class LoopMetrics:
    """What the drift actor reports: what it decided, whom it paged, and whether its turns went well."""

    def __init__(self, model: str, sink: Sink | None = None) -> None:
        self._model = model
        self._sink = RaySink() if sink is None else sink

    def decided(self, kind: str, pages: bool) -> None:
        """Report an entry of the ledger."""
        self._sink.add(DECISIONS, 1, self._model, kind)
        if pages:
            self._sink.add(PAGES, 1, self._model, kind)

    def page_failed(self) -> None:
        """Report a page that the webhook did not take."""
        self._sink.add(PAGES_FAILED, 1, self._model)

    def turned(self, outcome: Literal["ok", "failed"]) -> None:
        """Report a turn."""
        self._sink.add(TURNS, 1, self._model, outcome)
