"""How is a file read, written, listed, moved, deleted? Whole or not at all, on a local disk as on a store.

On a store all of this goes through `app.workspace.store`. Arrow's file systems (`resolve`) are for reading what is too
large to be read whole, by the same address and the same credentials.
"""

import datetime as dt
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow.fs as pafs

from app.types import UserError
from app.workspace.address import ALLOWED, SCHEMES, arrow, parse, split_scheme, without_secrets
from app.workspace.store import PATIENT, Listed, Store


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return Arrow's file system and path behind a local path or URI: for reading parts of large files.

    An S3 region is taken from the query, else from $AWS_REGION or $AWS_DEFAULT_REGION, else asked of the bucket.
    Raises UserError for a scheme that no filesystem knows and for a malformed or unreachable address.
    """
    scheme, _ = split_scheme(uri)
    if scheme in SCHEMES:
        return arrow(parse(uri))
    return pafs.LocalFileSystem(), str(_local(uri))


def read_bytes(uri: str, patience: float = PATIENT) -> bytes:
    """Read a whole file; a store that is away is asked again for `patience` seconds.

    Raises FileNotFoundError when there is none, OSError when it cannot be read.
    """
    store = _store(uri, patience)
    return _local(uri).read_bytes() if store is None else store.read()


def write_bytes(uri: str, data: bytes, patience: float = PATIENT) -> None:
    """Write a whole file in the place of any other: a reader sees all of it or none, and it outlasts a power cut.

    Raises OSError when it cannot be written, on a store after `patience` seconds.
    """
    store = _store(uri, patience)
    if store is not None:
        store.write(data)
        return
    path = _local(uri)
    with _draft(path, lambda stream: stream.write(data)) as draft:
        draft.replace(path)


def create_bytes(uri: str, data: bytes) -> None:
    """Write a whole file where there is none: of several who try at once, one succeeds.

    Raises FileExistsError for the others. On a store this is a conditional put.
    """
    store = _store(uri)
    if store is not None:
        store.create(data)
        return
    path = _local(uri)
    with _draft(path, lambda stream: stream.write(data)) as draft:
        os.link(draft, path)  # unlike a rename, a link refuses a name that is taken


def write_stream(uri: str, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file too large for memory: `fill` writes into a stream, and the file is there, whole, once it is done.

    Where `fill` raises there is no file, or the one before.
    """
    store = _store(uri)
    if store is None:
        path = _local(uri)
        with _draft(path, fill) as draft:
            draft.replace(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "whole")
        with path.open("wb") as stream:
            fill(stream)
        store.write(path)


@contextmanager
def _draft(target: Path, fill: Callable[[BinaryIO], object]) -> Iterator[Path]:
    """Give a durable file beside the target, to be put in its place; then make the place durable, too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as stream:
            fill(stream)
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
    """Say whether a file or folder is there; on a store, a folder is as long as something is in it."""
    store = _store(uri)
    return _local(uri).exists() if store is None else store.exists()


def mark(uri: str, patience: float = PATIENT) -> Hashable:
    """Return what changes whenever a file does, so that it need not be read to know; None where there is no file."""
    store = _store(uri, patience)
    try:
        if store is not None:
            return store.tag()
        found = _local(uri).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def list_files(uri: str, recursive: bool = False, patience: float = PATIENT) -> list[Listed]:
    """Return the files of a folder, drafts among them, in no order; none where there is no folder.

    With `recursive` also those of folders in it, whose names are paths below it.
    """
    store = _store(uri, patience)
    if store is not None:
        return store.files(recursive)
    folder = _local(uri)
    found = []
    for path in folder.rglob("*") if recursive else _entries(folder):
        try:
            if path.is_file():
                facts = path.stat()
                written = dt.datetime.fromtimestamp(facts.st_mtime, dt.UTC)
                found.append(Listed(path.relative_to(folder).as_posix(), facts.st_size, written))
        except FileNotFoundError:  # moved or deleted since it was listed
            continue
    return found


def list_folders(uri: str) -> list[str]:
    """Return the names of the folders in a folder, in no order; none where there is no folder."""
    store = _store(uri)
    return [path.name for path in _entries(_local(uri)) if path.is_dir()] if store is None else store.folders()


def delete(uri: str) -> None:
    """Delete a file; one that is gone is no mistake."""
    store = _store(uri)
    if store is None:
        _local(uri).unlink(missing_ok=True)
    else:
        store.delete()


def delete_folder(uri: str) -> None:
    """Delete a folder with all that is in it; one that is gone is no mistake."""
    store = _store(uri)
    if store is None:
        shutil.rmtree(_local(uri), onerror=_pass_over_missing)
    else:
        store.delete_all()


def move(source: str, target: str) -> None:
    """Move a file to a place of the same workspace. Raises FileNotFoundError when it is gone."""
    store = _store(source)
    if store is None:
        path = _local(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        _local(source).replace(path)
    else:
        store.move(parse(target).key)


def _store(uri: str, patience: float = PATIENT) -> Store | None:
    """Return the place in a store behind a URI; None for a local path."""
    return Store.at(uri, patience) if split_scheme(uri)[0] in SCHEMES else None


def _local(uri: str) -> Path:
    """Return the absolute path behind a path or a file's URI. Raises UserError for what is neither."""
    scheme, _ = split_scheme(uri)
    if scheme is None:
        try:
            return Path(uri).expanduser().resolve()
        except RuntimeError as error:  # no such user, or a circle of links
            raise UserError(f"{uri!r} cannot be opened: {error}; {ALLOWED}") from error
    if scheme != "file":
        raise UserError(f"{without_secrets(uri)!r} cannot be opened: unknown scheme {scheme}://; {ALLOWED}")
    try:
        _, path = pafs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        raise UserError(f"{uri!r} cannot be opened: {error}; {ALLOWED}") from error
    return Path(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _pass_over_missing(_: Callable[..., object], __: str, error: tuple[type, BaseException, object]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]
