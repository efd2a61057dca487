"""A service with a certificate on Ray: HTTPS and nothing else, keys within it, renewed while it answers."""

import contextlib
import ssl
import time
from collections.abc import Callable

import httpx
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
    trained: TrainedVersion,
    declaration: Declaration,
    workspace: Workspace,
    certificate: Callable[..., Tls],
    port: int,
    haproxy_listens: Callable[[], set[tuple[str, int]]],
) -> None:
    from ray import serve

    from app.serving.deploy import deploy

    serve.shutdown()  # one cluster has one listener
    serving = declaration.spec.serve.model_copy(
        update={"tls": certificate(), "keys": "required", "port": port, "host": "127.0.0.2"}
    )
    spec = declaration.spec.model_copy(update={"name": "sealed", "serve": serving})
    _, key = add_key(workspace.uri("sealed", FILE), "app", ("predict",))

    def ask(context: ssl.SSLContext | None) -> httpx.Response:
        assert context is not None
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{address}/predict", json=ROW, headers=headers, verify=context, timeout=60)

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
        until = time.monotonic() + 60
        answer = None
        while answer is None:  # an HAProxy that Ray had replaced may answer its last connections
            assert time.monotonic() < until
            with contextlib.suppress(httpx.TransportError):
                answer = ask(trust(serving))
        assert answer.status_code == 200
        listening = haproxy_listens()
        assert ("127.0.0.2", port) in listening
        assert {ip for ip, _ in listening - {("127.0.0.2", port)}} == {"127.0.0.1"}
    finally:
        serve.shutdown()
