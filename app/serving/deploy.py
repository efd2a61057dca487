"""The Serve application of one declaration: `build_app` describes it, `deploy` puts it up and waits."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel
from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig

from app import keys, logs
from app.journal.writer import SegmentWriter
from app.lineup import FILE, Answering, Lineup, read_lineup, write_lineup
from app.model.bundle import open_bundle
from app.serving.asgi import ASGIApp
from app.serving.counted import counted
from app.serving.endpoint import Endpoint
from app.serving.following import Follower
from app.serving.front import listen
from app.serving.guard import Guard
from app.serving.interpreter import prepare
from app.serving.keyring import Keyring
from app.serving.listener import address, check, connection
from app.serving.loaded import Loaded, Standing
from app.serving.looking import Looking
from app.serving.recorder import Recorder
from app.serving.requests import facts
from app.serving.traced import Traced
from app.spec import Serve, Spec
from app.telemetry import ServingMetrics, count_messages, traces
from app.types import UserError
from app.workspace import Workspace, join

READY_SECONDS = 120.0
"""Longest time a deployed version may take until it answers."""
log = logging.getLogger(__name__)


class ServiceArgs(BaseModel):
    """What `build_app` needs: the workspace, and which of its services to put up.

    The service's line-up says which versions answer. `spec` is the declaration; that of the champion's bundle when it is
    left out.
    """

    workspace: str
    name: str
    spec: dict[str, Any] | None = None


@serve.ingress()
class Service:
    """One replica: the line-up's versions in memory behind the endpoint, and its part of the journal."""

    def __init__(self, spec: dict[str, Any], root: str, use_gpu: bool) -> None:
        self._spec = Spec.model_validate(spec)
        self._use_gpu = use_gpu
        loop = asyncio.get_running_loop()
        folder = join(root, self._spec.name)
        metrics = ServingMetrics(self._spec.name)
        replica = serve.get_replica_context().replica_id.unique_id
        logs.set_up("replica", self._spec.name, facts, replica=replica)
        count_messages(self._spec.name)
        self._tracer = traces.open_or_warn("replica", self._spec.name, replica)
        write = counted(SegmentWriter(join(folder, "journal"), replica).write, metrics, loop.call_soon_threadsafe)

        def dropped(rows: int) -> None:
            loop.call_soon_threadsafe(metrics.dropped, rows)

        def take(standing: Standing) -> None:
            loop.call_soon_threadsafe(self._endpoint.swap, standing)

        def fault(challenger: str | None) -> None:
            loop.call_soon_threadsafe(metrics.fault)
            if challenger is not None:
                self._recorder.missing(challenger)

        self._recorder = Recorder(self._spec.journal, write, replica, dropped)
        self._follower = Follower(join(folder, FILE), self._load, take, fault)
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="score")
        self._following: list[Looking] = [self._follower]
        guard = None
        if self._spec.serve.needs_keys:
            keyring = Keyring(join(folder, keys.FILE))
            keyring.first()
            guard = Guard(keyring, self._spec.name)
            self._following.append(keyring)
        traced = self._tracer is not None
        self._endpoint = Endpoint(
            self._spec, executor, metrics, self._recorder, write, folder, self._close, guard, traced
        )
        self._endpoint.swap(self._follower.first())
        prepare()
        self._recorder.start()
        for following in self._following:
            following.start()

    def _load(self, version: Answering) -> Loaded:
        return Loaded.of(open_bundle(version.bundle), self._spec, version.version, self._use_gpu)

    def _close(self) -> None:
        for following in self._following:
            following.close()
        self._recorder.close()
        if self._tracer is not None:
            self._tracer.close()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._endpoint if self._tracer is None else Traced(self._endpoint, self._tracer, self._spec.name)


def logging_config() -> LoggingConfig:
    """Return how Serve itself logs: in its own words, as JSON where ours is."""
    encoding = "JSON" if logs.wants_json() else "TEXT"
    return LoggingConfig(log_level="WARNING", enable_access_log=False, encoding=encoding)


