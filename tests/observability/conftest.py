"""A real Prometheus and a real Alertmanager over whatever a discovery file names, with our rules; and who hears alerts."""

import json
import re
import runpy
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from app.cluster import free_ports

CLUSTER = Path(__file__).parents[2] / "cluster"
RULES = ("rules.yml", "alerts.yml")
PATIENCE = 60.0


class Query(NamedTuple):
    """One query of a panel, and what has to happen before it shows anything."""

    panel: str
    legend: str
    expr: str
    empty_until: str | None


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Return what is found once it is something; fail with what was found last."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"it never came: {found!r}"
        time.sleep(0.05)  # between looks at a condition
    return found


@contextmanager
def running(command: list[str], log: Path, ready: str) -> Iterator[None]:
    """Run a program until the end of the block, once its address `ready` answers."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                with urllib.request.urlopen(ready, timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_for(answers)
        yield
    finally:
        process.terminate()
        process.wait(60)


def need(*tools: str) -> str:
    """Return the path of the first of these tools that is there."""
    for tool in tools:
        if (path := shutil.which(tool)) is not None:
            return path
    pytest.skip(f"{tools[0]} is not installed (Debian: prometheus, prometheus-alertmanager)")


class Watching:
    """A Prometheus with our rules, and an Alertmanager that posts to `heard`."""

    def __init__(self, prometheus: int, alertmanager: int) -> None:
        self._prometheus, self._alertmanager = prometheus, alertmanager
        self.heard: list[dict[str, Any]] = []

    def get(self, path: str, **query: str) -> Any:
        """Ask Prometheus' API; a refused query is a failure with its reason."""
        address = f"http://127.0.0.1:{self._prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{query}: {error.read().decode()}")

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return what an expression gives now."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def has(self, expr: str) -> bool:
        """Say whether an expression gives numbers."""
        return any(one["value"][1] != "NaN" for one in self.ask(expr))

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule with its health."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def firing(self, alert: str, **labels: str) -> list[dict[str, Any]]:
        """Return the notes that told of an alert."""
        alerts = [one for note in list(self.heard) for one in note["alerts"]]
        wanted = {"alertname": alert, **labels}
        return [one for one in alerts if one["status"] == "firing" and wanted.items() <= one["labels"].items()]


@contextmanager
def receiver(heard: list[dict[str, Any]], port: int) -> Iterator[None]:
    """Take what Alertmanager posts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", port), Handler)):
        yield


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve on a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def watching(discovery: Path, folder: Path, interval: str) -> Iterator[Watching]:
    """Watch the targets of a discovery file every `interval`; our own files, but for addresses, intervals and waits."""
    prometheus, alertmanager, hook = free_ports(3)
    for name in RULES:
        shutil.copy(CLUSTER / "prometheus" / name, folder)
    config = yaml.safe_load((CLUSTER / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    config["scrape_configs"][0]["file_sd_configs"] = [{"files": [str(discovery)], "refresh_interval": "1s"}]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    config = yaml.safe_load((CLUSTER / "prometheus" / "alertmanager.yml").read_text())
    config["receivers"][0]["webhook_configs"][0]["url"] = f"http://127.0.0.1:{hook}/alerts"
    config["route"]["group_wait"] = "0s"
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    found = Watching(prometheus, alertmanager)
    with ExitStack() as stack:
        stack.enter_context(receiver(found.heard, hook))
        stack.enter_context(
            running(
                [
                    need("prometheus-alertmanager", "alertmanager"),
                    f"--config.file={folder / 'alertmanager.yml'}",
                    f"--storage.path={folder / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{alertmanager}",
                    "--cluster.listen-address=",
                ],
                folder / "alertmanager.log",
                f"http://127.0.0.1:{alertmanager}/-/ready",
            )
        )
        stack.enter_context(
            running(
                [
                    need("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{prometheus}",
                ],
                folder / "prometheus.log",
                f"http://127.0.0.1:{prometheus}/-/ready",
            )
        )
        yield found


def panel_queries(model: str) -> list[Query]:
    """Return every query of the dashboard, for one service."""
    rows = runpy.run_path(str(CLUSTER / "grafana" / "dashboard.py"))["rows"]()
    return [
        Query(panel["title"], legend, expr.replace("$model", model), panel.get("empty_until"))
        for row in rows.values()
        for panel in row
        for legend, expr in panel["queries"].items()
    ]


def names_in(expr: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}', "", expr)
    return set(re.findall(r"\b(?:ray_\w+|evertrue:[\w:]+|up\b)", bare))


def all_have(watching: Watching, expressions: list[str], seconds: float = PATIENCE) -> None:
    """Wait until every one of these expressions has given numbers; fail with those that did not.

    One that has is not asked again: a look at the targets that is too late, and all figures are gone until the next.
    """
    end, missing = time.monotonic() + seconds, expressions
    while missing := [expr for expr in missing if not watching.has(expr)]:
        assert time.monotonic() < end, f"no figures: {missing}"
        time.sleep(0.05)  # between looks at a condition


class Harness(NamedTuple):
    """What the tests of this room share."""

    free_ports: Any = free_ports
    need: Any = need
    running: Any = running
    watching: Any = watching
    serving: Any = serving
    queries: Any = panel_queries
    names_in: Any = names_in
    wait_for: Any = wait_for
    all_have: Any = all_have


@pytest.fixture(scope="session")
def harness() -> Harness:
    """Return the tools."""
    return Harness()
