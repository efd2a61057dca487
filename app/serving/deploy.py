"""The Serve application of one declaration: `build_app` describes it, `deploy` puts it up and waits."""

import asyncio
import gc
import hashlib
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel
from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, BackpressureConfig, HTTPOptions
from ray.serve.schema import LoggingConfig

from app.model.bundle import open_bundle
from app.serving.endpoint import Endpoint, Loaded
from app.spec import Spec
from app.telemetry import ServingMetrics
from app.types import UserError

LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)


class ServiceArgs(BaseModel):
    """What `build_app` needs: the version that is to answer, and the declaration when it is newer than the bundle's."""

    bundle: str
    version: str
    spec: dict[str, Any] | None = None


@serve.ingress()
class Service:
    """One replica: a bundle in memory behind the endpoint.

    The version comes by `user_config`, so that another one is loaded beside the old and takes its place in
    the same process, without a request refused.
    """

    def __init__(self, spec: dict[str, Any], use_gpu: bool) -> None:
        self._spec = Spec.model_validate(spec)
        self._use_gpu = use_gpu
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="score")
        self._metrics = ServingMetrics(self._spec.name)
        self._endpoint = Endpoint(self._spec, self._executor, self._metrics)

    async def reconfigure(self, user_config: dict[str, str]) -> None:
        """Load and warm a version on a thread, then answer with it."""
        if user_config["version"] == self._endpoint.version:
            return
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(None, self._load, user_config["bundle"], user_config["version"])
        self._endpoint.swap(loaded)
        gc.collect()
        gc.set_threshold(50_000)  # requests leave few cycles behind: 700 would stop for them every few requests
        gc.freeze()  # what lives as long as the version is not walked through at every collection

    def _load(self, bundle: str, version: str) -> Loaded:
        return Loaded.of(open_bundle(bundle), self._spec, version, self._use_gpu)

    def __serve_build_asgi_app__(self) -> Endpoint:
        return self._endpoint


def build_app(args: ServiceArgs) -> Application:
    """Describe the application; also the `import_path` of a Serve config file (cluster/serve.yaml)."""
    spec = open_bundle(args.bundle).spec if args.spec is None else Spec.model_validate(args.spec)
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
        user_config={"bundle": args.bundle, "version": args.version},
        logging_config=LOGGING,
        version=_code_version(spec),
        _internal=True,  # Serve would draw a random version, and replace every replica for another bundle
    ).bind(spec.dump(), use_gpu)


def _code_version(spec: Spec) -> str:
    """Name the code and the declaration: while both stay, another bundle is swapped in without a new replica."""
    digest = hashlib.sha256(spec.model_dump_json().encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _has_gpu() -> bool:
    return bool(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]


def deploy(spec: Spec, bundle: str, version: str) -> str:
    """Put a version up, or in the place of the one that answers; return the endpoint's address once it is ready.

    Raises UserError when the address is taken by another program.
    """
    host, port = spec.serve.host, spec.serve.port
    if not _serving():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise UserError(
                    f"serve: {host}:{port} cannot be listened on: {error.strerror}; see serve.port"
                ) from None
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=LOGGING)
    application = build_app(ServiceArgs(spec=spec.dump(), bundle=bundle, version=version))
    serve.run(application, name=spec.name, route_prefix=f"/{spec.name}")
    return f"http://{host}:{port}/{spec.name}"


def _serving() -> bool:
    """Say whether this cluster's Serve is up already."""
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True
