"""From what each search reached to a table and a plot."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.search.contenders import CONTENDERS

_SHARES = (0.25, 0.5, 1.0)


def write(results: dict[str, Any], folder: Path) -> None:
    """Write search.json, search.md and search.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "search.md").write_text(markdown(results))
    _plot(results).savefig(folder / "search.png", dpi=120)


def markdown(results: dict[str, Any]) -> str:
    """Return the report."""
    machine = "\n".join(f"- {name}: {value}" for name, value in results["machine"].items())
    seconds, rounds = results["seconds"], len(results["rounds"])
    head = " | ".join(f"after {share * seconds:.0f} s" for share in _SHARES)
    table = [f"| | {head} | trials | log-loss, later months | AUC, later months |", "| --- " * 7 + "|"]
    table += [_line(name, results) for name in CONTENDERS]
    declared = results["declared"]
    table.append(f"| no search: as declared | | | | - | {declared['log_loss']:.4f} | {declared['auc']:.4f} |")
    return f"""# search

{machine}

The flights of January and February; whole days drawn at random and the newest ones validate. Each has {seconds} s, the
contenders one after the other in every round, {rounds} rounds with other seeds. The first three search the same space of
the same network, from the same declared settings; Optuna and we also end hopeless trials by halving. AutoGluon searches
what it likes, without its neural networks.

## Least validation log-loss known

{chr(10).join(table)}

Medians over the rounds, the smallest and largest in brackets. *Later months*: what was found, trained on the same rows
and scored on March to December, which nobody has seen; means over the months. Validation losses are what was chosen
by, so that who tries more looks better there than he is. That is why `jobs.tune` lets its best trials meet the declared
settings again before it believes them (`tune.finalists`); that takes more time, and is left out here.

![least validation loss over time](search.png)
"""


def reached_by(reached: Sequence[tuple[float, float]], seconds: float) -> float:
    """Return the least loss known by then; infinity before the first.

    >>> reached_by([(1.0, 0.5), (3.0, 0.4)], 2.0)
    0.5
    """
    return min((loss for at, loss in reached if at <= seconds), default=float("inf"))


def _line(name: str, results: dict[str, Any]) -> str:
    runs = [line[name] for line in results["rounds"]]
    failed = next((run for run in runs if isinstance(run, str)), None)
    if failed is not None:
        return f"| {name} | {failed} | | | | | |"
    known = [_spread([reached_by(run["reached"], share * results["seconds"]) for run in runs]) for share in _SHARES]
    trials = "-" if runs[0]["trials"] is None else f"{median(run['trials'] for run in runs):.0f}"
    later = [_spread([run[figure] for run in runs]) for figure in ("log_loss", "auc")]
    return f"| {name} | {' | '.join([*known, trials, *later])} |"


def _spread(values: list[float]) -> str:
    if not np.isfinite(values).all():
        return "nothing yet"
    return f"{median(values):.4f} ({min(values):.4f}-{max(values):.4f})"


def _plot(results: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    ends = []
    for i, name in enumerate(CONTENDERS):
        for turn, line in enumerate(results["rounds"]):
            if isinstance(line[name], str):
                continue
            at, losses = zip(*line[name]["reached"], strict=True)
            axes.step(
                [*at, max(results["seconds"], at[-1])],
                [*losses, losses[-1]],
                where="post",
                color=f"C{i}",
                alpha=0.8,
                label=None if turn else name,
            )
            ends.append(losses[-1])
    low = min(ends, default=0.0)
    axes.set(xlabel="seconds", ylabel="least validation log-loss", xlim=(0, results["seconds"] * 1.05))
    axes.set_ylim(low - 0.0005, low + 0.012)
    axes.legend(frameon=False)
    return figure
