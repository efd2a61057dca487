"""Our batcher beside `@serve.batch` without wait: microseconds a request, `python -m benchmarks.serve.batching [--quick]`.

In one replica and on its event loop, without HTTP: so many callers ask for one row, wait for their score, and ask
again. The graph is that of an
untrained bundle; what is left when its time is taken off is the batching.
"""

import argparse
import asyncio
import json
import statistics
import time
import urllib.request
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from app import cluster
from app.model.bundle import open_bundle
from app.model.runtime import Runtime
from app.serving.batching import Batcher
from app.types import UNSEEN_ID, Features
from benchmarks.options import parsed
from benchmarks.serve import untrained

CALLERS = (1, 16, 64)
REQUESTS = 20_000
ROUNDS = 5
MOST_ROWS = 1024
PORT = 8791

Score = Callable[[Features], Awaitable[object]]


def ours(runtime: Runtime, executor: ThreadPoolExecutor) -> Score:
    """Return the endpoint's way."""
    return Batcher(lambda rows: (runtime.score(rows), 0.0), executor, MOST_ROWS, lambda *_: None).score


def serves(runtime: Runtime) -> Score:
    """Return Ray Serve's way, as its documentation writes it, with no wait."""
    from ray import serve

    @serve.batch(max_batch_size=MOST_ROWS, batch_wait_timeout_s=0)
    async def score(batch: list[Features]) -> list[object]:
        number, category = zip(*batch, strict=True)
        scores = runtime.score(Features(np.concatenate(number), np.concatenate(category)))
        return list(scores)

    return score


async def microseconds(score: Score, row: Features, callers: int, requests: int) -> float:
    """Return wall microseconds a request with this many callers at once."""

    async def ask() -> None:
        for _ in range(requests // callers):
            await score(row)

    begin = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(callers)))
    return (time.perf_counter() - begin) / requests * 1e6


async def measure(runtime: Runtime, row: Features, requests: int) -> dict[int, dict[str, list[float]]]:
    """Measure both in turn, round by round."""
    found: dict[int, dict[str, list[float]]] = {}
    with ThreadPoolExecutor(1) as executor:
        ways = {"ours": ours(runtime, executor), "@serve.batch": serves(runtime)}
        for callers in CALLERS:
            found[callers] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, score in ways.items():
                    found[callers][name].append(await microseconds(score, row, callers, requests))
    return found


class Replica:
    """`@serve.batch` works in replicas alone, so both are measured in one."""

    def __init__(self, requests: int) -> None:
        self._requests = requests

    async def __call__(self, _: object) -> dict[int, dict[str, list[float]]]:
        """Measure with an untrained bundle, and answer with what was found."""
        with TemporaryDirectory() as folder:
            bundle = open_bundle(untrained.write(Path(folder)))
        number = np.zeros((1, len(bundle.plan.number)), np.float32)
        row = Features(number, np.full((1, len(bundle.plan.category)), UNSEEN_ID, np.int64))
        return await measure(bundle.runtime(), row, self._requests)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.batching")
    options = parsed(parser, quick="few requests")
    requests = 1000 if options.quick else REQUESTS
    cluster.connect()
    from ray import serve
    from ray.serve.config import HTTPOptions

    from benchmarks.serve import batching  # by name, so that replicas import it and nothing is pickled

    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=PORT))
    replica = serve.deployment(batching.Replica).options(max_ongoing_requests=MOST_ROWS)
    serve.run(replica.bind(requests), name="batching", route_prefix="/batching")
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/batching", timeout=300) as answer:
        found: dict[str, dict[str, list[float]]] = json.load(answer)
    lines = [
        "# batching",
        "",
        "Wall microseconds a request, the graph's share included, in one replica without HTTP; medians of "
        f"{ROUNDS} alternating rounds of {requests:,} requests.",
        "",
        "| callers | ours | `@serve.batch`, no wait | ratio (round by round) |",
        "| --- | --- | --- | --- |",
    ]
    for callers, ways in found.items():
        ratios = [theirs / mine for mine, theirs in zip(*ways.values(), strict=True)]
        mine, theirs = (statistics.median(times) for times in ways.values())
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        lines.append(f"| {callers} | {mine:.1f} | {theirs:.1f} | {spread} |")
    (options.results / "batching.md").write_text("\n".join(lines) + "\n")
    (options.results / "batching.json").write_text(json.dumps(found, indent=1))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
