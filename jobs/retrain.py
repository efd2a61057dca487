"""Train the declared service anew, with what it has answered since and was told the truth of; judge it, register it."""

import argparse

from app.cluster import connect
from app.declaration import Declaration
from app.retraining import from_journal, retrain_version
from app.workspace import Workspace
from jobs.command import main, parse_name


def retrain(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Make a challenger; the outcome lies beside the rows it rests on."""
    connect()
    export = from_journal(workspace, declaration.spec)
    outcome = retrain_version(
        declaration, workspace, arguments.decision, arguments.reason, arguments.until, export, arguments.attempt
    )
    print(f"version {outcome.version}: {outcome.bundle}")
    print("passed the gate:" if outcome.passed else "refused by the gate:")
    for reason in outcome.reasons:
        print(f"  {reason}")
    print(f"{outcome.cpu_seconds:.1f} CPU seconds")


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decision",
        required=True,
        type=parse_name,
        help="id of the decision; the same again resumes it, or finds its outcome",
    )
    parser.add_argument("--reason", required=True, help="why, in words; stays with the version")
    parser.add_argument(
        "--until", type=int, help="event time, in ms since 1970, of the newest rows to know (default: all)"
    )
    parser.add_argument("--attempt", type=int, default=1, help="which attempt at the decision this is (default: 1)")


if __name__ == "__main__":
    main(retrain, __doc__ or "", _extend)
