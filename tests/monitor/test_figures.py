"""Sums since a step: as good after months as after minutes, in bounded memory."""

import numpy as np
import pytest

from app.monitor.figures import FIGURES, Series


@pytest.mark.parametrize("every", [1, 7])
def test_what_came_since_a_step_is_still_known_when_it_is_long_ago(every) -> None:
    """A stage that waits for late labels lasts for weeks of steps, every few seconds."""
    series, one, last = Series(), np.ones(len(FIGURES)), 30_000
    for step in range(every, every * last + 1, every):
        series.add(step, one)
    assert len(series.steps) <= 2048
    assert series.since(0)[0] == last
    for ago in (1, 10, 100, 1000, 7000, 15_000, 29_000):
        assert 0.96 * ago <= series.since(every * (last - ago))[0] <= ago
