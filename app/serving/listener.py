"""At which address, and in which tongue, is the endpoint asked? HTTP, or HTTPS with the declared certificate.

Our own clients trust that very certificate, whatever name it bears: they know which one they mean.
"""

import contextlib
import http.client
import os
import ssl
import stat
from pathlib import Path

from app.spec import Serve, Spec, Tls
from app.types import UserError

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listened on, never asked
_STRANGERS = stat.S_IRWXO


def address(spec: Spec) -> str:
    """Return the service's address, as a client on this machine asks it."""
    host = _ANY.get(spec.serve.host, spec.serve.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http{'s' if spec.serve.tls is not None else ''}://{shown}:{spec.serve.port}/{spec.name}"


def connection(serving: Serve) -> http.client.HTTPConnection:
    """Return a connection to the endpoint, to be opened by its first request."""
    host = _ANY.get(serving.host, serving.host)
    if serving.tls is None:
        return http.client.HTTPConnection(host, serving.port, timeout=5)
    return http.client.HTTPSConnection(host, serving.port, timeout=5, context=trust(serving))


def trust(serving: Serve) -> ssl.SSLContext | None:
    """Return what believes the declared certificate alone; None where none is declared.

    Raises UserError where it cannot be read.
    """
    if serving.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is enough, without its root
    try:
        context.load_verify_locations(serving.tls.certificate)
    except ssl.SSLError as error:
        raise UserError(f"serve.tls.certificate: {serving.tls.certificate} holds no certificate: {error}") from None
    except OSError as error:
        raise UserError(f"serve.tls.certificate: {serving.tls.certificate}: {error.strerror}") from None
    return context


def check(serving: Serve) -> None:
    """Raise UserError where the declared certificate and key could not serve: missing, readable by strangers, not a pair,
    locked by a password, or out of date.
    """
    if serving.tls is None:
        return
    for place in ("certificate", "key"):
        path = Path(getattr(serving.tls, place))
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise UserError(f"serve.tls.{place}: {path}: {error.strerror}") from None
        if not stat.S_ISREG(mode) or not os.access(path, os.R_OK):
            raise UserError(f"serve.tls.{place}: {path} is no file that this user may read")
        if place == "key" and mode & _STRANGERS:
            found = f"{stat.S_IMODE(mode):04o}"
            raise UserError(
                f"serve.tls.key: every user may open {path}: found mode {found}, allowed are 0600 and 0640"
            )
    _shake_hands(_server(serving.tls), trust(serving), serving.tls)


def _server(tls: Tls) -> ssl.SSLContext:
    def locked() -> str:
        raise UserError(f"serve.tls.key: {tls.key} is locked by a password; allowed is a key without one")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=locked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UserError(f"serve.tls: key {tls.key} does not belong to certificate {tls.certificate}") from None
        raise UserError(
            f"serve.tls: {tls.certificate} and {tls.key} are no certificate and key in PEM: {error}"
        ) from None
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext | None, tls: Tls) -> None:
    """Let a client meet the server in memory: that tells whether the certificate is good today."""
    assert client is not None
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in sides:
            try:
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
            except ssl.SSLCertVerificationError as error:
                raise UserError(f"serve.tls.certificate: {tls.certificate}: {error.verify_message}") from None
