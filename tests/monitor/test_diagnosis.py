"""What broke upstream is called a fault, with its cause; what the world does never is."""

import polars as pl
import pytest

from app.monitor.clock import DAY, HOUR
from app.monitor.findings import Finding
from app.monitor.state import Monitor
from app.spec import Drift, Spec

SPEC = Spec.model_validate(
    {"name": "trips", "task": {"target": "late"}, "data": {"source": "trips.parquet", "time": "event"}}
)
CALM = 3  # days
temp, distance, amount, rate, rain, carrier = map(pl.col, ("temp", "distance", "amount", "rate", "rain", "carrier"))


def _every(n: int, values: pl.Expr, other: pl.Expr | None) -> pl.Expr:
    return pl.when(pl.int_range(pl.len()) % n == 0).then(other).otherwise(values)


FAULTS = {
    "Celsius": (temp.sub(32) / 1.8, "temp", "unit", "as if degrees Celsius instead of Fahrenheit", 1),
    "kelvins": ((temp + 459.67) / 1.8, "temp", "unit", "as if kelvins instead of degrees Fahrenheit", 1),
    "inches of mercury": (rate / 33.8638866667, "rate", "unit", "as if inches of mercury instead of hectopascals", 1),
    "thousands": (amount / 1000, "amount", "unit", "as if thousands instead of units", 24),
    "units": (amount * 1000, "amount", "unit", "as if units instead of thousands", 1),
    "kilometres": (distance * 1.609344, "distance", "unit", "as if kilometres instead of miles", 24),
    "sign": (-rate, "rate", "unit", "as if the opposite sign", 1),
    "logarithms": (amount.log(), "amount", "unit", "as if natural logarithms", 24),
    "absent": (temp * None, "temp", "schema", "always missing", 1),
    "three of five missing": (_every(5, _every(2, temp, None), None), "temp", "missing", "mostly missing", 1),
    "one of six missing": (_every(6, temp, None), "temp", "missing", "often missing", 24),
    "stuck": (temp * 0 + 38.5, "temp", "constant", "stands still", 8),
    "lower case": (carrier.str.to_lowercase(), "carrier", "unseen", "known values respelled", 2),
    "padded": (carrier + " ", "carrier", "unseen", "known values respelled", 2),
    "renamed": (
        carrier.replace({"AX": "QQ"}),
        "carrier",
        "unseen",
        "unseen values in the place of known ones",
        4,
    ),
    "other codes": (
        carrier.replace({f"{a}X": "N" for a in "ABCD"}),
        "carrier",
        "unseen",
        "many unseen values at once",
        4,
    ),
}
WORLD = {
    "nothing": [],
    "a cold front": [temp - 9],
    "a heat wave": [temp + 12],
    "twice the amounts": [amount * 2],
    "more rain": [rain + 1],
    "no rain": [rain * 0],
    "a new carrier": [_every(33, carrier, pl.lit("NEW"))],
    "no more of a carrier": [carrier.replace({"DZ": "AX"})],
    "a few more nulls": [_every(20, temp, None)],
    "longer trips": [distance * 1.2],
    "wider": [(rate - 1000) * 2 + 1000],
}


@pytest.fixture(scope="module")
def calm(world) -> bytes:
    """Return a snapshot after some calm days."""
    monitor = Monitor(SPEC, world.subject)
    for step in world.steps(world.rows(28 * 24, CALM * 24), hours=24):
        assert monitor.fold(step) == []
    return monitor.to_bytes()


def _told(world, calm: bytes, after: pl.DataFrame) -> list[Finding]:
    """Return what is found in `after`, which calm days have led up to."""
    monitor = Monitor.from_bytes(calm, SPEC, world.subject)
    return [finding for step in world.steps(after, hours=24, first=100) for finding in monitor.fold(step)]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_time_and_stands_in_for_drift(name, world, calm) -> None:
    change, what, cause, direction, hours = FAULTS[name]
    after = world.rows((28 + CALM) * 24, 30, seed=3).with_columns(change.alias(what))
    found = _told(world, calm, after)
    faults = [finding for finding in found if finding.kind == "fault"]
    assert [(fault.what, fault.detector, fault.direction) for fault in faults] == [(what, cause, direction)]
    assert faults[0].at <= int(after["event"][0]) // HOUR * HOUR + hours * HOUR
    assert not [one for one in found if one.kind == "drift" and one.what == what and one.at >= faults[0].at]


