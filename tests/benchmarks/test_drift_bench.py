"""The drift benchmark's streams change only what they say, peers get silent thresholds, and the report does not flatter."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.drift.cases import SCENARIOS, Case
from benchmarks.drift.ours import Alarm
from benchmarks.drift.peers import Watched, first_alarm, thresholds
from benchmarks.drift.report import NEVER, Delay, Findings, all_delays, episodes, interval, write
from benchmarks.drift.streams import BEGIN, CATEGORY, DAY, HOUR, NULLED, PAIR, PLAIN, Change, Process, World

ONSET = BEGIN + 3 * DAY + 7 * HOUR
SCENARIO, OTHER = "mean.25", "concept"


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        (Change("mean", PLAIN, 0.5, ONSET), [PLAIN]),
        (Change("scale", PLAIN, 1.3, ONSET), [PLAIN]),
        (Change("nulls", NULLED, 0.08, ONSET), [NULLED]),
        (Change("correlation", PAIR[1], 0.0, ONSET), [PAIR[1]]),
        (Change("category", CATEGORY, 0.01, ONSET), []),
        (Change("concept", PLAIN, 1.0, ONSET), []),
    ],
    ids=lambda value: value.kind if isinstance(value, Change) else "",
)
def test_a_change_leaves_rows_before_it_and_other_columns_alone(change: Change, columns: list[int]) -> None:
    quiet, changed = (next(World(p).days(3, 4)) for p in (Process(1), Process(1).changed(change)))
    late = quiet.time >= ONSET
    assert 0 < late.sum() < len(late)
    np.testing.assert_array_equal(changed.time, quiet.time)
    np.testing.assert_array_equal(changed.features.number[~late], quiet.features.number[~late])
    same = np.isclose(changed.features.number, quiet.features.number, equal_nan=True).all(axis=0)
    assert np.flatnonzero(~same).tolist() == columns
    moved = (changed.features.category != quiet.features.category).any(axis=0)
    assert np.flatnonzero(moved).tolist() == ([CATEGORY] if change.kind == "category" else [])
    if change.kind == "concept":
        np.testing.assert_array_equal(changed.score, quiet.score)
        assert (changed.label != quiet.label)[late].any()


def test_a_changed_correlation_shows_in_no_column_alone() -> None:
    world = World(Process(2).changed(Change("correlation", PAIR[1], 0.0, BEGIN)))
    first, second = np.concatenate([day.features.number[:, list(PAIR)] for day in world.days(0, 5)]).T
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert second.std() == pytest.approx(first.std(), rel=0.05)


def test_a_day_is_the_same_whoever_asks() -> None:
    alone = next(World(Process(3)).days(5, 6))
    among = list(World(Process(3)).days(4, 8))[1]
    np.testing.assert_array_equal(alone.features.number, among.features.number)
    np.testing.assert_array_equal(alone.label, among.label)


def test_peers_thresholds_are_silent_where_they_were_set() -> None:
    quiet, held_out, moving = (
        _case("quiet-usual-0", calibrates=True),
        _case("quiet-usual-1"),
        _case(f"{SCENARIO}-0", ONSET),
    )
    loud = Watched(quiet.name, "plain", "PSI", [(1, 0.1), (5, 0.3)])
    found = thresholds([quiet, held_out, moving], [loud, Watched(held_out.name, "plain", "PSI", [(2, 0.9)])])
    assert found == {("PSI", "usual", "plain"): 0.3}
    assert first_alarm(loud, 0.3) is None
    assert first_alarm(loud, 0.2) == 5


def test_alarms_of_one_week_are_one_event_and_rates_have_poisson_limits() -> None:
    assert episodes([]) == 0
    assert episodes([0, 2 * DAY, 8 * DAY, 20 * DAY]) == 2
    assert interval(0, 2.0) == (0.0, pytest.approx(3.689 / 2, rel=1e-3))
    low, high = interval(10, 10.0)
    assert (low, high) == (pytest.approx(0.4795, rel=1e-3), pytest.approx(1.839, rel=1e-3))


def test_what_most_seeds_miss_is_never_found() -> None:
    assert str(Delay([5.0, NEVER, NEVER])) == "never (1/3)"
    assert str(Delay([5.0, 7.0, NEVER])) == "7.0 h (2/3)"
    assert str(Delay([72.0])) == "3.0 d (1/1)"


def test_the_report_says_where_ours_is_behind_and_when_the_budget_is_not_kept(tmp_path: Path) -> None:
    quiet, moving, other = (
        _case("quiet-usual-0", calibrates=True),
        _case(f"{SCENARIO}-0", ONSET),
        _case(f"{OTHER}-0", ONSET),
    )
    loud = [Alarm("fast", BEGIN + at * DAY, "number plain location", 0.1) for at in (100, 200)]
    before = Alarm("slow", ONSET - HOUR, "number plain location", 0.1)
    findings = Findings(
        {"processor": "2 cores"},
        [quiet, moving, other],
        {
            quiet.name: loud,
            moving.name: [before, Alarm("medium", ONSET + 12 * HOUR, "number plain location", 0.2)],
            other.name: [Alarm("loss", ONSET + 5 * HOUR, "bets", 0.2)],
        },
        [
            Watched(quiet.name, "plain", "ADWIN", [(BEGIN, 2.0)]),
            Watched(moving.name, "plain", "ADWIN", [(ONSET + 6 * HOUR, 3.0)]),
            Watched(moving.name, "plain", "PSI", [(ONSET + 9 * HOUR, 3.0)]),  # no quiet stream: no threshold
        ],
        {"ours: counting": {"ns": 40.0, "bytes": 6528.0}},
        {"nannyml": "it cannot be installed"},
    )
    delays = all_delays(findings)
    assert delays["ours"][SCENARIO].hours == [12.0]
    assert delays["slow"][SCENARIO].hours == [NEVER]
    assert delays["ADWIN"][SCENARIO].hours == [6.0]
    assert "PSI" not in delays
    write(findings, tmp_path)
    text = (tmp_path / "drift.md").read_text()
    assert "| all together | 1 | 2 | 2 | 2.00 (0.24-7.22) | **not kept** |" in text
    assert f"**Ours behind**: {SCENARIOS[SCENARIO].title} (ADWIN is quicker, by a factor of 2.0)." in text
    assert f"Ours ahead of every peer: {SCENARIOS[OTHER].title}." in text
    assert "nannyml is left out: it cannot be installed" in text
    assert (tmp_path / "drift.png").stat().st_size > 1000


def _case(name: str, onset: int = 0, calibrates: bool = False) -> Case:
    process = Process(1, change=Change("mean", PLAIN, 0.25, onset) if onset else Change())
    return Case(name, "usual", process, 90, 365, ("plain",), calibrates)
