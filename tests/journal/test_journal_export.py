"""The journal's labelled rows are a training table that reads as one with the declared source."""

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.data.fit import fit_here
from app.data.prepare import prepare
from app.declaration import read
from app.journal import export, manifests
from app.journal.export import export_labelled
from app.journal.rows import JournalError, label_schema, prediction_schema
from app.workspace import Workspace

SCHEMA = pa.schema(
    {
        "ride": pa.string(),
        "at": pa.timestamp("us"),
        "distance": pa.float64(),
        "rain": pa.bool_(),
        "zone": pa.dictionary(pa.int32(), pa.string()),
        "comment": pa.large_string(),
        "late": pa.bool_(),
    }
)


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "retrain" / "1" / "rows.parquet")


def test_rows_have_the_names_and_types_of_the_source(writer, journal, plan, predictions, labels, uri):
    writer.write("predictions", predictions(0, 6))
    writer.write("labels", labels([1, 3, 5]))
    assert export_labelled(journal, plan, SCHEMA, uri, timezone="America/New_York") == 3
    found = pq.read_table(uri)
    assert found.schema.types == [SCHEMA.field(n).type if n != "zone" else pa.string() for n in SCHEMA.names]
    assert found.to_pylist()[1] == {
        "ride": "r3",
        "at": dt.datetime(1969, 12, 31, 19, 0, 3),
        "distance": 0.375,
        "rain": True,
        "zone": "north",
        "comment": None,
        "late": True,
    }


def test_a_service_without_labels_exports_no_rows(writer, journal, plan, predictions, uri):
    writer.write("predictions", predictions(0, 6))
    assert export_labelled(journal, plan, SCHEMA, uri) == 0
    assert pq.read_table(uri).num_rows == 0


def test_event_times_bound_what_is_exported(writer, journal, plan, predictions, labels, uri):
    writer.write("predictions", predictions(0, 20))
    writer.write("labels", labels(range(20)))
    assert export_labelled(journal, plan, SCHEMA, uri, event_from=3_000, event_until=7_000) == 4
    assert pq.read_table(uri)["ride"].to_pylist() == ["r3", "r4", "r5", "r6"]


@pytest.mark.parametrize("piece_rows", [1, 7, 10_000])
def test_in_pieces_of_any_size_each_id_comes_once_with_its_last_label(
    piece_rows, writer, journal, plan, predictions, labels, uri, monkeypatch
):
    monkeypatch.setattr(export, "PIECE_ROWS", piece_rows)
    monkeypatch.setattr(manifests, "FANOUT", 2)
    for start in (0, 5, 10, 12):  # rows 10, 11, 12, 13, 14 come twice
        writer.write("predictions", predictions(start, start + (5 if start != 12 else 8)))
        journal.commit()
    writer.write("predictions", predictions(10, 12))
    writer.write("labels", labels(range(20)))
    writer.write("labels", labels([4], late=False, delay=999))
    assert export_labelled(journal, plan, SCHEMA, uri) == 20
    found = pq.read_table(uri)
    assert found["ride"].to_pylist() == [f"r{i}" for i in range(20)]
    assert found["late"].to_pylist() == [i != 4 for i in range(20)]
    assert found["distance"].to_pylist() == [i / 8 for i in range(20)]


