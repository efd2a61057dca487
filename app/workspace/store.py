"""How is a store read, written and listed? Whole objects only, each by one request that succeeds or leaves nothing.

A store that is away is asked again, with growing waits, for as long as the caller has patience; the log tells of it.
"""

import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from app.workspace.address import Address, Client, client, parse
from app.workspace.faults import fault_of

PATIENT = 75.0
"""Seconds that an outage is ridden out where nobody waits: a minute, and time to come back."""
PROMPT = 5.0
"""Seconds after which somebody who waits for an answer hears that there is none."""

_LONGEST_REQUEST = 300.0
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
_AT_ONCE = 4  # parts of a large object under way

_log = logging.getLogger(__name__)

Found = TypeVar("Found")


class Listed(NamedTuple):
    """A file of a folder: its path below that, bytes, and when it was written (UTC)."""

    name: str
    size: int
    written: dt.datetime


@dataclass(frozen=True)
class Store:
    """A place in a store. All methods raise ConnectionError for an outage that outlasts `patience` seconds.

    And StoreError for what trying again does not help, FileNotFoundError for an object that is not there.
    """

    address: Address
    patience: float = PATIENT

    @staticmethod
    def at(uri: str, patience: float = PATIENT) -> "Store":
        """Return the place at an address. Raises UserError for an address that is none."""
        return Store(parse(uri), patience)

    def read(self) -> bytes:
        """Return the whole object."""
        return self._try(self._get)

    def write(self, data: bytes | Path) -> None:
        """Put an object, the content of a file where `data` is a path, in the place of any other."""
        content = (
            data if isinstance(data, Path) else memoryview(data).cast("B")
        )  # Arrow gives buffers of another type
        self._try(lambda: obstore.put(self._client, self.address.key, content, max_concurrency=_AT_ONCE))

    def create(self, data: bytes) -> None:
        """Put an object where there is none, by a conditional put. Raises FileExistsError where there is one.

        One of our own, put by an earlier attempt whose answer was lost, is no other's: the contents tell.
        """
        unsure = False

        def attempt() -> None:
            nonlocal unsure
            try:
                obstore.put(self._client, self.address.key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                if not (unsure and self._get() == data):
                    raise
            except BaseError:
                unsure = True
                raise

        self._try(attempt)

    def tag(self) -> str | None:
        """Return what changes whenever the object does."""
        return self._try(lambda: obstore.head(self._client, self.address.key)["e_tag"])

    def exists(self) -> bool:
        """Say whether there is an object, or one below: a folder is there as long as something is in it."""
        try:
            self.tag()
        except FileNotFoundError:
            return self.holds()
        return True

    def holds(self) -> bool:
        """Say whether there is an object below. What a store has against us, it says to this rather than to a head."""
        return self._try(lambda: next(iter(self._below(1)), None)) is not None

    def files(self, recursive: bool = False) -> list[Listed]:
        """Return the objects directly below, or all of them; none where there is no folder."""

        def attempt() -> list[Listed]:
            if recursive:
                found = [meta for batch in self._below(1000) for meta in batch]
            else:
                found = list(obstore.list_with_delimiter(self._client, self._prefix)["objects"])
            # Servers and consoles mark an empty folder by an object of its name: that is no file in it.
            return [
                Listed(self._relative(meta["path"]), meta["size"], meta["last_modified"])
                for meta in found
                if meta["path"].startswith(self._prefix or "")
            ]

        return self._try(attempt)

    def folders(self) -> list[str]:
        """Return the names of the folders directly below."""
        found = self._try(lambda: obstore.list_with_delimiter(self._client, self._prefix)["common_prefixes"])
        return [self._relative(path) for path in found]

    def delete(self) -> None:
        """Delete the object; one that is gone is no mistake."""
        self._delete([self.address.key])

    def delete_all(self) -> None:
        """Delete every object below."""
        self._delete([f"{self._prefix or ''}{listed.name}" for listed in self.files(recursive=True)])

    def move(self, key: str) -> None:
        """Give the object another key: copied, then deleted."""
        self._try(lambda: obstore.copy(self._client, self.address.key, key))
        self.delete()

    @property
    def _client(self) -> Client:
        return client(self.address, self.patience if self.patience < PATIENT else _LONGEST_REQUEST)

    @property
    def _prefix(self) -> str | None:
        return f"{self.address.key}/" if self.address.key else None

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._prefix or "")

    def _get(self) -> bytes:
        return obstore.get(self._client, self.address.key).bytes().to_bytes()

    def _below(self, at_once: int) -> "obstore.ListStream[Sequence[obstore.ObjectMeta]]":
        return obstore.list(self._client, self._prefix, chunk_size=at_once)

    def _delete(self, keys: Sequence[str]) -> None:
        try:
            self._try(lambda: obstore.delete(self._client, keys))
        except FileNotFoundError:  # Google and Azure tell of one that is gone, and may have stopped there
            for key in keys if len(keys) > 1 else ():
                self._delete([key])

    def _try(self, attempt: Callable[[], Found]) -> Found:
        end = time.monotonic() + self.patience
        wait, away = _FIRST_WAIT, False
        while True:
            try:
                found = attempt()
            except (BaseError, FileNotFoundError) as error:
                fault = fault_of(error, self.address)
                if not isinstance(fault, ConnectionError) or time.monotonic() + wait > end:
                    raise fault from None  # what the client says may hold more than a log should
                if not away:
                    _log.warning("%s; tried again for up to %.0f seconds", fault, self.patience)
                away = True
            else:
                if away:
                    _log.warning("%s answers again", self.address.server)
                return found
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, _LONGEST_WAIT)
