"""Does every row that breaks the contract get its reason, and every column its one type?"""

import datetime as dt
import decimal
import math

import numpy as np
import pyarrow as pa
import pytest

from app.data.columns import CATEGORY
from app.data.contract import Checked, Contract
from app.data.inference import resolve_features
from app.spec import Spec
from app.types import UserError

NOW = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def spec(features: dict[str, object] | None = None, **sections: object) -> Spec:
    data = {"source": "t.parquet", **sections.pop("data", {})}
    return Spec.model_validate({"name": "a", "task": {"target": "y"}, "data": data, "features": features, **sections})


def check(columns: dict[str, object], features: dict[str, object] | None = None, **sections: object) -> Checked:
    """Check columns of equal length, the target filled in."""
    rows = len(next(iter(columns.values())))
    table = pa.table({"y": pa.array([1] * rows)} | columns)
    contract = Contract.of(spec(features, **sections), table.schema)
    return contract.check(table.select(contract.columns), NOW)


def fails(columns: dict[str, object], features: dict[str, object] | None = None, **sections: object) -> str:
    with pytest.raises(UserError) as error:
        check(columns, features, **sections)
    return str(error.value)


def reasons(checked: Checked) -> list[str]:
    return checked.rejected.column("reason").to_pylist()


@pytest.mark.parametrize(
    ("values", "limits", "reason"),
    [
        ([1.0, 131.0, None], {"max": 130}, "x: above max 130"),
        ([1.0, -41.0, None], {"min": -40}, "x: below min -40"),
        ([1, 7, None], {"max": 5}, "x: above max 5"),
        ([1, 2**53 + 1, None], {"max": 5.5}, "x: above max 5.5"),
        ([-(2**63), 1, None], {"min": 0.5}, "x: below min 0.5"),
        (pa.array([1, 2**64 - 1, None], pa.uint64()), {"max": 5}, "x: above max 5"),
        ([1.0, math.inf, None], {}, "x: infinite"),
        ([1.0, -math.inf, None], {"min": 0}, "x: infinite"),
        ([1.0, 1e39, None], {}, "x: beyond float32"),
        (["1", "warm", None], {}, "x: not a number"),
        (["1", "inf", None], {}, "x: infinite"),
        ([decimal.Decimal("1"), decimal.Decimal("9"), None], {"max": 5}, "x: above max 5"),
        (pa.array([1, math.inf, None], pa.float32()), {}, "x: infinite"),
        (pa.array(np.array([1, math.inf, 2], np.float16)), {}, "x: infinite"),
    ],
)
def test_a_number_that_breaks_its_limits_is_rejected_with_the_reason(
    values: object, limits: dict[str, object], reason: str
) -> None:
    checked = check({"x": values}, {"x": {"type": "number", **limits}})
    assert checked.kept.num_rows == 2
    assert reasons(checked) == [reason]
    assert checked.counts == {reason: 1}


@pytest.mark.parametrize(
    ("values", "allowed", "reason"),
    [
        (["EWR", "XXX", None], ["EWR"], "c: value not allowed"),
        (pa.array(["EWR", "XXX", None]).dictionary_encode(), ["EWR"], "c: value not allowed"),
        ([1, 9, None], [1], "c: value not allowed"),
        ([True, False, None], [True], "c: value not allowed"),
        ([1.0, 1.5, None], None, "c: not a whole number of 64 bits"),
        (pa.array([1, 2**63, None], pa.uint64()), None, "c: not a whole number of 64 bits"),
    ],
)
def test_a_category_that_is_not_allowed_is_rejected(
    values: object, allowed: list[object] | None, reason: str
) -> None:
    checked = check({"c": values}, {"c": {"type": "category", "values": allowed}})
    assert checked.kept.num_rows == 2
    assert reasons(checked) == [reason]


@pytest.mark.parametrize(("values", "kind"), [([1.0, None, math.nan], "number"), (["a", None, None], "category")])
def test_null_and_nan_are_missing_and_rejected_where_a_value_is_required(values: list[object], kind: str) -> None:
    checked = check({"x": values}, {"x": {"type": kind, "required": True}})
    assert checked.kept.num_rows == 1
    assert checked.counts == {"x: required, found null": 2}
    assert check({"x": values}, {"x": kind}).kept.column("x").null_count == 2


def test_empty_text_is_a_missing_number() -> None:
    assert check({"x": ["", " ", "NaN", " 1.5 "]}, {"x": "number"}).kept.column("x").to_pylist() == [
        None,
        None,
        None,
        1.5,
    ]


