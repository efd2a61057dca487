"""What happens to a request before Serve sees it. Serve's replicas (or its proxy) import `middlewares` by name."""

import itertools
import os
from collections.abc import Iterable
from hmac import compare_digest

from starlette.middleware import Middleware

from app.cluster import FRONT_HEADER, voucher
from app.serving.asgi import ASGIApp, Message, Receive, Scope, Send
from app.serving.problems import CONTENT_TYPE, Problem
from app.serving.requests import HEADER, request_id
from app.telemetry import RaySink, Sink
from app.telemetry.names import REFUSED

_ALIVE = "/-/healthz"  # what HAProxy asks of itself, and Serve answers
_NO_DISCONNECT_WATCH = (b"x-request-disconnect-disabled", b"?1")
_COUNTED = (408, 429, 503)  # of services that there are; what else is asked for has any name
_PLAIN = {
    404: ("not-found", "no service has this address"),
    408: ("timeout", "the request took too long"),
    429: ("overloaded", "too many requests are waiting; Retry-After says when to come again"),
    503: ("not-ready", "no replica is ready"),
}


class Ingress:
    """Spares short requests Serve's watch for a client that hangs up, and makes Serve's own refusals problems.

    The watch costs two tasks a request (8-20 % of the requests/s); a prediction is over before it could help.
    Requests without an id, or with one that is none, get one that is counted, not drawn at random as Serve would:
    cheaper, and as unique. Serve gives it back as a header of the answer.
    Refusals are counted here: Serve does not count those of a replica that is asked without its proxy.
    """

    def __init__(self, app: ASGIApp, sink: Sink | None = None) -> None:
        self._app = app
        self._voucher = voucher()
        self._sink = RaySink() if sink is None else sink
        self._here = os.urandom(8).hex().encode()
        self._requests = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection scope."""
        if scope["type"] == "websocket":  # nothing here speaks it, and whoever asks was asked nothing yet
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        if self._voucher is not None and scope["path"] != _ALIVE and not self._vouched(headers):
            await _refuse(
                send, Problem(403, "not-by-the-front", "this service is asked at its address, not at a replica's")
            )
            return
        if request_id(headers) is None:
            named = (HEADER, b"%s-%x" % (self._here, next(self._requests)))
            headers = [*(one for one in headers if one[0] != HEADER), named]
        scope["headers"] = [*headers, _NO_DISCONNECT_WATCH]
        replaced = False

        async def translate(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] in _PLAIN:
                headers = dict(message["headers"])
                if headers.get(b"content-type", b"").startswith(b"text/plain"):
                    replaced = True
                    self._count(scope["path"], message["status"])
                    problem = Problem(message["status"], *_PLAIN[message["status"]])
                    body = problem.body(request_id(scope["headers"]))
                    headers |= {b"content-type": CONTENT_TYPE.encode(), b"content-length": b"%d" % len(body)}
                    await send({**message, "headers": list(headers.items())})
                    await send({"type": "http.response.body", "body": body})
                    return
            if not replaced:
                await send(message)

        await self._app(scope, receive, translate)

    def _vouched(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        assert self._voucher is not None
        return any(name == FRONT_HEADER and compare_digest(value, self._voucher) for name, value in headers)

    def _count(self, path: str, status: int) -> None:
        if status in _COUNTED:
            self._sink.add(REFUSED, 1, path.strip("/").partition("/")[0], str(status))


async def _refuse(send: Send, problem: Problem) -> None:
    body = problem.body(None)
    headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def middlewares() -> list[Middleware]:
    """Return the middlewares Serve wraps around every application."""
    return [Middleware(Ingress)]
