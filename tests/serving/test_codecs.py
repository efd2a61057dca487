"""Every format gives the same features, and refuses the same mistakes with the row, the field and what is allowed."""

import datetime as dt
import json
import uuid
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.serving.arrow_codec import ArrowCodec
from app.serving.codec import Fields, Mixed
from app.serving.identifiers import uuid7, uuid7_array
from app.serving.json_codec import JsonCodec
from app.serving.moments import UNKNOWN
from app.serving.problems import Problem
from app.types import Features

PLAN = FeaturePlan(
    number=(
        NumberColumn("temp", min=-60, max=140),
        NumberColumn("odd name.[0]"),
        NumberColumn("seats", required=True),
    ),
    category=(
        CategoryColumn("origin", "string", ("JFK", "LGA"), values=("JFK", "LGA", "EWR")),
        CategoryColumn("carrier", "string", ("AA", "UA"), required=True),
        CategoryColumn("gate", "integer", (7, 8)),
        CategoryColumn("night", "boolean", (False, True)),
    ),
    target=TargetColumn("late", "binary", (False, True)),
    key="flight",
    time="when",
)
ROW: dict[str, Any] = {
    "temp": 51.5, "odd name.[0]": None, "seats": 180, "origin": "JFK", "carrier": "UA", "gate": 8, "night": None,
}  # fmt: skip
FIELDS = Fields(PLAN, max_rows=1000)
JSON = JsonCodec(FIELDS, "flights/3", threshold=0.5)
ARROW = ArrowCodec(FIELDS, "flights/3", threshold=0.5)


def rows_body(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"rows": rows}).encode()


def columns_body(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"columns": {name: [row[name] for row in rows] for name in rows[0]}}).encode()


def arrow_body(*rows: dict[str, Any]) -> bytes:
    types = {"temp": pa.float64(), "odd name.[0]": pa.float64(), "seats": pa.int64(), "origin": pa.string()}
    types |= {"carrier": pa.string(), "gate": pa.int64(), "night": pa.bool_()}
    table = pa.table({name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]})
    return stream(table)


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def refused(body: bytes, codec: JsonCodec | ArrowCodec = JSON) -> Problem:
    with pytest.raises(Problem) as caught:
        codec.decode(body)
    return caught.value


def same(left: Features, right: Features) -> None:
    np.testing.assert_array_equal(left.number, right.number)
    np.testing.assert_array_equal(left.category, right.category)


number = st.none() | st.floats(-1e30, 1e30) | st.integers(-(2**53), 2**53)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "temp": st.none() | st.floats(-60, 140),
            "odd name.[0]": number,
            "seats": st.integers(-(2**53), 2**53),
            "origin": st.none() | st.sampled_from(["JFK", "LGA", "EWR"]),
            "carrier": st.text(),
            "gate": st.none() | st.integers(-(2**63), 2**63 - 1),
            "night": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=20,
)


@given(rows)
def test_rows_columns_and_arrow_give_bit_equal_features(rows: list[dict[str, Any]]) -> None:
    expected = JSON.decode(rows_body(*rows)).features
    same(JSON.decode(columns_body(*rows)).features, expected)
    same(ARROW.decode(arrow_body(*rows)).features, expected)
    same(JSON.decode(json.dumps(rows[0]).encode()).features, expected.rows(slice(0, 1)))


def test_a_row_becomes_numbers_with_nan_and_ids_into_the_vocabulary() -> None:
    features = JSON.decode(rows_body(ROW, {**ROW, "origin": None, "carrier": "never seen"})).features
    np.testing.assert_array_equal(features.number, np.array([[51.5, np.nan, 180]] * 2, np.float32))
    assert features.category.tolist() == [[2, 3, 3, 0], [0, 1, 3, 0]]


