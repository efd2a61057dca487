"""The fold: the same steps, the same state; one finding for one thing; and a new champion starts anew."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.monitor.clock import DAY, HOUR
from app.monitor.figures import FIGURES
from app.monitor.state import Monitor

CALM_DAYS = 4


@pytest.fixture(scope="module")
def steps(world):
    """Four calm days and two that are far too warm, in steps of five hours."""
    calm = world.rows(28 * 24, CALM_DAYS * 24)
    warm = world.rows((28 + CALM_DAYS) * 24, 2 * 24, warmer=15)
    return list(world.steps(pl.concat([calm, warm]), hours=5))


def test_a_snapshot_and_the_tail_give_what_all_steps_give(world, spec, steps) -> None:
    whole = Monitor(spec, world.subject)
    findings = [whole.fold(step) for step in steps]

    @settings(max_examples=6)
    @given(cut=st.integers(0, len(steps)))
    def law(cut: int) -> None:
        begun = Monitor(spec, world.subject)
        for step in steps[:cut]:
            begun.fold(step)
        resumed = Monitor.from_bytes(begun.to_bytes(), spec, world.subject)
        assert [resumed.fold(step) for step in steps[cut:]] == findings[cut:]
        assert resumed.to_bytes() == whole.to_bytes()

    law()


def test_a_shift_is_told_once_with_where_it_began_and_calm_days_tell_nothing(world, spec, steps) -> None:
    monitor = Monitor(spec, world.subject)
    found = [finding for step in steps for finding in monitor.fold(step)]
    begins = int(world.rows((28 + CALM_DAYS) * 24, 1)["event"][0]) // HOUR * HOUR
    assert found
    assert min(finding.at for finding in found) > begins
    [temp, *_] = [finding for finding in found if finding.what == "temp"]
    assert (temp.kind, temp.version) == ("drift", "1")
    assert abs(temp.onset - begins) <= 6 * HOUR
    assert temp.detail["bins"]
    told = [(finding.what, finding.direction) for finding in found]
    assert len(told) == len(set(told))


def test_a_new_champion_starts_with_an_open_mind(world, spec, steps) -> None:
    monitor = Monitor(spec, world.subject)
    for step in steps:
        monitor.fold(step)
    assert monitor.state.open
    again = world.rows((29 + CALM_DAYS + 2) * 24, 12)
    monitor.fold(world.step(len(steps) + 1, again, version="2"))
    assert monitor.state.version == "2"
    assert not monitor.state.open


def test_a_straggler_of_the_old_version_does_not_bring_it_back(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    rows = world.rows(28 * 24, 3)
    monitor.fold(world.step(1, rows.head(60)))
    monitor.fold(world.step(2, rows.tail(60), version="2"))
    monitor.fold(world.step(3, rows[60:70]))
    assert monitor.state.version == "2"


def test_a_rollback_brings_the_old_version_back(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    for number, version in enumerate("121", 1):
        monitor.fold(world.step(number, world.rows(28 * 24 + number, 1), version=version))
    assert monitor.state.version == "1"


def test_the_challengers_rows_are_not_the_champions(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    monitor.fold(world.step(1, world.rows(28 * 24, 1)))
    monitor.fold(world.step(2, world.rows(28 * 24 + 1, 30), version="2", role="challenger"))
    assert monitor.state.version == "1"
    assert len(monitor.state.recent.starts) == 1


def test_labelled_rows_are_counted_from_a_moment_on(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    rows = world.rows(28 * 24, 48, an_hour=10)
    monitor.fold(world.step(1, rows, labels=rows))
    second_day = int(rows["event"][0]) // DAY * DAY + DAY
    assert monitor.labelled_since(0) == 480
    assert monitor.labelled_since(second_day) == (rows["event"] >= second_day).sum()
    assert monitor.state.newest_label == rows["event"][-1]


def test_figures_of_a_stage_are_those_since_its_step(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    for number in range(1, 5):
        rows = world.rows(28 * 24 + number, 1)
        monitor.fold(world.step(number, rows, labels=rows, shadow="2"))

    def since(step: int, version: str, role: str) -> dict[str, float]:
        sums = monitor.state.figures.series[version, role].since(step)
        return dict(zip([*FIGURES, "fast", "slow", "slower"], sums.tolist(), strict=False))

    assert since(0, "1", "champion")["rows"] == 240
    stage = since(2, "1", "champion")
    assert stage["rows"] == stage["labelled"] == 120
    assert [stage[name] for name in ("fast", "slow", "slower")] == [2, 0, 0]
    shadow = since(2, "2", "shadow")
    assert shadow["pairs"] == shadow["paired_labelled"] == 120
    assert shadow["difference"] < 0
    assert shadow["distance"] == pytest.approx(-shadow["difference"])
    loss = since(0, "2", "shadow")["loss"] - since(0, "1", "champion")["loss"]
    assert since(0, "2", "shadow")["loss_difference"] == pytest.approx(loss)


def test_losses_are_kept_by_day(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    rows = world.rows(28 * 24, 48, an_hour=20)
    monitor.fold(world.step(1, rows, labels=rows))
    score = world.score(rows)
    loss = -np.log(np.where(rows["late"].to_numpy(), score, 1 - score).astype(np.float64))
    days = list(monitor.state.figures.losses["1", "champion"])
    assert {day: rows for day, rows, _, _ in days} == dict((rows["event"] // DAY * DAY).value_counts().iter_rows())
    assert sum(total for _, _, total, _ in days) == pytest.approx(loss.sum(), rel=1e-6)


def test_a_model_that_errs_more_than_it_did_is_found_by_its_losses_alone(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    calm, found = world.rows(28 * 24, 72), []
    changed = world.rows(31 * 24, 72)
    changed = changed.with_columns(late=pl.Series(world.score(changed) < 0.5))  # whatever it says, it is wrong
    for step in world.steps(pl.concat([calm, changed]), hours=6, delay=9):
        found += monitor.fold(step)
    [loss] = [finding for finding in found if finding.kind == "loss"]
    begins = int(changed["event"][0]) // HOUR * HOUR
    assert abs(loss.onset - begins) <= 12 * HOUR
    assert loss.shift > 0.1
    assert "temp" not in {finding.what for finding in found}
