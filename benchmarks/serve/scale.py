"""Do replicas come and go with the load? Few requests in flight, 200, few again: `python -m benchmarks.serve.scale`.

Every half second: how many replicas answer, how many requests were in flight, how long they took. Replicas share the
machine's CPUs, so that more of them answer no faster here than the CPUs let them; that they come and go without an
error is what is shown.
"""

import argparse
import asyncio
import datetime as dt
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from app import cluster
from app.model.bundle import open_bundle
from app.workspace import Workspace
from benchmarks.serve import untrained
from benchmarks.serve.environments import ROOT
from benchmarks.serve.machine import describe
from benchmarks.serve.process import free_port
from benchmarks.serve.sample import draw, json_rows
from benchmarks.serve.swap import Asked, ask

_TICK = 0.5
_LOGICAL_CPUS = 8  # room for the replicas: they take turns on the CPUs there are
_LONGEST_FALL = 180.0


@dataclass(frozen=True)
class Moment:
    """What was so at a moment: seconds since the begin; median and 99th percentile (ms) of what was answered since the last."""

    seconds: float
    connections: int
    replicas: int
    requests: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None


def running() -> int:
    """Return how many replicas of the service answer."""
    from ray import serve

    [deployment] = serve.status().applications["bench"].deployments.values()
    return deployment.replica_states.get("RUNNING", 0)


async def watch(port: int, request: bytes, few: int, many: int, seconds: float) -> list[Moment]:
    """Ask over `few` connections, then over `many` for so long, then over few until one replica is left."""
    begin, told = time.perf_counter(), 0
    found: list[Asked] = []
    moments: list[Moment] = []

    async def phase(connections: int, length: float, until_alone: bool = False) -> None:
        nonlocal told
        end = time.perf_counter() + length
        asking: list[asyncio.Task[None]] = []
        while time.perf_counter() < end and not (until_alone and moments and moments[-1].replicas == 1):
            tick = time.perf_counter() + _TICK
            asking = [asyncio.create_task(ask(port, request, tick, found)) for _ in range(connections)]
            await asyncio.gather(*asking)
            new, told = found[told:], len(found)
            latency = np.array([one.seconds for one in new]) * 1e3
            p50, p99 = (round(float(np.quantile(latency, q)), 2) if len(new) else None for q in (0.5, 0.99))
            replicas = await asyncio.to_thread(running)
            failed = sum(one.status != 200 for one in new)
            at = round(time.perf_counter() - begin, 2)
            moments.append(Moment(at, connections, replicas, len(new), failed, p50, p99))

    await phase(few, seconds / 4)
    await phase(many, seconds)
    await phase(few, _LONGEST_FALL, until_alone=True)
    await phase(few, seconds / 8)
    return moments


def measure(scratch: Path, few: int, many: int, rows: int, seconds: float) -> list[Moment]:
    """Put the service up, as `jobs.deploy` does, and watch it."""
    uri = untrained.write(scratch, seed=0)
    bundle, port = open_bundle(uri), free_port()
    body = json_rows(draw(bundle.plan, rows).to_pylist())
    head = f"POST /bench/predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    cluster.connect(num_cpus=_LOGICAL_CPUS)
    import ray  # after its environment is set

    from app.serving.deploy import deploy

    serving = bundle.spec.serve.model_copy(update={"host": "127.0.0.1", "port": port})
    spec = bundle.spec.model_copy(update={"name": "bench", "serve": serving})
    try:
        deploy(spec, Workspace.open(str(scratch)), uri, "1")
        return asyncio.run(watch(port, head.encode() + body, few, many, seconds))
    finally:
        ray.shutdown()


def report(moments: list[Moment], many: int, rows: int) -> str:
    """Return the page of results."""
    first = next(one.seconds for one in moments if one.connections == many)
    last = max(one.seconds for one in moments if one.connections == many)
    most = max(one.replicas for one in moments)
    risen = [one.seconds for one in moments if one.replicas == most]
    alone = [one.seconds for one in moments if one.seconds > last and one.replicas == 1]
    requests, failed = sum(one.requests for one in moments), sum(one.failed for one in moments)
    down = f"{min(alone) - last:.0f} s after it fell" if alone else "not within the time watched"
    machine = "\n".join(f"- {name}: {text}" for name, text in describe({}).items() if name != "load from")
    return f"""# Replicas come and go

`python -m benchmarks.serve.scale`, {dt.date.today():%Y-%m-%d}. Two connections, then {many}, then two; {rows} rows of JSON a request.

| replicas at the least | at the most | all of them, after the load rose | one again | requests | failed |
| ---: | ---: | ---: | ---: | ---: | ---: |
| {moments[0].replicas} | {most} | {min(risen) - first:.1f} s | {down} | {requests:,} | {failed} |

![load, replicas and latency over time](scale.png)

Replicas share the machine's CPUs with the load: latency tells how full these are, not what replicas on nodes of their
own would give, and a replica that starts beside a full load takes long to import what it needs. Replicas wait a minute
before they go (`downscale_delay_s`).

{machine}
"""


def draw_moments(moments: list[Moment]) -> Figure:
    """Draw connections and replicas, and latency below."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    at = [one.seconds for one in moments]
    above.step(at, [one.connections for one in moments], where="pre", color="C7")
    above.set_ylabel("requests in flight", color="C7")
    right = above.twinx()
    right.step(at, [one.replicas for one in moments], where="post", color="C0", linewidth=2)
    right.set_ylabel("replicas", color="C0")
    right.set_ylim(0, max(one.replicas for one in moments) + 1)
    below.plot(at, [one.p50_ms for one in moments], color="C0", label="median")
    below.plot(at, [one.p99_ms for one in moments], color="C1", label="99th percentile")
    below.set(yscale="log", xlabel="seconds", ylabel="latency, ms")
    below.legend(frameon=False)
    return figure


def main() -> int:
    """Measure, and write benchmarks/results/scale.{md,json,png}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=200, help="most requests in flight (200)")
    parser.add_argument(
        "--rows", type=int, default=100, help="rows of a request: enough to keep requests waiting (100)"
    )
    parser.add_argument("--seconds", type=float, default=40.0, help="how long there are so many (40)")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a short load: to see that all runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evertrue-bench-") as scratch:
        moments = measure(Path(scratch), 2, options.many, options.rows, 10.0 if options.quick else options.seconds)
    page = report(moments, options.many, options.rows)
    (options.results / "scale.json").write_text(json.dumps([asdict(one) for one in moments]) + "\n")
    (options.results / "scale.md").write_text(page)
    draw_moments(moments).savefig(options.results / "scale.png", dpi=110)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
