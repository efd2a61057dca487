"""A prediction is joined to its last label; coverage and delay are what they are by hand."""

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.journal.labels import coverage, first, join, last
from app.journal.rows import FIXED
from app.journal.steps import Journal
from app.journal.writer import SegmentWriter


def test_the_last_label_to_arrive_wins_whatever_the_order_of_writing(folder, predictions, labels):
    writer, journal = SegmentWriter(folder, "a"), Journal(folder)
    writer.write("predictions", predictions(0, 3))
    writer.write("labels", labels([0, 1], late=True, delay=500))
    journal.commit()
    writer.write("labels", labels([0], late=False, delay=900))
    writer.write("labels", labels([1], late=False, delay=100))
    found = journal.labelled()
    assert found["id"].to_pylist() == ["r0", "r1"]
    assert found["label"].to_pylist() == [False, True]
    assert found["label_event"].cast(pa.int64()).to_pylist() == [900_000, 501_000]
    assert found.column_names == [*predictions(0, 0).column_names, "label", "label_event"]
    assert first(journal.labels())["label"].to_pylist() == [True, False]


def test_of_labels_that_came_at_once_the_last_written_wins(predictions, labels):
    both = pa.concat_tables([labels([1], late=True), labels([1], late=False)])
    assert last(both)["label"].to_pylist() == [False]
    assert first(both)["label"].to_pylist() == [True]


def test_a_label_taken_back_is_none(predictions, labels):
    null = labels([1], delay=99).set_column(1, "label", pa.nulls(1, pa.bool_()))
    assert join(predictions(0, 3), last(pa.concat_tables([labels([1]), null]))).num_rows == 0


def test_a_row_predicted_twice_has_its_label_twice(predictions, labels):
    twice = pa.concat_tables([predictions(0, 2), predictions(0, 2)])
    assert join(twice, last(labels([0])))["id"].to_pylist() == ["r0", "r0"]


IDS = st.lists(st.integers(0, 8), max_size=12)


@given(answered=IDS, arrivals=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.booleans()), max_size=20))
def test_the_join_is_what_a_dictionary_gives(answered, arrivals, predictions, labels):
    tables = [labels([row], late=value, delay=moment - row) for row, moment, value in arrivals]
    rows = [predictions(row, row + 1) for row in answered]
    expected = {}
    for row, _, value in sorted(arrivals, key=lambda each: each[1]):
        expected[f"r{row}"] = value
    found = join(pa.concat_tables([predictions(0, 0), *rows]), last(pa.concat_tables([labels([]), *tables]))).select(
        ["id", "label"]
    )
    assert [(row["id"], row["label"]) for row in found.to_pylist()] == [
        (f"r{row}", expected[f"r{row}"]) for row in answered if f"r{row}" in expected
    ]


def test_coverage_counts_what_came_what_did_not_and_what_belongs_to_nothing(predictions, labels):
    came = pa.concat_tables(
        [
            *(labels([row], delay=10 * (row + 1)) for row in range(9)),
            labels([9], delay=5000),
            labels([0], delay=9999),  # again: the first counts
            labels([15]),  # of a prediction that is too young to be asked for
            labels([100, 101]),
        ]
    )
    found = coverage(predictions(0, 20), came, before=12_000, wait=3600)
    assert (found.predictions, found.labelled, found.late, found.repeated, found.unmatched) == (12, 10, 1, 1, 2)
    assert found.fraction == pytest.approx(10 / 12)
    assert (found.delay_p50, found.delay_p90) == (pytest.approx(55), pytest.approx(90 + 0.1 * (5000 - 90)))


def test_coverage_of_nothing_is_unknown(predictions, labels):
    for rows in (predictions(0, 0), FIXED["predictions"].empty_table()):
        found = coverage(rows, labels([1]), before=10**9, wait=60)
        assert (found.fraction, found.delay_p50, found.delay_p90, found.unmatched) == (None, None, None, 1)
    found = coverage(predictions(0, 4), FIXED["labels"].empty_table(), before=2_000, wait=60)
    assert (found.predictions, found.fraction, found.delay_p50, found.unmatched) == (2, 0.0, None, 0)


def test_labels_of_several_versions_and_chunks_are_one(folder, predictions, labels):
    writer, journal = SegmentWriter(folder, "a"), Journal(folder)
    for row in range(5):
        writer.write("predictions", predictions(row, row + 1))
        writer.write("labels", labels([row], late=row % 2 == 0))
        journal.commit()
    frame = pl.from_arrow(journal.labelled(columns=["score"]))
    assert frame.select("score", "label").rows() == [(pytest.approx(row / 1000), row % 2 == 0) for row in range(5)]
