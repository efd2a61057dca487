"""Score the rows of neighbouring requests together, without making any of them wait.

Requests that arrive in one turn of the event loop are read, decoded and queued in that turn; the batch is
scored at its end. Under load the turns fill by themselves, a lone request goes straight through: there is
no waiting time to tune. `@serve.batch` without wait costs three to four times as much a request
(benchmarks/results/batching.md).
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeAlias

import numpy as np

from app.serving.traced import Waiting
from app.types import Features, Scores

Score = Callable[[Features], tuple[Scores, float]]
"""From rows to scores and the seconds they took."""
Observe = Callable[[int, float], None]

_Request: TypeAlias = tuple[Features, asyncio.Future[Scores], Waiting | None]


class Batcher:
    """Scores small requests together on the event loop, and large ones alone on `executor`.

    `inline_rows`: the most rows scored on the loop at once; a batch this large takes well under a millisecond.
    `observe` hears the rows of every batch, and the seconds its scoring took. `traced` requests have spans of both.
    """

    def __init__(
        self, score: Score, executor: Executor, inline_rows: int, observe: Observe, traced: bool = False
    ) -> None:
        self._score = score
        self._executor = executor
        self._inline_rows = inline_rows
        self._observe = observe
        self._traced = traced
        self._waiting: list[_Request] = []

    async def score(self, features: Features) -> Scores:
        """Return the scores of these rows, in their order. Raises what scoring raises."""
        loop = asyncio.get_running_loop()
        rows = len(features.number)
        waiting = Waiting.of_request() if self._traced else None
        if rows > self._inline_rows:
            score = self._score if waiting is None else partial(self._score_alone, waiting)
            scores, seconds = await loop.run_in_executor(self._executor, score, features)
            self._observe(rows, seconds)
            return scores
        future: asyncio.Future[Scores] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((features, future, waiting))
        return await future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        while waiting:
            rows = 0
            for count, (features, _, _) in enumerate(waiting):
                rows += len(features.number)
                if rows > self._inline_rows and count:
                    break
            else:
                count = len(waiting)
            self._score_together(waiting[:count])
            waiting = waiting[count:]

    def _score_together(self, batch: list[_Request]) -> None:
        if len(batch) == 1:
            features = batch[0][0]
        else:
            number, category = zip(*(features for features, _, _ in batch), strict=True)
            features = Features(np.concatenate(number), np.concatenate(category))
        began = time.time_ns() if self._traced else 0
        try:
            scores, seconds = self._score(features)
        except Exception as error:
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(error)
            return
        self._observe(len(features.number), seconds)
        rows, ended = len(features.number), time.time_ns() if self._traced else 0
        start = 0
        for features, future, _ in batch:
            end = start + len(features.number)
            if not future.done():  # a client that went away has cancelled its future
                future.set_result(scores[start:end])
            start = end
        if self._traced:
            for waiting in filter(None, (waiting for _, _, waiting in batch)):
                waiting.scored(began, ended, rows)

    def _score_alone(self, waiting: Waiting, features: Features) -> tuple[Scores, float]:
        began = time.time_ns()
        scored = self._score(features)
        waiting.scored(began, time.time_ns(), len(features.number))
        return scored
