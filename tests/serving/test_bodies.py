"""A body is read within its limits of bytes and time, in however many pieces it comes."""

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from app.serving import bodies
from app.serving.problems import Problem

LARGE = 2 * bodies.INLINE_BYTES


def read(*messages: dict[str, Any], length: int | None = None, held: bodies.Held | None = None) -> bytes:
    """Read a body of at most 10 bytes, or into `held` of at most `LARGE`; after its last message a client is silent."""

    async def receive() -> dict[str, Any]:
        if not coming:
            await asyncio.Event().wait()
        return coming.pop(0)

    coming = list(messages)
    limit = 10 if held is None else LARGE
    reading = bodies.read_body(receive, length, limit, held or bodies.Held(bodies.Room(10)))
    return asyncio.run(asyncio.wait_for(reading, 10))


def piece(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize("encoding", [b"gzip", b"zstd, gzip", b"\xff"])
def test_a_body_that_is_encoded_is_told_so(encoding: bytes) -> None:
    with pytest.raises(Problem, match="content encoding") as caught:
        bodies.content_type_and_length({"headers": [(b"content-encoding", encoding)]})
    assert caught.value.status == 415
    plain = {"headers": [(b"content-encoding", b" Identity"), (b"content-type", b"Application/JSON; charset=utf-8")]}
    assert bodies.content_type_and_length(plain) == ("application/json", None)


def test_pieces_are_put_together_up_to_the_limit() -> None:
    assert read(piece(b"1234567890")) == b"1234567890"
    assert read(piece(b"12345", more=True), {"type": "http.request", "body": b"67890"}) == b"1234567890"
    assert read({"type": "http.request"}) == b""


@pytest.mark.parametrize(
    ("messages", "length"),
    [
        ([piece(b"12345678901")], None),  # chunked, and all there at once
        ([piece(b"12345678901", more=True)], None),
        ([piece(b"123456", more=True), piece(b"78901", more=True)], None),
        ([], 11),
    ],
)
def test_a_larger_one_is_refused_as_soon_as_that_is_known(messages: list[dict[str, Any]], length: int | None) -> None:
    with pytest.raises(Problem) as caught:
        read(*messages, length=length)
    assert caught.value.status == 413


@pytest.mark.parametrize("messages", [[], [piece(b"", more=True)], [piece(b"1", more=True)]])
def test_a_client_that_is_silent_is_waited_for_no_longer_than_the_limit_even_before_the_first_piece(
    messages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT", 0.01)
    with pytest.raises(Problem) as caught:
        read(*messages, length=10)
    assert caught.value.status == 408


@pytest.mark.parametrize("messages", [[GONE], [piece(b"1", more=True), GONE]])
def test_a_client_that_goes_away_has_sent_no_body(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(Problem) as caught:
        read(*messages)
    assert (caught.value.status, caught.value.code) == (400, "disconnected")


@pytest.mark.parametrize("told", [True, False])
def test_large_bodies_have_room_for_some_at_once_and_small_ones_always(told: bool) -> None:
    room = bodies.Room(LARGE)
    half = b"x" * (LARGE // 2)

    def large(held: bodies.Held) -> bytes:
        return read(piece(half, more=True), piece(half), length=LARGE if told else None, held=held)

    with ExitStack() as answering:
        for _ in range(bodies.LARGEST_AT_ONCE):
            assert large(answering.enter_context(bodies.Held(room))) == half + half
        for _ in range(2):
            with pytest.raises(Problem, match="come again") as caught, bodies.Held(room) as held:
                large(held)
            assert (caught.value.status, caught.value.headers) == (429, ((b"retry-after", b"1"),))
        with bodies.Held(room) as held:
            assert read(piece(half), held=held) == half
    assert room.held == 0  # who was refused took none
