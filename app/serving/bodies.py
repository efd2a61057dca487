"""How is a request's body read? Whole, within its limit of bytes and of time."""

import json

from app.serving.asgi import Receive, Scope
from app.serving.problems import Problem
from app.serving.within import within

INLINE_BYTES = 65_536
"""Bodies up to this size are decoded on the event loop; larger ones on a thread."""
BODY_TIMEOUT = 30.0
"""Seconds a client may take to send its body."""
LARGEST_AT_ONCE = 8
"""A replica holds no more bytes of bodies beyond `INLINE_BYTES` than so many of the largest have."""
JSON = "application/json"
_OWN = (b"same-origin", b"none")


def content_type_and_length(scope: Scope) -> tuple[str, int | None]:
    """Return the content type, JSON when none is named, and the length if the client tells.

    Raises Problem 415 for a body that is encoded: gzip would be told that it is no JSON. Raises Problem 403 where a browser
    says that another site's page has it send this: such a page needs nobody's leave to post to whatever the browser
    reaches, this machine's loopback among it.
    """
    content_type, length = JSON, None
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value.split(b";", 1)[0].strip().lower().decode("latin-1")
        elif name == b"content-length":
            length = int(value)
        elif name == b"sec-fetch-site" and value not in _OWN:
            raise Problem(403, "cross-site", "a page of another site had a browser send this; that is never answered")
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            found = value.decode("latin-1")
            detail = f"found content encoding {found!r:.100}, a body is read as it comes: send it without"
            raise Problem(415, "content-encoding", detail, found=found, allowed="identity")
    return content_type, length


def wrong_content_type(found: str, allowed: str) -> Problem:
    """Refuse a body of another format."""
    detail = f"found content type {found!r:.100}, allowed are {allowed}"
    return Problem(415, "content-type", detail, found=found, allowed=allowed)


class Room:
    """What a replica has for large bodies, until they are answered: a crowd of them must not fill its memory."""

    def __init__(self, limit: int) -> None:
        self.most = LARGEST_AT_ONCE * limit
        self.held = 0


class Held:
    """The room of one request's body, given back at the end of the block; a small one takes none."""

    __slots__ = ("_room", "_size")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def grow(self, size: int) -> None:
        """Have room for a body of `size` bytes. Raises Problem 429 where others have it."""
        if size <= max(self._size, INLINE_BYTES):
            return
        held = self._room.held + size - self._size
        if held > self._room.most:
            detail = f"other requests' bodies fill {self._room.most} bytes; Retry-After says when to come again"
            raise Problem(429, "overloaded", detail, headers=((b"retry-after", b"1"),))
        self._room.held, self._size = held, size

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self._room.held -= self._size


async def read_body(receive: Receive, length: int | None, limit: int, held: Held) -> bytes:
    """Return a body of at most `limit` bytes, which `held` has room for.

    Raises Problem: 413 for a larger one, as soon as that is known; 429 where there is no room for it; 408 when it takes
    too long, its first piece too: a client may send its headers and no more; 400 when the client leaves.
    """
    if length is not None and length > limit:
        raise _too_large(limit)
    held.grow(length or 0)
    pieces: list[bytes] = []
    try:
        await within(BODY_TIMEOUT, _gather(pieces, receive, limit, held))
    except TimeoutError:
        detail = f"the body was not whole after {BODY_TIMEOUT:g} s; {sum(map(len, pieces))} bytes had come"
        raise Problem(408, "slow-body", detail) from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _gather(pieces: list[bytes], receive: Receive, limit: int, held: Held) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "disconnected", "the client went away before its body was whole")
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise _too_large(limit)
        held.grow(size)  # nobody need tell before how long it is
        more = message.get("more_body", False)


def _too_large(limit: int) -> Problem:
    return Problem(413, "body-too-large", f"the body is larger than the {limit} bytes allowed")


def value_at(body: bytes, *place: str | int) -> object:
    """Return what stands at a place of a JSON body that was refused.

    Raises LookupError where this cannot be told: what follows a mistake need not be JSON, and a name may be there twice.
    """
    try:
        found = json.loads(body.decode())
        for step in place:
            found = found[step]
    except (ValueError, TypeError, RecursionError) as error:
        raise LookupError(str(error)) from None
    return found
