"""What does the journal cost a replica? CPU a request with and without it: `python -m benchmarks.serve.journal`.

The endpoint is asked in process, without server and network, windows with and without the journal in turn. What a
request costs a replica as it is deployed, HTTP and Serve included, is what the shares are of.
"""

import argparse
import asyncio
import datetime as dt
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

import psutil

from app.journal.writer import SegmentWriter
from app.lineup import Answering, Lineup
from app.model.bundle import Bundle, open_bundle
from app.serving.asgi import Message
from app.serving.endpoint import Endpoint
from app.serving.interpreter import prepare
from app.serving.loaded import Loaded, Standing
from app.serving.profiles import Profiles
from app.serving.recorder import Recorder
from app.telemetry import ServingMetrics
from benchmarks.options import parsed
from benchmarks.serve import untrained
from benchmarks.serve.load import run
from benchmarks.serve.machine import describe
from benchmarks.serve.peers import OURS
from benchmarks.serve.process import serving
from benchmarks.serve.sample import draw, json_rows

CONNECTIONS = 16


class Drop:
    """Drops the metrics."""

    def add(self, *_: object) -> None:
        """Drop."""

    def set(self, *_: object) -> None:
        """Drop."""


@contextmanager
def counting_measured() -> Iterator[list[float]]:
    """Collect the CPU seconds of every call that counts a profile."""
    seconds: list[float] = []
    count = Profiles.count

    def measured(*arguments: object) -> None:
        started = time.thread_time()
        count(*arguments)  # type: ignore[arg-type]
        seconds.append(time.thread_time() - started)

    with patch.object(Profiles, "count", measured):
        yield seconds


async def ask(endpoint: Endpoint, path: str, bodies: list[bytes], until: float) -> int:
    """Ask one request after the other; return how many."""
    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    answered = 0

    async def send(message: Message) -> None:
        assert message.get("status", 200) == 200

    while time.perf_counter() < until:
        body = bodies[answered % len(bodies)]

        async def receive(body: bytes = body) -> Message:
            return {"type": "http.request", "body": body}

        await endpoint(scope, receive, send)
        answered += 1
        await asyncio.sleep(0)
    return answered


async def window(
    endpoint: Endpoint, standing: Standing, path: str, bodies: list[bytes], seconds: float
) -> tuple[int, float]:
    """Return requests and CPU seconds of a window."""
    endpoint.swap(standing)
    started, until = time.process_time(), time.perf_counter() + seconds
    counts = await asyncio.gather(*(ask(endpoint, path, bodies, until) for _ in range(CONNECTIONS)))
    return sum(counts), time.process_time() - started


def measure(bundle: Bundle, scratch: Path, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Return CPU microseconds a request by window, without and with the journal, and those of counting profiles."""
    spec = bundle.spec
    bodies = [json_rows([row]) for row in draw(bundle.plan, 256).to_pylist()]
    loaded = Loaded.of(bundle, spec, "1", use_gpu=False)
    standing = Standing.of(Lineup(1, Answering("1", bundle.uri)), loaded, None)
    found: defaultdict[str, list[float]] = defaultdict(list)
    prepare()
    with ThreadPoolExecutor(1) as executor, counting_measured() as counting:
        for number in range(rounds + 1):
            for way in ("without", "with"):
                write = SegmentWriter(str(scratch), "bench").write
                recorder = Recorder(spec.journal, write, "bench", lambda _: None)
                if way == "with":
                    recorder.start()
                else:
                    recorder.record = lambda _: None  # type: ignore[method-assign]
                    recorder.called = lambda _: None  # type: ignore[method-assign]
                metrics = ServingMetrics(spec.name, Drop())
                endpoint = Endpoint(spec, executor, metrics, recorder, write, str(scratch), lambda: None)
                counting.clear()
                before = time.process_time()
                requests, cpu = asyncio.run(window(endpoint, standing, f"/{spec.name}/predict", bodies, seconds))
                if way == "with":
                    recorder.close()
                    cpu = time.process_time() - before
                if number:  # the first round warms up
                    found[way].append(cpu / requests * 1e6)
                    if way == "with":
                        found["counting"].append(sum(counting) / requests * 1e6)
                        found["requests/s"].append(requests / seconds)
    return dict(found)


def replica_cpu(uri: str, scratch: Path, seconds: float) -> float:
    """Return the CPU microseconds that a request over HTTP costs the replica, journal included."""
    bodies = scratch / "bodies.jsonl"
    rows = [json_rows([row]) for row in draw(open_bundle(uri).plan, 256).to_pylist()]
    bodies.write_bytes(b"\n".join(rows) + b"\n")
    with serving(OURS, Path(sys.executable), uri, rows[0], scratch / "log") as port:
        url = f"http://127.0.0.1:{port}{OURS.path}"
        run(url, bodies, CONNECTIONS, 1)  # warm-up, not kept
        children = psutil.Process().children(recursive=True)
        [replica] = [one for one in children if "ServeReplica" in one.name()]
        before = sum(replica.cpu_times()[:2])
        load = run(url, bodies, CONNECTIONS, seconds)
        return (sum(replica.cpu_times()[:2]) - before) / load.requests * 1e6


def report(found: dict[str, list[float]], seconds: float) -> str:
    """Return the page of results."""
    without, with_, counting = (median(found[name]) for name in ("without", "with", "counting"))
    [replica] = found["replica"]
    rounds = len(found["without"])
    machine = "\n".join(f"- {name}: {text}" for name, text in describe({}).items() if name != "load from")
    return f"""# What the journal costs a replica

`python -m benchmarks.serve.journal`, {dt.date.today():%Y-%m-%d}. The endpoint asked in process by {CONNECTIONS} tasks, one row of
JSON a request, {median(found["requests/s"]):,.0f} requests/s; CPU time of the whole process, all threads. {rounds} windows of {seconds:g} s each
way, in turn; medians, lowest and highest in brackets.

| | CPU a request | of the replica's |
| --- | ---: | ---: |
| a replica over HTTP, all of it | {replica:.0f} us | |
| in process: decoding, scoring, encoding | {without:.1f} us ({min(found["without"]):.1f}-{max(found["without"]):.1f}) | {without / replica:.1%} |
| in process, with the journal | {with_:.1f} us ({min(found["with"]):.1f}-{max(found["with"]):.1f}) | {with_ / replica:.1%} |
| the journal | {with_ - without:.1f} us | {(with_ - without) / replica:.1%} |
| of it counting profiles | {counting:.2f} us ({min(found["counting"]):.2f}-{max(found["counting"]):.2f}) | {counting / replica:.2%} |

A flush costs some 5 ms, however few its rows: at the default of one a second half a percent of a core.

{machine}
"""


def main() -> None:
    """Measure, and write benchmarks/results/journal.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a window (3)")
    parser.add_argument("--rounds", type=int, default=7, help="windows each way (7)")
    parser.add_argument("--bundle", help="a bundle's URI; left out: an untrained network over 27 features")
    options = parsed(parser, quick="one short window each way")
    if options.quick:
        options.seconds, options.rounds = 1.0, 1
    with tempfile.TemporaryDirectory(prefix="evertrue-bench-") as scratch:
        uri = options.bundle or untrained.write(Path(scratch))
        found = measure(open_bundle(uri), Path(scratch), options.seconds, options.rounds)
        found["replica"] = [replica_cpu(uri, Path(scratch), 2 * options.seconds)]
    page = report(found, options.seconds)
    (options.results / "journal.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.results / "journal.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
