"""What is committed? Manifests: one small file a step, or a block of steps, whose creation is the commit itself.

Data files are written before their manifest and deleted after it, so that what a manifest names is whole. A manifest
is created exclusively: of two committers one gets the number, the other begins anew. Steps become blocks whose bounds
are multiples of powers of `FANOUT`, so that two blocks never overlap: one holds the other, and the larger counts. Where
the rows of a block do not fit into one file a stream, its manifest holds theirs, and the files stay as they are: what a
commit looks through grows with the logarithm of the journal, not with the journal. Such a block is shortened when its
first files are past their retention.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from app.journal.layout import segment_uri
from app.journal.parquet import VanishedError, failing
from app.journal.rows import JournalError, Stream
from app.workspace import create_bytes, delete, join, list_files, read_bytes

FANOUT = 32
MOST_PARTS = 1024  # of one manifest
MOST_TOKENS = 64  # of one manifest: others commit fewer than that while one looks whether it has
_THREADS = 8  # files deleted at once: mostly waiting

_NAME = re.compile(r"(\d{6,})(?:-(\d{6,}))?\.json")


@dataclass(frozen=True)
class StepFile:
    """A stream's rows of the steps: file below the stream's folder, digest of its schema, and which events (ms) it holds."""

    path: str
    rows: int
    schema: str
    earliest: int | None
    latest: int | None

    @staticmethod
    def of(path: str, table: pa.Table) -> "StepFile":
        """Describe a table that lies at `path`."""
        found = pc.min_max(table["event"].cast(pa.int64())) if "event" in table.column_names else {}
        earliest, latest = (found[end].as_py() if found else None for end in ("min", "max"))
        return StepFile(
            path, table.num_rows, hashlib.sha256(table.schema.serialize()).hexdigest()[:16], earliest, latest
        )

    def overlaps(self, event_from: int | None, event_until: int | None) -> bool:
        """Say whether events in [from, until) may be in it."""
        late = event_from is not None and self.latest is not None and self.latest < event_from
        early = event_until is not None and self.earliest is not None and self.earliest >= event_until
        return not (late or early)


@dataclass(frozen=True)
class Manifest:
    """Steps `first` to `last`, last arrived in `hour`; `sources` are the segments they were.

    Blocks of blocks name no sources: a replica that did not hear that a segment was written writes it again, but not
    for so long.
    `tokens` are of the newest steps: by its own a committer knows a step that others merged before it looked.
    `parts` are manifests whose files were not put together; a manifest with such has no files of its own.
    """

    first: int
    last: int
    hour: str
    files: dict[Stream, StepFile]
    sources: list[tuple[Stream, str]] = field(default_factory=list)
    corrupt: dict[int, int] = field(default_factory=dict)  # segments set aside, by step
    parts: list["Manifest"] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name."""
        numbers = f"{self.first:06d}" if self.first == self.last else f"{self.first:06d}-{self.last:06d}"
        return f"{numbers}.json"

    @property
    def pieces(self) -> list["Manifest"]:
        """The manifests that name files: its parts, or itself."""
        return self.parts or [self]

    @property
    def paths(self) -> set[tuple[Stream, str]]:
        """All files that it names."""
        return {(stream, file.path) for piece in self.pieces for stream, file in piece.files.items()}


