"""The dashboard is the one its panels make, and asks for nothing that nobody counts."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from app.telemetry import METRICS

CLUSTER = Path(__file__).parents[2] / "cluster"
DASHBOARD = json.loads((CLUSTER / "grafana" / "evertrue.json").read_text())
SOURCE = runpy.run_path(str(CLUSTER / "grafana" / "dashboard.py"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [
    rule
    for name in ("rules.yml", "alerts.yml")
    for group in yaml.safe_load((CLUSTER / "prometheus" / name).read_text())["groups"]
    for rule in group["rules"]
]

# Ray's own: where in the installed Ray they are made, or asked for by Ray's own panels, and by which words
RAYS = {
    "ray_serve_application_status": ("serve/_private/application_state.py", '"serve_application_status"'),
    "ray_serve_deployment_replica_healthy": (
        "serve/_private/deployment_state.py",
        '"serve_deployment_replica_healthy"',
    ),
    "ray_serve_deployment_error_counter_total": ("serve/_private/replica.py", '"serve_deployment_error_counter"'),
    "ray_serve_replica_processing_queries": ("serve/_private/replica.py", '"serve_replica_processing_queries"'),
    "ray_node_cpu_utilization": ("dashboard/modules/reporter/reporter_agent.py", '"node_cpu_utilization"'),
    "ray_node_cpu_count": ("dashboard/modules/reporter/reporter_agent.py", '"node_cpu_count"'),
    "ray_node_mem_used_host": ("dashboard/modules/reporter/reporter_agent.py", '"node_mem_used_host"'),
    "ray_node_mem_total_host": ("dashboard/modules/reporter/reporter_agent.py", '"node_mem_total_host"'),
    "ray_node_disk_free": ("dashboard/modules/reporter/reporter_agent.py", '"node_disk_free"'),
    "ray_node_disk_usage": ("dashboard/modules/reporter/reporter_agent.py", '"node_disk_usage"'),
    "ray_object_store_memory": (
        "dashboard/modules/metrics/dashboards/default_dashboard_panels.py",
        "ray_object_store_memory{",
    ),
    "ray_resources": ("dashboard/modules/metrics/dashboards/default_dashboard_panels.py", "ray_resources{"),
}
OURS = {f"ray_{metric.name}": metric for metric in METRICS}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}


def expressions() -> list[str]:
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    asked += [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    asked += [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    return asked + [rule["expr"] for rule in RULES]


def test_the_kept_dashboard_is_the_generated_one() -> None:
    generated = SOURCE["dashboard"]()
    assert generated == DASHBOARD, "python cluster/grafana/dashboard.py > cluster/grafana/evertrue.json"


def test_every_metric_that_is_asked_for_is_counted_by_us_or_by_ray(harness: Any) -> None:
    asked = set().union(*map(harness.names_in, expressions()))
    assert asked - set(OURS) - set(RAYS) - RECORDED == {"up"}
    assert set(RAYS) <= asked


def test_every_metric_of_ours_is_shown_or_judged(harness: Any) -> None:
    assert set(OURS) <= set().union(*map(harness.names_in, expressions()))


def test_every_recorded_series_is_used(harness: Any) -> None:
    assert set().union(*map(harness.names_in, expressions())) >= RECORDED


@pytest.mark.parametrize("name", RAYS)
def test_rays_names_are_those_of_the_ray_that_is_installed(name: str) -> None:
    path, words = RAYS[name]
    assert words in Path(ray.__file__).parent.joinpath(path).read_text()


def test_only_what_each_metric_has_is_selected_and_summed_by() -> None:
    whole = re.compile(r"(ray_evertrue_\w+)\{([^}]*)\}")
    for expression in expressions():
        for name, selectors in whole.findall(expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selectors))
            assert labels <= set(OURS[name].tags), expression


def test_only_counters_have_a_rate(harness: Any) -> None:
    for expression in expressions():
        for inner in re.findall(r"\b(?:rate|increase)\(([^\[]+)\[", expression):
            [name] = harness.names_in(inner)
            assert name.endswith("_total"), expression


def test_panels_are_told_apart_lie_side_by_side_and_keep_all_their_queries() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    written = [panel for row in SOURCE["rows"]().values() for panel in row]
    for panel, source in zip(PANELS, written, strict=True):
        assert [target["expr"] for target in panel["targets"]] == list(source["queries"].values())
        assert set(source) <= {"title", "about", "unit", "kind", "limit", "width", "empty_until", "queries"}


def test_panels_follow_the_chosen_datasource_and_service() -> None:
    rows = SOURCE["rows"]()
    everywhere = {panel["title"] for panel in rows["Cluster"]}
    for panel in PANELS:
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert ("$model" in target["expr"]) == (panel["title"] not in everywhere)
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "model"]
