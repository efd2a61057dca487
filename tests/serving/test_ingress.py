"""Before Serve sees a request: its own refusals become problems, and are counted, for nobody else does."""

import asyncio

import httpx
import pytest

from app import cluster
from app.serving.ingress import Ingress


def ask(app, path: str = "/rides/predict", **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post(path, headers=headers)

    return asyncio.run(send())


def refusing(status: int):
    """Return what Serve answers by itself."""

    async def app(scope, receive, send) -> None:
        headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"Request dropped due to backpressure"})

    return app


@pytest.mark.parametrize(("status", "code"), [(429, "overloaded"), (503, "not-ready"), (408, "timeout")])
def test_a_refusal_of_serves_is_a_problem_and_counted(counts, status: int, code: str) -> None:
    answer = ask(Ingress(refusing(status), counts))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["type"] == f"urn:evertrue:problem:{code}"
    assert counts.values == {("evertrue_refused_requests_total", "rides", str(status)): 1}


def test_a_path_of_no_service_is_not_counted_for_a_client_chooses_it(counts) -> None:
    assert ask(Ingress(refusing(404), counts), "/anything").json()["type"] == "urn:evertrue:problem:not-found"
    assert not counts.values


def test_what_the_service_answers_itself_is_left_alone(room, version, counts) -> None:
    service = room()
    service.stand(version("1"))
    answer = ask(Ingress(service.endpoint, counts), **{"content-type": "text/csv"})
    assert answer.json()["type"] == "urn:evertrue:problem:content-type"
    assert not counts.values


def test_on_a_joined_cluster_a_replica_answers_only_what_a_haproxy_vouches_for(
    counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cluster.FRONT, "127.0.0.1:8000")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    known = cluster.voucher()
    assert known is not None
    guarded = Ingress(refusing(503), counts)
    for headers in ({}, {"x-evertrue-front": "secret"}, {"x-evertrue-front": "0" * 64}):
        answer = ask(guarded, **headers)
        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:evertrue:problem:not-by-the-front"
    assert ask(guarded, **{"x-evertrue-front": known.decode()}).status_code == 503
    assert ask(guarded, "/-/healthz").status_code == 503  # HAProxy asks it of itself


def test_a_websocket_is_refused_before_the_service_hears_of_it(counts) -> None:
    sent = []

    async def app(scope, receive, send) -> None:
        pytest.fail("was asked")

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/rides/predict", "headers": []}
    asyncio.run(Ingress(app, counts)(scope, app, send))
    assert sent == [{"type": "websocket.close"}]  # before it was accepted: the server answers 403
