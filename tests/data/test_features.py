"""The one feature function gives the same numbers and ids whatever form a column comes in."""

import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.features import CategoryColumn, FeaturePlan, Kind, NumberColumn, TargetColumn
from app.types import FIRST_ID, MISSING_ID, UNSEEN_ID, UserError

TYPES: dict[Kind, pa.DataType] = {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}
TARGET = TargetColumn("y", "binary", (False, True))


def numbers(column: pa.Array) -> list[float]:
    plan = FeaturePlan(number=(NumberColumn("x"),), category=(), target=TARGET)
    return plan.encode(pa.table({"x": column})).number[:, 0].tolist()


@st.composite
def categories(draw: st.DrawFn) -> tuple[CategoryColumn, list[Any]]:
    """Return a fitted column of any kind, and values seen, unseen and missing."""
    kind, value = draw(
        st.sampled_from(
            [
                ("string", st.text("abcé", max_size=3)),
                ("integer", st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)),
                ("boolean", st.booleans()),
            ]
        )
    )
    vocabulary = draw(st.lists(value, unique=True, max_size=6))
    values = draw(st.lists(st.none() | value | st.sampled_from(vocabulary or [None]), max_size=40))
    return CategoryColumn("c", kind, tuple(vocabulary)), values


@given(categories(), st.integers(0, 40))
def test_ids_and_encode_agree_for_every_kind_and_form(case: tuple[CategoryColumn, list[Any]], cut: int) -> None:
    column, values = case
    by_dictionary = [column.ids.get(value, UNSEEN_ID) for value in values]
    plain = pa.array(values, TYPES[column.kind])
    chunks = pa.chunked_array([plain[:cut], plain[cut:]])
    parted = pa.chunked_array([plain[:cut].dictionary_encode(), plain[cut:].dictionary_encode()])
    for form in (plain, plain.dictionary_encode(), chunks, parted, parted.slice(1)):
        expected = by_dictionary[1:] if len(form) < len(values) else by_dictionary
        assert column.encode(form).tolist() == expected


def test_missing_unseen_and_known_values_have_their_ids() -> None:
    column = CategoryColumn("c", "string", ("b", "a"))
    assert column.encode(pa.array([None, "z", "b", "a", ""])).tolist() == [
        MISSING_ID,
        UNSEEN_ID,
        FIRST_ID,
        FIRST_ID + 1,
        UNSEEN_ID,
    ]
    assert column.size == 4
    assert column.encode(pa.nulls(2)).tolist() == [MISSING_ID] * 2
    assert column.encode(pa.DictionaryArray.from_arrays([0, 1, None], [None, "a"])).tolist() == [0, 3, 0]
    assert CategoryColumn("c", "string", ()).encode(pa.array(["a", None])).tolist() == [UNSEEN_ID, MISSING_ID]


@pytest.mark.parametrize("type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())])
def test_text_of_every_width_is_the_same_category(type_: pa.DataType) -> None:
    values = pa.array(["a", None, "q"]).cast(type_)
    assert CategoryColumn("c", "string", ("a",)).encode(values).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("kind", "values"),
    [("string", [1, 2]), ("integer", ["1"]), ("integer", [True]), ("boolean", [1]), ("boolean", ["true"])],
)
def test_a_category_of_another_kind_is_refused(kind: Kind, values: list[Any]) -> None:
    with pytest.raises(UserError, match=f"category 'c': found .*, allowed {kind} as in training"):
        CategoryColumn("c", kind, ()).encode(pa.array(values))
    with pytest.raises(UserError, match="allowed text, whole numbers or truth values"):
        CategoryColumn("c", kind, ()).encode(pa.array([1.5]))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, None, 3.0]),
        pa.array([1.0, float("nan"), 3.0]),
        pa.array([1, None, 3]),
        pa.array([1, None, 3], pa.float32()),
        pa.array([1, None, 3], pa.float16()),
        pa.array([1, None, 3], pa.uint8()),
        pa.array([decimal.Decimal("1.0"), None, decimal.Decimal("3.0")]),
        pa.chunked_array([[1], [None, 3]]),
        pa.array([9, 1, None, 3, 9], pa.int16())[1:4],
    ],
)
def test_every_type_of_number_gives_the_same_floats(column: pa.Array) -> None:
    first, missing, last = numbers(column)
    assert (first, last) == (1.0, 3.0)
    assert np.isnan(missing)


