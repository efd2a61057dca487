"""How do segments become an ordered list of steps, and how is it read? By one committer, and by anyone.

A commit writes the rows of new segments to files of their own, then a manifest that names both (this is the commit),
then deletes the segments. Killed anywhere, it leaves either no manifest, and the segments are new as before; or a
manifest, and what is left of the segments it names is passed over, and deleted by the next commit. `app.journal.manifests` says why two
committers do not get into each other's way.

A reader takes a view: the new segments, then the manifests. Both may be moved on under it: a segment that vanished
makes it look again, a step that vanished is found in the block it was merged into.
"""

import datetime as dt
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.journal import labels
from app.journal.expiry import delete_before
from app.journal.layout import Segment, list_segments, segment_uri, set_aside, step_path
from app.journal.manifests import MOST_TOKENS, Manifest, Manifests, StepFile, due, fit_together
from app.journal.parquet import VanishedError, decode, encode, failing, load
from app.journal.rows import FIXED, STREAMS, JournalError, Step, Stream
from app.journal.tables import concat
from app.workspace import Workspace, join, read_bytes, write_bytes

MOST_SEGMENTS = 512  # of one step: a backlog becomes several
MOST_BYTES = 64 << 20
MOST_MERGED_ROWS = 500_000  # of one file
_THREADS = 8  # segments read at once: mostly waiting

_log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")