@pytest.mark.parametrize(
    ("change", "status", "code", "says"),
    [
        ({"temp": "abc"}, 422, "wrong-type", ("row 1", "'temp'", "found str", "number or null")),
        ({"temp": 141}, 422, "not-allowed", ("row 1", "'temp'", "found 141", "at least -60 and at most 140")),
        ({"temp": True}, 422, "wrong-type", ("'temp'", "found bool")),
        ({"seats": None}, 422, "null", ("row 1", "'seats'", "null")),
        ({"seats": 1e300}, 422, "not-finite", ("row 1", "'seats'", "3.4028e+38")),
        ({"odd name.[0]": "x"}, 422, "wrong-type", ("row 1",)),
        ({"origin": "BOS"}, 422, "not-allowed", ("'BOS'", "'JFK', 'LGA', 'EWR'")),
        ({"carrier": None}, 422, "null", ("'carrier'",)),
        ({"gate": "7"}, 422, "wrong-type", ("'gate'", "integer or null")),
        ({"gate": True}, 422, "wrong-type", ("'gate'", "found bool")),
        ({"night": 1}, 422, "wrong-type", ("'night'", "boolean or null")),
        ({"tmep": 1}, 422, "unknown-field", ("row 1", "'tmep'", "temp")),
        ({"flight": 1.5}, 422, "wrong-type", ("'flight'",)),
        ({"flight": 2**63}, 422, "not-allowed", ("'flight'", "64 bits")),
        ({"id": "x" * 257}, 422, "not-allowed", ("'id'", "256 characters")),
        ({"gate": 2**63}, 422, "not-allowed", ("'gate'", "64 bits")),
    ],
)
def test_a_wrong_value_is_refused_with_row_field_found_and_allowed(
    change: dict[str, Any], status: int, code: str, says: tuple[str, ...]
) -> None:
    problem = refused(rows_body(ROW, {**ROW, **change}))
    document = json.loads(problem.body())
    assert (document["status"], document["type"]) == (status, f"urn:evertrue:problem:{code}")
    assert document["row"] == 1
    for part in says:
        assert part in document["detail"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"temp": 141.0}, "not-allowed"),
        ({"seats": 1e300}, "not-finite"),
        ({"origin": "BOS"}, "not-allowed"),
        ({"carrier": None}, "null"),
        ({"temp": float("inf")}, "not-allowed"),
        ({"odd name.[0]": float("inf")}, "not-finite"),
        ({"tmep": 1.0}, "unknown-field"),
    ],
)
def test_arrow_refuses_the_same_values(change: dict[str, Any], code: str) -> None:
    row = {**ROW, **change}
    if isinstance(row["seats"], float):
        body = stream(
            pa.Table.from_pylist([row]).cast(
                pa.schema([(n, pa.null() if row[n] is None else pa.scalar(row[n]).type) for n in row])
            )
        )
    else:
        body = arrow_body(row)
    assert refused(body, ARROW).code == code


@pytest.mark.parametrize("codec", [JSON, ARROW])
def test_a_missing_feature_is_refused_and_never_becomes_null(codec: JsonCodec | ArrowCodec) -> None:
    row = {name: value for name, value in ROW.items() if name != "temp"}
    problem = refused(rows_body(row) if codec is JSON else arrow_body(row), codec)
    assert problem.code == "missing-field"
    assert "'temp' is missing; send null" in str(problem)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed-json"),
        (b"{", 400, "malformed-json"),
        (b"\xff\xfe", 400, "malformed-json"),
        (b'{"rows": [{"temp": NaN}]}', 400, "malformed-json"),
        (b'{"rows": [{"temp": Infinity}]}', 400, "malformed-json"),
        (b"[" * 100_000, 422, "wrong-type"),
        (b"[]", 422, "wrong-type"),
        (b"7", 422, "wrong-type"),
        (b'{"rows": 7}', 422, "wrong-type"),
        (b'{"rows": [7]}', 422, "wrong-type"),
        (b'{"rows": []}', 422, "no-rows"),
        (b'{"rows": [], "more": 1}', 422, "unknown-field"),
        (b'{"columns": {}}', 422, "missing-field"),
        (rows_body(*[ROW] * 1001), 413, "too-many-rows"),
        (columns_body(*[ROW] * 1001), 413, "too-many-rows"),
    ],
)
def test_json_rubbish_is_refused(body: bytes, status: int, code: str) -> None:
    problem = refused(body)
    assert (problem.status, problem.code) == (status, code)