def build_app(args: ServiceArgs) -> Application:
    """Describe the application; also the `import_path` of a Serve config file (cluster/serve.yaml)."""
    spec = _champions(args) if args.spec is None else Spec.model_validate(args.spec)
    serving = spec.serve
    use_gpu = serving.use_gpu is True or (serving.use_gpu == "auto" and _has_gpu())
    service: Deployment = serve.deployment(Service)  # type: ignore[assignment]  # typed as the decorator alone
    return service.options(
        autoscaling_config=AutoscalingConfig(
            min_replicas=serving.min_replicas,
            max_replicas=serving.max_replicas,
            initial_replicas=serving.min_replicas,
            target_ongoing_requests=serving.target_ongoing_requests,
            upscale_delay_s=2,
            downscale_delay_s=60,
            look_back_period_s=5,
            metrics_interval_s=1,
        ),
        max_ongoing_requests=serving.max_ongoing_requests,
        max_queued_requests=serving.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        ray_actor_options={"num_cpus": serving.cpus_per_replica, "num_gpus": 1 if use_gpu else 0},
        logging_config=logging_config(),
        version=_code_version(spec),
        _internal=True,  # Serve would draw a random version, and replace every replica at every deployment
    ).bind(spec.dump(), args.workspace, use_gpu)


def _code_version(spec: Spec) -> str:
    """Name the code and the declaration: while both stay, replicas stay."""
    digest = hashlib.sha256(spec.model_dump_json().encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _has_gpu() -> bool:
    return bool(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]


def _champions(args: ServiceArgs) -> Spec:
    uri = join(args.workspace, args.name, FILE)
    lineup = read_lineup(uri)
    if lineup is None:
        raise UserError(f"{uri} is not there: deploy a version first, or give the declaration as `spec`")
    return open_bundle(lineup.champion.bundle).spec


def deploy(spec: Spec, workspace: Workspace, bundle: str, version: str) -> str:
    """Make a version champion, alone, and put the service up if it is not; return its address once it answers so.

    Raises UserError for a bundle or keys that cannot be opened, a certificate that is none, when the address is taken by
    another program, and when the service does not answer with this version in time.
    """
    check(spec.serve)
    open_bundle(bundle)
    for warning in exposure(spec.serve, workspace.uri(spec.name, keys.FILE)):
        log.warning("%s", warning)
    up = _serving()
    if not up:
        check_free(spec.serve)
    options = listen(spec.serve, up)
    generation = appoint(workspace.uri(spec.name, FILE), Answering(version, bundle))
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options=options, logging_config=logging_config())
    application = build_app(ServiceArgs(workspace=workspace.root, name=spec.name, spec=spec.dump()))
    serve.run(application, name=spec.name, route_prefix=f"/{spec.name}")
    _wait(spec, generation)
    return address(spec)


def check_free(serving: Serve) -> None:
    """Raise UserError where nobody could listen at the declared address: it is taken, or not this machine's."""
    with socket.socket(socket.AF_INET6 if ":" in serving.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serving.host, serving.port))
        except OSError as error:
            raise UserError(
                f"serve: {serving.listens} cannot be listened on: {error.strerror}; see serve.host and serve.port"
            ) from None


def exposure(serving: Serve, uri: str) -> Iterator[str]:
    """Yield what whoever puts a service up should hear about who may ask it. Raises UserError for a file of no keys."""
    if serving.needs_keys:
        if not keys.read_keys(uri):
            yield "requests need a key, and there is none yet: make one with `python -m jobs.keys DECLARATION --add NAME`"
    elif not serving.on_loopback:
        yield (
            f"serve.keys is none: whoever reaches {serving.host}:{serving.port} may ask, read and, by its labels, teach "
            "the model; something in front has to say who that is"
        )
    if serving.tls is None and not serving.on_loopback:
        yield f"{serving.host}:{serving.port} speaks plain HTTP, so keys and rows can be read on the way; see serve.tls"


def appoint(uri: str, champion: Answering) -> int:
    """Make a version champion of a line-up, without a challenger; return the generation that says so."""
    before = read_lineup(uri)
    if before is not None and (before.champion, before.challenger) == (champion, None):
        return before.generation
    lineup = Lineup(1, champion) if before is None else before.then(champion)
    write_lineup(uri, lineup)
    return lineup.generation


def _wait(spec: Spec, generation: int) -> None:
    """Wait until the service follows this line-up, or a later one."""
    name = spec.name
    end = time.monotonic() + READY_SECONDS
    found = "nothing"
    while time.monotonic() < end:
        try:
            with contextlib.closing(connection(spec.serve)) as asking:
                asking.request("GET", f"/{name}/readyz")
                found = asking.getresponse().read().decode()
            if json.loads(found)["generation"] >= generation:
                return
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            found = str(error)
        time.sleep(0.05)
    raise UserError(f"{name} does not follow line-up {generation} after {READY_SECONDS:g} s; found {found:.500}")


def _serving() -> bool:
    """Say whether this cluster's Serve is up already."""
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True