@pytest.mark.parametrize("name", WORLD)
def test_a_move_of_the_world_is_no_fault(name, world, calm) -> None:
    after = world.rows((28 + CALM) * 24, 47, seed=3).with_columns(*WORLD[name])
    assert [one for one in _told(world, calm, after) if one.kind == "fault"] == []


def test_a_fault_is_open_while_it_lasts_and_for_a_day_and_drift_speaks_again_then(world, calm) -> None:
    monitor = Monitor.from_bytes(calm, SPEC, world.subject)
    broken = world.rows((28 + CALM) * 24, 96, seed=3).with_columns(temp.sub(32) / 1.8)
    mended = world.rows((32 + CALM) * 24, 72, seed=4)
    number = CALM
    for rows, still_open in ((broken, True), (mended, False)):
        for step in world.steps(rows, hours=24, first=number + 1):
            number = step.number
            monitor.fold(step)
        assert bool(monitor.faults()) == still_open
    assert not [finding for finding in monitor.state.open if finding.kind == "drift"]


def test_a_fault_stays_open_while_it_lasts_however_long_its_hours_wait_for_late_rows(world) -> None:
    monitor = Monitor(SPEC.model_copy(update={"drift": Drift(lateness="2d")}), world.subject)
    broken = world.rows((28 + CALM) * 24, 96, seed=3).with_columns(temp.sub(32) / 1.8)
    seen = []
    for step in world.steps(pl.concat([world.rows(28 * 24, CALM * 24), broken]), hours=6):
        monitor.fold(step)
        seen.append(bool(monitor.faults()))
    assert seen == sorted(seen)
    assert seen[-1]


def test_traffic_sent_twice_is_a_fault(world, calm) -> None:
    after = world.rows((28 + CALM) * 24, 12, seed=3)
    [same_ids] = [one for one in _told(world, calm, pl.concat([after, after]).sort("event")) if one.kind == "fault"]
    assert (same_ids.what, same_ids.direction) == ("traffic", "the same ids again")
    new_ids = pl.concat([after, after.with_columns(id="again" + pl.col("id"))]).sort("event")
    [same_rows] = [one for one in _told(world, calm, new_ids) if one.kind == "fault"]
    assert (same_rows.what, same_rows.direction) == ("traffic", "the same rows again")


def test_a_clock_a_year_ahead_is_a_fault_and_closes_no_hour(world) -> None:
    monitor = Monitor(SPEC, world.subject)
    rows = world.rows(28 * 24, 12)
    found = []
    for number, step_rows in enumerate(_halves_of_hours(rows), 1):
        wrong = number in (20, 21)
        told = step_rows.with_columns(event=pl.col("event") + wrong * 365 * DAY)
        found += monitor.fold(world.step(number, told))
    assert [(one.what, one.direction) for one in found if one.kind == "fault"] == [("clock", "ahead")]
    assert monitor.watermark <= rows["event"].max()
    assert monitor.state.windows.late == 0


def _halves_of_hours(rows: pl.DataFrame) -> list[pl.DataFrame]:
    part = rows["event"] // (HOUR // 2)
    return [rows.filter(part == one) for one in part.unique().sort()]


def test_a_category_may_be_called_like_a_column_of_ours(world) -> None:
    names = {"carrier": "count", "rate": "order"}
    renamed = type(world).of(world.rows(0, 10 * 24, seed=0).rename(names), ["temp", "order"], ["count"])
    after = world.rows(11 * 24, 6, seed=3).rename(names).with_columns(pl.col("count").str.to_lowercase())
    monitor = Monitor(SPEC, renamed.subject)
    found = [finding for step in renamed.steps(after) for finding in monitor.fold(step)]
    [fault] = [finding for finding in found if finding.kind == "fault"]
    assert (fault.what, fault.direction) == ("count", "known values respelled")
    seen = list(fault.detail["values"].values())
    assert seen == sorted(seen, reverse=True)
