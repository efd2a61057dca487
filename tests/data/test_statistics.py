"""Statistics are the same however the rows were cut, grouped and ordered."""

import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.data import statistics as subject
from app.data.fit import plan
from app.data.statistics import FeatureStatistics, Measured, Pool, hash_positions
from app.spec import CategoryFeature, NumberFeature, Spec
from app.types import UserError

FEATURES = {
    "x": NumberFeature(type="number"),
    "i": NumberFeature(type="number"),
    "c": CategoryFeature(type="category"),
    "k": CategoryFeature(type="category", max_categories=3),
}
MEASURED = Measured.of(FEATURES, "y", "multiclass")
SPEC = Spec.model_validate({"name": "t", "task": {"target": "y"}, "data": {"source": "t.parquet"}})
SCHEMA = pa.schema({"x": pa.float64(), "i": pa.int32(), "c": pa.string(), "k": pa.int64(), "y": pa.string()})

rows = st.fixed_dictionaries(
    {
        "x": st.none() | st.floats(-1e6, 1e6) | st.just(float("nan")),
        "i": st.none() | st.integers(-1000, 1000),
        "c": st.none() | st.text("ab", max_size=2),
        "k": st.none() | st.integers(0, 5),
        "y": st.sampled_from(["p", "q"]),
    }
)
tables = st.lists(rows, min_size=1, max_size=60).map(
    lambda found: pa.Table.from_pylist([*found, {"y": "p"}, {"y": "q"}], schema=SCHEMA)
)


def cut(table: pa.Table, borders: list[int]) -> list[tuple[np.ndarray, pa.Table]]:
    edges = sorted({0, table.num_rows, *(border % (table.num_rows + 1) for border in borders)})
    return [(np.arange(a, b), table.slice(a, b - a)) for a, b in itertools.pairwise(edges)]


def measure(positions: np.ndarray, table: pa.Table) -> FeatureStatistics:
    return FeatureStatistics.of(table, MEASURED, positions)


def collect(pieces: list[tuple[np.ndarray, pa.Table]], measured: Measured) -> FeatureStatistics | None:
    pool = Pool()
    for positions, table in pieces:
        pool.add(table, measured, positions)
    return pool.merged()


def same(one: FeatureStatistics, two: FeatureStatistics) -> None:
    """Equal to the last bit, but for the order in which a table of counts lists its values."""
    assert dataclasses.asdict(plan(one, FEATURES, SPEC)) == dataclasses.asdict(plan(two, FEATURES, SPEC))
    assert np.array_equal(one.moments.start, two.moments.start)
    assert np.array_equal(one.moments.summaries, two.moments.summaries, equal_nan=True)
    assert np.array_equal(one.positions, two.positions)
    assert one.sample.to_pydict().keys() == two.sample.to_pydict().keys()
    assert str(one.sample.to_pydict()) == str(two.sample.to_pydict())
    for name in MEASURED.with_counts:
        assert one.counts[name].nulls == two.counts[name].nulls
        assert one.counts[name].table.sort_by("value").equals(two.counts[name].table.sort_by("value"))


@settings(max_examples=60, deadline=None)
@given(tables, st.lists(st.integers(0, 1000), min_size=2, max_size=2))
def test_merge_is_associative_and_commutative(table: pa.Table, borders: list[int]) -> None:
    parts = [measure(*piece) for piece in cut(table, borders)]
    assume(len(parts) == 3)
    a, b, c = parts
    same(a.merge(b).merge(c), a.merge(b.merge(c)))
    same(a.merge(b).merge(c), c.merge(a).merge(b))


