"""What submitting a retraining promises: one job a decision and attempt, never one that waits for ever, and its outcome."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.decisions import retrain
from app.decisions.retrain import Outcome, RetrainJobs, read_outcome, write_outcome
from app.declaration import Declaration, read
from app.types import UserError
from app.workspace import Workspace, write_bytes


@dataclass
class Cluster:
    """Ray's side of the conversation."""

    jobs: dict[str, str] = field(default_factory=dict)
    submitted: list[dict] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    late: bool = False

    def submit_job(self, **job):
        if job["submission_id"] in self.jobs:
            raise RuntimeError(f"Job with submission_id {job['submission_id']} already exists.")
        self.jobs[job["submission_id"]] = "PENDING"
        self.submitted.append(job)
        return job["submission_id"]

    def get_job_status(self, job):
        if job not in self.jobs or self.late:
            raise RuntimeError(f"Request failed with status code 404: Job {job} does not exist")
        return self.jobs[job]

    def stop_job(self, job):
        self.stopped.append(job)
        return True


@pytest.fixture
def declaration(tmp_path: Path) -> Declaration:
    path = tmp_path / "a service.yaml"
    path.write_text("name: rides\ntask: {target: late}\ndata: {source: rides.parquet, key: id, time: at}\n")
    return read(path, ["retrain.epochs=2"])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(str(tmp_path / "workspace"))


@pytest.fixture
def free(monkeypatch):
    """Set the cluster's free CPUs."""

    def set_free(cpus):
        monkeypatch.setattr(retrain, "free_cpus", lambda: cpus)

    set_free(4.0)
    return set_free


def test_the_job_gets_all_it_needs_to_know_and_goes_behind_serving(declaration, workspace, free):
    cluster = Cluster()
    jobs = RetrainJobs(cluster, {"env_vars": {"X": "1"}})
    assert jobs.submit(declaration, workspace, "d1", "the loss rose; it's time", until=17)
    [job] = cluster.submitted
    known = {"service": "rides", "decision": "d1", "reason": "the loss rose; it's time", "attempt": "1"}
    assert job["metadata"] == known  # what the dashboard shows of it
    command = shlex.split(job["entrypoint"])
    assert command[:3] == ["nice", "-n", "10"]
    assert command[4:7] == ["-m", "jobs.retrain", str(declaration.path)]
    asked = dict(zip(command[7::2], command[8::2], strict=True))
    assert (
        asked.items()
        >= {
            "--set": "retrain.epochs=2",
            "--workspace": workspace.root,
            "--decision": "d1",
            "--reason": "the loss rose; it's time",
            "--until": "17",
        }.items()
    )
    assert job["submission_id"] == "d1"
    assert job["runtime_env"] == {"env_vars": {"X": "1"}}


@pytest.mark.parametrize("late", [False, True], ids=["asked", "refused"])
def test_the_same_decision_twice_is_one_job(declaration, workspace, free, late):
    cluster = Cluster()
    jobs = RetrainJobs(cluster, {})
    assert jobs.submit(declaration, workspace, "d1", "why")
    cluster.late = late  # another was quicker between the question and the submission
    assert jobs.submit(declaration, workspace, "d1", "why")
    assert len(cluster.submitted) == 1


def test_the_next_attempt_is_a_job_of_its_own_for_the_same_decision(declaration, workspace, free):
    cluster = Cluster()
    jobs = RetrainJobs(cluster, {})
    jobs.submit(declaration, workspace, "d1", "why")
    cluster.jobs["d1"] = "FAILED"
    assert jobs.state("d1") == "failed"
    assert jobs.state("d1", attempt=2) is None
    jobs.submit(declaration, workspace, "d1", "why", attempt=2)
    assert jobs.state("d1", attempt=2) == "pending"
    for job in cluster.submitted:  # both, so that the second finds what the first one left
        assert "--decision d1 " in job["entrypoint"]


@pytest.mark.parametrize(
    ("cpus", "workers", "reserved"),
    [(4.0, 0, 1.0), (2.0, 0, 1.0), (1.0, 0, 0.0), (0.5, 0, None), (2.0, 3, None), (3.0, 3, 0.0), (4.0, 3, 1.0)],
)
def test_without_room_nothing_is_submitted(declaration, workspace, free, cpus, workers, reserved):
    free(cpus)
    cluster = Cluster()
    given = read(declaration.path, [f"train.num_workers={workers}"])
    assert RetrainJobs(cluster, {}).submit(given, workspace, "d1", "why") is (reserved is not None)
    assert [job["entrypoint_num_cpus"] for job in cluster.submitted] == ([] if reserved is None else [reserved])


def test_only_a_job_that_goes_on_is_stopped(declaration, workspace, free):
    cluster = Cluster({"running": "RUNNING", "over": "SUCCEEDED"})
    jobs = RetrainJobs(cluster, {})
    for decision in ("running", "over", "never"):
        jobs.stop(decision)
    assert cluster.stopped == ["running"]


def test_a_cluster_that_cannot_be_reached_is_no_answer(declaration, workspace, free):
    class Gone(Cluster):
        def get_job_status(self, job):
            raise RuntimeError("503")

    with pytest.raises(RuntimeError, match="503"):
        RetrainJobs(Gone(), {}).submit(declaration, workspace, "d1", "why")


def test_an_outcome_is_read_as_it_was_written_and_a_broken_one_is_named(workspace):
    assert read_outcome(workspace, "rides", "d1") is None
    outcome = Outcome("d1", 12.5, 3, "/bundles/x", True, ["better"], {"overall": {"low": None}}, 17)
    write_outcome(workspace, "rides", outcome)
    assert read_outcome(workspace, "rides", "d1") == outcome
    for broken in (b"{", b'{"decision": "\xff"}'):
        write_bytes(workspace.uri("rides", "retrain", "d2", "outcome.json"), broken)
        with pytest.raises(UserError, match=r"d2/outcome\.json is no retraining's outcome"):
            read_outcome(workspace, "rides", "d2")
