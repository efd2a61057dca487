"""How long may something take that is over at once nearly always? A timer is set only where it has to wait."""

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

Found = TypeVar("Found")


async def within(seconds: float, work: Coroutine[Any, Any, Found]) -> Found:
    """Return what `work` returns. Raises TimeoutError, in it first, when it takes longer than so many seconds.

    `asyncio.timeout` costs a small request more than reading its body does, which mostly lies there with its headers.
    """
    try:
        waiting = work.send(None)
    except StopIteration as done:
        found: Found = done.value
        return found
    async with asyncio.timeout(seconds):
        return await _go_on(work, waiting)


@coroutine
def _go_on(work: Coroutine[Any, Any, Found], waiting: Any) -> Generator[Any, Any, Found]:
    """Await what has begun already, and waits."""
    while True:
        try:
            step = partial(work.send, (yield waiting))
        except BaseException as error:  # a cancellation, say: it is the work's to hear
            step = partial(work.throw, error)
        try:
            waiting = step()
        except StopIteration as done:
            found: Found = done.value
            return found