def test_truth_values_are_numbers_and_nothing_is_missing() -> None:
    assert numbers(pa.array([True, False])) == [1.0, 0.0]
    assert np.isnan(numbers(pa.nulls(2))).all()
    assert numbers(pa.array([], pa.float64())) == []


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.floats(width=64, allow_nan=False), max_size=20))
def test_a_number_is_rounded_as_its_json_is(values: list[float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(values, np.float64).astype(np.float32).tolist()
    if all(isinstance(value, int) for value in values):
        assert numbers(pa.array(values, pa.int64())) == expected
    assert numbers(pa.array([float(value) for value in values], pa.float64())) == expected


def test_a_number_beyond_float32_becomes_infinite_never_something_valid() -> None:
    assert numbers(pa.array([1e39, -1e39, float("inf")])) == [float("inf"), float("-inf"), float("inf")]


def test_text_is_no_number() -> None:
    with pytest.raises(UserError, match="number 'x': found string, allowed numbers or truth values"):
        numbers(pa.array(["1"]))


def test_columns_are_found_by_name_in_the_order_of_the_plan() -> None:
    plan = FeaturePlan(
        number=(NumberColumn("b"), NumberColumn("a")),
        category=(CategoryColumn("d", "integer", (7,)), CategoryColumn("c", "boolean", (True,))),
        target=TARGET,
    )
    columns = {"other": ["?"], "a": [1], "b": [2.0], "c": [True], "d": [8]}
    for table in (pa.table(columns), pa.RecordBatch.from_pydict(columns)):
        features = plan.encode(table)
        assert features.number.tolist() == [[2.0, 1.0]]
        assert features.category.tolist() == [[2 - 1, 2]]
        assert (features.number.dtype, features.category.dtype) == (np.float32, np.int64)
        assert features.number.flags.c_contiguous
    assert plan.names == ("b", "a", "d", "c")
    with pytest.raises(KeyError):
        plan.encode(pa.table({"a": [1]}))


def test_a_plan_may_lack_numbers_or_categories() -> None:
    only = FeaturePlan(number=(), category=(CategoryColumn("c", "integer", ()),), target=TARGET)
    assert only.encode(pa.table({"c": [1, 2]})).number.shape == (2, 0)


@pytest.mark.parametrize(
    ("classes", "column", "expected"),
    [
        ((False, True), pa.array([True, None, False]), [1, None, 0]),
        (("no", "yes"), pa.array(["yes", "no"]).dictionary_encode(), [1, 0]),
        (("a", "b", "c"), pa.chunked_array([["c"], [None, "a"]]), [2, None, 0]),
        ((0, 1), pa.array([1.0, float("nan"), 0.0]), [1, None, 0]),
        ((2, 1), pa.array([1, 2], pa.int8()), [1, 0]),
    ],
)
def test_classes_are_found_in_every_form(classes: tuple[Any, ...], column: pa.Array, expected: list[Any]) -> None:
    task = "binary" if len(classes) == 2 else "multiclass"
    found = TargetColumn("y", task, classes).encode(column)
    np.testing.assert_array_equal(found, np.array([np.nan if v is None else v for v in expected], np.float32))


def test_a_class_that_was_not_in_training_is_refused() -> None:
    column = TargetColumn("y", "binary", ("no", "yes"))
    with pytest.raises(UserError, match=r"target 'y': found 'maybe', allowed \['no', 'yes'\]"):
        column.encode(pa.array(["no", None, "maybe"]))
    with pytest.raises(UserError, match=r"target 'y': found int64, allowed \['no', 'yes'\] as in training"):
        column.encode(pa.array([1]))


def test_a_regression_target_is_its_value() -> None:
    column = TargetColumn("y", "regression")
    np.testing.assert_array_equal(column.encode(pa.array([1, None])), np.array([1, np.nan], np.float32))
    with pytest.raises(UserError, match="target 'y': found a number beyond float32"):
        column.encode(pa.array([1e39]))