@pytest.mark.parametrize(
    "rest",
    [
        b'"}',  # cut off
        b'"}], "rows": []}',  # the name is there twice
        b'", "seats": ' + b"9" * 5000 + b"}]}",
        b'", "seats": ' + b"[" * 100_000,
        b'", "carrier": "\xff"}]}',
        b'\xed\xa0\x80"}]}',  # half a surrogate pair
    ],
)
def test_a_wrong_value_is_named_whatever_follows_it(rest: bytes) -> None:
    problem = refused(b'{"rows": [{"temp": "warm' + rest)
    document = json.loads(problem.body())
    assert (document["status"], document["row"], document["field"]) == (422, 0, "temp")
    assert "got `str`" in document["detail"]


@pytest.mark.parametrize("name", ["x" * 1_000_000, "\n" * 1_000_000])
def test_a_megabyte_that_is_sent_does_not_come_back(name: str) -> None:
    problem = refused(json.dumps({"rows": [{name: 1}]}).encode())
    assert (problem.code, len(problem.body()) < 2000) == ("unknown-field", True)


@pytest.mark.parametrize("name", ["temp", "gate", "flight", "when"])
def test_a_number_of_more_digits_than_python_reads_is_refused(name: str) -> None:
    body = rows_body({**ROW, name: "here"}).replace(b'"here"', b"9" * 5000)
    assert (refused(body).status, json.loads(refused(body).body())["field"]) == (422, name)


def test_a_number_beyond_float64_is_refused() -> None:
    body = rows_body(ROW).replace(b"180", b"1e999")
    assert refused(body).code == "not-finite"


def test_columns_of_unequal_length_are_refused() -> None:
    body = json.loads(columns_body(ROW, ROW))
    body["columns"]["gate"].pop()
    problem = refused(json.dumps(body).encode())
    assert problem.code == "uneven-columns"
    assert "'gate' has 1 values" in str(problem)


@pytest.mark.parametrize("cut", [10, 200, -8, -200])
def test_a_truncated_arrow_stream_is_refused(cut: int) -> None:
    assert refused(arrow_body(ROW, ROW)[:cut], ARROW).code == "malformed-arrow"


@given(st.binary(max_size=300))
def test_no_bytes_whatever_get_past_the_codecs_as_anything_but_a_problem(body: bytes) -> None:
    for codec in (JSON, ARROW):
        assert refused(body, codec).status in (400, 422)


def test_an_arrow_stream_with_another_type_or_a_doubled_column_is_refused() -> None:
    table = pa.ipc.open_stream(arrow_body(ROW)).read_all()
    text = table.set_column(0, "temp", pa.array(["51"]))
    assert refused(stream(text), ARROW).code == "wrong-type"
    assert refused(stream(table.append_column("temp", pa.array([1.0]))), ARROW).code == "duplicate-column"
    assert refused(stream(table.slice(0, 0)), ARROW).code == "no-rows"


def test_arrow_takes_dictionaries_and_columns_of_nulls() -> None:
    table = pa.ipc.open_stream(arrow_body(ROW)).read_all()
    encoded = table.set_column(3, "origin", table["origin"].dictionary_encode()).set_column(6, "night", pa.nulls(1))
    same(ARROW.decode(stream(encoded)).features, JSON.decode(rows_body(ROW)).features)


