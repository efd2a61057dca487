"""The whole service on Ray: equal scores everywhere, rubbish survived, overload refused politely, versions swapped."""

import asyncio
import http.client
import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from app.batch import predict_table
from app.data.encode import load, read_columns
from app.declaration import Declaration
from app.journal.steps import Journal
from app.keys import FILE, add_key, revoke_key
from app.lineup import Answering, read_lineup, write_lineup
from app.model.bundle import open_bundle
from app.model.network import Network
from app.pipeline import TrainedVersion, train_version
from app.registry import Registry
from app.types import UserError
from app.workspace import Workspace

pytestmark = pytest.mark.ray

ROW = {"distance": 4.5, "passengers": 2, "zone": "airport", "rain": True}
ARROW = "application/vnd.apache.arrow.stream"
PATIENCE = 60  # seconds: on a busy machine an answer may take longer than httpx waits by itself


@pytest.fixture(scope="module")
def address(trained: TrainedVersion, declaration: Declaration, workspace: Workspace) -> Iterator[str]:
    """Deploy the rides' first version for this module's tests."""
    from ray import serve

    from app.serving.deploy import deploy

    yield deploy(declaration.spec, workspace, trained.bundle, "1")
    serve.delete("rides")


def replicas(service: str) -> set[int]:
    """Return the process ids of a service's replicas: those of one that was taken down before may still be there."""
    name = f"ServeReplica:{service}:"
    return {process.pid for process in psutil.process_iter(["name"]) if name in process.info["name"]}


def predict(address: str, rows: list[dict[str, Any]]) -> httpx.Response:
    return httpx.post(f"{address}/predict", json={"rows": rows}, timeout=PATIENCE)


def test_training_batch_prediction_json_and_arrow_give_the_same_scores(
    address: str, trained: TrainedVersion, declaration: Declaration, tmp_path: Path
) -> None:
    bundle = open_bundle(trained.bundle)
    examples = load(trained.prepared, bundle.plan, "test")
    table = read_columns(trained.prepared, "test", ["ride", *bundle.plan.names]).combine_chunks()
    graph = bundle.runtime().score(examples.features)

    network = Network.from_safetensors(
        bundle.learned["weights.safetensors"], bundle.plan, declaration.spec.model
    ).eval()
    number, category = (torch.from_numpy(matrix) for matrix in examples.features)
    np.testing.assert_allclose(network.score(number, category), graph, atol=1e-6)  # torch rounds otherwise

    rows = table.to_pylist()
    answers = [predict(address, rows[i : i + 100]).json()["predictions"] for i in range(0, len(rows), 100)]
    answered = [answer for some in answers for answer in some]
    assert [answer["id"] for answer in answered] == table["ride"].to_pylist()
    over_json = np.array([answer["score"] for answer in answered], np.float32)

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = {"content": bytes(sink.getvalue()), "headers": {"content-type": ARROW}}
    answer = httpx.post(f"{address}/predict", **content, timeout=PATIENCE)
    over_arrow = pa.ipc.open_stream(answer.content).read_all()["score"].to_numpy()

    source = tmp_path / "new.parquet"
    pq.write_table(table, source, row_group_size=200)
    predicted = predict_table(trained.bundle, "rides/1", str(source), tmp_path, str(tmp_path / "scores"))
    assert predicted.rows == len(rows)
    parts = pa.concat_tables(pq.read_table(part) for part in sorted((tmp_path / "scores").glob("part-*")))
    assert parts["ride"].to_pylist() == table["ride"].to_pylist()

    # ONNX Runtime picks its kernels by batch size: at most the last bits of a float32 differ (0 on x86-64 here).
    for scores in (over_json, over_arrow, parts["score"].to_numpy()):
        np.testing.assert_array_max_ulp(scores, graph, maxulp=4)


