"""Proof that one version is worse: the interval holds at every look, and finds what is there."""

import numpy as np
import pytest

from app.decisions.proof import FEWEST_DAYS, FEWEST_ROWS, Sums, fewest_rows, interval


def sums(values: np.ndarray) -> Sums:
    return Sums(len(values), float(values.sum()), float((values**2).sum()))


def by_day(values: np.ndarray, rows: int) -> list[Sums]:
    return [sums(day) for day in values.reshape(-1, rows)]


def accused(random: np.random.Generator, wobble: float, mean: float = 0.0, days: int = 60, rows: int = 40) -> bool:
    """Look after every day, and say whether the interval ever lay above 0."""
    values = (random.laplace(mean, 1, (days, rows)) + wobble * random.standard_normal((days, 1))).ravel()
    looks = range(FEWEST_DAYS, days + 1)
    return any(interval(sums(values[: n * rows]), by_day(values[: n * rows], rows), 0.95).low > 0 for n in looks)


@pytest.mark.parametrize("wobble", [0.0, 0.5])
def test_looking_every_day_accuses_an_equal_version_no_more_often_than_declared(wobble):
    random = np.random.default_rng(5)
    found = sum(accused(random, wobble) for _ in range(300))
    assert found <= 300 * 0.05  # two-sided: half of it is expected on this side at most


def test_looking_after_every_batch_of_a_first_day_accuses_no_more_often_than_declared():
    random, found = np.random.default_rng(6), 0
    for _ in range(300):
        values = random.laplace(0, 1, 2000)
        found += any(interval(sums(values[:n]), [], 0.95).low > 0 for n in range(FEWEST_ROWS, 2001, 25))
    assert found <= 300 * 0.05


def test_a_version_that_is_worse_is_found():
    random = np.random.default_rng(7)
    assert all(accused(random, 0.2, mean=0.3) for _ in range(20))


def test_days_that_differ_widen_the_interval_beyond_what_their_rows_would_say():
    random = np.random.default_rng(8)
    values = (random.standard_normal((8, 500)) + random.standard_normal((8, 1))).ravel()
    by_days = interval(sums(values), by_day(values, 500), 0.95)
    assert by_days.mean == pytest.approx(values.mean())
    assert by_days.high - by_days.low > 30 * values.std() / len(values) ** 0.5


@pytest.mark.parametrize("rows", [300, 3000])
def test_the_weather_of_the_first_days_accuses_nobody_however_many_rows_share_it(rows):
    random, found = np.random.default_rng(10), 0
    for _ in range(200):
        values = 0.3 * random.standard_normal((FEWEST_DAYS - 1, rows)) + 0.05 * random.standard_normal((4, 1))
        looks = [(day, n) for day in range(FEWEST_DAYS - 1) for n in range(FEWEST_ROWS, rows + 1, rows // 20)]
        found += any(
            interval(sums(np.append(values[:day], values[day, :n])), by_day(values[: day + 1], rows), 0.95).low > 0
            for day, n in looks
        )
    assert found <= 200 * 0.05


@pytest.mark.parametrize("few", [3, 4])
def test_days_of_few_rows_do_not_make_a_proof_of_the_weather_of_one_of_many(few):
    random, found = np.random.default_rng(12), 0
    for _ in range(300):
        rows = [20] * few + [5000]
        each = [0.3 * random.standard_normal(size) + 0.05 * random.standard_normal() for size in rows]
        looks = [[*each[:-1], each[-1][:n]] for n in range(250, 5001, 250)]
        found += any(
            interval(sums(np.concatenate(days)), [sums(day) for day in days], 0.95).low > 0 for days in looks
        )
    assert found <= 300 * 0.025  # one-sided


def test_a_version_that_is_much_worse_is_found_on_its_first_day():
    values = np.random.default_rng(11).normal(1, 1, 100)
    assert interval(sums(values), [sums(values)], 0.95).low > 0


def test_too_few_rows_prove_nothing():
    assert interval(Sums(0, 0.0, 0.0), [], 0.95).low == -np.inf
    assert interval(Sums(FEWEST_ROWS - 1, 1e6, 1e9), [], 0.95).low == -np.inf


def test_of_a_rare_class_the_common_one_alone_proves_nothing():
    """A version that follows a risk from 1 % to 2 % is better, and on rows without an event always worse."""
    random, found, fewest = np.random.default_rng(9), 0, fewest_rows(np.array([99_000, 1_000]))
    assert fewest == 1000
    for _ in range(200):
        risk = np.clip(0.02 * np.exp(random.normal(-0.1, 0.5, 3000)), 1e-4, 0.5)
        event = random.random(3000) < risk
        loss, other = (-np.log(np.where(event, p, 1 - p)) for p in (risk, risk / 2))
        looks = range(FEWEST_ROWS, 3001, 25)
        found += any(interval(sums((loss - other)[:n]), [], 0.95, fewest).low > 0 for n in looks)
    assert found <= 200 * 0.05


@pytest.mark.parametrize(
    ("classes", "fewest"), [([50, 50], 50), ([40, 30, 20, 10], 50), ([7, 0], 50), ([90, 5, 5], 100)]
)
def test_the_rarer_all_but_the_commonest_class_the_more_rows_it_takes(classes, fewest):
    assert fewest_rows(np.array(classes)) == fewest
