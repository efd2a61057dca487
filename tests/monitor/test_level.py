"""The filter's evidence is the likelihood ratio of the model it states, and bounded memory only loses evidence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.monitor.detectors.level import Level
from app.monitor.wobble import Wobble

HOUR, DAY = 3_600_000, 86_400_000


def _wobble(day: float = 0.1, memory: float = 0.6, error: float = 0.05, days: float = 40) -> Wobble:
    return Wobble(*(np.array([x]) for x in (0.0, day, memory, error, days)))


@given(
    seed=st.integers(0, 1000),
    hours=st.lists(st.integers(1, 30), min_size=2, max_size=12),
    day=st.floats(0.001, 0.5),
    memory=st.floats(0, 0.95),
    error=st.floats(0.001, 0.3),
)
def test_whitened_sums_are_those_of_the_whole_covariance(seed, hours, day, memory, error) -> None:
    random, level = np.random.default_rng(seed), Level(_wobble(day, memory, error), np.ones(1))
    start = np.cumsum(hours) * HOUR
    mean, noise = random.normal(0, 0.3, len(start)), random.uniform(0.001, 0.1, len(start))
    for t, y, variance in zip(start.tolist(), mean, noise, strict=True):
        level.update(t, np.array([y]), np.array([variance]), np.zeros(1))
    apart = np.abs(np.subtract.outer(start // DAY, start // DAY))
    inverse = np.linalg.inv(day**2 * memory**apart + error**2 + np.diag(noise))
    arrays = level.to_arrays()
    for begin, s1, s2 in zip(arrays["start"], arrays["s1"][:, 0], arrays["s2"][:, 0], strict=True):
        shifted = (start >= begin).astype(float)
        assert s1 == pytest.approx(shifted @ inverse @ mean, rel=1e-6, abs=1e-6)
        assert s2 == pytest.approx(shifted @ inverse @ shifted, rel=1e-6)


def test_starts_kept_are_few_and_reach_far_back() -> None:
    level = Level(_wobble(), np.ones(1))
    for t in range(2000):
        level.update(t * HOUR, np.zeros(1), np.full(1, 0.01), np.zeros(1))
    number = level.to_arrays()["number"]
    assert len(number) <= 24
    assert number.min() <= 1024
    assert {1997, 1998, 1999, 2000} <= set(number.tolist())


@pytest.mark.parametrize("degrees", [None, np.array([20.0])])
def test_evidence_grows_with_the_shift_and_points_to_its_start(degrees) -> None:
    found = []
    for shift in (0.0, 0.2, 0.4, 0.8):
        random, level = np.random.default_rng(0), Level(_wobble(day=0.02), np.ones(1), degrees)
        for t in range(96):
            y = random.normal(0, 0.05, 1) + shift * (t >= 64)
            log_m, size, onset = level.update(t * HOUR, y, np.full(1, 0.0025), np.zeros(1))
        found.append(float(log_m[0]))
    assert found == sorted(found)
    assert size[0] == pytest.approx(0.8, abs=0.15)
    assert abs(int(onset[0]) - 64 * HOUR) <= 4 * HOUR


def test_wobble_as_large_as_the_shift_leaves_little_evidence() -> None:
    def evidence(day: float, days: float = 1e6) -> float:
        level = Level(_wobble(day=day, days=days), np.ones(1))
        for t in range(48):
            log_m, _, _ = level.update(t * HOUR, np.full(1, 0.3 * (t >= 24)), np.full(1, 0.0025), np.zeros(1))
        return float(log_m[0])

    assert evidence(0.01) > 20 > 6 > evidence(0.2)
    assert evidence(0.05, days=5) < evidence(0.05)


def test_one_row_of_a_rare_event_is_no_proof() -> None:
    def evidence(largest: float) -> float:
        level = Level(_wobble(day=0.001, error=0.001), np.full(1, largest))
        for t in range(10):
            log_m, _, _ = level.update(t * HOUR, np.full(1, 0.5 * (t == 9)), np.full(1, 0.005), np.zeros(1))
        return float(log_m[0])

    assert evidence(1.0) > 15  # 100 rows of 200, by one standard deviation each
    assert evidence(100.0) < 6  # one row, by a hundred


def test_a_restart_forgets_the_evidence() -> None:
    level = Level(_wobble(day=0.01), np.ones(1))
    for t in range(10):
        before, _, _ = level.update(t * HOUR, np.ones(1), np.full(1, 0.01), np.zeros(1))
    level.restart(np.array([True]))
    after, _, _ = level.update(10 * HOUR, np.ones(1), np.full(1, 0.01), np.zeros(1))
    assert after[0] < before[0] - 20
