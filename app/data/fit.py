"""How a feature plan is learned: one distributed pass over the training rows, merged in the driver."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.features import CategoryColumn, FeaturePlan, Kind, NumberColumn, RegressionLoss, TargetColumn, kind_of
from app.data.rows import fragments_of_task, pieces, tasks, without_fragments
from app.data.sources import Fragment
from app.data.statistics import FeatureStatistics, Measured, Pool, Summary
from app.spec import CategoryFeature, NumberFeature, Spec, Value
from app.types import UserError

if TYPE_CHECKING:
    from app.data.prepare import Prepared

QUANTILES = 257

MIN_COUNT = 2
"""Training rows a value needs for an id of its own. What was seen once says nothing, and such rows teach the
network what to make of the unseen id, which it will meet when serving."""


def fit(prepared: "Prepared", spec: Spec) -> FeaturePlan:
    """Learn the plan from the labelled training rows, in one pass over the cluster.

    Raises UserError as `plan` does, and for an infinite number.
    """
    return plan(measure(prepared), prepared.features, spec)


def fit_here(prepared: "Prepared", spec: Spec) -> FeaturePlan:
    """Learn the same plan in this process alone, as inside of a task that already is one of many."""
    measured = Measured.of(prepared.features, prepared.target, prepared.task)
    return plan(_measure(prepared, prepared.fragments, measured), prepared.features, spec)


def measure(prepared: "Prepared") -> FeatureStatistics | None:
    """Return the statistics of the labelled training rows, None when there are none."""
    measured = Measured.of(prepared.features, prepared.target, prepared.task)
    task = partial(_measure_block, prepared=without_fragments(prepared), measured=measured)
    found = tasks(prepared).map_batches(task, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    pool = Pool()
    for batch in found.iter_batches(batch_size=None, batch_format="pyarrow"):
        row = cast(pa.Table, batch)
        if row.num_rows:
            pool.add_partial(FeatureStatistics.from_row(row, measured))
    return pool.merged()


def _measure_block(block: pa.Table, prepared: "Prepared", measured: Measured) -> Iterator[pa.Table]:
    found = _measure(prepared, fragments_of_task(block), measured)
    if found is not None:
        yield found.to_row()


def _measure(prepared: "Prepared", fragments: Sequence[Fragment], measured: Measured) -> FeatureStatistics | None:
    columns = [*measured.number, *measured.category, measured.target]
    text = [name for name in measured.category if kind_of(name, prepared.schema.field(name).type) == "string"]
    pool = Pool()
    for positions, table in pieces(prepared, fragments, "train", columns, text):
        pool.add(table, measured, positions)
    return pool.merged()


def plan(
    statistics: FeatureStatistics | None, features: Mapping[str, NumberFeature | CategoryFeature], spec: Spec
) -> FeaturePlan:
    """Turn statistics of the training rows into the plan; columns keep the order of `features`.

    Raises UserError when there are too few rows or classes, or `task.positive` is not one of the classes.
    """
    if statistics is None:
        raise UserError("no training rows: the training part of data.split holds no row with a label")
    totals = {name: statistics.moments.total(i) for i, name in enumerate(statistics.measured.with_moments)}
    numbers, categories = [], []
    for name, feature in features.items():
        if feature.type == "number":
            numbers.append(_number(name, feature, totals[name], statistics))
        else:
            categories.append(_category(name, feature, statistics))
    return FeaturePlan(
        number=tuple(numbers),
        category=tuple(categories),
        target=_target(statistics, totals, spec),
        key=spec.data.key,
        time=spec.data.time,
        rows=statistics.rows,
    )


def _number(name: str, feature: NumberFeature, total: Summary, statistics: FeatureStatistics) -> NumberColumn:
    return NumberColumn(
        name=name,
        required=feature.required,
        min=feature.min,
        max=feature.max,
        mean=total.mean,
        std=total.std,
        nulls=1 - total.present / statistics.rows,
        quantiles=_quantiles(statistics.sample.column(name).to_numpy(), total),
    )


def _quantiles(values: npt.NDArray[np.float64], total: Summary) -> tuple[float, ...]:
    """Return evenly spaced quantiles of the sample's present values; the extremes are the whole column's."""
    if total.present == 0:
        return ()
    values = values[~np.isnan(values)]
    if not len(values):  # so rare that the sample has none
        values = np.array([total.min, total.max])
    quantiles = np.quantile(values, np.linspace(0, 1, QUANTILES))
    quantiles[0], quantiles[-1] = total.min, total.max
    return tuple(quantiles.tolist())


def _category(name: str, feature: CategoryFeature, statistics: FeatureStatistics) -> CategoryColumn:
    counts = statistics.counts[name]
    table = counts.table
    if table is None:  # too many values to count: the common ones are common in the sample, too
        sampled = statistics.sample.column(name).drop_null().value_counts()
        table = pa.table({"value": sampled.field("values"), "count": sampled.field("counts")})
    kind: Kind = kind_of(name, table.schema.field("value").type)
    counted = zip(table.column("value").to_pylist(), table.column("count").to_pylist(), strict=True)
    common = sorted((-count, value) for value, count in counted if count >= MIN_COUNT)
    return CategoryColumn(
        name=name,
        kind=kind,
        vocabulary=tuple(value for _, value in common[: feature.max_categories]),
        required=feature.required,
        values=None if feature.values is None else tuple(feature.values),
        nulls=counts.nulls / statistics.rows,
    )


def _target(statistics: FeatureStatistics, totals: Mapping[str, Summary], spec: Spec) -> TargetColumn:
    name, task = statistics.measured.target, statistics.measured.task
    if task == "regression":
        loss: RegressionLoss = "squared" if spec.task.loss == "auto" else spec.task.loss
        mean, std = totals[name].mean, totals[name].std
        return TargetColumn(name, task, mean=mean, std=std, regression_loss=loss, quantile=spec.task.quantile)
    table = statistics.counts[name].table
    if table is None:
        raise UserError(f"target {name!r}: found too many classes to count; is it a regression?")
    classes = sorted(_whole(value) for value in table.column("value").to_pylist())
    if len(classes) < 2 or (task == "binary" and len(classes) > 2):
        wanted = "two" if task == "binary" else "two or more"
        raise UserError(
            f"target {name!r}: found the classes {classes} in the training rows, a {task} task needs {wanted}"
        )
    if task == "binary":
        classes = _negative_positive(name, classes, spec.task.positive)
    return TargetColumn(name, task, tuple(classes))


def _whole(value: Value) -> Value:
    """Return 1 for 1.0: whole numbers become floats where a table of pandas' has nulls."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _negative_positive(name: str, classes: list[Value], positive: Value | None) -> list[Value]:
    """Order two classes: declared, else true, else 1, else the later one is positive."""
    if positive is None:
        positive = 1 if 1 in classes else classes[1]
    if positive not in classes:
        raise UserError(f"task.positive: found {positive!r}, allowed {classes}, the classes of target {name!r}")
    return sorted(classes, key=lambda value: value == positive)
