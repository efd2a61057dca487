"""A cluster of hosts with a user before it: a declared table, jobs that he submits, clients of what he put up."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.declaration import Declaration, read
from app.keys import FILE, add_key
from app.workspace import Workspace
from benchmarks.hosts import machines
from benchmarks.hosts.asking import Asking
from benchmarks.hosts.ray_hosts import Cluster

LABELS = {"spot": {"ray.io/market-type": "spot"}, "lasting": {"ray.io/market-type": "on-demand"}}
QUICK = {  # a host that is gone is noticed in seconds: these are for tests, and for networks without hiccups
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
DECLARED = """
name: rides
task: {{target: late}}
data: {{source: {source}, key: ride, time: at}}
features:
  distance: {{type: number, min: 0, max: 1000}}
  passengers: {{type: number, required: true, min: 1, max: 8}}
  zone: category
  rain: category
model: {{width: 32, depth: 1, number_embedding: 4, frequencies: 8}}
train: {{epochs: 14, batch_size: 256, patience: 14, num_workers: 2, cpus_per_worker: 3}}
gate: {{margin: 0.5, slices: [zone], min_rows: 100}}
serve: {{host: 0.0.0.0, min_replicas: 2, max_replicas: 2, cpus_per_replica: 3}}
drift: {{interval: 500ms}}
retrain: {{policy: never}}
"""


class Job:
    """A job as its user sees it: submitted, with its log coming in."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def until(self, words: str, seconds: float = 180) -> None:
        """Wait until the log has these words, which come before the job has ended."""
        end = time.monotonic() + seconds
        while words not in self.said:
            assert not self.ended, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.05)

    def result(self, seconds: float = 300) -> str:
        """Wait for the end, which is a good one; return the log."""
        assert self._process.wait(seconds) == 0, self.said
        return self.said


@dataclass
class Site:
    """The cluster, and a user before it."""

    cluster: Cluster
    folder: Path
    declaration: Declaration
    workspace: Workspace
    key: str

    def submit(self, *command: str, on_head: bool = False) -> Job:
        """Submit a job through the tunnel; its driver stays off the host that comes and goes, or runs on the head."""
        folder = self.folder / "user"
        away = ("--entrypoint-label-selector", json.dumps({"ray.io/market-type": "!spot"}))
        options = () if on_head else ("--entrypoint-num-cpus", "1", *away)
        line = self.cluster.job(folder, *options, "--", "python", "-m", *command)
        log = self.folder / f"{command[0]}-{time.monotonic_ns()}.log"
        return Job(line, self.cluster.head.environment(PYTHONUNBUFFERED="1"), log)

    def kill_and_start(self, host: str) -> None:
        """Pull a worker's plug; as a cloud does with a spot machine, give another in its place."""
        self.cluster.hosts[host].kill()
        self.cluster.start_worker(host, LABELS[host])

    def processes(self, host: str) -> str:
        """Return what runs on a host."""
        return self.cluster.hosts[host].run("ps", "-eo", "args")

    def get(self, page: str) -> dict[str, Any]:
        """Ask the service on the host that lasts for a page."""
        headers = {"authorization": f"Bearer {self.key}"}
        answer = httpx.get(f"http://{self.address('lasting')}/rides/{page}", headers=headers, timeout=30)
        return dict(answer.raise_for_status().json())

    def address(self, host: str) -> str:
        """Return where the service is asked on a host."""
        return f"{self.cluster.hosts[host].address}:{self.declaration.spec.serve.port}"

    def asking(self, host: str) -> Asking:
        """Return clients of the front on a host."""
        random = np.random.default_rng(3)
        distances = random.gamma(2.0, 3.0, 1000).round(3).tolist()

        def body(number: int) -> bytes:
            row = {"ride": f"q{number}-{time.time_ns()}", "at": "2024-03-02T10:00:00Z"}
            row |= {"distance": distances[number % 1000], "passengers": 2, "zone": "north", "rain": False}
            return json.dumps(row).encode()

        return Asking(self.address(host), "/rides/predict", body, {"authorization": f"Bearer {self.key}"})


def rides(rows: int, seed: int) -> pa.Table:
    """Return rides of 60 days."""
    random = np.random.default_rng(seed)
    distance = random.gamma(2.0, 3.0, rows)
    rain = random.random(rows) < 0.3
    zone = random.choice(["north", "south", "harbour", "airport"], rows, p=[0.4, 0.3, 0.2, 0.1])
    score = 0.25 * distance + 1.5 * rain + 1.0 * (zone == "airport") - 2.5
    return pa.table(
        {
            "ride": [f"r{seed}-{i}" for i in range(rows)],
            "at": pa.array(np.datetime64("2024-01-01", "s") + np.sort(random.integers(0, 60 * 86400, rows))),
            "distance": distance,
            "passengers": random.integers(1, 5, rows),
            "zone": zone,
            "rain": rain,
            "late": random.random(rows) < 1 / (1 + np.exp(-score)),
        }
    )


def prepared_site(folder: Path, network: machines.Network, root: str, **settings: str) -> Site:
    """Return a site whose hosts are not started yet, with `settings` in the nodes' environment."""
    (folder / "user").mkdir()
    pq.write_table(rides(6000, 1), folder / "rides.parquet", row_group_size=1000)
    declared = folder / "user/rides.yaml"
    declared.write_text(DECLARED.format(source=folder / "rides.parquet"))
    workspace = Workspace.open(root)
    _, key = add_key(workspace.uri("rides", FILE), "app", ("predict", "labels", "read"))
    return Site(Cluster(network, workspace.root, settings=QUICK | settings), folder, read(declared), workspace, key)


def started_site(folder: Path, network: machines.Network, root: str, **settings: str) -> Site:
    """Return a site with a head, a worker that comes and goes, and one that lasts."""
    site = prepared_site(folder, network, root, **settings)
    site.cluster.start_head()
    with ThreadPoolExecutor() as pool:
        list(pool.map(site.cluster.start_worker, LABELS, LABELS.values()))
    return site
