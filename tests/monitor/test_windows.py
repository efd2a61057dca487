"""Hours close once, in order, when the watermark has passed them; what comes later is counted, not lost silently."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from app.journal.rows import PROFILES
from app.monitor import windows
from app.monitor.clock import HOUR
from app.monitor.windows import LossHours, Windows

LATENESS = HOUR // 6


def _profiles(*hours: int, role: str = "champion", counts: tuple[int, ...] = (1, 2)) -> pa.Table:
    counted = np.array(counts, "<u4").tobytes()
    rows = [
        {"version": "1", "role": role, "window": hour * HOUR, "rows": 3, "counts": counted, "replica": f"r{i}"}
        for i, hour in enumerate(hours)
    ]
    return pa.Table.from_pylist(rows, PROFILES)


@given(order=st.permutations([0, 0, 1, 1, 2, 5]), cut=st.integers(0, 6))
def test_windows_add_up_whatever_the_order_and_however_they_are_cut(order, cut) -> None:
    open_windows = Windows(LATENESS)
    open_windows.add(_profiles(*order[:cut]))
    open_windows.add(_profiles(*order[cut:]))
    closed = open_windows.close(10 * HOUR)
    assert [hour.start // HOUR for hour in closed] == [0, 1, 2, 5]
    assert [hour.counts.tolist() for hour in closed] == [[2, 4], [2, 4], [1, 2], [1, 2]]
    assert [hour.rows for hour in closed] == [6, 6, 3, 3]


def test_an_hour_stays_open_for_the_declared_lateness() -> None:
    open_windows = Windows(LATENESS)
    open_windows.add(_profiles(0, 1))
    assert open_windows.close(HOUR + LATENESS) == []
    assert [hour.start for hour in open_windows.close(HOUR + LATENESS + 1)] == [0]
    open_windows.add(_profiles(0, 1))
    assert open_windows.late == 3
    assert [hour.rows for hour in open_windows.close(9 * HOUR)] == [6]


def test_what_a_challenger_or_a_shadow_counted_is_left_aside() -> None:
    open_windows = Windows(LATENESS)
    open_windows.add(pa.concat_tables([_profiles(0, role="challenger"), _profiles(0, role="shadow")]))
    assert open_windows.close(9 * HOUR) == []


def test_hours_of_wrong_clocks_cannot_fill_the_memory(monkeypatch) -> None:
    monkeypatch.setattr(windows, "_MOST", 4)
    open_windows = Windows(LATENESS)
    open_windows.add(_profiles(0, 9000, 1, 9001, 2, 3))
    assert open_windows.early == 6
    assert [hour.start // HOUR for hour in open_windows.close(9999 * HOUR)] == [0, 1, 2, 3]


def test_losses_come_by_hour_and_a_late_one_goes_to_the_first_that_is_open() -> None:
    hours = LossHours()
    hours.add(np.array([0, HOUR, 1]), np.array([0.1, 0.2, 0.3]))
    assert [(start, loss.tolist()) for start, loss in hours.close(HOUR)] == [(0, [0.1, 0.3])]
    hours.add(np.array([0, 2 * HOUR]), np.array([0.4, 0.5]))
    assert [loss.tolist() for _, loss in hours.close(3 * HOUR)] == [[0.2, 0.4], [0.5]]
    assert list(hours.close(2 * HOUR)) == []
