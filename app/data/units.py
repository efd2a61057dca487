"""What does one worker do with its part of the table? Check it, write what is kept, find and drop repeated keys."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.data.contract import Contract, with_reason
from app.data.sources import PIECE_ROWS, Fragment, read
from app.data.split import TimeSketch
from app.data.target import Labels
from app.workspace import join, resolve, write_bytes

UNIT_ROWS = 2 * PIECE_ROWS


@dataclass(frozen=True)
class Unit:
    """Fragments in a row that one worker checks."""

    number: int
    fragments: tuple[Fragment, ...]


@dataclass(frozen=True)
class Partial:
    """What became of a unit: rows read, rows by kept file, rows rejected by reason, labels and their moments."""

    number: int
    read: int = 0
    files: tuple[tuple[str, int], ...] = ()
    rejected: dict[str, int] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    sketch: TimeSketch = field(default_factory=TimeSketch)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Partial":
        """Read what `to_json` wrote."""
        labels, sketch = data["labels"], data["sketch"]
        return Partial(
            number=data["number"],
            read=data["read"],
            files=tuple((name, rows) for name, rows in data["files"]),
            rejected=data["rejected"],
            labels=Labels(labels["rows"], tuple(labels["values"]), labels["whole"]),
            sketch=TimeSketch(tuple(sketch["moments"]), tuple(sketch["rows"])),
        )


@dataclass(frozen=True)
class Checker:
    """All that a worker needs to check units: the contract, where rows and keys go, and what the time is.

    Whoever prepares the same table at the same time writes the same rows into the same files, but has keys of his own.
    """

    contract: Contract
    folder: str
    keys: str
    buckets: int
    now: dt.datetime

    def check(self, unit: Unit) -> Partial:
        """Check a unit's rows and write them; memory holds one piece at a time.

        Raises UserError for a source that cannot be read and for a rule that cannot be evaluated.
        """
        contract = self.contract
        kept = RowWriter(self.folder, f"rows/{unit.number:06d}", contract.dictionary)
        rejected = RowWriter(self.folder, f"quarantine/broken/{unit.number:06d}")
        keys = KeyWriter(self.keys, unit.number, self.buckets)
        rows, counts = 0, dict[str, int]()
        labels, sketches = [Labels()], [TimeSketch()]
        for fragment in unit.fragments:
            for _, piece in read(fragment, contract.columns, contract.dictionary, contract.source):
                checked = contract.check(piece, self.now)
                rows += piece.num_rows
                for reason, count in checked.counts.items():
                    counts[reason] = counts.get(reason, 0) + count
                target = checked.kept.column(contract.target)
                labels.append(Labels.of(target))
                if contract.time is not None:
                    moments = checked.kept.column(contract.time).filter(target.is_valid())
                    sketches.append(TimeSketch.of(moments.cast(pa.int64()).to_numpy()))
                if contract.key is not None:
                    keys.add(checked.kept.column(contract.key))
                kept.add(checked.kept)
                rejected.add(checked.rejected)
        rejected.close()
        keys.close()
        return Partial(unit.number, rows, kept.close(), counts, Labels.merge(labels), TimeSketch.merge(sketches))


def divide(fragments: Sequence[Fragment]) -> list[Unit]:
    """Gather small neighbours, so that a worker has `UNIT_ROWS` rows to do; what is not counted goes alone."""
    units: list[list[Fragment]] = []
    room = 0
    for fragment in fragments:
        rows = UNIT_ROWS if fragment.rows is None else fragment.rows
        if rows > room:
            units.append([])
            room = UNIT_ROWS
        units[-1].append(fragment)
        room -= rows
    return [Unit(number, tuple(part)) for number, part in enumerate(units)]


class RowWriter:
    """Writes rows as Parquet files of one row group, each whole or not at all, `PIECE_ROWS` rows where there are."""

    def __init__(self, folder: str, prefix: str, dictionary: Sequence[str] = ()) -> None:
        """Write below `folder`, file names beginning with `prefix`; `dictionary` columns are stored as such."""
        self._folder, self._prefix, self._dictionary = folder, prefix, list(dictionary)
        self._waiting: list[pa.Table] = []
        self._files: list[tuple[str, int]] = []

    def add(self, table: pa.Table) -> None:
        """Take rows; full files are written."""
        while table.num_rows:
            room = PIECE_ROWS - sum(part.num_rows for part in self._waiting)
            self._waiting.append(table.slice(0, room))
            table = table.slice(room)
            if sum(part.num_rows for part in self._waiting) == PIECE_ROWS:
                self._flush()

    def close(self) -> tuple[tuple[str, int], ...]:
        """Write what waits; return name and rows of every file."""
        if self._waiting:
            self._flush()
        return tuple(self._files)

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting)
        name = f"{self._prefix}-{len(self._files):04d}.parquet"
        write_rows(join(self._folder, name), table, self._dictionary)
        self._files.append((name, table.num_rows))
        self._waiting = []


def write_rows(uri: str, table: pa.Table, dictionary: Sequence[str]) -> None:
    """Write one Parquet file of one row group, whole or not at all."""
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, table.schema, use_dictionary=list(dictionary)) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
    write_bytes(uri, buffer.getvalue().to_pybytes())


class KeyWriter:
    """Writes a unit's keys by bucket of their hash, so that equal keys of all units meet in one bucket.

    The file holds, for every piece, one batch a bucket: batch `i` belongs to bucket `i % buckets`.
    """

    def __init__(self, folder: str, unit: int, buckets: int) -> None:
        """Write to the unit's file below `folder`, from the first key on."""
        self._uri, self._buckets = _keys_uri(folder, unit), buckets
        self._rows = 0
        self._sink: pa.NativeFile | None = None
        self._writer: pa.RecordBatchWriter | None = None

    def add(self, keys: pa.ChunkedArray) -> None:
        """Take the keys of the unit's next kept rows."""
        frame = pl.DataFrame({"key": pl.Series(keys)}).with_row_index("row", offset=self._rows)
        frame = frame.select(pl.col("row").cast(pl.Int64), "key")
        self._rows += frame.height
        bucket = frame["key"].hash(seed=0) % self._buckets
        for number in range(self._buckets):
            table = (frame if self._buckets == 1 else frame.filter(bucket == number)).rechunk().to_arrow()
            if self._writer is None:
                filesystem, path = resolve(self._uri)
                filesystem.create_dir(path.rpartition("/")[0], recursive=True)
                self._sink = filesystem.open_output_stream(path)
                self._writer = pa.ipc.new_file(self._sink, table.schema)
            self._writer.write_batch(
                table.combine_chunks().to_batches()[0] if table.num_rows else _nothing(table.schema)
            )

    def close(self) -> None:
        """Write the file; without keys there is none."""
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()


