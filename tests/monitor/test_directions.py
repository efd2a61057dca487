"""Directions are standardised and independent of the season, and their sums add up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.monitor.binning import FIRST, MISSING, OUTSIDE, SLOTS, Binning, Edges
from app.monitor.directions import Directions

HOUR = 3_600_000
BINS = 8


def _binning(season: str = "hour_of_day", task: str = "binary", classes: int = 2) -> Binning:
    none = Edges.at([], BINS)
    one = Edges.at([np.linspace(0, 1, 9)], BINS)
    return Binning(task, classes, ("a", "b"), ("c",), BINS, season, Edges.at([], BINS), None, none, one, none)


def _counts(binning: Binning, seed: int = 0, swing: float = 0.0, rows: int = 400) -> np.ndarray:
    """Return counts of every slot; with `swing` values are higher in some slots than in others."""
    random, slots = np.random.default_rng(seed), SLOTS[binning.season]
    counts = np.zeros((slots, len(binning.watched), BINS + FIRST), np.uint32)
    share = random.dirichlet(np.ones(BINS) * 5, size=len(binning.watched))
    for slot in range(slots):
        tilt = np.exp(swing * np.sin(slot) * np.linspace(-1, 1, BINS))
        for row, values in enumerate(share * tilt):
            counts[slot, row, FIRST:] = random.multinomial(rows, values / values.sum())
    counts[:, 1, MISSING] = 20
    return counts


def _of(binning: Binning, counts: np.ndarray) -> Directions:
    return Directions.of(binning, counts, np.array([0.002]))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_scores_have_mean_0_and_variance_1_over_the_reference(task) -> None:
    binning = _binning(task=task, classes=3)
    counts = _counts(binning)
    directions = _of(binning, counts)
    total = counts.sum(axis=0)[directions.thing]
    share = total / total.sum(axis=1, keepdims=True)
    common = np.array([b < 0 or total[d, b] > 0 for d, b in enumerate(directions.bin)])
    assert {"location", "scale", "skew", "value", "missing", "outside", "unseen"} == set(directions.name)
    mean = (share * directions.phi).sum(axis=1)
    variance = (share * np.square(directions.phi)).sum(axis=1)
    np.testing.assert_allclose(mean[common], 0, atol=0.06)
    np.testing.assert_allclose(variance[common], 1, atol=0.02)


def test_polynomials_do_not_move_together() -> None:
    binning = _binning()
    counts = _counts(binning)
    directions = _of(binning, counts)
    mine = [d for d in range(len(directions)) if directions.thing[d] == 0 and directions.bin[d] < 0]
    share = counts.sum(axis=0)[0] / counts[:, 0].sum()
    np.testing.assert_allclose((directions.phi[mine] * share) @ directions.phi[mine].T, np.eye(3), atol=1e-3)


@pytest.mark.parametrize("season", ["hour_of_day", "hour_of_week", "none"])
def test_a_slots_own_rows_are_as_expected(season) -> None:
    binning = _binning(season)
    counts = _counts(binning, swing=0.8)
    directions = _of(binning, counts)
    start = (4 * 24 + 7) * HOUR  # a Monday, 7 o'clock
    slot = int(binning.slots(np.array([start]))[0])
    window = directions.window(start, counts[slot])
    assert window.slot == slot
    location = [d for d in range(len(directions)) if directions.name[d] == "location"]
    away = np.abs(window.sums[location] / window.rows[location])
    assert away.max() < 0.1
    if season != "none":
        assert np.abs(directions.season[:, location]).max() > 0.3


def test_without_a_season_thin_slots_are_drawn_to_the_overall_mean() -> None:
    binning = _binning()
    directions = _of(binning, _counts(binning, rows=5))
    plain = (directions.phi * _counts(binning, rows=5)[3][directions.thing]).sum(axis=1) / 5
    location = [d for d in range(len(directions)) if directions.name[d] == "location" and directions.thing[d] != 1]
    assert np.abs(directions.season[3, location]).max() < 0.5 * np.abs(plain[location]).max()


@given(seed=st.integers(0, 1000), cut=st.floats(0, 1))
def test_sums_of_parts_add_up(seed, cut) -> None:
    binning = _binning()
    counts = _counts(binning)
    directions = _of(binning, counts)
    part = np.random.default_rng(seed).binomial(counts[5], cut).astype(np.uint32)
    whole, one, other = (directions.window(5 * HOUR, c) for c in (counts[5], part, counts[5] - part))
    np.testing.assert_allclose(one.sums + other.sums, whole.sums, atol=1e-9)
    np.testing.assert_array_equal(one.rows + other.rows, whole.rows)


def test_every_watched_thing_has_the_same_part_of_the_budget() -> None:
    binning = _binning()
    directions = _of(binning, _counts(binning))
    of_things = np.bincount(directions.thing, directions.weight)
    np.testing.assert_allclose(of_things, 1 / len(binning.watched))


def test_what_never_happened_is_rare_not_impossible() -> None:
    binning = _binning()
    counts = _counts(binning)
    directions = _of(binning, counts)
    for d, (name, b) in enumerate(zip(directions.name, directions.bin, strict=True)):
        if name in ("missing", "outside", "unseen"):
            assert 0 < directions.phi[d, b] <= 100
    unseen = directions.name.index("unseen")
    assert directions.phi[unseen, OUTSIDE] == pytest.approx((0.998 / 0.002) ** 0.5, rel=1e-3)


def test_a_constant_has_no_location_to_move() -> None:
    binning = _binning()
    counts = _counts(binning)
    counts[:, 0, FIRST + 1 :] = 0
    names = [
        name for name, thing in zip(_of(binning, counts).name, _of(binning, counts).thing, strict=True) if thing == 0
    ]
    assert names == ["missing", "outside"]


def test_a_day_off_is_as_far_as_weekends_are() -> None:
    binning = _binning()
    counts = _counts(binning)
    counts[24:, 0, FIRST:] = np.sort(counts[24:, 0, FIRST:], axis=1)
    counts[:24, 0, FIRST:] = np.sort(counts[:24, 0, FIRST:], axis=1)[:, ::-1]
    directions = _of(binning, counts)
    location = directions.name.index("location")
    gap = directions.season[24:, location].mean() - directions.season[:24, location].mean()
    assert directions.day_off[0][location] == pytest.approx(abs(gap))
    assert abs(gap) > 0.5
    assert directions.day_off[1][location] < 0.2
    assert not np.any(_of(_binning("none"), counts[:1]).day_off)
