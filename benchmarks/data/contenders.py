"""Who reads the table: a bare pyarrow scan as the measure, ours through Ray, polars and DuckDB as one would write it by hand."""

from collections.abc import Callable

import duckdb
import polars as pl
import pyarrow.dataset as ds

from app.data.encode import dataset
from app.data.features import FeaturePlan
from app.data.files import SourceFile
from app.data.fit import fit
from app.data.prepare import Prepared
from app.data.sources import fragments_of, read_schema
from app.data.split import Cut
from app.spec import CategoryFeature, NumberFeature, Spec
from benchmarks.data.table import NUMBERS, STRINGS, TARGET, TIME, Table

Work = Callable[[], object]

SPEC = Spec.model_validate(
    {"name": "rows", "task": {"target": TARGET}, "data": {"source": "rows.parquet", "time": TIME}}
)


def prepared(table: Table) -> Prepared:
    """Return the table as `prepare` would, all of it training rows."""
    fragments = fragments_of([SourceFile(file, "parquet", 0, 0) for file in table.files])
    return Prepared(
        fragments=fragments,
        schema=read_schema(fragments),
        features={
            **{name: NumberFeature(type="number") for name in NUMBERS},
            **{name: CategoryFeature(type="category") for name in STRINGS},
        },
        target=TARGET,
        task="binary",
        rows=table.rows,
        labelled=table.rows,
        quarantined={},
        quarantine="",
        fingerprint="",
        cut=Cut(TIME, validation_from=1 << 60),
        notes=[],
    )


def scan(table: Table) -> Work:
    """Read every feature as pyarrow does by default, and do nothing with it."""

    def work() -> None:
        for batch in ds.dataset(table.files).to_batches(columns=[*NUMBERS, *STRINGS]):
            assert batch.num_rows >= 0

    return work


def our_fit(table: Table) -> Work:
    """Return the pass that learns the plan: moments, extremes, nulls, exact counts, and a sample for quantiles."""
    rows = prepared(table)
    return lambda: fit(rows, SPEC)


def our_transform(table: Table, plan: FeaturePlan) -> Work:
    """Return the stream of encoded rows, as training takes it."""
    rows = prepared(table)

    def work() -> None:
        batches = dataset(rows, plan, "train").iter_batches(batch_size=None, batch_format="numpy")
        assert sum(len(batch["target"]) for batch in batches) == table.rows

    return work


def polars_fit(table: Table) -> Work:
    """Return the same statistics without quantiles, for which polars has no streaming way."""
    columns = [
        figure
        for name in NUMBERS
        for figure in (
            pl.col(name).count().alias(f"{name} count"),
            pl.col(name).mean().alias(f"{name} mean"),
            pl.col(name).std(ddof=0).alias(f"{name} std"),
            pl.col(name).min().alias(f"{name} min"),
            pl.col(name).max().alias(f"{name} max"),
        )
    ]
    rows = pl.scan_parquet(table.files)
    asked = [rows.select(columns), *(rows.group_by(name).len() for name in STRINGS)]
    return lambda: pl.collect_all(asked, engine="streaming")


def polars_transform(table: Table, plan: FeaturePlan) -> Work:
    """Return float32 numbers and ids by position in the vocabulary."""
    numbers = [pl.col(column.name).cast(pl.Float32) for column in plan.number]
    names = {column.name: pl.Enum([str(value) for value in column.vocabulary]) for column in plan.category}
    ids = [pl.col(name).cast(kind, strict=False).to_physical().cast(pl.Int64) for name, kind in names.items()]
    rows = pl.scan_parquet(table.files).select(*numbers, *ids)
    return lambda: rows.collect(engine="streaming")


def duckdb_fit(table: Table) -> Work:
    """Return the same statistics, with approximate quantiles left out as for polars."""
    numbers = ", ".join(f"count({n}), avg({n}), stddev_pop({n}), min({n}), max({n})" for n in NUMBERS)
    counts = ", ".join(f"histogram({name}), count({name})" for name in STRINGS)
    return lambda: duckdb.sql(f"select {numbers}, {counts} from read_parquet({table.files})").fetchall()


def duckdb_transform(table: Table, plan: FeaturePlan) -> Work:
    """Return float32 numbers and ids by position in the vocabulary, as Arrow batches."""
    for column in plan.category:
        values = ", ".join("'" + str(value).replace("'", "''") + "'" for value in column.vocabulary)
        duckdb.sql(f"create or replace temp macro ids_{column.name}(v) as try_cast(v as enum({values}))")
    numbers = ", ".join(f"cast({column.name} as float)" for column in plan.number)
    ids = ", ".join(f"cast(enum_code(ids_{column.name}({column.name})) as bigint)" for column in plan.category)

    def work() -> None:
        found = duckdb.sql(f"select {numbers}, {ids} from read_parquet({table.files})").to_arrow_reader(131_072)
        assert sum(batch.num_rows for batch in found) == table.rows

    return work
