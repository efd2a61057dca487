"""What do those who ask notice of faults? Hosts, cables and the store fail under load: `python -m benchmarks.hosts.faults`.

A head and two workers are hosts of their own, each worker with a replica; the workspace is on an S3 server, GCS keeps
its state on RocksDB. Clients ask the HAProxy of one worker; each fault gets its window, with quiet ones between.
"""

import argparse
import datetime as dt
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.hosts.asking import Answered, Asking
from benchmarks.hosts.machines import Network
from benchmarks.hosts.servers import KEY, S3, SECRET, mlflow, running
from benchmarks.hosts.site import Site, started_site
from benchmarks.options import parsed
from benchmarks.serve.machine import describe

_PATIENCE = 120.0


@dataclass(frozen=True)
class Lengths:
    """How long things last (s): nothing between two faults, a head that is dead, a store that is away or slow, a cut cable."""

    quiet: float = 8.0
    dead: float = 10.0
    away: float = 60.0
    slow: float = 40.0
    cut: float = 20.0


QUICK = Lengths(2.0, 4.0, 8.0, 12.0, 8.0)


@dataclass(frozen=True)
class Window:
    """What the requests of a window had to wait (ms); `marks` are what happened in it, in seconds since its begin."""

    what: str
    begin: float
    end: float
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    marks: dict[str, float]


