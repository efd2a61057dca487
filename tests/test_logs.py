"""A process logs one JSON object a line where it is told to, named by the Elastic Common Schema, and nothing else."""

import datetime as dt
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from app import cluster, logs
from app.types import UserError

ROOT = Path(__file__).parent.parent

PROGRAM = """
import logging, sys, warnings
from app import logs
given = {"http.request.id": "r1"}
assert logs.set_up("replica", None, lambda: given)
logs.set_up("replica", "flights", lambda: given, replica="a#1")
log = logging.getLogger("app.journal.steps")
log.debug("not of interest")
log.info("%d rows", 5)
logging.getLogger("elsewhere").info("not ours")
logging.getLogger("elsewhere").warning("two\\nlines \u2713")
warnings.warn("deprecated")
with logs.printed_as_lines("jobs.train"):
    print("version 7:", "passed")
    print("the end", end="")
    print()
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a turn failed")
raise RuntimeError("nobody caught this")
"""

JOB = """
import sys
from jobs.command import main
sys.argv[0] = "jobs/train.py"
main(lambda *_: print("done"), "a job")
"""


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, timeout=120, env=environment
    )


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    import os

    monkeypatch.setenv("EVERTRUE_LOG_FORMAT", "json")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "flights-retrain-1"}}')
    return dict(os.environ)


def test_every_line_of_a_process_is_one_object_with_the_schemas_names(environment: dict[str, str]) -> None:
    done = run("-c", PROGRAM, **environment)
    assert done.stdout == ""
    found = lines(done.stderr)
    messages = [line["message"] for line in found]
    assert messages[0] == "5 rows"
    assert messages[1] == "two\nlines \u2713"
    assert "deprecated" in str(messages[2])
    assert messages[3:5] == ["version 7: passed", "the end"]
    first = found[0]
    moment = dt.datetime.fromisoformat(str(first["@timestamp"]))
    assert abs(dt.datetime.now(dt.UTC) - moment) < dt.timedelta(minutes=5)
    assert first["log.level"] == "info"
    assert first["log.logger"] == "app.journal.steps"
    assert found[3]["log.logger"] == "jobs.train"
    for line in found:
        assert line["service.name"] == "flights"
        assert line["ecs.version"] == logs.ECS
        assert (line["labels.role"], line["labels.replica"]) == ("replica", "a#1")
        assert line["labels.ray_submission_id"] == "flights-retrain-1"
        assert line["http.request.id"] == "r1"
        assert line["service.version"]
        assert isinstance(line["process.pid"], int)


def test_an_error_keeps_its_traceback_in_the_line_also_where_nobody_caught_it(environment: dict[str, str]) -> None:
    done = run("-c", PROGRAM, **environment)
    assert done.returncode == 1
    caught, uncaught = lines(done.stderr)[-2:]
    assert (caught["log.level"], caught["error.type"]) == ("error", "ZeroDivisionError")
    assert "division by zero" in str(caught["error.message"])
    assert "Traceback" in str(caught["error.stack_trace"])
    assert (uncaught["log.level"], uncaught["error.message"]) == ("critical", "nobody caught this")


def test_a_name_that_is_no_utf8_does_not_cost_the_line() -> None:
    record = logging.LogRecord("app", logging.WARNING, "", 0, "%s is not there", ("a\udcff.parquet",), None)
    assert json.loads(logs.JsonLines({}).format(record))["message"] == "a?.parquet is not there"


def test_a_job_says_its_mistakes_as_json_too(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: broken\ntask: {target: t}\ndata: {source: x.parquet}\ntrain: {epoch: 5}\n")
    done = run("-c", JOB, str(path), **environment)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = lines(done.stderr)
    assert (line["log.level"], line["labels.role"]) == ("error", "jobs.train")
    assert "did you mean epochs" in str(line["message"])


def test_without_the_setting_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EVERTRUE_LOG_FORMAT", raising=False)
    assert not logs.set_up("replica", "flights")
    with logs.printed_as_lines("jobs.train"):
        print("as ever")
    assert capsys.readouterr().out == "as ever\n"


def test_a_format_that_is_none_is_the_users_mistake(environment: dict[str, str]) -> None:
    done = run("-c", JOB, "x.yaml", **environment | {"EVERTRUE_LOG_FORMAT": "xml"})
    assert done.returncode == 2
    assert done.stderr == "error: $EVERTRUE_LOG_FORMAT: found 'xml', allowed is text or json\n"


def test_a_cluster_that_is_joined_logs_as_the_job_does(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, dict[str, str]] = {}
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("EVERTRUE_LOG_FORMAT", "json")
    monkeypatch.setattr("ray.init", lambda runtime_env, **_: given.update(runtime_env))
    monkeypatch.setattr(cluster, "settings", lambda state, local: {})
    cluster.connect()
    assert given["env_vars"] == {"EVERTRUE_LOG_FORMAT": "json"}


def test_wants_json_raises_for_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("text", False), ("json", True)):
        monkeypatch.setenv("EVERTRUE_LOG_FORMAT", value)
        assert logs.wants_json() is expected
    monkeypatch.setenv("EVERTRUE_LOG_FORMAT", "")
    with pytest.raises(UserError, match="allowed is text or json"):
        logs.wants_json()
