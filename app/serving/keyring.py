"""Which keys are good now? A replica follows their file as it follows the line-up, so a revoked key ends without a restart.

While the file cannot be read, or is none, the keys last read stay good; where it is gone, no key is.
"""

import logging
import threading
from collections.abc import Hashable
from dataclasses import dataclass

from app.keys import Key, Scope, read_keys
from app.serving.rate import Bucket
from app.types import UserError
from app.workspace import PROMPT, mark

log = logging.getLogger(__name__)

SECONDS = 0.5
"""Time between two looks."""


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


class Keyring:
    """Follows the keys at `uri`; `known` are those of the last look."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._seen: Hashable = None
        self._said = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self.known: tuple[Known, ...] = ()

    def first(self) -> None:
        """Read the keys. Raises UserError and OSError where they cannot be."""
        seen = mark(self._uri)
        self._take(read_keys(self._uri))
        self._seen = seen

    def start(self) -> None:
        """Start to follow, on a thread."""
        self._thread.start()

    def close(self) -> None:
        """Follow no more; blocks until the thread has ended."""
        self._end.set()
        self._thread.join()

    def look(self) -> None:
        """Take the file's keys if it has changed since the last look."""
        try:
            seen = mark(self._uri, PROMPT)
            if seen != self._seen:
                self._take(read_keys(self._uri, PROMPT))
                self._seen = seen
            self._said = ""
        except (UserError, OSError) as error:
            if str(error) != self._said:  # once, not twice a second
                log.warning("%s; the keys last read stay good", error)
            self._said = str(error)

    def _run(self) -> None:
        while not self._end.wait(SECONDS):
            self.look()

    def _take(self, keys: tuple[Key, ...]) -> None:
        before = {known.digest: known for known in self.known}
        self.known = tuple(Known.of(key, before.get(bytes.fromhex(key.sha256))) for key in keys)
