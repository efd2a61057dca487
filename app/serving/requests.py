"""Which request is this? Its id, taken from the client or given by the ingress, for answers and for lines of the log."""

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TypeAlias

from app.serving.asgi import Scope
from app.telemetry import spans

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]

HEADER = b"x-request-id"
_VALID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

# The headers of the request that a task works on. They are read when something is to be said of it, not before.
_CURRENT: ContextVar[RawHeaders] = ContextVar("request")


def begin(scope: Scope) -> None:
    """Let what the task logs from here on be about this request."""
    _CURRENT.set(scope["headers"])


def request_id(headers: RawHeaders) -> str | None:
    """Return a request's id; None where it has none, or several, or one that no log should have to hold."""
    sent = [value for name, value in headers if name == HEADER]
    return sent[0].decode() if len(sent) == 1 and _VALID.fullmatch(sent[0]) else None


def facts() -> Mapping[str, str]:
    """Return what a line of the log says of the request it is about: its id, and its trace's (W3C Trace Context).

    The trace is that of our own span where there is one, else the one that the request names.
    """
    headers = _CURRENT.get(())
    found: dict[str, str] = {}
    if (known := request_id(headers)) is not None:
        found["http.request.id"] = known
    for name, value in headers:
        if name == b"traceparent" and (match := _TRACE.fullmatch(value)):
            found["trace.id"] = match[1].decode()
    return found | spans.facts()
