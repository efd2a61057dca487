"""Make Grafana's dashboard of the panels: `python cluster/grafana/dashboard.py > cluster/grafana/evertrue.json`."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

COLUMNS, WIDTH, HEIGHT = 24, 6, 7
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the panels by row, as they are written in `panels.yml`."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(Path(__file__).with_name("panels.yml").read_text())
    return found


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in rows().items():
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place})
        left, top = 0, top + 1
        for panel in row:
            width = panel.get("width", WIDTH)
            if left + width > COLUMNS:
                left, top = 0, top + HEIGHT
            place = {"h": HEIGHT, "w": width, "x": left, "y": top}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            left += width
        top += HEIGHT
    return {
        "uid": "evertrue",
        "title": "Evertrue",
        "tags": ["evertrue", "ray"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_datasource(), _model()]},
        "annotations": {"list": [_champions()]},
        "panels": panels,
    }


def _panel(panel: dict[str, Any]) -> dict[str, Any]:
    about = panel["about"] + (f" Empty until {panel['empty_until']}." if "empty_until" in panel else "")
    defaults: dict[str, Any] = {"unit": panel["unit"]}
    if "limit" in panel:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel["limit"]}]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}}
        defaults |= {"custom": {"thresholdsStyle": {"mode": "dashed"}}}
    return {
        "type": panel.get("kind", "timeseries"),
        "title": panel["title"],
        "description": about,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": refers, "datasource": DATASOURCE, "expr": query, "legendFormat": legend, "range": True}
            for refers, (legend, query) in zip("ABCDEF", panel["queries"].items(), strict=False)
        ],
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _model() -> dict[str, Any]:
    query = "label_values(ray_evertrue_model_info, model)"
    return {
        "name": "model",
        "label": "Service",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "models"},
        "refresh": 2,
        "sort": 1,
    }


def _champions() -> dict[str, Any]:
    """Mark where another version became champion."""
    return {
        "name": "Champions",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": 'changes(max(ray_evertrue_champion_version{model="$model"})[1m:10s]) > 0',
        "titleFormat": "another champion",
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