def replaced(name: str, column: pa.Array) -> bytes:
    """Return a stream of good rows, but for one column."""
    table = pa.ipc.open_stream(arrow_body(*[ROW] * len(column))).read_all()
    if name not in table.column_names:
        return stream(table.append_column(name, column))
    return stream(table.set_column(table.column_names.index(name), name, column))


def named(values: pa.Array, *index: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(index, pa.int8()), values)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.uint32(), pa.uint64(), pa.int64()])
def test_arrow_takes_whole_numbers_however_narrow_and_refuses_those_that_are_not_allowed(kind: pa.DataType) -> None:
    limited = FeaturePlan(
        (), (CategoryColumn("gate", "integer", (7, 8), values=(7, 8, 300, -1)),), TargetColumn("late", "binary")
    )
    codec = ArrowCodec(Fields(limited, 10), "flights/3", 0.5)
    for column in (pa.array([8, None, 7], kind), named(pa.array([7, 8, 9], kind), 1, 0, 0)):
        assert codec.decode(stream(pa.table({"gate": column}))).features.category[0, 0] == 3
    for column in (pa.array([None, 9], kind), named(pa.array([7, 8, 9], kind), 0, 2)):
        problem = refused(stream(pa.table({"gate": column})), codec)
        assert (problem.code, problem.row, problem.document["found"]) == ("not-allowed", 1, 9)


@pytest.mark.parametrize(
    ("name", "column", "code", "row"),
    [
        ("gate", pa.array([7, 2**64 - 1], pa.uint64()), "not-allowed", 1),
        ("gate", named(pa.array([7, 2**64 - 1], pa.uint64()), 0, 1), "not-allowed", None),
        ("gate", named(pa.nulls(1), 0, 0), "wrong-type", None),
        ("carrier", named(pa.array(["UA", None]), 0, 1), "null", 1),
        ("when", pa.array([None, 2**64 - 1], pa.uint64()), "not-allowed", 1),
        ("when", pa.array([0, 2**31 - 1], pa.date32()), "not-allowed", 1),
        ("when", named(pa.array([[1.0]]), 0, 0), "wrong-type", None),
    ],
)
def test_arrow_values_that_no_json_could_hold_are_refused(
    name: str, column: pa.Array, code: str, row: int | None
) -> None:
    problem = refused(replaced(name, column), ARROW)
    assert (problem.code, problem.row, problem.document["field"]) == (code, row, name)


def test_rows_keep_the_ids_their_caller_gave_and_get_uuid7_otherwise() -> None:
    assert JSON.decode(rows_body({**ROW, "flight": "AA-1"}, {**ROW, "id": 7})).ids == ["AA-1", 7]
    assert ARROW.decode(arrow_body({**ROW, "id": "x"})).ids.to_pylist() == ["x"]
    made = JSON.decode(rows_body(ROW, ROW)).ids
    assert len(set(made)) == 2
    assert [uuid.UUID(str(name)).version for name in made] == [7, 7]


def test_a_row_without_a_key_is_known_by_its_id_in_every_format() -> None:
    rows = [
        {**ROW, "flight": "AA-1", "id": "a"},
        {**ROW, "flight": None, "id": "b"},
        {**ROW, "flight": None, "id": None},
    ]
    for ids in (
        JSON.decode(rows_body(*rows)).ids,
        JSON.decode(columns_body(*rows)).ids,
        ARROW.decode(arrow_body(*rows)).ids.to_pylist(),
    ):
        assert list(ids[:2]) == ["AA-1", "b"]
        assert uuid.UUID(str(ids[2])).version == 7
    assert ARROW.decode(arrow_body({**ROW, "flight": None, "id": "b"})).ids.to_pylist() == ["b"]  # a column of nulls
    assert JSON.decode(columns_body({**ROW, "flight": 0, "id": "b"})).ids == [0]


