"""Read the declared table, check every row, set aside what breaks the contract, and say what was found."""

import argparse

from app.cluster import connect
from app.data.prepare import prepare
from app.declaration import Declaration
from app.workspace import Workspace
from jobs.build import build_table
from jobs.command import main


def prepare_table(declaration: Declaration, workspace: Workspace, _: argparse.Namespace) -> None:
    """Prepare, and print the counts."""
    build_table(declaration)
    connect()
    prepared = prepare(declaration, workspace)
    print(f"{prepared.rows:,} rows kept, {sum(prepared.quarantined.values()):,} in quarantine")
    for reason, count in sorted(prepared.quarantined.items(), key=lambda item: -item[1]):
        print(f"  {count:>12,}  {reason}")
    if prepared.quarantined:
        print(f"quarantine: {prepared.quarantine}")


if __name__ == "__main__":
    main(prepare_table, __doc__ or "")
