"""Summer is no fault, and a fault in summer is one: New York's flights and weather, learned in January and February."""

import importlib.util
from pathlib import Path

import polars as pl
import pytest

from app.monitor.clock import DAY, HOUR
from app.monitor.findings import Finding
from app.monitor.state import Monitor

BUILD = Path(__file__).parents[2] / "examples" / "flights" / "build.py"
CATEGORIES = ["origin", "dest", "carrier", "plane_model"]
JULY, DAYS = 181, 9


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    found = importlib.util.spec_from_file_location("flights_of_the_year", BUILD)
    assert found is not None
    assert found.loader is not None
    build = importlib.util.module_from_spec(found)
    found.loader.exec_module(build)
    table = build.flights().with_columns(event=pl.col("time").dt.epoch("ms"), late=pl.col("late").fill_null(False))
    numbers = [name for name, kind in table.schema.items() if kind.is_numeric() and name != "event"]
    return table.with_columns(pl.col(numbers).cast(pl.Float64)).drop("time")


@pytest.fixture(scope="module")
def city(flights, world):
    numbers = [name for name, kind in flights.schema.items() if kind == pl.Float64]
    return type(world).of(_days(flights, 0, 59), numbers, CATEGORIES)


def _days(flights: pl.DataFrame, first: int, last: int) -> pl.DataFrame:
    begin = flights["event"].min() // DAY * DAY
    return flights.filter(pl.col("event").is_between(begin + first * DAY, begin + last * DAY, closed="left"))


def _found(city, spec, rows: pl.DataFrame) -> list[Finding]:
    monitor = Monitor(spec, city.subject)
    return [finding for step in city.steps(rows, hours=48) for finding in monitor.fold(step)]


def test_july_after_february_has_moved_and_is_not_broken(flights, city, spec) -> None:
    found = _found(city, spec, _days(flights, JULY, JULY + DAYS))
    assert "fault" not in {finding.kind for finding in found}
    assert {"temp", "dewp", "dest"} <= {finding.what for finding in found}


def test_a_unit_that_changes_in_july_is_a_fault_of_that_feature_alone(flights, city, spec) -> None:
    calm, after = _days(flights, JULY, JULY + 2), _days(flights, JULY + 2, JULY + 3)
    broken = after.with_columns(pl.col("pressure") / 33.8638866667)
    found = _found(city, spec, pl.concat([calm, broken]))
    [fault] = [finding for finding in found if finding.kind == "fault"]
    assert (fault.what, fault.detector) == ("pressure", "unit")
    assert fault.direction == "as if inches of mercury instead of hectopascals"
    assert fault.at - int(after["event"][0]) <= 12 * HOUR