def test_arrow_refuses_an_id_that_is_too_long_as_json_does() -> None:
    rows = {**ROW, "id": "\u00e9" * 256}, {**ROW, "id": "x" * 257}
    problem = refused(arrow_body(*rows), ARROW)
    assert (problem.code, problem.row, problem.document["field"]) == ("not-allowed", 1, "id")
    assert ARROW.decode(arrow_body(rows[0])).ids.to_pylist() == [rows[0]["id"]]


def test_uuid7_sorts_by_time_and_both_makers_agree_on_its_form() -> None:
    for name in [uuid7(), *uuid7_array(1000).to_pylist()]:
        parsed = uuid.UUID(name)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert uuid7()[:8] <= uuid7_array(1)[0].as_py()[:8]
    assert len(set(uuid7_array(1000).to_pylist())) == 1000


def test_a_binary_answer_holds_id_score_and_label_by_the_threshold() -> None:
    batch = JSON.decode(rows_body({**ROW, "id": "a"}, {**ROW, "id": "b"}))
    scores = np.array([0.25, 0.5], np.float32)
    assert msgspec.json.decode(JSON.encode(batch, scores)) == {
        "model": "flights/3",
        "predictions": [{"id": "a", "score": 0.25, "label": False}, {"id": "b", "score": 0.5, "label": True}],
    }
    table = pa.ipc.open_stream(ARROW.encode(batch, scores)).read_all()
    assert table.drop("model").to_pylist() == [
        {"id": "a", "score": 0.25, "label": False},
        {"id": "b", "score": 0.5, "label": True},
    ]
    assert table.schema.metadata == {b"model": b"flights/3"}
    assert table["model"].to_pylist() == ["flights/3"] * 2


@pytest.mark.parametrize("theirs", [[False, True], [True, True], [False, False]])
def test_an_answer_of_two_models_tells_of_every_row_whose_it_is(theirs: list[bool]) -> None:
    batch = JSON.decode(rows_body(ROW, ROW))
    scores, mixed = np.array([0.25, 0.5], np.float32), Mixed("flights/4", np.array(theirs))
    answer = msgspec.json.decode(JSON.encode(batch, scores, mixed))
    assert answer["model"] == ("flights/4" if all(theirs) else "flights/3")
    expected = ["flights/4" if one else "flights/3" for one in theirs]
    assert [one.get("model", answer["model"]) for one in answer["predictions"]] == expected
    table = pa.ipc.open_stream(ARROW.encode(batch, scores, mixed)).read_all()
    assert table["model"].to_pylist() == expected
    assert table.schema.metadata == {b"model": answer["model"].encode()}


def test_multiclass_names_the_winner_and_every_class_and_regression_only_scores() -> None:
    several = FeaturePlan(PLAN.number, PLAN.category, TargetColumn("size", "multiclass", ("S", "M", "L")))
    scores = np.array([[0.25, 0.5, 0.25]], np.float32)
    for codec in (JsonCodec(Fields(several, 10), "m/1", 0.5), ArrowCodec(Fields(several, 10), "m/1", 0.5)):
        batch = codec.decode(rows_body(ROW) if isinstance(codec, JsonCodec) else arrow_body(ROW))
        body = codec.encode(batch, scores)
        if isinstance(codec, JsonCodec):
            answer = msgspec.json.decode(body)["predictions"][0]
            assert answer["scores"] == {"S": 0.25, "M": 0.5, "L": 0.25}
        else:
            answer = pa.ipc.open_stream(body).read_all().to_pylist()[0]
            assert answer["scores"] == [0.25, 0.5, 0.25]
        assert (answer["label"], answer["score"]) == ("M", 0.5)
    price = FeaturePlan(PLAN.number, PLAN.category, TargetColumn("price", "regression"))
    codec = JsonCodec(Fields(price, 10), "m/1", 0.5)
    answer = msgspec.json.decode(codec.encode(codec.decode(rows_body({**ROW, "id": 1})), np.array([9.5], np.float32)))
    assert answer["predictions"] == [{"id": 1, "score": 9.5}]


