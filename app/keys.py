"""Who may ask the endpoint, and for what? One small file of keys' hashes that every replica follows.

The file holds the SHA-256 of each key, never a key. A key is 256 random bits: nobody finds it by trying, so a slow hash,
which protects passwords that somebody chose, would protect nothing here and cost every request.
"""

import datetime as dt
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec

from app.types import UserError
from app.workspace import PATIENT, read_bytes, write_bytes

FILE = "keys.json"
ENVIRONMENT = "EVERTRUE_KEY"
"""Where our own clients find the key they send."""

Scope: TypeAlias = Literal["predict", "labels", "read"]
"""What a key is good for: predictions; labels, which teach; and all that can be read, the console among it."""
SCOPES: tuple[Scope, ...] = get_args(Scope)

LEAST_RATE = 0.001

_PREFIX = "evt_"  # by which scanners of code and logs know a key that somebody lost
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class Key:
    """What is kept of a key: its name, the SHA-256 of it in hexadecimal digits, what it is good for and until when.

    `rate` is how many rows a second each replica takes from it, any number where it is None.
    """

    name: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...]
    created: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    expires: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None
    rate: Annotated[float, msgspec.Meta(ge=LEAST_RATE)] | None = None


@dataclass(frozen=True)
class _File:
    keys: tuple[Key, ...]


def digest(sent: bytes) -> bytes:
    """Return the SHA-256 by which a key is known."""
    return hashlib.sha256(sent).digest()


def read_keys(uri: str, patience: float = PATIENT) -> tuple[Key, ...]:
    """Read the keys at an address; none where there is no file.

    Raises UserError for a file that is none, OSError when it cannot be read.
    """
    try:
        return msgspec.json.decode(read_bytes(uri, patience), type=_File).keys
    except FileNotFoundError:
        return ()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{uri} holds no keys: {error}") from error


def add_key(
    uri: str, name: str, scopes: tuple[Scope, ...], expires: dt.timedelta | None = None, rate: float | None = None
) -> tuple[Key, str]:
    """Make a key; return what is kept of it, and the key itself, which nobody can tell again.

    Raises UserError for a name that is taken or none, and for an end beyond the calendar.
    """
    if not re.fullmatch(_NAME, name):
        raise UserError(f"name of a key: found {name!r}, allowed letters, digits, '.', '_' and '-', at most 64")
    before = read_keys(uri)
    if any(key.name == name for key in before):
        raise UserError(
            f"a key {name!r} is there already; revoke it first, or take another name and let both be good"
        )
    secret = _PREFIX + secrets.token_urlsafe(32)
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    try:
        until = now + expires if expires is not None else None
    except OverflowError:
        raise UserError(f"a key cannot be good for {expires}: that is beyond the calendar") from None
    key = Key(name, digest(secret.encode()).hex(), scopes, now, until, rate)
    _write(uri, (*before, key))
    return key, secret


def revoke_key(uri: str, name: str) -> None:
    """Make a key good for nothing. Raises UserError where there is none of this name."""
    before = read_keys(uri)
    if all(key.name != name for key in before):
        there = ", ".join(key.name for key in before) or "none"
        raise UserError(f"there is no key {name!r}; there are: {there}")
    _write(uri, tuple(key for key in before if key.name != name))


def _write(uri: str, keys: tuple[Key, ...]) -> None:
    write_bytes(uri, msgspec.json.format(msgspec.json.encode(_File(keys))))
