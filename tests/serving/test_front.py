"""HAProxy, as Ray configures it and our launcher starts it, speaks TLS in front; all behind it stays on this machine."""

import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig

from app import cluster
from app.serving import front
from app.serving.front import listen
from app.serving.listener import connection
from app.spec import Serve, Tls
from app.types import UserError

Make = Callable[..., Tls]


class Replica(BaseHTTPRequestHandler):
    """Stands in for a replica."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Cluster:
    """HAProxy in front of one replica, started as Ray would, with what `listen` returned."""

    def __init__(self, state: Path, chosen: dict[str, str]) -> None:
        self.state, self.chosen = state, chosen
        self.replica = ThreadingHTTPServer(("127.0.0.1", 0), Replica)
        self.thread = threading.Thread(target=self.replica.serve_forever, args=(0.01,))
        self.thread.start()
        self.haproxy: subprocess.Popen[bytes] | None = None

    def start(self, serving: Serve) -> None:
        options = listen(serving, up=False)
        node = self.state / "node"
        (self.state / "server-state").touch()
        backend = BackendConfig(
            name="http-rides",
            path_prefix="/rides",
            app_name="rides",
            servers=[ServerConfig(name="replica", host="127.0.0.1", port=self.replica.server_port)],
        )
        config = HAProxyConfig(
            http_options=options,
            socket_path=str(node / "admin.sock"),
            server_state_base=str(self.state),
            server_state_file=str(self.state / "server-state"),
            enable_hap_optimization=False,
            stats_port=int(self.chosen["RAY_SERVE_HAPROXY_STATS_PORT"]),
            metrics_port=int(self.chosen["RAY_SERVE_HAPROXY_METRICS_PORT"]),
            metrics_enabled=False,
            http_health_check_path=None,
        )
        api = HAProxyApi(config, {"http-rides": backend}, str(node / "haproxy.cfg"))
        api._generate_config_file_internal()
        command = [self.chosen["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(node / "haproxy.cfg")]
        self.haproxy = subprocess.Popen(command, stderr=subprocess.PIPE)

    def close(self) -> None:
        if self.haproxy is not None:
            self.haproxy.terminate()
            self.haproxy.communicate()
        self.replica.shutdown()
        self.thread.join()
        self.replica.server_close()


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name in ("BINARY_PATH", "STATS_PORT", "METRICS_PORT"):
        monkeypatch.delenv(f"RAY_SERVE_HAPROXY_{name}", raising=False)
    state = tmp_path_factory.mktemp("state")
    chosen = cluster.settings(state, local=True)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", chosen["RAY_SERVE_HAPROXY_BINARY_PATH"])
    made = Cluster(state, chosen)
    yield made
    made.close()


def ask(serving: Serve, here: Cluster) -> tuple[int, bytes]:
    """Ask until HAProxy is up."""
    while True:
        try:
            asking = connection(serving)
            asking.request("GET", "/rides/drift")
            answer = asking.getresponse()
            content = answer.read()
            asking.close()
        except (ConnectionRefusedError, TimeoutError):
            assert here.haproxy is not None
            assert here.haproxy.poll() is None, here.haproxy.stderr and here.haproxy.stderr.read()
        else:
            return answer.status, content


def test_haproxy_ends_tls_and_speaks_nothing_else(here: Cluster, certificate: Make, port: int) -> None:
    serving = Serve(port=port, tls=certificate())
    here.start(serving)
    assert ask(serving, here) == (200, b"/rides/drift")
    plain = connection(Serve(port=port))
    plain.request("GET", "/rides/drift")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain.getresponse()
    plain.close()


def test_a_renewed_certificate_is_taken_while_the_service_is_up(
    here: Cluster, certificate: Make, port: int, tmp_path: Path
) -> None:
    serving = Serve(port=port, tls=certificate())
    here.start(serving)
    ask(serving, here)
    certificate()  # another, in the same files
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(serving, here)
    listen(serving, up=True)
    assert ask(serving, here)[0] == 200
    (tmp_path / "localhost.crt").write_text("no PEM")
    with pytest.raises(UserError, match="HAProxy does not take"):
        listen(serving, up=True)


def test_without_a_certificate_haproxy_listens_at_the_declared_address(here: Cluster, port: int) -> None:
    serving = Serve(host="127.0.0.2", port=port)
    here.start(serving)
    assert ask(serving, here) == (200, b"/rides/drift")
    with pytest.raises(ConnectionRefusedError):
        connection(Serve(port=port)).request("GET", "/rides/drift")


def test_all_behind_haproxy_listens_on_loopback_and_takes_no_certificate(here: Cluster, certificate: Make) -> None:
    for tls in (None, certificate()):
        options = listen(Serve(host="0.0.0.0", tls=tls), up=False)
        assert (options.host, options.port, options.ssl_certfile) == ("127.0.0.1", 8000, None)


def test_the_private_key_is_nowhere_but_in_its_file(here: Cluster, certificate: Make) -> None:
    tls = certificate()
    listen(Serve(tls=tls), up=False)
    assert [str(link.readlink()) for link in sorted((here.state / "tls").iterdir())] == [tls.certificate, tls.key]


def test_only_tls_of_today_is_spoken(here: Cluster, certificate: Make) -> None:
    listen(Serve(tls=certificate()), up=False)
    assert (here.state / "front").read_text().endswith("alpn http/1.1 ssl-min-ver TLSv1.2")


def test_one_cluster_has_one_listener(here: Cluster, certificate: Make) -> None:
    one, two = certificate("one"), certificate("two")
    listen(Serve(tls=one), up=False)
    assert listen(Serve(tls=one), up=True)
    for other in (Serve(), Serve(tls=two), Serve(tls=one, port=9000), Serve(tls=one, host="0.0.0.0")):
        with pytest.raises(UserError, match="one cluster has one listener"):
            listen(other, up=True)
    assert listen(Serve(tls=two), up=False)  # Serve was shut down in between


def test_where_serves_own_proxy_answers_it_takes_the_certificate(
    certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    tls = certificate()
    options = listen(Serve(host="0.0.0.0", tls=tls), up=False)
    assert (options.host, options.ssl_certfile, options.ssl_keyfile) == ("0.0.0.0", tls.certificate, tls.key)
    assert listen(Serve(host="0.0.0.0"), up=False).ssl_certfile is None


def test_an_haproxy_that_others_start_is_not_trusted_with_tls(
    certificate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    assert listen(Serve(host="0.0.0.0"), up=False).host == "0.0.0.0"
    with pytest.raises(UserError, match="its HAProxy speaks no TLS"):
        listen(Serve(tls=certificate()), up=False)


@pytest.mark.parametrize(
    ("mode", "front", "host"),
    [("token", True, "0.0.0.0"), ("token", False, "127.0.0.1"), ("disabled", True, "127.0.0.1")],
)
def test_replicas_listen_beyond_loopback_only_where_a_haproxy_vouches_for_their_requests(
    monkeypatch: pytest.MonkeyPatch, mode: str, front: bool, host: str
) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/node/bin/evertrue-haproxy")
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.delenv(cluster.FRONT, raising=False)
    if front:
        monkeypatch.setenv(cluster.FRONT, "127.0.0.1:8000")
    assert listen(Serve(), up=False).host == host


@pytest.mark.parametrize(
    ("declared", "good"),
    [
        ({}, False),
        ({"keys": "required"}, True),
        ({"keys": "none"}, True),
        ({"host": "0.0.0.0"}, True),
    ],
    ids=["would ask nobody", "asks for keys", "said aloud", "as the others"],
)
def test_a_service_said_to_be_on_loopback_is_not_left_open_by_a_cluster_that_answers_beyond_it(
    monkeypatch: pytest.MonkeyPatch, port: int, declared: dict[str, str], good: bool
) -> None:
    connect = socket.create_connection

    def at_the_nodes_address(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address[0] == "192.0.2.1"
        return connect(("127.0.0.1", address[1]), timeout)

    monkeypatch.setattr(front, "get_node_ip_address", lambda: "192.0.2.1")
    monkeypatch.setattr(socket, "create_connection", at_the_nodes_address)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/node/bin/evertrue-haproxy")
    with socket.create_server(("127.0.0.1", port)):
        serving = Serve.model_validate({"port": port, **declared})
        assert listen(serving, up=False)
        if good:
            assert listen(serving, up=True)
        else:
            with pytest.raises(UserError, match=r"answer beyond loopback at port .* serve\.keys: required"):
                listen(serving, up=True)
    assert listen(serving, up=True)  # nobody there
