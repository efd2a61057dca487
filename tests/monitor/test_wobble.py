"""What the reference's days teach: how far they wander, how long they remember, and how little few of them tell."""

import numpy as np
import pytest

from app.monitor.wobble import Hours, Losses, Wobble

HOUR, DAY = 3_600_000, 86_400_000
D = 60


def _hours(days: int, day: float, memory: float = 0.0, hour: float = 0.0, rows: int = 200, seed: int = 0) -> Hours:
    random = np.random.default_rng(seed)
    effect, sums = random.normal(0, day, D), []
    for _ in range(days):
        effect = memory * effect + np.sqrt(1 - memory**2) * random.normal(0, day, D)
        mean = effect + random.normal(0, hour, (24, D)) + random.normal(0, rows**-0.5, (24, D))
        sums.append(mean * rows)
    return Hours(np.arange(days * 24) * HOUR, np.concatenate(sums), np.full(days * 24, float(rows)))


def _of(hours: Hours) -> Wobble:
    return Wobble.of(hours, "hour_of_day", (np.zeros(D), np.zeros(D)))


@pytest.mark.parametrize(("day", "memory"), [(0.05, 0.0), (0.1, 0.5), (0.1, 0.8)])
def test_days_and_their_memory_are_learned(day, memory) -> None:
    found = _of(_hours(90, day, memory))
    assert day * 0.95 < np.median(found.day) < day * 1.4
    assert abs(np.median(found.memory) - memory) < 0.12
    true_error = day * np.sqrt((1 + memory) / (1 - memory) / 90)
    assert 0.6 * true_error < np.median(found.error) < 2 * true_error


def test_rows_drawn_by_chance_are_no_wobble() -> None:
    found = _of(_hours(90, 0.0))
    assert np.median(found.day) < 0.01
    assert np.median(found.hour) < 0.02


def test_hours_wander_within_days() -> None:
    found = _of(_hours(60, 0.02, hour=0.1))
    assert 0.09 < np.median(found.hour) < 0.15


def test_few_days_teach_caution() -> None:
    many, few = _of(_hours(120, 0.05)), _of(_hours(10, 0.05))
    assert (few.days < many.days).all()
    assert np.median(few.day) > np.median(many.day)
    none = _of(_hours(2, 0.0))
    np.testing.assert_array_equal(none.days, 0)
    np.testing.assert_array_equal(none.day, 0.05)


def test_an_odd_day_counts_and_so_does_a_holiday_that_the_days_lack() -> None:
    hours = _hours(60, 0.01)
    hours.sums[24 * 30 : 24 * 31] += 0.5 * 200
    assert (_of(hours).day >= 0.18).all()
    off = Wobble.of(_hours(60, 0.01), "hour_of_day", (np.full(D, 0.5), np.full(D, 0.25)))
    assert (off.day >= 0.2).all()
    assert (off.hour >= 0.1).all()


def test_parts_of_an_hour_are_one_hour() -> None:
    whole = _hours(30, 0.05)
    half = Hours(whole.start, whole.sums / 2, whole.rows / 2)
    for ours, theirs in zip(_of(Hours.merged(half, half)), _of(whole), strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_losses_are_described_with_and_without_time() -> None:
    random = np.random.default_rng(0)
    losses, time = random.exponential(2.0, 20 * 24 * 30), np.repeat(np.arange(20 * 24) * HOUR, 30)
    found = Losses.of(losses, time, "none", 0.5)
    nightly = losses * (1 + (time // HOUR % 24 < 6))
    seasonal = Losses.of(nightly, time, "hour_of_day", 0.5)
    assert seasonal.expected(3 * HOUR) == pytest.approx(4, rel=0.1)
    assert seasonal.expected(9 * HOUR) == pytest.approx(2, rel=0.1)
    assert seasonal.wobble.hour[0] < 0.2
    assert found.mean == pytest.approx(2, rel=0.05)
    assert found.sd == pytest.approx(2, rel=0.05)
    assert found.largest == losses.max()
    assert found.wobble.day[0] < 0.05
    timeless = Losses.of(losses, time[:0], "none", 0.5)
    assert timeless[:3] == found[:3]
    assert timeless.wobble.days[0] == 0
    assert Losses.of(losses[:0], time[:0], "none", 0.5).mean == 0
