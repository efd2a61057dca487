"""Is a server's work real: right scores, an id a row, and bad rows refused?"""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from app.types import Scores, UserError
from benchmarks.serve.peers import Peer
from benchmarks.serve.process import post
from benchmarks.serve.sample import json_rows
from benchmarks.serve.work import Work

_TOLERANCE = 1e-5


def verify(peer: Peer, port: int, work: Work, table: pa.Table) -> None:
    """Hold the server's scores of `table` against the plan and the graph, and send it rows it must refuse.

    Raises UserError that names the difference.
    """
    rows: list[dict[str, Any]] = table.to_pylist()
    expected = work.runtime.score(work.plan.encode(table))
    _same(peer, _predict(peer, port, rows), expected)
    for i in range(min(4, len(rows))):
        _same(peer, _predict(peer, port, rows[i : i + 1]), expected[i : i + 1])
    for reason, row in bad_rows(work, rows[0]).items():
        status, answer = post(port, peer.path, json_rows([row]))
        if not 400 <= status < 500:
            raise UserError(f"{peer.title} took a row with {reason}: status {status}, {answer[:200]!r}")


def bad_rows(work: Work, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return rows that break the plan, by what is wrong with them."""
    plan = work.plan
    bad: dict[str, dict[str, Any]] = {"an unknown field": row | {"no such field": 1}}
    if plan.number:
        bad["text for a number"] = row | {plan.number[-1].name: "7"}
    bad |= {
        f"a number above the limit of {column.name}": row | {column.name: column.max + 1}
        for column in plan.number[-3:]
        if column.max is not None
    }
    bad |= {
        f"null for the required {column.name}": row | {column.name: None}
        for column in (*plan.number, *plan.category)[-3:]
        if column.required
    }
    return bad


def _predict(peer: Peer, port: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    status, body = post(port, peer.path, json_rows(rows))
    if status != 200:
        raise UserError(f"{peer.title} refused good rows: status {status}, {body[:500]!r}")
    answer = json.loads(body)
    predictions: list[dict[str, Any]] = answer if isinstance(answer, list) else answer["predictions"]
    return predictions


def _same(peer: Peer, predictions: list[dict[str, Any]], expected: Scores) -> None:
    scores = np.array([prediction["score"] for prediction in predictions])
    if scores.shape != expected.shape or not np.allclose(scores, expected, rtol=0, atol=_TOLERANCE):
        raise UserError(f"{peer.title} scores differ: found {scores[:4]}, expected {expected[:4]}")
    if len({prediction["id"] for prediction in predictions}) != len(predictions):
        raise UserError(f"{peer.title} gave two rows the same id")
