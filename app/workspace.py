"""Where everything lives: one root URI, a local directory by default, any pyarrow filesystem otherwise.

Layout below the root, per declaration `name`:

    <name>/data/<fingerprint>/      checked rows as Parquet, quarantine beside them
    <name>/bundles/<version id>/    bundles, committed by their manifest
    <name>/checkpoints/<run>/       training checkpoints
    mlflow.db, mlflow-artifacts/    the registry, unless a tracking URI says otherwise
"""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from app.types import UserError

ENVIRONMENT = "EVERTRUE_WORKSPACE"


@dataclass(frozen=True)
class Workspace:
    """A folder on some filesystem; `root` is an absolute path or a URI (s3://, gs://, abfss://)."""

    root: str

    @staticmethod
    def open(root: str | None = None) -> "Workspace":
        """Open `root`, or $EVERTRUE_WORKSPACE, or ./workspace; local folders are made when missing."""
        root = root or os.environ.get(ENVIRONMENT) or "workspace"
        if "://" not in root:
            path = Path(root).expanduser().resolve()
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"workspace {str(path)!r} cannot be made: {error.strerror}") from error
            root = str(path)
        return Workspace(root.rstrip("/"))

    def uri(self, *parts: str) -> str:
        """Return the address of something below the root."""
        return "/".join((self.root, *parts))


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return filesystem and path behind a local path or URI.

    Raises UserError for a scheme that no filesystem knows.
    """
    if "://" not in uri:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().resolve())
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{uri!r} cannot be opened: {error}; allowed: a path, file://, s3://, gs://, abfss://"
        ) from error
    return filesystem, path


def read_bytes(uri: str) -> bytes:
    """Read a whole file. Raises FileNotFoundError when there is none."""
    filesystem, path = resolve(uri)
    with filesystem.open_input_file(path) as stream:
        data: bytes = stream.readall()
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file, so that a reader sees all of it or none."""
    filesystem, path = resolve(uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    else:  # an object store's put is whole or nothing by itself
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


def exists(uri: str) -> bool:
    """Say whether a file or folder is there."""
    filesystem, path = resolve(uri)
    return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)
