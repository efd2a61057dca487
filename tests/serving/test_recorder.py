"""What was answered is in the journal as it was sent; what the journal cannot take holds up nobody."""

import datetime as dt
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.journal.rows import PROFILES, prediction_schema
from app.lineup import bucket
from app.serving import profiles as profiling
from app.serving import recorder as recording
from app.types import Features, Scores

HOUR = 3_600_000
ROW = {"distance": 250.0, "passengers": 2, "zone": "north", "rain": True}
ARROW = "application/vnd.apache.arrow.stream"


def stream(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"content": sink.getvalue().to_pybytes(), "headers": {"content-type": ARROW}}


def test_every_answered_row_is_journaled_as_sent_whatever_its_format(room: Any, version: Any) -> None:
    here = room()
    loaded = version("1")
    here.stand(loaded)
    rows = [
        ROW | {"ride": "a", "at": "2024-03-01T12:30:00Z"},
        ROW | {"ride": 7, "at": 1_709_300_000_000, "zone": "never seen", "distance": None},
        ROW | {"ride": "c", "at": None, "zone": None, "rain": None},
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    table = [row | {"ride": str(row["ride"]), "at": None} for row in rows]
    for content in ({"json": {"rows": rows}}, {"json": {"columns": columns}}, stream(table)):
        assert here.ask(("POST", "/rides/predict", content))[0].status_code == 200
    here.recorder.flush()
    assert here.kept.tables[0][1].schema == prediction_schema(loaded.plan)
    found = here.kept.rows("predictions")
    assert [row["id"] for row in found] == ["a", "7", "c"] * 3
    assert [row["features"] for row in found] == [
        {"distance": 250.0, "passengers": 2.0, "zone": "north", "rain": True},
        {"distance": None, "passengers": 2.0, "zone": "never seen", "rain": True},
        {"distance": 250.0, "passengers": 2.0, "zone": None, "rain": None},
    ] * 3
    assert [round(row["score"], 3) for row in found] == [0.25, 0, 0.25] * 3
    assert {(row["version"], row["role"], row["shadow_version"], row["shadow_score"]) for row in found} == {
        ("1", "champion", None, None)
    }
    assert found[0]["event"] == dt.datetime(2024, 3, 1, 12, 30, tzinfo=dt.UTC)
    assert [row["event"] for row in found[2:]] == [found[2]["arrival"], *(row["event"] for row in found[3:])]
    assert found[8]["event"] == found[8]["arrival"]


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_scores_of_every_task_are_journaled(room: Any, version: Any, plans: Any, task: str) -> None:
    def score(features: Features) -> Scores:
        rows = len(features.number)
        return (
            np.tile(np.float32([0.5, 0.25, 0.25]), (rows, 1))
            if task == "multiclass"
            else np.full(rows, 3, np.float32)
        )

    here = room()
    here.stand(version("1", score, plans[task]), version("2", score, plans[task]))
    here.predict(ROW, ROW)
    here.recorder.flush()
    expected = [0.5, 0.25, 0.25] if task == "multiclass" else 3
    for row in here.kept.rows("predictions"):
        assert (row["score"], row["shadow_score"], row["shadow_version"]) == (expected, expected, "2")


def test_profiles_count_what_was_scored_by_version_and_hour_and_add_up(room: Any, version: Any) -> None:
    here = room()
    loaded = version("1")
    here.stand(loaded)
    hours = [0, 0, 5, 400, *range(1000, 1300)]
    rows = [ROW | {"at": hour * HOUR + 1, "distance": float(i)} for i, hour in enumerate(hours)]
    here.predict(*rows)
    here.recorder.flush()
    profiles = [table for name, table in here.kept.tables if name == "profiles"]
    assert profiles[0].schema == PROFILES
    found = here.kept.rows("profiles")
    assert {(row["version"], row["role"], row["reference"], row["replica"]) for row in found} == {
        ("1", "champion", "bundle1", "replica")
    }
    windows = {int(row["window"].timestamp() * 1000) // HOUR: row for row in found}
    assert sorted(windows) == sorted(set(hours))
    assert windows[0]["rows"] == 2
    assert sum(row["calls"] for row in found) == 1
    assert sum(sum(row["seconds"]) for row in found) == 1
    shape = (len(loaded.binning.watched), loaded.binning.width)
    total = sum(np.frombuffer(row["counts"], "<u4").reshape(shape) for row in found)
    batch = loaded.codecs["application/json"].decode(json.dumps({"rows": rows}).encode())
    np.testing.assert_array_equal(total, loaded.binning.count(batch.features, loaded.runtime.score(batch.features)))


def test_values_are_counted_in_a_bounded_number_of_hours_and_rows_in_all(
    room: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "_MOST_HOURS", 2)
    here = room()
    here.stand(version("1"))
    here.predict(*[ROW | {"at": hour * HOUR} for hour in (9, 1, 2, 3, 4, 9, 9, 3)])
    here.recorder.flush()
    found = here.kept.rows("profiles")
    counted = {
        int(row["window"].timestamp() * 1000) // HOUR: row["rows"] for row in found if row["counts"] is not None
    }
    assert counted == {9: 3, 3: 2}
    assert sum(row["rows"] for row in found) == 8


def test_a_sample_is_chosen_by_id_and_profiles_still_count_every_row(room: Any, version: Any) -> None:
    here = room(sample=0.3)
    here.stand(version("1"))
    ids = [f"ride-{i}" for i in range(300)]
    here.predict(*(ROW | {"ride": name} for name in ids))
    here.recorder.flush()
    assert [row["id"] for row in here.kept.rows("predictions")] == [i for i in ids if bucket(i, "journal") < 0.3]
    assert sum(row["rows"] for row in here.kept.rows("profiles")) == 300


def test_a_full_disk_holds_up_nobody_and_rows_are_written_when_there_is_room_again(room: Any, version: Any) -> None:
    here = room()
    here.stand(version("1"))
    here.kept.full = True
    assert here.predict(ROW | {"ride": "a"}).status_code == 200
    here.recorder.flush()
    assert here.predict(ROW | {"ride": "b"}).status_code == 200
    here.kept.full = False
    here.recorder.flush()
    assert [row["id"] for row in here.kept.rows("predictions")] == ["a", "b"]
    assert sum(row["rows"] for row in here.kept.rows("profiles")) == 2
    assert here.count("evertrue_journal_dropped_rows_total") == 0


def test_rows_that_come_while_rows_are_written_wait_for_the_next_flush(
    room: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ROWS_AT_ONCE", 2)
    here = room()
    here.stand(version("1"))
    names, write = iter("defghi"), here.recorder._write

    def write_slowly(*what: Any) -> None:
        write(*what)
        if (name := next(names, None)) is not None:  # under load there is always one more
            here.predict(ROW | {"ride": name})

    here.recorder._write = write_slowly
    for name in "abc":
        here.predict(ROW | {"ride": name})
    here.recorder.flush()
    segments = [table["id"].to_pylist() for stream, table in here.kept.tables if stream == "predictions"]
    assert segments == [["a", "b"], ["c", "d"]]  # what waited at first, in pieces of so many rows
    while next(names, None) is not None:
        pass
    here.recorder.flush()
    assert [row["id"] for row in here.kept.rows("predictions")] == [*"abcdefg"]


def test_beyond_its_bounds_the_oldest_rows_are_dropped_and_counted(
    room: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = room()
    here.stand(version("1"))
    here.kept.full = True
    here.predict(ROW | {"ride": "oldest"})
    here.recorder.flush()
    monkeypatch.setattr(recording, "MOST_BYTES", 0)
    here.predict(ROW | {"ride": "older"})
    here.recorder.flush()
    assert here.count("evertrue_journal_dropped_rows_total") == 2
    monkeypatch.setattr(recording, "MOST_ROWS", 3)
    here.kept.full = False
    for name in "abcde":  # nobody flushes: the thread cannot keep up
        here.predict(ROW | {"ride": name})
    here.recorder.flush()
    assert [row["id"] for row in here.kept.rows("predictions")] == ["c", "d", "e"]
    assert here.count("evertrue_journal_dropped_rows_total") == 4


def test_large_rows_are_bound_by_their_bytes(room: Any, version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_ROWS", 100)
    monkeypatch.setattr(recording, "ROWS_AT_ONCE", 50)
    here = room()
    here.stand(version("1"))
    for name in "abcde":
        here.predict(ROW | {"ride": name, "zone": "x" * 30 * 1024})
    assert here.count("evertrue_journal_dropped_rows_total") == 2
    here.recorder.flush()
    written = [[row["id"] for row in table.to_pylist()] for name, table in here.kept.tables if name == "predictions"]
    assert written == [["c", "d"], ["e"]]
    here.predict(*[ROW | {"ride": str(i)} for i in range(100)])
    here.recorder.flush()
    assert here.count("evertrue_journal_dropped_rows_total") == 2


def test_a_row_that_cannot_be_put_down_is_counted_and_the_next_is_written(
    room: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = room()
    here.stand(version("1"))
    with monkeypatch.context() as broken:
        broken.setattr(recording, "Gathered", None)
        here.predict(ROW)
        here.recorder.flush()
    here.predict(ROW | {"ride": "next"})
    here.recorder.flush()
    assert [row["id"] for row in here.kept.rows("predictions")] == ["next"]
    assert here.count("evertrue_journal_dropped_rows_total") == 1


def test_durable_answers_wait_until_they_are_written_and_are_refused_when_they_cannot_be(
    room: Any, version: Any
) -> None:
    here = room(durable=True, flush=dt.timedelta(hours=1))
    here.stand(version("1"))
    here.recorder.start()
    assert here.predict(ROW | {"ride": "a"}).status_code == 200
    assert [row["id"] for row in here.kept.rows("predictions")] == ["a"]
    here.kept.full = True
    refused = here.predict(ROW | {"ride": "b"})
    assert refused.status_code == 503
    assert refused.json()["detail"] == "the prediction is not kept, ask again: the journal cannot be written"
    here.kept.full = False
    assert here.predict(ROW | {"ride": "c"}).status_code == 200
    here.recorder.close()
    assert [row["id"] for row in here.kept.rows("predictions")] == ["a", "c"]


def test_durable_answers_are_refused_where_their_rows_cannot_be_put_down(
    room: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = room(durable=True, flush=dt.timedelta(hours=1))
    here.stand(version("1"))
    here.recorder.start()
    with monkeypatch.context() as broken:
        broken.setattr(recording, "Gathered", None)
        assert here.predict(ROW).status_code == 503
    assert here.predict(ROW | {"ride": "next"}).status_code == 200
    here.recorder.close()
    assert [row["id"] for row in here.kept.rows("predictions")] == ["next"]


def test_a_row_that_comes_between_the_last_look_and_the_end_is_written(
    room: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = room(flush=dt.timedelta(milliseconds=1))
    here.stand(version("1"))
    flush, looks = here.recorder.flush, iter([True])

    def and_end() -> None:
        flush()
        if next(looks, False):
            here.predict(ROW | {"ride": "last"})
            here.recorder._ended = True

    monkeypatch.setattr(here.recorder, "flush", and_end)
    here.recorder.start()
    here.recorder._thread.join()
    assert [row["id"] for row in here.kept.rows("predictions")] == ["last"]


def test_the_thread_writes_by_itself_and_the_end_of_the_server_leaves_nothing_unwritten(
    room: Any, version: Any
) -> None:
    here = room(flush=dt.timedelta(milliseconds=1))
    here.stand(version("1"))
    here.recorder.start()
    here.predict(ROW | {"ride": "a"})
    while not here.kept.rows("predictions"):
        pass
    here.predict(ROW | {"ride": "b"})
    here.recorder.close()
    assert [row["id"] for row in here.kept.rows("predictions")] == ["a", "b"]
