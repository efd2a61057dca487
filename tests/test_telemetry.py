"""Figures are counted exactly, handed over in bounded pieces, and named by Prometheus' rules."""

import asyncio
import logging
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry import (
    BATCH_BOUNDS,
    DURATION_BOUNDS,
    MAX_SERIES,
    METRICS,
    JobMetrics,
    LoopMetrics,
    LoopState,
    Metric,
    RaySink,
    ServingMetrics,
    count_messages,
)
from app.telemetry.names import GROUPS, REFUSED, REQUESTS, table

TAGS = {
    "model",
    "version",
    "outcome",
    "reason",
    "verdict",
    "kind",
    "le",
    "step",
    "status",
    "stream",
    "level",
    "logger",
}


class Ledger:
    """A sink that remembers: counters by name and tags, gauges by their last value."""

    def __init__(self) -> None:
        self.counters: Counter[tuple[str, ...]] = Counter()
        self.gauges: dict[tuple[str, ...], float] = {}
        self.calls = 0
        self.on_add: Callable[[], None] = lambda: None

    def add(self, metric: Metric, value: float, *tags: str) -> None:
        assert metric.kind == "counter"
        assert value > 0
        assert len(tags) == len(metric.tags)
        self.counters[metric.name, *tags] += value  # type: ignore[assignment]
        self.calls += 1
        self.on_add()

    def set(self, metric: Metric, value: float, *tags: str) -> None:
        assert metric.kind == "gauge"
        assert len(tags) == len(metric.tags)
        self.gauges[metric.name, *tags] = value

    def histogram(self, name: str) -> dict[str, float]:
        """Return a histogram's counts by their upper bound."""
        return {tags[-1]: value for (found, *tags), value in self.counters.items() if found == f"{name}_bucket_total"}


def recorder(ledger: Ledger) -> ServingMetrics:
    """Return a recorder that is flushed by hand."""
    return ServingMetrics("flights", ledger, later=lambda *_: None)


def test_every_metric_has_a_name_a_unit_and_bounded_tags() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"evertrue_[a-z_]+", metric.name)
        assert metric.kind in ("counter", "gauge")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.description.endswith(".")
        assert metric.tags[0] == "model"
        assert set(metric.tags) <= TAGS


@given(st.lists(st.tuples(st.sampled_from(["ok", "malformed", "not-ready"]), st.floats(0, 100))), st.integers(1, 5))
def test_no_request_is_lost_or_counted_twice_however_often_it_is_flushed(
    requests: list[tuple[str, float]], every: int
) -> None:
    ledger = Ledger()
    metrics = recorder(ledger)
    for i, (outcome, seconds) in enumerate(requests):
        metrics.request(outcome, seconds)
        if i % every == 0:
            metrics.flush()
    metrics.flush()
    metrics.flush()
    counted = {tags[-1]: n for (name, *tags), n in ledger.counters.items() if name == REQUESTS.name}
    assert counted == Counter(outcome for outcome, _ in requests)
    answered = [seconds for outcome, seconds in requests if outcome == "ok"]
    expected = {f"{le:g}": sum(seconds <= le for seconds in answered) for le in DURATION_BOUNDS}
    expected["+Inf"] = len(answered)
    assert ledger.histogram("evertrue_request_duration_seconds") == {le: n for le, n in expected.items() if n}
    total = ledger.counters["evertrue_request_duration_seconds_sum_total", "flights"]
    assert total == pytest.approx(sum(answered))


@given(st.lists(st.integers(1, 10_000), min_size=1))
def test_batches_are_counted_by_powers_of_two(sizes: list[int]) -> None:
    ledger = Ledger()
    metrics = recorder(ledger)
    for rows in sizes:
        metrics.batch(rows)
        metrics.rows(rows)
    metrics.flush()
    expected = {f"{le}": sum(rows <= le for rows in sizes) for le in BATCH_BOUNDS} | {"+Inf": len(sizes)}
    assert ledger.histogram("evertrue_batch_rows") == {le: n for le, n in expected.items() if n}
    assert ledger.counters["evertrue_batch_rows_sum_total", "flights"] == sum(sizes)
    assert ledger.counters["evertrue_rows_total", "flights"] == sum(sizes)


