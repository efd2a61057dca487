"""Traces go where OpenTelemetry's variables say, or there is nothing of them; what is wrong is said, and no secret with it."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.util.re import parse_env_headers
from requests.utils import check_header_validity

from app import cluster
from app.pipeline import Stopwatch
from app.telemetry import spans, traces
from app.types import UserError

ROOT = Path(__file__).parent.parent
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

OFF = """
import sys
import app.decisions.keeper, app.serving.endpoint, app.serving.traced, jobs.command
from app.telemetry import spans, traces
assert traces.open_tracer("replica", "rides") is None
with traces.job("jobs.train", "rides"), spans.step("fit"), traces.worth_telling(None, "turn"):
    spans.happened("probe")
    spans.note({"evertrue.rows": 1})
    assert (spans.recorded(), spans.traceparent(), spans.facts()) == (None, None, {})
print(*[name for name in sys.modules if name.startswith("opentelemetry")])
"""

JOB = """
import logging, sys
from app.telemetry import spans, traces
from jobs.command import main
traces.PATIENCE = 60
def work(*_):
    with spans.step("fit"):
        logging.getLogger("app.fit").info("fitting")
sys.argv[0] = "jobs/train.py"
main(work, "a job")
"""


def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**{name: os.environ[name] for name in os.environ if not name.startswith("OTEL_")}, **more}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, timeout=120, env=environment
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged about traces; other threads may have something else to say."""
    ours = ("app.telemetry", "opentelemetry")
    return [line.getMessage() for line in caplog.records if line.name.startswith(ours)]


@pytest.fixture
def sent() -> Callable[[], None]:
    """Send one span from a process of its own, as it were."""

    def send() -> None:
        tracer = traces.open_tracer("actor", "rides")
        assert tracer is not None
        tracer.begin("turn").end()
        tracer.close()

    return send


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["unset", "empty", "disabled", "none"],
)
def test_where_nobody_asks_for_traces_nothing_of_opentelemetry_is_even_imported(environment: dict[str, str]) -> None:
    done = run("-c", OFF, **environment)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert done.returncode == 0


@pytest.mark.parametrize("path", ["", "/"])
def test_either_variable_says_where(collector, monkeypatch, sent, path: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address + path)
    sent()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.address}/v1/traces")
    sent()
    assert collector.names() == ["turn", "turn"]


def test_resource_attributes_and_sampler_are_obeyed(collector, monkeypatch, sent) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    sent()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    sent()
    [span] = collector.spans
    assert (span.about["deployment.environment.name"], span.about["service.name"]) == ("staging", "rides")


def test_without_the_extra_a_job_hears_what_to_install_and_a_service_goes_on(collector, monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    with pytest.raises(UserError, match=r"OTLP_ENDPOINT asks for traces.* pip install 'evertrue\[traces\]'"):
        traces.open_tracer("jobs.train", "rides")
    assert traces.open_or_warn("replica", "rides") is None
    [line] = [line for line in caplog.records if line.name == "app.telemetry.traces"]
    assert line.levelname == "WARNING"
    assert "evertrue[traces]" in line.getMessage()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "no address of the form http://HOST:PORT"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "no address"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:port", "no address"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://me:s3cret@collector",
            "belong into \\$OTEL_EXPORTER_OTLP_HEAD",
        ),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:s3cret@collector", "\\$OTEL_EXPORTER_OTLP_ENDPOINT holds cred"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "found 'grpc', allowed is http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "allowed is http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "found 'zipkin', allowed is otlp or none"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "max_queue_size must be"),
    ],
)
def test_what_cannot_be_done_is_the_users_mistake(collector, monkeypatch, name: str, value: str, told: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told) as raised:
        traces.open_tracer("replica", "rides")
    assert "s3cret" not in str(raised.value)


