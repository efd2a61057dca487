"""Who turns the loop? One named, detached actor for each declaration, on the head node, restarted for ever.

It holds nothing that is not in the workspace, so that it may be killed at any time, and a new one goes on.
"""

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from app import logs
from app.decisions.alerts import Alerts, webhook_of
from app.decisions.carried import Carried, fingerprint
from app.decisions.keeper import Keeper, Rooms
from app.decisions.ledger import Ledger
from app.decisions.ray_work import RayWork
from app.decisions.snapshots import Snapshots
from app.decisions.versions import Versions
from app.declaration import Declaration
from app.journal.steps import Journal
from app.monitor.state import Monitor
from app.registry import Registry
from app.telemetry import REPEAT_SECONDS, LoopMetrics, count_messages, spans, traces
from app.workspace import Workspace

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

NAMESPACE = "evertrue"
HEAD = "node:__internal_head__"
"""The resource that Ray gives to the head node alone; unlike its id, it outlives a restart of the node."""

PATIENCE = 30.0
"""Seconds that an actor may take to answer, or to go."""

log = logging.getLogger(__name__)


class DriftActor:
    """The loop on a thread; `status` answers meanwhile. `webhook` is handed over, for it is in no file."""

    def __init__(self, carried: Carried, workspace: str, webhook: str | None, identity: str) -> None:
        self._carried, self._workspace, self._webhook = carried, workspace, webhook
        self._facts: dict[str, Any] = {"pid": os.getpid(), "identity": identity, "turns": 0, "error": None}
        self._interval = 1.0  # until the declaration is read
        self._tracer: traces.Tracer | None = None
        self._stopped = threading.Event()
        # Nothing is read here: an actor that fails while it is made is not made again.
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """Return `pid`, `identity`, `turns` that went well, and the last one's `error` (None: it went well)."""
        return dict(self._facts)

    def stop(self) -> None:
        """End the loop after the turn it is in, with its state kept."""
        self._stopped.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            self._turns()
        except BaseException:  # a panic of native code is no Exception; Ray starts another process, which goes on
            log.critical("the loop has ended, and with it the process", exc_info=True)
            if not self._stopped.is_set():
                os._exit(1)

    def _turns(self) -> None:
        keeper: Keeper | None = None
        while not self._stopped.is_set():
            try:
                if keeper is None:
                    keeper = self._keeper()
                with traces.worth_telling(self._tracer, "turn"):
                    keeper.turn()
                self._facts |= {"turns": self._facts["turns"] + 1, "error": None}
            except Exception as error:  # the loop has to outlive whatever a turn runs into, and says so
                log.exception("a turn of the loop failed")
                self._facts["error"] = f"{type(error).__name__}: {error}"
                self._report(keeper, error)
            self._rest(keeper)
        if keeper is not None:
            keeper.close()
        if self._tracer is not None:
            self._tracer.close()

    def _rest(self, keeper: Keeper | None) -> None:
        """Wait for the next turn; metrics are forgotten where nobody repeats them."""
        end = time.monotonic() + self._interval
        while (left := end - time.monotonic()) > 0 and not self._stopped.wait(min(left, REPEAT_SECONDS)):
            if keeper is not None:
                keeper.rest()

    def _report(self, keeper: Keeper | None, error: Exception) -> None:
        if keeper is not None:
            try:
                keeper.failed(error)
            except OSError:
                log.exception("nor can the failure be reported")

    def _keeper(self) -> Keeper:
        logs.set_up("actor")
        declaration = self._carried.read()
        logs.set_up("actor", declaration.spec.name, spans.facts)
        count_messages(declaration.spec.name)
        self._interval = declaration.spec.drift.interval.total_seconds()
        rooms = furnish(declaration, Workspace.open(self._workspace), self._webhook)
        self._tracer = traces.open_or_warn("actor", declaration.spec.name)
        return Keeper(rooms)


def furnish(declaration: Declaration, workspace: Workspace, webhook: str | None) -> Rooms:
    """Bring together all that a keeper works with."""
    spec = declaration.spec
    ledger = Ledger.open(workspace, spec.name)
    versions = Versions(lambda: Registry.open(workspace, spec.name), ledger.entries)
    metrics = LoopMetrics(spec.name)

    def monitor(snapshot: bytes | None) -> Monitor:
        if snapshot is None:
            return Monitor(spec, versions.subject)
        return Monitor.from_bytes(snapshot, spec, versions.subject)

    return Rooms(
        spec=spec,
        workspace=workspace,
        journal=Journal.open(workspace, spec.name),
        monitor=monitor,
        snapshots=Snapshots(workspace.uri(spec.name, "monitor"), fingerprint(declaration)),
        ledger=ledger,
        versions=versions,
        work=RayWork(declaration, workspace),
        alerts=Alerts(workspace, spec.name, webhook, metrics),
        metrics=metrics,
        clock=time.time,
    )


def start(declaration: Declaration, workspace: Workspace) -> None:
    """See to it that the declaration's actor runs; one of another declaration, or of other code, makes way.

    Ray must be initialised. Raises UserError when alerts are declared and the webhook's address is missing.
    """
    import ray

    name, webhook = _name(declaration.spec.name), webhook_of(declaration.spec)
    carried, identity = Carried.of(declaration, workspace), f"{fingerprint(declaration)} {workspace.root}"
    running = find(declaration.spec.name)
    if running is not None:
        if _status(running)["identity"] == identity:
            return
        stop(declaration.spec.name)
    actor = ray.remote(DriftActor).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=-1,
        num_cpus=0,
        resources={HEAD: 0.001},
    )
    actor.remote(carried, workspace.root, webhook, identity)
    assert show(declaration.spec.name) is not None, "an actor that was made has its name"


def stop(service: str) -> bool:
    """End a declaration's actor, with its state kept; say whether there was one."""
    import ray

    actor = find(service)
    if actor is None:
        return False
    try:
        ray.get(actor.stop.remote(), timeout=2 * PATIENCE)
    except ray.exceptions.RayError:
        log.warning("the drift actor did not end by itself and is killed; it loses nothing by it")
    ray.kill(actor)
    end = time.monotonic() + PATIENCE
    while find(service) is not None and time.monotonic() < end:
        time.sleep(0.05)
    return True


def show(service: str) -> dict[str, Any] | None:
    """Return the status of a declaration's actor, None when there is none."""
    actor = find(service)
    return None if actor is None else _status(actor)


def find(service: str) -> "ActorHandle[Any] | None":
    """Return a declaration's actor, None when there is none."""
    import ray

    try:
        return ray.get_actor(_name(service), namespace=NAMESPACE)
    except ValueError:
        return None


def _status(actor: "ActorHandle[Any]") -> dict[str, Any]:
    import ray

    asked: ObjectRef[dict[str, Any]] = actor.status.remote()
    # Ray leaves ObjectRef untyped, so that mypy takes the overload for sequences.
    return ray.get(asked, timeout=PATIENCE)  # type: ignore[unreachable]


def _name(service: str) -> str:
    return f"evertrue-{service}"
