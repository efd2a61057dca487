"""Does no part ever see the future of another, and is every row always in the same part?"""

import contextlib
import datetime as dt

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.split import ASIDE, PARTS, SKETCH_POINTS, TEST, TRAIN, VALIDATION, Cut, TimeSketch, cut_by_position
from app.data.split import cut_by_time as cut_of
from app.spec import Spec
from app.types import UserError

DAY = 86_400_000


def spec(time: str | None = "t", window: str = "all", **split: object) -> Spec:
    data = {"source": "x.parquet", "time": time, "split": split}
    return Spec.model_validate({"name": "a", "task": {"target": "y"}, "data": data, "retrain": {"window": window}})


def moments(values: list[int]) -> pa.Table:
    return pa.table({"t": pa.array(values, pa.timestamp("ms", "UTC"))})


times = st.lists(st.integers(0, 60), min_size=1, max_size=200)


@given(
    times,
    st.integers(0, 10),
    st.one_of(st.none(), st.integers(1, 60)),
    st.floats(0, 0.9),
    st.floats(0.05, 0.9),
    st.one_of(st.just("all"), st.integers(1, 60).map(lambda days: f"{days}d")),
)
def test_no_part_sees_the_future(
    days: list[int], gap: int, until: int | None, test: float, validation: float, window: str
) -> None:
    split: dict[str, object] = {"gap": f"{gap}d", "test": test, "validation": validation}
    if until is not None:
        split["train_until"] = dt.datetime.fromtimestamp(until * 86_400, dt.UTC)
    declared = spec(window=window, **split)
    values = np.array(days) * DAY
    with contextlib.suppress(UserError):  # an empty part; its messages have tests of their own
        no_leak(cut_of(declared, TimeSketch.of(values)), values, gap, window)


def no_leak(cut: Cut, values: npt.NDArray[np.int64], gap: int, window: str) -> None:
    parts = cut.assign(moments(values.tolist()), 0)
    train, valid, test_rows = (values[parts == part] for part in (TRAIN, VALIDATION, TEST))
    assert len(train)
    assert len(valid)
    assert train.max() < valid.min() - (gap * DAY if gap else 0)
    if cut.test_from is not None:
        assert len(test_rows)
        assert valid.max() < test_rows.min() - (gap * DAY if gap else 0)
    for moment in np.unique(values):
        assert len(set(parts[values == moment])) == 1
    if window != "all":
        end = values.max() + 1 if cut.test_from is None else cut.test_from - gap * DAY
        assert train.min() >= end - int(window[:-1]) * DAY


def test_fractions_are_the_newest_rows() -> None:
    values = np.arange(1000) * DAY
    parts = cut_of(spec(test=0.2, validation=0.25), TimeSketch.of(values)).assign(moments(values.tolist()), 0)
    assert [(parts == part).sum() for part in (TRAIN, VALIDATION, TEST)] == [600, 200, 200]
    assert (np.diff(parts) >= 0).all()


def test_train_until_is_the_first_test_moment_and_train_from_the_first_of_training() -> None:
    values = np.arange(10) * DAY
    cut = cut_of(
        spec(train_from=dt.date(1970, 1, 3), train_until=dt.date(1970, 1, 9), validation=0.34), TimeSketch.of(values)
    )
    parts = cut.assign(moments(values.tolist()), 0)
    assert parts.tolist() == [ASIDE, ASIDE, TRAIN, TRAIN, TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST]


def test_a_gap_sets_rows_aside_before_each_later_part() -> None:
    values = np.arange(20) * DAY
    parts = cut_of(spec(test=0.2, validation=0.2, gap="2d"), TimeSketch.of(values)).assign(
        moments(values.tolist()), 0
    )
    assert "".join("tvx-"[part] for part in parts) == "ttttttttt--vvv--xxxx"


def test_without_a_test_part_all_rows_train_or_validate() -> None:
    values = np.arange(100) * DAY
    parts = cut_of(spec(test=0.0, validation=0.1), TimeSketch.of(values)).assign(moments(values.tolist()), 0)
    assert set(parts.tolist()) == {TRAIN, VALIDATION}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            {"train_until": dt.date(1970, 1, 1)},
            "the train part would be empty: no labelled row before 1970-01-01T00:00:00.000Z; "
            "found labelled rows from 1970-01-02T00:00:00.000Z to 1970-01-06T00:00:00.000Z",
        ),
        ({"train_until": dt.date(1971, 1, 1)}, "the test part would be empty: no labelled row from 1971-01-01"),
        (
            {"train_from": dt.date(1970, 1, 6), "test": 0.2},
            "the train part would be empty: no labelled row from 1970-01-06",
        ),
        ({"gap": "9d"}, "the train part would be empty"),
    ],
)
def test_an_empty_part_is_named_with_what_was_found(split: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        cut_of(spec(**split), TimeSketch.of(np.arange(1, 6) * DAY))
    assert str(error.value).startswith(f"data.split: {message}")


def test_one_moment_alone_cannot_be_split() -> None:
    with pytest.raises(UserError, match="the train part would be empty"):
        cut_of(spec(), TimeSketch.of(np.zeros(50, np.int64)))


def test_rows_without_a_label_cannot_be_split() -> None:
    with pytest.raises(UserError, match="no row has both a time and a label"):
        cut_of(spec(), TimeSketch())


@given(st.lists(times, max_size=6))
def test_sketches_merge_in_any_order_to_the_sketch_of_all(parts: list[list[int]]) -> None:
    sketches = [TimeSketch.of(np.array(part, np.int64)) for part in parts]
    whole = TimeSketch.of(np.array([value for part in parts for value in part], np.int64))
    assert TimeSketch.merge(sketches) == TimeSketch.merge(sketches[::-1]) == whole


def test_a_sketch_of_many_moments_is_small_and_cuts_close_to_the_fraction() -> None:
    values = np.sort(np.random.default_rng(0).integers(0, 10**12, 200_000))
    sketch = TimeSketch.of(values)
    assert len(sketch.moments) <= SKETCH_POINTS
    assert sum(sketch.rows) == len(values)
    assert (sketch.moments[0], sketch.moments[-1]) == (values[0], values[-1])
    parts = cut_of(spec(test=0.2, validation=0.25), sketch).by_moment(values)
    assert np.bincount(parts, minlength=3) / len(values) == pytest.approx([0.6, 0.2, 0.2], abs=1e-3)


@given(st.integers(0, 1 << 50), st.integers(1, 100), st.integers(0, 99))
def test_a_position_is_always_in_the_same_part(start: int, rows: int, skip: int) -> None:
    cut = Cut(time=None, validation=0.15, test=0.15)
    skip = min(skip, rows)
    assert (cut.by_position(start, rows)[skip:] == cut.by_position(start + skip, rows - skip)).all()


def test_positions_fill_the_parts_by_their_fractions() -> None:
    cut = cut_by_position(spec(time=None, validation=0.25, test=0.2), 100_000)
    parts = cut.assign(pa.table({"x": np.zeros(100_000)}), 0)
    assert np.bincount(parts) / len(parts) == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    assert set(PARTS.values()) == set(parts.tolist())


def test_too_few_rows_for_the_fractions_are_an_error() -> None:
    with pytest.raises(UserError, match=r"the (test|validation) part would be empty; found 2 rows"):
        cut_by_position(spec(time=None), 2)
