"""Which retraining policy suits this table? Follow several through its history, with real trainings, and recommend one."""

import argparse
import datetime as dt
import json

from pydantic import TypeAdapter, ValidationError

from app.backtest.compare import plot, snippet, table, to_json
from app.backtest.run import backtest
from app.cluster import connect
from app.declaration import Declaration
from app.spec import Moment
from app.workspace import Workspace, join, write_bytes
from jobs.build import build_table
from jobs.command import main, parse_duration


def compare(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Compare the policies; a second run finds the trainings of the first."""
    build_table(declaration)
    connect()
    start = None if arguments.start is None else round(arguments.start.timestamp() * 1000)
    delay = round(arguments.delay.total_seconds() * 1000)
    found, courses = backtest(declaration, workspace, start, delay, arguments.policies)
    folder = workspace.uri(declaration.spec.name, "backtest")
    text = f"{table(found)}\n\n{found.rows:,} labelled rows of {found.days} days. Recommended: {found.recommended}.\n"
    write_bytes(join(folder, "backtest.md"), text.encode())
    write_bytes(join(folder, "backtest.png"), plot(found))
    write_bytes(join(folder, "backtest.json"), json.dumps(to_json(found, courses), indent=1).encode())
    print(f"\n{text}\n{snippet(found.retrain)}\n\nreport: {join(folder, 'backtest.md')}")


def _moment(text: str) -> dt.datetime:
    try:
        return TypeAdapter(Moment).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a date such as 2013-03-01") from None


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--start", type=_moment, help="when the first version begins to answer (default: after a fifth)"
    )
    parser.add_argument(
        "--delay",
        type=parse_duration,
        default=dt.timedelta(0),
        help="how long after its row a label is known (default: 0s)",
    )
    parser.add_argument("--policies", nargs="+", help="follow these alone, by the names in the table")


if __name__ == "__main__":
    main(compare, __doc__ or "", _extend)
