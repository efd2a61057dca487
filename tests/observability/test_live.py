"""What is shown and judged of a service on a real Ray: every panel and rule finds its figures, and an alert is heard."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.decisions import actor
from app.decisions.ledger import Draft, Ledger
from app.declaration import read
from app.pipeline import TrainedVersion
from app.telemetry import JobMetrics
from app.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROW = {"distance": 4.5, "passengers": 2, "zone": "airport", "rain": True}
RAYS_PATIENCE = 120.0
"""Ray hands figures on every ten seconds, and a rate takes two of them."""


@pytest.fixture(scope="module")
def workspace_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(str(tmp_path_factory.mktemp("watched")))


@pytest.fixture(scope="module")
def watched(
    ray_session: str,
    trained: TrainedVersion,
    declaration: Any,
    workspace_of_its_own: Workspace,
    harness: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """Serve, watch and ask the service `watched`; slow, for Ray's agent takes its time with every figure."""
    import ray
    from ray import serve

    from app.serving.deploy import deploy

    given = read(declaration.path, ["name=watched", "drift.interval=1s", "retrain.policy=never"])
    address = deploy(given.spec, workspace_of_its_own, trained.bundle, "1")
    actor.start(given, workspace_of_its_own)
    job = JobMetrics("watched")
    job.prepared(1000, {"zone: not allowed": 3})
    job.took("train", 12.0)
    job.judged(True)
    job.scored(100, 2)
    ended = threading.Event()

    def ask() -> None:
        number = 0
        with httpx.Client(timeout=30) as client:
            while not ended.wait(0.1):
                number += 1
                row = ROW | {"ride": f"w{number}"}
                client.post(f"{address}/predict", json={"rows": [row]}).raise_for_status()
                labels = {"labels": [{"id": row["ride"], "label": False}]}
                client.post(f"{address}/labels", json=labels).raise_for_status()
                job.trained(1e5)  # a gauge is forgotten unless it is set again

    asking = threading.Thread(target=ask)
    asking.start()
    discovery = Path(ray._private.worker._global_node.get_temp_dir_path(), "prom_metrics_service_discovery.json")
    harness.wait_for(discovery.exists)
    try:
        with harness.watching(discovery, tmp_path_factory.mktemp("prometheus"), "1s") as found:
            yield found
    finally:
        ended.set()
        asking.join()
        actor.stop("watched")
        serve.delete("watched")


def test_every_node_is_scraped(watched: Any, harness: Any) -> None:
    # All at one time: one look of many may be too late.
    harness.wait_for(lambda: watched.has('min(up{job="ray"}) == 1'), RAYS_PATIENCE)


def test_every_panel_of_a_healthy_service_shows_its_figures(watched: Any, harness: Any) -> None:
    queries = harness.queries("watched")
    harness.all_have(watched, [one.expr for one in queries if one.empty_until is None], RAYS_PATIENCE)
    trained = [one for one in queries if one.empty_until and "in this cluster" in one.empty_until]
    harness.all_have(watched, [one.expr for one in trained if "jobs.predict" not in one.empty_until], RAYS_PATIENCE)
    for one in queries:
        watched.ask(one.expr)  # fails where Prometheus refuses it


def test_every_rule_is_healthy(watched: Any, harness: Any) -> None:
    harness.wait_for(lambda: all(rule["health"] != "unknown" for rule in watched.rules()))
    assert [(one["name"], one.get("lastError")) for one in watched.rules() if one["health"] != "ok"] == []
    # Counters of what has not happened here: nothing was dropped, and no store was away.
    later = {
        "evertrue:journal_dropped_rows:increase10m",
        "evertrue:store_warnings:increase10m",
        "evertrue:loss:ratio",
    }
    recorded = {rule["name"] for rule in watched.rules() if rule["type"] == "recording"}
    harness.all_have(watched, sorted(recorded - later), RAYS_PATIENCE)


def test_figures_say_what_happened(watched: Any, harness: Any) -> None:
    def one(expr: str) -> float:
        [found] = harness.wait_for(lambda: watched.ask(expr), RAYS_PATIENCE)
        return float(found["value"][1])

    assert one('max(ray_evertrue_champion_version{model="watched"})') == 1
    assert one('evertrue:errors:ratio5m{model="watched"}') == 0
    assert one('evertrue:loop:silence_seconds{model="watched"}') < 60
    joined = 'max(ray_evertrue_labels{model="watched", outcome="joined"}) > 0'
    harness.wait_for(lambda: watched.has(joined), RAYS_PATIENCE)
    assert not watched.firing("EvertrueNotReady", model="watched")


def test_a_page_in_the_ledger_is_heard_through_alertmanager(
    watched: Any, harness: Any, workspace_of_its_own: Workspace
) -> None:
    now = round(time.time() * 1000)
    draft = Draft("page", "drill", now, 0, "A drill: nobody has to do anything.")
    Ledger.open(workspace_of_its_own, "watched").append(draft, now)
    found = harness.wait_for(lambda: watched.firing("EvertruePageWritten", model="watched"), RAYS_PATIENCE)
    assert found[0]["labels"]["severity"] == "critical"
    assert found[0]["annotations"]["runbook"] == "docs/runbook.md#evertruepagewritten"


def test_what_a_short_job_counts_at_its_end_is_not_lost(watched: Any, harness: Any) -> None:
    import ray

    program = (
        "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)\n"
        "from app.telemetry import JobMetrics; JobMetrics('brief').judged(False)"
    )
    address = ray.get_runtime_context().gcs_address
    subprocess.run([sys.executable, "-c", program, address], check=True, timeout=240, cwd=Path(__file__).parents[2])
    counted = 'ray_evertrue_gate_verdicts_total{model="brief", verdict="fail"} == 1'
    harness.wait_for(lambda: watched.has(counted), RAYS_PATIENCE)
