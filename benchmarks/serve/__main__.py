"""Measure the endpoint and its peers in turn: `python -m benchmarks.serve [--quick] [--peers ours,fastapi,...]`."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.types import UserError
from benchmarks.options import parsed
from benchmarks.serve import bulk, load, machine, report, untrained
from benchmarks.serve.peers import PEERS, Peer
from benchmarks.serve.process import serving
from benchmarks.serve.sample import draw, json_rows
from benchmarks.serve.verify import verify
from benchmarks.serve.work import Work

CONNECTIONS = (1, 16, 64)
BODIES = 256


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    options = _options(arguments)
    try:
        load.find_wrk()
        with tempfile.TemporaryDirectory(prefix="evertrue-bench-") as scratch:
            raw = _measure(options, Path(scratch))
        paths = report.write(raw, options.results)
    except UserError as error:
        print(f"benchmarks.serve: {error}", file=sys.stderr)
        return 1
    print(paths[1].read_text())
    print("written:", *paths)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--seconds", type=float, help="length of one measurement (6; 2 with --quick)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all servers (3)")
    parser.add_argument("--peers", type=_peers, default=list(PEERS.values()), help=f"of {','.join(PEERS)} (all)")
    parser.add_argument("--bundle", help="a bundle's URI; left out: an untrained network over 27 features")
    options = parsed(parser, "two seconds a measurement", arguments)
    options.seconds = options.seconds or (2.0 if options.quick else 6.0)
    return options


def _peers(text: str) -> list[Peer]:
    names = text.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"found {unknown}, allowed {list(PEERS)}")
    return [peer for name, peer in PEERS.items() if name in names]


def _measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    pythons = {peer: peer.python() for peer in options.peers}
    uri = options.bundle or untrained.write(scratch)
    work = Work.open(uri)
    table = draw(work.plan, BODIES)
    many = draw(work.plan, bulk.ROWS, seed=1)
    rows = [json_rows([row]) for row in table.to_pylist()]
    bodies = scratch / "bodies.jsonl"
    bodies.write_bytes(b"\n".join(rows) + b"\n")
    loads: list[dict[str, Any]] = []
    bulks: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for peer, python in pythons.items():
            with serving(peer, python, uri, rows[0], scratch / f"{peer.name}.log") as port:
                verify(peer, port, work, table.slice(0, 32))
                url = f"http://127.0.0.1:{port}{peer.path}"
                load.run(url, bodies, max(CONNECTIONS), 1)  # warm-up, not kept
                for connections in CONNECTIONS:
                    found = load.run(url, bodies, connections, options.seconds)
                    loads.append({"round": number, "server": peer.name} | found.dump())
                    print(_line(number, peer, found), flush=True)
                if peer.name == "ours":
                    ways = bulk.measure(port, peer.path, work, many, options.seconds)
                    bulks += [{"round": number} | way.dump() for way in ways]
    settings = {
        "rounds": f"{options.rounds}, every server in turn, alone, started anew each time",
        "measurement": f"{options.seconds:g} s each, after 1 s of warm-up",
        "row": f"{len(work.plan.number)} numbers, {len(work.plan.category)} categories, {len(rows[0])} bytes of JSON",
        "model": f"{'untrained' if options.bundle is None else 'trained'} bundle {work.name}",
    }
    return {"machine": machine.describe(pythons), "settings": settings, "loads": loads, "bulk": bulks}


def _line(number: int, peer: Peer, found: load.Load) -> str:
    failed = f"  FAILED: {found.refused} refused, {found.broken} broken" if found.failed else ""
    return (
        f"round {number + 1}  {peer.title:18} {found.connections:3} connections {found.per_second:9,.0f} requests/s"
        f"  p50 {found.p50_ms:7.2f} ms  p99 {found.p99_ms:7.2f} ms{failed}"
    )


if __name__ == "__main__":
    sys.exit(main())
