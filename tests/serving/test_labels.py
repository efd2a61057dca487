"""A label is on disk before it is acknowledged, is what the target allows, and a wrong one says where and why."""

import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.journal.rows import label_schema

ARROW = "application/vnd.apache.arrow.stream"
GOOD = {"binary": True, "multiclass": "b", "regression": 3.5}


def stream(table: pa.Table) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"content": sink.getvalue().to_pybytes(), "headers": {"content-type": ARROW}}


def labels(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"json": {"labels": rows}}


@pytest.fixture(params=GOOD)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def here(room: Any, version: Any, plans: Any, task: str) -> Any:
    made = room(label_commit=dt.timedelta(0))
    made.stand(version("1", plan=plans[task]))
    return made


def post(here: Any, content: dict[str, Any]) -> Any:
    [answer] = here.ask(("POST", "/rides/labels", content))
    return answer


def test_labels_are_written_with_id_and_time_before_they_are_acknowledged(here: Any, plans: Any, task: str) -> None:
    good = GOOD[task]
    rows = [{"id": "a", "label": good, "time": "2024-03-01T12:00:00Z"}, {"id": 7, "label": good}]
    before = dt.datetime.now(dt.UTC) - dt.timedelta(milliseconds=1)
    answer = post(here, labels(*rows))
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2})
    table = pa.table(
        {"id": ["a", "7"], "label": [good, good], "time": [dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC), None]}
    )
    assert post(here, stream(table)).status_code == 202
    assert [table.schema for _, table in here.kept.tables] == [label_schema(plans[task].target)] * 2
    found = here.kept.rows("labels")
    assert [(row["id"], row["label"]) for row in found] == [("a", good), ("7", good)] * 2
    assert found[0]["event"] == found[2]["event"] == dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
    for row in found[1::2]:
        assert before <= row["event"] == row["arrival"] <= dt.datetime.now(dt.UTC)


def test_a_full_disk_is_told_and_nothing_is_acknowledged(here: Any, task: str) -> None:
    here.kept.full = True
    answer = post(here, labels({"id": "a", "label": GOOD[task]}))
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the labels are not kept, send them again: the journal cannot be written"
    here.kept.full = False
    assert post(here, labels({"id": "a", "label": GOOD[task]})).status_code == 202
    assert len(here.kept.rows("labels")) == 1


def test_every_wrong_label_names_its_row_and_what_is_allowed(here: Any, task: str) -> None:
    good = {"id": "a", "label": GOOD[task]}
    wrong: list[Any] = [None, [], {"binary": 1, "multiclass": "d", "regression": "3.5"}[task], 1e300]
    for label in wrong:
        answer = post(here, labels(good, {"id": "b", "label": label}))
        problem = answer.json()
        assert (answer.status_code, problem["row"], problem["field"]) == (422, 1, "label"), label
        assert problem["allowed"] in problem["detail"]
    assert here.kept.tables == []


@pytest.mark.parametrize(
    ("row", "field", "code"),
    [
        ({"id": None}, "id", "null"),
        ({"id": 1.5}, "id", "wrong-type"),
        ({"id": "x" * 257}, "id", "wrong-type"),
        ({"time": "yesterday"}, "time", "not-allowed"),
        ({"time": True}, "time", "wrong-type"),
        ({"lable": 1}, "lable", "unknown-field"),
    ],
)
def test_every_other_wrong_field_is_named(here: Any, task: str, row: dict[str, Any], field: str, code: str) -> None:
    good = {"id": "a", "label": GOOD[task]}
    answer = post(here, labels(good, good | row))
    problem = answer.json()
    assert (answer.status_code, problem["row"], problem["field"]) == (422, 1, field)
    assert problem["type"].endswith(code)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        ({"json": {"labels": []}}, 422, "no-rows"),
        ({"json": {"labels": [{"id": "a"}]}}, 422, "missing-field"),
        ({"json": {"labels": 7}}, 422, "wrong-type"),
        ({"json": {}}, 422, "missing-field"),
        ({"json": {"labels": [], "more": 1}}, 422, "unknown-field"),
        ({"json": []}, 422, "wrong-type"),
        ({"content": b"{"}, 400, "malformed-json"),
        ({"content": b"\xff"}, 400, "malformed-json"),
        ({"content": b'{"labels": [{"id": 1.5'}, 422, "wrong-type"),
        ({"content": b'{"labels": [{"id": 1.5}], "labels": []}'}, 422, "wrong-type"),
        ({"content": b'{"labels": [{"id": "a", "label": %s}]}' % (b"9" * 5000)}, 422, "wrong-type"),
        ({"content": b"[" * 100_000}, 422, "wrong-type"),
        ({"content": b"x", "headers": {"content-type": "text/csv"}}, 415, "content-type"),
        ({"content": b"x", "headers": {"content-type": ARROW}}, 400, "malformed-arrow"),
        ({"content": b" " * 1_000_001}, 413, "body-too-large"),
        ({"json": {"labels": [{"id": "a", "label": 1}] * 2001}}, 413, "too-many-rows"),
    ],
)
def test_rubbish_is_refused(here: Any, content: dict[str, Any], status: int, code: str) -> None:
    answer = post(here, content)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:evertrue:problem:{code}")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": pa.array([1.5, 2.5])}, "wrong-type"),
        ({"id": pa.array(["a", None])}, "null"),
        ({"id": pa.array(["a", "x" * 257])}, "not-allowed"),
        ({"label": pa.array(["d", "e"])}, None),
        ({"label": pa.array([dt.date(2024, 1, 1)] * 2)}, "wrong-type"),
        ({"label": pa.nulls(2)}, "null"),
        ({"label": pa.array([1, 2**64 - 1], pa.uint64())}, None),
        ({"label": pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array([[1.0]]))}, "wrong-type"),
        ({"time": pa.array([True, False])}, "wrong-type"),
        ({"time": pa.array(["2024-01-01", "soon"])}, "not-allowed"),
        ({"more": pa.array([1, 2])}, "unknown-field"),
    ],
)
def test_arrow_refuses_the_same(here: Any, task: str, change: dict[str, pa.Array], code: str | None) -> None:
    answer = post(here, stream(pa.table({"id": ["a", "b"], "label": [GOOD[task]] * 2} | change)))
    assert answer.status_code == 422
    assert code is None or answer.json()["type"].endswith(code)
    assert answer.json()["field"] == next(iter(change))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_a_regression_takes_no_label_beyond_float32(room: Any, version: Any, plans: Any, value: float) -> None:
    here = room(label_commit=dt.timedelta(0))
    here.stand(version("1", plan=plans["regression"]))
    answer = post(here, stream(pa.table({"id": ["a", "b"], "label": np.array([1, value])})))
    assert (answer.status_code, answer.json()["row"]) == (422, 1)
    assert post(here, labels({"id": "a", "label": 3})).status_code == 202  # a whole number is a number
