"""A cluster of several hosts does its work while hosts die, and cables are cut: jobs end well, requests are answered."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]  # real hosts, killed for real


def test_a_table_is_prepared_and_a_network_trained_on_two_hosts_though_one_dies_meanwhile(
    site, wait_for: Callable[..., object], both: Callable[[], None]
) -> None:
    training = site.submit("jobs.train", "rides.yaml")
    training.until("epoch 3 of 20")
    preparing = site.submit("jobs.prepare", "rides.yaml", "--set", f"data.source={site.big}")
    wait_for(lambda: list(Path(site.workspace.root).glob("rides/data/*/rows/000002-*")), 90)
    assert not preparing.ended
    assert not training.ended
    site.cluster.hosts["spot"].kill()
    both()
    assert f"{24 * 60_000:,} rows kept" in preparing.result()
    said = training.result()
    assert "rides/1 is champion now" in said