def test_each_row_has_one_reason_the_first() -> None:
    columns = {"k": [None, "a"], "x": [999.0, 999.0]}
    checked = check(columns, {"x": {"type": "number", "max": 1}}, data={"key": "k"}, quality={"max_rejected": 1.0})
    assert reasons(checked) == ["k: null key", "x: above max 1"]
    assert checked.counts == {"k: null key": 1, "x: above max 1": 1}


def test_rejected_rows_are_as_they_were_found() -> None:
    checked = check({"x": ["1", "warm"], "reason": ["p", "q"]}, {"x": "number", "reason": "category"})
    assert checked.rejected.to_pylist() == [
        {"y": 1, "x": "warm", "reason (source)": "q", "reason": "x: not a number"}
    ]


def test_kept_columns_have_one_type_whatever_the_source_has() -> None:
    columns = {
        "i": pa.array([1], pa.int16()),
        "f": pa.array([1.5], pa.float32()),
        "d": [decimal.Decimal("1.5")],
        "b": [True],
        "s": pa.array(["a"], pa.large_string()),
        "v": pa.array(["a"], pa.string_view()),
        "c": pa.array(["a"]).cast(pa.dictionary(pa.int8(), pa.string())),
        "n": pa.array([3], pa.uint8()),
        "t": pa.array([True]),
    }
    number = dict.fromkeys("ifdb", "number")
    category = dict.fromkeys("svcnt", "category")
    kept = check(columns, number | category).kept
    assert [str(kept.schema.field(name).type) for name in "ifdb"] == ["int16", "float", "double", "int64"]
    assert [kept.schema.field(name).type for name in "svcnt"] == [
        CATEGORY,
        CATEGORY,
        CATEGORY,
        pa.int64(),
        pa.bool_(),
    ]


def test_kept_rows_have_the_contracts_schema_and_only_what_is_needed() -> None:
    columns = {"k": ["a"], "t": [dt.datetime(2019, 1, 1)], "x": [1.0], "slice": ["u"], "other": [1], "late": [2.0]}
    table = pa.table({"y": [1]} | columns)
    declared = spec(
        {"x": "number"},
        data={"key": "k", "time": "t"},
        gate={"slices": ["slice"]},
        quality={"rules": [{"name": "r", "expression": "late < 3"}]},
    )
    contract = Contract.of(declared, table.schema)
    assert contract.columns == ["y", "k", "t", "x", "slice", "late"]
    assert contract.dictionary == ["slice"]
    kept = contract.check(table, NOW).kept
    assert kept.schema == contract.schema
    assert kept.column_names == ["k", "t", "x", "y", "slice"]


def test_rows_without_a_label_are_kept() -> None:
    table = pa.table({"y": [1.0, None, math.nan], "x": [1, 2, 3]})
    kept = Contract.of(spec(), table.schema).check(table, NOW).kept
    assert kept.column("y").to_pylist() == [1.0, None, None]


def test_an_infinite_label_is_rejected() -> None:
    table = pa.table({"y": [1.0, math.inf], "x": [1, 2]})
    assert Contract.of(spec(), table.schema).check(table, NOW).counts == {"y: infinite": 1}


def test_a_label_that_no_model_can_give_is_rejected() -> None:
    """Else one such row would end the training, after all others had been read."""
    table = pa.table({"y": [1.0, -1e39], "x": [1, 2]})
    assert Contract.of(spec(), table.schema).check(table, NOW).counts == {"y: beyond float32": 1}


def test_half_precision_is_read_wherever_it_stands() -> None:
    halves = pa.array(np.array([0, 1, math.nan], np.float16))
    table = pa.table({"y": halves, "c": halves, "x": halves})
    kept = Contract.of(spec({"c": "category", "x": "number"}), table.schema).check(table, NOW).kept
    assert kept.to_pydict() == {"c": [0, 1, None], "x": [0.0, 1.0, None], "y": [0.0, 1.0, None]}


def test_a_label_of_a_regression_that_is_no_number_is_rejected() -> None:
    table = pa.table({"y": ["1.5", "high"], "x": [1, 2]})
    declared = spec(task={"target": "y", "type": "regression"})
    checked = Contract.of(declared, table.schema).check(table, NOW)
    assert checked.counts == {"y: not a number": 1}
    assert checked.kept.column("y").to_pylist() == [1.5]


