"""What the types of the declaration promise by themselves."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.spec import Duration, Moment, Spec, Train, write_duration

SMALLEST: dict[str, Any] = {"name": "flights", "task": {"target": "late"}, "data": {"source": "flights.parquet"}}


def with_key(place: str, value: object) -> dict[str, Any]:
    """Return the smallest declaration with one key more."""
    *above, key = place.split(".")
    spec: dict[str, Any] = {
        section: dict(keys) if isinstance(keys, dict) else keys for section, keys in SMALLEST.items()
    }
    within = spec
    for part in above:
        within = within.setdefault(part, {})
    within[key] = value
    return spec


def test_name_target_and_source_are_enough() -> None:
    spec = Spec.model_validate(SMALLEST)
    assert spec.train.epochs == 20
    assert spec.features is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("30s", 30), ("1.5m", 90), ("6h", 21_600), ("90d", 7_776_000), ("2w", 1_209_600)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert TypeAdapter(Duration).validate_python(text) == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "5 days", "-1d", "1y", "d", "1..5h", "5d\n", "99999999999999w", 30, None, True]
)
def test_what_is_no_duration_is_refused_without_a_crash(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@given(st.timedeltas(min_value=dt.timedelta(0), max_value=dt.timedelta(days=100_000)))
def test_a_written_duration_reads_back_to_the_microsecond(value: dt.timedelta) -> None:
    assert TypeAdapter(Duration).validate_python(write_duration(value)) == value


@pytest.mark.parametrize(
    "text",
    ["2013-03-01", "2013-03-01T00:00", "2013-03-01 00:00:00", "2013-03-01T00:00:00.000Z", "2013-03-01T05:00+05:00"],
)
def test_a_moment_is_in_utc_whatever_its_zone(text: str) -> None:
    assert TypeAdapter(Moment).validate_python(text) == dt.datetime(2013, 3, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "text", ["", "2013", "20130301", "2013-02-30", "01.03.2013", "0001-01-01T00:00+23:00", 2013, None]
)
def test_what_is_no_moment_is_refused_without_a_crash(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(text)


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_a_written_moment_reads_back(value: dt.datetime) -> None:
    adapter = TypeAdapter(Moment)
    assert adapter.validate_python(adapter.dump_python(value, mode="json")) == value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"source": "x", "key": "late"}}, "data.key: column 'late' is already task.target"),
        ({"data": {"source": "x", "key": "a", "time": "a"}}, "data.time: column 'a' is already data.key"),
        ({"features": {"late": "number"}}, "features.late: this column is task.target and cannot be a feature"),
        (
            {"features": {"x": "number"}, "data": {"source": "x", "exclude": ["x"]}},
            "features.x: this column is also in",
        ),
        ({"task": {"target": "late", "type": "regression", "positive": 1}}, "task.positive: is for binary tasks"),
        (
            {"data": {"source": "x", "split": {"train_until": "2013-03-01"}}},
            "data.split.train_until: needs data.time",
        ),
        ({"data": {"source": "x", "split": {"gap": "1d"}}}, "data.split.gap: needs data.time"),
        ({"retrain": {"window": "90d"}}, "retrain.window: needs data.time"),
        (
            {
                "data": {
                    "source": "x",
                    "time": "t",
                    "split": {"train_from": "2013-03-01", "train_until": "2013-03-01"},
                }
            },
            "data.split.train_from: must be before train_until",
        ),
        (
            {"train": {"num_workers": {"min": 1, "max": 8}, "batch_size": 4}},
            "train.batch_size: 4 rows cannot be shared",
        ),
        ({"train": {"num_workers": {"min": 3, "max": 2}}}, "min: 3 is above max 2"),
        ({"features": {"x": {"type": "number", "min": 2, "max": 1}}}, "min: 2 is above max 1"),
        (
            {"features": {"x": {"type": "category", "values": ["a", 1]}}},
            "values: text, whole numbers and truth values",
        ),
        (
            {"features": {"x": {"type": "category", "values": [1, True]}}},
            "values: text, whole numbers and truth values",
        ),
        ({"features": {"x": {"type": "category", "values": ["a", "a"]}}}, "values: given more than once: 'a'"),
        ({"features": {"x": {"type": "category", "values": [1, 2**63]}}}, "values: 9223372036854775808 is no whole"),
        ({"quality": {"rules": [{"name": "r", "expression": "a"}] * 2}}, "rules: the name 'r' is given 2 times"),
        ({"gate": {"slices": ["a", "b", "a"]}}, "slices: given more than once: 'a'"),
        ({"serve": {"min_replicas": 9}}, "min_replicas: 9 is above max_replicas 4"),
        ({"serve": {"max_ongoing_requests": 8}}, "target_ongoing_requests: 64 is above max_ongoing_requests 8"),
    ],
)
def test_what_cannot_go_together_is_refused_by_the_key_to_change(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate(SMALLEST | changes)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("serving", "needed"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "127.3.2.1"}, False),
        ({"host": "::1"}, False),
        ({"keys": "required"}, True),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "10.0.0.7"}, True),
        ({"host": "models.example.org"}, True),
        ({"host": "localhost.example.org"}, True),
        ({"host": "0.0.0.0", "keys": "none"}, False),
    ],
)
def test_keys_are_needed_beyond_loopback_unless_that_is_declared(serving: dict[str, Any], needed: bool) -> None:
    assert Spec.model_validate(SMALLEST | {"serve": serving}).serve.needs_keys is needed


def test_conflicts_of_all_sections_are_told_together() -> None:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate(SMALLEST | {"retrain": {"window": "1d"}, "features": {"late": "number"}})
    assert "retrain.window" in str(caught.value)
    assert "features.late" in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("train.num_workers", -1),
        ("train.num_workers", True),
        ("train.epochs", "5"),
        ("train.epochs", 5.0),
        ("train.learning_rate", float("nan")),
        ("train.learning_rate", 10**400),
        ("gate.max_latency", "0s"),
        ("retrain.window", "0d"),
        ("data.source", []),
        ("data.source", ""),
        ("data.timezone", "Europe/Atlantis"),
        ("data.timezone", "../etc/passwd"),
        ("features.x", {"type": "category", "values": [1.5]}),
        ("features.x", {"type": "number", "min": float("inf")}),
        ("name", "Flights"),
        ("name", "flights\n"),
    ],
)
def test_values_that_no_room_could_use_are_refused(place: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate(with_key(place, value))


def test_shorthand_and_mapping_declare_the_same_feature() -> None:
    short = Spec.model_validate(SMALLEST | {"features": {"x": "number"}})
    assert short == Spec.model_validate(SMALLEST | {"features": {"x": {"type": "number"}}})


def test_the_dump_writes_every_default_out_and_reads_back() -> None:
    spec = Spec.model_validate(SMALLEST)
    dump = spec.dump()
    assert dump["gate"]["max_latency"] == "20ms"
    assert dump["data"]["split"]["gap"] == "0s"
    assert Spec.model_validate(dump) == spec


@pytest.mark.parametrize(("rows", "of_step"), [(0, 32), (1_000, 32), (10_000, 250), (1_000_000, 1024)])
def test_left_alone_the_batch_is_a_fortieth_of_the_rows_within_bounds(rows, of_step):
    assert Train().rows_of_step(rows) == of_step
    assert Train(batch_size=7).rows_of_step(rows) == 7
