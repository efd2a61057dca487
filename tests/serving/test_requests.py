"""A request keeps its id all the way: taken or given, in the answer, in the problem, and in what is logged of it."""

import asyncio
import logging
import re
from collections.abc import Callable

import httpx
import pytest
from ray.serve._private.http_util import RequestIdMiddleware

from app.serving.ingress import Ingress
from app.serving.requests import begin, facts, request_id

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def ask(room, version, counts) -> Callable[..., httpx.Response]:
    """Ask a service with what Serve puts around it; without a version it is not ready."""

    def send(*headers: tuple[str, str], ready: bool = True) -> httpx.Response:
        service = room()
        if ready:
            service.stand(version("1"))
        app = Ingress(RequestIdMiddleware(service.endpoint), counts)  # in Serve's order

        async def post() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                return await client.post("/rides/predict", content=b"{", headers=list(headers))

        return asyncio.run(post())

    return send


@pytest.mark.parametrize("sent", ["01a2-b3", "a", "Root=1-67891233-abcdef012345678912345678", "x" * 128])
def test_a_clients_id_comes_back_in_header_and_problem(ask, sent: str) -> None:
    answer = ask(("X-Request-ID", sent))
    assert answer.headers.get_list("x-request-id") == [sent]
    assert answer.json()["request_id"] == sent


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("X-Request-ID", ""),),
        (("X-Request-ID", "x" * 129),),
        (("X-Request-ID", "with space"),),
        (("X-Request-ID", '{"a":1}'),),
        (("X-Request-ID", "-leading"),),
        (("X-Request-ID", "one"), ("X-Request-ID", "two")),
    ],
    ids=["none", "empty", "long", "space", "json", "dash", "two"],
)
def test_a_request_without_an_id_that_is_one_is_given_its_own(ask, headers) -> None:
    first, second = ask(*headers), ask(*headers)
    [given] = first.headers.get_list("x-request-id")
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", given)
    assert first.json()["request_id"] == given
    assert second.json()["request_id"] != given


def test_an_endpoint_that_stands_alone_leaves_out_an_id_it_does_not_have(room, version) -> None:
    service = room()
    service.stand(version("1"))
    [bare, named] = service.ask(
        ("POST", "/rides/predict", {"content": b"{"}),
        ("POST", "/rides/predict", {"content": b"{", "headers": {"x-request-id": "r1"}}),
    )
    assert "request_id" not in bare.json()
    assert named.json()["request_id"] == "r1"


def test_what_is_logged_of_a_request_can_be_found_by_its_id(ask, caplog) -> None:
    seen = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.getMessage(), dict(facts())))

    logger, handler = logging.getLogger("app.serving.endpoint"), Seen()
    logger.addHandler(handler)
    with caplog.at_level(logging.INFO, logger.name):
        ask(("X-Request-ID", "r7"), ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ready=False)
        ask(("X-Request-ID", "r8"))  # the client's mistake is no line
    logger.removeHandler(handler)
    assert seen == [("503 not-ready: no model is loaded yet", {"http.request.id": "r7", "trace.id": TRACE})]


def test_requests_side_by_side_are_told_apart_and_outside_there_is_none() -> None:
    async def work(name: str) -> dict[str, str]:
        begin({"headers": [(b"x-request-id", name.encode()), (b"traceparent", b"rubbish")]})
        await asyncio.sleep(0)
        return dict(facts())

    async def both() -> list[dict[str, str]]:
        return await asyncio.gather(work("one"), work("two"))

    assert asyncio.run(both()) == [{"http.request.id": "one"}, {"http.request.id": "two"}]
    assert facts() == {}


def test_no_bytes_of_a_header_are_a_failure() -> None:
    assert request_id([(b"x-request-id", bytes(range(256)))]) is None
