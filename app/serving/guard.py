"""May this request pass? It carries a key that is good, good for what is asked, and not used up: else 401, 403, 429.

A key comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`. For pages a browser may send it as Basic, any user name
and the key as password: it asks for one by itself. Basic is taken for nothing else, since a browser sends it along with
whatever another site makes it post.
"""

import base64
import binascii
import math
import time
from collections.abc import Callable, Iterable
from hmac import compare_digest

from app.keys import Scope, digest
from app.serving.asgi import Headers
from app.serving.keyring import Keyring
from app.serving.problems import Problem
from app.serving.rate import Bucket

_SCOPES: dict[str, Scope] = {"predict": "predict", "labels": "labels"}  # every other page: read
_HOW = "send it as Authorization: Bearer KEY, or as X-API-Key: KEY"


class Guard:
    """Lets through what carries a key of the ring; `service` is the realm that clients hear of."""

    def __init__(self, keyring: Keyring, service: str, clock: Callable[[], float] = time.time) -> None:
        self._keyring = keyring
        self._clock = clock
        self._realm = f'realm="{service}"'

    def admit(self, headers: Iterable[tuple[bytes, bytes]], page: str) -> Bucket | None:
        """Return what the request's rows beyond the first are taken from, if the key has a rate.

        Raises Problem: 401 without a good key, 403 for one that is not good for this page, 429 where its rate is used up.
        """
        scope = _SCOPES.get(page, "read")
        bearer = plain = None
        for name, value in headers:
            if name == b"authorization":
                bearer = _credentials(value, basic=scope == "read")
            elif name == b"x-api-key":
                plain = value.strip()
        sent = bearer or plain
        if not sent:
            raise Problem(401, "no-key", f"no key was sent; {_HOW}", headers=self._challenges(scope))
        found, ours = None, digest(sent)
        for known in self._keyring.known:  # all of them, always: time tells nothing of which one is near
            if compare_digest(known.digest, ours):
                found = known
        if found is None:
            raise self._refused("unknown-key", "this key is not known, or was revoked", scope)
        if found.expires <= self._clock():
            raise self._refused("expired-key", "this key has expired", scope)
        if scope not in found.scopes:
            good = ", ".join(sorted(found.scopes))
            challenge = f'Bearer {self._realm}, error="insufficient_scope", scope="{scope}"'
            detail = f"this key is good for {good or 'nothing'}; needed is {scope}"
            raise Problem(403, "scope", detail, headers=((b"www-authenticate", challenge.encode()),))
        if found.bucket is not None and (seconds := found.bucket.wait()):
            detail = f"this key may ask {found.bucket.rate:g} rows a second; Retry-After says when to come again"
            raise Problem(429, "key-rate", detail, headers=((b"retry-after", b"%d" % math.ceil(seconds)),))
        return found.bucket

    def _refused(self, code: str, detail: str, scope: Scope) -> Problem:
        return Problem(401, code, detail, headers=self._challenges(scope, ', error="invalid_token"'))

    def _challenges(self, scope: Scope, error: str = "") -> Headers:
        bearer = (b"www-authenticate", f"Bearer {self._realm}{error}".encode())
        return (bearer, (b"www-authenticate", f"Basic {self._realm}".encode())) if scope == "read" else (bearer,)


def _credentials(value: bytes, *, basic: bool) -> bytes | None:
    """Return the key of an Authorization header; None where it holds none that is taken."""
    scheme, _, rest = value.partition(b" ")
    scheme = scheme.lower()
    if scheme == b"bearer":
        return rest.strip()
    if scheme == b"basic" and basic:
        try:
            return base64.b64decode(rest, validate=True).partition(b":")[2]
        except binascii.Error:
            return None
    return None