class Journal:
    """The journal of one declaration. Any number may read; the drift actor alone commits, merges and expires."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._manifests = Manifests(folder)

    @staticmethod
    def open(workspace: Workspace, name: str) -> "Journal":
        """Open the journal of a declaration, whether or not anything was written yet."""
        return Journal(workspace.uri(name, "journal"))

    # ---- the committer ---------------------------------------------------------------------------------------

    def commit(self) -> Step | None:
        """Make a step of the oldest new segments and return it; None when there are none.

        At most `MOST_SEGMENTS` and `MOST_BYTES` at once, so call it until there are none. Segments that cannot be
        read are set aside in `corrupt/`, logged and counted. Steps are merged as a matter of course.
        Raises JournalError when files cannot be written or read (a full disk, say); then the journal is as it was,
        or the step is committed and `steps()` has it.
        """
        corrupt = 0
        while True:
            new, left, manifests = self._view()
            self._manifests.drop_sources([segment.source for segment in left])
            try:
                self._merge_one(manifests)
            except JournalError:  # new steps are not to wait for old ones
                _log.exception("steps cannot be merged")
            chosen = _bounded(new)
            if not chosen:
                return None
            try:
                tables, spoiled = self._read_segments(chosen)
            except VanishedError:
                continue  # another committer has it
            corrupt += spoiled
            number = manifests[-1].last + 1 if manifests else 1
            files = self._write(tables, chosen[-1].hour, number, number)
            manifest = Manifest(
                first=number,
                last=number,
                hour=chosen[-1].hour,
                files=files,
                sources=[segment.source for segment in chosen],
                corrupt={number: corrupt} if corrupt else {},
                tokens=[uuid.uuid4().hex],
            )
            if self._manifests.create(manifest):
                self._manifests.drop_sources(manifest.sources)
                return Step(number, **tables, corrupt=corrupt)
            self._manifests.drop_files(manifest)

    def compact(self) -> None:
        """Merge all that is due: what commits do one block at a time. Raises JournalError as they do."""
        while self._merge_one(self._manifests.blocks()):
            pass

    def expire(self, before: int) -> None:
        """Delete the files of steps whose rows all arrived before this moment (ms since 1970), in whole hours.

        The newest steps stay, for numbers go on from them.
        """
        delete_before(self.folder, self._manifests, dt.datetime.fromtimestamp(before / 1000, dt.UTC))

    # ---- readers ---------------------------------------------------------------------------------------------

    def steps(self, after: int = 0) -> Iterator[Step]:
        """Yield the committed steps behind number `after`, in order, the same at every call.

        Raises JournalError for a file that cannot be read.
        """

        def load_all(manifest: Manifest) -> dict[Stream, pa.Table]:
            return {stream: self._load(manifest, stream) for stream in manifest.files}

        for manifest, done, tables in self._walk(after, None, load_all):
            parts = {stream: _by_step(stream, tables.get(stream), manifest) for stream in STREAMS}
            for number in range(max(manifest.first, done + 1), manifest.last + 1):
                rows = {stream: parts[stream][number - manifest.first] for stream in STREAMS}
                yield Step(number, **rows, corrupt=manifest.corrupt.get(number, 0))

    def predictions(
        self, columns: Sequence[str] | None = None, event_from: int | None = None, event_until: int | None = None
    ) -> pa.Table:
        """Return the predictions whose event lies in [from, until) (ms since 1970), committed or not, each once.

        `columns` are those of `app.journal.rows`; `features.x` is one feature.
        """
        return concat("predictions", list(self.pieces("predictions", columns, event_from, event_until)))

    def labels(self) -> pa.Table:
        """Return every label, committed or not, each as often as it came."""
        return concat("labels", list(self.pieces("labels")))

    def labelled(
        self, event_from: int | None = None, event_until: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return the predictions that have a label, with `label` and `label_event`; the label that came last counts.

        Arguments as for `predictions`.
        """
        chosen = None if columns is None else list(dict.fromkeys(["id", *columns]))
        last = labels.last(self.labels())
        found = labels.join(self.predictions(chosen, event_from, event_until), last)
        return found if columns is None or "id" in columns else found.drop_columns("id")

    def pieces(
        self,
        stream: Stream,
        columns: Sequence[str] | None = None,
        event_from: int | None = None,
        event_until: int | None = None,
    ) -> Iterator[pa.Table]:
        """Yield what is in a stream now, committed or not, each row once: a file at a time, the oldest first."""
        wanted = None if columns is None else list(columns)
        if wanted is not None and (event_from, event_until) != (None, None):
            wanted.append("event")

        def finish(table: pa.Table) -> pa.Table:
            table = _between(table, event_from, event_until)
            return table if columns is None else table.select(_top(columns, table))

        def load_piece(manifest: Manifest) -> pa.Table | None:
            file = manifest.files.get(stream)
            if file is None or not file.overlaps(event_from, event_until):
                return None
            return self._load(manifest, stream, wanted)

        new, until = self._new_rows(stream)
        for manifest, done, table in self._walk(0, until, load_piece):
            if table is not None:
                yield finish(_within(table, manifest, done, until))
        yield from map(finish, new)

    # ---- views -----------------------------------------------------------------------------------------------

    def _view(self) -> tuple[list[Segment], list[Segment], list[Manifest]]:
        """Return the segments that are in no step, those left over though they are in one, and the manifests.

        Segments are listed first: one that is committed meanwhile is known from its manifest, one that is also merged
        meanwhile is gone (`_merge_one`).
        """
        with failing(f"{self.folder} cannot be listed"):
            segments = list_segments(self.folder)
        manifests = self._manifests.blocks()
        taken = {source for manifest in manifests for source in manifest.sources}
        new = [segment for segment in segments if segment.source not in taken]
        left = [segment for segment in segments if segment.source in taken]
        return new, left, manifests

    def _new_rows(self, stream: Stream) -> tuple[list[pa.Table], int]:
        """Return the rows of new segments, and the last step that is committed beside them."""
        while True:
            segments, _, manifests = self._view()
            try:
                tables = [self._decode(segment) for segment in segments if segment.stream == stream]
            except VanishedError:
                continue
            return [table for table in tables if table is not None], manifests[-1].last if manifests else 0

    def _walk(
        self, after: int, until: int | None, load_: Callable[[Manifest], Loaded]
    ) -> Iterator[tuple[Manifest, int, Loaded]]:
        """Yield what `load_` reads of each manifest with steps behind `after`, and the last step done before it."""
        missing = None
        while True:
            try:
                for manifest in self._manifests.visible():
                    if manifest.last > after and (until is None or manifest.first <= until):
                        loaded = load_(manifest)
                        yield manifest, after, loaded
                        after, missing = manifest.last, None
            except VanishedError as error:
                if str(error) == missing:  # looked again, and it still counts: not moved, but lost
                    raise JournalError(missing) from error
                missing = str(error)
            else:
                return

    def _load(self, manifest: Manifest, stream: Stream, columns: list[str] | None = None) -> pa.Table:
        merged = manifest.first < manifest.last
        wanted = [*columns, "step"] if merged and columns is not None else columns
        return load(join(self.folder, stream, manifest.files[stream].path), wanted)

    def _decode(self, segment: Segment) -> pa.Table | None:
        """Read a segment; None when it is no whole file of its stream. Raises VanishedError when it is gone."""
        uri = segment_uri(self.folder, segment.stream, segment.name)
        with failing(f"{uri} cannot be read"):
            data = read_bytes(uri)
        try:
            table = decode(data)
        except (pa.ArrowException, OSError):
            return None
        return table if set(FIXED[segment.stream].names) <= set(table.column_names) else None

    # ---- steps in the making ---------------------------------------------------------------------------------

    def _read_segments(self, segments: Sequence[Segment]) -> tuple[dict[Stream, pa.Table], int]:
        """Return rows by stream, and how many segments could not be read and were set aside."""
        found: dict[Stream, list[pa.Table]] = {stream: [] for stream in STREAMS}
        corrupt = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            decoded = list(pool.map(self._decode, segments))
        for segment, table in zip(segments, decoded, strict=True):
            if table is None:
                with failing(f"segment {segment.name} cannot be set aside"):
                    set_aside(self.folder, segment)
                corrupt += 1
            else:
                found[segment.stream].append(table)
        return {stream: concat(stream, tables).combine_chunks() for stream, tables in found.items()}, corrupt

    def _write(self, tables: dict[Stream, pa.Table], hour: str, first: int, last: int) -> dict[Stream, StepFile]:
        files: dict[Stream, StepFile] = {}
        path = step_path(hour, first, last, uuid.uuid4().hex[:8])
        for stream, table in tables.items():
            if table.num_rows:
                uri = join(self.folder, stream, path)
                try:
                    with failing(f"{uri} cannot be written"):
                        write_bytes(uri, encode(table))
                except JournalError:  # no manifest will name the others, and the next attempt writes new ones
                    self._manifests.drop_files(Manifest(first, last, hour, files))
                    raise
                files[stream] = StepFile.of(path, table)
        return files

    def _merge_one(self, blocks: list[Manifest]) -> bool:
        """Make one block of steps that is due; say whether there was one.

        Its rows go into one file a stream where they fit. Segments are gone before: what a block is made of is named
        no more once it is part of a larger one.
        """
        members = next(due(blocks), None)
        if members is None:
            return False
        with failing(f"{self.folder} cannot be listed"):
            present = {segment.source for segment in list_segments(self.folder)}
        for member in members:
            if not present.isdisjoint(member.sources):
                self._manifests.drop_sources(member.sources)
        try:
            block = self._block(members)
        except VanishedError:
            return True  # another committer merges it
        if self._manifests.create(block):
            self._manifests.drop_superseded()
        else:
            self._manifests.drop_files(block)
        return True

    def _block(self, members: list[Manifest]) -> Manifest:
        """Return the manifest of steps that are put together. Raises VanishedError when they are already."""
        first, last = members[0].first, members[-1].last
        hour = max(member.hour for member in members)
        corrupt = {number: count for member in members for number, count in member.corrupt.items()}
        single = all(member.first == member.last for member in members)
        sources = [source for member in members for source in member.sources] if single else []
        tokens = [token for member in members for token in member.tokens][-MOST_TOKENS:]
        if fit_together(members, MOST_MERGED_ROWS):
            try:
                tables = {stream: self._merged(members, stream) for stream in STREAMS}
            except JournalError as error:
                counting = self._manifests.blocks()
                if isinstance(error, VanishedError) and not all(member in counting for member in members):
                    raise
                _log.exception("steps %d to %d cannot be put into one file", first, last)
            else:
                files = self._write(tables, hour, first, last)
                return Manifest(first, last, hour, files, sources, corrupt, tokens=tokens)
        parts = [replace(piece, sources=[], tokens=[]) for member in members for piece in member.pieces]
        return Manifest(first, last, hour, {}, sources, corrupt, parts, tokens)

    def _merged(self, members: Sequence[Manifest], stream: Stream) -> pa.Table:
        tables = []
        for member in members:
            if stream in member.files:
                table = self._load(member, stream)
                if member.first == member.last:
                    table = table.append_column("step", pa.array(np.full(len(table), member.first)))
                tables.append(table)
        return concat(stream, tables)


