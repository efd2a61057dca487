"""What one value costs, ours and the peers' in turn, and how many bytes are kept to judge it by."""

import json
import time
from statistics import median

import numpy as np

from benchmarks.drift import classic, ours, peers
from benchmarks.drift.cases import Case, Counted, Store
from benchmarks.drift.streams import World

DAYS = 10


def measure(store: Store, case: Case, rounds: int, names: list[str]) -> dict[str, dict[str, float]]:
    """Return by contender nanoseconds a value of a feature (`ns`: median over rounds) and, of ours, bytes.

    A value is one cell of a row's 26 features; components, distance and prediction come on top, and are
    included. Peers look at one column at a time, ours at all.
    """
    reference, mean_loss = store.reference(case)
    counted = store.counted(case)
    few = Counted(counted.start[: 24 * DAYS], counted.counts[: 24 * DAYS], counted.time[:0], counted.loss[:0])
    days = list(World(case.process).days(case.reference, case.reference + DAYS))
    columns = len(reference.binning.numbers) + len(reference.binning.categories)
    values = columns * sum(len(day.time) for day in days)
    random = np.random.default_rng(0)
    sample = random.normal(size=classic.SAMPLE).astype(np.float32)
    chunks = random.normal(size=(DAYS, 4_800)).astype(np.float32)
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        begin = time.perf_counter()
        for day in days:
            for start in range(0, len(day.time), 200):
                piece = slice(start, start + 200)
                reference.binning.count(day.features.rows(piece), day.score[piece])
        seconds.setdefault("ours: counting", []).append((time.perf_counter() - begin) / values * 1e9)
        begin = time.perf_counter()
        ours.alarms(reference, mean_loss, few)
        seconds.setdefault("ours: detectors", []).append((time.perf_counter() - begin) / values * 1e9)
        for name, method in classic.METHODS.items():
            statistic = method(sample)
            begin = time.perf_counter()
            for chunk in chunks:
                statistic(chunk)
            seconds.setdefault(name, []).append((time.perf_counter() - begin) / chunks.size * 1e9)
        for name in names:
            for method_name, cost in json.loads(peers.run(name, "--cost", "48000")).items():
                seconds.setdefault(method_name, []).append(cost)
    found = {name: {"ns": median(costs)} for name, costs in seconds.items()}
    found["ours: counting"]["bytes"] = float(counted.counts[0].size * 4)
    found["ours: detectors"]["bytes"] = float(ours.state_bytes(reference))
    for name in classic.METHODS:
        found[name]["bytes"] = float(columns * 2 * sample.nbytes)
    return found