@pytest.mark.parametrize(
    ("sent", "moment"),
    [
        ("2024-03-01T12:00:00Z", 1_709_294_400_000),
        ("2024-03-01 12:00:00.250+01:00", 1_709_290_800_250),
        ("2024-03-01T12:00:00", 1_709_294_400_000 + 5 * 3_600_000),  # local to the declared zone
        ("2024-03-01", 1_709_251_200_000 + 5 * 3_600_000),
        (1_709_294_400_000, 1_709_294_400_000),
        (-1, -1),
    ],
)
def test_every_format_reads_the_same_moment(sent: str | int, moment: int) -> None:
    fields = Fields(PLAN, 1000, timezone="America/New_York")
    codecs = JsonCodec(fields, "flights/3", 0.5), ArrowCodec(fields, "flights/3", 0.5)
    rows = [{**ROW, "when": sent}, {**ROW, "when": None}]
    table = pa.ipc.open_stream(arrow_body(ROW, ROW)).read_all().append_column("when", pa.array([sent, None]))
    for batch in (
        codecs[0].decode(rows_body(*rows)),
        codecs[0].decode(columns_body(*rows)),
        codecs[1].decode(stream(table)),
    ):
        assert batch.event is not None
        assert batch.event.tolist() == [moment, UNKNOWN]


def test_arrow_times_of_any_type_are_read_and_rows_without_time_have_none() -> None:
    table = pa.ipc.open_stream(arrow_body(ROW)).read_all()
    moment = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
    for column in (
        pa.array([moment], pa.timestamp("ns", "Asia/Tokyo")),
        pa.array([moment.replace(tzinfo=None)], pa.timestamp("s")),
        pa.array(["2024-03-01T12:00"]).dictionary_encode(),
    ):
        event = ARROW.decode(stream(table.append_column("when", column))).event
        assert event is not None
        assert event.tolist() == [1_709_294_400_000]
    day = ARROW.decode(stream(table.append_column("when", pa.array([moment.date()])))).event
    assert day is not None
    assert day.tolist() == [1_709_251_200_000]
    assert ARROW.decode(stream(table)).event is None
    assert JSON.decode(rows_body(ROW)).event is None


@pytest.mark.parametrize("sent", ["yesterday", "2024-13-01", "", 253_402_300_800_000, True, 1.5])
def test_a_time_that_is_no_moment_is_refused_with_its_row(sent: object) -> None:
    wrong = {**ROW, "when": sent}
    for body in (rows_body({**ROW, "when": None}, wrong), columns_body({**ROW, "when": None}, wrong)):
        problem = refused(body)
        assert (problem.status, problem.row) == (422, 1)
        assert "'when'" in str(problem)
        assert "ISO 8601" in str(problem)


@pytest.mark.parametrize("column", [["yesterday"], [253_402_300_800_000], [True], [1.5]])
def test_arrow_refuses_a_time_that_is_no_moment(column: list[object]) -> None:
    table = pa.ipc.open_stream(arrow_body(ROW)).read_all().append_column("when", pa.array(column))
    problem = refused(stream(table), ARROW)
    assert problem.status == 422
    assert "ISO 8601" in str(problem)
    beyond = pa.ipc.open_stream(arrow_body(ROW)).read_all()
    beyond = beyond.append_column("when", pa.array([2**62], pa.timestamp("s")))
    assert refused(stream(beyond), ARROW).code == "not-allowed"


def test_values_the_features_have_lost_can_still_be_asked_for() -> None:
    rows = [ROW, {**ROW, "carrier": "never seen", "gate": 99}]
    for batch in (JSON.decode(rows_body(*rows)), JSON.decode(columns_body(*rows)), ARROW.decode(arrow_body(*rows))):
        assert (batch.sent(1, 1), batch.sent(1, 2), batch.sent(0, 0)) == ("never seen", 99, "JFK")
