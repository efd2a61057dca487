"""The ASGI application of one declaration: request -> columns -> prediction -> response.

Plain ASGI, because a framework's routing costs more than the prediction; the documents around it are few.
"""

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass

import msgspec

from app.model.bundle import Bundle
from app.model.runtime import Runtime
from app.serving.arrow_codec import ArrowCodec
from app.serving.asgi import Receive, Scope, Send
from app.serving.batching import Batcher
from app.serving.codec import Codec, Fields
from app.serving.json_codec import JsonCodec
from app.serving.openapi import docs_page, openapi
from app.serving.problems import CONTENT_TYPE, Problem
from app.spec import Spec
from app.telemetry import ServingMetrics

INLINE_BYTES = 65_536
"""Bodies up to this size are decoded on the event loop; larger ones on a thread."""
BODY_TIMEOUT = 30.0
"""Seconds a client may take to send its body."""


Answer = tuple[int, str, bytes, str]
"""Status, content type and body, and the outcome that is counted."""


@dataclass(frozen=True)
class Loaded:
    """A model version in memory, ready to answer: everything that changes when the version does."""

    name: str
    version: str
    bundle: Bundle
    runtime: Runtime
    codecs: dict[str, Codec]
    documents: dict[str, tuple[str, bytes]]

    @staticmethod
    def of(bundle: Bundle, spec: Spec, version: str, use_gpu: bool) -> "Loaded":
        """Load and warm a bundle's graph. Blocks for some 100 ms: not for the event loop."""
        model = f"{spec.name}/{version}"
        fields = Fields(bundle.plan, spec.serve.max_request_rows)
        runtime = bundle.runtime(use_gpu=use_gpu)
        runtime.warm()
        codecs: list[Codec] = [kind(fields, model, spec.task.threshold) for kind in (JsonCodec, ArrowCodec)]
        description = {
            "model": model,
            "version": version,
            "bundle": bundle.version_id,
            "task": bundle.plan.target.task,
            "target": bundle.plan.target.name,
            "classes": bundle.plan.target.classes,
            "features": {name: fields.kind(name) for name in bundle.plan.names},
            "metrics": bundle.metrics,
            "device": runtime.device,
        }
        documents = {
            "model": ("application/json", msgspec.json.encode(description)),
            "openapi.json": ("application/json", msgspec.json.encode(openapi(spec, fields, model))),
            "docs": ("text/html; charset=utf-8", docs_page(spec, fields, model).encode()),
            "readyz": ("application/json", msgspec.json.encode({"status": "ready", "model": model})),
        }
        return Loaded(spec.name, version, bundle, runtime, {c.content_type: c for c in codecs}, documents)


class Endpoint:
    """Answers HTTP for one declaration, with the version last given to `swap`."""

    def __init__(self, spec: Spec, executor: Executor, metrics: ServingMetrics) -> None:
        self._spec = spec
        self._executor = executor
        self.metrics = metrics
        self._prefix = f"/{spec.name}"
        self._answering: tuple[Loaded, Batcher] | None = None

    def swap(self, loaded: Loaded) -> None:
        """Answer with this version from the next request on; those under way keep theirs."""
        rows = self._spec.serve.max_batch_rows
        self._answering = loaded, Batcher(loaded.runtime.score, self._executor, rows, self.metrics.batch)
        self.metrics.model_version(loaded.version)

    @property
    def version(self) -> str | None:
        """The version that answers; None before the first."""
        return self._answering[0].version if self._answering else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection scope."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        started = time.perf_counter()
        try:
            status, content_type, body, outcome = await self._answer(scope, receive)
        except Problem as problem:
            status, content_type, body, outcome = problem.status, CONTENT_TYPE, problem.body(), problem.code
        headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
        if status == 405:
            headers.append((b"allow", b"POST" if scope["path"].endswith("/predict") else b"GET"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.metrics.request(outcome, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        page = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix(self._prefix).strip("/")
        method = scope["method"]
        if page == "healthz":
            return 200, "application/json", b'{"status":"alive"}', "page"
        if self._answering is None:
            raise Problem(503, "not-ready", "no model is loaded yet")
        loaded, batcher = self._answering
        if page == "predict":
            if method != "POST":
                raise Problem(405, "method", f"found {method}, /predict takes POST")
            return await self._predict(loaded, batcher, scope, receive)
        if page not in loaded.documents:
            pages = ", ".join(f"{self._prefix}/{name}" for name in ("predict", "healthz", *loaded.documents))
            raise Problem(404, "not-found", f"nothing at {scope['path']!r:.100}; there are {pages}")
        if method not in ("GET", "HEAD"):
            raise Problem(405, "method", f"found {method}, /{page} takes GET")
        content_type, body = loaded.documents[page]
        return 200, content_type, body, "page"

    async def _predict(self, loaded: Loaded, batcher: Batcher, scope: Scope, receive: Receive) -> Answer:
        content_type = length = None
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value.split(b";", 1)[0].strip().lower().decode("latin-1")
            elif name == b"content-length":
                length = int(value)
        codec = loaded.codecs.get(content_type or "application/json")
        if codec is None:
            allowed = ", ".join(loaded.codecs)
            raise Problem(
                415,
                "content-type",
                f"found content type {content_type!r:.100}, allowed are {allowed}",
                found=content_type,
                allowed=allowed,
            )
        body = await self._body(receive, length)
        if len(body) <= INLINE_BYTES:
            batch = codec.decode(body)
            scores = await batcher.score(batch.features)
            answer = codec.encode(batch, scores)
        else:
            loop = asyncio.get_running_loop()
            batch = await loop.run_in_executor(self._executor, codec.decode, body)
            scores = await batcher.score(batch.features)
            answer = await loop.run_in_executor(self._executor, codec.encode, batch, scores)
        self.metrics.rows(batch.rows)
        return 200, codec.content_type, answer, "ok"

    async def _body(self, receive: Receive, length: int | None) -> bytes:
        limit = self._spec.serve.max_request_bytes
        too_large = Problem(413, "body-too-large", f"the body is larger than the {limit} bytes allowed")
        if length is not None and length > limit:
            raise too_large
        message = await receive()
        if not message.get("more_body"):  # nearly always: a small body comes in one piece
            body: bytes = message.get("body", b"")
            return body
        pieces = [message.get("body", b"")]
        size = len(pieces[0])
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while message.get("more_body"):
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "disconnected", "the client went away before its body was whole")
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > limit:
                        raise too_large
        except TimeoutError:
            detail = f"the body was not whole after {BODY_TIMEOUT:g} s; {size} bytes had come"
            raise Problem(408, "slow-body", detail) from None
        return b"".join(pieces)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
