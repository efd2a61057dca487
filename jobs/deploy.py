"""Put a version of the declared model up as a service, or in the place of the one that answers."""

import argparse

from app.cluster import connect
from app.declaration import Declaration
from app.registry import Registry
from app.workspace import Workspace
from jobs.command import main


def deploy_version(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Deploy the champion, or the version asked for."""
    spec = declaration.spec
    version = Registry.open(workspace, spec.name).chosen(arguments.version)
    connect()
    from app.serving.deploy import deploy

    address = deploy(spec, workspace, version.bundle, str(version.number))
    print(f"{spec.name}/{version.number} answers at {address}/predict; see {address}/docs")


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", type=int, help="version to deploy (default: the champion)")


if __name__ == "__main__":
    main(deploy_version, __doc__ or "", _extend)
