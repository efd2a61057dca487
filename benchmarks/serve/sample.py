"""Rows like those the bundle was trained on, drawn from its feature plan, and the bodies that carry them."""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from app.data.features import FeaturePlan

_ARROW = {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}


def draw(plan: FeaturePlan, rows: int, seed: int = 0) -> pa.Table:
    """Return rows whose numbers follow the plan's quantiles and whose categories are in its vocabulary."""
    random = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {}
    for number in plan.number:
        values = np.asarray(number.quantiles or (0.0,))
        drawn = np.interp(random.random(rows) * (len(values) - 1), np.arange(len(values)), values)
        drawn = np.round(drawn, 3)
        if number.min is not None or number.max is not None:
            drawn = np.clip(drawn, number.min, number.max)
        columns[number.name] = pa.array(drawn, pa.float64())
    for category in plan.category:
        chosen = random.integers(0, len(category.vocabulary), rows)
        columns[category.name] = pa.array([category.vocabulary[i] for i in chosen], _ARROW[category.kind])
    return pa.table(columns)


def json_rows(rows: list[dict[str, Any]]) -> bytes:
    """Return `{"rows": [...]}`."""
    return json.dumps({"rows": rows}, separators=(",", ":")).encode()


def json_columns(table: pa.Table) -> bytes:
    """Return `{"columns": {...}}`."""
    return json.dumps({"columns": table.to_pydict()}, separators=(",", ":")).encode()


def arrow_stream(table: pa.Table) -> bytes:
    """Return an Arrow IPC stream, as clients of a data frame library send it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
