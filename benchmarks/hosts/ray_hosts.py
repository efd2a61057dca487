"""Ray on hosts of their own, started by the commands of cluster/local.yaml, with the settings that `ray up` brings."""

import json
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from app.cluster import write_launcher
from benchmarks.hosts.machines import Host, Network

ROOT = Path(__file__).parents[2]
DASHBOARD = "http://127.0.0.1:8265"
_UP = yaml.safe_load((ROOT / "cluster/local.yaml").read_text())
_SMALL = "--object-store-memory=200000000"


@dataclass
class Cluster:
    """A head that works nothing itself, and workers; `workspace` is a folder that all have mounted, or a URI."""

    network: Network
    workspace: str
    cpus: int = 5
    """CPUs that Ray is to count on a worker."""
    settings: dict[str, str] = field(default_factory=dict)
    """What else the nodes have in their environment."""

    hosts: dict[str, Host] = field(default_factory=dict)
    _token: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def head(self) -> Host:
        return self.hosts["head"]

    def start_head(self, autoscaling: Mapping[str, Any] | None = None, **more: str) -> Host:
        """Start the head, or start it again after it was killed; `autoscaling` says which workers Ray asks for itself."""
        host = self._host("head")
        (host.home / "ray_bootstrap_config.yaml").write_text(json.dumps(autoscaling))
        command = _UP["head_start_ray_commands"][-1]
        if autoscaling is None:
            command = re.sub(r"--autoscaling-config=\S+", "", command)
        command = f"rm -f /tmp/ray/ray_current_cluster; {command} {_SMALL} --node-ip-address={host.address}"
        host.run("bash", "-c", command, **more)
        return host

    def start_worker(self, name: str, labels: Mapping[str, str] = MappingProxyType({}), **more: str) -> Host:
        """Start a worker, or start it again, with labels such as a cloud gives."""
        host = self._host(name)
        command = _UP["worker_start_ray_commands"][-1]
        options = f"--num-cpus={self.cpus} {_SMALL} --node-ip-address={host.address}"
        if labels:
            options += f" --labels={shlex.quote(','.join(f'{name}={value}' for name, value in labels.items()))}"
        host.run("bash", "-c", f"{command} {options}", RAY_HEAD_IP=self.head.address, **more)
        return host

    def shell(self, host: Host, *command: str, seconds: float = 120, **more: str) -> str:
        """Run a command in a host as from its shell, where Ray's settings and the programs are known."""
        return host.run(
            "bash", "-c", f". ~/evertrue/environment.sh && {shlex.join(command)}", seconds=seconds, **more
        )

    def job(self, folder: Path, *command: str) -> list[str]:
        """Return what submits a job through the tunnel to the dashboard, from a folder, and waits for it."""
        submit = ["ray", "job", "submit", "--address", DASHBOARD, "--working-dir", "."]
        line = shlex.join([*submit, *command])
        return self.head.command("bash", "-c", f". ~/evertrue/environment.sh && exec {line}", folder=folder)

    def _host(self, name: str) -> Host:
        host = self.network.host(name)
        place = host.home / "evertrue"
        if not place.exists():
            place.mkdir()
            (place / "venv").symlink_to(sys.prefix)
            (place / "bin").mkdir()
            write_launcher(place / "bin/evertrue-haproxy")
            shutil.copy(ROOT / "cluster/node/environment.sh", place)
            shutil.copy(ROOT / "cluster/kuberay/base/ray.env", place)
            known = {"EVERTRUE_WORKSPACE": self.workspace, **self.settings}
            (place / "place.env").write_text("".join(f"{name}={value}\n" for name, value in known.items()))
            (host.home / ".ray").mkdir(mode=0o700)
            token = host.home / ".ray/auth_token"
            token.touch(0o600)
            token.write_text(self._token)
        self.hosts[name] = host
        return host
