"""Does the flights table hold every flight, and only what was known 30 minutes before its departure?"""

import datetime as dt
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from app.declaration import read

FOLDER = Path(__file__).parents[2] / "examples" / "flights"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    found = importlib.util.spec_from_file_location("flights_build", FOLDER / "build.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table(build: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder = tmp_path_factory.mktemp("flights") / "new"
    assert build.build(folder) == 336_776
    assert sorted(item.name for item in folder.iterdir()) == [
        "arrivals.parquet",
        "flights.parquet",
        "history.parquet",
    ]
    table = pl.read_parquet(folder / "flights.parquet")
    parts = [pl.read_parquet(folder / f"{name}.parquet") for name in ("history", "arrivals")]
    assert pl.concat([parts[0], parts[1].drop("known")]).equals(table)
    labelled = parts[1].filter(pl.col("late").is_not_null())
    assert (labelled["known"] - labelled["time"]).min() > dt.timedelta(minutes=20)
    assert parts[0]["time"].max() < build.ARRIVALS <= parts[1]["time"].min()
    return table


@pytest.fixture(scope="module")
def raw(build: ModuleType) -> pl.DataFrame:
    return build.schedule()


def test_every_flight_is_there_once_sorted_by_time(table: pl.DataFrame) -> None:
    assert table.height == 336_776
    assert table["id"].n_unique() == table.height
    assert table["time"].is_sorted()


def test_flights_that_never_arrived_have_no_label(table: pl.DataFrame) -> None:
    assert table["late"].null_count() == 9_430
    assert table["late"].mean() == pytest.approx(0.2371, abs=1e-3)


def test_columns_have_the_types_the_declaration_expects(table: pl.DataFrame) -> None:
    assert table.schema["id"] == pl.String
    assert table.schema["time"] == pl.Datetime("ms", "UTC")
    assert table.schema["late"] == pl.Boolean
    rest = set(table.drop("id", "time", "late").schema.values())
    assert rest == {pl.String, pl.Int64, pl.Float64}


def test_nothing_that_is_known_only_later_is_in_the_table(table: pl.DataFrame) -> None:
    later = {"dep_delay", "arr_delay", "dep_time", "arr_time", "air_time"}
    assert not later & set(table.columns)


def test_times_are_utc_and_follow_daylight_saving(table: pl.DataFrame) -> None:
    local = table["time"].dt.convert_time_zone("America/New_York")
    minute = local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()
    assert (minute == table["departure_minute"]).all()


def test_live_columns_never_peek_ahead(build: ModuleType, table: pl.DataFrame, raw: pl.DataFrame) -> None:
    planned = raw["minute_number"].to_numpy()
    delay = raw["dep_delay"].to_numpy()
    left = planned + delay  # NaN never leaves: every comparison with it is false
    sides = {
        "city": [],
        "origin": ["origin"],
        "carrier": ["origin", "carrier"],
        "dest": ["dest"],
        "plane": ["tailnum"],
    }
    values = {key: raw[key].to_numpy() for key in ("origin", "carrier", "dest", "tailnum")}
    assert (table["id"] == raw["id"]).all()
    for row in np.random.default_rng(0).choice(np.flatnonzero(raw["tailnum"].is_not_null()), 60, replace=False):
        asked = planned[row] - 30
        for side, keys in sides.items():
            window = 24 * 60 if side == "plane" else build.WINDOW
            same = np.logical_and.reduce([np.ones(len(left), bool), *(values[k] == values[k][row] for k in keys)])
            known = same & (left <= asked) & (left > asked - window)
            assert table[f"{side}_left_flights"][int(row)] == known.sum()
            mean = table[f"{side}_left_delay"][int(row)]
            assert mean == pytest.approx(delay[known].mean()) if known.any() else mean is None
            if side != "plane":
                waiting = same & (planned <= asked) & (planned > asked - window) & ~(left <= asked)
                assert table[f"{side}_overdue"][int(row)] == waiting.sum()


def test_weather_was_observed_before_the_question(build: ModuleType, table: pl.DataFrame) -> None:
    observed = {(o, h): t for o, h, t in build.weather().select("origin", "weather_hour", "temp").iter_rows()}
    for row in table.sample(200, seed=0).iter_rows(named=True):
        asked = row["time"].timestamp() - 30 * 60
        hours = [h for o, h in observed if o == row["origin"] and 0 <= asked - h.timestamp() < 3600]
        assert row["temp"] == (observed[row["origin"], hours[0]] if hours else None)


def test_the_declaration_names_the_columns_of_the_table(table: pl.DataFrame) -> None:
    spec = read(FOLDER / "flights.yaml").spec
    assert spec.features is not None
    assert set(table.columns) == {*spec.features, "id", "time", "late"}


def test_to_ask_for_help_builds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "build.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 0
    assert "Build the tables" in done.stdout
    assert not list(tmp_path.iterdir())
