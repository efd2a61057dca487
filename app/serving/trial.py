"""How does a version score that has yet to prove itself? Unheard or on a thread of its own; its failures stay its own."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa

from app.serving.answered import finite
from app.serving.gathered import Gathered
from app.serving.loaded import Loaded
from app.serving.profiles import HOUR, Call, Profiles
from app.types import Features, Scores

log = logging.getLogger(__name__)
T = TypeVar("T")

SHADOW_ROWS = 4096
"""Most rows a shadow scores at one flush."""
TIMED_CALLS = 16
"""Requests of a flush that a shadow scores one by one, to tell how long it takes; the others go together."""


def attempt(version: Loaded, work: Callable[[], T]) -> T | None:
    """Return what `work` returns; None, with a line in the log, when it fails in whatever way."""
    try:
        return work()
    except Exception:  # a challenger's plan and graph are not proven yet: nothing of them may reach the caller
        log.warning("%s failed", version.model, exc_info=True)
        return None


def timed_score(version: Loaded, features: Features) -> tuple[Scores, float]:
    """Return scores and the seconds they took: the thread's own on a CPU, so that neighbours do not count.

    Raises ValueError for a graph that gives other than one score a row, whatever it says of itself.
    """
    clock = time.thread_time if version.runtime.device == "cpu" else time.perf_counter
    started = clock()
    scores = version.runtime.score(features)
    seconds = clock() - started
    target, rows = version.plan.target, len(features.number)
    if scores.shape != ((rows, target.outputs) if target.task == "multiclass" else (rows,)):
        raise ValueError(f"{version.model} gave scores of shape {scores.shape} for {rows} rows")
    return scores, seconds


def score_unheard(challenger: Loaded, gathered: Gathered, profiles: Profiles) -> Scores | None:
    """Return the challenger's scores of the first rows, from the values as sent by its own plan; None when it fails."""
    rows = min(len(gathered.scores), SHADOW_ROWS)
    sizes = gathered.rows[:TIMED_CALLS]
    calls: list[Call] = []

    def score() -> tuple[Features, Scores]:
        sent = gathered.sent.slice(0, rows)
        table = pa.Table.from_arrays(sent.flatten(), [field.name for field in sent.type])
        features = challenger.plan.encode(table)
        found, start = [], 0
        for size in sizes:
            scores, seconds = timed_score(challenger, features.rows(slice(start, min(start + size, rows))))
            calls.append(Call(challenger, "shadow", seconds))
            found.append(scores)
            start += size
            if start >= rows:
                break
        else:
            found.append(timed_score(challenger, features.rows(slice(start, rows)))[0])
        return features, np.concatenate(found)

    answer = attempt(challenger, score)
    window = int(gathered.event[:rows].max()) // HOUR * HOUR
    if answer is None:
        profiles.failed(challenger, "shadow", rows, 0, window)
        return None
    features, scores = answer
    good = finite(scores)
    profiles.count(challenger, "shadow", features.rows(good), scores[good], gathered.event[:rows][good])
    profiles.failed(challenger, "shadow", 0, int(rows - good.sum()), window)
    for call in calls:
        profiles.called(call, window)
    return scores
