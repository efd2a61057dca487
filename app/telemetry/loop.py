"""What the drift actor reports: what it knows and decided, whom it paged, and whether its turns went well.

Ray forgets a gauge that is not set again within twenty seconds: what was told last is repeated by `repeat`. And a
counter's first value is no increase to Prometheus, so that what happens seldom (a rollback, a refusal) is told by
gauges over the whole ledger, which also outlive the process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.telemetry.names import (
    CHAMPION,
    COVERAGE,
    DRIFT_LEVEL,
    ENTRIES,
    FINDINGS,
    INTERVAL,
    LABELS,
    LAST_TURN,
    LOSS,
    NEWEST_ENTRY,
    PAGES,
    PAGES_FAILED,
    PAGES_WAITING,
    STEP,
    TURNS,
    WATERMARK,
    Metric,
)
from app.telemetry.sink import RaySink, Sink

REPEAT_SECONDS = 5.0
"""Time after which gauges have to be told again."""


@dataclass(frozen=True)
class LoopState:
    """What is known after a turn; None and kinds left out are not known yet. Moments are Unix time in seconds."""

    turned: float
    interval: float
    step: int
    watermark: float | None = None
    drift_level: float | None = None
    coverage: float | None = None
    champion: int | None = None
    pages_waiting: int = 0
    findings: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    loss: Mapping[str, float | None] = field(default_factory=dict)
    entries: Mapping[str, int] = field(default_factory=dict)
    newest: Mapping[str, float] = field(default_factory=dict)

    def gauges(self) -> dict[tuple[Metric, str | None], float]:
        """Return the values by metric and, where it has one, its second tag."""
        single: dict[Metric, float | None] = {
            LAST_TURN: self.turned,
            INTERVAL: self.interval,
            STEP: self.step,
            WATERMARK: self.watermark,
            DRIFT_LEVEL: self.drift_level,
            COVERAGE: self.coverage,
            CHAMPION: self.champion,
            PAGES_WAITING: self.pages_waiting,
        }
        several: dict[Metric, Mapping[str, float | None] | Mapping[str, int] | Mapping[str, float]] = {
            FINDINGS: self.findings,
            LABELS: self.labels,
            LOSS: self.loss,
            ENTRIES: self.entries,
            NEWEST_ENTRY: self.newest,
        }
        found = {(metric, None): value for metric, value in single.items()}
        tagged = {(metric, tag): value for metric, values in several.items() for tag, value in values.items()}
        return {key: value for key, value in (found | tagged).items() if value is not None}


class LoopMetrics:
    """The drift actor's figures."""

    def __init__(self, model: str, sink: Sink | None = None) -> None:
        self._model = model
        self._sink = RaySink() if sink is None else sink
        self._state: LoopState | None = None

    def paged(self, kind: str) -> None:
        """Report an entry of the ledger that a person has to hear of."""
        self._sink.add(PAGES, 1, self._model, kind)

    def page_failed(self) -> None:
        """Report a page that the webhook did not take."""
        self._sink.add(PAGES_FAILED, 1, self._model)

    def turned(self, outcome: Literal["ok", "failed"]) -> None:
        """Report a turn."""
        self._sink.add(TURNS, 1, self._model, outcome)

    def show(self, state: LoopState) -> None:
        """Show what is known after a turn."""
        self._state = state
        self.repeat()

    def repeat(self) -> None:
        """Show what was shown last once more."""
        if self._state is not None:
            for (metric, tag), value in self._state.gauges().items():
                self._sink.set(metric, value, self._model, *([] if tag is None else [tag]))