def test_batch_prediction_sets_aside_what_breaks_the_contract_and_is_done_once(
    trained: TrainedVersion, tmp_path: Path
) -> None:
    rows = [ROW, ROW | {"passengers": 99}, ROW | {"passengers": None}, ROW | {"distance": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    out = str(tmp_path / "scores")
    predicted = predict_table(trained.bundle, "rides/1", "new.parquet", tmp_path, out)
    assert predicted.rows == 2
    assert predicted.rejected == {"passengers: above max 8": 1, "passengers: required, found null": 1}
    scored = pq.read_table(Path(out, "part-00000.parquet"))
    assert scored["row"].to_pylist() == [0, 3]  # without a key, rows are named by their place
    assert set(scored.column_names) == {"row", "score", "label"}
    reasons = pq.read_table(Path(out, "rejected-00000.parquet"))["reason"].to_pylist()
    assert sorted(reasons) == sorted(predicted.rejected)

    Path(out, "part-00000.parquet").unlink()
    assert predict_table(trained.bundle, "rides/1", "new.parquet", tmp_path, out) == predicted
    assert not Path(out, "part-00000.parquet").exists()  # nothing was done again
    with pytest.raises(UserError, match=r"holds predictions of rides/1"):
        predict_table(trained.bundle, "rides/2", "new.parquet", tmp_path, out)
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "new.parquet")
    with pytest.raises(UserError, match=r"for new.parquet as it was then; name another folder"):
        predict_table(trained.bundle, "rides/1", "new.parquet", tmp_path, out)
    pq.write_table(
        pa.Table.from_pylist([{"distance": 1.0, "zone": "north", "rain": False}]), tmp_path / "less.parquet"
    )
    with pytest.raises(UserError, match="passengers"):
        predict_table(trained.bundle, "rides/1", "less.parquet", tmp_path, str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b'{"rows": [', "application/json", 400),
        (b'{"rows": [{"distance": NaN}]}', "application/json", 400),
        (json.dumps({"rows": [ROW | {"distance": 1e300}]}).encode(), "application/json", 422),
        (json.dumps({"rows": [ROW | {"extra": 1}]}).encode(), "application/json", 422),
        (b"\x00" * 100, ARROW, 400),
        (b"a,b\n1,2\n", "text/csv", 415),
    ],
)
def test_rubbish_gets_a_problem_document_and_the_next_request_an_answer(
    address: str, body: bytes, content_type: str, status: int
) -> None:
    headers = {"content-type": content_type}
    answer = httpx.post(f"{address}/predict", content=body, headers=headers, timeout=PATIENCE)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert predict(address, [ROW]).status_code == 200


def test_a_body_of_100_megabytes_is_refused_before_it_is_read(address: str, declaration: Declaration) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", declaration.spec.serve.port, timeout=PATIENCE)
    connection.putrequest("POST", "/rides/predict")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(100_000_000))
    connection.endheaders()
    connection.send(b" " * 65536)
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["type"] == "urn:evertrue:problem:body-too-large"
    connection.close()
    assert predict(address, [ROW]).status_code == 200


