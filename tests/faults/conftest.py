"""A small service of two replicas on the session's Ray, a steady client of it, and bundles with something wrong in them."""

import hashlib
import http.client
import itertools
import json
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import onnx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from app.decisions import actor
from app.decisions.ledger import Draft, Entry, Ledger
from app.decisions.recompute import recompute
from app.decisions.situation import Champion
from app.declaration import Declaration, read
from app.journal.steps import Journal
from app.lineup import Answering, read_lineup, write_lineup
from app.model.bundle import _json, _Manifest, open_bundle
from app.pipeline import TrainedVersion
from app.registry import Registry
from app.workspace import Workspace

ARROW = "application/vnd.apache.arrow.stream"
HOUR = 3_600_000
START = 1_709_251_200_000  # 2024-03-01, after the last row that trained
A_ROW = 10_000  # ms of event time
BATCH = 20
LABELS = 100
"""Most rows of a request: HAProxy keeps bodies of up to 16 KiB, and gives no larger one to another replica."""


class Load:
    """Three connections that go on: single rows as JSON, batches as Arrow, and the labels of whatever was answered.

    `answers` are (id, version) in order, `labelled` the ids of acknowledged labels, `failures` all else.
    """

    def __init__(
        self, address: str, numbers: Iterator[int], rides: pa.Table, tells: bool, wait_for: Callable[..., Any]
    ) -> None:
        self.answers: list[tuple[str, str]] = []
        self.labelled: list[str] = []
        self.failures: list[str] = []
        self.newest = 0  # row that was answered
        self._address, self._numbers, self._rides, self._wait_for = address, numbers, rides, wait_for
        self._untold: deque[int] = deque()
        self._end = threading.Event()
        work = [(self._single, 0.01), (self._batch, 0.04), *([(self._tell, 0.02)] if tells else [])]
        self._threads = [threading.Thread(target=self._repeat, args=one) for one in work]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def until(self, rows: int) -> None:
        """Wait until so many more rows have been answered."""
        enough = len(self.answers) + rows
        self._wait_for(lambda: len(self.answers) >= enough or self.failures, 120)

    @property
    def versions(self) -> set[str]:
        return {version for _, version in self.answers}

    def row(self, number: int) -> dict[str, Any]:
        [ride] = self._rides.slice(number % self._rides.num_rows, 1).to_pylist()
        return ride | {"ride": f"row{number}", "at": START + number * A_ROW}

    def _repeat(self, work: Callable[[http.client.HTTPConnection], None], pause: float) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=120)  # until both replicas are there again
        while not self._end.wait(pause):
            work(connection)
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, page: str, kind: str, body: bytes, status: int) -> bytes:
        try:
            connection.request("POST", f"/faults/{page}", body, {"content-type": kind})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.failures.append(f"{page}, {len(body)} bytes: {error!r}")
            return b""
        if answer.status != status:
            self.failures.append(f"{page}, {len(body)} bytes: {answer.status} {content[:300]!r}")
            return b""
        return content

    def _take(self, numbers: list[int], models: list[str]) -> None:
        versions = [model.rpartition("/")[2] for model in models]
        self.answers += zip([f"row{number}" for number in numbers], versions, strict=True)
        self.newest = max(self.newest, *numbers)
        self._untold.extend(numbers)

    def _single(self, connection: http.client.HTTPConnection) -> None:
        number = next(self._numbers)
        row = {name: value for name, value in self.row(number).items() if name != "late"}
        if content := self._send(connection, "predict", "application/json", json.dumps(row).encode(), 200):
            answer = json.loads(content)
            self._take([number], [answer["predictions"][0].get("model", answer["model"])])

    def _batch(self, connection: http.client.HTTPConnection) -> None:
        numbers = list(itertools.islice(self._numbers, BATCH))
        table = pa.Table.from_pylist([self.row(number) for number in numbers]).drop_columns(["late"])
        if content := self._send(connection, "predict", ARROW, stream(table), 200):
            self._take(numbers, pa.ipc.open_stream(content).read_all()["model"].to_pylist())

    def _tell(self, connection: http.client.HTTPConnection) -> None:
        numbers = [self._untold.popleft() for _ in range(min(len(self._untold), LABELS))]
        rows = [self.row(number) for number in numbers]
        labels = [{"id": row["ride"], "label": row["late"], "time": row["at"]} for row in rows]
        body = json.dumps({"labels": labels}).encode()
        if labels and self._send(connection, "labels", "application/json", body, 202):
            self.labelled += [row["ride"] for row in rows]