def _nothing(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _keys_uri(folder: str, unit: int) -> str:
    return join(folder, f"{unit:06d}.arrow")


def repeated_keys(folder: str, units: Sequence[int], bucket: int, buckets: int) -> dict[int, list[int]]:
    """Return, by unit, the rows of a bucket whose key stood earlier: in a unit before, or above in the same."""
    frames = [
        pl.DataFrame(table).with_columns(pl.lit(unit, pl.Int64).alias("unit"))
        for unit in units
        for table in _read_bucket(_keys_uri(folder, unit), bucket, buckets)
    ]
    if not frames:
        return {}
    rows = pl.concat(frames).filter(~pl.col("key").is_first_distinct())
    return {unit[0]: part["row"].to_list() for unit, part in rows.group_by("unit", maintain_order=True)}


def _read_bucket(uri: str, bucket: int, buckets: int) -> Iterator[pa.Table]:
    filesystem, path = resolve(uri)
    with filesystem.open_input_file(path) as stream:
        opened = pa.ipc.open_file(stream)
        for number in range(bucket, opened.num_record_batches, buckets):
            yield pa.Table.from_batches([opened.get_batch(number)])


def drop_repeated(contract: Contract, folder: str, partial: Partial, rows: Sequence[int]) -> Partial:
    """Set kept rows of a unit, counted from its first, aside; return what is left of it, in files of their own."""
    reason = f"{contract.key}: duplicate key"
    dropped = pl.Series(sorted(rows), dtype=pl.Int64)
    quarantine = RowWriter(folder, f"quarantine/duplicates/{partial.number:06d}")
    files: list[tuple[str, int]] = []
    labels, sketches = [Labels()], [TimeSketch()]
    start = 0
    for name, count in partial.files:
        uri = join(folder, name)
        fragment = Fragment(uri, "parquet", None, 0, count)
        table = pa.concat_tables([piece for _, piece in read(fragment)])
        bad = pl.int_range(start, start + count, eager=True).is_in(dropped.implode()).to_arrow()
        start += count
        if pc.any(bad).as_py():
            broken = table.filter(bad)
            quarantine.add(with_reason(broken, pa.array([reason] * broken.num_rows, pa.string())))
            table = table.filter(pc.invert(bad))
            name = name.replace(".parquet", "-unique.parquet")
            write_rows(join(folder, name), table, contract.dictionary)
        target = table.column(contract.target)
        labels.append(Labels.of(target))
        if contract.time is not None:
            moments = table.column(contract.time).filter(target.is_valid())
            sketches.append(TimeSketch.of(moments.cast(pa.int64()).to_numpy()))
        files.append((name, table.num_rows))
    quarantine.close()
    rejected = partial.rejected | {reason: len(rows)}
    return Partial(
        partial.number, partial.read, tuple(files), rejected, Labels.merge(labels), TimeSketch.merge(sketches)
    )