def until(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + _PATIENCE
    while not what():
        if time.monotonic() > end:
            raise TimeoutError("it never came")
        time.sleep(0.1)


class Course:
    """Windows, one after the other, under a load that goes on."""

    def __init__(self, site: Site, store: S3, asking: Asking, lengths: Lengths) -> None:
        self.site, self.store, self.asking, self.lengths = site, store, asking, lengths
        self.windows: list[Window] = []

    @contextmanager
    def window(self, what: str) -> Iterator[dict[str, float]]:
        """Sum up what was answered meanwhile, and what the block marks."""
        begin, marks = self.asking.now, dict[str, float]()
        yield marks
        end = self.asking.now
        asked = [one for one in self.asking.answered if begin <= one.at < end]
        latency = np.array([one.seconds for one in asked]) * 1e3
        p50, p99, most = (round(float(np.quantile(latency, q)), 1) for q in (0.5, 0.99, 1))
        failed = [one for one in asked if one.status != 200]
        print(*failed, sep="\n", file=sys.stderr)
        self.windows.append(Window(what, begin, end, len(asked), len(failed), p50, p99, most, marks))
        print(self.windows[-1], flush=True)

    def turns(self, marks: dict[str, float], since: float) -> None:
        """Mark when the drift actor has done its next step."""
        before = self._step()
        until(lambda: self._step() > before)
        marks["drift actor goes on"] = self.asking.now - since

    def replicas(self, marks: dict[str, float], since: float) -> None:
        """Mark when the host that comes and goes has a replica again."""
        try:
            until(lambda: "ServeReplica" in self.site.processes("spot"))
        except TimeoutError:
            print(self.site.cluster.shell(self.site.cluster.head, "serve", "status"))
            print(self.site.cluster.shell(self.site.cluster.head, "ray", "list", "actors"))
            print(self.site.cluster.shell(self.site.cluster.head, "ray", "status"))
            raise
        marks["replica is back"] = self.asking.now - since

    def run(self) -> None:
        """Let one thing after the other happen."""
        self.quiet()
        with self.window("head killed, and started again") as marks:
            since = self.asking.now
            self.site.cluster.head.kill()
            time.sleep(self.lengths.dead)
            self.site.cluster.start_head()
            marks["head is back"] = self.asking.now - since
            self.turns(marks, since)
        self.quiet()
        with self.window("worker's host killed, another started") as marks:
            since = self.asking.now
            self.site.kill_and_start("spot")
            marks["host is back"] = self.asking.now - since
            self.replicas(marks, since)
        self.quiet()
        with self.window(f"store away for {self.lengths.away:g} s") as marks:
            since = self.asking.now
            self.store.kill()
            time.sleep(self.lengths.away)
            self.store.start()
            marks["store is back"] = self.asking.now - since
            self.turns(marks, since)
        self.quiet()
        with self.window("store slow: it sleeps 9 of 10 s") as marks:
            since, end = self.asking.now, threading.Event()
            sleepy = threading.Thread(target=self._sleepy, args=(end,))
            sleepy.start()
            time.sleep(self.lengths.slow)
            self.turns(marks, since)
            end.set()
            sleepy.join()
        self.quiet()
        with self.window("cable of a worker cut") as marks:
            since = self.asking.now
            self.site.cluster.hosts["spot"].cut()
            time.sleep(self.lengths.cut)
            self.site.kill_and_start("spot")
            marks["host is back"] = self.asking.now - since
            self.replicas(marks, since)
        self.quiet()

    def quiet(self) -> None:
        """Let nothing happen."""
        with self.window("nothing"):
            time.sleep(self.lengths.quiet)

    def _sleepy(self, end: threading.Event) -> None:
        while not end.is_set():
            self.store.signal(signal.SIGSTOP)
            end.wait(9)
            self.store.signal(signal.SIGCONT)
            end.wait(1)

    def _step(self) -> int:
        return int(self.site.get("drift").get("step") or 0)


def measure(folder: Path, lengths: Lengths) -> Course:
    """Put everything up, and go through the course."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        os.environ.pop(name, None)
    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    with Network(folder) as network:
        (folder / "s3").mkdir()
        (folder / "mlflow").mkdir()
        store, registry = S3(folder / "s3", network.address), mlflow(folder / "mlflow", network.address)
        with running(store), running(registry):
            store.make_bucket()
            nodes = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
            where = store.uri("faults")
            site = started_site(folder, network, where, MLFLOW_TRACKING_URI=registry.origin, **nodes)
            light = ["--set", "train.num_workers=0"]
            print(site.submit("jobs.train", "rides.yaml", *light).result(seconds=300)[-300:])
            print(site.submit("jobs.deploy", "rides.yaml", *light).result(seconds=300)[-300:])
            with site.asking("lasting") as asking:
                course = Course(site, store, asking, lengths)
                course.run()
            return course


def page(windows: list[Window], answered: list[Answered]) -> str:
    """Return the page of results."""
    rows = []
    for one in windows:
        marks = "; ".join(f"{what} after {seconds:.0f} s" for what, seconds in one.marks.items())
        figures = f"{one.requests:,} | {one.failed} | {one.p50_ms:g} | {one.p99_ms:g} | {one.max_ms:,.0f}"
        rows.append(f"| {one.what} | {one.end - one.begin:.0f} s | {figures} | {marks} |")
    machine = "\n".join(f"- {name}: {text}" for name, text in describe({}).items() if name != "load from")
    failed = sum(one.status != 200 for one in answered)
    return f"""# Faults under load

`python -m benchmarks.hosts.faults`, {dt.date.today():%Y-%m-%d}. A head without CPUs for work and two workers, hosts of their own
on one machine (network, process and mount namespaces), two replicas; four clients ask one worker's HAProxy for one
row at a time. {len(answered):,} requests in all, **{failed} failed**.

| what happened | window | requests | failed | p50, ms | p99, ms | longest, ms | and |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
{chr(10).join(rows)}

![latency of every request, and what happened when](faults.png)

A request that was with a host when this died, or its cable was cut, is given to another replica; the longest waits are
those. A cluster's health checks are set to notice a dead host in about four seconds here (`benchmarks/hosts/site.py`);
Ray's own take 15 to 30, of which those who ask notice nothing: HAProxy finds out by itself. All hosts share the
machine's CPUs, so that starting Ray anew slows everybody.

{machine}
"""


def draw(windows: list[Window], answered: list[Answered]) -> Figure:
    """Draw every request's latency over time."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    at, took = np.array([(one.at, one.seconds * 1e3) for one in answered]).T
    axes.plot(at, took, ",", color="C0", rasterized=True)
    bad = np.array([(one.at, one.seconds * 1e3) for one in answered if one.status != 200]).reshape(-1, 2).T
    axes.plot(*bad, "x", color="C3", label=f"{bad.shape[1]} failed")
    for one in windows:
        if one.what != "nothing":
            axes.axvspan(one.begin, one.end, color="C1", alpha=0.15, linewidth=0)
            axes.text(one.begin, 0.02, f" {one.what}", rotation=90, fontsize=7, transform=axes.get_xaxis_transform())
    axes.set(yscale="log", xlabel="seconds", ylabel="latency, ms")
    axes.legend(loc="upper right", frameon=False)
    return figure


def main() -> int:
    """Measure, and write benchmarks/results/faults.{md,json,png}."""
    parser = argparse.ArgumentParser(description=__doc__)
    options = parsed(parser, quick="short faults")
    with tempfile.TemporaryDirectory(prefix="evertrue-bench-") as scratch:
        course = measure(Path(scratch), QUICK if options.quick else Lengths())
    answered = course.asking.answered
    (options.results / "faults.json").write_text(json.dumps([asdict(one) for one in course.windows], indent=1) + "\n")
    text = page(course.windows, answered)
    (options.results / "faults.md").write_text(text)
    draw(course.windows, answered).savefig(options.results / "faults.png", dpi=110)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
