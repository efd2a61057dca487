"""Rows a second of our loop, in the driver and under Ray Train, beside the loop written by hand."""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from app.data.encode import Examples
from app.spec import Spec
from app.training.loader import Parts
from app.training.loop import new_network
from app.training.resources import cpu_count
from app.training.trainer import train
from app.workspace import Workspace
from benchmarks.train import by_hand
from benchmarks.train.rows import Rows, repeat


def measure(rows: Rows, device: torch.device, rounds: int, epochs: int, times: int) -> list[dict[str, Any]]:
    """Return one line a round, its contenders one after the other, after a first round that does not count.

    The training rows are taken `times` over; everybody has the same threads, batch size and network. Rows a
    second are those of the median epoch's training steps; `start_seconds` is what Ray Train takes beside its loop.
    """
    threads, use_gpu = cpu_count(), device.type == "cuda"
    train_rows = repeat(rows.parts.train, times)
    parts = Parts(train_rows, _first(rows.parts.validation))
    changes = {"epochs": epochs, "patience": epochs, "use_gpu": use_gpu, "cpus_per_worker": threads}
    alone = rows.spec.model_copy(update={"train": rows.spec.train.model_copy(update=changes | {"num_workers": 0})})
    by_ray = rows.spec.model_copy(update={"train": alone.train.model_copy(update={"num_workers": 1})})
    lines = []
    for turn in range(rounds + 1):
        torch.set_num_threads(threads)
        line: dict[str, Any] = {
            "by_hand": by_hand.rows_per_second(new_network(rows.plan, alone), train_rows, alone.train, device)
        }
        line["driver"], _ = _ours(rows, parts, alone)
        if turn:
            line["ray_train"], line["start_seconds"] = _ours(rows, parts, by_ray)
            lines.append(line)
            print("rows/s:", {name: round(value) for name, value in line.items()}, flush=True)
    return lines


def _ours(rows: Rows, parts: Parts, spec: Spec) -> tuple[float, float]:
    with TemporaryDirectory() as folder:
        trained = train(parts, rows.plan, spec, Workspace.open(str(Path(folder))), "benchmark")
    inside = sum(line["seconds"] + line["validation_seconds"] for line in trained.history)
    return median(line["rows_per_second"] for line in trained.history), trained.seconds - inside


def _first(examples: Examples, rows: int = 1000) -> Examples:
    """Return a few rows: validation is not what is measured."""
    features, *columns = examples
    target, time, position = (column[:rows] for column in columns)
    return Examples(features.rows(slice(0, rows)), target, time, position)
