"""The types of ASGI, as far as a request needs them, what it asks for, and what it is answered with."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class Answer(NamedTuple):
    """What a request is answered with; `outcome` is what is counted, `rows` what it took."""

    status: int
    content_type: str
    body: bytes
    outcome: str
    headers: Headers = ()
    rows: int = 1


def below(scope: Scope, prefix: str) -> str:
    """Return the path that is asked for below a service's own."""
    path: str = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix(prefix)
    return path
