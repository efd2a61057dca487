"""What does a trace tell of a request? One span for the whole of it, one for its rows' wait, one for the model's work.

They tell how many rows there were, and who answered with which status: never what was in them.
"""

import time

from app.serving.asgi import ASGIApp, Message, Receive, Scope, Send, below
from app.telemetry import spans
from app.telemetry.traces import Tracer

_TRACED = ("predict", "labels")
_TRACEPARENT = b"traceparent"


class Traced:
    """Gives predictions and deliveries of labels a span, part of the client's trace where the request names one."""

    def __init__(self, app: ASGIApp, tracer: Tracer, service: str) -> None:
        self._app = app
        self._tracer = tracer
        self._prefix = f"/{service}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection scope."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        page = below(scope, self._prefix).strip("/")
        if page not in _TRACED:
            await self._app(scope, receive, send)
            return
        sent = [value for name, value in scope["headers"] if name == _TRACEPARENT]
        parent = sent[0].decode("latin-1") if len(sent) == 1 else None
        route = f"{self._prefix}/{page}"
        told = {
            "http.request.method": "POST",
            "http.route": route,
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        span = self._tracer.begin(f"POST {route}", parent, told, server=True)
        status: int | None = None

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with spans.within(span):
            try:
                await self._app(scope, receive, heard)
            except Exception:
                status = status or 500  # which Serve answers then
                raise
            finally:
                if status is not None:  # else the client went away
                    span.note({"http.response.status_code": status})
                    if status >= 500:
                        span.fail(str(status))


class Waiting:
    """A request's rows that wait to be scored, in a trace."""

    def __init__(self, span: spans.Span) -> None:
        self._span = span
        self._since = time.time_ns()

    @staticmethod
    def of_request() -> "Waiting | None":
        """Begin to wait, for the request of this task; None where nobody will hear of it."""
        span = spans.recorded()
        return None if span is None else Waiting(span)

    def scored(self, began: int, ended: int, rows: int) -> None:
        """Tell when (ns since 1970) the batch of so many rows was scored that these were in."""
        self._span.child("wait", began=self._since).end(began)
        self._span.child("score", {"evertrue.batch.rows": rows}, began).end(ended)
