"""A certificate that could not serve is a clear mistake before anything starts; a good one is asked by HTTPS."""

import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from app.replay import Client
from app.serving import deploy
from app.serving.listener import address, check, connection, trust
from app.spec import Serve, Spec, Tls
from app.types import UserError

Make = Callable[..., Tls]


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ready", "generation": 3}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serving(certificate: Make) -> Any:
    tls = certificate()
    server = HTTPServer(("127.0.0.1", 0), Ready)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Serve(host="0.0.0.0", port=server.server_port, tls=tls)
    server.shutdown()
    thread.join()
    server.server_close()


def described(serving: Serve) -> Spec:
    return Spec.model_validate(
        {"name": "rides", "task": {"target": "late"}, "data": {"source": "x"}, "serve": serving.model_dump()}
    )


@pytest.mark.parametrize(
    ("host", "tls", "expected"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8000/rides"),
        ("0.0.0.0", False, "http://127.0.0.1:8000/rides"),
        ("models.example.org", True, "https://models.example.org:8000/rides"),
        ("::", True, "https://[::1]:8000/rides"),
    ],
)
def test_the_address_is_one_that_can_be_asked(host: str, tls: bool, expected: str) -> None:
    files = Tls(certificate="/tls.crt", key="/tls.key") if tls else None
    assert address(described(Serve(host=host, tls=files))) == expected


def test_a_good_pair_passes_whatever_name_it_bears(certificate: Make) -> None:
    check(Serve())
    check(Serve(tls=certificate()))
    check(Serve(tls=certificate("models.example.org")))


@pytest.mark.parametrize(("place", "file"), [("certificate", "localhost.crt"), ("key", "localhost.key")])
def test_a_file_that_is_missing_no_file_or_no_pem_is_told(
    certificate: Make, tmp_path: Path, place: str, file: str
) -> None:
    tls = certificate()
    with pytest.raises(UserError, match=rf"serve\.tls\.{place}: /nowhere: No such file"):
        check(Serve(tls=tls.model_copy(update={place: "/nowhere"})))
    with pytest.raises(UserError, match=rf"serve\.tls\.{place}: {tmp_path} is no file"):
        check(Serve(tls=tls.model_copy(update={place: str(tmp_path)})))
    (tmp_path / file).write_text("no PEM")
    with pytest.raises(UserError, match="are no certificate and key in PEM"):
        check(Serve(tls=tls))


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601])
def test_a_key_that_every_user_may_open_is_refused(certificate: Make, mode: int) -> None:
    tls = certificate()
    Path(tls.key).chmod(mode)
    with pytest.raises(UserError, match=rf"every user may open .*: found mode 0{mode:o}, allowed are 0600 and 0640"):
        check(Serve(tls=tls))
    Path(tls.key).chmod(0o640)
    check(Serve(tls=tls))


def test_a_key_of_another_certificate_is_refused(certificate: Make) -> None:
    mixed = Tls(certificate=certificate("one").certificate, key=certificate("two").key)
    with pytest.raises(UserError, match=r"two\.key does not belong to certificate .*one\.crt"):
        check(Serve(tls=mixed))


def test_a_key_behind_a_password_is_refused_and_nobody_is_asked_for_it(certificate: Make) -> None:
    tls = certificate()
    key = serialization.load_pem_private_key(Path(tls.key).read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path(tls.key).write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(UserError, match="locked by a password"):
        check(Serve(tls=tls))


@pytest.mark.parametrize(("days", "said"), [((-30, -1), "certificate has expired"), ((1, 30), "not yet valid")])
def test_a_certificate_that_is_not_good_today_is_refused(certificate: Make, days: tuple[int, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(Serve(tls=certificate(days=days)))


def test_a_deployment_waits_for_the_service_by_https(serving: Serve) -> None:
    deploy._wait(described(serving), 3)


def test_the_replays_client_asks_by_https_and_believes_the_declared_certificate_alone(
    serving: Serve, certificate: Make
) -> None:
    here = address(described(serving))
    assert Client(here, trust=trust(serving)).get("readyz")["generation"] == 3
    for other in (trust(Serve(tls=certificate("other"))), None):
        with pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"):
            Client(here, trust=other).get("readyz")


def test_a_stranger_in_the_services_place_is_not_believed(serving: Serve, certificate: Make) -> None:
    elsewhere = serving.model_copy(update={"tls": certificate("other")})
    with closing(connection(elsewhere)) as asking, pytest.raises(ssl.SSLCertVerificationError):
        asking.request("GET", "/rides/readyz")
