"""Every row is in the journal exactly once, whoever is killed, whoever reads, and though the disk be full."""

import datetime as dt
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.journal import manifests, steps
from app.journal import writer as writers
from app.journal.rows import PROFILES, JournalError, Step
from app.journal.steps import Journal
from app.journal.writer import SegmentWriter
from app.workspace import write_bytes


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


@pytest.mark.parametrize("most_rows", [0, 500_000])
def test_two_committers_share_the_segments_between_them(most_rows, folder, writer, predictions, monkeypatch):
    monkeypatch.setattr(steps, "MOST_MERGED_ROWS", most_rows)
    monkeypatch.setattr(steps, "MOST_SEGMENTS", 5)
    monkeypatch.setattr(manifests, "FANOUT", 2)
    for start in range(0, 100):
        writer.write("predictions", predictions(start, start + 1))

    def work(_):
        made, journal = [], Journal(folder)
        while (step := journal.commit()) is not None:
            made.append(step)
        return made

    with ThreadPoolExecutor(3) as pool:
        made = sorted((step for each in pool.map(work, range(3)) for step in each), key=lambda step: step.number)
    assert sorted(row for step in made for row in names(step.predictions)) == sorted(names(predictions(0, 100)))
    again = list(Journal(folder).steps())
    assert [step.number for step in again] == list(range(1, len(made) + 1))
    assert all(map(same, made, again))


@pytest.mark.usefixtures("small_blocks")
def test_a_committer_that_slept_through_a_merge_does_not_take_a_number_again(
    folder, writer, predictions, monkeypatch
):
    slow, quick = Journal(folder), Journal(folder)
    writer.write("predictions", predictions(0, 10))
    read = slow._read_segments

    def sleep(chosen):
        found = read(chosen)
        monkeypatch.setattr(slow, "_read_segments", read)
        for start in range(10, 50, 10):  # meanwhile
            quick.commit()
            writer.write("predictions", predictions(start, start + 10))
        quick.commit()
        quick.compact()
        return found

    monkeypatch.setattr(slow, "_read_segments", sleep)
    writer.write("predictions", predictions(50, 60))
    assert slow.commit() is None
    assert sorted(names(slow.predictions())) == sorted(names(predictions(0, 60)))
    assert [step.number for step in slow.steps()] == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("most_rows", [0, 30, 500_000])
def test_a_committer_whose_step_is_merged_before_it_looks_knows_it_and_leaves_its_rows(
    most_rows, folder, writer, predictions, monkeypatch
):
    monkeypatch.setattr(steps, "MOST_MERGED_ROWS", most_rows)
    slow, quick = Journal(folder), Journal(folder)
    create, made = manifests.create_bytes, []

    def sleep(uri, data):
        create(uri, data)
        monkeypatch.setattr(manifests, "create_bytes", create)
        for start in range(10, 60, 10):  # meanwhile
            writer.write("predictions", predictions(start, start + 10))
            made.append(quick.commit())
        quick.compact()

    monkeypatch.setattr(manifests, "create_bytes", sleep)
    writer.write("predictions", predictions(0, 10))
    made.insert(0, slow.commit())
    assert [step.number for step in made] == [1, 2, 3, 4, 5, 6]
    for journal in (slow, quick, Journal(folder)):
        assert all(map(same, made, journal.steps()))
        assert journal.predictions().equals(predictions(0, 60))
    assert slow.commit() is None
    assert len(files(folder)) == {0: 6 + 2, 30: 3 + 2, 500_000: 2 + 2}[most_rows]


