"""From a body to its predictions: decoded, scored by champion or challenger, encoded, and handed to the journal."""

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from app.journal.rows import JournalError
from app.serving.answered import Answered, Second
from app.serving.asgi import Answer
from app.serving.batching import Batcher
from app.serving.bodies import INLINE_BYTES, wrong_content_type
from app.serving.canary import Canary
from app.serving.codec import Batch, Codec, Mixed
from app.serving.loaded import Loaded, Standing
from app.serving.problems import Problem
from app.serving.profiles import Call
from app.serving.recorder import Recorder
from app.serving.trial import timed_score
from app.spec import Spec
from app.telemetry import ServingMetrics
from app.types import Scores


@dataclass(frozen=True)
class _Turn:
    """The versions that answer from one swap to the next."""

    champion: Loaded
    batcher: Batcher
    shadow: Loaded | None
    canary: Canary | None


class Predictor:
    """Predicts with the versions last given to `take`; requests under way keep theirs."""

    def __init__(
        self, spec: Spec, executor: Executor, metrics: ServingMetrics, recorder: Recorder, traced: bool = False
    ) -> None:
        self._spec = spec
        self._executor = executor
        self._metrics = metrics
        self._recorder = recorder
        self._traced = traced
        self._turn: _Turn | None = None

    def take(self, standing: Standing) -> None:
        """Predict with these versions from the next request on."""
        champion, challenger = standing.champion, standing.challenger

        def observe(rows: int, seconds: float) -> None:
            self._metrics.batch(rows)
            self._recorder.called(Call(champion, "champion", seconds))

        score, most = partial(timed_score, champion), self._spec.serve.max_batch_rows
        batcher = Batcher(score, self._executor, most, observe, self._traced)
        canary = None
        if challenger is not None and standing.share > 0:
            slowdown = self._spec.rollout.max_slowdown
            canary = Canary(challenger, standing.share, slowdown, self._recorder.called)
        self._turn = _Turn(champion, batcher, challenger if canary is None else None, canary)

    async def predict(self, content_type: str, body: bytes) -> Answer:
        """Return the predictions of a body's rows.

        Raises Problem for what cannot be decoded, and with `journal.durable` when the journal takes no rows.
        """
        turn = self._turn
        assert turn is not None, "asked before the first version came"
        codec = turn.champion.codecs.get(content_type)
        if codec is None:
            raise wrong_content_type(content_type, ", ".join(turn.champion.codecs))
        arrival = time.time_ns() // 1_000_000
        inline = len(body) <= INLINE_BYTES
        started = time.perf_counter()
        batch = codec.decode(body) if inline else await self._off_loop(codec, body)
        second: Second | None = None
        if turn.canary is None:
            challenger = turn.shadow
            scores = answered = await turn.batcher.score(batch.features)
        else:
            scores, second = await self._score_both(turn.batcher, turn.canary, content_type, body, batch, started)
            answered, challenger = second.merge(scores), turn.canary.challenger
        mixed = None
        if second is not None and challenger is not None and second.good.any():
            mixed = Mixed(challenger.model, second.good)
        encode = partial(codec.encode, batch, answered, mixed)
        answer = encode() if inline else await asyncio.get_running_loop().run_in_executor(self._executor, encode)
        row = Answered(batch, scores, arrival, turn.champion, challenger, second, len(body))
        if self._recorder.durable:
            try:
                await self._recorder.record_durably(row)
            except JournalError:  # the reason, which names folders and stores, is in the log
                raise Problem(
                    503, "journal", "the prediction is not kept, ask again: the journal cannot be written"
                ) from None
        else:
            self._recorder.record(row)
        self._metrics.rows(batch.rows)
        return Answer(200, codec.content_type, answer, "ok", rows=batch.rows)

    async def _off_loop(self, codec: Codec, body: bytes) -> Batch:
        return await asyncio.get_running_loop().run_in_executor(self._executor, codec.decode, body)

    async def _score_both(
        self, batcher: Batcher, canary: Canary, content_type: str, body: bytes, batch: Batch, started: float
    ) -> tuple[Scores, Second]:
        """Return the champion's scores of all rows, and what the challenger made of those that are its to answer."""
        if batch.rows <= self._spec.serve.max_batch_rows:
            rows = canary.rows(batch.ids)
        else:
            rows = await asyncio.get_running_loop().run_in_executor(self._executor, canary.rows, batch.ids)
        if not rows.any():
            return await batcher.score(batch.features), Second.failed(rows)
        asked = canary.ask(content_type, body, rows)
        scores = await batcher.score(batch.features)
        second = await canary.heard(asked, rows, time.perf_counter() - started)
        self._metrics.challenged(int(second.good.sum()), int(rows.sum() - second.good.sum()))
        return scores, second
