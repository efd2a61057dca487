"""Do replicas and hosts come and go with the load? Two requests in flight, 200, two again: `python -m benchmarks.hosts.scale`.

A head without CPUs for work, which Ray's autoscaler gives workers and takes them away; a worker has room for one
replica. Hosts share the machine's CPUs, so that more of them answer no faster here than the CPUs let them; that they
come and go without an error is what is shown. The load stands back behind them (nice 10), as one from elsewhere would.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.hosts.cloud import SETTINGS, Cloud, autoscaling
from benchmarks.hosts.machines import Network
from benchmarks.hosts.ray_hosts import DASHBOARD
from benchmarks.hosts.site import Site, prepared_site, rides
from benchmarks.options import parsed
from benchmarks.serve.machine import describe
from benchmarks.serve.swap import Asked, ask

_TICK = 0.5
_LONGEST_FALL = 240.0
_TARGET = 16
"""Requests in flight that a replica is meant to carry."""
_CPUS = 2
"""CPUs of a worker, and of a replica."""


@dataclass(frozen=True)
class Moment:
    """What was so at a moment: seconds since the begin; median and 99th percentile (ms) of what was answered since the last."""

    seconds: float
    connections: int
    replicas: int
    workers: int
    requests: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None


def running(site: Site) -> int:
    """Return how many replicas of the service answer, by Serve's own word."""
    token = (site.cluster.head.home / ".ray/auth_token").read_text()
    page = f"{DASHBOARD}/api/serve/applications/"
    said = site.cluster.head.run("curl", "--silent", "--header", f"Authorization: Bearer {token}", page)
    deployments: dict[str, Any] = json.loads(said)["applications"]["rides"]["deployments"]
    return sum(one["state"] == "RUNNING" for one in deployments["Service"]["replicas"])


async def watch(site: Site, cloud: Cloud, request: bytes, few: int, many: int, seconds: float) -> list[Moment]:
    """Ask over `few` connections, then over `many` for so long, then over few until one worker is left."""
    begin, told = time.perf_counter(), 0
    host, port = site.cluster.head.address, site.declaration.spec.serve.port
    found: list[Asked] = []
    moments: list[Moment] = []

    async def phase(connections: int, length: float, until_alone: bool = False) -> None:
        nonlocal told
        end = time.perf_counter() + length
        while time.perf_counter() < end and not (until_alone and moments and moments[-1].workers == 1):
            tick = time.perf_counter() + _TICK
            asking = [asyncio.create_task(ask(port, request, tick, found, host)) for _ in range(connections)]
            replicas, *_ = await asyncio.gather(asyncio.to_thread(running, site), *asking)
            new, told = found[told:], len(found)
            latency = np.array([one.seconds for one in new]) * 1e3
            p50, p99 = (round(float(np.quantile(latency, q)), 2) if len(new) else None for q in (0.5, 0.99))
            failed = sum(one.status != 200 for one in new)
            at = round(time.perf_counter() - begin, 2)
            moments.append(Moment(at, connections, replicas, cloud.workers, len(new), failed, p50, p99))

    await phase(few, seconds / 4)
    await phase(many, seconds)
    await phase(few, _LONGEST_FALL, until_alone=True)
    await phase(few, seconds / 8)
    return moments


def measure(folder: Path, few: int, many: int, rows: int, most: int, seconds: float) -> list[Moment]:
    """Put everything up, and watch it."""
    wanted = folder / "wanted"
    wanted.mkdir()
    with Network(folder) as network:
        site = prepared_site(folder, network, str(folder / "workspace"))
        site.cluster.cpus = _CPUS
        with Cloud(site.cluster, wanted) as cloud:
            site.cluster.start_head(autoscaling(wanted, _CPUS, most, idle_seconds=20), **SETTINGS)
            declared = ["--set", f"serve.max_replicas={most}", "--set", f"serve.cpus_per_replica={_CPUS}"]
            declared += [
                "--set",
                "serve.min_replicas=1",
                "--set",
                "train.num_workers=0",
                "--set",
                "retrain.policy=never",
            ]
            for job in ("jobs.train", "jobs.deploy"):  # their drivers need no CPU of a worker's
                print(site.submit(job, "rides.yaml", *declared, on_head=True).result(seconds=300)[-200:])
            table = rides(rows, 7).drop_columns(["late"]).to_pylist()
            body = json.dumps({"rows": [{**row, "at": f"{row['at'].isoformat()}Z"} for row in table]}).encode()
            lines = ["POST /rides/predict HTTP/1.1", "host: rides", "content-type: application/json"]
            lines += [f"authorization: Bearer {site.key}", f"content-length: {len(body)}"]
            os.nice(10)
            return asyncio.run(watch(site, cloud, "\r\n".join([*lines, "", ""]).encode() + body, few, many, seconds))


