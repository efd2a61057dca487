"""The endpoint in process: what it answers, what it refuses, and that the next good request is always answered."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pyarrow as pa
import pytest

from app.declaration import Declaration
from app.model.bundle import Bundle, open_bundle
from app.pipeline import TrainedVersion
from app.serving import bodies, predict
from app.serving.endpoint import Endpoint
from app.serving.loaded import Loaded

pytestmark = pytest.mark.ray  # the bundle is trained through Ray; the endpoint itself needs none

ROW = {"distance": 4.5, "passengers": 2, "zone": "airport", "rain": True}
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def bundle(trained: TrainedVersion) -> Bundle:
    return open_bundle(trained.bundle)


@pytest.fixture
def here(room: Any, bundle: Bundle, declaration: Declaration) -> Any:
    made = room()
    made.stand(Loaded.of(bundle, declaration.spec, "1", use_gpu=False))
    return made


@pytest.fixture
def endpoint(here: Any) -> Endpoint:
    return here.endpoint


def ask(endpoint: Endpoint, method: str, path: str, **content: Any) -> httpx.Response:
    """Send one request; then prove that a good one is still answered."""

    async def send() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.request(method, path, **content)
            return answer, await client.post("/rides/predict", json=ROW)

    answer, next_answer = asyncio.run(send())
    assert next_answer.status_code == 200
    return answer


def test_rows_columns_one_row_and_arrow_are_answered_in_kind(endpoint: Endpoint) -> None:
    rows = ask(endpoint, "POST", "/rides/predict", json={"rows": [ROW | {"ride": "a"}, ROW]}).json()
    assert rows["model"] == "rides/1"
    assert rows["predictions"][0]["id"] == "a"
    score = rows["predictions"][0]["score"]
    assert 0 < score < 1
    columns = ask(endpoint, "POST", "/rides/predict", json={"columns": {k: [v] for k, v in ROW.items()}}).json()
    assert columns["predictions"][0]["score"] == pytest.approx(score, abs=1e-6)
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([ROW])
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    answer = ask(endpoint, "POST", "/rides/predict", content=body, headers={"content-type": ARROW})
    assert answer.headers["content-type"] == ARROW
    assert pa.ipc.open_stream(answer.content).read_all()["score"][0].as_py() == pytest.approx(score, abs=1e-6)


def test_a_large_body_is_decoded_and_scored_off_the_loop_with_the_same_result(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"rows": [ROW | {"ride": f"r{i}", "distance": i / 100} for i in range(2000)]}
    answers = ask(endpoint, "POST", "/rides/predict", json=rows).json()["predictions"]
    assert [answer["id"] for answer in answers] == [f"r{i}" for i in range(2000)]
    monkeypatch.setattr(predict, "INLINE_BYTES", 10**9)
    inline = ask(endpoint, "POST", "/rides/predict", json=rows).json()["predictions"]
    assert inline == answers


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("POST", "/rides/predict", {"content": b"{"}, 400, "malformed-json"),
        ("POST", "/rides/predict", {"json": {"rows": [ROW] * 2001}}, 413, "too-many-rows"),
        ("POST", "/rides/predict", {"content": b" " * 1_000_001}, 413, "body-too-large"),
        ("POST", "/rides/predict", {"json": {"rows": [ROW | {"zone": 5}]}}, 422, "wrong-type"),
        ("POST", "/rides/predict", {"content": b"x", "headers": {"content-type": "text/csv"}}, 415, "content-type"),
        ("POST", "/rides/predict", {"content": b"x", "headers": {"content-type": ARROW}}, 400, "malformed-arrow"),
        ("GET", "/rides/predict", {}, 405, "method"),
        ("DELETE", "/rides/model", {}, 405, "method"),
        ("GET", "/rides/nothing", {}, 404, "not-found"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_document_and_is_counted(
    here: Any,
    method: str,
    path: str,
    content: dict[str, Any],
    status: int,
    code: str,
) -> None:
    answer = ask(here.endpoint, method, path, **content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["type"]) == (status, f"urn:evertrue:problem:{code}")
    assert problem["detail"]
    assert ("allow" in answer.headers) == (status == 405)
    assert here.count("evertrue_requests_total", code) == 1
    assert here.count("evertrue_requests_total", "ok") == 1


def test_a_body_that_comes_in_pieces_is_put_together_and_limited_as_it_comes(endpoint: Endpoint) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        body = json.dumps(ROW).encode()
        yield body[:20]
        yield body[20:]
        for _ in range(size):
            yield b" " * 10_000

    assert ask(endpoint, "POST", "/rides/predict", content=pieces(1)).status_code == 200
    assert ask(endpoint, "POST", "/rides/predict", content=pieces(101)).status_code == 413


def test_a_client_that_sends_too_slowly_is_told_and_one_that_leaves_is_let_go(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT", 0.05)
    scope = {"type": "http", "method": "POST", "path": "/rides/predict", "headers": []}

    async def statuses(last: dict[str, Any] | None) -> list[int]:
        sent: list[int] = []
        messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, last])

        async def receive() -> dict[str, Any]:
            message = next(messages)
            if message is None:
                await asyncio.Event().wait()  # for ever
            assert message is not None
            return message

        async def send(message: Any) -> None:
            sent.extend([message["status"]] if "status" in message else [])

        await endpoint(scope, receive, send)
        return sent

    assert asyncio.run(statuses(None)) == [408]
    assert asyncio.run(statuses({"type": "http.disconnect"})) == [400]


def test_the_pages_around_it_tell_what_answers(endpoint: Endpoint, bundle: Bundle) -> None:
    assert ask(endpoint, "GET", "/rides/healthz").json() == {"status": "alive"}
    assert ask(endpoint, "GET", "/rides/readyz").json() == {
        "status": "ready",
        "model": "rides/1",
        "generation": 1,
        "champion": "1",
        "challenger": None,
        "share": 0,
        "fault": None,
    }
    model = ask(endpoint, "GET", "/rides/model").json()
    assert (model["bundle"], model["classes"], model["links"]) == (bundle.version_id, [False, True], [])
    assert model["metrics"]["model"]["overall"]["auc"] > 0.6
    docs = ask(endpoint, "GET", "/rides/docs")
    assert "<code>passengers</code>" in docs.text
    assert "at least 1 and at most 8" in docs.text
    assert "http" not in docs.text.replace("http://127.0.0.1", "")  # loads nothing from anywhere


def test_the_example_on_the_docs_page_works(endpoint: Endpoint, bundle: Bundle) -> None:
    from app.serving.codec import Fields
    from app.serving.openapi import example_row

    body = {"rows": [example_row(Fields(bundle.plan, 10))]}
    assert ask(endpoint, "POST", "/rides/predict", json=body).status_code == 200


def test_without_a_model_it_says_so_and_is_alive(room: Any) -> None:
    answers = room().ask(*(("GET", page, {}) for page in ("/rides/readyz", "/rides/healthz")))
    assert [answer.status_code for answer in answers] == [503, 200]


def test_requests_under_way_keep_their_version_when_another_takes_its_place(
    here: Any, bundle: Bundle, declaration: Declaration
) -> None:
    async def send() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(here.endpoint), base_url="http://test") as client:
            before = [asyncio.ensure_future(client.post("/rides/predict", json=ROW)) for _ in range(20)]
            await asyncio.sleep(0)
            here.stand(Loaded.of(bundle, declaration.spec, "2", use_gpu=False), generation=2)
            after = await client.post("/rides/predict", json=ROW)
            answers = [await answer for answer in before]
            assert {answer.status_code for answer in answers} == {200}
            assert {answer.json()["model"] for answer in answers} <= {"rides/1", "rides/2"}
            return [after.json()["model"], str(here.endpoint.standing.champion.version)]

    assert asyncio.run(send()) == ["rides/2", "2"]