@pytest.mark.parametrize(
    ("wanted", "values", "expected"),
    [
        (pa.int64(), [1.0, -7.0, None, 16777216.0], [1, -7, None, 16777216]),
        (pa.int8(), [127.0, 128.0, -128.0, -129.0], [127, None, -128, None]),
        (pa.int64(), [2.5, 3.5, 0.4999, 1e30], [2, 4, 0, None]),
        (pa.uint64(), [2.0**63, 2.0**64, -1.0, 0.0], [2**63, None, None, 0]),
        (pa.int64(), [2.0**63, -(2.0**63), 2.0**62, 5.0], [None, -(2**63), 2**62, 5]),
        (pa.float64(), [0.5, None, 1e30, -1.0], [0.5, None, float(np.float32(1e30)), -1.0]),
        (pa.float16(), [0.5, None, 2.0, -1.0], [0.5, None, 2.0, -1.0]),
        (pa.bool_(), [0.0, 1.0, None, 1.0], [False, True, None, True]),
        (pa.null(), [0.5, None, 2.0, -1.0], [0.5, None, 2.0, -1.0]),
        (pa.decimal128(4, 2), [0.5, None, 99.0, -1e30], [Decimal("0.5"), None, Decimal(99), None]),
    ],
)
def test_a_number_comes_back_in_the_sources_type_or_as_null(wanted, values, expected, writer, journal, uri):
    plan = FeaturePlan((NumberColumn("x"),), (), TargetColumn("y", "regression"), key="k")
    write(writer, plan, {"x": pa.array(values, pa.float32())}, ["1", "2", "3", "4"], [0.5, 1.5, 2.5, 3.5])
    schema = pa.schema({"x": wanted, "y": pa.float32(), "k": pa.string()})
    assert export_labelled(journal, plan, schema, uri) == 4
    found = pq.read_table(uri)
    assert found["x"].to_pylist() == expected
    assert found["y"].to_pylist() == [0.5, 1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ("kind", "wanted", "values", "expected"),
    [
        ("integer", pa.int16(), [1, -5, None, 70_000], [1, -5, None, None]),
        ("integer", pa.uint64(), [1, -5, None, 2**63 - 1], [1, None, None, 2**63 - 1]),
        ("boolean", pa.bool_(), [True, None, False, True], [True, None, False, True]),
        ("string", pa.large_string(), ["a", None, "", "ä"], ["a", None, "", "ä"]),
        ("string", pa.null(), ["a", None, "", "ä"], ["a", None, "", "ä"]),
        ("string", pa.float64(), ["1.5", None, "many", "7"], [1.5, None, None, 7.0]),  # what was a category before
        ("string", pa.bool_(), ["true", None, "perhaps", "false"], [True, None, None, False]),
        ("string", pa.int16(), ["300", None, "70000", "0x1f"], [300, None, None, None]),
        ("integer", pa.float32(), [7, None, 2**60 + 1, -1], [7.0, None, 2.0**60, -1.0]),
        ("boolean", pa.decimal128(4, 2), [True, None, False, True], [None] * 4),
    ],
)
def test_a_category_comes_back_in_the_sources_type_or_as_null(kind, wanted, values, expected, writer, journal, uri):
    target = TargetColumn("y", "multiclass", (10, 20, 30))
    plan = FeaturePlan((), (CategoryColumn("x", kind, ()),), target)
    write(writer, plan, {"x": pa.array(values)}, ["1", "2", "3", "4"], [10, 20, 30, 10])
    assert export_labelled(journal, plan, pa.schema({"x": wanted, "y": pa.int8()}), uri) == 4
    assert pq.read_table(uri)["x"].to_pylist() == expected
    assert pq.read_table(uri)["y"].to_pylist() == [10, 20, 30, 10]


def write(writer, plan, features, ids, label):
    n = len(ids)
    moments = pa.array([1_372_636_800_250] * n, pa.timestamp("ms", "UTC"))
    fixed = {"id": ids, "event": moments, "arrival": moments, "version": ["1"] * n, "role": ["champion"] * n}
    struct = pa.StructArray.from_arrays(list(features.values()), names=list(features))
    schema = prediction_schema(plan)
    empty = {name: pa.nulls(n, schema.field(name).type) for name in ("score", "shadow_version", "shadow_score")}
    writer.write("predictions", pa.table({**fixed, **empty, "features": struct}, schema=schema))
    table = {"id": ids, "label": label, "event": moments, "arrival": moments}
    writer.write("labels", pa.table(table, schema=label_schema(plan.target)))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (pa.timestamp("s", "UTC"), dt.datetime(2013, 7, 1, 0, 0, 0, tzinfo=dt.UTC)),
        (pa.timestamp("ns", "Asia/Tokyo"), dt.datetime(2013, 7, 1, 0, 0, 0, 250_000, tzinfo=dt.UTC)),
        (pa.timestamp("ms"), dt.datetime(2013, 6, 30, 20, 0, 0, 250_000)),
        (pa.date32(), dt.date(2013, 6, 30)),
        (pa.string(), "2013-07-01T00:00:00.250Z"),
    ],
)
def test_a_time_comes_back_as_the_source_tells_it(wanted, expected, writer, journal, uri):
    plan = FeaturePlan((NumberColumn("x"),), (), TargetColumn("y", "regression"), time="t")
    write(writer, plan, {"x": pa.array([1.0], pa.float32())}, ["1"], [0.5])
    export_labelled(journal, plan, pa.schema({"t": wanted, "y": pa.float64()}), uri, timezone="America/New_York")
    assert pq.read_table(uri).schema.field("t").type == (
        wanted if wanted != pa.timestamp("s", "UTC") else pa.timestamp("ms", "UTC")
    )
    assert pq.read_table(uri)["t"][0].as_py() == expected


