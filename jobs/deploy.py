"""Let a registered version answer: the champion, the one that is named, or the champion before this one."""

import argparse

from app.cluster import connect
from app.declaration import Declaration
from app.registry import Registry
from app.serving.listener import check
from app.workspace import Workspace
from jobs.command import main


def deploy_version(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Put the service up, or let another version answer; the drift actor keeps it true from then on.

    A version that is named becomes champion, without a rollout.
    """
    spec = declaration.spec
    check(spec.serve)
    registry = Registry.open(workspace, spec.name)
    version = registry.before() if arguments.rollback else registry.chosen(arguments.version)
    connect(listens=spec.serve.listens)
    from app.decisions import actor
    from app.serving.deploy import deploy

    address = deploy(spec, workspace, version.bundle, str(version.number))
    if arguments.rollback:
        registry.rollback()
    else:
        registry.promote(version.number)
    actor.start(declaration, workspace)
    print(f"{spec.name}/{version.number} answers at {address}/predict; see {address}/")


def _extend(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="version to deploy (default: the champion)")
    which.add_argument("--rollback", action="store_true", help="go back to the champion before this one")


if __name__ == "__main__":
    main(deploy_version, __doc__ or "", _extend)
