"""A browser, and a small server that hands out the console and what it shows."""

import json
import os
import runpy
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cluster import free_ports
from app.console import page as console

flights = runpy.run_path(str(Path(__file__).with_name("ten_months.py")))["flights"]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
MOST = 60_000.0
"""Longest wait (ms) for what a page shows: five seconds are little on a busy machine."""


class Service:
    """What a replica answers below `/flights/`, and who asked for what; it can go away and come back."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        self._files = console.files()
        [self._port] = free_ports(1)  # one that nobody is given while the service is away
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0].removeprefix("/flights").removeprefix("/")
                service.asked.append(self.path)
                if path in service._files:
                    status, (kind, body) = 200, service._files[path]
                else:
                    status, document = service.answers.get(path, (404, {"title": "Not found"}))
                    kind, body = "application/json", json.dumps(document).encode()
                self.send_response(status)
                for name, value in {**console.HEADERS, "content-type": kind, "content-length": len(body)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the tests read `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more: connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where the console is."""
        return f"http://127.0.0.1:{self._port}/flights/"

    def show(self, documents: dict[str, Any]) -> None:
        """Answer with these documents from now on."""
        self.answers = {name: (200, document) for name, document in documents.items()}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start Debian's Chromium once a module; its event loop must not outlive it, other tests have their own."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if executable is None:
        pytest.skip("no Chromium: install the package `chromium`, or name one in $CHROMIUM")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=MOST)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS, timeout=2 * MOST)
        yield browser
        browser.close()


@pytest.fixture
def service() -> Iterator[Service]:
    """A service that answers with ten calm months of flights."""
    service = Service()
    service.show(flights())
    yield service
    service.stop()


class Visit:
    """A page in its own context, and all it complained of or asked for."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.context.set_default_timeout(MOST)
        self.page = self.context.new_page()
        self.expected = ""  # a part of complaints that are to be expected
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.complain(message.text))
        self.page.on("pageerror", lambda error: self.complain(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def complain(self, text: str) -> None:
        """Note an error or a warning of the page."""
        if not self.expected or self.expected not in text:
            self.complaints.append(text)

    def close(self, own: str) -> None:
        """Leave, and hold two promises that every visit makes: no complaints, and no request to another host."""
        self.context.close()
        assert not self.complaints
        assert [url for url in self.requests if not url.startswith(own)] == []

    def open(self, service: Service) -> Any:
        """Open the console and wait until it has shown something."""
        self.page.clock.install()
        self.page.goto(service.address)
        self.page.wait_for_selector("html[data-link]")
        return self.page

    def after(self, seconds: float) -> None:
        """Let the page's clock run."""
        self.page.clock.run_for(int(seconds * 1000))


@pytest.fixture
def visit(chromium: Any, service: Service) -> Iterator[Any]:
    """Return a function that makes a visit with given options of the browser's context."""
    visits: list[Visit] = []

    def start(**options: Any) -> Visit:
        visits.append(Visit(chromium, **options))
        return visits[-1]

    yield start
    for one in visits:
        one.close(service.address)


@pytest.fixture(name="flights")
def flights_of() -> Any:
    """Return `flights`, which makes a service's documents."""
    return flights
