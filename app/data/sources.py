"""How is a table read from wherever it lives? As fragments, and each fragment as Arrow pieces of bounded size.

Parquet, CSV, JSON Lines and Arrow (Feather); local or on any filesystem of `app.workspace`.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.fs as pafs
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from app.data.files import SourceFile, list_files
from app.spec import Data
from app.types import UserError
from app.workspace import resolve

PIECE_ROWS = 131_072
TEXT_BLOCK = 8 << 20  # bytes of text parsed at once; types are inferred on the first block
_FILE_BITS = 40  # a file that is not counted gets 2**40 positions
_THREADS = 16  # files whose footers are read at once: waiting, not work


@dataclass(frozen=True)
class Fragment:
    """A part of a table that one worker reads: a Parquet row group, or a whole file of another format.

    `start` is the position of its first row in the table: exact for Parquet, file number << 40 elsewhere, because
    counting means reading. `rows` is None where it is not known.
    """

    uri: str
    format: str
    row_group: int | None
    start: int
    rows: int | None


def list_fragments(data: Data, base: Path) -> list[Fragment]:
    """Return the table's fragments in a stable order; a Parquet file without rows has none.

    Raises UserError for what `list_files` refuses, and for files that cannot be read as what they are named.
    """
    return fragments_of(list_files(data, base))


def fragments_of(files: Sequence[SourceFile]) -> list[Fragment]:
    """Return the fragments of files; see `list_fragments`."""
    with ThreadPoolExecutor(_THREADS) as pool:
        counts = list(pool.map(_row_groups, files))
    fragments: list[Fragment] = []
    position = 0
    for number, (file, groups) in enumerate(zip(files, counts, strict=True)):
        if groups is None:
            position = number << _FILE_BITS
            fragments.append(Fragment(file.uri, file.format, None, position, None))
            continue
        for group, rows in enumerate(groups):
            if rows:
                fragments.append(Fragment(file.uri, file.format, group, position, rows))
                position += rows
    if not fragments:
        raise UserError(f"the table is empty: no rows in {_some([file.uri for file in files])}")
    return fragments


def read_schema(fragments: Iterable[Fragment]) -> pa.Schema:
    """Return the one schema of all files: order of the first, numbers widened, a column without values takes any type.

    Raises UserError when a column is missing in a file or has types that do not go together.
    """
    files = list({fragment.uri: fragment for fragment in fragments}.values())
    with ThreadPoolExecutor(_THREADS) as pool:
        schemas = list(pool.map(_file_schema, files))
    for file, schema in zip(files, schemas, strict=True):
        if twice := sorted(name for name, count in Counter(schema.names).items() if count > 1):
            raise UserError(f"{file.uri}: columns named more than once: {', '.join(twice)}")
    first, types = files[0].uri, {field.name: field.type for field in schemas[0]}
    origin = dict.fromkeys(types, first)
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        if different := sorted(set(types) ^ set(schema.names)):
            has, lacks = (first, file.uri) if different[0] in types else (file.uri, first)
            raise UserError(f"files disagree: column {different[0]!r} is in {has} and not in {lacks}")
        for field in schema:
            merged = _merge(types[field.name], field.type)
            if merged is None:
                raise UserError(
                    f"files disagree: column {field.name!r} is {types[field.name]} in {origin[field.name]} "
                    f"and {field.type} in {file.uri}"
                )
            if merged != types[field.name]:
                types[field.name], origin[field.name] = merged, file.uri
    return pa.schema(list(types.items()))


def with_floats(schema: pa.Schema, fragments: Iterable[Fragment], numbers: Container[str]) -> pa.Schema:
    """Return the schema by which to read files of text: `numbers` that begin whole, or empty, may go on otherwise."""
    if not any(fragment.format in ("csv", "jsonl") for fragment in fragments):
        return schema
    began = {field.name: field.type for field in schema if field.name in numbers}
    floats = {name for name, type_ in began.items() if pa.types.is_integer(type_) or pa.types.is_null(type_)}
    return pa.schema([(field.name, pa.float64() if field.name in floats else field.type) for field in schema])


def read(
    fragment: Fragment,
    columns: Sequence[str] | None = None,
    dictionary: Sequence[str] = (),
    schema: pa.Schema | None = None,
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (position of the first row, table) pieces of at most `PIECE_ROWS` rows, with `columns` in their order.

    `dictionary` names string columns to decode as dictionaries (Parquet; others are read plain). `schema` is that
    of the whole table: text files are parsed with its types, other columns converted to them, in its order unless told.
    Raises UserError naming the file, and the column where it is known, for what cannot be read.
    """
    columns = schema.names if columns is None and schema is not None else columns
    with _blame(fragment.uri, fragment.format):
        position = fragment.start
        for batch in _batches(fragment, columns, dictionary, schema):
            whole = pa.Table.from_batches([batch])
            if columns is not None and whole.column_names != list(columns):
                whole = whole.select(columns)
            if schema is not None:
                whole = _conform(whole, schema, dictionary)
            for offset in range(0, whole.num_rows, PIECE_ROWS):
                piece = whole.slice(offset, PIECE_ROWS)
                yield position, piece
                position += piece.num_rows


