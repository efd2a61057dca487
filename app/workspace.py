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

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from app.types import UserError

ENVIRONMENT = "EVERTRUE_WORKSPACE"

_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray tells a submitted job's driver about itself in it
_SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss")
_ALLOWED = "allowed: a path, file:///, s3://, gs://, abfss://"


@dataclass(frozen=True)
class Workspace:
    """A folder on some filesystem; `root` is an absolute path or a URI (s3://, gs://, abfss://)."""

    root: str

    @staticmethod
    def open(root: str | None = None) -> "Workspace":
        """Open `root`, or $EVERTRUE_WORKSPACE, or the default; local folders are made when missing.

        The default is ./workspace; for a submitted job, whose folder goes away with it, ~/evertrue of its node.

        Raises UserError for an unknown scheme and for a local folder that cannot be made or written to.
        """
        default = "~/evertrue" if _SUBMITTED in os.environ else "workspace"
        root = root or os.environ.get(ENVIRONMENT) or default
        scheme, _ = _split_scheme(root)
        if scheme is None and re.match(r"[A-Za-z][A-Za-z0-9]+:", root):
            raise UserError(f"workspace {root!r} is neither a path nor a URI; {_ALLOWED}")
        if scheme is not None and scheme not in _SCHEMES:
            raise UserError(f"workspace {root!r} cannot be opened: unknown scheme {scheme}://; {_ALLOWED}")
        if scheme not in (None, "file"):
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
    scheme, _ = _split_scheme(uri)
    folder, mark, query = (uri, "", "") if scheme is None else uri.partition("?")
    return "/".join((folder.rstrip("/"), *parts)) + mark + query


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return filesystem and path behind a local path or URI.

    An S3 region is taken from the query, else from $AWS_REGION or $AWS_DEFAULT_REGION, else asked of the bucket.
    Raises UserError for a scheme that no filesystem knows and for a malformed or unreachable address.
    """
    scheme, rest = _split_scheme(uri)
    if scheme is None:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().resolve())
    if scheme not in _SCHEMES:
        raise UserError(f"{uri!r} cannot be opened: unknown scheme {scheme}://; {_ALLOWED}")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options = rest.partition("?")[2]
    if scheme == "s3" and region and not re.search(r"(^|&)(region|endpoint_override)=", options):
        uri += ("&" if options else "?") + f"region={region}"
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        raise UserError(f"{uri!r} cannot be opened: {error}; {_ALLOWED}") from error
    return filesystem, path


def read_bytes(uri: str) -> bytes:
    """Read a whole file. Raises FileNotFoundError when there is none."""
    filesystem, path = resolve(uri)
    with filesystem.open_input_file(path) as stream:
        data: bytes = stream.readall()
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file in the place of any other: a reader sees all of it or none, and it outlasts a power cut."""
    filesystem, path = resolve(uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        with _draft(Path(path), data) as draft:
            draft.replace(path)
    else:  # an object store's put is whole or nothing by itself
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


def create_bytes(uri: str, data: bytes) -> None:
    """Write a whole file where there is none: of several who try at once, one succeeds.

    Raises FileExistsError for the others. An object store is asked before it is written to, which keeps the promise
    only as long as no two try within the same moment.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        with _draft(Path(path), data) as draft:
            os.link(draft, path)  # unlike a rename, a link refuses a name that is taken
    elif exists(uri):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), uri)
    else:
        write_bytes(uri, data)


@contextmanager
def _draft(target: Path, data: bytes) -> Iterator[Path]:
    """Give a durable file beside the target, to be put in its place; then make the place durable, too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)  # a name is part of its folder, which is written apart
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def exists(uri: str) -> bool:
    """Say whether a file or folder is there."""
    filesystem, path = resolve(uri)
    return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)


def _split_scheme(uri: str) -> tuple[str | None, str]:
    """Return scheme and rest of a URI; no scheme for a path."""
    scheme, found, rest = uri.partition("://")
    return (scheme.lower(), rest) if found else (None, uri)
