"""The ASGI application of one declaration: which path leads where, and how an answer leaves.

Plain ASGI, because a framework's routing costs more than the prediction; the documents around it are few.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from app.journal.writer import LabelCommits
from app.serving.asgi import Answer, Receive, Scope, Send, below
from app.serving.bodies import JSON, Held, Room, content_type_and_length, read_body
from app.serving.guard import Guard
from app.serving.labels import LabelCodec, LabelDesk
from app.serving.loaded import Standing
from app.serving.pages import Pages
from app.serving.predict import Predictor
from app.serving.problems import CONTENT_TYPE, Problem
from app.serving.recorder import Recorder, Write
from app.serving.requests import begin, request_id
from app.spec import Spec
from app.telemetry import ServingMetrics, spans

log = logging.getLogger(__name__)

_POSTS = ("/predict", "/labels")
_RETRY_AFTER = (b"retry-after", b"5")  # seconds: about what a store or a disk needs, and no stampede


class Endpoint:
    """Answers HTTP for one declaration, with the versions last given to `swap`.

    `folder` is the service's in the workspace, `write` writes a segment of its journal; `closing` is called, on a
    thread, when the server ends. Where there is a `guard`, all but /healthz and /readyz needs a key. `traced` requests
    have a span under way, which hears of them.
    """

    def __init__(
        self,
        spec: Spec,
        executor: Executor,
        metrics: ServingMetrics,
        recorder: Recorder,
        write: Write,
        folder: str,
        closing: Callable[[], None],
        guard: Guard | None = None,
        traced: bool = False,
    ) -> None:
        self._spec = spec
        self._prefix = f"/{spec.name}"
        self._pages = Pages(folder)
        self._predictor = Predictor(spec, executor, metrics, recorder, traced)
        self._write = write
        self._closing = closing
        self._guard = guard
        self._room = Room(spec.serve.max_request_bytes)
        self._traced = traced
        self._standing: Standing | None = None
        self._documents: dict[str, tuple[str, bytes]] = {}
        self._commits: tuple[pa.Schema, LabelCommits] | None = None
        self._labels: LabelDesk | None = None
        self.metrics = metrics

    def swap(self, standing: Standing) -> None:
        """Answer with these versions from the next request on; those under way keep theirs."""
        self._documents = standing.documents
        target = standing.champion.plan.target
        codec = LabelCodec(target, self._spec.serve.max_request_rows, ZoneInfo(self._spec.data.timezone))
        if self._commits is None or self._commits[0] != codec.schema:
            wait = self._spec.journal.label_commit.total_seconds()
            self._commits = codec.schema, LabelCommits(partial(self._write, "labels"), wait, codec.schema)
        self._labels = LabelDesk(codec, self._commits[1])
        self._predictor.take(standing)
        self._standing = standing
        self.metrics.model_version(standing.champion.version)
        self.metrics.line_up(standing.generation, standing.share)

    @property
    def standing(self) -> Standing | None:
        """Who answers; None before the first version."""
        return self._standing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        started = time.perf_counter()
        begin(scope)
        try:
            answer = await self._answer(scope, receive)
        except Problem as problem:
            if problem.status >= 500:
                log.info("%d %s: %s", problem.status, problem.code, problem)
            body = problem.body(request_id(scope["headers"]))
            answer = Answer(problem.status, CONTENT_TYPE, body, problem.code, problem.headers)
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]
        if answer.status == 405:
            headers.append((b"allow", b"POST" if scope["path"].endswith(_POSTS) else b"GET"))
        if answer.status == 503:
            headers.append(_RETRY_AFTER)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        self.metrics.request(answer.outcome, time.perf_counter() - started)
        if self._traced:
            spans.note({"evertrue.outcome": answer.outcome})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path = below(scope, self._prefix)
        page = path.strip("/")
        method = scope["method"]
        if page == "healthz":
            return Answer(200, JSON, b'{"status":"alive"}', "page")
        bucket = None
        if self._guard is not None and page != "readyz":
            bucket = self._guard.admit(scope["headers"], page)
        if self._standing is None or self._labels is None:
            raise Problem(503, "not-ready", "no model is loaded yet")
        if page in ("predict", "labels"):
            if method != "POST":
                raise Problem(405, "method", f"found {method}, /{page} takes POST")
            content_type, length = content_type_and_length(scope)
            with Held(self._room) as held:
                body = await read_body(receive, length, self._spec.serve.max_request_bytes, held)
                work = self._predictor.predict if page == "predict" else self._labels.accept
                version = self._standing.champion.version
                answer = await work(content_type, body)
            if self._traced:
                spans.note({"evertrue.rows": answer.rows, "evertrue.version": version})
            if bucket is not None:
                bucket.take(answer.rows - 1)
            return answer
        if page not in self._documents and page not in self._pages.names:
            names = ("predict", "labels", "healthz", *self._documents, *self._pages.names)
            pages = ", ".join(f"{self._prefix}/{name}" for name in names)
            raise Problem(404, "not-found", f"nothing at {scope['path']!r:.100}; there are {pages}")
        if method not in ("GET", "HEAD"):
            raise Problem(405, "method", f"found {method}, /{page} takes GET")
        if page == "readyz" and self._guard is not None:
            # A probe has no key: it hears neither who answers nor what is wrong.
            ready = {"status": "ready", "generation": self._standing.generation}
            return Answer(200, JSON, msgspec.json.encode(ready), "page")
        if page in self._documents:
            return Answer(200, *self._documents[page], "page")
        if not page and not path.endswith("/"):  # the page's own addresses are relative to the folder
            return Answer(307, JSON, b"{}", "page", ((b"location", f"{self._prefix}/".encode()),))
        return await self._pages.answer(page, scope.get("query_string", b""))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.get_running_loop().run_in_executor(None, self._closing)
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
