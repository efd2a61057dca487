"""Score the rows of neighbouring requests together, without making any of them wait.

Requests that arrive in one turn of the event loop are read, decoded and queued in that turn; the batch is
scored at its end. Under load the turns fill by themselves, a lone request goes straight through: there is
no waiting time to tune. `@serve.batch` without wait costs three to four times as much a request
(benchmarks/results/batching.md).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from app.types import Features, Scores

Score = Callable[[Features], tuple[Scores, float]]
"""From rows to scores and the seconds they took."""
Observe = Callable[[int, float], None]


class Batcher:
    """Scores small requests together on the event loop, and large ones alone on `executor`.

    `inline_rows`: the most rows scored on the loop at once; a batch this large takes well under a millisecond.
    `observe` hears the rows of every batch, and the seconds its scoring took.
    """

    def __init__(self, score: Score, executor: Executor, inline_rows: int, observe: Observe) -> None:
        self._score = score
        self._executor = executor
        self._inline_rows = inline_rows
        self._observe = observe
        self._waiting: list[tuple[Features, asyncio.Future[Scores]]] = []

    async def score(self, features: Features) -> Scores:
        """Return the scores of these rows, in their order. Raises what scoring raises."""
        loop = asyncio.get_running_loop()
        rows = len(features.number)
        if rows > self._inline_rows:
            scores, seconds = await loop.run_in_executor(self._executor, self._score, features)
            self._observe(rows, seconds)
            return scores
        future: asyncio.Future[Scores] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((features, future))
        return await future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        while waiting:
            rows = 0
            for count, (features, _) in enumerate(waiting):
                rows += len(features.number)
                if rows > self._inline_rows and count:
                    break
            else:
                count = len(waiting)
            self._score_together(waiting[:count])
            waiting = waiting[count:]

    def _score_together(self, batch: list[tuple[Features, asyncio.Future[Scores]]]) -> None:
        if len(batch) == 1:
            features = batch[0][0]
        else:
            number, category = zip(*(features for features, _ in batch), strict=True)
            features = Features(np.concatenate(number), np.concatenate(category))
        try:
            scores, seconds = self._score(features)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        self._observe(len(features.number), seconds)
        start = 0
        for features, future in batch:
            end = start + len(features.number)
            if not future.done():  # a client that went away has cancelled its future
                future.set_result(scores[start:end])
            start = end
