"""From measurements to a table, a plot and targets met or not."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

TARGET = 0.9
_LOOPS = {"driver": "Evertrue, in the driver", "ray_train": "Evertrue, Ray Train with one worker"}


def write(results: dict[str, Any], folder: Path) -> None:
    """Write train.json, train.md and train.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "train.md").write_text(markdown(results))
    _plot(results).savefig(folder / "train.png", dpi=120)


def markdown(results: dict[str, Any]) -> str:
    """Return the report."""
    machine = "\n".join(f"- {name}: {value}" for name, value in results["machine"].items())
    quality = "\n".join(_quality(name, value) for name, value in results["quality"].items())
    return f"""# train

{machine}

## The loop: rows a second

{_speed(results["cpu"])}

Medians over rounds, the smallest and the largest ratio of one round in brackets. Same network, batch size and
threads, the contenders one after the other in every round. Only the training steps of
the median epoch count: the first one of a new process is slower.

## The loop on a GPU

{_speed(results["gpu"])}

## The learners: flights, learned from January and February

Means over the months of March to December, which nobody has seen. Everybody gets the same features and the same
validation rows. AutoGluon is installed with its boosted trees and forests, without its neural networks.

| learner | AUC | log-loss | seconds |
| --- | --- | --- | --- |
{quality}

![seconds and AUC](train.png)
"""


def _speed(lines: list[dict[str, float]] | str) -> str:
    if isinstance(lines, str):
        return lines
    table = ["| loop | rows/s | of the loop by hand | target |", "| --- | --- | --- | --- |"]
    table.append(f"| written by hand | {median(line['by_hand'] for line in lines):,.0f} | 1 | |")
    for key, name in _LOOPS.items():
        ratios = ratios_of(lines, key)
        met = "met" if median(ratios) >= TARGET else "**not met**"
        rate = median(line[key] for line in lines)
        spread = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        table.append(f"| {name} | {rate:,.0f} | {spread} | >= {TARGET:g}: {met} |")
    start = median(line["start_seconds"] for line in lines)
    return "\n".join([*table, "", f"Ray Train takes {start:.1f} s to start and end beside its loop."])


def ratios_of(lines: list[dict[str, float]], key: str) -> list[float]:
    """Return a loop's rows/s by those of the loop by hand, round by round."""
    return [line[key] / line["by_hand"] for line in lines]


def _quality(name: str, found: dict[str, float] | str) -> str:
    if isinstance(found, str):
        return f"| {name} | {found} | | |"
    return f"| {name} | {found['auc']:.4f} | {found['log_loss']:.4f} | {found['seconds']:.1f} |"


def _plot(results: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, found in results["quality"].items():
        if not isinstance(found, str):
            axes.plot(found["seconds"], found["auc"], "o")
            axes.annotate(name, (found["seconds"], found["auc"]), textcoords="offset points", xytext=(6, 4))
    axes.set(xscale="log", xlabel="seconds of learning", ylabel="AUC, mean of March to December")
    axes.margins(x=0.5, y=0.3)  # room for the names
    return figure
