"""What is written becomes steps, in order and as it was, and is read by column, time and number."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.data.features import TargetColumn
from app.journal import manifests, steps
from app.journal.rows import FIXED, PROFILES, JournalError, Step, prediction_schema
from app.journal.steps import Journal
from app.journal.writer import SegmentWriter
from app.workspace import Workspace, write_bytes


def profiles(rows=3):
    row = dict.fromkeys(PROFILES.names) | {"version": "1", "rows": 7, "counts": b"1234", "seconds": [1, 2]}
    return pa.Table.from_pylist([row] * rows, schema=PROFILES)


def names(table):
    return table["id"].to_pylist()


def files(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def same(one: Step, other: Step) -> bool:
    return (
        one.number == other.number
        and one.corrupt == other.corrupt
        and all(
            mine.equals(yours) and mine.schema.equals(yours.schema)
            for mine, yours in zip(one[1:4], other[1:4], strict=True)
        )
    )


def test_a_journal_that_nobody_has_written_to_is_empty(tmp_path):
    journal = Journal.open(Workspace.open(str(tmp_path)), "rides")
    assert journal.folder == str(tmp_path / "rides" / "journal")
    assert journal.commit() is None
    assert list(journal.steps()) == []
    assert journal.predictions().num_rows == journal.labels().num_rows == journal.labelled().num_rows == 0
    journal.compact()
    journal.expire(10**12)


def test_a_step_holds_all_new_rows_of_all_streams_and_replays_as_it_was(writer, journal, predictions, labels, folder):
    writer.write("predictions", predictions(0, 10))
    writer.write("labels", labels(range(5)))
    writer.write("predictions", predictions(10, 20))
    writer.write("profiles", profiles())
    step = journal.commit()
    assert step.number == 1
    assert step.predictions.equals(predictions(0, 20))
    assert step.labels.equals(labels(range(5)))
    assert step.profiles.equals(profiles())
    assert [same(step, again) for again in Journal(folder).steps()] == [True]
    assert not any(name.startswith("seg-") for name in files(folder))
    assert journal.commit() is None


def test_a_stream_without_rows_has_the_fixed_columns(writer, journal, labels):
    writer.write("labels", labels(range(3)))
    step = journal.commit()
    assert step.predictions.equals(FIXED["predictions"].empty_table())
    assert step.profiles.schema == PROFILES
    assert same(step, next(journal.steps()))


def test_steps_go_on_after_the_one_that_is_named(writer, journal, predictions):
    for start in range(0, 50, 10):
        writer.write("predictions", predictions(start, start + 10))
        journal.commit()
    assert [step.number for step in journal.steps(after=3)] == [4, 5]
    assert [step.number for step in journal.steps(after=5)] == []


def test_readers_see_rows_before_they_are_committed_and_after(writer, journal, predictions, labels):
    writer.write("predictions", predictions(0, 10))
    writer.write("labels", labels(range(10)))
    journal.commit()
    writer.write("predictions", predictions(10, 20))
    writer.write("labels", labels(range(10, 15)))
    assert journal.predictions().equals(predictions(0, 20))
    assert journal.labels().equals(labels(range(15)))
    assert names(journal.labelled()) == [f"r{i}" for i in range(15)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("merged", [False, True])
def test_columns_and_event_times_are_chosen_while_reading(writer, journal, predictions, merged):
    for start in range(0, 40, 10):
        writer.write("predictions", predictions(start, start + 10))
        journal.commit()
    if merged:
        journal.compact()
    found = journal.predictions(["score", "features.zone"], event_from=8_000, event_until=23_000)
    assert found.column_names == ["score", "features"]
    assert [field.name for field in found.schema.field("features").type] == ["zone"]
    assert found["score"].equals(predictions(8, 23)["score"])
    assert journal.labelled(columns=["score"]).column_names == ["score", "label", "label_event"]


def test_a_file_whose_events_are_outside_is_not_opened(writer, journal, predictions, folder):
    writer.write("predictions", predictions(0, 10))
    journal.commit()
    writer.write("predictions", predictions(10, 20))
    journal.commit()
    next(Path(folder).rglob("step-000001-*.parquet")).write_bytes(b"")
    assert names(journal.predictions(event_from=10_000)) == [f"r{i}" for i in range(10, 20)]
    with pytest.raises(JournalError, match=r"step-000001-.*\.parquet cannot be read: "):
        journal.predictions()


def test_a_backlog_is_worked_off_in_steps_of_bounded_size_in_order_of_time(
    writer, journal, predictions, labels, monkeypatch
):
    monkeypatch.setattr(steps, "MOST_SEGMENTS", 4)
    for start in range(0, 50, 10):
        writer.write("predictions", predictions(start, start + 10))
        writer.write("labels", labels([start]))
    made = []
    while (step := journal.commit()) is not None:
        made.append((step.predictions.num_rows + step.labels.num_rows, step.number))
    assert [number for _, number in made] == [1, 2, 3]
    assert sum(rows for rows, _ in made) == 55
    assert sorted(names(journal.predictions())) == sorted(names(predictions(0, 50)))
    monkeypatch.setattr(steps, "MOST_BYTES", 1)
    writer.write("predictions", predictions(50, 60))
    writer.write("predictions", predictions(60, 70))
    assert [journal.commit().predictions.num_rows, journal.commit().predictions.num_rows] == [10, 10]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other columns"])
def test_a_segment_that_cannot_be_read_is_set_aside_and_counted(damage, writer, journal, predictions, folder, caplog):
    writer.write("predictions", predictions(0, 10))
    bad = next(Path(folder).rglob("seg-*.parquet"))
    if damage == "other columns":
        pq.write_table(pa.table({"x": [1]}), bad)
    else:
        bad.write_bytes({"truncated": bad.read_bytes()[:-20], "empty": b"", "text": b"hello"}[damage])
    writer.write("predictions", predictions(10, 20))
    assert names(journal.predictions()) == [f"r{i}" for i in range(10, 20)]
    step = journal.commit()
    assert (step.corrupt, step.predictions.num_rows) == (1, 10)
    assert same(step, next(journal.steps()))
    assert [path.name for path in Path(folder, "corrupt").iterdir()] == [f"predictions-{bad.name}"]
    assert "was set aside" in caplog.text


def test_a_step_of_nothing_but_a_corrupt_segment_still_says_so(writer, journal, predictions, folder):
    writer.write("predictions", predictions(0, 10))
    next(Path(folder).rglob("seg-*.parquet")).write_bytes(b"")
    assert journal.commit()[0::4] == (1, 1)
    assert [step[0::4] for step in journal.steps()] == [(1, 1)]


@pytest.mark.usefixtures("small_blocks")
def test_merged_steps_are_fewer_files_and_the_same_steps(writer, journal, predictions, labels, folder):
    made = []
    for number in range(11):
        if number != 4:  # a step without predictions among others
            writer.write("predictions", predictions(number * 10, number * 10 + 10))
        writer.write("labels", labels([number]))
        made.append(journal.commit())
    journal.compact()
    assert [name for name in files(folder) if name.endswith(".json")] == [
        "000001-000008.json",
        "000009-000010.json",
        "000011.json",
    ]
    assert len(files(folder)) == 9
    assert (
        pq.read_schema(next(Path(folder).rglob("predictions/*/step-000001-*.parquet"))).field("step").type == "int64"
    )
    for after in range(12):
        again = list(Journal(folder).steps(after))
        assert len(again) == 11 - after
        assert all(map(same, made[after:], again))


@pytest.mark.usefixtures("small_blocks")
def test_steps_of_different_features_keep_their_files_and_are_read_together(writer, journal, predictions, folder):
    older = predictions(0, 10)
    wind = pa.array([1.5] * 10, pa.float32())
    features = pa.StructArray.from_arrays([wind, pa.array(["7"] * 10)], names=["wind", "distance"])
    newer = predictions(10, 20).set_column(8, "features", features)
    made = []
    for table in (older, newer):
        writer.write("predictions", table)
        made.append(journal.commit())
    journal.compact()
    assert [name for name in files(folder) if name.endswith(".json")] == ["000001-000002.json"]
    assert len(files(folder)) == 3
    assert all(map(same, made, journal.steps()))
    both = journal.predictions()
    assert both["features"][0].as_py() == {"distance": "0", "rain": None, "zone": "north", "wind": None}
    assert both["features"][-1].as_py() == {"distance": "7", "rain": None, "zone": None, "wind": 1.5}
    writer.write("predictions", older)
    writer.write("predictions", newer)
    assert journal.commit().predictions.equals(both)


def test_a_service_whose_task_became_another_goes_on(writer, journal, predictions, labels, plan):
    target = TargetColumn("late", "multiclass", ("no", "a bit", "very"))
    schema = prediction_schema(replace(plan, target=target))
    scores = pa.array([[0.1, 0.2, 0.7]] * 10, schema.field("score").type)
    newer = predictions(10, 20).set_column(5, "score", scores).set_column(7, "shadow_score", scores)
    writer.write("predictions", predictions(0, 10))
    writer.write("labels", labels([1]))
    writer.write("predictions", newer.cast(schema))
    writer.write("labels", labels([2]).set_column(1, "label", pa.array(["a bit"])))
    step = journal.commit()
    assert step.predictions["score"].slice(9, 2).to_pylist() == [None, pytest.approx([0.1, 0.2, 0.7])]
    assert step.labels["label"].to_pylist() == ["true", "a bit"]
    assert same(step, next(journal.steps()))


def test_a_category_of_long_numbers_that_became_a_quantity_stops_neither_commits_nor_readers(
    writer, journal, predictions
):
    for values in (pa.array([2**60 + 1, 7], pa.int64()), pa.array([1.5, 2.5], pa.float32())):
        features = pa.StructArray.from_arrays([values], names=["account"])
        writer.write("predictions", predictions(0, 2).set_column(8, "features", features))
    step = journal.commit()
    assert [row["account"] for row in step.predictions["features"].to_pylist()] == [2.0**60, 7.0, 1.5, 2.5]
    assert same(step, next(journal.steps()))
    assert journal.predictions().equals(step.predictions)


@pytest.mark.usefixtures("small_blocks")
def test_however_many_rows_a_step_has_manifests_stay_few_and_steps_the_same(
    writer, journal, predictions, labels, folder, monkeypatch
):
    monkeypatch.setattr(steps, "MOST_MERGED_ROWS", 22)
    made = []
    for number in range(11):
        writer.write("predictions", predictions(number * 10, number * 10 + 10))
        writer.write("labels", labels([number]))
        made.append(journal.commit())
    journal.compact()
    assert [name for name in files(folder) if name.endswith(".json")] == [
        "000001-000008.json",
        "000009-000010.json",
        "000011.json",
    ]
    assert len(files(folder)) == 3 + 6 * 2  # two streams of five pairs and the last
    for after in range(12):
        again = list(Journal(folder).steps(after))
        assert len(again) == 11 - after
        assert all(map(same, made[after:], again))
    assert names(journal.predictions(["id"], event_from=35_000, event_until=61_000)) == [
        f"r{i}" for i in range(35, 61)
    ]


@pytest.mark.usefixtures("small_blocks")
def test_a_manifest_does_not_grow_without_bound(writer, journal, predictions, folder, monkeypatch):
    monkeypatch.setattr(steps, "MOST_MERGED_ROWS", 0)
    monkeypatch.setattr(manifests, "MOST_PARTS", 4)
    for start in range(0, 80, 10):
        writer.write("predictions", predictions(start, start + 10))
        journal.commit()
    journal.compact()
    assert [name for name in files(folder) if name.endswith(".json")] == ["000001-000004.json", "000005-000008.json"]


@pytest.mark.usefixtures("small_blocks")
def test_a_damaged_old_step_does_not_keep_new_ones_out(writer, journal, predictions, folder, caplog):
    for start in range(0, 20, 10):
        writer.write("predictions", predictions(start, start + 10))
        journal.commit()
    next(Path(folder).rglob("step-000001-*.parquet")).write_bytes(b"damaged")
    writer.write("predictions", predictions(20, 30))
    assert journal.commit().number == 3
    assert "steps 1 to 2 cannot be put into one file" in caplog.text
    with pytest.raises(JournalError, match="step-000001"):
        list(journal.steps())


@pytest.mark.parametrize("content", [b"{", b'{"hour": "\xff"}'])
def test_a_manifest_that_is_none_is_named(writer, journal, predictions, folder, content):
    writer.write("predictions", predictions(0, 10))
    journal.commit()
    next(Path(folder).rglob("000001*.json")).write_bytes(content)
    with pytest.raises(JournalError, match=r"000001.*\.json is no manifest"):
        list(Journal(folder).steps())


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("lost", [False, True])
def test_a_damaged_or_lost_old_step_does_not_keep_others_from_being_merged(
    lost, writer, journal, predictions, folder, caplog
):
    def commit(step):
        writer.write("predictions", predictions(step * 10, step * 10 + 10))
        journal.commit()

    commit(1)
    spoiled = next(Path(folder).rglob("step-000001-*.parquet"))
    spoiled.unlink() if lost else spoiled.write_bytes(b"damaged")
    for step in range(2, 9):
        commit(step)
    journal.compact()
    assert [name for name in files(folder) if name.endswith(".json")] == ["000001-000008.json"]
    assert caplog.text.count("cannot be put into one file") == 1
    with pytest.raises(JournalError, match=r"step-000001-.* cannot be read"):
        list(journal.steps())
    assert [step.number for step in journal.steps(after=2)] == list(range(3, 9))


def test_a_step_that_was_lost_is_said_to_be(writer, journal, predictions, folder):
    writer.write("predictions", predictions(0, 10))
    journal.commit()
    next(Path(folder).rglob("step-000001-*.parquet")).unlink()
    with pytest.raises(JournalError, match=r"step-000001-.* cannot be read: .*No such file"):
        journal.predictions()


def test_hours_that_are_past_are_forgotten_and_numbers_go_on(folder, journal, predictions, labels):
    moment = dt.datetime(2026, 11, 24, 2, 59, 59, 999_000, tzinfo=dt.UTC)
    writer = SegmentWriter(folder, "a", clock=lambda: moment)
    for day in range(4):
        moment = moment.replace(day=24 + day)
        writer.write("predictions", predictions(day * 10, day * 10 + 10))
        writer.write("labels", labels([day]))
        journal.commit()
    Path(folder, "corrupt").mkdir()
    Path(folder, "corrupt", "old").touch()
    Path(folder, "new", "labels", ".seg-draft").touch()
    journal.expire(int(dt.datetime(2026, 11, 26, 2, 30, tzinfo=dt.UTC).timestamp() * 1000))
    assert names(journal.predictions()) == [f"r{i}" for i in range(20, 40)]
    assert [step.number for step in journal.steps()] == [3, 4]
    assert sorted(path.name for path in Path(folder, "labels").iterdir()) == ["2026-11-26T02", "2026-11-27T02"]
    journal.expire(int(dt.datetime(2027, 1, 1, tzinfo=dt.UTC).timestamp() * 1000))
    assert [step.number for step in journal.steps()] == [4]
    moment = moment.replace(year=2027)
    writer.write("predictions", predictions(40, 50))
    assert journal.commit().number == 5


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("most_rows", [0, 22])
def test_a_file_is_forgotten_with_its_newest_hour_although_its_block_goes_on(
    most_rows, folder, journal, predictions, monkeypatch
):
    monkeypatch.setattr(steps, "MOST_MERGED_ROWS", most_rows)
    moment = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    writer, made = SegmentWriter(folder, "a", clock=lambda: moment), []
    for hour in range(8):
        moment = moment.replace(hour=hour)
        writer.write("predictions", predictions(hour * 10, hour * 10 + 10))
        made.append(journal.commit())
    journal.compact()
    size = 2 if most_rows else 1
    for hour in range(9):
        journal.expire(int(dt.datetime(2026, 11, 24, hour, tzinfo=dt.UTC).timestamp() * 1000))
        first = min(hour // size * size, 8 - size)
        assert len(files(folder)) == 1 + (8 - first) // size
        for reader in (journal, Journal(folder)):
            assert names(reader.predictions()) == [f"r{i}" for i in range(first * 10, 80)]
            assert all(map(same, made[first:], reader.steps()))
    moment = moment.replace(hour=9)
    writer.write("predictions", predictions(80, 90))
    assert journal.commit().number == 9


def test_what_was_left_by_the_killed_is_deleted_when_it_is_old(folder, writer, journal, predictions):
    writer.write("predictions", predictions(0, 10))
    draft, kept = Path(folder, "new", "predictions", ".seg-draft"), len(files(folder))
    draft.touch()
    Path(folder, "steps").mkdir()
    Path(folder, "steps", ".000001.json.0a1b").touch()
    Path(folder, "corrupt").mkdir()
    Path(folder, "corrupt", "labels-seg").touch()
    assert journal.predictions().num_rows == 10
    journal.expire(0)
    assert draft.exists()
    journal.expire(int((dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)).timestamp() * 1000))
    assert len(files(folder)) == kept


def test_a_commit_that_finds_no_room_for_a_stream_leaves_none_of_the_others(
    writer, journal, predictions, labels, folder, monkeypatch
):
    writer.write("predictions", predictions(0, 10))
    writer.write("labels", labels([1]))
    before = files(folder)

    def full(uri, data):
        if "/labels/" in uri:
            raise OSError(28, "No space left on device")
        write_bytes(uri, data)

    monkeypatch.setattr(steps, "write_bytes", full)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"labels/.* cannot be written: No space left on device"):
            journal.commit()
    assert files(folder) == before
    monkeypatch.undo()
    assert journal.commit().number == 1
