"""Bodies of many rows through HTTP, beside the bare model on rows already encoded."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pyarrow as pa

from app.types import Scores, UserError
from benchmarks.serve.sample import arrow_stream, json_columns
from benchmarks.serve.work import Work

ROWS = 10_000
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Bulk:
    """One measurement of one way for many rows."""

    way: str
    rows: int
    seconds: float

    def dump(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"rows_per_second": self.rows / self.seconds}


def measure(port: int, path: str, work: Work, table: pa.Table, seconds: float) -> list[Bulk]:
    """Score `table` again and again, the ways in turn, each for so long, over one connection kept open.

    Raises UserError when a way's scores differ from the bare model's.
    """
    features = work.plan.encode(table)
    arrow, columns = arrow_stream(table), json_columns(table)
    connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def send(body: bytes, content_type: str) -> bytes:
        connection.request("POST", path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise UserError(f"{len(body):,} bytes of {content_type}: status {answer.status}, {content[:500]!r}")
        return content

    ways: dict[str, Callable[[], object]] = {
        "bare model": lambda: work.runtime.score(features),
        "Arrow stream": lambda: send(arrow, ARROW),
        "JSON columns": lambda: send(columns, JSON),
    }
    expected = work.runtime.score(features)
    try:
        _same("Arrow stream", _arrow_scores(send(arrow, ARROW)), expected)
        _same("JSON columns", _json_scores(send(columns, JSON)), expected)
        return _alternate(ways, table.num_rows, seconds)
    finally:
        connection.close()


def _alternate(ways: dict[str, Callable[[], object]], rows: int, seconds: float) -> list[Bulk]:
    """Call every way in turn until each has had `seconds` on average; what disturbs one disturbs all."""
    taken = dict.fromkeys(ways, 0.0)
    turns = 0
    while sum(taken.values()) < seconds * len(ways):
        turns += 1
        for way, call in ways.items():
            start = time.perf_counter()
            call()
            taken[way] += time.perf_counter() - start
    return [Bulk(way, rows * turns, time_taken) for way, time_taken in taken.items()]


def _arrow_scores(body: bytes) -> Scores:
    return np.asarray(pa.ipc.open_stream(body).read_all()["score"], np.float32)


def _json_scores(body: bytes) -> Scores:
    return np.array([prediction["score"] for prediction in json.loads(body)["predictions"]], np.float32)


def _same(way: str, found: Scores, expected: Scores) -> None:
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=_TOLERANCE):
        raise UserError(f"{way}: scores differ from the bare model's: {found[:4]}, expected {expected[:4]}")
