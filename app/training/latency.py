"""How long one row's prediction takes, and how surely: the latency that the gate limits."""

import time
from collections.abc import Callable

import numpy as np

from app.data.features import FeaturePlan
from app.model.runtime import Runtime
from app.types import FIRST_ID, MISSING_ID, Features

_WARM_UP = 50
_ROUNDS = 5
_CALLS = 200


def measure_latency(
    runtime: Runtime, plan: FeaturePlan, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return seconds of one-row predictions: {"p50": ..., "p99": ...}.

    Of several rounds the quietest counts, since a busy machine only ever adds.
    """
    row = Features(
        np.array([[column.mean for column in plan.number]], np.float32),
        np.array([[FIRST_ID if column.vocabulary else MISSING_ID for column in plan.category]], np.int64),
    )
    for _ in range(_WARM_UP):
        runtime.score(row)
    rounds = []
    for _ in range(_ROUNDS):
        seconds = np.empty(_CALLS)
        for call in range(_CALLS):
            start = clock()
            runtime.score(row)
            seconds[call] = clock() - start
        rounds.append(np.quantile(seconds, (0.5, 0.99)))
    p50, p99 = np.min(rounds, axis=0)
    return {"p50": float(p50), "p99": float(p99)}
