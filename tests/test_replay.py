"""A replay sends every row once, in the order it happened, and no label before it was known."""

import datetime as dt
import json
import select
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.data import sources
from app.declaration import Declaration, read
from app.replay import DAY, Client, Replay, read_arrivals
from app.types import UserError

ROWS = 400
START = 1_704_067_200_000  # 2024-01-01
HOUR = DAY // 24


class Service(ThreadingHTTPServer):
    """Stands in for the endpoint: answers in its formats, and keeps what it heard."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[tuple[str, list[dict]]] = []
        self.status = {"predict": 200, "labels": 202}
        self.keys: set[str | None] = set()
        self.impatient = False


class Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        page = self.path.rpartition("/")[2]
        self.server.keys.add(self.headers["authorization"])
        arrow = self.headers["content-type"] != "application/json"
        rows = pa.ipc.open_stream(body).read_all().to_pylist() if arrow else json.loads(body)["rows"]
        self.server.heard.append((page, rows))
        answer = b"{}"
        if page == "predict" and arrow:
            table = pa.table({"score": pa.array([0.25] * len(rows), pa.float32()), "model": ["rides/2"] * len(rows)})
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            answer = bytes(sink.getvalue())
        elif page == "predict":
            predictions = [{"id": row["ride"], "score": 0.75, "model": "rides/3"} for row in rows]
            answer = json.dumps({"model": "rides/2", "predictions": predictions}).encode()
        self.send_response(self.server.status[page])
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

        self.close_connection = self.server.impatient

    def do_GET(self) -> None:
        self.server.keys.add(self.headers["authorization"])
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = self.server.impatient

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def rides(tmp_path: Path) -> Declaration:
    random = np.random.default_rng(0)
    happened = START + random.integers(0, 5 * DAY, ROWS)
    known = happened + random.integers(HOUR, 30 * HOUR, ROWS)
    late = np.arange(ROWS) % 2 == 0
    table = pa.table(
        {
            "ride": [f"r{i}" for i in range(ROWS)],
            "at": pa.array(happened).cast(pa.timestamp("ms", "UTC")),
            "known": pa.array(known).cast(pa.timestamp("ms", "UTC")),
            "distance": pa.array(random.random(ROWS)),
            "late": pa.array(late, mask=np.arange(ROWS) % 10 == 0),
        }
    )
    pq.write_table(table, tmp_path / "rides.parquet")
    path = tmp_path / "rides.yaml"
    path.write_text(
        "name: rides\ntask: {target: late}\ndata: {source: rides.parquet, key: ride, time: at}\n"
        "features: {distance: {type: number, max: 0.99}}\n"
    )
    return read(path)


def replayed(rides: Declaration, service: Service) -> Replay:
    source = str(rides.path.parent / "rides.parquet")
    arrivals = read_arrivals(rides, source, "known", dt.timedelta(0))
    client = Client(f"http://127.0.0.1:{service.server_port}/rides")
    replay = Replay(client, arrivals)
    replay.run(1000.0, lambda _: False)
    return replay


def test_numbers_of_a_text_that_begin_whole_may_go_on_otherwise(rides: Declaration, monkeypatch):
    monkeypatch.setattr(sources, "TEXT_BLOCK", 400)
    numbers = [0] * 50 + [0.5] * 50
    lines = [f"r{i},2024-01-01T00:{i % 60:02}:00Z,{number},true" for i, number in enumerate(numbers)]
    text = rides.path.parent / "rides.csv"
    text.write_text("\n".join(["ride,at,distance,late", *lines]))
    arrivals = read_arrivals(rides, str(text), None, dt.timedelta(days=1))
    assert sorted(arrivals.table["distance"].to_pylist()) == numbers


def test_rows_go_once_and_in_order_of_their_heaps_and_labels_only_when_known(rides: Declaration, service: Service):
    replay = replayed(rides, service)
    raw = {row["ride"]: row for row in pq.read_table(rides.path.parent / "rides.parquet").to_pylist()}
    asked = [row["ride"] for page, rows in service.heard if page == "predict" for row in rows]
    kept = {ride for ride, row in raw.items() if row["distance"] <= 0.99}
    assert sorted(asked) == sorted(kept)
    assert replay.arrivals.rejected == ROWS - len(kept)
    seen = -np.inf
    told = {}
    for page, rows in service.heard:
        if page == "predict":
            assert all("late" not in row and "known" not in row for row in rows)
            newest = max(raw[row["ride"]]["at"].timestamp() for row in rows)
            oldest = min(raw[row["ride"]]["at"].timestamp() for row in rows)
            assert oldest > seen - 6 * 3600  # a heap is a quarter of a day at most
            seen = max(seen, newest)
        else:
            for row in rows:
                told[row["id"]] = row["label"]
                assert row["time"] == raw[row["id"]]["known"]
                assert row["time"].timestamp() > seen - 6 * 3600
                assert raw[row["id"]]["at"].timestamp() <= seen
    assert told == {ride: raw[ride]["late"] for ride in kept if raw[ride]["late"] is not None}
    assert replay.labels_sent == len(told)
    assert replay.client.failed == 0


def test_answers_tell_score_and_version_of_every_row_in_either_format(rides: Declaration, service: Service):
    answers = replayed(rides, service).answers()
    assert answers.row.tolist() == list(range(len(answers.row)))
    alone = answers.row % 100 == 0
    assert set(answers.version[alone]) == {3}
    assert set(answers.version[~alone]) == {2}
    assert set(answers.scores[alone]) == {0.75}


def test_what_fails_is_counted_and_the_replay_goes_on(rides: Declaration, service: Service, caplog):
    service.status["labels"] = 422
    replay = replayed(rides, service)
    assert replay.labels_sent == 0
    assert replay.client.failed == sum(page == "labels" for page, _ in service.heard) > 0
    assert "labels: 422" in caplog.text


def test_a_connection_that_the_server_ended_meanwhile_costs_no_request(service: Service):
    service.impatient = True
    client = Client(f"http://127.0.0.1:{service.server_port}/rides")
    for _ in range(3):
        assert client.post("labels", json.dumps({"rows": []}).encode(), "application/json", expected=202) == b"{}"
        assert select.select([client._connection.sock], [], [], 60)[0]  # the server has ended it
        assert client.get("drift") == {}
        assert select.select([client._connection.sock], [], [], 60)[0]
    assert client.failed == 0


@pytest.mark.parametrize("status", [429, 503])
def test_labels_that_the_service_cannot_keep_now_are_sent_again_once_it_can(
    status: int, rides: Declaration, service: Service, caplog
):
    service.status["labels"] = status
    arrivals = read_arrivals(rides, str(rides.path.parent / "rides.parquet"), "known", dt.timedelta(0))
    replay = Replay(Client(f"http://127.0.0.1:{service.server_port}/rides"), arrivals)
    ticks = 0

    def held(_: int) -> bool:
        nonlocal ticks
        ticks += 1
        if ticks == 8:
            service.status["labels"] = 202
        return False

    replay.run(20.0, held)
    told = [row["id"] for page, rows in service.heard if page == "labels" for row in rows]
    assert replay.client.again > 0
    assert replay.client.failed == 0
    assert set(told) == {
        ride
        for ride, late in zip(*(arrivals.table[name].to_pylist() for name in ("ride", "late")), strict=True)
        if late is not None
    }
    assert replay.labels_sent == len(set(told))
    assert "to be sent again" in caplog.text


def test_patience_with_labels_has_an_end_and_it_is_told(
    rides: Declaration, service: Service, caplog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.replay.PATIENCE", 0.2)
    service.status["labels"] = 503
    replay = replayed(rides, service)
    assert (replay.labels_sent, replay.client.failed) == (0, 1)
    assert "the service never took the last" in caplog.text


def test_time_nearly_stands_still_while_the_replay_is_held(
    rides: Declaration, service: Service, monkeypatch: pytest.MonkeyPatch
):
    slept = [0.0]  # seconds: a clock that only this replay moves on, for a pause of the machine would be event time
    monkeypatch.setattr(
        "app.replay.time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=lambda time: slept.append(time))
    )
    arrivals = read_arrivals(rides, str(rides.path.parent / "rides.parquet"), None, dt.timedelta(days=1))
    asked: list[int] = []

    def held(now: int) -> bool:
        asked.append(now)
        return len(asked) < 6

    Replay(Client(f"http://127.0.0.1:{service.server_port}/rides"), arrivals).run(20.0, held)
    steps = np.diff(asked[: asked.index(asked[-1])])  # behind the last row only labels are to come
    assert steps[:4].max() < steps[6:-1].min()


def test_a_table_that_cannot_be_replayed_is_refused_with_the_reason(rides: Declaration, tmp_path: Path):
    source = str(tmp_path / "rides.parquet")
    with pytest.raises(UserError, match="no column 'when', allowed are ride, at, known"):
        read_arrivals(rides, source, "when", dt.timedelta(0))
    rides.path.write_text("name: rides\ntask: {target: late}\ndata: {source: rides.parquet, time: at}\n")
    with pytest.raises(UserError, match=r"data\.key"):
        read_arrivals(read(rides.path), source, None, dt.timedelta(0))
    with pytest.raises(UserError, match="does not answer"):
        Client("http://127.0.0.1:9/rides").get("drift")


@pytest.mark.parametrize(("key", "sent"), [(None, None), ("evt_secret", "Bearer evt_secret")])
def test_a_key_is_sent_with_every_request_and_stands_in_no_description(
    service: Service, key: str | None, sent: str | None
) -> None:
    client = Client(f"http://127.0.0.1:{service.server_port}/rides", key)
    assert client.get("drift") == {}
    assert client.post("labels", b'{"rows": []}', "application/json", expected=202) == b"{}"
    assert service.keys == {sent}
    assert "evt_secret" not in repr(client)


def test_a_moment_that_the_contract_reads_as_well_may_say_when_labels_were_known(rides: Declaration, tmp_path: Path):
    source = str(tmp_path / "rides.parquet")
    arrivals = read_arrivals(rides, source, "at", dt.timedelta(0))
    assert arrivals.known.tolist() == arrivals.time.tolist()


def test_a_table_none_of_whose_rows_keeps_the_contract_is_refused_with_their_number(
    rides: Declaration, tmp_path: Path
):
    table = pq.read_table(tmp_path / "rides.parquet")
    never = pa.nulls(ROWS, table.schema.field("at").type)
    pq.write_table(table.set_column(1, "at", never), tmp_path / "never.parquet")
    with pytest.raises(UserError, match="no row keeps the contract, so there is none to replay; 400 do not"):
        read_arrivals(rides, str(tmp_path / "never.parquet"), "known", dt.timedelta(0))


def test_a_replay_that_was_answered_nothing_is_told_as_that(rides: Declaration, service: Service):
    service.status["predict"] = 403
    with pytest.raises(UserError, match=r"none of \d+ requests was answered with a prediction"):
        replayed(rides, service).answers()


def test_a_key_with_the_newline_of_its_file_is_good_and_one_that_no_header_carries_is_not_told(service: Service):
    client = Client(f"http://127.0.0.1:{service.server_port}/rides", "evt_secret\n")
    assert client.get("drift") == {}
    assert service.keys == {"Bearer evt_secret"}
    for key in ("evt_secret\nx", "evt_sécret"):
        with pytest.raises(UserError, match=r"the key to send along is none") as refused:
            Client("http://127.0.0.1:9/rides", key)
        assert key not in str(refused.value)


def test_a_label_that_was_known_at_no_moment_is_never_sent(rides: Declaration, service: Service, tmp_path: Path):
    path = tmp_path / "rides.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("known")
    never = pa.array(table["known"].to_pylist(), table["known"].type, mask=np.arange(ROWS) % 4 == 1)
    pq.write_table(table.set_column(place, "known", never), path)
    replayed(rides, service)
    told = {row["id"] for page, rows in service.heard if page == "labels" for row in rows}
    assert told
    assert not told & {f"r{i}" for i in range(1, ROWS, 4)}
