"""How are probes and retrainings done on Ray? A probe is a task of one CPU, a retraining a job."""

from typing import TYPE_CHECKING

from app.decisions.ledger import Entry
from app.decisions.retrain import Outcome, RetrainJobs, read_outcome
from app.decisions.work import Failed, Underway
from app.declaration import Declaration
from app.types import UserError
from app.workspace import Workspace

if TYPE_CHECKING:
    from ray import ObjectRef

    from app.decisions.probe import Gain


class RayWork:
    """The work of one declaration's keeper."""

    def __init__(self, declaration: Declaration, workspace: Workspace) -> None:
        self._declaration = declaration
        self._workspace = workspace
        self._jobs: RetrainJobs | None = None
        self._probes: dict[str, ObjectRef[Gain | Failed]] = {}

    def probe(self, entry: Entry) -> "Gain | Failed | Underway":
        """Begin a probe, or say what it told. One that a restart cut off is begun anew: it is cheap."""
        import ray

        if entry.id not in self._probes:
            task = ray.remote(num_cpus=1)(_probe)
            champion = entry.evidence["champion"]["bundle"]
            self._probes[entry.id] = task.remote(
                self._declaration, self._workspace, champion, int(entry.evidence["until"])
            )
        asked = self._probes[entry.id]
        if not ray.wait([asked], timeout=0)[0]:
            return Underway("a probe is running")
        del self._probes[entry.id]
        try:
            return ray.get(asked)
        except ray.exceptions.RayError as error:
            return Failed(f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}")

    def retrain(self, entry: Entry) -> Outcome | Underway:
        """Submit a retraining's job where there is room, or say what became of it."""
        decision, attempt = entry.evidence.get("decision", entry.id), int(entry.evidence["attempt"])
        if self._jobs is None:
            self._jobs = RetrainJobs.here()
        state = self._jobs.state(decision, attempt)
        if state in ("pending", "running"):
            return Underway(f"a retraining is {state}")
        outcome = read_outcome(self._workspace, self._declaration.spec.name, decision)
        if outcome is not None and outcome.version is not None:
            return outcome
        if state is not None:  # over, and without a version: what it says of it, if it lived to
            if outcome is not None and outcome.attempt >= attempt:
                return outcome
            spent = outcome.cpu_seconds if outcome else 0.0
            return Outcome(decision, spent, error=f"its job {state} without a word", attempt=attempt)
        until = int(entry.evidence["until"])
        begun = self._jobs.submit(self._declaration, self._workspace, decision, entry.reason, until, attempt)
        return Underway("a retraining has begun" if begun else "a retraining waits for free CPUs")


def _probe(declaration: Declaration, workspace: Workspace, champion: str, until: int) -> "Gain | Failed":
    from app.decisions.probe import probe  # brings trees along, which the actor does without

    try:
        return probe(declaration, workspace, champion, until)
    except UserError as error:
        return Failed(str(error))
