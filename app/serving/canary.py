"""How does a challenger answer its share of the rows, so that nothing of it can hurt? On its own thread, with a deadline.

Requests that wait while the thread works are scored together when it is free. Whatever fails, and whatever takes too
long, is the champion's to answer; while a call that took too long still runs, nobody waits for the thread at all.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from app.lineup import bucket
from app.serving.answered import Mask, Second
from app.serving.loaded import Loaded
from app.serving.profiles import Call
from app.serving.trial import attempt, timed_score
from app.types import Features, Scores

PATIENCE = 0.1
"""Seconds beyond `rollout.max_slowdown` times the champion's own that an answer is waited for."""


class _Asked(NamedTuple):
    content_type: str
    body: bytes
    rows: Mask


class Canary:
    """The challenger of a line-up with a share. Called on the event loop; `called` hears of the graph's calls."""

    def __init__(self, challenger: Loaded, share: float, slowdown: float, called: Callable[[Call], None]) -> None:
        self.challenger = challenger
        self._share = share
        self._slowdown = slowdown
        self._called = called
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="challenger")
        self._waiting: list[tuple[_Asked, asyncio.Future[Second]]] = []
        self._busy = False
        self._stuck = False

    def rows(self, ids: Sequence[str | int] | pa.Array) -> Mask:
        """Return which rows (n,) are the challenger's, always the same for the same id."""
        names = ids.to_pylist() if isinstance(ids, pa.Array) else ids
        return np.fromiter((bucket(str(name)) < self._share for name in names), bool, len(names))

    def ask(self, content_type: str, body: bytes, rows: Mask) -> asyncio.Future[Second]:
        """Begin to answer the marked rows (n,) of a request's body."""
        future: asyncio.Future[Second] = asyncio.get_running_loop().create_future()
        if self._stuck:
            future.set_result(Second.failed(rows))
            return future
        if not self._busy and not self._waiting:
            future.get_loop().call_soon(self._send)
        self._waiting.append((_Asked(content_type, body, rows), future))
        return future

    async def heard(self, answer: asyncio.Future[Second], rows: Mask, seconds: float) -> Second:
        """Return an answer, or that there was none in time; `seconds` is what the champion took for the same request."""
        try:
            async with asyncio.timeout(PATIENCE + self._slowdown * seconds):
                return await answer
        except TimeoutError:
            self._stuck = self._busy
            return Second.failed(rows)

    def _send(self) -> None:
        waiting, self._waiting = [one for one in self._waiting if not one[1].done()], []
        if not waiting:
            return
        self._busy = True
        work = partial(self._answer, [asked for asked, _ in waiting])
        job = asyncio.get_running_loop().run_in_executor(self._executor, work)
        job.add_done_callback(partial(self._deliver, [future for _, future in waiting]))

    def _deliver(self, futures: list[asyncio.Future[Second]], job: asyncio.Future[list[Second]]) -> None:
        self._busy = self._stuck = False
        try:
            for future, second in zip(futures, job.result(), strict=True):
                if not future.done():  # nobody waits for what came too late
                    future.set_result(second)
        finally:
            self._send()

    def _answer(self, requests: list[_Asked]) -> list[Second]:
        decoded = [attempt(self.challenger, partial(self._decode, asked)) for asked in requests]
        scores = iter(self._score([features for features in decoded if features is not None]))
        answers = []
        for asked, features in zip(requests, decoded, strict=True):
            own = next(scores) if features is not None else None
            if features is None or own is None:
                answers.append(Second.failed(asked.rows))
            else:
                answers.append(Second.of(asked.rows, features, own))
        return answers

    def _decode(self, asked: _Asked) -> Features:
        return self.challenger.codecs[asked.content_type].decode(asked.body).features.rows(asked.rows)

    def _score(self, several: list[Features]) -> list[Scores | None]:
        """Return the scores of several requests' rows, scored together; where that fails, one by one."""
        if not several:
            return []
        number, category = zip(*several, strict=True)
        together = Features(np.concatenate(number), np.concatenate(category))
        answer = attempt(self.challenger, lambda: timed_score(self.challenger, together))
        if answer is None:
            return [None] if len(several) == 1 else [self._score([features])[0] for features in several]
        scores, seconds = answer
        self._called(Call(self.challenger, "challenger", seconds))
        return [*np.split(scores, np.cumsum([len(part) for part in number])[:-1])]
