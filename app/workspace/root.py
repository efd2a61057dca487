"""Where everything lives: one root URI, a local directory by default, an object store otherwise.

Layout below the root, per declaration `name`:

    <name>/data/<fingerprint>/      checked rows as Parquet, quarantine beside them
    <name>/bundles/<version id>/    bundles, committed by their manifest
    <name>/checkpoints/<run>/       training checkpoints
    <name>/journal/                 what was predicted and what came true: `app.journal.layout`
    mlflow.db, mlflow-artifacts/    the registry, unless a tracking URI says otherwise

A store's options go into the root's query and stay with every address below it:
`s3://bucket/evertrue?region=eu-west-1`, `s3://bucket/evertrue?endpoint_override=localhost:9000&scheme=http`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from app.types import UserError
from app.workspace.address import ALLOWED, SCHEMES, split_scheme, without_secrets
from app.workspace.files import resolve
from app.workspace.store import PROMPT, Store

ENVIRONMENT = "EVERTRUE_WORKSPACE"

_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray tells a submitted job's driver about itself in it


@dataclass(frozen=True)
class Workspace:
    """A folder on some filesystem; `root` is an absolute path or a URI (s3://, gs://, abfss://)."""

    root: str

    @staticmethod
    def open(root: str | None = None) -> "Workspace":
        """Open `root`, or $EVERTRUE_WORKSPACE, or the default; local folders are made when missing.

        The default is ./workspace; for a submitted job, whose folder goes away with it, ~/evertrue of its node.

        Raises UserError for an unknown scheme, for a local folder that cannot be made or written to, and for a store
        that refuses the credentials, has no such bucket or does not answer.
        """
        default = "~/evertrue" if _SUBMITTED in os.environ else "workspace"
        root = root or os.environ.get(ENVIRONMENT) or default
        scheme, _ = split_scheme(root)
        if scheme is None and re.match(r"[A-Za-z][A-Za-z0-9]+:", root):
            raise UserError(f"workspace {root!r} is neither a path nor a URI; {ALLOWED}")
        if scheme is not None and scheme != "file" and scheme not in SCHEMES:
            shown = without_secrets(root)
            raise UserError(f"workspace {shown!r} cannot be opened: unknown scheme {scheme}://; {ALLOWED}")
        if scheme in SCHEMES:
            try:
                Store.at(root, PROMPT).holds()
            except OSError as error:
                raise UserError(f"workspace {without_secrets(root)!r} cannot be opened: {error}") from None
            return Workspace(root)
        path = resolve(root)[1]
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"workspace {path!r} cannot be made: {error.strerror}") from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise UserError(f"workspace {path!r} is read-only; allowed: a folder that this user may write to")
        return Workspace(path)

    def uri(self, *parts: str) -> str:
        """Return the address of something below the root."""
        return join(self.root, *parts)


def join(uri: str, *parts: str) -> str:
    """Return the address of something below a folder; the query of a URI stays at the end."""
    scheme, _ = split_scheme(uri)
    folder, mark, query = (uri, "", "") if scheme is None else uri.partition("?")
    return "/".join((folder.rstrip("/"), *parts)) + mark + query


def name_of(uri: str) -> str:
    """Return the last part of an address, without what options may follow it."""
    path = uri.partition("?")[0] if split_scheme(uri)[0] is not None else uri
    return path.rstrip("/").rpartition("/")[2]
