"""Train a version of the declared model, judge it, register it; what passes the gate becomes champion."""

import argparse

from app.cluster import connect
from app.declaration import Declaration
from app.pipeline import train_version
from app.workspace import Workspace
from jobs.build import build_table
from jobs.command import main, parse_name
from jobs.told import tell


def train(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Go the way of one row up to the registry."""
    build_table(declaration)
    connect()
    version = train_version(declaration, workspace, arguments.run)
    tell(version)


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        type=parse_name,
        help="name of this training; the same name again resumes it (default: made from the data)",
    )


if __name__ == "__main__":
    main(train, __doc__ or "", _extend)
