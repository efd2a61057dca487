"""How is a retraining bought? As one Ray job for one decision, where there is room; what became of it is a file."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from app.declaration import Declaration
from app.telemetry import spans
from app.training.resources import free_cpus, worker_need, worker_range
from app.types import UserError
from app.workspace import Workspace, read_bytes, write_bytes

NICENESS = 10
"""Of the job's driver, where a small network trains: serving on the same machine goes first."""

State: TypeAlias = Literal["pending", "running", "stopped", "succeeded", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a retraining. `error` says why there is no version: then the next attempt goes on from there.

    `attempt` is the one that ended so. `passed`, `reasons` and `figures` are the gate's; `trained_until` is the moment (ms, UTC) of the newest row it
    learned from; `cpu_seconds` are those of the job and its children, of all attempts that ended by themselves.
    """

    decision: str
    cpu_seconds: float
    version: int | None = None
    bundle: str | None = None
    passed: bool = False
    reasons: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    trained_until: int | None = None
    error: str | None = None
    attempt: int = 1


def read_outcome(workspace: Workspace, name: str, decision: str) -> Outcome | None:
    """Return what became of a retraining, None as long as it is not known. Raises UserError for a broken file."""
    uri = _outcome_uri(workspace, name, decision)
    try:
        return msgspec.json.decode(read_bytes(uri), type=Outcome)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{uri} is no retraining's outcome: {error}") from error


def write_outcome(workspace: Workspace, name: str, outcome: Outcome) -> None:
    """Write down what became of a retraining, whole, in the place of what an attempt before left."""
    write_bytes(_outcome_uri(workspace, name, outcome.decision), msgspec.json.encode(outcome))


def _outcome_uri(workspace: Workspace, name: str, decision: str) -> str:
    return workspace.uri(name, "retrain", decision, "outcome.json")


class Client(Protocol):
    """What is asked of Ray's `JobSubmissionClient`."""

    def submit_job(
        self,
        *,
        entrypoint: str,
        submission_id: str | None = None,
        runtime_env: dict[str, Any] | None = None,
        entrypoint_num_cpus: int | float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> str:
        """Start a job. Raises RuntimeError for an id that is taken."""

    def get_job_status(self, job_id: str) -> str:
        """Return a job's status. Raises RuntimeError for a job that does not exist."""

    def stop_job(self, job_id: str) -> bool:
        """End a job; say whether it was running. Raises RuntimeError for a job that does not exist."""


@dataclass(frozen=True)
class RetrainJobs:
    """Retrainings as Ray jobs; `runtime_env` is what each of them runs in."""

    client: Client
    runtime_env: dict[str, Any]

    @staticmethod
    def here() -> "RetrainJobs":
        """Submit to the cluster this process belongs to, into the environment it runs in itself."""
        import ray
        from ray.job_submission import JobSubmissionClient

        context = ray.get_runtime_context()
        client = JobSubmissionClient(context.gcs_address)
        return RetrainJobs(client, dict(context.runtime_env))

    def submit(
        self,
        declaration: Declaration,
        workspace: Workspace,
        decision: str,
        reason: str,
        until: int | None = None,
        attempt: int = 1,
    ) -> bool:
        """Start the retraining of a decision; say no where the cluster has no room, instead of leaving it pending.

        `until` is the event time (ms, UTC) of the newest rows it may know. The same decision and attempt twice is
        one job. An `attempt` after the first goes on from the checkpoints of the one before.
        """
        if _state(self.client, _job_id(decision, attempt)) is not None:
            return True
        entrypoint_cpus = _entrypoint_cpus(declaration, free_cpus())
        if entrypoint_cpus is None:
            return False
        try:
            self.client.submit_job(
                entrypoint=shlex.join(_command(declaration, workspace, decision, reason, until, attempt)),
                submission_id=_job_id(decision, attempt),
                runtime_env=self._runtime_env(),
                entrypoint_num_cpus=entrypoint_cpus,
                metadata={
                    "service": declaration.spec.name,
                    "decision": decision,
                    "reason": reason,
                    "attempt": str(attempt),
                },
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise
        return True

    def _runtime_env(self) -> dict[str, Any]:
        """Return what a job runs in: a part of our trace, where there is one."""
        traceparent = spans.traceparent()
        if traceparent is None:
            return self.runtime_env
        return self.runtime_env | {"env_vars": self.runtime_env.get("env_vars", {}) | {"TRACEPARENT": traceparent}}

    def state(self, decision: str, attempt: int = 1) -> State | None:
        """Return how a retraining's job is doing, None when it was never submitted."""
        return _state(self.client, _job_id(decision, attempt))

    def stop(self, decision: str, attempt: int = 1) -> None:
        """End a retraining's job; one that has ended, or never was, is left alone."""
        if self.state(decision, attempt) in ("pending", "running"):
            self.client.stop_job(_job_id(decision, attempt))


def _state(client: Client, job: str) -> State | None:
    try:
        status = client.get_job_status(job)
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
        return None
    states: dict[str, State] = {
        "PENDING": "pending",
        "RUNNING": "running",
        "STOPPED": "stopped",
        "SUCCEEDED": "succeeded",
        "FAILED": "failed",
    }
    return states[str(status)]


def _job_id(decision: str, attempt: int) -> str:
    return decision if attempt == 1 else f"{decision}-{attempt}"


def _entrypoint_cpus(declaration: Declaration, free: float) -> float | None:
    """Return the CPUs the job's driver reserves, None where there is no room.

    The data's tasks and the workers take turns. The driver has a CPU of its own where one is left over; it shares
    theirs otherwise, so that a service on a laptop can retrain beside its only replica.
    """
    train = declaration.spec.train
    needed = max(1.0, worker_range(train)[0] * worker_need(train, use_gpu=False)["CPU"])
    if free < needed:
        return None
    return 1.0 if free >= needed + 1 else 0.0


def _command(
    declaration: Declaration, workspace: Workspace, decision: str, reason: str, until: int | None, attempt: int
) -> Sequence[str]:
    command = ["nice", "-n", str(NICENESS), sys.executable, "-m", "jobs.retrain", str(declaration.path)]
    for override in declaration.overrides:
        command += ["--set", override]
    command += ["--workspace", workspace.root, "--decision", decision, "--reason", reason]
    command += ["--attempt", str(attempt)]
    return command if until is None else [*command, "--until", str(until)]
