"""The contract of every detector: silent in control, right about what moved and when, and a pure fold."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.data.loss import row_loss
from app.monitor.binning import OUTSIDE, Counts
from app.monitor.detectors import Detector, Evidence, Loss, detectors
from app.monitor.detectors.detector import Arrays
from app.monitor.profile import Reference
from app.spec import Drift
from app.types import Features

HOUR, DAY = 3_600_000, 86_400_000
BEGIN = 19_723 * DAY  # a Monday
YEAR = dt.timedelta(days=365)
LATE = TargetColumn("late", "binary", (False, True))
NAMES = ("fast", "medium", "slow", "loss")
LEARNED = 75  # days of the reference


class Hour(NamedTuple):
    """What a detector may be told of an hour."""

    start: int
    counts: Counts
    losses: np.ndarray


@dataclass
class World:
    """Numbers `plain`, `seasonal` and `heavy` (Student's t, 3 degrees of freedom), category `kind`, labels."""

    seed: int = 0
    rows: int = 50  # an hour
    wobble: float = 0.05  # standard deviation of a day
    memory: float = 0.5  # its correlation with the next day's
    holidays: bool = False
    unequal: float = 0.0  # standard deviation of the logarithm of a day's rows
    drift: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.effect = self.random.normal(0, self.wobble, 3)
        self.day = 0

    def next_day(self) -> list[tuple[int, Features, np.ndarray, np.ndarray]]:
        """Return start, features, scores and labels of the next 24 hours."""
        random = self.random
        fresh = random.normal(0, self.wobble * np.sqrt(1 - self.memory**2), 3)
        self.effect = self.memory * self.effect + fresh
        mean = self.effect + 0.3 * (self.holidays and self.day % 20 == 13)
        size = self.rows * np.exp(random.normal(0, self.unequal))
        hours = [self._hour(BEGIN + self.day * DAY + h * HOUR, h, mean, random.poisson(size)) for h in range(24)]
        self.day += 1
        return hours

    def _hour(self, start: int, hour: int, mean: np.ndarray, rows: int):
        random = self.random
        season = np.array([0, np.sin(hour / 12 * np.pi), 0])
        noise = random.normal(size=(rows, 3))
        noise[:, 2] /= np.sqrt(random.chisquare(3, rows))
        number = noise + mean + season
        number[:, 0] += self.drift.get("mean", 0)
        number[:, 1] += self.drift.get("seasonal", 0)
        number[random.random(rows) < self.drift.get("nulls", 0), 0] = np.nan
        kind = random.integers(2, 6, (rows, 1))
        kind[random.random(rows) < self.drift.get("unseen", 0)] = OUTSIDE
        score = 1 / (1 + np.exp(-np.clip(number[:, :2].sum(axis=1), -4, 4)))
        score = np.where(np.isnan(score), 0.5, score)
        label = random.random(rows) < score
        label ^= random.random(rows) < self.drift.get("mistakes", 0)
        return start, Features(number.astype(np.float32), kind), score.astype(np.float32), label.astype(np.float32)

    def examples(self, days: int) -> tuple[Examples, np.ndarray]:
        """Return the next days as rows to learn from, and their scores."""
        hours = [hour for _ in range(days) for hour in self.next_day()]
        time = np.concatenate([np.full(len(score), start) for start, _, score, _ in hours])
        number, kind, score, label = (
            np.concatenate(parts)
            for parts in zip(*((f.number, f.category, score, label) for _, f, score, label in hours), strict=True)
        )
        return Examples(Features(number, kind), label, time, np.arange(len(time))), score

    def reference(self, days: int = 60, validation: int = 15, season: str = "hour_of_day") -> Reference:
        """Learn from the next days."""
        train, _ = self.examples(days)
        held_out, scores = self.examples(validation)
        at = np.linspace(0, 1, 257)
        numbers = zip(("plain", "seasonal", "heavy"), train.features.number.T, strict=True)
        plan = FeaturePlan(
            number=tuple(NumberColumn(name, quantiles=tuple(np.quantile(x, at).tolist())) for name, x in numbers),
            category=(CategoryColumn("kind", "string", tuple("abcd")),),
            target=LATE,
            time="time",
        )
        return Reference.of(plan, Drift(components=2, season=season), train, held_out, scores)

    def hours(self, reference: Reference, days: int) -> Iterator[Hour]:
        """Yield the hours of the next days."""
        for _ in range(days):
            for start, features, score, label in self.next_day():
                yield Hour(start, reference.binning.count(features, score), row_loss(LATE, score, label))


class Told:
    """A detector of any kind, told an hour."""

    def __init__(self, name: str, reference: Reference) -> None:
        self.reference = reference
        self.loss = Loss(reference.losses, reference.losses.mean, YEAR) if name == "loss" else None
        self.detector: Detector | Loss = self.loss or detectors(reference, YEAR)[name]

    def update(self, hour: Hour) -> Evidence | None:
        if self.loss:
            return self.loss.update(hour.start, hour.losses) if len(hour.losses) else None
        assert not isinstance(self.detector, Loss)
        return self.detector.update(self.reference.directions.window(hour.start, hour.counts))

    def alarms(self, hours: Iterator[Hour] | list[Hour]) -> list[tuple[Evidence, int]]:
        """Return the evidence of every alarm and its direction."""
        found = []
        for hour in hours:
            evidence = self.update(hour)
            if evidence:
                found += [(evidence, d) for d in np.flatnonzero(evidence.alarm).tolist()]
        return found

    def about(self, direction: int) -> tuple[str, str]:
        """Return the thing and the direction's name."""
        directions = self.reference.directions
        return directions.binning.watched[directions.thing[direction]][1], directions.name[direction]


@cache
def _learned(**world: float) -> tuple[World, Reference]:
    """Return a world on the day after its reference; only to be copied."""
    found = World(**world)
    return found, found.reference()


def _now(drift: dict[str, float] | None = None, days: int = 10, **world: float) -> tuple[Reference, list[Hour]]:
    """Return a reference and the days after it; the drift begins with the sixth."""
    _, reference = _learned(**world)
    return reference, list(_following(tuple((drift or {}).items()), days, **world))


@cache
def _following(drift: tuple[tuple[str, float], ...], days: int, **world: float) -> tuple[Hour, ...]:
    learned, reference = _learned(**world)
    later = World(**{**world, "seed": learned.seed + 1000})
    later.day, later.effect = LEARNED, learned.effect.copy()
    hours = list(later.hours(reference, 5))
    later.drift = dict(drift)
    return (*hours, *later.hours(reference, days - 5))


def _same(a: Arrays, b: Arrays) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


IN_CONTROL: dict[str, dict[str, float]] = {
    "usual": {},
    "days that remember": {"memory": 0.8, "wobble": 0.08},
    "days that forget": {"memory": 0.0},
    "unequal days": {"unequal": 0.7},
    "holidays": {"holidays": True},
}


@pytest.mark.parametrize("world", IN_CONTROL)
@pytest.mark.parametrize("name", NAMES)
def test_in_control_there_is_no_alarm(name, world) -> None:
    """Eighty days in all, at one false alarm in four years for each of the detectors."""
    for seed in (1, 2):
        reference, hours = _now(days=40, seed=seed, **IN_CONTROL[world])
        assert not Told(name, reference).alarms(hours)


@pytest.mark.parametrize("name", NAMES)
def test_hours_without_rows_are_no_evidence(name) -> None:
    reference, hours = _now(days=10, seed=1)
    nothing = [Hour(hour.start, np.zeros_like(hour.counts), hour.losses[:0]) for hour in hours]
    told = Told(name, reference)
    assert not told.alarms(nothing)
    assert not told.alarms(hour._replace(start=hour.start + 10 * DAY) for hour in hours)


FOUND = [
    ("fast", {"mean": 0.7}, ("plain", "location"), 1, 0.5),
    ("fast", {"mean": -0.7}, ("plain", "location"), -1, 0.5),
    ("fast", {"nulls": 0.1}, ("plain", "missing"), 1, 0.5),
    ("fast", {"unseen": 0.05}, ("kind", "unseen"), 1, 0.5),
    ("medium", {"mean": 0.5}, ("plain", "location"), 1, 1),
    ("medium", {"seasonal": -0.6}, ("seasonal", "location"), -1, 1),
    ("medium", {"nulls": 0.03}, ("plain", "missing"), 1, 1),
    ("medium", {"unseen": 0.03}, ("kind", "unseen"), 1, 1),
    ("slow", {"mean": 0.5}, ("plain", "location"), 1, 4),
    ("slow", {"nulls": 0.03}, ("plain", "missing"), 1, 4),
    ("slow", {"unseen": 0.03}, ("kind", "unseen"), 1, 4),
]


@pytest.mark.parametrize(("name", "drift", "about", "sign", "days"), FOUND)
def test_a_drift_is_found_with_its_direction_and_onset(name, drift, about, sign, days) -> None:
    reference, hours = _now(drift, seed=3)
    told = Told(name, reference)
    onset = hours[5 * 24].start
    found = [(e, d) for e, d in told.alarms(hours) if told.about(d) == about]
    evidence, direction = found[0]
    assert onset < evidence.at <= onset + (days + 1) * DAY
    assert abs(int(evidence.onset[direction]) - onset) <= max(days, 1) * DAY
    assert np.sign(evidence.shift[direction]) == sign
    assert evidence.log_m[direction] >= evidence.threshold[direction]


def test_a_rise_of_the_loss_is_found_and_a_fall_is_none() -> None:
    reference, hours = _now({"mistakes": 0.4}, seed=4)
    onset = hours[5 * 24].start
    found = Told("loss", reference).alarms(hours)
    assert {direction for _, direction in found} == {0, 1}
    for evidence, direction in found:
        assert onset < evidence.at <= onset + 2 * DAY
        assert abs(int(evidence.onset[direction]) - onset) <= DAY
        assert evidence.shift[direction] > 0.1
    less = [hour._replace(losses=hour.losses * (0.5 if hour.start >= onset else 1)) for hour in hours]
    assert not Told("loss", reference).alarms(less)


@pytest.mark.parametrize("unit", [2.0**6, 2.0**-40])
def test_losses_count_in_any_unit(unit) -> None:
    reference, hours = _now({"mistakes": 0.4}, seed=4)
    mean, sd, largest = (unit * figure for figure in reference.losses[:3])
    scaled = Loss(reference.losses._replace(mean=mean, sd=sd, largest=largest), mean, YEAR)
    told = Told("loss", reference)
    for hour in hours:
        ours, theirs = told.update(hour), scaled.update(hour.start, unit * hour.losses)
        assert ours is not None
        np.testing.assert_allclose(theirs.log_m, ours.log_m, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_drift_that_lasts_alarms_once(name) -> None:
    reference, hours = _now({"mean": 1.0, "mistakes": 0.3}, days=15, seed=3)
    alarmed = [direction for _, direction in Told(name, reference).alarms(hours)]
    assert alarmed
    assert len(alarmed) == len(set(alarmed))


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_goes_on_as_though_nothing_had_happened(name) -> None:
    reference, hours = _now({"mean": 0.7, "mistakes": 0.2}, days=8, seed=3)
    whole = Told(name, reference)
    expected = [whole.update(hour) for hour in hours]
    for cut in (0, 1, 5 * 24 + 3, 6 * 24 + 11):
        before, after = Told(name, reference), Told(name, Reference.from_bytes(reference.to_bytes()))
        for hour in hours[:cut]:
            before.update(hour)
        snapshot = {key: array.copy() for key, array in before.detector.to_arrays().items()}
        after.detector.restore(before.detector.to_arrays())
        found = [after.update(hour) for hour in hours[cut:]]
        _same(before.detector.to_arrays(), snapshot)
        _same(after.detector.to_arrays(), whole.detector.to_arrays())
        for ours, theirs in zip(found, expected[cut:], strict=True):
            assert ours is not None
            assert theirs is not None
            for part in ("log_m", "alarm", "shift", "onset"):
                np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))


