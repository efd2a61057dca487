"""From raw measurements to medians, ratios, targets met or not, a table and a plot."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.serve.bulk import ROWS
from benchmarks.serve.peers import PEERS

Raw = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """Median of the rounds, between the smallest and the largest."""

    middle: float
    low: float
    high: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        """Summarise one value a round."""
        return Spread(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Target:
    """What the endpoint promises: `value` against the `limit`, at least or at most."""

    what: str
    value: Spread
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """The median keeps the promise."""
        return self.value.middle <= self.limit if self.at_most else self.value.middle >= self.limit

    def row(self) -> str:
        """Return the Markdown row."""
        sign = "<=" if self.at_most else ">="
        return f"| {self.what} | {sign} {self.limit:g} | {self.value} | {'met' if self.met else '**not met**'} |"


class Results:
    """The raw measurements, asked by server, connections and round."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.servers = [name for name in PEERS if any(load["server"] == name for load in raw["loads"])]
        self.connections: list[int] = sorted({load["connections"] for load in raw["loads"]})
        self.rounds: list[int] = sorted({load["round"] for load in raw["loads"]})
        self._loads = {(load["server"], load["connections"], load["round"]): load for load in raw["loads"]}

    def values(self, server: str, connections: int, figure: str) -> list[float]:
        """Return `figure` of every round. A server that failed in one has none."""
        loads = [self._loads[server, connections, number] for number in self.rounds]
        return [] if any(load["failed"] for load in loads) else [load[figure] for load in loads]

    def ratio(self, server: str, other: str, connections: int, figure: str = "per_second") -> Spread | None:
        """Return the ratio round by round; None when one of both was not measured or failed."""
        if server not in self.servers or other not in self.servers:
            return None
        ours, theirs = (self.values(name, connections, figure) for name in (server, other))
        if not ours or not theirs:
            return None
        return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])

    def bulk(self, way: str) -> list[float]:
        """Return the rows per second of every round."""
        return [bulk["rows_per_second"] for bulk in self.raw["bulk"] if bulk["way"] == way]

    def targets(self) -> list[Target]:
        """Return every promise that this run can judge."""
        wanted = [
            (f"requests/s of {PEERS[peer].title}'s, {connections} connections", peer, connections, limit)
            for peer, limit in (("fastapi", 1.25), ("litserve", 5.0), ("bentoml", 6.0), ("asgi", 0.4))
            for connections in (16, 64)
        ]
        targets = [
            Target(what, ratio, limit)
            for what, peer, connections, limit in wanted
            if (ratio := self.ratio("ours", peer, connections)) is not None
        ]
        if (ratio := self.ratio("ours", "fastapi", 1, "p50_ms")) is not None:
            targets.append(Target("median latency of FastAPI's, 1 connection", ratio, 2.0, at_most=True))
        if bare := self.bulk("bare model"):
            share = [a / b for a, b in zip(self.bulk("Arrow stream"), bare, strict=True)]
            targets.append(Target(f"rows/s of the bare model's, Arrow of {ROWS:,} rows", Spread.of(share), 0.8))
        return targets


