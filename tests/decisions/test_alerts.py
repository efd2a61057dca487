"""Pages reach a real receiver: once, in order, whatever it answers at first, and without the address in any log."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.decisions.alerts import STALE, Alerts, webhook_of
from app.decisions.ledger import Draft, Ledger
from app.telemetry import LoopMetrics
from app.telemetry.names import PAGES_FAILED
from app.types import UserError
from app.workspace import Workspace

SECRET = "T0K3N"


class Receiver:
    """A web server that takes pages; `answers` are the statuses of the next requests, 200 from then on."""

    def __init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with receiver.changed:
                    receiver.got.append((self.path, self.headers["idempotency-key"], body))
                    status = receiver.answers.pop(0) if receiver.answers else 200
                    receiver.changed.notify_all()
                self.send_response(status)
                if status == 302:
                    self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.got: list = []
        self.answers: list[int] = []
        self.changed = threading.Condition()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.01])
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/hooks/{SECRET}?channel=ops"

    def wait_for(self, requests: int) -> list:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= requests, 60), self.got
            return list(self.got)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Counted:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.failed = 0
        self.any = threading.Event()

    def add(self, metric, value, *tags) -> None:
        self.failed += metric is PAGES_FAILED
        self.any.set()

    def set(self, metric, value, *tags) -> None:
        raise AssertionError(metric)


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def ledger(tmp_path):
    return Ledger.open(Workspace.open(str(tmp_path)), "rides")


@pytest.fixture
def alerts(tmp_path):
    made = []

    def make(webhook, sink=None):
        metrics = LoopMetrics("rides", sink or Counted())
        made.append(Alerts(Workspace.open(str(tmp_path)), "rides", webhook, metrics, waits=(0.01, 0.02)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def page(ledger, key, kind="fault", now=0):
    return ledger.append(Draft(kind, key, 0, 1, f"{key} broke", {"what": key}), now)


def test_what_pages_is_posted_in_order_and_the_rest_is_not(receiver, ledger, alerts):
    first, _, second = page(ledger, "rain"), page(ledger, "x", "alarm_noted"), page(ledger, "y", "rollback")
    alerts(receiver.address).tell(ledger.entries(), 0)
    one, two = receiver.wait_for(2)
    assert [one[1], two[1]] == [first.id, second.id]
    assert one[0] == f"/hooks/{SECRET}?channel=ops"
    assert one[2]["text"] == "rides: rain broke"
    assert one[2]["entry"]["evidence"] == {"what": "rain"}


def test_what_joins_a_fault_that_is_open_is_not_posted(receiver, ledger, alerts):
    first = page(ledger, "rain")
    ledger.append(Draft("fault", "wind", 0, 2, "wind broke, too", {}, about=first.id), 0)
    last = page(ledger, "y", "page")
    alerts(receiver.address).tell(ledger.entries(), 0)
    assert [key for _, key, _ in receiver.wait_for(2)] == [first.id, last.id]


def test_nothing_is_posted_twice_neither_by_the_same_nor_by_a_new_process(receiver, ledger, alerts):
    page(ledger, "rain")
    first = alerts(receiver.address)
    first.tell(ledger.entries(), 0)
    first.tell(ledger.entries(), 0)
    receiver.wait_for(1)
    first.close()
    page(ledger, "wind")
    alerts(receiver.address).tell(ledger.entries(), 0)
    assert [key for _, key, _ in receiver.wait_for(2)] == [entry.id for entry in ledger.entries()]


def test_a_page_that_is_not_taken_is_tried_again_before_the_next(receiver, ledger, alerts):
    sink = Counted()
    receiver.answers = [500, 429, 503]
    first, second = page(ledger, "rain"), page(ledger, "wind")
    alerts(receiver.address, sink).tell(ledger.entries(), 0)
    assert [key for _, key, _ in receiver.wait_for(5)] == [first.id] * 4 + [second.id]
    assert sink.failed == 3


@pytest.mark.parametrize("status", [302, 400, 404])
def test_a_page_that_is_refused_for_good_does_not_hold_up_the_next(receiver, ledger, alerts, status):
    receiver.answers = [status]
    page(ledger, "rain"), page(ledger, "wind")
    alerts(receiver.address).tell(ledger.entries(), 0)
    assert [entry.id for entry in ledger.entries()] == [key for _, key, _ in receiver.wait_for(2)]


def test_a_receiver_that_is_down_is_tried_until_it_is_there_and_its_address_is_not_logged(ledger, alerts, caplog):
    page(ledger, "rain")
    sink = Counted()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen, nor does anybody else meanwhile
        one = alerts(f"http://127.0.0.1:{nobody.getsockname()[1]}/hooks/{SECRET}", sink)
        one.tell(ledger.entries(), 0)
        assert sink.any.wait(60)
        one.close()
    assert "tried again" in caplog.text
    assert one.waiting == 1
    assert SECRET not in caplog.text
    assert "127.0.0.1" not in caplog.text


def test_old_pages_are_no_news_to_a_webhook_set_up_late(receiver, ledger, alerts):
    page(ledger, "rain", now=0)
    fresh = page(ledger, "wind", now=STALE)
    alerts(receiver.address).tell(ledger.entries(), STALE)
    assert [key for _, key, _ in receiver.wait_for(1)] == [fresh.id]


def test_without_a_webhook_nothing_waits(ledger, alerts):
    page(ledger, "rain")
    one = alerts(None)
    one.tell(ledger.entries(), 0)
    assert one.waiting == 0


def test_the_address_is_asked_for_only_where_the_declaration_wants_it(spec_of, monkeypatch):
    monkeypatch.delenv("EVERTRUE_WEBHOOK", raising=False)
    assert webhook_of(spec_of()) is None
    with pytest.raises(UserError, match="is not set"):
        webhook_of(spec_of(alerts={"webhook": True}))
    monkeypatch.setenv("EVERTRUE_WEBHOOK", f"https://host/{SECRET}\n")  # as from a file
    assert webhook_of(spec_of(alerts={"webhook": True})) == f"https://host/{SECRET}"


@pytest.mark.parametrize(
    "address",
    [
        f"ftp://host/{SECRET}",
        f"https:///{SECRET}",
        f"https://host:99999/{SECRET}",
        f"https://host:port/{SECRET}",
        f"https://[::1/{SECRET}",
        f"https://host/{SECRET} x",
        f"https://host/{SECRET}é",
        f"https://user:{SECRET}@host/",
    ],
)
def test_an_address_that_nothing_could_be_posted_to_is_refused_at_once_and_not_told(spec_of, monkeypatch, address):
    monkeypatch.setenv("EVERTRUE_WEBHOOK", address)
    with pytest.raises(UserError, match="EVERTRUE_WEBHOOK holds") as raised:
        webhook_of(spec_of(alerts={"webhook": True}))
    assert SECRET not in str(raised.value)
