"""Bare ASGI on uvicorn with msgspec and micro-batches: the limit of one Python process."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from operator import attrgetter
from typing import Annotated, Any, TypeAlias

import msgspec

from benchmarks.serve.work import MAX_BATCH_ROWS, MAX_ROWS, RowValues, Work, label, make_id, msgspec_row

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Prediction(msgspec.Struct, gc=False):
    """One row's answer."""

    id: str
    score: float
    label: int


class Answer(msgspec.Struct, gc=False):
    """All rows' answers, in the order of the request."""

    model: str
    predictions: list[Prediction]


class Batcher:
    """Scores together whatever was queued in one tick of the loop; nobody waits for a neighbour."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: list[tuple[list[RowValues], asyncio.Future[list[float]]]] = []

    def predict(self, rows: list[RowValues]) -> "asyncio.Future[list[float]]":
        """Return the scores to come."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        future: asyncio.Future[list[float]] = loop.create_future()
        self._waiting.append((rows, future))
        return future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        while waiting:
            batch, waiting = waiting[:MAX_BATCH_ROWS], waiting[MAX_BATCH_ROWS:]
            scores = self._work.predict([row for rows, _ in batch for row in rows])
            start = 0
            for rows, future in batch:
                if not future.cancelled():
                    future.set_result(scores[start : start + len(rows)])
                start += len(rows)


class Application:
    """POST /predict, and nothing else."""

    def __init__(self) -> None:
        work = Work.open()
        row = msgspec_row(work.plan)
        rows = Annotated[list[row], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]
        request = msgspec.defstruct("Request", [("rows", rows)], forbid_unknown_fields=True)
        self._name = work.name
        self._values = attrgetter(*work.plan.names)
        self._decode = msgspec.json.Decoder(request).decode
        self._encode = msgspec.json.Encoder().encode
        self._batcher = Batcher(work)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["path"] != "/predict" or scope["method"] != "POST":
            return await _send(send, 404, b'{"detail": "POST /predict"}')
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            request = self._decode(body)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            return await _send(send, 422, self._encode({"detail": str(error)}))
        scores = await self._batcher.predict([self._values(row) for row in request.rows])
        predictions = [Prediction(make_id(), score, label(score)) for score in scores]
        await _send(send, 200, self._encode(Answer(self._name, predictions)))
        return None


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