def test_a_segment_that_outlived_its_commit_does_not_come_back_when_the_step_is_forgotten(
    folder, journal, predictions, disk
):
    writer = SegmentWriter(folder, "a", clock=lambda: dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    writer.write("predictions", predictions(0, 10))
    point = 1
    while disk.kill_at(point, journal.commit) and not list(Path(folder, "steps").glob("0*.json")):
        point += 1
    assert any(name.startswith("seg-") for name in files(folder))
    SegmentWriter(folder, "a").write("predictions", predictions(10, 20))
    assert journal.commit().number == 2
    journal.expire(int(dt.datetime(2021, 1, 1, tzinfo=dt.UTC).timestamp() * 1000))
    assert names(journal.predictions()) == [f"r{i}" for i in range(10, 20)]
    assert journal.commit() is None


@pytest.mark.usefixtures("small_blocks")
def test_a_segment_that_outlived_its_commit_does_not_come_back_when_the_step_is_merged(
    folder, writer, journal, predictions, disk
):
    writer.write("predictions", predictions(0, 10))
    journal.commit()
    writer.write("predictions", predictions(10, 20))
    point = 1
    while disk.kill_at(point, journal.commit) and not Path(folder, "steps", "000002.json").exists():
        point += 1
    assert any(name.startswith("seg-") for name in files(folder))
    again = Journal(folder)
    again.compact()
    assert Path(folder, "steps", "000001-000002.json").exists()
    assert again.predictions().equals(predictions(0, 20))
    assert again.commit() is None


@pytest.mark.usefixtures("small_blocks")
def test_readers_see_every_row_once_while_steps_are_made_and_merged_under_them(folder, writer, predictions, labels):
    written, done = 0, Event()

    def commit():
        nonlocal written
        journal = Journal(folder)
        try:
            for number in range(30):
                writer.write("predictions", predictions(number, number + 1))
                writer.write("labels", labels([number]))
                written = number + 1
                if number % 2:
                    journal.commit()
        finally:
            done.set()

    def read(kind):
        looked, journal = 0, Journal(folder)
        while not done.is_set() or looked == 0:
            least = written
            if kind == "steps":
                found = list(journal.steps())
                assert [step.number for step in found] == list(range(1, len(found) + 1))
                rows = [row for step in found for row in names(step.predictions)]
                least = 0
            else:
                rows = names(journal.predictions(["id"]) if kind == "predictions" else journal.labels())
            assert len(rows) == len(set(rows)) >= least
            assert set(rows) == {f"r{i}" for i in range(len(rows))}
            looked += 1
        return looked

    with ThreadPoolExecutor(4) as pool:
        looking = [pool.submit(read, kind) for kind in ("predictions", "labels", "steps")]
        pool.submit(commit).result()
        assert min(future.result() for future in looking) > 0


@pytest.fixture(params=["rows fit into a file", "rows do not fit"])
def copies(request, tmp_path, predictions, labels, monkeypatch):
    """Return a function that gives, each time, a journal of its own.

    The next commit has steps to merge, new rows of several streams, and a corrupt segment.
    """
    if request.param == "rows do not fit":
        monkeypatch.setattr(steps, "MOST_MERGED_ROWS", 0)
    folder = f"{tmp_path}/original"
    writer = SegmentWriter(folder, "a")
    for start in range(0, 40, 10):
        writer.write("predictions", predictions(start, start + 10))
        writer.write("labels", labels([start]))
        Journal(folder).commit()
    writer.write("predictions", predictions(40, 45))
    writer.write("predictions", predictions(45, 50))
    writer.write("profiles", profiles())
    name = "seg-20200101T000000000-x-000001.parquet"
    Path(folder, "new", "labels", name).write_bytes(b"corrupt")
    return lambda number: shutil.copytree(folder, f"{tmp_path}/copy{number}")


@pytest.mark.usefixtures("small_blocks")
def test_a_commit_killed_at_any_point_loses_and_doubles_nothing(copies, predictions, disk):
    for point in range(1, 200):
        home = copies(point)
        before = list(Journal(home).steps())
        if not disk.kill_at(point, Journal(home).commit):
            break
        journal = Journal(home)
        assert sorted(names(journal.predictions())) == sorted(names(predictions(0, 50)))
        while journal.commit() is not None:
            pass
        journal.compact()
        assert sorted(names(journal.predictions())) == sorted(names(predictions(0, 50)))
        assert names(journal.labels()) == ["r0", "r10", "r20", "r30"]
        after = list(journal.steps())
        assert all(map(same, before, after))
        assert sum(step.profiles.num_rows for step in after) == 3
        assert sorted(row for step in after for row in names(step.predictions)) == sorted(names(predictions(0, 50)))
        assert not any(name.startswith("seg-2") for name in files(f"{home}/new"))
    assert point > 15


@pytest.mark.usefixtures("small_blocks")
def test_a_full_disk_at_any_point_of_a_commit_is_a_clear_error_and_the_next_one_works(copies, predictions, disk):
    for point in range(1, 200):
        home = copies(point)
        journal = Journal(home)
        disk.fail_at(point, OSError(28, "No space left on device"))
        errors = []
        try:
            journal.commit()
        except JournalError as error:
            errors.append(str(error))
        reached = disk.operations >= point
        disk.fail_at(None)
        assert all("No space left on device" in error for error in errors)
        while journal.commit() is not None:
            pass
        assert sorted(names(journal.predictions())) == sorted(names(predictions(0, 50)))
        assert names(Journal(home).labels()) == ["r0", "r10", "r20", "r30"]
        assert not any(name.startswith(".") for name in files(home))
        if not reached:
            break
    assert point > 15


@pytest.mark.usefixtures("small_blocks")
def test_an_expiry_killed_at_any_point_keeps_all_that_is_not_past(folder, predictions, disk, monkeypatch):
    monkeypatch.setattr(steps, "MOST_MERGED_ROWS", 0)
    moment = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    writer = SegmentWriter(folder, "a", clock=lambda: moment)
    for hour in range(6):
        moment = moment.replace(hour=hour)
        writer.write("predictions", predictions(hour, hour + 1))
        Journal(folder).commit()
    Journal(folder).compact()
    bare, before, reached, point = folder, int(moment.replace(hour=3).timestamp() * 1000), True, 0
    while reached:
        point += 1
        home = f"{bare}-{point}"
        shutil.copytree(bare, home)
        reached = disk.kill_at(point, lambda: Journal(home).expire(before))  # noqa: B023
        left = names(Journal(home).predictions())
        assert left in (names(predictions(0, 6)), names(predictions(3, 6)))
        Journal(home).expire(before)
        assert names(Journal(home).predictions()) == names(predictions(3, 6))
        assert len([name for name in files(home) if not name.startswith(".")]) == 3 + 2
    assert point > 4


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 4)),
        st.tuples(st.just("label"), st.integers(1, 2)),
        st.tuples(st.just("commit"), st.integers(1, 3)),
        st.tuples(st.just("killed"), st.integers(1, 40)),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    max_size=25,
)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS, most_rows=st.sampled_from([0, 6, 500_000]))
def test_any_order_of_writes_commits_merges_and_kills_keeps_every_row_once_and_every_step(
    operations, most_rows, predictions, labels, disk, monkeypatch
):
    monkeypatch.setattr(steps, "MOST_SEGMENTS", 3)
    monkeypatch.setattr(steps, "MOST_MERGED_ROWS", most_rows)
    with tempfile.TemporaryDirectory() as folder:
        writer, journal, other = SegmentWriter(folder, "a"), Journal(folder), Journal(folder)
        rows, labelled, seen = 0, 0, {}
        for name, amount in operations:
            if name == "write":
                writer.write("predictions", predictions(rows, rows + amount))
                rows += amount
            elif name == "label":
                writer.write("labels", labels(range(labelled, labelled + amount)))
                labelled += amount
            elif name == "compact":
                other.compact()
            elif name == "commit":
                for _ in range(amount):
                    step = journal.commit()
                    if step is not None:
                        assert step.number not in seen
                        seen[step.number] = step
            else:
                disk.kill_at(amount, other.commit)
                other = Journal(folder)
            assert sorted(names(journal.predictions(["id"]))) == sorted(f"r{i}" for i in range(rows))
        assert sorted(names(other.labels())) == sorted(f"r{i}" for i in range(labelled))
        again = {step.number: step for step in Journal(folder).steps()}
        assert list(again) == list(range(1, len(again) + 1))
        assert all(same(step, again[number]) for number, step in seen.items())


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("most_rows", [0, 500_000])
def test_a_segment_written_again_after_its_step_was_merged_is_not_there_twice(
    most_rows, folder, writer, journal, predictions, monkeypatch
):
    monkeypatch.setattr(steps, "MOST_MERGED_ROWS", most_rows)
    rows = predictions(0, 10)

    def lost_answer(uri, data, patience):
        write_bytes(uri, data, patience)
        raise OSError(110, "Connection timed out")

    with monkeypatch.context() as patched:
        patched.setattr(writers, "write_bytes", lost_answer)
        with pytest.raises(JournalError, match="timed out"):
            writer.write("predictions", rows)
    journal.commit()
    SegmentWriter(folder, "b").write("predictions", predictions(10, 20))
    journal.commit()
    journal.compact()
    writer.write("predictions", rows)
    assert journal.predictions().equals(predictions(0, 20))
    assert Journal(folder).commit() is None
    assert not any(name.startswith("seg-") for name in files(folder))
