"""The watermark only goes forward, follows the many, and is neither carried away nor stopped by wrong clocks."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.monitor.clock import DAY, HOUR, Clock

YEAR = 365 * DAY
NOW = 1_700_000_000_000


def _tick(clock: Clock, at: int, rows: int = 100, event: int | None = None) -> list[str]:
    """Let rows of the five seconds before `at` come, with the event time told."""
    arrival = at - np.arange(rows)[::-1] * 5000 // rows
    return [found.direction for found in clock.tick(arrival if event is None else arrival - at + event, arrival)]


@given(jumps=st.lists(st.integers(-400 * DAY, 400 * DAY), min_size=2, max_size=20))
def test_the_watermark_never_goes_back(jumps) -> None:
    clock, seen = Clock(), []
    for jump in jumps:
        _tick(clock, NOW + jump)
        seen.append(clock.watermark)
    assert all(one <= other for one, other in pairwise(seen))


def test_an_honest_clock_is_followed_through_nights_weekends_and_replays() -> None:
    clock = Clock()
    moments = [
        NOW,
        NOW + 5000,
        NOW + 9 * HOUR,
        NOW + 10 * HOUR,
        NOW + 3 * DAY,
        NOW + 3 * DAY + HOUR,
        NOW + 3 * DAY + 2 * HOUR,
    ]
    assert [_tick(clock, at) for at in moments] == [[]] * 7
    assert clock.watermark > NOW + 3 * DAY
    replayed = Clock()
    for day in range(0, 300, 5):
        event = NOW - YEAR + day * DAY + np.linspace(0, 5 * DAY, 4000).astype(np.int64)
        assert replayed.tick(event, np.full(4000, NOW) + day) == []
    assert replayed.watermark > NOW - YEAR + 290 * DAY


def test_a_minute_a_year_ahead_closes_nothing_and_is_reported() -> None:
    clock, found = Clock(), []
    for second in range(0, 600, 5):
        wrong = 240 <= second < 300
        found += _tick(clock, NOW + second * 1000 + wrong * YEAR)
        assert clock.watermark <= NOW + second * 1000
    assert "ahead" in found
    assert clock.watermark > NOW + 590_000


def test_one_replica_ahead_of_others_is_reported_and_does_not_count() -> None:
    clock = Clock()
    found = []
    for second in range(0, 60, 5):
        arrival = NOW + second * 1000 + np.arange(300)
        arrival[::3] += YEAR
        found += clock.tick(arrival, arrival)
    assert {one.direction for one in found} == {"ahead"}
    assert NOW + 54_000 < clock.watermark < NOW + 60_000


def test_a_clock_that_goes_back_is_reported_and_the_watermark_stays() -> None:
    clock = Clock()
    _tick(clock, NOW)
    mark = clock.watermark
    assert _tick(clock, NOW - YEAR) == ["back"]
    assert clock.watermark == mark


def test_old_rows_that_come_late_are_no_fault() -> None:
    clock = Clock()
    _tick(clock, NOW)
    event = np.where(np.arange(200) % 3 == 0, NOW - 30 * DAY, NOW)
    assert clock.tick(event, np.full(200, NOW)) == []


def test_event_times_that_stand_still_while_rows_come_are_stuck() -> None:
    clock = Clock()
    found = [_tick(clock, NOW + minute * 60_000, rows=5, event=NOW) for minute in range(0, 120, 5)]
    assert found[0] == []
    frozen = Clock()
    stood = [frozen.tick(np.full(5, NOW), np.full(5, NOW + minute * 60_000)) for minute in range(0, 120, 5)]
    assert [bool(one) for one in stood] == [minute > 60 for minute in range(0, 120, 5)]
    assert stood[-1][0].direction == "stuck"
