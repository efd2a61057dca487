"""Make a smaller, faster version of the declared model: taught, pruned and quantised; what passes the gate may serve."""

import argparse

from app.cluster import connect
from app.compression import Compressed, compress
from app.declaration import Declaration
from app.model.contents import Variant
from app.model.runtime import Runtime
from app.pipeline import later_rows, settle
from app.training.resources import cpu_count
from app.workspace import Workspace
from jobs.build import build_table
from jobs.command import main, parse_name
from jobs.told import figures, tell


def run(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Try every declared way, show them beside each other, and register the one that the limits choose."""
    build_table(declaration)
    connect()
    found = compress(declaration, workspace, arguments.run)
    print(_table(found))
    version = settle(declaration.spec, workspace, found.version)  # before what may fail: a wrong path changes nothing
    if arguments.later:
        print(_later(declaration, workspace, arguments.later, found))
    tell(version)
    print(f"report: {found.report}")


def _table(found: Compressed) -> str:
    widest = max(len(one.name) for one in found.variants)
    lines = [f"{'':{widest}}  {'loss':>8}  {'kB':>8}  {'µs a row':>8}"]
    lines += [_line(one, widest, one.name == found.chosen) for one in found.variants]
    return "\n".join(lines)


def _line(one: Variant, widest: int, chosen: bool) -> str:
    figures = f"{one.loss:8.4f}  {one.size / 1e3:8,.0f}  {one.latency * 1e6:8.1f}"
    return f"{one.name:{widest}}  {figures}  {'chosen' if chosen else one.refused or ''}".rstrip()


def _later(declaration: Declaration, workspace: Workspace, source: str, found: Compressed) -> str:
    """Say how the large network and what was made of it do on later rows."""
    plan = found.version.contents.plan
    rows = later_rows(declaration, workspace, source, plan)
    shown = [name for name in ("teacher", "large") if name in found.graphs] + [found.chosen]
    lines = ["on later rows:"]
    for name in shown:
        evaluation = rows.evaluate(
            Runtime(found.graphs[name], plan, threads=cpu_count()).score(rows.examples.features)
        )
        lines.append(f"  {name}: {figures(evaluation)}")
    return "\n".join(lines)


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--later", metavar="PATH", help="also judge them on this table of later rows, with labels")
    parser.add_argument(
        "--run",
        type=parse_name,
        help="name of this compression; the same name again resumes it (default: made from the data)",
    )


if __name__ == "__main__":
    main(run, __doc__ or "", _extend)
