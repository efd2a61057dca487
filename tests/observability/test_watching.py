"""Every panel and every rule finds its figures, and an alert is heard: a real Prometheus over our own recorders.

In the place of Ray's agent stands a page that shows what the recorders hand over, as Ray shows it: with `ray_` before
every name and a `WorkerId`. `test_live.py` asks the same of a service on Ray.
"""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.telemetry import JobMetrics, LoopMetrics, LoopState, Metric, ServingMetrics
from app.telemetry.names import LOG_MESSAGES, METRICS, REFUSED

RAYS_OWN = """\
ray_serve_application_status{application="flights"} 6
ray_serve_deployment_replica_healthy{application="flights",deployment="Service",replica="a"} 1
ray_serve_replica_processing_queries{application="flights",replica="a"} 3
ray_serve_deployment_error_counter_total{application="flights",route="/flights"} 0
ray_node_cpu_utilization{instance="a"} 12
ray_node_cpu_count{instance="a"} 2
ray_node_mem_used_host{instance="a"} 1e9
ray_node_mem_total_host{instance="a"} 8e9
ray_node_disk_free{instance="a"} 5e9
ray_node_disk_usage{instance="a"} 5e9
ray_object_store_memory{Location="MMAP_SHM"} 1000
ray_resources{Name="object_store_memory",State="USED"} 1000
ray_resources{Name="CPU",State="AVAILABLE"} 2
"""


class Page:
    """A sink whose figures can be scraped."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def _key(self, metric: Metric, tags: tuple[str, ...]) -> tuple[str, tuple[tuple[str, str], ...]]:
        return f"ray_{metric.name}", (*zip(metric.tags, tags, strict=True), ("WorkerId", "w1"))

    def add(self, metric: Metric, value: float, *tags: str) -> None:
        key = self._key(metric, tags)
        self.values[key] = self.values.get(key, 0) + value

    def set(self, metric: Metric, value: float, *tags: str) -> None:
        self.values[self._key(metric, tags)] = value

    def text(self) -> str:
        lines = []
        for (name, labels), number in self.values.items():
            told = ",".join(f'{label}="{value}"' for label, value in labels)
            lines.append(f"{name}{{{told}}} {number}")
        return "\n".join(lines) + "\n" + RAYS_OWN


class Life:
    """A service in which everything happens that is counted; every look at it is a moment later."""

    def __init__(self) -> None:
        self.page = Page()
        self.serving = ServingMetrics("flights", self.page, later=lambda *_: None)
        self.loop = LoopMetrics("flights", self.page)
        job = JobMetrics("flights", self.page)
        job.prepared(1000, {"origin: not allowed": 3})
        job.took("train", 12.0)
        job.trained(1e5)
        job.judged(True)
        job.scored(100, 2)
        self.serving.model_version("7")
        self.serving.line_up(4, 0.25)

    def moment(self) -> str:
        serving = self.serving
        for outcome in ("ok", "ok", "ok", "page", "labels"):
            serving.request(outcome, 0.003)
        serving.rows(30)
        serving.batch(10)
        serving.challenged(8, 1)
        serving.fault()
        serving.written("predictions", 30)
        serving.unwritten("labels")
        serving.flush()
        self.page.add(REFUSED, 1, "flights", "429")
        self.page.add(LOG_MESSAGES, 1, "flights", "warning", "app.workspace.store")
        self.loop.turned("ok")
        self.loop.paged("fault")
        self.loop.page_failed()
        now = time.time()
        self.loop.show(
            LoopState(
                turned=now,
                interval=5,
                step=12,
                watermark=now - 60,
                drift_level=0.4,
                coverage=0.9,
                champion=7,
                findings={"drift": 0, "loss": 0, "fault": 0},
                labels={"joined": 5, "waiting": 2},
                loss={"expected": 0.45, "served": 0.46},
                entries={"deploy": 1, "promote": 1, "rollback": 0},
                newest={
                    "deploy": now - 1e5,
                    "promote": now - 9e4,
                    "retrain_failed": now - 9e5,
                    "retrained": now - 8e5,
                },
            )
        )
        return self.page.text()


@pytest.fixture(scope="module")
def life() -> Life:
    return Life()


@pytest.fixture(scope="module")
def watched(life: Life, harness: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Watch a service's life with a real Prometheus and a real Alertmanager."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(life.moment().encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    folder = tmp_path_factory.mktemp("watching")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    target = f"127.0.0.1:{server.server_address[1]}"
    (folder / "discovery.json").write_text(json.dumps([{"labels": {"job": "ray"}, "targets": [target]}]))
    with harness.serving(server), harness.watching(folder / "discovery.json", folder, "200ms") as found:
        yield found


def test_every_metric_of_ours_happens_in_this_life_but_rows_that_are_dropped(life: Life) -> None:
    life.moment()
    shown = {name for name, _ in life.page.values}
    assert {f"ray_{metric.name}" for metric in METRICS} - shown == {"ray_evertrue_journal_dropped_rows_total"}


def test_every_panel_shows_its_figures(watched: Any, harness: Any) -> None:
    queries = harness.queries("flights")
    assert len(queries) > 50
    harness.all_have(watched, [one.expr for one in queries])


def test_every_rule_is_healthy_and_every_recorded_series_is_there(watched: Any, harness: Any) -> None:
    harness.wait_for(lambda: all(one["health"] != "unknown" for one in watched.rules()))
    rules = watched.rules()
    assert len(rules) > 30
    assert [(one["name"], one.get("lastError")) for one in rules if one["health"] != "ok"] == []
    wanted = [one["name"] for one in rules if one["type"] == "recording"]
    wanted.remove("evertrue:journal_dropped_rows:increase10m")
    harness.all_have(watched, wanted)


def test_an_alert_is_posted_to_who_has_to_hear_it(watched: Any, life: Life, harness: Any) -> None:
    assert not watched.firing("EvertrueRowsDropped")
    life.serving.dropped(800)
    [told, *_] = harness.wait_for(lambda: watched.firing("EvertrueRowsDropped", model="flights"))
    assert told["labels"]["severity"] == "critical"
    assert told["annotations"]["runbook"] == "docs/runbook.md#evertruerowsdropped"
    assert told["annotations"]["summary"].startswith("800 answered rows of flights")
