"""Where figures go: to Ray's metrics, within a bound on the number of series."""

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from app.telemetry.names import Metric

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge

MAX_SERIES = 200
"""Most combinations of tags a process writes to one metric; whatever comes later has `other` for its last tag."""


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
            if len(known) >= 2 * MAX_SERIES and tags not in known:  # the tags before it vary as much
                tags = ("other",) * len(tags)
            known.add(tags)
        return dict(zip(metric.tags, tags, strict=True))
