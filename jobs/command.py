"""What every job's command line has in common: a declaration, settings over it, a workspace, an exit code."""

import argparse
import datetime as dt
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from app import logs
from app.declaration import Declaration, read
from app.spec import Duration
from app.telemetry import spans, traces
from app.types import UserError
from app.workspace import Workspace

_OF_FILES = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
"""What the system says of a place where somebody has put something else, or where this user may not write."""

Job = Callable[[Declaration, Workspace, argparse.Namespace], None]
"""The work of one job; raises UserError."""


def main(job: Job, description: str, extend: Callable[[argparse.ArgumentParser], None] | None = None) -> None:
    """Parse the command line and do the job; a mistake of the user's is one line and exit code 2."""
    role = f"jobs.{Path(sys.argv[0]).stem}"
    parser = argparse.ArgumentParser(f"python -m {role}", description=description)
    parser.add_argument("declaration", help="YAML file that declares the service")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="set a key of the declaration, such as train.epochs=5; may be given several times",
    )
    parser.add_argument(
        "--workspace", help="folder or URI for all results (default: $EVERTRUE_WORKSPACE or ./workspace)"
    )
    if extend is not None:
        extend(parser)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for chatter in ("mlflow", "alembic", "ray", "matplotlib"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    as_json = False
    try:
        as_json = logs.set_up(role)
        with logs.printed_as_lines(role):
            declaration = read(arguments.declaration, arguments.overrides)
            logs.set_up(role, declaration.spec.name, spans.facts)
            with traces.job(role, declaration.spec.name):
                job(declaration, Workspace.open(arguments.workspace), arguments)
    except UserError as error:
        _fail(role, str(error), as_json)
    except _OF_FILES as error:
        if error.filename is None:
            raise
        _fail(role, f"{error.filename}: {error.strerror}", as_json)


def _fail(role: str, words: str, as_json: bool) -> NoReturn:
    if as_json:
        logging.getLogger(role).log(logging.ERROR, "%s", words)
    else:
        print(f"error: {words}", file=sys.stderr)
    sys.exit(2)


def parse_duration(text: str) -> dt.timedelta:
    """Read an argument such as 6h; argparse tells the mistake."""
    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a duration such as 6h") from None


def parse_name(text: str) -> str:
    """Read the name of a run or a decision, which names its folder, too; argparse tells the mistake."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, allowed letters, digits, '.', '_' and '-', at most 128, a letter or a digit first"
        )
    return text