def test_a_flush_costs_the_same_whatever_the_load() -> None:
    costs = []
    for load in (100, 10_000):
        ledger = Ledger()
        metrics = recorder(ledger)
        for i in range(load):
            metrics.request("ok", i % 7)
            metrics.batch(1 + i % 100)
        metrics.flush()
        costs.append(ledger.calls)
    assert costs[0] == costs[1] < 40


def test_an_idle_replica_hands_over_nothing() -> None:
    ledger = Ledger()
    recorder(ledger).flush()
    assert ledger.calls == 0


def test_one_version_at_a_time_is_shown_as_answering() -> None:
    ledger = Ledger()
    metrics = recorder(ledger)
    metrics.model_version("7")
    metrics.model_version("8")
    name = "evertrue_model_info"
    assert ledger.gauges == {(name, "flights", "7"): 0, (name, "flights", "8"): 1}
    metrics.model_version("7")
    assert ledger.gauges == {(name, "flights", "7"): 1, (name, "flights", "8"): 0}


def test_the_first_record_after_a_flush_arranges_the_next_one() -> None:
    arranged: list[Callable[[], None]] = []
    ledger = Ledger()
    metrics = ServingMetrics("flights", ledger, later=lambda _, call: arranged.append(call))
    records: list[Callable[[], None]] = [
        lambda: metrics.request("ok", 0.1),
        lambda: metrics.rows(1),
        lambda: metrics.batch(1),
    ]
    for flushed, record in enumerate(records):
        record()
        record()
        assert len(arranged) == flushed + 1
        before = ledger.calls
        arranged[-1]()
        assert ledger.calls > before


def test_the_event_loop_flushes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.telemetry.serving.FLUSH_SECONDS", 0.001)
    ledger = Ledger()

    async def answer() -> None:
        flushed = asyncio.Event()
        ledger.on_add = flushed.set
        ServingMetrics("flights", ledger).request("ok", 0.1)
        async with asyncio.timeout(60):
            await flushed.wait()

    asyncio.run(answer())
    assert ledger.counters["evertrue_requests_total", "flights", "ok"] == 1


def test_the_kept_reference_of_metrics_is_the_generated_one() -> None:
    kept = Path(__file__).parents[1] / "docs" / "metrics.md"
    assert kept.read_text() == table(), "python -m app.telemetry > docs/metrics.md"
    assert all(f"`ray_{metric.name}`" in table() for metric in METRICS)
    assert sum(map(len, GROUPS.values())) == len(METRICS)


def test_a_replica_shows_which_line_up_it_follows_and_shows_it_again() -> None:
    ledger = Ledger()
    metrics = recorder(ledger)
    metrics.model_version("7")
    metrics.line_up(3, 0.25)
    shown = {("evertrue_lineup_generation", "flights"): 3, ("evertrue_challenger_share_ratio", "flights"): 0.25}
    assert ledger.gauges.items() >= shown.items()
    ledger.gauges.clear()
    metrics.flush()
    assert ledger.gauges.items() >= shown.items()


def test_what_is_written_into_the_journal_is_counted_by_stream() -> None:
    ledger = Ledger()
    metrics = recorder(ledger)
    metrics.written("labels", 5)
    metrics.written("labels", 2)
    metrics.unwritten("predictions")
    metrics.flush()
    assert ledger.counters == {
        ("evertrue_journal_rows_total", "flights", "labels"): 7,
        ("evertrue_journal_failed_writes_total", "flights", "predictions"): 1,
    }


def test_the_loop_shows_what_it_knows_and_repeats_it() -> None:
    ledger = Ledger()
    metrics = LoopMetrics("flights", ledger)
    metrics.repeat()
    assert not ledger.gauges
    state = LoopState(turned=1e9, interval=5, step=3, findings={"drift": 0, "fault": 2}, loss={"expected": None})
    metrics.show(state)
    expected = {
        ("evertrue_loop_turn_timestamp_seconds", "flights"): 1e9,
        ("evertrue_loop_interval_seconds", "flights"): 5,
        ("evertrue_journal_step", "flights"): 3,
        ("evertrue_pages_waiting", "flights"): 0,
        ("evertrue_findings_open", "flights", "drift"): 0,
        ("evertrue_findings_open", "flights", "fault"): 2,
    }
    assert ledger.gauges == expected
    ledger.gauges.clear()
    metrics.repeat()
    assert ledger.gauges == expected