@settings(max_examples=60, deadline=None)
@given(tables, st.lists(st.integers(0, 1000), max_size=6), st.booleans())
def test_fit_on_one_and_seven_partitions_is_equal(table: pa.Table, borders: list[int], dictionary: bool) -> None:
    whole = plan(measure(np.arange(table.num_rows), table), FEATURES, SPEC)
    if dictionary:
        table = table.set_column(2, "c", table.column("c").dictionary_encode())
    pieces = cut(table, borders)[::-1]
    parted = plan(FeatureStatistics.merge_all([measure(*piece) for piece in pieces]), FEATURES, SPEC)
    assert parted.rows == whole.rows == table.num_rows
    assert parted.category == whole.category
    assert parted.target == whole.target
    for one, two in zip(parted.number, whole.number, strict=True):
        assert (one.name, one.nulls, one.quantiles) == (two.name, two.nulls, two.quantiles)
        assert one.mean == pytest.approx(two.mean, rel=1e-12, abs=1e-9)
        assert one.std == pytest.approx(two.std, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(tables)
def test_partials_survive_the_journey(table: pa.Table) -> None:
    sent = measure(np.arange(table.num_rows), table)
    same(sent, FeatureStatistics.from_row(sent.to_row(), MEASURED))


def test_moments_are_those_of_the_present_values() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(1e4, 3.0, 10_000)
    holes = np.where(generator.random(10_000) < 0.1, np.nan, values)
    table = pa.table({"x": holes})
    measured = Measured(("x",), {}, "y", "regression")
    table = table.append_column("y", pa.array(values))
    parts = [
        FeatureStatistics.of(table.slice(a, 999), measured, np.arange(a, min(a + 999, 10_000)))
        for a in range(0, 10_000, 999)
    ]
    total = FeatureStatistics.merge_all(parts).moments.total(0)
    present = holes[~np.isnan(holes)]
    assert total.present == len(present)
    assert total.mean == pytest.approx(present.mean(), rel=1e-14)
    assert total.std == pytest.approx(present.std(), rel=1e-12)
    assert (total.min, total.max) == (present.min(), present.max())


def test_sample_is_the_rows_of_smallest_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SAMPLE_ROWS", 16)
    table = pa.table({"x": np.arange(1000.0), "y": ["p", "q"] * 500})
    measured = Measured(("x",), {}, "y", "binary")
    expected = np.sort(np.argsort(hash_positions(np.arange(1000)))[:16])
    for step in (7, 100, 1000):  # many pieces make the pool thin out on its way
        pieces = [(np.arange(a, min(a + step, 1000)), table.slice(a, step)) for a in range(0, 1000, step)]
        found = collect(pieces, measured)
        assert found is not None
        assert found.rows == 1000
        assert found.positions.tolist() == expected.tolist()
        assert found.sample.column("x").to_pylist() == expected.tolist()


def test_a_feature_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of our own columns, too: a sample drawn by such a feature's values would be none of the rows."""
    monkeypatch.setattr(subject, "SAMPLE_ROWS", 16)
    features = {"position": CategoryFeature(type="category"), "positions": NumberFeature(type="number")}
    features |= {"sample": NumberFeature(type="number"), "moments": CategoryFeature(type="category")}
    values = np.arange(1000.0)
    columns = {
        "position": ["goal", "wing"] * 500,
        "positions": values // 500,
        "sample": values,
        "moments": ["a"] * 1000,
    }
    table, measured = pa.table({**columns, "y": ["p", "q"] * 500}), Measured.of(features, "y", "binary")
    found = collect([(np.arange(a, a + 100), table.slice(a, 100)) for a in range(0, 1000, 100)], measured)
    assert found is not None
    travelled = FeatureStatistics.from_row(found.to_row(), measured)
    assert (
        travelled.sample.column("sample").to_pylist()
        == np.sort(np.argsort(hash_positions(np.arange(1000)))[:16]).tolist()
    )
    assert plan(travelled, features, SPEC).category[0].vocabulary == ("goal", "wing")


def test_a_column_of_unique_values_stays_bounded_and_finds_the_common_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "DISTINCT_VALUES", 50)
    features = {"c": CategoryFeature(type="category", max_categories=5)}
    measured = Measured.of(features, "y", "binary")
    values = [f"v{i}" if i % 4 else "common" for i in range(1000)]
    table = pa.table({"c": values, "y": [True, False] * 500})
    pieces = [(np.arange(a, a + 40), table.slice(a, 40)) for a in range(0, 1000, 40)]
    found = collect(pieces, measured)
    assert found is not None
    assert found.counts["c"].table is None
    assert plan(found, features, SPEC).category[0].vocabulary == ("common",)


def test_ten_thousand_categories_are_counted_exactly() -> None:
    features = {"c": CategoryFeature(type="category", max_categories=9_000)}
    values = np.arange(30_000) % 10_000
    values[:5] = 9_999
    table = pa.table({"c": pa.array(values.astype(str)).dictionary_encode(), "y": np.arange(30_000) % 2})
    found = collect([(np.arange(30_000), table)], Measured.of(features, "y", "binary"))
    assert found is not None
    vocabulary = plan(found, features, SPEC).category[0].vocabulary
    assert len(vocabulary) == 9_000
    assert vocabulary[0] == "9999"
    assert list(vocabulary[1:]) == sorted(vocabulary[1:])


def test_infinity_is_refused_by_name() -> None:
    table = pa.table({"x": [1.0, float("-inf")], "y": [True, False]})
    with pytest.raises(UserError, match="number 'x': found -inf, allowed finite numbers and null"):
        FeatureStatistics.of(table, Measured(("x",), {}, "y", "binary"), np.arange(2))


def test_no_rows_have_no_statistics() -> None:
    assert Pool().merged() is None
