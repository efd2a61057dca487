"""What Prometheus and Alertmanager are given is right by their own tools, and a mistake in it would be seen."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.serving import problems

ROOT = Path(__file__).parents[2]
FILES = ROOT / "cluster" / "prometheus"
ALERTS = [rule for group in yaml.safe_load((FILES / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def need(tool: str) -> str:
    """Return a tool's path."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return path


def run(*command: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def promtool(folder: Path, *arguments: str) -> tuple[int, str]:
    return run(need("promtool"), *arguments, cwd=folder)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a copy to make mistakes in."""
    return Path(shutil.copytree(FILES, tmp_path / "prometheus"))


def edit(path: Path, change: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))


def test_the_configuration_is_one_and_a_wrong_key_is_seen(files: Path) -> None:
    code, said = promtool(files, "check", "config", "prometheus.yml")
    assert code == 0, said
    assert "2 rule files found" in said
    edit(files / "prometheus.yml", {"scrape_config": []})
    code, said = promtool(files, "check", "config", "prometheus.yml")
    assert code != 0
    assert "field scrape_config not found" in said


@pytest.mark.parametrize("name", ["rules.yml", "alerts.yml"])
def test_rules_are_rules_and_a_wrong_key_or_expression_is_seen(files: Path, name: str) -> None:
    code, said = promtool(files, "check", "rules", name)
    assert code == 0, said
    whole = (files / name).read_text()
    (files / name).write_text(whole.replace("expr:", "express:", 1))
    assert promtool(files, "check", "rules", name)[0] != 0
    (files / name).write_text(whole.replace("sum by", "summe by").replace("min by", "mini by"))
    assert promtool(files, "check", "rules", name)[0] != 0


def test_alertmanager_takes_its_configuration_and_a_wrong_key_is_seen(files: Path) -> None:
    code, said = run(need("amtool"), "check-config", "alertmanager.yml", cwd=files)
    assert code == 0, said
    edit(files / "alertmanager.yml", {"receiver": []})
    code, said = run(need("amtool"), "check-config", "alertmanager.yml", cwd=files)
    assert code != 0
    assert "field receiver not found" in said


def test_every_alert_goes_to_a_receiver() -> None:
    for severity in {rule["labels"]["severity"] for rule in ALERTS}:
        command = ("config", "routes", "test", "--config.file=alertmanager.yml", f"severity={severity}")
        assert run(need("amtool"), *command, cwd=FILES)[1].startswith("webhook\n")


@pytest.mark.parametrize(
    ("source", "kept_quiet"),
    [
        ({"alertname": "EvertrueNodeNotScraped", "instance": "a:1"}, {"EvertrueErrors"}),
        ({"alertname": "EvertrueNodeNotScraped"}, {"EvertrueErrors", "EvertrueNobodyWatches", "EvertrueNotReady"}),
        ({"alertname": "EvertrueNotReady", "model": "flights"}, {"EvertrueErrors"}),
        ({"alertname": "EvertrueNotReady", "model": "rides"}, set()),
    ],
    ids=["one node of many, and nothing answers", "all nodes", "nothing answers", "another service does not answer"],
)
def test_an_alert_is_kept_quiet_only_by_what_explains_it(
    source: dict[str, str], kept_quiet: set[str], harness: Any, tmp_path: Path
) -> None:
    others = {rule["alert"] for rule in ALERTS} - {source["alertname"], "EvertrueNodeNotScraped"}
    fired = [source, *({"alertname": alert, "model": "flights"} for alert in others)]
    # Alertmanager works off what it is told in order: once these two are seen to be one's reason for the other, all is.
    fired += [{"alertname": alert, "model": "last"} for alert in ("EvertrueNotReady", "EvertrueErrors")]
    [port] = harness.free_ports(1)
    address = f"http://127.0.0.1:{port}"
    shutil.copy(FILES / "alertmanager.yml", tmp_path)
    command = [harness.need("prometheus-alertmanager", "alertmanager"), "--config.file=alertmanager.yml"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--storage.path=."]
    with (
        harness.running(command, tmp_path / "log", f"{address}/-/ready"),
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        client.post("/api/v2/alerts", json=[{"labels": labels} for labels in fired]).raise_for_status()

        def quiet() -> set[tuple[str, str | None]] | None:
            known = client.get("/api/v2/alerts").json()
            if len(known) < len(fired) or any(one["status"]["state"] == "unprocessed" for one in known):
                return None
            labels = [one["labels"] for one in known if one["status"]["inhibitedBy"]]
            return {(one["alertname"], one.get("model")) for one in labels}

        harness.wait_for(lambda: ("EvertrueErrors", "last") in (quiet() or ()))
        found = quiet()
    assert {alert for alert, model in found if model != "last"} == kept_quiet


def test_rules_do_what_their_tests_say() -> None:
    code, said = promtool(FILES, "test", "rules", "tests.yml")
    assert code == 0, said


@pytest.mark.parametrize(
    ("expression", "said_of"),
    [("vector(1) > 2", "exp"), ("vector(1)", "got")],
    ids=["never fires", "always fires"],
)
def test_an_alert_that_never_fires_or_always_does_is_seen(files: Path, expression: str, said_of: str) -> None:
    rules = yaml.safe_load((FILES / "alerts.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule |= {"expr": expression, "for": "0m"}
    (files / "alerts.yml").write_text(yaml.safe_dump(rules))
    code, said = promtool(files, "test", "rules", "tests.yml")
    assert code != 0
    differences = re.findall(rf"{said_of}: ?(.*?)(?=\n\s*(?:exp|got|name|expr):|$)", said, re.DOTALL)
    assert {rule["alert"] for rule in ALERTS} <= set(re.findall(r"\w+", " ".join(differences)))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_what_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert "for" in rule
    assert rule["annotations"]["summary"]
    page, _, section = rule["annotations"]["runbook"].partition("#")
    assert section == rule["alert"].lower()
    text = (ROOT / page).read_text().partition(f"## {rule['alert']}\n")[2].partition("\n## ")[0]
    assert "**Look**" in text
    assert "**Do**" in text


def test_the_runbook_has_no_section_without_an_alert_and_no_dead_link() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    sections = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert sections == [rule["alert"] for rule in ALERTS]
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= {section.lower() for section in sections}


def test_what_counts_as_our_error_is_every_problem_with_a_status_of_ours() -> None:
    source = "".join(
        path.read_text() for path in Path(problems.__file__).parent.glob("*.py") if path.stem != "ingress"
    )
    ours = set(re.findall(r'Problem\(\s*5\d\d, "([\w-]+)"', source))
    [counted] = re.findall(r'outcome=~"([^"]+)"', (FILES / "rules.yml").read_text())
    assert set(counted.split("|")) == ours
