"""From CPU seconds to ratios, targets met or not, a table and a plot."""

import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

TARGETS = {"fit": 0.5, "transform": 0.3}


def write(figures: dict[str, Any], folder: Path) -> None:
    """Write data.md and data.png."""
    seconds: dict[str, list[float]] = figures["cpu_seconds"]
    rows = figures["rows"]
    lines = [
        "# data",
        "",
        *(f"- {name}: {text}" for name, text in figures["machine"].items()),
        f"- table: {figures['source']}, {rows / 1e6:g} million rows of 20 numbers and 6 texts in Parquet",
        "",
        "Rows a CPU second of this process and all its workers; medians over alternating rounds, the smallest and the",
        "largest ratio of one round in brackets. Everybody works twice in a row and the second time counts: the first",
        "pays for memory that the one before gave back. Ours run through Ray Data, its own upkeep counted, and ours",
        "alone learn quantiles and take part by time; a warm cluster.",
        "",
        "| what | M rows a CPU second | M rows a second | of the bare scan | target |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, spent in seconds.items():
        ratios = [scan / mine for scan, mine in zip(seconds["scan"], spent, strict=True)]
        ratio = statistics.median(ratios)
        share = "1" if name == "scan" else f"{ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        target = f">= {TARGETS[name]}: {'met' if ratio >= TARGETS[name] else 'not met'}" if name in TARGETS else ""
        wall = statistics.median(figures["wall_seconds"][name])
        speed = rows / statistics.median(spent) / 1e6
        lines.append(f"| {name} | {speed:.2f} | {rows / wall / 1e6:.2f} | {share} | {target} |")
    memory: dict[str, dict[str, float]] = figures["peak_megabytes"]
    lines += [
        "",
        "Peak memory of all processes beyond what a warm cluster holds, shared memory counted once; medians of three clusters, each with\nan object store of 400 MB, which 4 million encoded rows fill one and a half times and 16 million six times:",
        "",
        "| rows | fit | transform |",
        "| --- | --- | --- |",
        *(
            f"| {int(size) / 1e6:g} M | {most['fit']:,.0f} MB | {most['transform']:,.0f} MB |"
            for size, most in memory.items()
        ),
        "",
        "![rows a CPU second](data.png)",
    ]
    (folder / "data.md").write_text("\n".join(lines) + "\n")
    _plot(seconds, rows, folder / "data.png")
    print("\n".join(lines))


def _plot(seconds: dict[str, list[float]], rows: int, path: Path) -> None:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    names = list(seconds)[::-1]
    colours = ["#bbbbbb" if "," in name or name == "scan" else "#3366aa" for name in names]
    axes.barh(names, [rows / statistics.median(seconds[name]) / 1e6 for name in names], color=colours)
    axes.set_xlabel("million rows a CPU second")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