def test_slow_clients_hold_up_nobody(address: str, declaration: Declaration) -> None:
    slow = []
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", declaration.spec.serve.port))
        client.sendall(b"POST /rides/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        slow.append(client)
    assert all(predict(address, [ROW]).status_code == 200 for _ in range(20))
    for client in slow:
        client.close()
    assert predict(address, [ROW]).status_code == 200


def test_an_address_of_no_service_is_not_found(declaration: Declaration, address: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{declaration.spec.serve.port}/nothing", timeout=PATIENCE)
    assert answer.status_code == 404


def test_another_version_takes_over_in_the_same_process_without_a_request_refused(
    address: str, declaration: Declaration, workspace: Workspace, trained: TrainedVersion
) -> None:
    from app.serving.deploy import deploy

    async def send() -> list[tuple[int, str]]:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            done, begun, taken_over = asyncio.Event(), asyncio.Event(), asyncio.Event()
            seen: list[tuple[int, str]] = []

            async def ask() -> None:
                while not done.is_set():
                    answer = await client.post(f"{address}/predict", json=ROW)
                    seen.append((answer.status_code, answer.json().get("model", "")))
                    begun.set()
                    if seen[-1] == (200, "rides/2"):
                        taken_over.set()

            asking = [asyncio.create_task(ask()) for _ in range(8)]
            await asyncio.wait_for(begun.wait(), timeout=60)
            await asyncio.to_thread(deploy, declaration.spec, workspace, trained.bundle, "2")
            await asyncio.wait_for(taken_over.wait(), timeout=60)
            done.set()
            await asyncio.gather(*asking)
            return seen

    processes = replicas("rides")
    seen = asyncio.run(send())
    assert replicas("rides") == processes != set()
    assert {status for status, _ in seen} == {200}
    assert {model for _, model in seen} == {"rides/1", "rides/2"}
    assert seen[-1] == (200, "rides/2")


def test_a_killed_replica_loses_no_acknowledged_label_and_one_that_ends_no_prediction(
    address: str, declaration: Declaration, workspace: Workspace, trained: TrainedVersion
) -> None:
    from ray import serve

    from app.serving.deploy import deploy

    named = declaration.spec.model_copy(update={"name": "brief"})
    here = deploy(named, workspace, trained.bundle, "1")
    rows = [ROW | {"ride": f"r{i}"} for i in range(50)]
    labels = {"labels": [{"id": row["ride"], "label": True} for row in rows]}
    accepted = httpx.post(f"{here}/labels", json=labels, timeout=PATIENCE)
    assert (accepted.status_code, accepted.json()) == (202, {"accepted": 50})
    [replica] = replicas("brief")
    os.kill(replica, signal.SIGKILL)
    journal = Journal.open(workspace, "brief")
    assert journal.labels().num_rows == 50
    until = time.monotonic() + 120
    while predict(here, rows).status_code != 200:  # Serve starts another one
        assert time.monotonic() < until
    serve.delete("brief")
    predictions = journal.predictions()
    assert predictions["id"].to_pylist() == [row["ride"] for row in rows]
    assert journal.labelled().num_rows == 50


def test_a_challenger_with_a_corrupt_bundle_is_reported_and_the_champion_answers_on(
    address: str, workspace: Workspace
) -> None:
    uri = workspace.uri("rides", "lineup.json")
    before = read_lineup(uri)
    assert before is not None
    write_lineup(uri, before.then(before.champion, Answering("8", workspace.uri("rides", "bundles", "nowhere")), 0.5))
    until = time.monotonic() + 60
    while (ready := httpx.get(f"{address}/readyz", timeout=PATIENCE).json())["generation"] == before.generation:
        assert time.monotonic() < until
        assert predict(address, [ROW] * 10).json()["model"] == f"rides/{before.champion.version}"
    assert ready["challenger"] is None
    assert "is not there" in ready["fault"]
    assert predict(address, [ROW] * 10).json()["model"] == f"rides/{before.champion.version}"
    write_lineup(uri, before.then(before.champion).then(before.champion))


def test_requests_beyond_the_queue_hear_429_and_when_to_come_again(
    address: str, declaration: Declaration, workspace: Workspace, trained: TrainedVersion
) -> None:
    from ray import serve

    from app.serving.deploy import deploy

    tight = declaration.spec.model_copy(
        update={
            "name": "tight",
            "serve": declaration.spec.serve.model_copy(
                update={"max_ongoing_requests": 1, "max_queued_requests": 1, "target_ongoing_requests": 1.0}
            ),
        }
    )
    deploy(tight, workspace, trained.bundle, "1")
    body = {"rows": [ROW] * 2000}

    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as client:
            here = f"http://127.0.0.1:{declaration.spec.serve.port}/tight/predict"
            return await asyncio.gather(*(client.post(here, json=body) for _ in range(40)))

    refused: list[httpx.Response] = []
    until = time.monotonic() + 60
    while not refused:  # a client that is held up sends too slowly for any to wait
        assert time.monotonic() < until
        answers = asyncio.run(send())
        assert {200} <= {answer.status_code for answer in answers} <= {200, 429}
        refused = [answer for answer in answers if answer.status_code == 429]
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:evertrue:problem:overloaded"
    serve.delete("tight")


def test_where_keys_are_required_replicas_follow_their_file(
    address: str,
    declaration: Declaration,
    workspace: Workspace,
    trained: TrainedVersion,
    wait_for: Callable[..., object],
) -> None:
    from ray import serve

    from app.serving.deploy import deploy

    serving = declaration.spec.serve.model_copy(update={"keys": "required"})
    guarded = declaration.spec.model_copy(update={"name": "guarded", "serve": serving})
    here = deploy(guarded, workspace, trained.bundle, "1")
    uri = workspace.uri("guarded", FILE)

    def ask(key: str) -> int:
        return httpx.post(f"{here}/predict", json=ROW, headers={"x-api-key": key}, timeout=PATIENCE).status_code

    _, key = add_key(uri, "app", ("predict",))
    wait_for(lambda: ask(key) == 200)
    assert ask("evt_other") == 401
    assert httpx.get(f"{here}/drift", headers={"x-api-key": key}, timeout=PATIENCE).status_code == 403
    revoke_key(uri, "app")
    wait_for(lambda: ask(key) == 401)
    assert predict(address, [ROW]).status_code == 200  # the service beside it needs none
    serve.delete("guarded")


def test_what_is_asked_can_be_read_in_prometheus_format(address: str) -> None:
    import ray

    predict(address, [ROW] * 3)
    wanted = {"ray_evertrue_requests_total", "ray_evertrue_batch_rows_bucket_total", "ray_evertrue_model_info"}
    port = ray.nodes()[0]["MetricsExportPort"]
    until = time.monotonic() + 60
    found: set[str] = set()
    while not wanted <= found and time.monotonic() < until:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        found = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert wanted <= found


def test_everything_listens_on_loopback_as_far_as_serving_goes(
    address: str, declaration: Declaration, haproxy_listens: Callable[[], set[tuple[str, int]]]
) -> None:
    listening = haproxy_listens()
    assert declaration.spec.serve.port in {port for _, port in listening}
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


def test_the_same_training_again_is_the_same_version_and_a_worse_one_is_not_promoted(
    trained: TrainedVersion, declaration: Declaration, workspace: Workspace
) -> None:
    again = train_version(declaration, workspace)
    assert (again.number, again.bundle) == (trained.number, trained.bundle)
    registry = Registry.open(workspace, "rides")
    champion = registry.champion()
    assert champion is not None
    assert champion.number == trained.number

    hopeless = declaration.spec.model_copy(
        update={"train": declaration.spec.train.model_copy(update={"learning_rate": 1e-7, "epochs": 1})}
    )
    worse = train_version(Declaration(hopeless, declaration.path, declaration.text), workspace)
    assert worse.number != trained.number
    assert not worse.verdict.passed
    assert not worse.promoted
    assert any("champion" in reason and reason.startswith("refused") for reason in worse.verdict.reasons)
    assert registry.champion() == champion
    challenger = registry.challenger()
    assert challenger is not None
    assert challenger.number == worse.number
