"""Which kind of prediction is it? Learned from the labels, unless the declaration says so."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from app.data.features import TaskType
from app.spec import Task, Value
from app.types import UserError

MOST_CLASSES = 1000
MOST_NUMBERED_CLASSES = 20  # more different whole numbers than this are quantities


@dataclass(frozen=True)
class Labels:
    """What some rows' labels hold, small and mergeable: how many there are, and the first different values."""

    rows: int = 0
    values: tuple[Value, ...] = ()  # sorted; more than MOST_CLASSES only says that there are too many to list
    whole: bool = True  # every value is text, a truth value or a whole number

    @staticmethod
    def of(column: pa.ChunkedArray) -> "Labels":
        """Summarise a checked target column; null is no label."""
        values = column.drop_null()
        distinct = values.unique()
        whole = not pa.types.is_floating(distinct.type) or bool(
            pc.all(pc.equal(pc.floor(distinct), distinct)).as_py()
        )
        return Labels(len(values), _fewest(distinct.to_pylist()), whole or len(distinct) == 0)

    @staticmethod
    def merge(labels: Sequence["Labels"]) -> "Labels":
        """Return the summary of all rows together."""
        return Labels(
            sum(part.rows for part in labels),
            _fewest({value for part in labels for value in part.values}),
            all(part.whole for part in labels),
        )


def _fewest(values: Sequence[Value] | set[Value]) -> tuple[Value, ...]:
    return tuple(sorted(values)[: MOST_CLASSES + 1])


def resolve_task(task: Task, labels: Labels) -> TaskType:
    """Return the kind of prediction. Raises UserError when the labels do not allow the one declared, or any."""
    where, found = f"task.target: column {task.target!r}", _described(labels)
    text = bool(labels.values) and isinstance(labels.values[0], str)
    if labels.rows == 0:
        raise UserError(f"{where} holds no label in any row; allowed: at least two different values")
    if len(labels.values) < 2:
        raise UserError(f"{where} holds one value only, {found}; allowed: at least two")
    kind: TaskType
    if task.type != "auto":
        kind = task.type
    elif len(labels.values) == 2:
        kind = "binary"
    elif text or (labels.whole and len(labels.values) <= MOST_NUMBERED_CLASSES):
        kind = "multiclass"
    else:
        kind = "regression"
    if kind == "binary" and len(labels.values) > 2:
        raise UserError(f"{where} holds {found}; allowed for a binary task: two values")
    if kind == "multiclass" and len(labels.values) > MOST_CLASSES:
        raise UserError(f"{where} holds {found}; allowed for a multiclass task: up to {MOST_CLASSES:,} classes")
    if task.positive is not None:
        if kind != "binary":
            raise UserError(f"task.positive is for binary tasks; {where} holds {found}, which makes it {kind}")
        if task.positive not in labels.values:
            raise UserError(f"task.positive: {task.positive!r} is no label; {where} holds {found}")
    if task.loss != "auto" and kind != "regression":
        raise UserError(
            f"task.loss: {task.loss} is for regression; {where} holds {found}, which makes it {kind}; allowed: "
            "no task.loss, or task.type: regression"
        )
    return kind


def _described(labels: Labels) -> str:
    if len(labels.values) > MOST_CLASSES:
        return f"more than {MOST_CLASSES:,} different values"
    shown = ", ".join(repr(value) for value in labels.values[:10])
    return shown if len(labels.values) <= 10 else f"{len(labels.values):,} different values ({shown}, ...)"
