"""Where do Serve's parts listen? HAProxy at the declared address, all behind it on this machine alone.

Ray's HAProxy knows no TLS, and its replicas listen in plain HTTP wherever HAProxy does. Our launcher therefore gives
HAProxy its `bind` line (`app.cluster`). On a cluster of several hosts replicas have to listen beyond loopback: there
they answer only what a HAProxy vouches for. Where there is no HAProxy, Serve's own proxy takes the certificate.
"""

import ipaddress
import os
import socket
from pathlib import Path

from ray.serve.config import HTTPOptions
from ray.util import get_node_ip_address

from app import cluster
from app.spec import Serve, Tls
from app.types import UserError

_BEHIND = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - replicas of several hosts, behind a HAProxy on each
_PROTOCOLS = "alpn http/1.1 ssl-min-ver TLSv1.2"


def listen(serving: Serve, up: bool) -> HTTPOptions:
    """Return what Serve is to be started with; `up` says that it is already, which a renewed certificate reaches.

    Raises UserError where Serve is up at another address or with another certificate (on a cluster that was joined:
    where that would leave a service open), and where nothing here can speak TLS.
    """
    front = cluster.front()
    if front is None:
        if up and serving.on_loopback and serving.keys == "auto" and _answers_beyond_loopback(serving.port):
            raise UserError(
                f"this cluster's services answer beyond loopback at port {serving.port} already, where nobody would be "
                f"asked for a key: found serve.host {serving.host} declared; say serve.keys: required, or the address "
                "that they have: one cluster has one listener"
            )
        return _without_launcher(serving)
    bind = f"bind {serving.listens}"
    if serving.tls is not None:
        bind += f" ssl crt {_certificate(front)} {_PROTOCOLS}"
    found = front.read_text() if front.exists() else ""
    if up and (found != bind or (serving.tls is not None and not _linked(front, serving.tls))):
        raise UserError(
            f"this cluster's services answer at {found.removeprefix('bind ').partition(' crt ')[0] or 'another address'} "
            f"already, found {serving.host}:{serving.port}{' with TLS' if serving.tls is not None else ''} declared: one "
            "cluster has one listener; stop it first (python -m jobs.serve DECLARATION --stop)"
        )
    if up and serving.tls is not None:
        _renew(front, serving.tls)
    elif not up:
        _link(front, serving.tls)
        front.write_text(bind)
    return HTTPOptions(host=_BEHIND, port=serving.port)


def _without_launcher(serving: Serve) -> HTTPOptions:
    if serving.tls is None:
        # Replicas are asked from other hosts as well, and answer what comes from a HAProxy alone (`app.cluster.voucher`).
        host = _EVERYWHERE if cluster.voucher() is not None else serving.host
        return HTTPOptions(host=host, port=serving.port)
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        raise UserError(
            "serve.tls: this cluster was started by others, and its HAProxy speaks no TLS. End TLS in the load balancer "
            "or ingress before it and leave serve.tls out, or start cluster and jobs with RAY_SERVE_ENABLE_HA_PROXY=0 "
            "and the certificate on every node"
        )
    return HTTPOptions(
        host=serving.host, port=serving.port, ssl_keyfile=serving.tls.key, ssl_certfile=serving.tls.certificate
    )


def _answers_beyond_loopback(port: int) -> bool:
    """Say whether the port is taken at this node's address in its network."""
    address = get_node_ip_address()  # type: ignore[no-untyped-call]
    if ipaddress.ip_address(address).is_loopback:
        return False
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def _certificate(front: Path) -> Path:
    return front.parent / "tls" / "service.pem"


def _key(front: Path) -> Path:
    return front.parent / "tls" / "service.pem.key"  # where HAProxy looks for it


def _linked(front: Path, tls: Tls) -> bool:
    found = tuple(str(link.readlink()) for link in (_certificate(front), _key(front)))
    return found == (tls.certificate, tls.key)


def _link(front: Path, tls: Tls | None) -> None:
    """Point HAProxy to certificate and key, where they are: a private key is not copied."""
    _certificate(front).parent.mkdir(exist_ok=True)
    for link in (_certificate(front), _key(front)):
        link.unlink(missing_ok=True)
    if tls is not None:
        _certificate(front).symlink_to(tls.certificate)
        _key(front).symlink_to(tls.key)


def _renew(front: Path, tls: Tls) -> None:
    """Give a running HAProxy the certificate as it is now; requests under way are not disturbed."""
    name = _certificate(front)
    texts = [Path(path).read_text() for path in (tls.certificate, tls.key)]
    pem = "\n".join(line for text in texts for line in text.splitlines() if line.strip())  # an empty line ends it
    for admin in front.parent.glob("*/admin.sock"):
        _tell(admin, f"set ssl cert {name} <<\n{pem}\n")
        answer = _tell(admin, f"commit ssl cert {name}")
        if "Success" not in answer:
            raise UserError(f"serve.tls: HAProxy does not take {tls.certificate}: {answer.strip()}")


def _tell(admin: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(10)
        talk.connect(str(admin))
        talk.sendall(command.encode() + b"\n")
        talk.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: talk.recv(4096), b"")).decode()