def test_warnings_and_errors_of_ours_are_counted_once_by_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("app"), "handlers", [])  # and those that were there afterwards
    ledger, forgotten = Ledger(), Ledger()
    count_messages("flights", forgotten)
    count_messages("flights", ledger)
    logging.getLogger("app.workspace.store").warning("the store is away")
    logging.getLogger("app.decisions.actor").error("a turn failed")
    logging.getLogger("app.decisions.actor").info("a turn")
    logging.getLogger("elsewhere").warning("not ours")
    name = "evertrue_log_messages_total"
    assert ledger.counters == {
        (name, "flights", "warning", "app.workspace.store"): 1,
        (name, "flights", "error", "app.decisions.actor"): 1,
    }
    assert not forgotten.counters


def test_jobs_report_their_work() -> None:
    ledger = Ledger()
    metrics = JobMetrics("flights", ledger)
    metrics.prepared(100, {"origin: not allowed": 2, "time: null": 0})
    metrics.trained(12_345.6)
    metrics.judged(True)
    metrics.judged(False)
    metrics.took("train", 2.5)
    metrics.took("train", 0.5)
    metrics.scored(40, 0)
    assert ledger.counters == {
        ("evertrue_step_seconds_total", "flights", "train"): 3,
        ("evertrue_table_rows_total", "flights", "scored"): 40,
        ("evertrue_prepared_rows_total", "flights"): 100,
        ("evertrue_quarantined_rows_total", "flights", "origin: not allowed"): 2,
        ("evertrue_gate_verdicts_total", "flights", "pass"): 1,
        ("evertrue_gate_verdicts_total", "flights", "fail"): 1,
    }
    assert ledger.gauges == {("evertrue_training_rows_per_second", "flights"): 12_345.6}


def test_the_number_of_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()

    class Fake:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            assert tag_keys == REQUESTS.tags

        def inc(self, value: float, tags: dict[str, str]) -> None:
            seen[tags["outcome"]] += int(value)

    monkeypatch.setattr("ray.util.metrics.Counter", Fake)
    sink = RaySink()
    for i in range(3 * MAX_SERIES):
        sink.add(REQUESTS, 1, "flights", f"code-{i}")
    sink.add(REQUESTS, 1, "flights", "code-0")
    assert len(seen) == MAX_SERIES + 1
    assert seen["other"] == 2 * MAX_SERIES
    assert seen["code-0"] == 2


def test_not_even_names_that_a_client_chooses_are_without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[str, ...]] = set()

    class Fake:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            pass

        def inc(self, value: float, tags: dict[str, str]) -> None:
            seen.add(tuple(tags.values()))

    monkeypatch.setattr("ray.util.metrics.Counter", Fake)
    sink = RaySink()
    for i in range(4 * MAX_SERIES):
        sink.add(REFUSED, 1, f"name-{i}", "503")
    assert len(seen) <= 2 * MAX_SERIES + 1
    assert ("other", "other") in seen


@pytest.mark.ray
@pytest.mark.slow
def test_ray_shows_the_figures_under_these_names(ray_session: None) -> None:
    """Slow: Ray hands metrics to its agent every ten seconds; only the agent's page proves the names."""
    import ray

    metrics = ServingMetrics("telemetry-test", later=lambda *_: None)
    metrics.request("ok", 0.003)
    metrics.rows(5)
    metrics.batch(5)
    metrics.model_version("3")
    metrics.flush()
    JobMetrics("telemetry-test").judged(True)
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    found: dict[tuple[str, ...], float] = {}
    deadline = time.monotonic() + 120
    while len(found) < 28 and time.monotonic() < deadline:
        time.sleep(0.25)  # between looks at a condition
        page = urllib.request.urlopen(address, timeout=60).read().decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.labels.get("model") == "telemetry-test":
                    last = sample.labels.keys() & {"outcome", "reason", "version", "verdict", "le"}
                    found[(sample.name, *(sample.labels[key] for key in last))] = sample.value
    assert found["ray_evertrue_requests_total", "ok"] == 1
    assert found["ray_evertrue_rows_total",] == 5
    assert found["ray_evertrue_request_duration_seconds_bucket_total", "0.005"] == 1
    assert ("ray_evertrue_request_duration_seconds_bucket_total", "0.002") not in found
    assert found["ray_evertrue_batch_rows_bucket_total", "8"] == 1
    assert found["ray_evertrue_model_info", "3"] == 1
    assert found["ray_evertrue_gate_verdicts_total", "pass"] == 1
