"""Are all formats read alike, in bounded pieces, and is every unreadable table a clear error?"""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from app.data.sources import PIECE_ROWS, Fragment, list_fragments, read, read_schema
from app.spec import Data
from app.types import UserError

TABLE = pa.table({"n": [1, 2, None], "x": [0.5, None, 2.5], "s": ["a", None, "NA"], "b": [True, False, None]})


def write_csv(table: pa.Table, path: Path) -> None:
    pa_csv.write_csv(table, path)


def write_jsonl(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def write_gzip(table: pa.Table, path: Path) -> None:
    plain = path.with_suffix("")
    write_csv(table, plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "t.parquet": pq.write_table,
    "t.csv": write_csv,
    "t.csv.gz": write_gzip,
    "t.jsonl": write_jsonl,
    "t.ndjson": write_jsonl,
    "t.feather": feather.write_feather,
    "t.arrow": write_stream,
}


def whole(source: str | list[str], base: Path, **options: object) -> pa.Table:
    fragments = list_fragments(Data(source=source), base)
    schema = read_schema(fragments)
    return pa.concat_tables(
        [piece for fragment in fragments for _, piece in read(fragment, schema=schema, **options)]
    )


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_table(name: str, tmp_path: Path) -> None:
    WRITERS[name](TABLE, tmp_path / name)
    assert whole(name, tmp_path).equals(TABLE)


@pytest.mark.parametrize("name", WRITERS)
def test_columns_come_as_asked(name: str, tmp_path: Path) -> None:
    WRITERS[name](TABLE, tmp_path / name)
    assert whole(name, tmp_path, columns=["s", "n"]).equals(TABLE.select(["s", "n"]))


def test_a_folder_holds_all_its_files_but_hidden_ones(tmp_path: Path) -> None:
    (tmp_path / "t" / "deep").mkdir(parents=True)
    pq.write_table(TABLE, tmp_path / "t" / "b.parquet")
    pq.write_table(TABLE.slice(1), tmp_path / "t" / "deep" / "a.parquet")
    (tmp_path / "t" / "_SUCCESS").touch()
    (tmp_path / "t" / ".b.parquet.crc").touch()
    found = list_fragments(Data(source="t"), tmp_path)
    assert [(Path(f.uri).name, f.start, f.rows) for f in found] == [("b.parquet", 0, 3), ("a.parquet", 3, 2)]


def test_globs_and_lists_name_each_file_once(tmp_path: Path) -> None:
    for name in ("2013-01", "2013-02", "2014-01"):
        (tmp_path / name).mkdir()
        pq.write_table(TABLE, tmp_path / name / "part.parquet")
    assert whole("2013-*/*.parquet", tmp_path).num_rows == 6
    assert whole("**/part.parquet", tmp_path).num_rows == 9
    assert whole(["2013-01", "2013-0[1]/part.parquet", "2014-01/part.parquet"], tmp_path).num_rows == 6


def test_a_file_is_found_by_its_uri(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    assert whole(f"file://{tmp_path}/t.parquet", Path("/")).equals(TABLE)
    assert whole(f"file://{tmp_path}/*.parquet", Path("/")).equals(TABLE)


def test_a_declared_format_goes_before_the_suffix(tmp_path: Path) -> None:
    write_csv(TABLE, tmp_path / "t.txt")
    fragments = list_fragments(Data(source="t.txt", format="csv"), tmp_path)
    assert next(read(fragments[0]))[1].equals(TABLE)


def test_parquet_positions_count_rows_over_files_and_groups(tmp_path: Path) -> None:
    table = pa.table({"n": range(10)})
    for name in ("a", "b"):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=4)
    fragments = list_fragments(Data(source="*.parquet"), tmp_path)
    assert [(f.row_group, f.start, f.rows) for f in fragments] == [
        (0, 0, 4),
        (1, 4, 4),
        (2, 8, 2),
        (0, 10, 4),
        (1, 14, 4),
        (2, 18, 2),
    ]
    assert [start for fragment in fragments for start, _ in read(fragment)] == [0, 4, 8, 10, 14, 18]


def test_positions_of_other_formats_never_meet(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_csv(TABLE, tmp_path / f"{name}.csv")
    assert [fragment.start for fragment in list_fragments(Data(source="*.csv"), tmp_path)] == [0, 1 << 40]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.arrow"])
def test_pieces_are_bounded_and_positions_follow_on(name: str, tmp_path: Path) -> None:
    table = pa.table({"n": range(3 * PIECE_ROWS)})
    WRITERS[name](table, tmp_path / name)
    (fragment,) = list_fragments(Data(source=name), tmp_path)
    position = 0
    for start, piece in read(fragment):
        assert start == position
        assert 0 < piece.num_rows <= PIECE_ROWS
        assert piece.column("n")[0].as_py() == position
        position += piece.num_rows
    assert position == table.num_rows


def test_text_columns_are_decoded_as_dictionaries_when_asked(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    table = whole("t.parquet", tmp_path, dictionary=["s"])
    assert table.schema.field("s").type == pa.dictionary(pa.int32(), pa.string())
    assert table.column("s").cast(pa.string()).equals(TABLE.column("s"))


def test_files_share_one_schema_of_widened_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,s\n1,\n")
    (tmp_path / "b.csv").write_text("s,n\nx,1.5\n")
    assert whole("*.csv", tmp_path).to_pydict() == {"n": [1.0, 1.5], "s": [None, "x"]}


def test_files_read_by_one_schema_have_it_alike_whatever_their_own(tmp_path: Path) -> None:
    """Order, whether null is allowed, and how text is stored are each file's own affair: pieces go together."""
    text = pa.array(["a", "b", None])
    files = {
        "a": pa.table({"n": [1, 2, 3], "s": text}),
        "b": pa.table({"s": text.dictionary_encode(), "n": [4, 5, 6]}),
        "c": pa.table({"s": text.cast(pa.large_string()), "n": [7.5, 8, 9]}),
        "d": pa.table({"s": text.cast(pa.string_view()), "n": [1, 2, 3]}),
        "e": pa.table([[1, 2, 3], text], pa.schema([pa.field("n", pa.int64(), nullable=False), ("s", pa.string())])),
    }
    for name, table in files.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    fragments = list_fragments(Data(source="*.parquet"), tmp_path)
    schema = read_schema(fragments)
    for dictionary in ((), ("s",)):
        pieces = [piece for fragment in fragments for _, piece in read(fragment, None, dictionary, schema)]
        assert [piece.column_names for piece in pieces] == [["n", "s"]] * len(files)
        assert all(piece.column("s").cast(pa.string()).to_pylist() == ["a", "b", None] for piece in pieces)
        if not dictionary:
            assert pa.concat_tables(pieces).schema == schema


def test_times_in_json_stay_text_because_their_zone_would_be_lost(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"t": "2013-01-01T10:00:00+02:00"}\n')
    assert whole("t.jsonl", tmp_path).to_pydict() == {"t": ["2013-01-01T10:00:00+02:00"]}


def fails(source: str | list[str], base: Path) -> str:
    with pytest.raises(UserError) as error:
        whole(source, base)
    return str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert (
        fails("no.parquet", tmp_path)
        == f"data.source: 'no.parquet' does not exist (looked for {tmp_path}/no.parquet)"
    )


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    assert fails("void", tmp_path) == f"data.source: no files in the folder 'void' (looked in {tmp_path}/void)"


def test_a_glob_without_a_match_is_named(tmp_path: Path) -> None:
    assert fails("d/*.parquet", tmp_path) == f"data.source: no file matches 'd/*.parquet' (looked in {tmp_path}/d)"


@pytest.mark.parametrize("name", ["t.xlsx", "t.parquet.gz", "t"])
def test_an_unknown_suffix_lists_the_known(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    message = fails(name, tmp_path)
    assert f"{tmp_path}/{name}: unknown suffix" in message
    assert "allowed: .parquet .csv .jsonl .ndjson .arrow .feather, or set data.format" in message


def test_an_unknown_scheme_lists_the_known(tmp_path: Path) -> None:
    message = fails("ftp://host/t.parquet", tmp_path)
    assert "'ftp://host/t.parquet' cannot be opened" in message
    assert "s3://" in message


def test_a_table_without_rows_is_empty(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "t.parquet")
    assert fails("t.parquet", tmp_path) == f"the table is empty: no rows in {tmp_path}/t.parquet"


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "t.csv.gz"])
def test_a_file_without_a_byte_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert f"{tmp_path}/{name} cannot be read as " in fails(name, tmp_path)


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.arrow", "t.csv.gz"])
def test_a_truncated_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](pa.table({"s": [str(number) for number in range(50_000)]}), path)
    os.truncate(path, path.stat().st_size // 2)
    assert f"{path} cannot be read as " in fails(name, tmp_path)


def test_a_parquet_file_with_a_broken_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"s": [str(number) for number in range(50_000)]}), path)
    content = bytearray(path.read_bytes())
    content[100:3000] = bytes(2900)
    path.write_bytes(content)
    assert f"{path} cannot be read as parquet: " in fails("t.parquet", tmp_path)


