"""A bucket gives its rate on the mean, whatever is asked of it, and a second's worth at once."""

from hypothesis import given
from hypothesis import strategies as st

from app.serving.rate import Bucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_second_of_rows_is_there_at_once_and_comes_back_as_time_goes() -> None:
    clock = Clock()
    bucket = Bucket(4.0, clock)
    assert [bucket.wait() for _ in range(5)] == [0, 0, 0, 0, 0.25]
    clock.now = 0.5
    assert [bucket.wait() for _ in range(3)] == [0, 0, 0.25]
    clock.now = 100.0
    assert [bucket.wait() for _ in range(5)] == [0, 0, 0, 0, 0.25]


def test_what_was_overdrawn_is_waited_for() -> None:
    clock = Clock()
    bucket = Bucket(10.0, clock)
    assert bucket.wait() == 0
    bucket.take(99)
    clock.now = 5.0
    assert bucket.wait() == 4.1
    clock.now = 9.2
    assert bucket.wait() == 0


@given(
    rate=st.floats(0.01, 1000),
    asked=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 500)), min_size=1, max_size=50),
)
def test_the_mean_is_held_but_for_a_second_and_the_last_request(rate: float, asked: list[tuple[float, int]]) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    taken = last = 0
    for pause, rows in asked:
        clock.now += pause
        if bucket.wait() == 0:
            bucket.take(rows - 1)
            taken, last = taken + rows, rows
    assert taken - last <= (clock.now * rate + max(rate, 1)) * (1 + 1e-9)


@given(rate=st.floats(0.01, 1000), rows=st.integers(1, 1000))
def test_whoever_waits_as_long_as_he_was_told_is_let_in(rate: float, rows: int) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    bucket.wait()
    bucket.take(rows)
    clock.now += bucket.wait() * (1 + 1e-9) + 1e-9
    assert bucket.wait() == 0
