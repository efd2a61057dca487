"""A cluster of several hosts does its work while hosts die, and cables are cut: jobs end well, requests are answered.

The tests are chapters of one story, told in order on one cluster: each begins with what the one before has left.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.hosts.ray_hosts import DASHBOARD

# Real hosts, killed for real; jobs submitted as a user does, from a directory that is no clone.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


LISTENING = """
import json, psutil
found = []
for one in psutil.net_connections("inet"):
    if one.status == "LISTEN" and one.pid:
        line = psutil.Process(one.pid).cmdline()
        name = next((part for part in map(lambda part: part.rpartition("/")[2], line) if "python" not in part and part[0] != "-"), "")
        found.append((one.laddr.ip, one.laddr.port, name.strip()))
print(json.dumps(found))
"""
"""Prints address, port and program of all that listens on a host."""

REACHED_BY = {
    "gcs_server": {"the token's bearers"},
    "raylet": {"the token's bearers"},
    "ray.util.client.server": {"the token's bearers", "this host"},
    "ray::RuntimeEnvAgent": {"the token's bearers"},
    "ray::DashboardAgent": {"the token's bearers", "readers of metrics", "this host"},
    "dashboard.py": {"this host", "readers of metrics"},
    "monitor.py": {"readers of metrics"},
    "haproxy": {"the keys' bearers", "this host"},  # statistics and metrics
    "ray::ProxyActor": {"the token's bearers", "the fronts"},
    "ray::ServeReplica:rides:Service": {"the token's bearers", "the fronts"},
}
"""Who may reach what listens; every other process of Ray's answers the token's bearers alone."""

METHODS = [
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Push",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.serve.ASGIService/HandleRequest",
]


def reached_by(address: str) -> str:
    """Ask as a stranger in the network does, who has neither token nor key; say what one would need."""
    answers = set()
    with grpc.insecure_channel(address) as channel:
        for method in METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=5)
            except grpc.RpcError as error:
                answers.add(error.code())
            else:
                return "everybody"
    if grpc.StatusCode.UNAUTHENTICATED in answers:
        return "the token's bearers"
    for path in ("/", "/rides/"):
        try:
            answer = httpx.get(f"http://{address}{path}", timeout=5)
        except httpx.TransportError:
            continue
        for status, words, who in (
            (401, "Missing authentication token", "the token's bearers"),
            (401, "urn:evertrue:problem:no-key", "the keys' bearers"),
            (403, "urn:evertrue:problem:not-by-the-front", "the fronts"),
            (200, "# HELP ", "readers of metrics"),
        ):
            if answer.status_code == status and words in answer.text:
                return who
    return f"unknown: {sorted(code.name for code in answers)}"


def test_a_table_is_prepared_and_a_network_trained_on_two_hosts_though_one_dies_meanwhile(
    site, big: tuple[Path, int], wait_for: Callable[..., object]
) -> None:
    table, rows = big
    training = site.submit("jobs.train", "rides.yaml")
    training.until("epoch 1 of 14")
    preparing = site.submit("jobs.prepare", "rides.yaml", "--set", f"data.source={table}")
    wait_for(lambda: list(Path(site.workspace.root).glob("rides/data/*/rows/000002-*")), 180)
    assert not preparing.ended
    assert not training.ended
    site.kill_and_start("spot")
    assert f"{rows:,} rows kept" in preparing.result()
    assert "rides/1 is champion now" in training.result()


def test_a_service_is_put_up_though_a_host_dies_meanwhile(site, wait_for: Callable[..., object]) -> None:
    deploying = site.submit("jobs.deploy", "rides.yaml")
    wait_for(lambda: "ServeReplica" in site.processes("spot"), 180)
    assert not deploying.ended
    site.kill_and_start("spot")
    assert "rides/1 answers" in deploying.result()
    wait_for(lambda: "ServeReplica" in site.processes("spot"), 180)


def test_a_table_is_scored_and_every_request_answered_though_a_host_dies_meanwhile(
    site, big: tuple[Path, int], wait_for: Callable[..., object]
) -> None:
    table, rows = big
    out = site.folder / "scores"
    with site.asking("lasting") as asking:
        predicting = site.submit("jobs.predict", "rides.yaml", str(table), str(out))
        wait_for(lambda: list(out.glob("part-00002*")), 180)
        assert not predicting.ended
        site.kill_and_start("spot")
        assert f"{rows:,} rows scored" in predicting.result()
        wait_for(lambda: "ServeReplica" in site.processes("spot"), 180)
    assert not asking.failed
    assert len(asking.answered) > 500
    scored = pa.concat_tables(pq.read_table(part, columns=["ride"]) for part in sorted(out.glob("part-*.parquet")))
    assert scored.num_rows == len(scored["ride"].unique()) == rows


def test_every_listening_port_is_known_and_says_who_may_reach_it(site) -> None:
    found: dict[str, set[str]] = {}
    for host in site.cluster.hosts.values():
        for ip, port, program in json.loads(host.run(sys.executable, "-c", LISTENING)):
            who = "this host" if ip.endswith("127.0.0.1") else reached_by(f"{host.address}:{port}")
            found.setdefault(program, set()).add(who)
    workers = {program for program in found if program.startswith("ray::")} - REACHED_BY.keys()
    assert {program: who for program, who in found.items() if program not in workers} == REACHED_BY
    assert {who for program in workers for who in found[program]} == {"the token's bearers"}


def test_without_the_token_no_job_no_state_and_no_page_with_any_of_it_is_had(site) -> None:
    head = site.cluster.head
    for path in (
        "api/jobs/",
        "api/cluster_status",
        "nodes?view=summary",
        "logical/actors",
        "api/serve/applications/",
    ):
        command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", f"{DASHBOARD}/{path}"]
        assert head.run(*command) == "401", path
        assert head.run(*command, "--header", f"Authorization: Bearer {'0' * 64}") in ("401", "403"), path
    with pytest.raises(RuntimeError, match=r"(?i)token"):
        site.cluster.shell(head, "ray", "list", "actors", RAY_AUTH_TOKEN="0" * 64)
    with pytest.raises(RuntimeError):
        site.cluster.shell(
            head, "ray", "job", "submit", "--address", DASHBOARD, "--", "true", RAY_AUTH_TOKEN="0" * 64
        )


def test_the_head_dies_and_comes_back_and_meanwhile_every_request_is_answered(
    site, wait_for: Callable[..., object]
) -> None:
    with site.asking("lasting") as asking:
        wait_for(lambda: site.get("drift").get("step") is not None)
        site.cluster.head.kill()
        told = len(asking.answered)
        wait_for(lambda: len(asking.answered) > told + 200)  # without any head
        site.cluster.start_head()
        before = site.get("drift").get("step")
        wait_for(lambda: site.get("drift").get("step") > before, 180)  # the drift actor goes on
    assert not asking.failed
    nodes = json.loads(site.cluster.shell(site.cluster.head, "ray", "list", "nodes", "--format", "json", seconds=60))
    assert [node["state"] for node in nodes].count("ALIVE") == 3


def test_a_cable_is_cut_and_every_request_is_answered(site, wait_for: Callable[..., object]) -> None:
    with site.asking("lasting") as asking:
        wait_for(lambda: len(asking.answered) > 100)
        site.cluster.hosts["spot"].cut()
        told = len(asking.answered)
        wait_for(lambda: len(asking.answered) > told + 500)
        site.cluster.hosts["spot"].mend()
    assert not asking.failed