@contextmanager
def _blame(uri: str, format: str) -> Iterator[None]:
    """Turn what Arrow says about a file into an error that names it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{uri} cannot be read as {format}: {reason}") from error


def _parquet(uri: str, dictionary: Sequence[str] = ()) -> pq.ParquetFile:
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, pafs.LocalFileSystem)
    return pq.ParquetFile(filesystem.open_input_file(path), read_dictionary=list(dictionary), pre_buffer=not local)


def _row_groups(file: SourceFile) -> list[int] | None:
    """Return the rows of each row group; None for formats that do not tell."""
    if file.format != "parquet":
        return None
    with _blame(file.uri, file.format), _parquet(file.uri) as opened:
        return [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]


def _file_schema(fragment: Fragment) -> pa.Schema:
    with _blame(fragment.uri, fragment.format):
        if fragment.format == "parquet":
            with _parquet(fragment.uri) as opened:
                schema = opened.schema_arrow
        elif fragment.format == "arrow":
            schema = _arrow(fragment.uri)[0]
        elif fragment.format == "csv":
            with _csv(fragment.uri, pa_csv.ConvertOptions()) as reader:
                schema = reader.schema
        else:
            with _json(fragment.uri, pa_json.ParseOptions()) as reader:
                schema = reader.schema
    return pa.schema([(field.name, _read_type(field.type, fragment.format)) for field in schema])


def _read_type(type_: pa.DataType, format: str) -> pa.DataType:
    """Return the type that a column is read as: one of a text file by what its first block looks like."""
    if pa.types.is_string_view(type_):
        return pa.string()  # to the other Arrow cannot cast a dictionary
    if pa.types.is_timestamp(type_) and format == "csv":
        return pa.timestamp("us", type_.tz)  # later rows may hold fractions
    if pa.types.is_timestamp(type_) and format == "jsonl":
        return pa.string()  # Arrow's JSON drops the zone; the contract reads it from the text
    return type_


def _merge(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds both, or None."""
    if one == other:
        return one
    plain = [t.value_type if pa.types.is_dictionary(t) else t for t in (one, other)]
    try:
        merged = pa.unify_schemas([pa.schema([("", t)]) for t in plain], promote_options="permissive")
    except pa.ArrowException:
        return None
    return merged.field(0).type


def _batches(
    fragment: Fragment, columns: Sequence[str] | None, dictionary: Sequence[str], schema: pa.Schema | None
) -> Iterator[pa.RecordBatch]:
    if fragment.format == "parquet":
        groups = None if fragment.row_group is None else [fragment.row_group]
        with _parquet(fragment.uri, dictionary) as opened:
            yield from opened.iter_batches(PIECE_ROWS, row_groups=groups, columns=columns, use_threads=False)
    elif fragment.format == "arrow":
        for batch in _arrow(fragment.uri)[1]:
            yield batch if columns is None else batch.select(list(columns))
    else:
        schema = _file_schema(fragment) if schema is None else schema
        schema = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        if fragment.format == "csv":
            convert = pa_csv.ConvertOptions(column_types=schema, include_columns=schema.names)
            with _csv(fragment.uri, convert) as reader:
                try:
                    yield from map(_empty_is_null, reader)
                except pa.ArrowInvalid as error:
                    raise _mixed(fragment.uri, error) from error
        else:
            parse = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            with _json(fragment.uri, parse) as reader:
                yield from reader


def _arrow(uri: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return schema and batches of an Arrow file (Feather 2) or stream; local ones are mapped, not copied."""
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, pafs.LocalFileSystem)
    stream = pa.memory_map(path) if local else filesystem.open_input_file(path)
    magic = stream.read(6)
    stream.seek(0)
    if magic == b"ARROW1":
        opened = pa.ipc.open_file(stream)
        return opened.schema, map(opened.get_batch, range(opened.num_record_batches))
    reader = pa.ipc.open_stream(stream)
    return reader.schema, iter(reader)


def _csv(uri: str, convert: pa_csv.ConvertOptions) -> pa_csv.CSVStreamingReader:
    filesystem, path = resolve(uri)
    read_options = pa_csv.ReadOptions(block_size=TEXT_BLOCK, use_threads=False)
    parse_options = pa_csv.ParseOptions(newlines_in_values=True)
    return pa_csv.open_csv(filesystem.open_input_stream(path), read_options, parse_options, convert)


def _json(uri: str, parse: pa_json.ParseOptions) -> pa.RecordBatchReader:
    filesystem, path = resolve(uri)
    read_options = pa_json.ReadOptions(block_size=TEXT_BLOCK, use_threads=False)
    return pa_json.open_json(filesystem.open_input_stream(path), read_options, parse)


def _mixed(uri: str, error: pa.ArrowInvalid) -> UserError:
    """Return what a CSV file's conversion error means, with the column's name: Arrow counts by the file's order."""
    match = re.search(
        r"In CSV column #(\d+): Row #(\d+): CSV conversion error to (\S+): invalid value '(.*)'", str(error)
    )
    if match is None:
        return UserError(f"{uri} cannot be read as csv: {str(error).splitlines()[0]}")
    with _csv(uri, pa_csv.ConvertOptions()) as reader:
        name = reader.schema.names[int(match[1])]
    return UserError(
        f"{uri}: column {name!r} holds mixed types: it began as {match[3]}, line {match[2]} holds {match[4]!r}"
    )


def _empty_is_null(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return text columns with null for the empty string: CSV cannot tell them apart, and "NA" may be a name."""
    for number, field in enumerate(batch.schema):
        if pa.types.is_string(field.type):
            text = batch.column(number)
            empty = pc.equal(pc.binary_length(text), 0)
            if pc.any(empty).as_py():
                text = pc.if_else(empty, pa.scalar(None, field.type), text)
                batch = batch.set_column(number, field, text)
    return batch


def _conform(table: pa.Table, schema: pa.Schema, dictionary: Sequence[str]) -> pa.Table:
    """Return the table with the schema's types, whatever file it is of; those in `dictionary` may be dictionaries."""
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        wanted = schema.field(field.name).type
        decoded = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if field.type != wanted and not (field.name in dictionary and decoded == wanted):
            column = column.cast(wanted)
        columns.append(column)
        fields.append(pa.field(field.name, column.type))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
