"""One Ray cluster for the whole session of tests: its own folder, ports and token, on loopback."""

import datetime as dt
import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.cluster import free_ports, settings
from app.declaration import Declaration, read
from app.spec import Tls
from app.workspace import Workspace

if TYPE_CHECKING:
    from app.pipeline import TrainedVersion

_STATE = Path(tempfile.mkdtemp(prefix="evt-"))


def pytest_configure() -> None:
    """Set Ray's environment before anything imports Ray: it is read at import."""
    os.environ.update(settings(_STATE, local=True))
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # as when activated
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("MPLBACKEND", "Agg")
    # Machines differ in speed: no deadline; and a failure must come again: fixed seeds.
    hypothesis.settings.register_profile("evertrue", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("evertrue")


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_STATE, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In the strict run nothing may be left out: a skip is a failure."""
    report = yield
    if report.skipped and "EVERTRUE_STRICT" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def ray_session() -> Iterator[str]:
    """Start Ray, once, and give the dashboard's address; end it and only it."""
    import ray

    context = ray.init(
        num_cpus=4,  # logical: lets a service and a training stand side by side on two cores
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=free_port(),
        log_to_driver=False,
        logging_level=logging.WARNING,
        _temp_dir=str(_STATE),
        _node_ip_address="127.0.0.1",
    )
    yield f"http://{context.dashboard_url}"
    ray.shutdown()


def free_port() -> int:
    """Return a port nobody listens on, and no process is given by chance until it is used."""
    [port] = free_ports(1)
    return port


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., object]:
    """Return a function that waits for the first truth that a function gives, for at most so many seconds."""

    def wait(what: Callable[[], object], seconds: float = 60) -> object:
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, "it never came"
            time.sleep(0.05)
        return found

    return wait


@pytest.fixture(scope="session")
def declaration(tmp_path_factory: pytest.TempPathFactory) -> Declaration:
    """Return a small declared table: 6,000 taxi rides of 60 days, with nulls, categories, limits, key and time."""
    folder = tmp_path_factory.mktemp("rides")
    random = np.random.default_rng(7)
    rows = 6000
    distance = random.gamma(2.0, 3.0, rows)
    rain = random.random(rows) < 0.3
    zone = random.choice(["north", "south", "harbour", "airport"], rows, p=[0.4, 0.3, 0.2, 0.1])
    score = 0.25 * distance + 1.5 * rain + 1.0 * (zone == "airport") - 2.5
    table = pa.table(
        {
            "ride": [f"r{i}" for i in range(rows)],
            "at": pa.array(np.datetime64("2024-01-01", "s") + np.sort(random.integers(0, 60 * 86400, rows))),
            "distance": pa.array(distance, mask=random.random(rows) < 0.1),
            "passengers": random.integers(1, 5, rows),
            "zone": pa.array(zone, mask=random.random(rows) < 0.05),
            "rain": rain,
            "late": random.random(rows) < 1 / (1 + np.exp(-score)),
        }
    )
    pq.write_table(table, folder / "rides.parquet", row_group_size=1000)
    path = folder / "rides.yaml"
    path.write_text(
        f"""
name: rides
task: {{target: late}}
data: {{source: rides.parquet, key: ride, time: at}}
features:
  distance: {{type: number, min: 0, max: 1000}}
  passengers: {{type: number, required: true, min: 1, max: 8}}
  zone: category
  rain: category
model: {{width: 32, depth: 1, number_embedding: 4, frequencies: 8}}
train: {{epochs: 4, batch_size: 256}}
gate: {{margin: 0.2, slices: [zone], min_rows: 100}}
serve: {{port: {free_port()}, max_request_rows: 2000, max_request_bytes: 1000000}}
"""
    )
    return read(path)


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[..., Tls]:
    """Return a maker of certificates that sign themselves: `days` are those from now on in which one is good."""

    def make(name: str = "localhost", days: tuple[int, int] = (-1, 30)) -> Tls:
        key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
        who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now + dt.timedelta(days=days[0])).not_valid_after(
            now + dt.timedelta(days=days[1])
        )
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        tls = Tls(certificate=str(tmp_path / f"{name}.crt"), key=str(tmp_path / f"{name}.key"))
        Path(tls.certificate).write_bytes(made.sign(key, hashes.SHA256()).public_bytes(form[0]))
        Path(tls.key).write_bytes(key.private_bytes(*form))
        Path(tls.key).chmod(0o600)
        return tls

    return make


class Collector(ThreadingHTTPServer):
    """What an OpenTelemetry collector is to those who send: `spans` as they came, with the `headers` they came with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Received)
        self.spans: list[SimpleNamespace] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.open = threading.Event()  # a delivery waits for it
        self.open.set()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = attributes(resource.resource.attributes)
            for span in [span for scope in resource.scope_spans for span in scope.spans]:
                seen = SimpleNamespace(name=span.name, trace=span.trace_id.hex(), id=span.span_id.hex(), about=about)
                seen.parent, seen.kind, seen.failed = span.parent_span_id.hex(), span.kind, span.status.code == 2
                seen.told, seen.events = attributes(span.attributes), [event.name for event in span.events]
                seen.words = (span.status.message, *(attributes(event.attributes) for event in span.events))
                seen.began, seen.ended = span.start_time_unix_nano, span.end_time_unix_nano
                self.spans.append(seen)

    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)

    def one(self, name: str) -> SimpleNamespace:
        (found,) = [span for span in self.spans if span.name == name]
        return found


class Received(BaseHTTPRequestHandler):
    """One delivery of spans."""

    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.open.wait(30)
        if self.path == "/v1/traces" and self.server.status == 200:
            self.server.take(body)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def attributes(several: Iterator) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in several}


@pytest.fixture(autouse=True)
def opentelemetry_as_it_was() -> Iterator[None]:
    """Leave OpenTelemetry's logger as it was found: pytest listens to one that does not propagate, in every later test."""
    theirs = logging.getLogger("opentelemetry")
    handlers, propagate = list(theirs.handlers), theirs.propagate
    yield
    theirs.handlers, theirs.propagate = handlers, propagate


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Run a collector that the environment names, and nothing else of OpenTelemetry."""
    for name in [name for name in os.environ if name.startswith("OTEL_") or name == "TRACEPARENT"]:
        monkeypatch.delenv(name)
    with Collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.address)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace of the session's own."""
    return Workspace.open(str(tmp_path_factory.mktemp("workspace")))


@pytest.fixture(scope="session")
def trained(ray_session: str, declaration: Declaration, workspace: Workspace) -> "TrainedVersion":
    """Return a version of the rides, trained through every room."""
    from app.pipeline import train_version

    return train_version(declaration, workspace)
