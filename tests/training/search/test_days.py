"""Days that judge a search: whole ones, drawn from within the training rows, beside the newest."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from app.data.encode import Examples
from app.training.loader import Parts
from app.training.search.days import with_drawn_days
from app.types import Features

DAY = 86_400_000


def examples(times, first):
    n = len(times)
    position = np.arange(first, first + n)
    number = np.stack([position, np.zeros(n)], axis=1).astype(np.float32)
    return Examples(
        Features(number, np.zeros((n, 1), np.int64)), position.astype(np.float32), np.array(times, np.int64), position
    )


@hypothesis.given(
    days=st.lists(st.integers(0, 30), min_size=1, max_size=200),
    fraction=st.floats(0, 0.89),
    seed=st.integers(0, 1000),
)
def test_every_row_is_in_one_part_and_every_day_too(days, fraction, seed):
    before = Parts(examples([day * DAY + 5 for day in days], 0), examples([31 * DAY] * 3, 500))
    train, validation = with_drawn_days(before, fraction, seed)
    assert sorted([*train.position, *validation.position]) == [*range(len(days)), 500, 501, 502]
    assert {500, 501, 502} <= set(validation.position)
    assert not set(train.time // DAY) & set(validation.time // DAY)
    assert len(train.target) >= 1
    for part in (train, validation):  # what belongs together stays together
        np.testing.assert_array_equal(part.features.number[:, 0], part.position)
        np.testing.assert_array_equal(part.target, part.position)


def test_about_the_fraction_is_drawn_and_from_all_over():
    before = Parts(examples(np.repeat(np.arange(100), 10) * DAY, 0), examples([200 * DAY], 5000))
    train, validation = with_drawn_days(before, 0.2, 3)
    assert len(train.target) == 800
    drawn = np.unique(validation.time // DAY)[:-1]
    assert drawn.min() < 20
    assert drawn.max() > 80


def test_the_seed_says_which_days():
    before = Parts(examples(np.repeat(np.arange(50), 3) * DAY, 0), examples([200 * DAY], 5000))
    drawn = [tuple(with_drawn_days(before, 0.2, seed).validation.position) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_nothing_is_drawn_where_nothing_is_asked_for():
    before = Parts(examples(np.arange(9) * DAY, 0), examples([20 * DAY], 500))
    np.testing.assert_array_equal(with_drawn_days(before, 0.0, 1).train.position, before.train.position)


def test_rows_without_a_time_are_drawn_one_by_one():
    before = Parts(examples([0] * 100, 0)._replace(time=np.empty(0, np.int64)), examples([], 500))
    train, validation = with_drawn_days(before, 0.3, 1)
    assert (len(train.target), len(validation.target)) == (70, 30)
