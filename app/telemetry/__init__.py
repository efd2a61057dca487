"""Metrics: their names, and recorders that cost the request path next to nothing."""

from app.telemetry.jobs import JobMetrics
from app.telemetry.logged import count_messages
from app.telemetry.loop import REPEAT_SECONDS, LoopMetrics, LoopState
from app.telemetry.names import METRICS, Metric
from app.telemetry.serving import BATCH_BOUNDS, DURATION_BOUNDS, ServingMetrics
from app.telemetry.sink import MAX_SERIES, RaySink, Sink

__all__ = [
    "BATCH_BOUNDS",
    "DURATION_BOUNDS",
    "MAX_SERIES",
    "METRICS",
    "REPEAT_SECONDS",
    "JobMetrics",
    "LoopMetrics",
    "LoopState",
    "Metric",
    "RaySink",
    "ServingMetrics",
    "Sink",
    "count_messages",
]