def stream(table: pa.Table) -> bytes:
    """Return a table as a body."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@dataclass
class Service:
    """A deployed service, its files, and its actor."""

    declaration: Declaration
    workspace: Workspace
    bundle: str
    registry: Registry
    rides: pa.Table
    others: set[int]
    wait_for: Callable[..., Any]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.declaration.spec.serve.port}"

    def load(self, tells: bool = True) -> Load:
        """Return a client; event time goes on from one to the next."""
        return Load(self.address, self._numbers, self.rides, tells, self.wait_for)

    def post(self, page: str, **body: Any) -> httpx.Response:
        return httpx.post(f"http://{self.address}/faults/{page}", timeout=30, **body)

    def get(self, page: str) -> Any:
        return httpx.get(f"http://{self.address}/faults/{page}", timeout=30).json()

    @property
    def journal(self) -> Journal:
        return Journal.open(self.workspace, "faults")

    def entries(self) -> list[Entry]:
        return Ledger.open(self.workspace, "faults").entries()

    def replicas(self) -> set[int]:
        return replicas() - self.others

    def whole(self) -> set[int]:
        """Wait until both replicas are up and answer; return their process ids."""
        from ray import serve

        def both() -> set[int] | None:
            states = serve.status().applications["faults"].deployments["Service"].replica_states
            found = self.replicas()
            return found if states.get("RUNNING") == len(found) == 2 else None

        return set(self.wait_for(both, 120))

    def give(self, version: str, bundle: str) -> Entry:
        """Write down that a retraining gave a version that passed the gate, as the actor does."""
        known = open_bundle(self.bundle).data["trained_until"]
        trial = Champion(version, bundle, known).to_json()
        step = self.wait_for(lambda: self.get("drift").get("step"))
        evidence = {
            "trial": trial,
            "rollout": True,
            "cpu_seconds": 1.0,
            "decision": "d",
            "reasons": [],
            "figures": {},
        }
        draft = Draft("retrained", f"{version}{bundle}", START, step, "it passed", evidence, version, version)
        return Ledger.open(self.workspace, "faults").append(draft, time.time_ns() // 1_000_000)

    def about(self, entry: Entry) -> list[str]:
        """Return the kinds of the entries about another."""
        return [one.kind for one in self.entries() if one.about == entry.id]

    def said(self, about: Entry, kind: str) -> Entry | None:
        """Return the entry of a kind about another."""
        return next((one for one in self.entries() if one.about == about.id and one.kind == kind), None)

    def share(self, challenger: Answering | None, share: float) -> None:
        """Write a line-up, and wait until both replicas follow it."""
        uri = self.workspace.uri("faults", "lineup.json")
        before = read_lineup(uri)
        assert before is not None
        write_lineup(uri, before.then(before.champion, challenger, share))
        self.wait_for(lambda: all(self.get("readyz")["generation"] > before.generation for _ in range(12)))

    def start(self) -> None:
        actor.start(self.declaration, self.workspace)

    def differences(self) -> list[str]:
        """Return what does not come out again when every decision is made again from the journal."""
        rooms = actor.furnish(self.declaration, self.workspace, None)
        return list(recompute(rooms.spec, rooms.journal.steps(), rooms.monitor(None), rooms.ledger.entries()))


def replicas() -> set[int]:
    """Return the process ids of all replicas on this machine."""
    return {process.pid for process in psutil.process_iter(["name"]) if "ServeReplica" in process.info["name"]}


@pytest.fixture(scope="module")
def service(
    trained: TrainedVersion,
    declaration: Declaration,
    tmp_path_factory: pytest.TempPathFactory,
    wait_for: Callable[..., Any],
) -> Iterator[Service]:
    """Deploy two replicas with a workspace and a registry of their own."""
    from ray import serve

    from app.serving.deploy import deploy

    given = read(
        declaration.path,
        [
            "name=faults",
            "serve.min_replicas=2",
            "serve.max_replicas=2",
            "serve.cpus_per_replica=0.1",
            "journal.flush=200ms",
            "journal.label_wait=12h",
            "drift.interval=200ms",
            "retrain.policy=never",
            "rollout.shadow_rows=0",
            "rollout.stages=[0.5,1.0]",
            "rollout.stage_rows=100",
            # A machine that stands still for a moment is no fault of a challenger's: what these tests spoil is far worse.
            "rollout.max_slowdown=6",
            "gate.max_latency=5s",
        ],
    )
    workspace = Workspace.open(str(tmp_path_factory.mktemp("faults")))
    registry = Registry.open(workspace, "faults")
    with registry.run(given.spec, "test") as run:
        number = registry.register(trained.bundle, run.id, "test", "first").number
    registry.promote(number)
    rides = pq.read_table(declaration.path.parent / "rides.parquet")
    others = replicas()
    deploy(given.spec, workspace, trained.bundle, str(number))
    yield Service(given, workspace, trained.bundle, registry, rides, others, wait_for)
    actor.stop("faults")
    serve.delete("faults")


@pytest.fixture(scope="session")
def bundles(trained: TrainedVersion, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a maker of bundles like the trained one: `good`, `corrupt`, or one that `answers NaN`, `raises`, is `slow`."""
    root, made = tmp_path_factory.mktemp("bundles"), {}

    def make(how: str) -> str:
        if how not in made:
            made[how] = _sealed(Path(trained.bundle), root / how, how)
        return made[how]

    return make