def test_files_of_different_types_are_named_with_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": ["one"]}), tmp_path / "b.parquet")
    assert fails("*.parquet", tmp_path) == (
        f"files disagree: column 'x' is double in {tmp_path}/a.parquet and string in {tmp_path}/b.parquet"
    )


def test_files_of_different_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.0], "y": [1]}), tmp_path / "b.parquet")
    assert fails("*.parquet", tmp_path) == (
        f"files disagree: column 'y' is in {tmp_path}/b.parquet and not in {tmp_path}/a.parquet"
    )


def test_columns_named_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,a\n1,2,3\n")
    assert fails("t.csv", tmp_path) == f"{tmp_path}/t.csv: columns named more than once: a"
    (tmp_path / "s.csv").write_text("a,b\n1,2\n")
    assert fails("*.csv", tmp_path) == f"{tmp_path}/t.csv: columns named more than once: a"


@pytest.mark.parametrize("columns", [None, ["temp"]])
def test_mixed_types_in_csv_name_file_column_line_and_value(columns: list[str] | None, tmp_path: Path) -> None:
    lines = 2_000_000  # beyond the first block, on which types are inferred
    (tmp_path / "t.csv").write_text("a,temp\n" + "1,20\n" * lines + "1,warm\n")
    with pytest.raises(UserError) as error:
        whole("t.csv", tmp_path, columns=columns)
    assert str(error.value) == (
        f"{tmp_path}/t.csv: column 'temp' holds mixed types: it began as int64, line {lines + 2} holds 'warm'"
    )


def test_mixed_types_in_json_name_file_and_column(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"temp": 20}\n{"temp": "warm"}\n')
    message = fails("t.jsonl", tmp_path)
    assert message.startswith(f"{tmp_path}/t.jsonl cannot be read as jsonl: ")
    assert "Column(/temp) changed from number to string" in message


def test_a_csv_line_of_another_length_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,2,3\n")
    assert (
        fails("t.csv", tmp_path)
        == f"{tmp_path}/t.csv cannot be read as csv: CSV parse error: Row #3: Expected 2 columns, got 3: 1,2,3"
    )


def test_an_error_of_the_consumer_stays_its_own(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    (fragment,) = list_fragments(Data(source="t.parquet"), tmp_path)
    assert fragment == Fragment(str(tmp_path / "t.parquet"), "parquet", 0, 0, 3)

    def consume() -> None:
        for _ in read(fragment):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        consume()
