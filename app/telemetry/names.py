"""Every metric in one place: name, kind, meaning and tags; `docs/metrics.md` is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric's name (Ray puts `ray_` before it), kind, meaning and tags."""

    name: str
    kind: Literal["counter", "gauge"]
    description: str
    tags: tuple[str, ...]


PREPARED_ROWS = Metric("evertrue_prepared_rows_total", "counter", "Rows that kept the contract.", ("model",))
QUARANTINED_ROWS = Metric(
    "evertrue_quarantined_rows_total", "counter", "Rows set aside, by reason.", ("model", "reason")
)
STEP_SECONDS = Metric(
    "evertrue_step_seconds_total",
    "counter",
    "Seconds that trainings spent, by step: prepare, fit, train, baseline, measure, register, gate.",
    ("model", "step"),
)
TRAINING_SPEED = Metric(
    "evertrue_training_rows_per_second", "gauge", "Training rows a second of the last training.", ("model",)
)
VERDICTS = Metric(
    "evertrue_gate_verdicts_total", "counter", "Verdicts of the gate: pass or fail.", ("model", "verdict")
)
TABLE_ROWS = Metric(
    "evertrue_table_rows_total",
    "counter",
    "Rows of tables that were predicted as a whole: scored, or rejected by the contract.",
    ("model", "outcome"),
)

REQUESTS = Metric(
    "evertrue_requests_total",
    "counter",
    "Requests, by outcome: ok (predicted), labels, page, or a problem's code.",
    ("model", "outcome"),
)
REFUSED = Metric(
    "evertrue_refused_requests_total",
    "counter",
    "Requests that Serve refused before the endpoint saw them, by status: 408, 429 (too many wait) or 503.",
    ("model", "status"),
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
LINEUP_GENERATION = Metric(
    "evertrue_lineup_generation", "gauge", "The line-up a replica follows; grows with every change.", ("model",)
)
CHALLENGER_SHARE = Metric(
    "evertrue_challenger_share_ratio", "gauge", "Share of the rows that the challenger answers, 0 to 1.", ("model",)
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
JOURNAL_ROWS = Metric(
    "evertrue_journal_rows_total",
    "counter",
    "Rows written into the journal, by stream: predictions, labels, profiles.",
    ("model", "stream"),
)
JOURNAL_FAILED = Metric(
    "evertrue_journal_failed_writes_total",
    "counter",
    "Attempts to write a segment that disk or store did not take, by stream.",
    ("model", "stream"),
)
JOURNAL_DROPPED = Metric(
    "evertrue_journal_dropped_rows_total",
    "counter",
    "Answered rows the journal could not take: its disk is full, or it cannot keep up.",
    ("model",),
)

TURNS = Metric(
    "evertrue_loop_turns_total",
    "counter",
    "Turns of the drift actor, by outcome: ok or failed.",
    ("model", "outcome"),
)
LAST_TURN = Metric(
    "evertrue_loop_turn_timestamp_seconds", "gauge", "When the last turn ended that went well, Unix time.", ("model",)
)
INTERVAL = Metric("evertrue_loop_interval_seconds", "gauge", "Time between two turns, as declared.", ("model",))
STEP = Metric("evertrue_journal_step", "gauge", "The journal's newest step that the monitor knows.", ("model",))
WATERMARK = Metric(
    "evertrue_watermark_timestamp_seconds", "gauge", "Event time that the monitor has reached, Unix time.", ("model",)
)
DRIFT_LEVEL = Metric(
    "evertrue_drift_level_ratio",
    "gauge",
    "The largest evidence of all that is watched, as a part of an alarm's: from 1 on it is one.",
    ("model",),
)
FINDINGS = Metric(
    "evertrue_findings_open", "gauge", "Findings that are open, by kind: drift, loss, fault.", ("model", "kind")
)
LABELS = Metric(
    "evertrue_labels",
    "gauge",
    "What became of labels: joined, unmatched, duplicates, late, unusable; and predictions still waiting.",
    ("model", "outcome"),
)
COVERAGE = Metric(
    "evertrue_label_coverage_ratio", "gauge", "Share of the predictions old enough that have a label.", ("model",)
)
LOSS = Metric(
    "evertrue_loss",
    "gauge",
    "Mean loss of a row: expected of the version in force, and served in the last week that has labels.",
    ("model", "kind"),
)
CHAMPION = Metric(
    "evertrue_champion_version", "gauge", "Number of the version that the ledger says answers.", ("model",)
)
ENTRIES = Metric("evertrue_ledger_entries", "gauge", "Entries of the ledger, by kind.", ("model", "kind"))
NEWEST_ENTRY = Metric(
    "evertrue_ledger_newest_timestamp_seconds",
    "gauge",
    "When the newest entry of a kind was written, Unix time.",
    ("model", "kind"),
)
PAGES = Metric(
    "evertrue_pages_total", "counter", "Decisions that a person has to hear of, by kind.", ("model", "kind")
)
PAGES_WAITING = Metric("evertrue_pages_waiting", "gauge", "Pages that the webhook has not taken yet.", ("model",))
PAGES_FAILED = Metric(
    "evertrue_pages_failed_total", "counter", "Attempts to post a page to the webhook that failed.", ("model",)
)

LOG_MESSAGES = Metric(
    "evertrue_log_messages_total",
    "counter",
    "Warnings and errors logged by replicas and drift actor; `app.workspace.store` tells of a store that is away.",
    ("model", "level", "logger"),
)

GROUPS: Mapping[str, tuple[Metric, ...]] = {
    "Jobs": (PREPARED_ROWS, QUARANTINED_ROWS, STEP_SECONDS, TRAINING_SPEED, VERDICTS, TABLE_ROWS),
    "Service": (
        REQUESTS,
        REFUSED,
        ROWS,
        DURATION,
        DURATION_SUM,
        BATCH_ROWS,
        BATCH_ROWS_SUM,
        MODEL_INFO,
        LINEUP_GENERATION,
        CHALLENGER_SHARE,
        CHALLENGER_ROWS,
        LINEUP_FAULTS,
        JOURNAL_ROWS,
        JOURNAL_FAILED,
        JOURNAL_DROPPED,
    ),
    "Loop": (
        TURNS,
        LAST_TURN,
        INTERVAL,
        STEP,
        WATERMARK,
        DRIFT_LEVEL,
        FINDINGS,
        LABELS,
        COVERAGE,
        LOSS,
        CHAMPION,
        ENTRIES,
        NEWEST_ENTRY,
        PAGES,
        PAGES_WAITING,
        PAGES_FAILED,
    ),
    "Everywhere": (LOG_MESSAGES,),
}
METRICS = tuple(metric for group in GROUPS.values() for metric in group)


def table() -> str:
    """Return the reference of all metrics as Markdown."""
    lines = [
        "# Metrics",
        "",
        "Written by `make docs` from `app/telemetry/names.py`; [observability.md](observability.md) says how to read",
        "them. Names are as Prometheus sees them; Ray adds labels of its own.",
    ]
    for group, metrics in GROUPS.items():
        lines += ["", f"## {group}", "", "| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `ray_{metric.name}` | {metric.kind} | {', '.join(metric.tags)} | {metric.description} |"
            for metric in metrics
        ]
    return "\n".join(lines) + "\n"