def report(moments: list[Moment], many: int, rows: int) -> str:
    """Return the page of results."""
    first = next(one.seconds for one in moments if one.connections == many)
    last = max(one.seconds for one in moments if one.connections == many)
    most = max(one.replicas for one in moments)
    risen = [
        [min(one.seconds for one in moments if getattr(one, what) >= n) - first for what in ("replicas", "workers")]
        for n in range(2, most + 1)
    ]
    alone = [one.seconds for one in moments if one.seconds > last and one.replicas == 1]
    empty = [one.seconds for one in moments if one.seconds > last and one.workers == 1]
    requests, failed = sum(one.requests for one in moments), sum(one.failed for one in moments)
    up = "; ".join(
        f"{n} after {seconds:.0f} s, the host for it after {host:.0f} s" for n, (seconds, host) in enumerate(risen, 2)
    )
    down = [f"{min(times) - last:.0f} s" if times else "not within the time watched" for times in (alone, empty)]
    machine = "\n".join(f"- {name}: {text}" for name, text in describe({}).items() if name != "load from")
    return f"""# Replicas and hosts come and go

`python -m benchmarks.hosts.scale`, {dt.date.today():%Y-%m-%d}. Two connections, then {many}, then two; {rows} rows of JSON a request. Workers are
hosts of their own on one machine, which Ray's autoscaler asks for; each has room for one replica, which is meant to
carry {_TARGET} requests at once.

| replicas at the least | replicas, after the load rose | one again, after it fell | one worker again | requests | failed |
| ---: | --- | ---: | ---: | ---: | ---: |
| {moments[0].replicas} | {up} | {down[0]} | {down[1]} | {requests:,} | {failed} |

![load, replicas, workers and latency over time](scale.png)

All hosts share the machine's CPUs with the load: latency tells how full these are, not what replicas on hosts of their
own would give; how many requests wait at the replicas rather than before them falls as they get more, and with it how
many replicas are wanted. A host that starts beside a full load takes long. Replicas go when they have been too many for
a minute (`downscale_delay_s`), hosts when they have been idle for 20 s and more.

{machine}
"""


def draw(moments: list[Moment]) -> Figure:
    """Draw connections, replicas and workers, and latency below."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    at = [one.seconds for one in moments]
    above.step(at, [one.connections for one in moments], where="pre", color="C7")
    above.set_ylabel("requests in flight", color="C7")
    right = above.twinx()
    right.step(
        at, [one.workers for one in moments], where="post", color="C2", linewidth=4, alpha=0.4, label="workers"
    )
    right.step(at, [one.replicas for one in moments], where="post", color="C0", linewidth=2, label="replicas")
    right.set_ylim(0, max(max(one.replicas, one.workers) for one in moments) + 1)
    right.legend(frameon=False)
    below.plot(at, [one.p50_ms for one in moments], color="C0", label="median")
    below.plot(at, [one.p99_ms for one in moments], color="C1", label="99th percentile")
    below.set(yscale="log", xlabel="seconds", ylabel="latency, ms")
    below.legend(frameon=False)
    return figure


def main() -> int:
    """Measure, and write benchmarks/results/scale.{md,json,png}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=200, help="most requests in flight (200)")
    parser.add_argument("--rows", type=int, default=200, help="rows of a request: enough to keep them waiting (200)")
    parser.add_argument("--most", type=int, default=3, help="most replicas, and workers (3)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long there are so many (60)")
    options = parsed(parser, quick="a short load")
    seconds = 20.0 if options.quick else options.seconds
    with tempfile.TemporaryDirectory(prefix="evertrue-bench-") as scratch:
        moments = measure(Path(scratch), 2, options.many, options.rows, options.most, seconds)
    text = report(moments, options.many, options.rows)
    (options.results / "scale.json").write_text(json.dumps([asdict(one) for one in moments]) + "\n")
    (options.results / "scale.md").write_text(text)
    draw(moments).savefig(options.results / "scale.png", dpi=110)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
