"""The table that is measured: flights over and over with jitter, or made-up rows of the same shape; built once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FLIGHTS = Path("examples/flights/data/flights.parquet")
ROWS_PER_FILE = 1_000_000
ROW_GROUP = 131_072
YEAR = 365 * 86_400_000  # ms

STRINGS = ("origin", "dest", "carrier", "plane_model", "route", "line")
WHOLE = (
    "departure_minute",
    "arrival_minute",
    "scheduled_minutes",
    "weekday",
    "distance",
    "origin_hour_flights",
    "dest_hour_flights",
    "plane_seats",
)
REAL = (
    "origin_left_delay",
    "carrier_left_delay",
    "dest_left_delay",
    "dest_lat",
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
)
NUMBERS = (*WHOLE, *REAL)
KEY, TIME, TARGET = "id", "time", "late"


@dataclass(frozen=True)
class Table:
    """Parquet files of ROWS_PER_FILE rows (the last may have fewer)."""

    files: list[str]
    rows: int
    source: str


def build(folder: Path, rows: int) -> Table:
    """Return a table of so many rows, writing the files that are not there yet."""
    source = "flights, repeated with jitter" if FLIGHTS.exists() else "synthetic"
    folder = folder / source.split(",")[0]
    folder.mkdir(parents=True, exist_ok=True)
    base: pa.Table | None = None
    files = []
    for first in range(0, rows, ROWS_PER_FILE):
        count = min(ROWS_PER_FILE, rows - first)
        file = folder / f"{first:012d}-{count}.parquet"
        if not file.exists():
            base = base if base is not None else (_flights() if FLIGHTS.exists() else _synthetic())
            draft = file.with_suffix(".draft")
            pq.write_table(_repeat(base, first, count), draft, row_group_size=ROW_GROUP)
            draft.replace(file)
        files.append(str(file))
    return Table(files, rows, source)


def _flights() -> pa.Table:
    table = pq.read_table(FLIGHTS)
    table = table.filter(pc.is_valid(table.column(TARGET)))
    columns = {name: table.column(name).cast(pa.string()) for name in (KEY, *STRINGS[:4])}
    columns["route"] = pc.binary_join_element_wise(columns["origin"], columns["dest"], "-")
    columns["line"] = pc.binary_join_element_wise(columns["carrier"], columns["origin"], "-")
    columns |= {name: table.column(name).cast(pa.int64()) for name in WHOLE}
    columns |= {name: table.column(name).cast(pa.float64()) for name in REAL}
    columns |= {TIME: table.column(TIME).cast(pa.timestamp("ms", "UTC")), TARGET: table.column(TARGET)}
    return pa.table({name: columns[name] for name in (KEY, TIME, TARGET, *NUMBERS, *STRINGS)})


def _synthetic() -> pa.Table:
    """Return rows with as many distinct values, nulls and bytes as flights have, about."""
    generator = np.random.default_rng(0)
    n = 300_000
    columns: dict[str, pa.Array] = {
        KEY: pa.array([f"2013-{i:08d}-EWR-UA-{i % 9999:04d}" for i in range(n)]),
        TIME: pa.array(np.sort(generator.integers(0, YEAR, n)), pa.timestamp("ms", "UTC")),
        TARGET: pa.array(generator.random(n) < 0.24),
    }
    for name, distinct in zip(WHOLE, (1_200, 1_300, 400, 7, 200, 40, 20, 60), strict=True):
        columns[name] = pa.array(generator.integers(0, distinct, n), mask=generator.random(n) < 0.02)
    for name in REAL:
        columns[name] = pa.array(generator.normal(10, 5, n), mask=generator.random(n) < 0.02)
    for name, distinct in zip(STRINGS, (3, 104, 16, 127, 220, 35), strict=True):
        chosen = pa.array(generator.zipf(1.3, n) % distinct, mask=generator.random(n) < 0.01)
        columns[name] = pa.array([f"{name[:3].upper()}{i:04d}" for i in range(distinct)]).take(chosen)
    return pa.table(columns)


def _repeat(base: pa.Table, first: int, count: int) -> pa.Table:
    """Return rows first .. first + count of the endless table: a year of flights, then the same year jittered."""
    generator = np.random.default_rng(first)
    position = np.arange(first, first + count)
    again = position // base.num_rows
    table = base.take(pa.array(position % base.num_rows)).combine_chunks()
    for name in REAL:
        jitter = pa.array(1 + 1e-3 * generator.standard_normal(count))
        table = table.set_column(table.column_names.index(name), name, pc.multiply(table.column(name), jitter))
    time = pc.add(table.column(TIME).cast(pa.int64()), pa.array(again * YEAR)).cast(pa.timestamp("ms", "UTC"))
    key = pc.binary_join_element_wise(table.column(KEY), pa.array(again).cast(pa.string()), "-")
    return table.set_column(1, TIME, time).set_column(0, KEY, key)
