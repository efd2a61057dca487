"""Search what the declaration leaves open; train what proves better, judge it, register the version; compare honestly."""

import argparse
from typing import TYPE_CHECKING

import yaml

from app.cluster import connect
from app.declaration import Declaration
from app.spec import Value
from app.tuning import Tuned, tune
from app.workspace import Workspace
from jobs.build import build_table
from jobs.command import main, parse_name
from jobs.told import figures, tell

if TYPE_CHECKING:
    from app.training.search.driver import Found


def run(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Search, or go on with a search that was stopped."""
    build_table(declaration)
    connect()
    found = tune(declaration, workspace, arguments.run, arguments.later)
    print(_found(found))
    print(_compared(found))
    tell(found.version)
    print(f"report: {found.report}")


def _found(tuned: Tuned) -> str:
    lines = _of_search("", tuned.found)
    if tuned.trees:
        lines += _of_search("LightGBM: ", tuned.trees)
    if tuned.settings:
        lines += ["to keep what was found, put this into the declaration:", _snippet(tuned.settings).rstrip()]
    return "\n".join(lines)


def _of_search(who: str, found: "Found") -> list[str]:
    """Say what a search came to, and how the best of its trials stand beside the declared settings."""
    lines = [f"{who}validation loss {found.best.loss:.4f} at best, {found.declared.loss:.4f} as declared"]
    if found.standings:
        lines.append(f"{who}again, on three stretches of days, each judged by models that learned from the others:")
    for one in found.standings:
        interval = f"between {one.low:+.4f} and {one.high:+.4f}"
        lines.append(
            f"  trial {one.number}: {one.difference:+.4f} beside the declared settings, {interval}"
            + (", proven better" if one.proven else "")
        )
    if found.chosen == found.declared:
        lines.append(f"{who}nothing is proven better than the declared settings: they are chosen")
    else:
        lines.append(f"{who}trial {found.chosen.number} is chosen")
    return lines


def _snippet(settings: dict[str, Value]) -> str:
    """Write settings as the declaration does."""
    whole: dict[str, object] = {}
    for place, value in settings.items():
        *above, key = place.split(".")
        within = whole
        for part in above:
            below = within.setdefault(part, {})
            assert isinstance(below, dict)
            within = below
        within[key] = float(f"{value:.3g}") if isinstance(value, float) else value
    text: str = yaml.safe_dump(whole, sort_keys=False)
    return text


def _compared(found: Tuned) -> str:
    return "\n".join([f"on {found.judged}:", *(f"  {name}: {figures(side)}" for name, side in found.sides.items())])


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--later", metavar="PATH", help="compare on this table of later rows, with labels")
    parser.add_argument(
        "--run",
        type=parse_name,
        help="name of this search; the same name again goes on with it (default: made from the data)",
    )


if __name__ == "__main__":
    main(run, __doc__ or "", _extend)
