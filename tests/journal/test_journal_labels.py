"""A prediction is joined to its last label, whatever the order of writing."""

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.journal.labels import join, last
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


def test_of_labels_that_came_at_once_the_last_written_wins(predictions, labels):
    both = pa.concat_tables([labels([1], late=True), labels([1], late=False)])
    assert last(both)["label"].to_pylist() == [False]


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


def test_labels_of_several_versions_and_chunks_are_one(folder, predictions, labels):
    writer, journal = SegmentWriter(folder, "a"), Journal(folder)
    for row in range(5):
        writer.write("predictions", predictions(row, row + 1))
        writer.write("labels", labels([row], late=row % 2 == 0))
        journal.commit()
    frame = pl.from_arrow(journal.labelled(columns=["score"]))
    assert frame.select("score", "label").rows() == [(pytest.approx(row / 1000), row % 2 == 0) for row in range(5)]
