"""Who is measured, and the command that starts each."""

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serve import environments


@dataclass(frozen=True)
class Peer:
    """A server: `arguments` after its Python, `{port}` filled in; `path` answers the POST of rows.

    `environment` names its requirements file; None runs in the environment of the benchmark itself.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    path: str = "/predict"
    environment: str | None = None
    ready_seconds: float = 60.0

    def python(self) -> Path:
        """Return its interpreter, its environment installed."""
        return environments.python_of(self.environment) if self.environment else Path(sys.executable)

    def command(self, python: Path, port: int) -> list[str]:
        """Return the command that serves on 127.0.0.1:`port` in the foreground."""
        return [str(python), *(argument.format(port=port) for argument in self.arguments)]


_UVICORN = (
    *("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--loop", "uvloop", "--http", "httptools"),
    *("--no-access-log", "--log-level", "warning", "--factory"),
)

OURS = Peer("ours", "Evertrue", ("-m", "benchmarks.serve.ours", "{port}"), "/bench/predict", ready_seconds=120)
FASTAPI = Peer(
    "fastapi",
    "FastAPI + uvicorn",
    (*_UVICORN, "benchmarks.serve.servers.fastapi_server:build"),
    environment="uvicorn",
)
LITSERVE = Peer(
    "litserve", "LitServe", ("-m", "benchmarks.serve.servers.litserve_server", "{port}"), environment="litserve"
)
BENTOML = Peer(
    "bentoml",
    "BentoML",
    (
        *("-m", "bentoml", "serve", "benchmarks.serve.servers.bentoml_server:Service"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    ),
    environment="bentoml",
)
ASGI = Peer(
    "asgi",
    "bare ASGI",
    (*_UVICORN, "benchmarks.serve.servers.asgi_server:Application"),
    environment="uvicorn",
)
PEERS = {peer.name: peer for peer in (OURS, FASTAPI, LITSERVE, BENTOML, ASGI)}
