"""Give Ray's autoscaler the hosts it asks for, and take them away: a cloud of this machine's own."""

import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

from benchmarks.hosts.provider import HEAD, FolderProvider
from benchmarks.hosts.ray_hosts import ROOT, Cluster


class Cloud:
    """Follows the provider's folder until the end of the block; `cluster.hosts` are those that there are."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        self._end = threading.Event()
        self._starting: dict[str, threading.Thread] = {}
        self._follower = threading.Thread(target=self._follow)

    def __enter__(self) -> "Cloud":
        self._follower.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end.set()
        self._follower.join()

    @property
    def workers(self) -> int:
        """How many workers' hosts there are, with Ray on them."""
        return sum(name != HEAD and name not in self._starting for name in list(self._cluster.hosts))

    def _follow(self) -> None:
        while not self._end.wait(0.2):
            wanted = {file.stem: file for file in self._folder.glob("*.json")}
            for name, file in wanted.items():
                if name not in self._cluster.hosts and name not in self._starting:
                    kind = json.loads(file.read_text())[TAG_RAY_USER_NODE_TYPE]
                    self._starting[name] = threading.Thread(target=self._start, args=(name, kind))
                    self._starting[name].start()
            for name in self._cluster.hosts.keys() - wanted.keys() - self._starting.keys() - {HEAD}:
                self._cluster.hosts.pop(name).kill()
        for thread in list(self._starting.values()):
            thread.join()

    def _start(self, name: str, kind: str) -> None:
        self._cluster.start_worker(name, RAY_CLOUD_INSTANCE_ID=name, RAY_NODE_TYPE_NAME=kind)
        self._starting.pop(name)


def autoscaling(folder: Path, cpus: int, most: int, idle_seconds: float) -> dict[str, Any]:
    """Return the configuration of a cluster that has `most` workers when it needs them."""
    provider = {"type": "external", "module": f"{FolderProvider.__module__}.{FolderProvider.__name__}"}
    provider |= {"folder": str(folder), "disable_node_updaters": True, "disable_launch_config_check": True}
    return {
        "cluster_name": "hosts",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": provider,
        "available_node_types": {
            HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": cpus}, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
        "head_node_type": HEAD,
        **{part: {} for part in ("auth", "docker", "file_mounts")},
        **{part: [] for part in ("cluster_synced_files", "initialization_commands", "setup_commands")},
        **{f"{who}_{part}_commands": [] for who in ("head", "worker") for part in ("setup", "start_ray")},
    }


SETTINGS = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD,
    "RAY_NODE_TYPE_NAME": HEAD,
    "PYTHONPATH": str(ROOT),
}
"""What the head has in its environment besides."""
