"""What is a row of the journal? The Arrow schemas of predictions, labels and profiles, and a step of all three.

Times are `app.data.moments.MOMENT`: milliseconds, UTC. `event` is when it happened out there (the request's declared
time, or when it came), `arrival` when it came here.
"""

from typing import Literal, NamedTuple, TypeAlias

import pyarrow as pa

from app.data.features import FeaturePlan, Kind, TargetColumn
from app.data.moments import MOMENT

Stream: TypeAlias = Literal["predictions", "labels", "profiles"]
STREAMS: tuple[Stream, ...] = ("predictions", "labels", "profiles")

_CATEGORY: dict[Kind, pa.DataType] = {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}

PROFILES = pa.schema(
    {
        "version": pa.string(),
        "role": pa.string(),  # champion, challenger, shadow
        "reference": pa.string(),  # id of the bundle whose bins are counted
        "window": MOMENT,  # hour of event time
        "replica": pa.string(),
        "rows": pa.int64(),
        "counts": pa.binary(),  # uint32, little endian, (W, bins + 2) of `app.monitor.binning`; null: not counted
        "calls": pa.int64(),
        "errors": pa.int64(),  # rows that it failed to score: exception, timeout
        "not_finite": pa.int64(),
        "seconds": pa.list_(pa.int64()),  # scoring calls by `telemetry.DURATION_BOUNDS`, +Inf last
    }
)
"""What a replica counted; rows of the same version, role, reference and window add up."""


class JournalError(Exception):
    """The journal cannot be written or read: where, and what the system says about it."""


class Step(NamedTuple):
    """What was committed together; `corrupt` segments were set aside, unread.

    A table without rows has the fixed columns only, whatever the model's features are.
    """

    number: int
    predictions: pa.Table
    labels: pa.Table
    profiles: pa.Table
    corrupt: int = 0


def prediction_schema(plan: FeaturePlan) -> pa.Schema:
    """Return the schema of answered rows; one of the row's features is one field of `features`, as sent."""
    features: list[tuple[str, pa.DataType]] = [(column.name, pa.float32()) for column in plan.number]
    features += [(column.name, _CATEGORY[column.kind]) for column in plan.category]
    score = pa.list_(pa.float32()) if plan.target.task == "multiclass" else pa.float32()
    return _predictions(score, pa.struct(features))


def label_schema(target: TargetColumn) -> pa.Schema:
    """Return the schema of labels; `label` is a class as it is declared, or a regression's float64."""
    return _labels(pa.float64() if target.task == "regression" else pa.array(target.classes).type)


def _predictions(score: pa.DataType, features: pa.DataType) -> pa.Schema:
    return pa.schema(
        {
            "id": pa.string(),
            "event": MOMENT,
            "arrival": MOMENT,
            "version": pa.string(),
            "role": pa.string(),  # champion, challenger
            "score": score,
            "shadow_version": pa.string(),  # null: no shadow scored the row
            "shadow_score": score,
            "features": features,
        }
    )


def _labels(label: pa.DataType) -> pa.Schema:
    return pa.schema({"id": pa.string(), "label": label, "event": MOMENT, "arrival": MOMENT})


FIXED: dict[Stream, pa.Schema] = {
    "predictions": _predictions(pa.float32(), pa.struct([])),
    "labels": _labels(pa.null()),
    "profiles": PROFILES,
}
"""By stream, the columns that every one of its tables has, whatever the model."""
