"""A request is one span of its client's trace, with the wait and the scoring of its rows; nothing of what was in it."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.serving.requests import facts
from app.telemetry import traces

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROW = {"ride": "secret-key", "distance": 417.25, "passengers": 2, "zone": "hidden-zone", "rain": True}
SERVER = 2


class Service:
    """A traced service; what has been sent is there once it is closed."""

    def __init__(self, room: Any, tracer: traces.Tracer) -> None:
        self.room, self._tracer = room, tracer

    def post(self, page: str, content: Any, **headers: str) -> httpx.Response:
        return self.room.ask(("POST", f"/rides/{page}", {"json": content, "headers": headers}))[0]

    def close(self) -> None:
        self._tracer.close()


@pytest.fixture
def serve(collector, room, version) -> Iterator[Callable[..., Service]]:
    """Return what puts up a service with a version that scores by a function; it has none where that is None."""

    def up(*score: Any) -> Service:
        tracer = traces.open_tracer("replica", "rides", "rides#1")
        made = Service(room(tracer=tracer), tracer)
        if score != (None,):
            made.room.stand(version("7", *score))
        return made

    return up


def test_a_prediction_is_a_span_of_the_clients_trace_with_its_wait_and_its_scoring(serve, collector) -> None:
    service = serve()
    answer = service.post("predict", {"rows": [ROW, ROW]}, traceparent=f"00-{TRACE}-{PARENT}-01")
    service.close()
    assert answer.status_code == 200
    assert collector.names() == ["POST /rides/predict", "score", "wait"]
    span = collector.one("POST /rides/predict")
    assert (span.trace, span.parent, span.kind, span.failed) == (TRACE, PARENT, SERVER, False)
    assert span.told == {
        "http.request.method": "POST",
        "http.route": "/rides/predict",
        "http.response.status_code": 200,
        "url.path": "/rides/predict",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "evertrue.rows": 2,
        "evertrue.version": "7",
        "evertrue.outcome": "ok",
    }
    assert {"service.name": "rides", "service.instance.id": "rides#1", "evertrue.role": "replica"}.items() <= (
        span.about.items()
    )
    wait, score = collector.one("wait"), collector.one("score")
    assert {(part.trace, part.parent) for part in (wait, score)} == {(TRACE, span.id)}
    assert score.told == {"evertrue.batch.rows": 2}
    assert span.began <= wait.began <= wait.ended == score.began <= score.ended <= span.ended


def test_neighbours_are_told_the_batch_and_the_trace_apart(serve, collector) -> None:
    service = serve()
    service.room.ask(*[("POST", "/rides/predict", {"json": {"rows": [ROW]}})] * 3)
    service.close()
    requests = [span for span in collector.spans if span.kind == SERVER]
    scores = [span for span in collector.spans if span.name == "score"]
    assert len({span.trace for span in requests}) == 3
    assert {span.parent for span in scores} == {span.id for span in requests}
    assert {span.told["evertrue.batch.rows"] for span in scores} == {3}


def test_rows_that_are_scored_off_the_loop_are_traced_too(serve, collector) -> None:
    service = serve()
    assert service.post("predict", {"rows": [ROW] * 1500}).status_code == 200
    service.close()
    assert collector.names() == ["POST /rides/predict", "score", "wait"]
    assert collector.one("score").told == {"evertrue.batch.rows": 1500}


def test_what_was_not_sampled_where_it_began_is_not_sent_and_keeps_its_ids(serve, collector, lines) -> None:
    service = serve(None)
    service.post("predict", ROW, traceparent=f"00-{TRACE}-{PARENT}-00")
    service.close()
    assert collector.spans == []
    assert [line["trace.id"] for line in lines] == [TRACE]


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "rubbish",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{'0' * 32}-{PARENT}-01",
        "\xe9" * 55,
    ],
    ids=["none", "rubbish", "version", "more", "zeros", "latin"],
)
def test_what_is_no_trace_begins_a_new_one(serve, collector, lines, sent: str) -> None:
    service = serve(None)
    service.post("predict", ROW, **({"traceparent": sent.encode("latin-1")} if sent else {}))
    service.close()
    span = collector.one("POST /rides/predict")
    assert span.parent == ""
    assert span.trace not in (TRACE, "0" * 32)
    assert [(line["trace.id"], line["span.id"]) for line in lines] == [(span.trace, span.id)]


def test_two_parents_are_none_and_a_later_version_is_understood(serve, collector) -> None:
    service, later = serve(), f"01-{TRACE}-{PARENT}-01-more"

    async def ask() -> None:
        transport = httpx.ASGITransport(service.room.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for parents in ([later], [later, later]):
                headers = [("traceparent", parent) for parent in parents]
                await client.post("/rides/predict", json=ROW, headers=headers)

    asyncio.run(ask())
    service.close()
    assert [(span.parent, span.trace == TRACE) for span in collector.spans if span.kind == SERVER] == [
        (PARENT, True),
        ("", False),
    ]


def test_the_clients_mistake_is_no_failure_and_ours_is_one(serve, collector) -> None:
    service = serve()
    assert service.post("predict", {"rows": [ROW | {"distance": "hidden"}]}).status_code == 422
    service.room.kept.full = True
    assert service.post("labels", {"labels": [{"id": "secret-key", "label": True}]}).status_code == 503
    service.close()
    mistake, ours = collector.one("POST /rides/predict"), collector.one("POST /rides/labels")
    assert (mistake.failed, mistake.told["http.response.status_code"]) == (False, 422)
    assert "error.type" not in mistake.told
    assert (ours.failed, ours.told["error.type"], ours.told["evertrue.outcome"]) == (True, "503", "journal")


def test_a_model_that_fails_is_a_failure_by_its_kind_without_its_words(serve, collector) -> None:
    def broken(features: Any) -> Any:
        raise RuntimeError("417.25 is too much")

    service = serve(broken)
    assert service.post("predict", ROW).status_code == 500
    service.close()
    span = collector.one("POST /rides/predict")
    assert (span.failed, span.told["error.type"], span.told["http.response.status_code"]) == (
        True,
        "RuntimeError",
        500,
    )
    assert "417.25" not in str(collector.spans)


def test_labels_are_a_span_with_their_number_and_nothing_sent_is_in_any_span(serve, collector) -> None:
    service = serve()
    labels = [{"id": "secret-key", "label": True}, {"id": "secret-key-2", "label": False}]
    assert service.post("labels", {"labels": labels}).status_code == 202
    assert service.post("predict", {"rows": [ROW]}, **{"x-api-key": "secret-key"}).status_code == 200
    service.close()
    span = collector.one("POST /rides/labels")
    assert (span.told["evertrue.rows"], span.told["evertrue.outcome"]) == (2, "labels")
    for secret in ("secret", "417.25", "hidden"):
        assert secret not in str(collector.spans)


def test_pages_and_probes_are_not_traced(serve, collector) -> None:
    service = serve()
    answers = service.room.ask(
        ("GET", "/rides/healthz", {}), ("GET", "/rides/predict", {}), ("POST", "/rides/nothing", {})
    )
    service.close()
    assert [answer.status_code for answer in answers] == [200, 405, 404]
    assert collector.spans == []


def test_a_client_that_goes_away_is_no_failure_of_ours(serve, collector) -> None:
    service = serve()

    async def ask() -> None:
        begun = asyncio.Event()

        async def receive() -> dict[str, Any]:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            raise AssertionError

        headers: list[tuple[bytes, bytes]] = []
        scope = {"type": "http", "method": "POST", "path": "/rides/predict", "headers": headers}
        asking = asyncio.ensure_future(service.room.app(scope, receive, send))
        await begun.wait()
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(ask())
    service.close()
    span = collector.one("POST /rides/predict")
    assert not span.failed
    assert "http.response.status_code" not in span.told


def test_a_collector_that_is_away_disturbs_no_request(serve, monkeypatch) -> None:
    monkeypatch.setattr(traces, "PATIENCE", 0.05)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")  # and is not tried again until long after the test
        service = serve()
        assert {service.post("predict", {"rows": [ROW]}).status_code for _ in range(5)} == {200}
        service.close()


@pytest.fixture
def lines() -> Iterator[list[dict[str, str]]]:
    """Return what the endpoint's lines of the log say of their requests."""
    seen: list[dict[str, str]] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(dict(facts()))

    logger, handler = logging.getLogger("app.serving.endpoint"), Seen()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield seen
    logger.setLevel(level)
    logger.removeHandler(handler)