@pytest.mark.parametrize("name", ["fast", "medium", "slow"])
def test_replicas_counts_may_be_added_in_any_order(name) -> None:
    reference, hours = _now(days=6, seed=3)
    one, other = Told(name, reference), Told(name, reference)
    random = np.random.default_rng(0)
    for hour in hours:
        parts = random.multinomial(hour.counts, [0.5, 0.3, 0.2]).astype(np.uint32)  # of three replicas
        one.update(hour._replace(counts=parts[..., 0] + parts[..., 1] + parts[..., 2]))
        other.update(hour._replace(counts=parts[..., 2] + (parts[..., 1] + parts[..., 0])))
    _same(one.detector.to_arrays(), other.detector.to_arrays())


@pytest.mark.parametrize("name", ["fast", "medium", "slow"])
def test_ten_times_the_rows_are_no_drift(name) -> None:
    _, reference = _learned(seed=5)
    busier = World(seed=1005, rows=500)
    busier.day = LEARNED
    assert not Told(name, reference).alarms(busier.hours(reference, 6))


@pytest.mark.parametrize("name", ["fast", "medium", "slow"])
def test_what_is_switched_off_says_nothing_and_the_rest_goes_on(name) -> None:
    reference, hours = _now({"mean": 1.0}, seed=3)
    silent = [hour._replace(counts=hour.counts * (np.arange(len(hour.counts)) != 0)[:, None]) for hour in hours]
    told, all_told = Told(name, reference), Told(name, reference)
    others = reference.directions.thing != 0
    for hour, full in zip(silent, hours, strict=True):
        ours, theirs = told.update(hour), all_told.update(full)
        assert ours is not None
        assert theirs is not None
        np.testing.assert_array_equal(ours.log_m[others], theirs.log_m[others])
        assert not ours.alarm[~others].any()


def test_detectors_share_the_declared_budget() -> None:
    reference, hours = _now(days=6, seed=3)
    per_year = 0.0
    for name, length in (("fast", HOUR), ("medium", HOUR), ("slow", DAY), ("loss", HOUR)):
        evidence = Told(name, reference).update(hours[0])
        assert evidence is not None
        per_year += (np.exp(-evidence.threshold) * (YEAR / dt.timedelta(milliseconds=length))).sum()
    assert per_year == pytest.approx(1.0)