def test_an_id_that_the_key_cannot_hold_is_left_out(writer, journal, uri):
    plan = FeaturePlan((NumberColumn("x"),), (), TargetColumn("y", "regression"), key="k")
    ids = ["12", "0192e4a0-7b1c-7d11-9a9e-aaaaaaaaaaaa", "-3", "99999999999999999999"]
    write(writer, plan, {"x": pa.array([1.0, 2.0, 3.0, 4.0], pa.float32())}, ids, [1.0, 2.0, 3.0, 4.0])
    assert export_labelled(journal, plan, pa.schema({"k": pa.int64(), "y": pa.float64()}), uri) == 2
    assert pq.read_table(uri).to_pylist() == [{"k": 12, "y": 1.0}, {"k": -3, "y": 3.0}]
    assert export_labelled(journal, plan, pa.schema({"k": pa.int8(), "y": pa.float64()}), uri) == 2


@pytest.mark.parametrize(
    ("wanted", "kept"), [(pa.int64(), [2**63 - 1, 300]), (pa.int16(), [300]), (pa.uint64(), [2**63, 2**63 - 1, 300])]
)
def test_an_id_is_kept_where_the_key_holds_it_however_long(wanted, kept, writer, journal, uri):
    plan = FeaturePlan((NumberColumn("x"),), (), TargetColumn("y", "regression"), key="k")
    write(writer, plan, {"x": pa.array([1.0] * 3, pa.float32())}, [str(2**63), str(2**63 - 1), "300"], [1.0] * 3)
    assert export_labelled(journal, plan, pa.schema({"k": wanted, "y": pa.float64()}), uri) == len(kept)
    assert pq.read_table(uri)["k"].to_pylist() == kept


def test_an_export_that_fails_leaves_no_file(writer, journal, plan, predictions, labels, uri, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    writer.write("predictions", predictions(0, 6))
    writer.write("labels", labels([1]))
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(JournalError, match="cannot be written: No space left on device"):
        export_labelled(journal, plan, SCHEMA, uri)
    assert not Path(uri).exists()


def test_source_and_export_are_prepared_as_one_table(declaration, tmp_path, journal, writer, uri):
    """The declared rides, then the newest of them again as if they had been predicted and labelled."""
    source = pq.read_table(declaration.path.parent / "rides.parquet")
    folder = tmp_path / "declared"
    folder.mkdir()
    older, newer = source.slice(0, 5000), source.slice(5000)
    pq.write_table(older, folder / "rides.parquet")
    (folder / "rides.yaml").write_text(declaration.path.read_text())
    declared = read(folder / "rides.yaml")
    workspace = Workspace.open(str(tmp_path / "workspace"))
    plan = fit_here(prepare(declared, workspace, run=map), declared.spec)
    types = prediction_schema(plan).field("features").type
    features = pa.StructArray.from_arrays(
        [newer[field.name].cast(field.type).combine_chunks() for field in types], fields=list(types)
    )
    moments = newer["at"].cast(pa.timestamp("ms", "UTC"))
    n = newer.num_rows
    rows = {"id": newer["ride"], "event": moments, "arrival": moments, "version": ["1"] * n, "role": ["champion"] * n}
    schema = prediction_schema(plan)
    empty = {name: pa.nulls(n, schema.field(name).type) for name in ("score", "shadow_version", "shadow_score")}
    writer.write("predictions", pa.table({**rows, **empty, "features": features}, schema=schema))
    late = {"id": newer["ride"], "label": newer["late"], "event": moments, "arrival": moments}
    writer.write("labels", pa.table(late, schema=label_schema(plan.target)))
    assert export_labelled(journal, plan, source.schema, uri) == 1000

    data = declared.spec.data.model_copy(update={"source": ["rides.parquet", uri]})
    both = prepare(replace(declared, spec=declared.spec.model_copy(update={"data": data})), workspace, run=map)
    whole = prepare(declaration, workspace, run=map)
    assert (both.rows, both.labelled, both.quarantined) == (6000, 6000, {})
    assert both.schema == whole.schema
    assert fit_here(both, declared.spec) == fit_here(whole, declared.spec)
