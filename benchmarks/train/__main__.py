"""Train side by side: `python -m benchmarks.train [--quick] [--rounds 5] [--repeat 30] [--autogluon-seconds 45]`."""

import argparse
import importlib.metadata
import os
import platform

import torch

from app.cluster import connect
from app.training.resources import cpu_count
from benchmarks.options import parsed
from benchmarks.train import quality, report, speed
from benchmarks.train.rows import flights

_PACKAGES = ("torch", "ray", "lightgbm", "scikit-learn")


def main() -> None:
    """Measure, write the results, and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the loops (5)")
    parser.add_argument("--repeat", type=int, default=30, help="on a GPU: how often the rows are repeated (30)")
    parser.add_argument("--autogluon-seconds", type=int, default=45, help="AutoGluon's time; 0 leaves it out (45)")
    options = parsed(parser, quick="one short round, no AutoGluon")
    rounds, epochs = (1, 2) if options.quick else (options.rounds, 5)
    connect(cpu_count())
    import ray  # after its environment is set

    try:
        rows = flights()
        cpu = speed.measure(rows, torch.device("cpu"), rounds, epochs, times=1)
        gpu: object = "not run: torch finds no CUDA device here"
        if torch.cuda.is_available():
            gpu = speed.measure(rows, torch.device("cuda"), rounds, epochs, options.repeat)
        learners = quality.measure(rows, 0 if options.quick else options.autogluon_seconds)
    finally:
        ray.shutdown()
    results = {"machine": _machine(), "cpu": cpu, "gpu": gpu, "quality": learners}
    report.write(results, options.results)
    print((options.results / "train.md").read_text())


def _machine() -> dict[str, str]:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, GPU: {gpu}",
        "versions": f"Python {platform.python_version()}, {packages}",
    }


if __name__ == "__main__":
    main()