def _bounded(segments: Sequence[Segment]) -> list[Segment]:
    """Return the first segments that make one step; one at least, if there is any."""
    chosen: list[Segment] = []
    size = 0
    for segment in segments[:MOST_SEGMENTS]:
        size += segment.size
        if chosen and size > MOST_BYTES:
            break
        chosen.append(segment)
    return chosen


def _step_numbers(table: pa.Table) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = table["step"].to_numpy()
    return numbers


def _by_step(stream: Stream, table: pa.Table | None, manifest: Manifest) -> list[pa.Table]:
    """Return the rows of a file by step."""
    empty = FIXED[stream].empty_table()
    if table is None or "step" not in table.column_names:
        return [empty if table is None else table] * (manifest.last - manifest.first + 1)
    bounds = np.searchsorted(_step_numbers(table), np.arange(manifest.first, manifest.last + 2)).tolist()
    rows = table.drop_columns("step")
    return [rows.slice(start, end - start) if end > start else empty for start, end in pairwise(bounds)]


def _within(table: pa.Table, manifest: Manifest, done: int, until: int) -> pa.Table:
    """Return the rows of steps behind `done` up to `until`, without their number."""
    if "step" not in table.column_names:
        return table
    if manifest.first <= done or manifest.last > until:
        start, end = np.searchsorted(_step_numbers(table), [done + 1, until + 1])
        table = table.slice(start, end - start)
    return table.drop_columns("step")


def _between(table: pa.Table, event_from: int | None, event_until: int | None) -> pa.Table:
    if event_from is None and event_until is None:
        return table
    event = table["event"].cast(pa.int64())
    low = np.iinfo(np.int64).min if event_from is None else event_from
    high = np.iinfo(np.int64).max if event_until is None else event_until
    return table.filter(pc.and_(pc.greater_equal(event, low), pc.less(event, high)))


def _top(columns: Sequence[str], table: pa.Table) -> list[str]:
    """Return the table's own columns among those that were asked for."""
    names = dict.fromkeys(name if name in table.column_names else name.partition(".")[0] for name in columns)
    return [name for name in names if name in table.column_names]
