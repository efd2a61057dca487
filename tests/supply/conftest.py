"""A service that knows vulnerabilities, on loopback, and packages that say of themselves what a test wants."""

import json
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from supply.packages import Needed


class Knowing:
    """What is known of packages, (name, version) -> vulnerabilities, and what was asked; `status` for all answers."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        self.address = ""

    def add(self, name: str, version: str, *names: str, fixed: str) -> None:
        """Let a vulnerability be known, in OSV's form."""
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
        flaw = {"id": names[0], "aliases": list(names[1:]), "summary": "it breaks", "affected": affected}
        self.known.setdefault((name, version), []).append(flaw)


@pytest.fixture
def knowing() -> Iterator[Knowing]:
    """Return a service that answers by OSV's protocol."""
    told = Knowing()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            one = asked["package"]["name"], asked["version"]
            told.asked.append(one)
            body = json.dumps({"vulns": told.known[one]} if one in told.known else {}).encode()
            self.send_response(told.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    told.address = f"http://127.0.0.1:{server.server_port}/v1/query"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


class Saying(Distribution):
    """A package of which nothing is there but its metadata."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self._message = Message()
        for name, value in [("Name", "made-up"), ("Version", "1.0"), *headers]:
            self._message[name] = value

    def read_text(self, filename: str) -> str | None:
        return self._message.as_string() if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Path:
        return Path(path)


@pytest.fixture(scope="session")
def saying() -> Callable[..., Needed]:
    """Return a maker of packages with these headers."""
    return lambda *headers: Needed(Saying(list(headers)), frozenset())
