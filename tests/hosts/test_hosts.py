"""A cluster of several hosts does its work while hosts die, and cables are cut: jobs end well, requests are answered.

The tests are chapters of one story, told in order on one cluster: each begins with what the one before has left.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import pyarrow as pa
import pyarrow.parquet as pq

# Real hosts, killed for real; jobs submitted as a user does, from a directory that is no clone.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


def test_0(site):
    site.submit("jobs.train", "rides.yaml", "--set", "train.num_workers=0", "--set", "train.epochs=3").result()
    site.submit("jobs.deploy", "rides.yaml").result()


def test_a_table_is_prepared_and_a_network_trained_on_two_hosts_though_one_dies_meanwhile(
    site, wait_for: Callable[..., object]
) -> None:
    training = site.submit("jobs.train", "rides.yaml")
    training.until("epoch 2 of 12")
    preparing = site.submit("jobs.prepare", "rides.yaml", "--set", f"data.source={site.big}")
    wait_for(lambda: list(Path(site.workspace.root).glob("rides/data/*/rows/000002-*")), 90)
    assert not preparing.ended
    assert not training.ended
    site.kill_and_start("spot")
    assert f"{site.big_rows:,} rows kept" in preparing.result()
    assert "rides/1 is champion now" in training.result()


def test_a_service_is_put_up_though_a_host_dies_meanwhile(site, wait_for: Callable[..., object]) -> None:
    deploying = site.submit("jobs.deploy", "rides.yaml")
    wait_for(lambda: "ServeReplica" in site.processes("spot"), 90)
    assert not deploying.ended
    site.kill_and_start("spot")
    assert "rides/1 answers" in deploying.result()
    wait_for(lambda: "ServeReplica" in site.processes("spot"), 90)


def test_a_table_is_scored_and_every_request_answered_though_a_host_dies_meanwhile(
    site, wait_for: Callable[..., object]
) -> None:
    out = site.folder / "scores"
    with site.asking("lasting") as asking:
        predicting = site.submit("jobs.predict", "rides.yaml", site.big, str(out))
        wait_for(lambda: list(out.glob("part-00002*")), 90)
        assert not predicting.ended
        site.kill_and_start("spot")
        assert f"{site.big_rows:,} rows scored" in predicting.result()
        wait_for(lambda: "ServeReplica" in site.processes("spot"), 90)
    assert not asking.failed
    assert len(asking.answered) > 500
    scored = pa.concat_tables(pq.read_table(part, columns=["ride"]) for part in sorted(out.glob("part-*.parquet")))
    assert scored.num_rows == len(scored["ride"].unique()) == site.big_rows


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
        wait_for(lambda: site.get("drift").get("step") > before, 90)  # the drift actor goes on
    assert not asking.failed
    jobs = json.loads(site.cluster.shell(site.cluster.head, "ray", "list", "nodes", "--format", "json", seconds=60))
    assert sorted(node["state"] for node in jobs).count("ALIVE") == 3


def test_a_cable_is_cut_and_every_request_is_answered(site, wait_for: Callable[..., object]) -> None:
    with site.asking("lasting") as asking:
        wait_for(lambda: len(asking.answered) > 100)
        site.cluster.hosts["spot"].cut()
        told = len(asking.answered)
        wait_for(lambda: len(asking.answered) > told + 500)
        site.cluster.hosts["spot"].mend()
    assert not asking.failed
