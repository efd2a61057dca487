"""A retraining's job answers for its own attempt: what an attempt before left behind is not taken for its word."""

import shlex
from types import SimpleNamespace

import pytest

from app.decisions import retrain
from app.decisions.ledger import Entry
from app.decisions.ray_work import RayWork
from app.decisions.retrain import Outcome, RetrainJobs, read_outcome, write_outcome
from app.decisions.work import Underway
from app.declaration import read
from app.retraining import retrain_version
from app.types import UserError
from app.workspace import Workspace


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Return the work on a declaration, and the cluster's jobs by id: their states and, once submitted, commands."""
    states, commands = {}, {}

    def get_job_status(job):
        if job not in states:
            raise RuntimeError(f"Job {job} does not exist")
        return states[job]

    def submit_job(**job):
        commands[job["submission_id"]] = shlex.split(job["entrypoint"])
        states[job["submission_id"]] = "PENDING"

    client = SimpleNamespace(get_job_status=get_job_status, submit_job=submit_job)
    monkeypatch.setattr(RetrainJobs, "here", lambda: RetrainJobs(client, {}))
    monkeypatch.setattr(retrain, "free_cpus", lambda: 4.0)
    path = tmp_path / "rides.yaml"
    path.write_text("name: rides\ntask: {target: late}\ndata: {source: rides.parquet, key: id, time: at}\n")
    workspace = Workspace.open(str(tmp_path / "workspace"))
    work = RayWork(read(path), workspace)
    return SimpleNamespace(work=work, workspace=workspace, states=states, commands=commands)


def asked(attempt):
    evidence = {"decision": "d1", "attempt": attempt, "until": 17, "champion": {}}
    moment = "2024-03-01T00:00:00Z"
    return Entry(9, f"d1-entry-{attempt}", "retrain", moment, moment, 3, None, None, "why", evidence)


def test_an_attempt_is_submitted_by_its_number_whatever_the_one_before_left(world):
    write_outcome(world.workspace, "rides", Outcome("d1", 5.0, error="no rows"))
    world.states["d1"] = "FAILED"
    assert isinstance(world.work.retrain(asked(2)), Underway)
    command = world.commands["d1-2"]
    assert command[command.index("--attempt") + 1] == "2"
    assert isinstance(world.work.retrain(asked(2)), Underway)


def test_an_attempt_that_failed_says_why(world):
    told = Outcome("d1", 5.0, error="no rows", attempt=2)
    write_outcome(world.workspace, "rides", told)
    world.states["d1-2"] = "FAILED"
    assert world.work.retrain(asked(2)) == told


def test_an_attempt_killed_without_a_word_does_not_repeat_what_the_one_before_said_but_keeps_its_cost(world):
    world.states.update({"d1": "FAILED", "d1-2": "FAILED"})
    found = world.work.retrain(asked(1))
    assert (found.error, found.cpu_seconds) == ("its job failed without a word", 0.0)
    write_outcome(world.workspace, "rides", Outcome("d1", 5.0, error="no rows"))
    found = world.work.retrain(asked(2))
    assert (found.error, found.cpu_seconds, found.attempt) == ("its job failed without a word", 5.0, 2)


def test_a_version_counts_whichever_attempt_made_it(world):
    made = Outcome("d1", 5.0, version=3, bundle="bundles/3", passed=True)
    write_outcome(world.workspace, "rides", made)
    world.states["d1-2"] = "SUCCEEDED"
    assert world.work.retrain(asked(2)) == made


def test_the_job_signs_its_outcome_with_its_attempt(world, tmp_path):
    declaration = read(tmp_path / "rides.yaml")
    with pytest.raises(UserError, match="no champion"):
        retrain_version(declaration, world.workspace, "d1", "why", None, never, attempt=2)
    outcome = read_outcome(world.workspace, "rides", "d1")
    assert outcome.attempt == 2
    assert "no champion" in outcome.error


def never(*_):
    raise AssertionError("nothing is to be exported")