def test_headers_are_sent_and_never_logged_also_where_they_are_refused(collector, monkeypatch, sent, caplog) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret, x-tenant=a b")
    collector.status = 401
    with caplog.at_level(logging.DEBUG):
        sent()
    [headers] = collector.headers
    assert (headers["authorization"], headers["x-tenant"]) == ("Bearer s3cret", "a b")
    assert "Failed to export spans batch code: 401" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    ["authorization: s3cret", "s3cret", "a=b,s3cret", "a=b;c=s3cret", "a=s3cret%0A", 'a="s3cret"', "a=s3cr\u00e9t"],
)
def test_headers_that_are_none_are_said_to_be_so_without_a_word_of_them(
    collector, monkeypatch, caplog, headers
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", headers)
    with pytest.raises(UserError, match=r"OTLP_TRACES_HEADERS: number \d is not NAME=VALUE") as raised:
        traces.open_tracer("replica", "rides")
    assert "s3cr" not in str(raised.value) + caplog.text


@given(st.text('aB1-=,; %0D4\t\n"\\:/\u00e9', max_size=12))
def test_whatever_headers_we_take_are_taken_by_those_who_would_log_them_otherwise(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", text)
        patch.delenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", raising=False)
        patch.setattr("opentelemetry.util.re._logger", None)  # whoever logs fails
        try:
            traces._check_headers()
        except UserError:
            return
        for header in parse_env_headers(text, liberal=True).items():
            check_header_validity(header)


def test_what_the_sdk_says_again_and_again_is_logged_once_in_a_while(collector, monkeypatch, sent, caplog) -> None:
    sent()
    theirs = logging.getLogger("opentelemetry.sdk.anywhere")
    for number in range(100):
        theirs.warning("no collector at attempt %d", number)
        theirs.error("queue full")
        theirs.info("of no interest")
    assert lines(caplog) == ["traces: no collector at attempt 0", "traces: queue full"]
    monkeypatch.setattr(traces, "SILENCE", 0)
    theirs.error("again")
    theirs.error("again")
    assert lines(caplog)[2:] == ["traces: again"] * 2


def test_a_collector_that_hangs_does_not_keep_a_process_from_ending(collector, monkeypatch, sent, caplog) -> None:
    monkeypatch.setattr(traces, "PATIENCE", 0.05)
    collector.open.clear()
    sent()
    assert "did not take the last spans within 0.05 s" in caplog.text


def test_a_job_is_a_span_with_one_for_each_step_in_the_trace_it_was_given(collector, monkeypatch) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{PARENT}-01")
    watch = Stopwatch()
    with traces.job("jobs.train", "rides"), watch("prepare"):
        pass
    job, step = collector.one("jobs.train"), collector.one("prepare")
    assert (job.trace, job.parent, job.failed) == (TRACE, PARENT, False)
    assert (step.trace, step.parent, step.failed) == (TRACE, job.id, False)
    assert (job.about["service.name"], job.about["evertrue.role"]) == ("rides", "jobs.train")
    assert spans.facts() == {}


def test_a_job_that_fails_says_of_what_kind_and_in_which_step_but_not_what_it_saw(collector) -> None:
    @traces.job("jobs.train", "rides")
    def train() -> None:
        watch = Stopwatch()
        with watch("prepare"):
            pass
        with watch("fit"):
            raise UserError("zone: found 'hidden'")

    with pytest.raises(UserError, match="hidden"):
        train()
    failed = {span.name: (span.failed, span.told.get("error.type")) for span in collector.spans}
    assert failed == {"prepare": (False, None), "fit": (True, "UserError"), "jobs.train": (True, "UserError")}
    assert "hidden" not in str(collector.spans)


def test_a_jobs_lines_carry_its_trace(collector, tmp_path) -> None:
    path = tmp_path / "rides.yaml"
    path.write_text("name: rides\ntask: {target: t}\ndata: {source: x.parquet}\n")
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "EVERTRUE_LOG_FORMAT": "json"}
    done = run("-c", JOB, str(path), **more)
    assert (done.returncode, done.stdout) == (0, "")
    [line] = [line for line in map(json.loads, done.stderr.splitlines()) if line["log.logger"] == "app.fit"]
    step = collector.one("fit")
    assert (line["trace.id"], line["span.id"]) == (step.trace, step.id)
    assert collector.names() == ["fit", "jobs.train"]


def test_a_joined_cluster_is_told_where_traces_go_but_no_key(monkeypatch) -> None:
    given: list[dict[str, str]] = []
    for name in [name for name in os.environ if name.startswith(("OTEL_", "EVERTRUE_LOG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr("ray.init", lambda runtime_env, **_: given.append(runtime_env["env_vars"]))
    monkeypatch.setattr(cluster, "settings", lambda state, local: {})
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_SAMPLER": "always_on"}
    secret = {"OTEL_EXPORTER_OTLP_HEADERS": "a=s3cret", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=s3cret"}
    for name, value in {**told, **secret, "EVERTRUE_LOG_FORMAT": "json"}.items():
        monkeypatch.setenv(name, value)
    cluster.connect()
    assert given.pop() == told | {"EVERTRUE_LOG_FORMAT": "json"}
    # Ray refuses what a submitted job was given and gives again.
    job = {"runtime_env": {"env_vars": {"EVERTRUE_LOG_FORMAT": "json", "OTEL_TRACES_SAMPLER": "always_on"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    cluster.connect()
    assert given.pop() == {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
