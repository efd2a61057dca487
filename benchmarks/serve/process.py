"""One server as one process tree: started, waited for, and ended to the last child."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from app.cluster import free_ports
from app.types import UserError
from benchmarks.serve.environments import ROOT
from benchmarks.serve.peers import Peer
from benchmarks.serve.work import BUNDLE

_END_SECONDS = 20.0
_LOG_TAIL = 3000


def environment(bundle_uri: str) -> dict[str, str]:
    """Return the variables every server gets: the bundle, the package, one thread a process."""
    return os.environ | {
        BUNDLE: bundle_uri,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
    }


@contextmanager
def serving(peer: Peer, python: Path, bundle_uri: str, body: bytes, log: Path) -> Iterator[int]:
    """Serve with `peer` while the context lasts, and give its port once it answers `body` with 200.

    Raises UserError with the end of its log when it stops or stays silent.
    """
    [port] = free_ports(1)
    with log.open("wb") as output:
        process = subprocess.Popen(
            peer.command(python, port),
            cwd=ROOT,
            env=environment(bundle_uri),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_ready(peer, process, port, body, log)
        yield port
    finally:
        _end(process)


def post(port: int, path: str, body: bytes, content_type: str = "application/json") -> tuple[int, bytes]:
    """Return status and body of one POST over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _wait_ready(peer: Peer, process: "subprocess.Popen[bytes]", port: int, body: bytes, log: Path) -> None:
    deadline = time.monotonic() + peer.ready_seconds
    found = "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            found = f"it ended with {process.returncode}"
            break
        try:
            status, answer = post(port, peer.path, body)
        except (OSError, HTTPException):
            time.sleep(0.1)
            continue
        if status == 200:
            return
        found = f"status {status}: {answer[:500]!r}"
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-_LOG_TAIL:]
    raise UserError(f"{peer.title} is not ready: {found}; the end of its log {log}:\n{tail}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the first process to end, then its group and whoever of its children is left."""
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(tree, timeout=2)
    for child in left:
        child.terminate()
    _, left = psutil.wait_procs(left, timeout=5)
    for child in left:
        child.kill()
    psutil.wait_procs(left, timeout=5)
