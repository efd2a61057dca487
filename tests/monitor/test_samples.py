"""A bounded sample of raw values, whatever the features are called and whatever version answers."""

import polars as pl
import pyarrow as pa
import pytest

from app.data.moments import MOMENT
from app.monitor.clock import HOUR
from app.monitor.samples import HOURS, ROWS_AN_HOUR, Samples


def _rows(first: int, **features: list[object]) -> pa.Table:
    """Return a step's predictions, all of hour `first`."""
    [size] = {len(values) for values in features.values()}
    event = pa.array([first * HOUR] * size).cast(MOMENT)
    columns = [pa.array(values) for values in features.values()]
    return pa.table({"event": event, "features": pa.StructArray.from_arrays(columns, list(features))})


@pytest.mark.parametrize("name", ["hour", "order", "features", "event", "step"])
def test_a_feature_may_have_any_name(name) -> None:
    samples = Samples()
    samples.add(1, _rows(3, **{name: [1.5, 2.5]}))
    samples.add(2, _rows(4, **{name: [3.5]}))
    assert samples.between(3 * HOUR, 4 * HOUR).to_dict(as_series=False) == {name: [1.5, 2.5]}
    assert samples.between(0, 9 * HOUR)[name].to_list() == [1.5, 2.5, 3.5]


@pytest.mark.parametrize("other", [{"zip": ["a", "b"]}, {"town": [1, 2]}])
def test_a_version_with_other_features_begins_anew(other) -> None:
    samples = Samples()
    samples.add(1, _rows(3, zip=[1, 2]))
    samples.add(2, _rows(3, **other))
    assert samples.between(0, 9 * HOUR).equals(pl.DataFrame(other))


def test_so_many_rows_an_hour_of_so_many_hours_are_kept() -> None:
    samples = Samples()
    for hour in range(HOURS + 5):
        samples.add(hour + 1, _rows(hour, x=list(range(2 * ROWS_AN_HOUR))))
    assert len(samples.between(0, HOURS * 2 * HOUR)) == HOURS * ROWS_AN_HOUR
    assert samples.between(0, 5 * HOUR).is_empty()