def _sealed(source: Path, root: Path, how: str) -> str:
    draft = root / "draft"
    shutil.copytree(source, draft)
    graph = draft / "model.onnx"
    data = graph.read_bytes() if how == "corrupt" else _graph(graph.read_bytes(), how)
    graph.write_bytes(data)
    manifest = json.loads((draft / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (draft / "manifest.json").write_bytes(_json(manifest))
    sealed = draft.rename(root / _Manifest.model_validate(manifest).version_id)
    if how == "corrupt":
        (sealed / "model.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return str(sealed)


def _graph(data: bytes, how: str) -> bytes:
    """Put some nodes behind a graph's score."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    if how == "good":
        model.doc_string = "the same scores under another name"
        return bytes(model.SerializeToString())
    for node in graph.node:
        node.output[:] = ["x_before" if name == "score" else name for name in node.output]
    constants = [
        ("x_zero", TensorProto.INT64, [1], [0]),
        ("x_one", TensorProto.INT64, [1], [1]),
        ("x_nil", TensorProto.FLOAT, [1], [0.0]),
        ("x_side", TensorProto.INT64, [2], [500, 500]),
    ]
    graph.initializer.extend(helper.make_tensor(*one) for one in constants)
    graph.node.extend(_BEHIND[how])
    return bytes(model.SerializeToString())


_BEHIND = {
    "answers NaN": [
        helper.make_node("Sub", ["x_before", "x_before"], ["x_nothing"]),
        helper.make_node("Div", ["x_nothing", "x_nothing"], ["score"]),
    ],
    # Takes element 1 of one where the second number is there: so it can be warmed, and fails when it is asked.
    "raises": [
        helper.make_node("Gather", ["number", "x_one"], ["x_second"], axis=1),
        helper.make_node("IsNaN", ["x_second"], ["x_missing"]),
        helper.make_node("Not", ["x_missing"], ["x_there"]),
        helper.make_node("Cast", ["x_there"], ["x_place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["x_zero", "x_place"], ["x_found"]),
        helper.make_node("Cast", ["x_found"], ["x_added"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["x_added"], ["x_much"], keepdims=0),
        helper.make_node("Add", ["x_before", "x_much"], ["score"]),
    ],
    "slow": [
        helper.make_node("ReduceMax", ["x_before"], ["x_much"], keepdims=0),
        helper.make_node("Expand", ["x_much", "x_side"], ["x_wide0"]),
        *(helper.make_node("MatMul", [f"x_wide{i}", f"x_wide{i}"], [f"x_wide{i + 1}"]) for i in range(3)),
        helper.make_node("ReduceMax", ["x_wide3"], ["x_wide"], keepdims=0),
        helper.make_node("Mul", ["x_wide", "x_nil"], ["x_none"]),
        helper.make_node("Add", ["x_before", "x_none"], ["score"]),
    ],
}
