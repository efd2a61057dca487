"""Search side by side: `python -m benchmarks.search [--quick] [--rounds 3] [--seconds 120] [--without AutoGluon]`."""

import argparse
import importlib.metadata
import os
import platform
from dataclasses import replace
from typing import Any

import optuna

from app.cluster import connect
from app.training.resources import cpu_count
from app.training.search.days import with_drawn_days
from app.types import UserError
from benchmarks.options import parsed
from benchmarks.search import report
from benchmarks.search.contenders import CONTENDERS, Contender, trained
from benchmarks.train.quality import over_months
from benchmarks.train.rows import Rows, flights

_PACKAGES = ("ray", "optuna", "torch", "lightgbm")


def main() -> None:
    """Measure, write the results, and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each with another seed (3)")
    parser.add_argument("--seconds", type=int, default=120, help="what each contender gets in a round (120)")
    parser.add_argument("--without", choices=CONTENDERS, action="append", default=[], help="leave one out")
    options = parsed(parser, quick="one round of 20 s, no AutoGluon")
    rounds, seconds = (1, 20) if options.quick else (options.rounds, options.seconds)
    without = {*options.without, *(["AutoGluon"] if options.quick else [])}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    connect(cpu_count())
    import ray  # after its environment is set

    try:
        rows = flights()
        rows = replace(rows, parts=with_drawn_days(rows.parts, rows.spec.tune.validation_days, seed=0))
        declared = over_months(rows, trained(rows, {}))
        lines = []
        for seed in range(rounds):
            order = [*CONTENDERS] if seed % 2 == 0 else [*reversed(CONTENDERS)]
            line = {name: _run(CONTENDERS[name], name in without, rows, seconds, seed) for name in order}
            lines.append({name: line[name] for name in CONTENDERS})
            print({name: found if isinstance(found, str) else found["log_loss"] for name, found in line.items()})
    finally:
        ray.shutdown()
    report.write({"machine": _machine(), "seconds": seconds, "declared": declared, "rounds": lines}, options.results)
    print((options.results / "search.md").read_text())


def _run(contender: Contender, left_out: bool, rows: Rows, seconds: int, seed: int) -> dict[str, Any] | str:
    if left_out:
        return "not run: left out"
    try:
        found = contender(rows, seconds, seed)
    except UserError as reason:
        return f"not run: {reason}"
    figures = {"reached": found.reached, "trials": found.trials, "seconds": round(found.seconds, 1)}
    return figures | over_months(rows, found.scores)


def _machine() -> dict[str, str]:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": f"Python {platform.python_version()}, {packages}",
    }


if __name__ == "__main__":
    main()
