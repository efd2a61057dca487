"""Do false alarms keep to the budget, and who sees drift soonest at equal false alarms? Ours and peers, on known streams.

    python -m benchmarks.drift [--quick] [--seeds 10] [--jobs 1] [--seconds N] [--peers river,nannyml,evidently,classic]

Streams and verdicts are kept under build/drift, so that a run that was ended (or that ends itself after
`--seconds`, to be gone on with by the next) begins where it stopped.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import scipy

from app.types import UserError
from benchmarks.drift import cost, ours, peers
from benchmarks.drift.cases import Case, Store, changing, quiet
from benchmarks.drift.report import Findings, write
from benchmarks.options import parsed
from benchmarks.serve.environments import ROOT, python_of, versions

PEERS = (*peers.ENVIRONMENTS, "classic")


def main() -> int:
    """Draw, watch, measure, and write drift.{json,md,png}; return 3 when there was no time for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time; run again to go on")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated (all)")
    parser.add_argument("--seeds", type=int, default=10, help="streams for every change (10)")
    parser.add_argument("--jobs", type=int, default=1, help="streams drawn and watched at once (1)")
    options = parsed(parser, quick="two months for a year, two seeds")
    until = time.time() + options.seconds
    store = Store(ROOT / "build" / "drift" / ("quick" if options.quick else "full"))
    still, moving = (
        quiet(60 if options.quick else 365, options.quick),
        changing(2 if options.quick else options.seeds),
    )
    cases = still + moving
    with ProcessPoolExecutor(options.jobs) as pool:
        if not all(pool.map(_watch, repeat(store), _by_world(cases), repeat(until))):
            print("run again to go on")
            return 3
    alarms = {case.name: ours.watch(store, case) for case in cases}
    watched, missing = [], {}
    for peer in options.peers.split(","):
        if time.time() > until:
            print(f"{peer} has not been asked: run again to go on")
            return 3
        try:
            watched += _asked(peer, store, cases)
        except UserError as error:
            missing[peer] = str(error)
            print(f"{peer} is left out: {error}", file=sys.stderr)
    asked = [name for name in options.peers.split(",") if name in peers.ENVIRONMENTS and name not in missing]
    costs = cost.measure(store, still[0], 1 if options.quick else 5, asked)
    machine = _machine() | {name: _version(name) for name in asked}
    write(Findings(machine, cases, alarms, watched, costs, missing), options.results)
    print((options.results / "drift.md").read_text())
    return 0


def _by_world(cases: list[Case]) -> list[list[Case]]:
    """Return cases together that share a reference, which one process then learns once."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[case.home].append(case)
    return list(found.values())


def _watch(store: Store, cases: list[Case], until: float) -> bool:
    """Watch cases as long as there is time; return whether there was enough."""
    for case in cases:
        if time.time() > until:
            return False
        ours.watch(store, case)
    return True


def _asked(peer: str, store: Store, cases: list[Case]) -> list[peers.Watched]:
    """Return what a peer says, and keep it for as long as neither cases nor the peer's code change."""
    code = b"".join(path.read_bytes() for path in Path(__file__).parent.glob("*.py") if path.stem in _SAYING[peer])
    digest = hashlib.sha256(code + repr(cases).encode()).hexdigest()[:8]
    path = store.folder / f"{peer}.{digest}.json"
    if not path.exists():
        begin = time.monotonic()
        found = peers.ask(peer, store.folder, cases)
        path.write_text(json.dumps([vars(item) for item in found]))
        print(f"{peer}: {time.monotonic() - begin:.0f} s", flush=True)
    return [peers.Watched(**item) for item in json.loads(path.read_text())]


_SAYING = {peer: {"streams", "cases", "peers", f"{peer}_peer", peer} for peer in PEERS}


def _machine() -> dict[str, str]:
    return {
        "processor": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}",
    }


def _version(peer: str) -> str:
    found = versions(python_of(peer, Path(__file__).parent), (peer, "numpy"))
    return ", ".join(f"{name} {version}" for name, version in found.items())


if __name__ == "__main__":
    sys.exit(main())
