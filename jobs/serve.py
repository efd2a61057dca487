"""Keep a declared service up and true on this machine: train when there is no champion, then answer until stopped."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from app.cluster import connect
from app.declaration import Declaration
from app.pipeline import train_version
from app.registry import Registry
from app.serving.listener import check
from app.types import UserError
from app.workspace import Workspace
from jobs.build import build_table
from jobs.command import main

PATIENCE = 600
"""Seconds that are waited for a service to come up; its first training may take longer, and goes on."""


def serve(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Start a service in the background, stop it, or (`--foreground`) be it."""
    state = Path(workspace.uri(declaration.spec.name)).resolve()
    if "://" in workspace.root:
        raise UserError("jobs.serve keeps a service up on this machine; its workspace has to be a local folder")
    state.mkdir(parents=True, exist_ok=True)
    pid, ready = state / "serve.pid", state / "serve.address"
    if arguments.stop:
        _stop(pid)
    elif arguments.foreground:
        _claim(pid)
        ready.unlink(missing_ok=True)
        _be(declaration, workspace, ready)
    elif _alive(pid):
        print(f"already answering at {ready.read_text()}" if ready.exists() else "already starting")
    else:
        _start(pid, ready, state / "serve.log")


def _claim(pid: Path) -> None:
    """Let `--stop` and further starts find this process. Raises UserError where another one keeps the service up."""
    if _alive(pid) and pid.read_text() != str(os.getpid()):
        raise UserError(f"process {pid.read_text()} keeps this service up already; end it with --stop")
    pid.write_text(str(os.getpid()))


def _be(declaration: Declaration, workspace: Workspace, ready: Path) -> None:
    check(declaration.spec.serve)
    build_table(declaration)
    connect(listens=declaration.spec.serve.listens)
    registry = Registry.open(workspace, declaration.spec.name)
    if registry.champion() is None:
        train_version(declaration, workspace)
    champion = registry.chosen(None)
    from app.decisions import actor
    from app.serving.deploy import deploy

    address = deploy(declaration.spec, workspace, champion.bundle, str(champion.number))
    actor.start(declaration, workspace)
    ready.write_text(address)
    print(f"{champion.name}/{champion.number} answers at {address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def _start(pid: Path, ready: Path, log: Path) -> None:
    ready.unlink(missing_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.serve", *sys.argv[1:], "--foreground"],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    pid.write_text(str(process.pid))
    end = time.monotonic() + PATIENCE
    while not ready.exists():
        if process.poll() is not None:
            if pid.exists() and pid.read_text() == str(process.pid):  # else another start has come first
                pid.unlink()
            raise UserError(f"the service did not come up:\n{log.read_text()[-3000:]}")
        if time.monotonic() > end:
            raise UserError(
                f"the service is not up after {PATIENCE} s, and goes on; see {log}, or end it with --stop"
            )
        time.sleep(0.5)
    print(f"answering at {ready.read_text()}; see {ready.read_text()}/docs; log: {log}")


def _stop(pid: Path) -> None:
    if not _alive(pid):
        print("no service is up")
        return
    number = int(pid.read_text())
    os.kill(number, signal.SIGTERM)
    end = time.monotonic() + 60
    while _alive(pid) and time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(number, os.WNOHANG)
        time.sleep(0.2)
    if _alive(pid):
        raise UserError(f"process {number} did not end within a minute")
    pid.unlink()
    print("stopped")


def _alive(pid: Path) -> bool:
    """Say whether the process of a pid file is ours and still runs."""
    if not pid.exists():
        return False
    command = subprocess.run(["ps", "-p", pid.read_text(), "-o", "command="], capture_output=True, text=True)
    return "jobs.serve" in command.stdout


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stop", action="store_true", help="end the service that was started")
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground until interrupted")


if __name__ == "__main__":
    main(serve, __doc__ or "", _extend)
