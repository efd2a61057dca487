"""Which keys are good now? A replica follows their file as it follows the line-up, so a revoked key ends without a restart.

While the file cannot be read, or is none, the keys last read stay good; where it is gone, no key is.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from app.keys import Key, Scope, read_keys
from app.serving.looking import Looking
from app.serving.rate import Bucket
from app.workspace import PROMPT, mark


@dataclass(frozen=True)
class Known:
    """A key as a request is held against it; `expires` is in seconds since 1970, `bucket` what is left of its rate."""

    digest: bytes
    scopes: frozenset[Scope]
    expires: float
    bucket: Bucket | None

    @staticmethod
    def of(key: Key, before: "Known | None") -> "Known":
        """Make a key ready; the bucket of the same key before goes on."""
        expires = key.expires.timestamp() if key.expires is not None else float("inf")
        bucket = before.bucket if before is not None else None
        if key.rate is None:
            bucket = None
        elif bucket is None or bucket.rate != key.rate:
            bucket = Bucket(key.rate)
        return Known(bytes.fromhex(key.sha256), frozenset(key.scopes), expires, bucket)


class Keyring(Looking):
    """Follows the keys at `uri`; `known` are those of the last look."""

    def __init__(self, uri: str) -> None:
        super().__init__("keys", "the keys last read stay good")
        self._uri = uri
        self._seen: Hashable = None
        self.known: tuple[Known, ...] = ()

    def first(self) -> None:
        """Read the keys. Raises UserError and OSError where they cannot be."""
        seen = mark(self._uri)
        self._take(read_keys(self._uri))
        self._seen = seen

    def _look(self) -> None:
        seen = mark(self._uri, PROMPT)
        if seen != self._seen:
            self._take(read_keys(self._uri, PROMPT))
            self._seen = seen

    def _fail(self) -> None:
        """Keep the keys last read."""

    def _take(self, keys: tuple[Key, ...]) -> None:
        before = {known.digest: known for known in self.known}
        self.known = tuple(Known.of(key, before.get(bytes.fromhex(key.sha256))) for key in keys)
