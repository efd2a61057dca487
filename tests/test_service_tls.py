"""A service with a certificate on Ray: HTTPS and nothing else, keys within it, renewed while it answers."""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable

import httpx
import psutil
import pytest

from app.declaration import Declaration
from app.keys import FILE, add_key
from app.pipeline import TrainedVersion
from app.serving.listener import trust
from app.spec import Tls
from app.types import UserError
from app.workspace import Workspace

pytestmark = pytest.mark.ray

ROW = {"distance": 4.5, "passengers": 2, "zone": "airport", "rain": True}


def test_a_service_with_a_certificate_answers_by_https_alone_and_takes_a_renewed_one(
    trained: TrainedVersion, declaration: Declaration, workspace: Workspace, certificate: Callable[..., Tls]
) -> None:
    from ray import serve

    from app.serving.deploy import deploy

    serve.shutdown()  # one cluster has one listener
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    serving = declaration.spec.serve.model_copy(
        update={"tls": certificate(), "keys": "required", "port": port, "host": "127.0.0.2"}
    )
    spec = declaration.spec.model_copy(update={"name": "sealed", "serve": serving})
    _, key = add_key(workspace.uri("sealed", FILE), "app", ("predict",))

    def ask(context: ssl.SSLContext | None) -> httpx.Response:
        assert context is not None
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{address}/predict", json=ROW, headers=headers, verify=context, timeout=30)

    try:
        address = deploy(spec, workspace, trained.bundle, "1")
        assert address == f"https://127.0.0.2:{port}/sealed"
        before = trust(serving)
        assert ask(before).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(address.replace("https", "http") + "/readyz")
        with pytest.raises(UserError, match="one cluster has one listener"):
            deploy(declaration.spec, workspace, trained.bundle, "1")
        certificate()  # renewed, in the same files
        deploy(spec, workspace, trained.bundle, "1")
        until = time.monotonic() + 30
        answer = None
        while answer is None:  # an HAProxy that Ray had replaced may answer its last connections
            assert time.monotonic() < until
            with contextlib.suppress(httpx.ConnectError):
                answer = ask(trust(serving))
        assert answer.status_code == 200
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for process in psutil.process_iter()
            if process.name() == "haproxy" and process.uids().real == psutil.Process().uids().real
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert ("127.0.0.2", port) in listening
        assert {ip for ip, _ in listening - {("127.0.0.2", port)}} == {"127.0.0.1"}
    finally:
        serve.shutdown()