def test_future_rows_are_rejected_unless_declared_otherwise() -> None:
    columns = {"t": [dt.datetime(2019, 1, 1), dt.datetime(2021, 1, 1)], "x": [1, 2]}
    assert check(columns, data={"time": "t"}).counts == {"t: in the future": 1}
    assert check(columns, data={"time": "t"}, quality={"future": "keep"}).kept.num_rows == 2


def test_a_time_beyond_the_calendar_is_in_the_future() -> None:
    """Such as microseconds that somebody took for milliseconds."""
    moments = pa.array([0, 1_700_000_000_000_000], pa.timestamp("ms"))
    assert check({"t": moments, "x": [1, 2]}, data={"time": "t"}).counts == {"t: in the future": 1}


def test_a_null_or_unreadable_time_is_rejected() -> None:
    checked = check({"t": ["2019-01-01", None, "yesterday"], "x": [1, 2, 3]}, {"x": "number"}, data={"time": "t"})
    assert checked.counts == {"t: null time": 1, "t: not an ISO 8601 time": 1}


MOMENTS = [
    ("2013-01-01", "2013-01-01T05:00:00"),
    ("2013-07-01T10:00", "2013-07-01T14:00:00"),
    ("2013-07-01 10:00:05.123456", "2013-07-01T14:00:05.123"),
    ("2013-07-01T10:00:00Z", "2013-07-01T10:00:00"),
    ("2013-07-01T10:00:00+02:00", "2013-07-01T08:00:00"),
    ("2013-07-01T10:00:00-0530", "2013-07-01T15:30:00"),
    ("2013-11-03T01:30:00", "2013-11-03T05:30:00"),  # the clock shows it twice: the earlier
    ("2013-03-10T02:30:00", "2013-03-10T07:00:00"),  # the clock skips it: the next moment
]


@pytest.mark.parametrize(("text", "utc"), MOMENTS)
def test_times_without_an_offset_are_local_to_the_declared_zone(text: str, utc: str) -> None:
    checked = check({"t": [text], "x": [1]}, {"x": "number"}, data={"time": "t", "timezone": "America/New_York"})
    assert checked.kept.schema.field("t").type == pa.timestamp("ms", "UTC")
    assert checked.kept.column("t")[0].as_py() == dt.datetime.fromisoformat(utc).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("type_", "value", "utc"),
    [
        (pa.timestamp("ns", "Asia/Tokyo"), 1_000_999_999, "1970-01-01T00:00:01.000"),
        (pa.timestamp("us"), -1, "1970-01-01T04:59:59.999"),
        (pa.date32(), 1, "1970-01-02T05:00:00"),
    ],
)
def test_arrow_times_become_utc_milliseconds(type_: pa.DataType, value: int, utc: str) -> None:
    column = pa.array([value], pa.int32() if pa.types.is_date(type_) else pa.int64()).cast(type_)
    checked = check({"t": column, "x": [1]}, data={"time": "t", "timezone": "America/New_York"})
    assert checked.kept.column("t")[0].as_py() == dt.datetime.fromisoformat(utc).replace(tzinfo=dt.UTC)


def test_unsorted_times_stay_in_the_order_of_the_table() -> None:
    days = [dt.datetime(2019, 1, day) for day in (3, 1, 2)]
    assert check({"t": days, "x": [1, 2, 3]}, data={"time": "t"}).kept.column("x").to_pylist() == [1, 2, 3]


def rules(*expressions: str) -> dict[str, object]:
    return {"rules": [{"name": f"rule {number}", "expression": text} for number, text in enumerate(expressions, 1)]}


def test_a_rule_rejects_where_it_is_false_and_passes_null() -> None:
    columns = {"dewp": [1.0, 9.0, None, math.nan], "temp": [2.0] * 4, "c": ["a", "a", "b", "b"]}
    checked = check(columns, quality=rules("dewp <= temp", "c <> 'b' or temp > 1"))
    assert checked.counts == {"rule 1": 1}
    assert checked.kept.num_rows == 3