def write(raw: Raw, folder: Path) -> list[Path]:
    """Write serve.json, serve.md and serve.png into `folder`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(raw)
    paths = [folder / f"serve.{suffix}" for suffix in ("json", "md", "png")]
    paths[0].write_text(json.dumps(raw, indent=1) + "\n")
    paths[1].write_text(markdown(results))
    plot(results).savefig(paths[2], dpi=120)
    return paths


def markdown(results: Results) -> str:
    """Return the whole report."""
    raw = results.raw
    lines = ["# Serving beside its peers", "", *(f"- {name}: {value}" for name, value in raw["machine"].items())]
    lines += [f"- {name}: {value}" for name, value in raw["settings"].items()]
    lines += ["", "## Single rows: requests per second, median of the rounds (smallest-largest)", ""]
    lines += _table(results, "per_second", "{:,.0f}")
    for figure, title in (("p50_ms", "Median latency"), ("p99_ms", "99th percentile of latency")):
        lines += ["", f"## {title}, ms", "", *_table(results, figure, "{:.2f}")]
    if "ours" in results.servers and len(results.servers) > 1:
        lines += ["", "## Evertrue's requests per second as a ratio, round by round", ""]
        lines += [_header("against", results.connections)]
        for peer in results.servers:
            if peer != "ours":
                ratios = [results.ratio("ours", peer, connections) for connections in results.connections]
                lines += [f"| {PEERS[peer].title} | " + " | ".join(str(ratio or "failed") for ratio in ratios) + " |"]
    if raw["bulk"]:
        lines += ["", f"## Bodies of {ROWS:,} rows through Evertrue", "", "| way | rows/s | of the bare model |"]
        lines += ["| --- | --- | --- |"]
        bare = results.bulk("bare model")
        for way in dict.fromkeys(bulk["way"] for bulk in raw["bulk"]):
            share = Spread.of([a / b for a, b in zip(results.bulk(way), bare, strict=True)])
            lines += [f"| {way} | {median(results.bulk(way)):,.0f} | {share} |"]
    if targets := results.targets():
        lines += ["", "## Targets", "", "| what | target | found | |", "| --- | --- | --- | --- |"]
        lines += [target.row() for target in targets]
    return "\n".join([*lines, "", "![requests per second](serve.png)", ""])


def _header(first: str, connections: list[int]) -> str:
    titles = " | ".join(f"{count} connection{'s' if count > 1 else ''}" for count in connections)
    return f"| {first} | {titles} |\n| --- |{' --- |' * len(connections)}"


def _table(results: Results, figure: str, form: str) -> list[str]:
    lines = [_header("server", results.connections)]
    for server in results.servers:
        cells = []
        for connections in results.connections:
            values = results.values(server, connections, figure)
            spread = Spread.of(values) if values else None
            cells.append(
                f"{form.format(spread.middle)} ({form.format(spread.low)}-{form.format(spread.high)})"
                if spread
                else f"failed: {_why(results, server, connections)}"
            )
        lines.append(f"| {PEERS[server].title} | {' | '.join(cells)} |")
    return lines


def _why(results: Results, server: str, connections: int) -> str:
    loads = [x for x in results.raw["loads"] if (x["server"], x["connections"]) == (server, connections)]
    refused, broken, requests = (sum(load[key] for load in loads) for key in ("refused", "broken", "requests"))
    return f"{refused:,} refused and {broken:,} broken of {requests:,}"


def plot(results: Results) -> Figure:
    """Return bars of requests per second: one group a number of connections, one colour a server."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(PEERS, matplotlib.colormaps["tab10"].colors, strict=False))  # a server's own in every run
    width = 0.8 / len(results.servers)
    for i, server in enumerate(results.servers):
        for j, connections in enumerate(results.connections):
            values = results.values(server, connections, "per_second")
            if not values:
                continue
            spread = Spread.of(values)
            place = j - 0.4 + width * (i + 0.5)
            error = [[spread.middle - spread.low], [spread.high - spread.middle]]
            axes.bar(place, spread.middle, width * 0.95, color=colours[server], yerr=error, ecolor="0.3", capsize=2)
            axes.annotate(
                f"{spread.middle:,.0f}",
                (place, spread.high),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.bar(0, 0, color=colours[server], label=PEERS[server].title)
    axes.set_xticks(range(len(results.connections)), [f"{count}" for count in results.connections])
    axes.set_xlabel("connections")
    axes.set_ylabel("requests per second (log)")
    axes.set_yscale("log")
    axes.set_title("Single-row JSON requests per second: median, smallest and largest round")
    axes.legend(ncols=len(results.servers), loc="upper left", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.15)
    return figure
