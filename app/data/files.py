"""Which files does `data.source` name? Paths, URIs, folders and globs, on any filesystem of `app.workspace`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow.fs as pafs

from app.spec import Data
from app.types import UserError
from app.workspace import join, resolve

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class SourceFile:
    """A file of the table, and what tells that it changed."""

    uri: str
    format: str
    size: int
    modified_ns: int


def list_files(data: Data, base: Path) -> list[SourceFile]:
    """Return the files that `data.source` names, sorted by address; relative paths start at `base`.

    Raises UserError for a missing file, an empty folder, a glob without a match and an unknown suffix.
    """
    entries = [data.source] if isinstance(data.source, str) else data.source
    if not entries:
        raise UserError("data.source is an empty list; allowed: at least one path, URI, folder or glob")
    found: dict[str, SourceFile] = {}
    for entry in entries:
        address = entry if "://" in entry else str(base / Path(entry).expanduser())
        for uri, info in _expand(entry, address):
            found[uri] = SourceFile(uri, _format(uri, data.format), info.size, info.mtime_ns or 0)
    return [found[uri] for uri in sorted(found)]


def _expand(entry: str, address: str) -> Iterator[tuple[str, pafs.FileInfo]]:
    """Yield address and facts of every file an entry names."""
    whole, query = _split_query(address)
    filesystem, path = resolve(address)
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.File:
        yield address, info
        return
    pattern = None
    if info.type == pafs.FileType.NotFound:
        if not _MAGIC.search(whole):
            raise UserError(f"data.source: {entry!r} does not exist (looked for {address})")
        parts = whole.split("/")
        fixed = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
        whole, pattern = "/".join(parts[:fixed]), parts[fixed:]
        filesystem, path = resolve(whole + query)
    root = path.rstrip("/") + "/"
    listed = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    names = {item.path.removeprefix(root): item for item in listed if item.type == pafs.FileType.File}
    chosen = {name: item for name, item in names.items() if _chosen(name.split("/"), pattern)}
    if not chosen:
        what = "no file matches" if pattern else "no files in the folder"
        raise UserError(f"data.source: {what} {entry!r} (looked in {whole})")
    for name, item in chosen.items():
        yield join(whole + query, name), item


def _split_query(address: str) -> tuple[str, str]:
    """Return an address without and with only its query, which a URI may carry and a path never does."""
    if "://" not in address or "?" not in address:
        return address, ""
    whole, _, query = address.partition("?")
    return whole, f"?{query}"


def _chosen(parts: list[str], pattern: list[str] | None) -> bool:
    """Say whether a file belongs: hidden files (. and _) never do in a folder; `**` stands for any folders."""
    if pattern is None:
        return not any(part.startswith((".", "_")) for part in parts)
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _chosen(parts, pattern[1:]) or (bool(parts) and _chosen(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _chosen(parts[1:], pattern[1:])


def _format(uri: str, declared: str) -> str:
    if declared != "auto":
        return declared
    name = _split_query(uri)[0].rsplit("/", 1)[-1].lower()
    stem = re.sub(r"\.(gz|bz2|zst|lz4)$", "", name)
    suffix = Path(stem).suffix
    if suffix not in FORMATS or (stem != name and FORMATS[suffix] not in ("csv", "jsonl")):
        allowed = " ".join(FORMATS)
        found = Path(name).suffix
        raise UserError(f"{uri}: unknown suffix {found!r}; allowed: {allowed}, or set data.format")
    return FORMATS[suffix]