def test_a_rule_sees_text_that_is_stored_as_a_dictionary() -> None:
    columns = {"c": pa.array(["abc", "xyz"]).dictionary_encode(), "x": [1, 2]}
    assert check(columns, quality=rules("c like 'a%'")).counts == {"rule 1": 1}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("x <=", "'rule 1' cannot be evaluated: unable to parse"),
        ("x like 'a%'", "'rule 1' cannot be evaluated: expected String type"),
        ("x + 1", "'rule 1' gives Float64; allowed: a condition that is true or false"),
        ("sum(x) > 3", "'rule 1' looks at all rows at once; allowed: a condition on one row"),
        ("tmep > 3", "'rule 1': the table has no column 'tmep'; did you mean 'temp'? found 'y', 'temp', 'x'"),
    ],
)
def test_a_broken_rule_is_named_with_what_is_wrong(expression: str, message: str) -> None:
    found = fails({"temp": [1.0], "x": [1.0]}, quality=rules(expression))
    assert found.startswith(f"quality.rules: {message}")


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"features": {"tmp": "number"}}, "features.tmp: the table has no column 'tmp'"),
        ({"data": {"key": "tmp"}}, "data.key: the table has no column 'tmp'"),
        ({"data": {"time": "tmp"}}, "data.time: the table has no column 'tmp'"),
        ({"data": {"exclude": ["tmp"]}}, "data.exclude: the table has no column 'tmp'"),
        ({"gate": {"slices": ["tmp"]}}, "gate.slices: the table has no column 'tmp'"),
        ({"task": {"target": "tmp"}}, "task.target: the table has no column 'tmp'"),
    ],
)
def test_a_missing_column_is_named_with_the_place_and_a_near_name(sections: dict[str, object], where: str) -> None:
    assert fails({"temp": [1.0]}, **sections) == f"{where}; did you mean 'temp'? found 'y', 'temp'"


@pytest.mark.parametrize(
    ("columns", "sections", "message"),
    [
        (
            {"x": [[1]]},
            {"features": {"x": "number"}},
            "features.x: declared number, found a column of list<item: int64>; allowed: numbers, text or truth values",
        ),
        (
            {"x": [1], "k": [0.5]},
            {"data": {"key": "k"}},
            "data.key: column 'k' holds double; allowed: text or whole numbers",
        ),
        (
            {"x": [1], "t": [5]},
            {"data": {"time": "t"}},
            "data.time: column 't' holds int64; allowed: timestamps, dates or ISO 8601 text",
        ),
        (
            {"x": [1], "y": [[1]]},
            {},
            "task.target: column 'y' holds list<item: int64>; allowed: numbers, text or truth values",
        ),
        (
            {"x": [1], "s": [["a"]]},
            {"gate": {"slices": ["s"]}},
            "gate.slices: column 's' holds list<item: string>; allowed: single values",
        ),
        (
            {"c": [1]},
            {"features": {"c": {"type": "category", "values": ["1"]}}},
            "features.c.values: found '1', but the column holds int64; allowed: int64 values",
        ),
    ],
)
def test_a_column_of_a_wrong_type_is_named_with_what_is_allowed(
    columns: dict[str, object], sections: dict[str, object], message: str
) -> None:
    assert fails(columns, **sections) == message


def test_features_are_inferred_from_types_and_the_rest_is_noted() -> None:
    table = pa.table(
        {
            "y": [1],
            "k": ["a"],
            "i": [1],
            "f": [1.0],
            "d": [decimal.Decimal(1)],
            "s": ["a"],
            "b": [True],
            "c": pa.array(["a"]).dictionary_encode(),
            "n": pa.array([5]).dictionary_encode(),
            "time": [dt.datetime(2019, 1, 1)],
            "nested": [[1]],
            "left": [1],
        }
    )
    features, notes = resolve_features(spec(data={"key": "k", "exclude": ["left"]}), table.schema, table)
    assert {name: feature.type for name, feature in features.items()} == (
        dict.fromkeys("ifd", "number") | dict.fromkeys("sbcn", "category")
    )
    assert notes == [
        "column 'time' is left aside: its type timestamp[us] is no feature's",
        "column 'nested' is left aside: its type list<item: int64> is no feature's",
    ]


def test_columns_without_values_and_identifiers_are_left_aside_with_a_note() -> None:
    rows = 1000
    table = pa.table(
        {
            "y": [1] * rows,
            "void": pa.nulls(rows, pa.float64()),
            "id": [f"id-{number}" for number in range(rows)],
            "constant": [7] * rows,
            "few": [str(number % 50) for number in range(rows)],
        }
    )
    features, notes = resolve_features(spec(), table.schema, table)
    assert list(features) == ["constant", "few"]
    assert notes == [
        "column 'void' is left aside: no value in the 1,000 rows looked at",
        "column 'id' is left aside: 1,000 different values in 1,000 rows look like an identifier",
    ]


def test_a_table_without_a_usable_column_is_an_error() -> None:
    assert fails({"nested": [[1]]}) == (
        "no column can be a feature: column 'nested' is left aside: its type list<item: int64> is no feature's"
    )
