"""Start, stop or show the drift actor of a declaration; or make its decisions again and say what differs."""

import argparse
import sys

from app.cluster import connect
from app.declaration import Declaration
from app.types import UserError
from app.workspace import Workspace
from jobs.command import main


def monitor(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Do what was asked, and say how the actor is."""
    if arguments.verify:
        verify(declaration, workspace)
        return
    connect()
    from app.decisions import actor

    name = declaration.spec.name
    if arguments.stop:
        print(f"the drift actor of {name} {'has ended' if actor.stop(name) else 'was not running'}")
        return
    if arguments.start:
        actor.start(declaration, workspace)
    facts = actor.show(name)
    if facts is None:
        print(f"the drift actor of {name} is not running; --start starts it")
        return
    print(f"the drift actor of {name} runs as process {facts['pid']}, {facts['turns']:,} turns so far")
    if facts["error"]:
        print(f"its last turn failed: {facts['error']}")


def verify(declaration: Declaration, workspace: Workspace) -> None:
    """Make every decision again from journal and ledger; exit with 1 where one differs.

    Raises UserError where there is none: a workspace that was mistyped must not pass for one that is right.
    """
    from app.decisions.actor import furnish
    from app.decisions.recompute import recompute

    rooms = furnish(declaration, workspace, webhook=None)
    entries = rooms.ledger.entries()
    if not entries:
        name = declaration.spec.name
        raise UserError(f"{workspace.uri(name, 'ledger')} has no entries: no service {name!r} was ever put up there")
    differences = list(recompute(rooms.spec, rooms.journal.steps(), rooms.monitor(None), entries))
    for difference in differences:
        print(difference)
    print(f"{len(entries):,} entries, {len(differences):,} differences")
    if differences:
        sys.exit(1)


def _extend(parser: argparse.ArgumentParser) -> None:
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument("--start", action="store_true", help="start it, where it does not run already")
    wish.add_argument("--stop", action="store_true", help="end it, with its state kept")
    wish.add_argument(
        "--verify", action="store_true", help="make every decision again from journal and ledger, without Ray"
    )


if __name__ == "__main__":
    main(monitor, __doc__ or "", _extend)
