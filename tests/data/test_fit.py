"""What a plan is made of, given statistics of the training rows."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.data.features import FeaturePlan, TargetColumn
from app.data.fit import QUANTILES, plan
from app.data.statistics import FeatureStatistics, Measured
from app.spec import CategoryFeature, NumberFeature, Spec
from app.types import UserError


def fitted(
    columns: dict[str, Any], features: dict[str, Any] | None = None, task: str = "binary", **options: Any
) -> FeaturePlan:
    """Return the plan of a table with target `y`; features are numbers unless told otherwise."""
    spec = Spec.model_validate({"name": "t", "task": {"target": "y", **options}, "data": {"source": "t.parquet"}})
    features = features or {name: NumberFeature(type="number") for name in columns if name != "y"}
    table = pa.table(columns)
    statistics = FeatureStatistics.of(table, Measured.of(features, "y", task), np.arange(table.num_rows))
    return plan(statistics, features, spec)


def target(values: list[Any], task: str = "binary", **options: Any) -> TargetColumn:
    return fitted({"x": np.arange(len(values)), "y": pa.array(values)}, task=task, **options).target


def category(values: list[Any], **options: Any) -> Any:
    features = {"c": CategoryFeature(type="category", **options)}
    return fitted({"c": pa.array(values), "y": [i % 2 for i in range(len(values))]}, features).category[0]


def test_vocabulary_is_most_common_first_ties_by_value() -> None:
    column = category(["b", "a", "c", "b", "a", "d", "c", "c", None, "d"])
    assert column.vocabulary == ("c", "a", "b", "d")
    assert column.nulls == pytest.approx(0.1)


def test_values_seen_once_or_beyond_max_categories_share_the_unseen_id() -> None:
    assert category(["a", "a", "b", "b", "once"]).vocabulary == ("a", "b")
    assert category(["a", "a", "a", "b", "b"], max_categories=1).vocabulary == ("a",)


def test_kinds_follow_the_columns_type() -> None:
    assert (category([3, 3, 1, 1]).kind, category([3, 3, 1, 1]).vocabulary) == ("integer", (1, 3))
    assert (category([True, True, False, False]).kind, category([True, True]).vocabulary) == ("boolean", (True,))


def test_quantiles_are_evenly_spaced_and_reach_the_extremes() -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    column = fitted({"x": values, "y": np.arange(200_000) % 2}).number[0]
    assert len(column.quantiles) == QUANTILES
    assert (column.quantiles[0], column.quantiles[-1]) == (values.min(), values.max())
    ranks = np.searchsorted(np.sort(values), column.quantiles) / len(values)
    assert np.abs(ranks - np.linspace(0, 1, QUANTILES)).max() < 0.01


def test_an_all_null_number_is_zero_and_one_without_quantiles() -> None:
    for nothing in (pa.nulls(4), pa.array([None] * 4, pa.float64()), [float("nan")] * 4):
        column = fitted({"x": nothing, "y": [0, 1, 0, 1]}).number[0]
        assert (column.mean, column.std, column.nulls, column.quantiles) == (0.0, 1.0, 1.0, ())


def test_an_all_null_category_has_an_empty_vocabulary() -> None:
    column = category([None, None])
    assert (column.vocabulary, column.nulls) == ((), 1.0)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 + 0.1])
def test_a_constant_number_has_its_value_as_mean_and_std_one(constant: float) -> None:
    column = fitted({"x": [constant] * 7, "y": [0, 1, 0, 1, 0, 1, 0]}).number[0]
    assert (column.mean, column.std) == (constant, 1.0)


def test_limits_and_order_come_from_the_declaration() -> None:
    features = {
        "b": NumberFeature(type="number", min=0, max=9, required=True),
        "a": NumberFeature(type="number"),
        "c": CategoryFeature(type="category", values=["u", "v"], required=True),
    }
    made = fitted({"a": [1, 2], "b": [3, 4], "c": ["u", "u"], "y": [0, 1]}, features)
    assert [column.name for column in made.number] == ["b", "a"]
    assert (made.number[0].min, made.number[0].max, made.number[0].required) == (0, 9, True)
    assert (made.category[0].values, made.category[0].required) == (("u", "v"), True)
    assert made.rows == 2


@pytest.mark.parametrize(
    ("values", "options", "classes"),
    [
        ([True, False], {}, (False, True)),
        ([0, 1], {}, (0, 1)),
        ([1, 2], {}, (2, 1)),
        ([1.0, 0.0, None], {}, (0, 1)),
        (["no", "yes"], {}, ("no", "yes")),
        (["no", "yes"], {"positive": "no"}, ("yes", "no")),
        ([3, 5], {"positive": 3}, (5, 3)),
    ],
)
def test_binary_classes_are_negative_then_positive(
    values: list[Any], options: dict[str, Any], classes: tuple[Any, ...]
) -> None:
    assert target(values, **options).classes == classes


def test_multiclass_targets_are_sorted_classes() -> None:
    assert target(["c", "a", "b", "a", None], "multiclass") == TargetColumn("y", "multiclass", ("a", "b", "c"))


def test_regression_targets_have_mean_and_std() -> None:
    found = target([1.0, 3.0, None], "regression")
    assert (found.mean, found.std, found.classes) == (2.0, 1.0, ())


@pytest.mark.parametrize(
    ("declared", "loss", "quantile"),
    [
        ({}, "squared", 0.5),
        ({"loss": "squared"}, "squared", 0.5),
        ({"loss": "absolute"}, "absolute", 0.5),
        ({"loss": "quantile", "quantile": 0.9}, "quantile", 0.9),
    ],
)
def test_a_regression_counts_in_the_declared_loss(declared: dict[str, Any], loss: str, quantile: float) -> None:
    found = target([1.0, 3.0], "regression", **declared)
    assert (found.loss, found.quantile) == (loss, quantile)


def test_classes_count_in_log_loss() -> None:
    assert target(["a", "b"]).loss == target(["a", "b", "c"], "multiclass").loss == "log"


def test_a_plan_of_a_version_without_declared_losses_still_loads() -> None:
    plan = FeaturePlan((), (), TargetColumn("y", "regression", mean=1.0))
    data = plan.to_json()
    del data["target"]["regression_loss"], data["target"]["quantile"]
    assert FeaturePlan.from_json(data) == plan
    assert plan.target.loss == "squared"


def test_one_class_is_refused_with_what_was_found() -> None:
    with pytest.raises(UserError, match=r"target 'y': found the classes \['a'\].*a binary task needs two"):
        target(["a", "a"])
    with pytest.raises(UserError, match=r"needs two$"):
        target(["a", "b", "c"])


def test_a_positive_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"task.positive: found 'ja', allowed \['no', 'yes'\]"):
        target(["no", "yes"], positive="ja")


def test_a_plan_survives_json() -> None:
    features = {
        "a": NumberFeature(type="number"),
        "c": CategoryFeature(type="category", values=["u", "v"]),
    }
    made = fitted({"a": [1, 2], "c": ["u", "u"], "y": [0, 1]}, features)
    assert FeaturePlan.from_json(made.to_json()) == made