class Manifests:
    """The manifests of one journal. They never change, so what was read once is remembered."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, Manifest] = {}

    def visible(self) -> list[Manifest]:
        """Return what is committed, in order: every step once, by manifests that name files."""
        return [piece for block in self.blocks() for piece in block.pieces]

    def blocks(self) -> list[Manifest]:
        """Return the manifests that count, in order: every step once."""
        while True:
            names = self._listed()
            try:
                known = {name: self._known.get(name) or self._read(name) for name in counting(names)}
            except VanishedError:
                continue  # merged since it was listed
            self._known = known
            return list(known.values())

    def create(self, manifest: Manifest) -> bool:
        """Commit; False when the number is taken, or was and has been merged since.

        What others have merged before we look counts as well: its token tells it from one that had the number before.
        """
        with failing(f"{self._uri(manifest.name)} cannot be written"):
            try:
                create_bytes(self._uri(manifest.name), msgspec.json.encode(manifest))
            except FileExistsError:
                return False
        self._known[manifest.name] = manifest
        counts = self.blocks()
        return manifest in counts or any(not set(manifest.tokens).isdisjoint(block.tokens) for block in counts)

    def drop(self, manifest: Manifest, kept: frozenset[tuple[Stream, str]] = frozenset()) -> None:
        """Delete a manifest and then its files, but for those `kept`."""
        self._delete([self._uri(manifest.name)])
        self._delete_files(manifest.paths - kept)

    def shorten(self, block: Manifest, hour: str) -> Manifest:
        """Drop the parts in front that end before an hour, but never the last one; return what is left of the block.

        As long as both are there, the longer one counts.
        """
        left = list(itertools.dropwhile(lambda part: part.hour < hour, block.parts)) or block.parts[-1:]
        if len(left) == len(block.parts):
            return block
        rest = replace(block, first=left[0].first, parts=left)
        self.drop_superseded()  # one that was killed before may have its name
        self.create(rest)
        self.drop(block, frozenset(rest.paths))
        return rest

    def drop_files(self, manifest: Manifest) -> None:
        """Delete the files of a manifest that was never created; those of its parts are others'."""
        self._delete_files((stream, file.path) for stream, file in manifest.files.items())

    def _delete_files(self, paths: Iterable[tuple[Stream, str]]) -> None:
        self._delete([join(self._folder, *path) for path in paths])

    def drop_sources(self, sources: Sequence[tuple[Stream, str]]) -> None:
        """Delete segments whose rows a manifest holds."""
        self._delete([segment_uri(self._folder, *source) for source in sources])

    def _delete(self, uris: Sequence[str]) -> None:
        with failing(f"files of {self._folder} cannot be deleted"):
            if len(uris) == 1:
                delete(uris[0])
            elif uris:
                with ThreadPoolExecutor(_THREADS) as pool:
                    list(pool.map(delete, uris))

    def drop_superseded(self) -> None:
        """Delete manifests that a larger one holds, with the files that it does not name."""
        names = self._listed()
        blocks = self.blocks()
        for name in sorted(names - {block.name for block in blocks}):
            try:
                manifest = self._read(name)
            except VanishedError:
                continue  # another committer was quicker
            holders = [block for block in blocks if block.first <= manifest.first and manifest.last <= block.last]
            if holders:
                self.drop(manifest, frozenset(holders[0].paths))

    def _listed(self) -> frozenset[str]:
        """Return the names of all manifests, of one moment.

        A single listing, made while a block takes the place of its steps, may show neither. The block is there
        before they go, so two listings that agree have missed nothing.
        """
        last = None
        while True:
            with failing(f"{self._uri('')} cannot be listed"):
                names = frozenset(
                    file.name for file in list_files(join(self._folder, "steps")) if _NAME.fullmatch(file.name)
                )
            if names == last:
                return names
            last = names

    def _read(self, name: str) -> Manifest:
        uri = self._uri(name)
        try:
            with failing(f"{uri} cannot be read"):
                return msgspec.json.decode(read_bytes(uri), type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalError(f"{uri} is no manifest: {error}") from error

    def _uri(self, name: str) -> str:
        return join(self._folder, "steps", name)


def counting(names: Iterable[str]) -> list[str]:
    """Return the manifests, in order, that no larger one holds."""
    spans = []
    for name in names:
        match = _NAME.fullmatch(name)
        assert match is not None
        spans.append((int(match[1]), -int(match[2] or match[1]), name))
    kept, reached = [], 0
    for _, last, name in sorted(spans):
        if -last > reached:
            kept.append(name)
            reached = -last
    return kept


def due(blocks: list[Manifest]) -> Iterator[list[Manifest]]:
    """Yield the members of each block that is complete, small ones first.

    Whoever looks at the same steps finds the same blocks.
    """
    size = FANOUT
    while blocks and size <= blocks[-1].last:
        found: dict[int, list[Manifest]] = {}
        for block in blocks:
            if (block.first - 1) // size == (block.last - 1) // size:
                found.setdefault((block.first - 1) // size, []).append(block)
        for members in found.values():
            complete = sum(member.last - member.first + 1 for member in members) == size
            if complete and len(members) > 1 and sum(len(member.pieces) for member in members) <= MOST_PARTS:
                yield members
        size *= FANOUT


def fit_together(members: list[Manifest], most_rows: int) -> bool:
    """Say whether one file a stream holds them: files of one schema, and of at most `most_rows` in all."""
    schemas: dict[Stream, set[str]] = {}
    rows = 0
    for member in members:
        for stream, file in member.files.items():
            schemas.setdefault(stream, set()).add(file.schema)
            rows += file.rows
    whole = not any(member.parts for member in members)
    return whole and rows <= most_rows and all(len(found) == 1 for found in schemas.values())
