"""What work costs: CPU seconds of this process and all below it, workers included, and their memory at its peak."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

EVERY = 0.1  # seconds between two looks at memory


@dataclass(frozen=True)
class Cost:
    """CPU and wall seconds."""

    cpu: float
    wall: float


def _tree() -> list[psutil.Process]:
    here = psutil.Process()
    return [here, *here.children(recursive=True)]


def _cpu_seconds() -> dict[int, float]:
    seconds = {}
    for process in _tree():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds[process.pid] = times.user + times.system
    return seconds


def cost(work: Callable[[], object]) -> Cost:
    """Do the work, and count what all processes that are there afterwards spent on it."""
    before, begin = _cpu_seconds(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - begin, _cpu_seconds()
    return Cost(sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items()), wall)


def peak_megabytes(work: Callable[[], object]) -> float:
    """Do the work, and return the most memory all processes held at once beyond what they held before.

    Proportional set size: what processes share, such as the object store, counts once.
    """

    def held() -> int:
        total = 0
        for process in _tree():
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return total

    base = most = held()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(EVERY):
            most = max(most, held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return (most - base) / 1e6
