"""Work that is over at once needs no timer; work that waits has so long and no longer."""

import asyncio
from typing import Any

import pytest

from app.serving import within as module
from app.serving.within import within


async def at_once(fails: bool = False) -> str:
    if fails:
        raise KeyError("at once")
    return "at once"


def test_what_is_over_at_once_is_returned_or_raised_without_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.asyncio, "timeout", None)
    assert asyncio.run(within(1, at_once())) == "at once"
    with pytest.raises(KeyError, match="at once"):
        asyncio.run(within(1, at_once(fails=True)))


@pytest.mark.parametrize("fails", [False, True])
def test_what_waits_goes_on_where_it_was(fails: bool) -> None:
    async def main() -> list[Any]:
        said, steps = asyncio.Queue[str](), []

        async def work() -> list[str]:
            for _ in range(3):
                steps.append(await said.get())
                await asyncio.sleep(0)
            if fails:
                raise KeyError(*steps)
            return steps

        task = asyncio.create_task(within(10, work()))
        for word in "abc":
            await asyncio.sleep(0.001)
            said.put_nowait(word)
        return await task

    if fails:
        with pytest.raises(KeyError, match="a"):
            asyncio.run(main())
    else:
        assert asyncio.run(main()) == [*"abc"]


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_waits_too_long_or_is_cancelled_hears_of_it_first(cancelled: bool) -> None:
    heard: list[str] = []

    async def main() -> None:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append("cancelled")
                raise

        task = asyncio.create_task(within(10 if cancelled else 0.01, work()))
        await asyncio.sleep(0)
        if cancelled:
            task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError if cancelled else TimeoutError):
        asyncio.run(main())
    assert heard == ["cancelled"]


def test_work_may_outlive_a_cancellation_that_it_catches() -> None:
    async def main() -> str:
        async def work() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "tidied up"
            raise AssertionError

        task = asyncio.create_task(within(10, work()))
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "tidied up"
