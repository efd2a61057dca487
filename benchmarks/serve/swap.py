"""What does a swap cost those who ask meanwhile? Steady load, versions swapped under it: `python -m benchmarks.serve.swap`.

Quiet windows and windows in which the line-up names another version every second take turns; every request's latency,
status and model are kept.
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

import numpy as np

from app.lineup import FILE, Answering, read_lineup, write_lineup
from app.types import UserError
from app.workspace import ENVIRONMENT, Workspace
from benchmarks.options import parsed
from benchmarks.serve import untrained
from benchmarks.serve.machine import describe
from benchmarks.serve.peers import OURS
from benchmarks.serve.process import serving
from benchmarks.serve.sample import draw, json_rows
from benchmarks.serve.work import Work


@dataclass(frozen=True)
class Asked:
    """One request."""

    seconds: float
    status: int
    model: str


@dataclass(frozen=True)
class Window:
    """What the requests of a window had to wait; `swaps` is how often another version took over."""

    swaps: int
    requests: int
    failed: int
    models: list[str]
    p50_ms: float
    p99_ms: float
    max_ms: float

    @staticmethod
    def of(asked: list[Asked], swaps: int) -> "Window":
        """Sum requests up."""
        latency = np.array([one.seconds for one in asked]) * 1e3
        p50, p99, most = (round(float(np.quantile(latency, q)), 3) for q in (0.5, 0.99, 1))
        failed = sum(one.status != 200 for one in asked)
        return Window(swaps, len(asked), failed, sorted({one.model for one in asked}), p50, p99, most)


async def ask(port: int, request: bytes, until: float, found: list[Asked], host: str = "127.0.0.1") -> None:
    """Ask over one connection, one request after the other."""
    reader, writer = await asyncio.open_connection(host, port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        except (asyncio.IncompleteReadError, ConnectionError):  # a connection that broke is a request that failed
            found.append(Asked(time.perf_counter() - started, 0, "none"))
            head = b"connection: close"
        else:
            model = str(json.loads(body).get("model"))
            found.append(Asked(time.perf_counter() - started, int(head[9:12]), model))
        if b"connection: close" in head:
            writer.close()
            reader, writer = await asyncio.open_connection(host, port)
    writer.close()


async def window(port: int, request: bytes, connections: int, seconds: float, uri: str, bundles: list[str]) -> Window:
    """Ask for so long, and let each of `bundles` take over after an equal time."""
    found: list[Asked] = []
    until = time.perf_counter() + seconds
    asking = [asyncio.create_task(ask(port, request, until, found)) for _ in range(connections)]
    for bundle in bundles:
        lineup = read_lineup(uri)
        assert lineup is not None
        write_lineup(uri, lineup.then(Answering(str(lineup.generation + 1), bundle)))
        await asyncio.sleep(seconds / len(bundles))
    await asyncio.gather(*asking)
    return Window.of(found, len(bundles))


def measure(scratch: Path, connections: int, seconds: float, rounds: int) -> dict[str, list[Window]]:
    """Return the windows without and with swaps."""
    bundles = [untrained.write(scratch, seed=seed) for seed in (0, 1)]
    body = json_rows(draw(Work.open(bundles[0]).plan, 1).to_pylist())
    head = f"POST {OURS.path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request, swaps = head.encode() + body, max(1, round(seconds))
    os.environ[ENVIRONMENT] = str(scratch)
    uri = Workspace.open(str(scratch)).uri("bench", FILE)
    found: dict[str, list[Window]] = {"quiet": [], "swapping": []}
    with serving(OURS, Path(sys.executable), bundles[0], body, scratch / "log") as port:
        for number in range(rounds + 1):
            for name, change in (("quiet", []), ("swapping", [bundles[i % 2] for i in range(1, swaps + 1)])):
                one = asyncio.run(window(port, request, connections, seconds, uri, change))
                if number:  # the first round warms up
                    found[name].append(one)
                print(name, one, flush=True)
    return found


def report(found: dict[str, list[Window]], connections: int, seconds: float) -> str:
    """Return the page of results."""
    lines = ""
    for name, windows in found.items():
        p50, p99, most = (sorted(getattr(one, key) for one in windows) for key in ("p50_ms", "p99_ms", "max_ms"))
        middle = len(windows) // 2
        lines += (
            f"| {name} | {sum(one.swaps for one in windows)} | {sum(one.requests for one in windows):,} | "
            f"{sum(one.failed for one in windows)} | {p50[middle]:.2f} | {p99[middle]:.2f} ({p99[0]:.2f}-{p99[-1]:.2f}) | "
            f"{most[-1]:.1f} |\n"
        )
    machine = "\n".join(f"- {name}: {text}" for name, text in describe({}).items() if name != "load from")
    return f"""# Swap under load

`python -m benchmarks.serve.swap`, {dt.date.today():%Y-%m-%d}. {connections} connections, one row of JSON a request, one replica, journal on;
{len(found["quiet"])} windows of {seconds:g} s each way, in turn. While swapping, the line-up names another version every second: it is
loaded and warmed beside the one that answers. Medians of the windows, lowest and highest in brackets; ms.

| window | swaps | requests | failed | p50 | p99 | longest |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{lines}
{machine}
"""


def main() -> int:
    """Measure, and write benchmarks/results/swap.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=8, help="connections (8)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a window (5)")
    parser.add_argument("--rounds", type=int, default=5, help="windows each way (5)")
    options = parsed(parser, quick="one short window each way")
    if options.quick:
        options.seconds, options.rounds = 1.0, 1
    try:
        with tempfile.TemporaryDirectory(prefix="evertrue-bench-") as scratch:
            found = measure(Path(scratch), options.connections, options.seconds, options.rounds)
    except UserError as error:
        print(f"benchmarks.serve.swap: {error}", file=sys.stderr)
        return 1
    page = report(found, options.connections, options.seconds)
    plain = {name: [asdict(one) for one in windows] for name, windows in found.items()}
    (options.results / "swap.json").write_text(json.dumps(plain, indent=1) + "\n")
    (options.results / "swap.md").write_text(page)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
