"""Neighbours are scored together, each hears its own scores, and a failure reaches everyone it concerns."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.serving.batching import Batcher
from app.types import Features, Scores


def features(*values: float) -> Features:
    return Features(np.array(values, np.float32)[:, None], np.empty((len(values), 0), np.int64))


def double(batch: Features) -> tuple[Scores, float]:
    return batch.number[:, 0] * 2, 0.001


def run(
    work: Callable[[Batcher], Awaitable[None]], score: Callable[[Features], tuple[Scores, float]] = double
) -> list[int]:
    """Run `work` with a batcher of at most 8 rows; return the sizes of the batches it scored."""
    sizes: list[int] = []

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            await work(Batcher(score, executor, 8, lambda rows, seconds: sizes.append(rows)))

    asyncio.run(main())
    return sizes


def test_requests_of_one_turn_are_one_batch_and_each_gets_its_own_scores() -> None:
    async def work(batcher: Batcher) -> None:
        answers = await asyncio.gather(
            batcher.score(features(1)), batcher.score(features(2, 3)), batcher.score(features(4))
        )
        assert [answer.tolist() for answer in answers] == [[2], [4, 6], [8]]

    assert run(work) == [4]


def test_a_batch_never_grows_past_its_limit_and_order_is_kept() -> None:
    async def work(batcher: Batcher) -> None:
        answers = await asyncio.gather(*(batcher.score(features(i, i)) for i in range(10)))
        assert [answer[0] for answer in answers] == [2 * i for i in range(10)]

    assert run(work) == [8, 8, 4]


def test_a_large_request_is_scored_alone_off_the_loop() -> None:
    async def work(batcher: Batcher) -> None:
        large, small = await asyncio.gather(batcher.score(features(*range(20))), batcher.score(features(1)))
        assert large.tolist() == [2 * i for i in range(20)]
        assert small.tolist() == [2]

    assert sorted(run(work)) == [1, 20]


def test_a_failure_reaches_every_request_of_the_batch_and_the_next_batch_is_fine() -> None:
    failures = iter([True, False])

    def sometimes(batch: Features) -> tuple[Scores, float]:
        if next(failures):
            raise RuntimeError("graph")
        return double(batch)

    async def work(batcher: Batcher) -> None:
        answers = await asyncio.gather(batcher.score(features(1)), batcher.score(features(2)), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["graph", "graph"]
        assert (await batcher.score(features(3))).tolist() == [6]

    assert run(work, sometimes) == [1]  # the batch that failed is none that was scored


def test_a_client_that_went_away_does_not_disturb_its_neighbours() -> None:
    async def work(batcher: Batcher) -> None:
        gone = asyncio.ensure_future(batcher.score(features(1)))
        stays = asyncio.ensure_future(batcher.score(features(2)))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await stays).tolist() == [4]
        with pytest.raises(asyncio.CancelledError):
            await gone

    run(work)
