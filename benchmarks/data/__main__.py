"""Measure fit and transform in turn with their peers: `python -m benchmarks.data [--quick] [--rows N] [--rounds N]`."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version

from app import cluster
from app.data.fit import fit
from benchmarks.data import contenders
from benchmarks.data.memory import CACHE, WORKS
from benchmarks.data.meter import cost
from benchmarks.data.report import write
from benchmarks.data.table import build
from benchmarks.options import parsed

MEMORY_ROWS = (4_000_000, 16_000_000)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write table, plot and raw figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000_000, help="rows to time (8 million)")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (3)")
    options = parsed(parser, "few rows", arguments)
    rows, sizes = (200_000, (100_000, 200_000)) if options.quick else (options.rows, MEMORY_ROWS)
    table = build(CACHE, rows)
    cluster.connect()
    import ray

    plan = fit(contenders.prepared(table), contenders.SPEC)  # also warms the workers
    contestants = {
        "scan": contenders.scan(table),
        "fit": contenders.our_fit(table),
        "fit, polars": contenders.polars_fit(table),
        "fit, DuckDB": contenders.duckdb_fit(table),
        "transform": contenders.our_transform(table, plan),
        "transform, polars": contenders.polars_transform(table, plan),
        "transform, DuckDB": contenders.duckdb_transform(table, plan),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    walls: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(options.rounds):
        for name, work in contestants.items():
            work()  # uncounted: after another's work the memory's pages come anew, which cost a scan three times itself
            spent = cost(work)
            seconds[name].append(spent.cpu)
            walls[name].append(spent.wall)
            print(f"round {number + 1}  {name:<18} {rows / spent.cpu / 1e6:6.2f} M rows a CPU second", flush=True)
    ray.shutdown()
    memory = {size: _memory(size) for size in sizes}
    for size, found in memory.items():
        print(f"{size / 1e6:g} M rows:", *(f"{name} {most:,.0f} MB" for name, most in found.items()), flush=True)
    figures = {
        "machine": {
            "processor": f"{os.cpu_count()} cores, {platform.machine()}",
            "versions": ", ".join(f"{name} {version(name)}" for name in ("ray", "pyarrow", "polars", "duckdb")),
        },
        "source": table.source,
        "rows": rows,
        "cpu_seconds": seconds,
        "wall_seconds": walls,
        "peak_megabytes": {str(size): found for size, found in memory.items()},
    }
    (options.results / "data.json").write_text(json.dumps(figures, indent=1))
    write(figures, options.results)


def _memory(rows: int) -> dict[str, float]:
    """Return the peak of each of ours: the median of three clusters, for workers give memory back when they like."""
    command = [sys.executable, "-m", "benchmarks.data.memory", str(rows)]

    def peak(name: str) -> float:
        return float(subprocess.run([*command, name], capture_output=True, text=True, check=True).stdout.split()[-1])

    return {name: statistics.median(peak(name) for _ in range(3)) for name in WORKS}


if __name__ == "__main__":
    main()
