"""Who is told when a person is needed? Entries that page are posted to a webhook, by a thread of their own.

The pages go out in the ledger's order, each until it is taken. `<name>/alerts.json` remembers the last one: after a
restart at most that one is posted again, and its Idempotency-Key, the entry's id, tells the receiver so. The
address may hold a secret: no message of ours names it.
"""

import http.client
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from app.decisions.ledger import Entry, pages
from app.spec import Spec
from app.telemetry import LoopMetrics
from app.types import UserError
from app.workspace import Workspace, read_bytes, write_bytes

ENVIRONMENT = "EVERTRUE_WEBHOOK"
TIMEOUT = 10.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0
STALE = 86_400_000
"""Age (ms, by the clock) from which a page that nobody was told of is news no more: a webhook set up late is not flooded."""

_TRY_AGAIN = {408, 425, 429, *range(500, 600)}

log = logging.getLogger(__name__)


def webhook_of(spec: Spec) -> str | None:
    """Return the address that pages go to, None where none are posted. Raises UserError when it is missing or none."""
    if not spec.alerts.webhook:
        return None
    address = os.environ.get(ENVIRONMENT)
    if not address:
        raise UserError(f"alerts.webhook is on, but ${ENVIRONMENT} is not set; allowed: an http(s) address")
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not re.fullmatch(r"[!-~]+\s*", address):
        raise UserError(
            f"${ENVIRONMENT} holds no http(s) address: http(s)://HOST[:PORT]/PATH, without spaces, in ASCII"
        )
    if "@" in parts.netloc:
        raise UserError(f"${ENVIRONMENT} holds a user or a password, which would not be sent; allowed: a secret path")
    return address.strip()


@dataclass
class _Told:
    """What is remembered: the number of the last page that was dealt with."""

    number: int = 0


class Alerts:
    """Posts pages to `webhook`, if there is one. `tell` returns at once; `close` ends the thread."""

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        webhook: str | None,
        metrics: LoopMetrics,
        waits: tuple[float, float] = (FIRST_WAIT, LONGEST_WAIT),
    ) -> None:
        self._memory = workspace.uri(name, "alerts.json")
        self._name = name
        self._webhook = webhook
        self._metrics = metrics
        self._first, self._longest = waits
        self._told = self._remembered()
        self._seen = self._told
        self._queue: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        if webhook is not None:
            self._thread.start()

    def tell(self, entries: Sequence[Entry], now: int) -> None:
        """Hand over the ledger; pages that are new to us are posted. `now` is the clock in ms."""
        fresh = [entry for entry in entries[self._seen :] if pages(entry) and now - entry.written_ms < STALE]
        self._seen = len(entries)
        if self._webhook is None or not fresh:
            return
        with self._changed:
            self._queue.extend(fresh)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Pages that are still to be taken."""
        return len(self._queue)

    def close(self) -> None:
        """End the thread after the attempt it is at; what is left is posted by the next one."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT)

    def _work(self) -> None:
        wait = self._first
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._queue)
                if self._closed:
                    return
                entry = self._queue[0]
            if self._dealt_with(entry):
                wait = self._first
                self._queue.popleft()
                continue
            self._metrics.page_failed()
            with self._changed:
                self._changed.wait_for(lambda: self._closed, wait)
            wait = min(2 * wait, self._longest)

    def _dealt_with(self, entry: Entry) -> bool:
        """Post a page and remember it; say no where it is worth another try."""
        try:
            status = self._post(entry)
            if status in _TRY_AGAIN:
                log.warning("the webhook answered %d to %s; it is tried again", status, entry.id)
                return False
            if status >= 300:
                log.error("the webhook answered %d to %s; it is not tried again", status, entry.id)
                self._metrics.page_failed()
            write_bytes(self._memory, msgspec.json.encode(_Told(entry.number)))
        except Exception as error:  # the thread has to outlive whatever a network or a disk can do
            # Its text could name the address.
            log.warning("%s was not posted to the webhook: %s; it is tried again", entry.id, type(error).__name__)
            return False
        return True

    def _post(self, entry: Entry) -> int:
        assert self._webhook is not None
        parts = urlsplit(self._webhook)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = {"service": self._name, "text": f"{self._name}: {entry.reason}", "entry": entry}
        headers = {"content-type": "application/json", "idempotency-key": entry.id}
        try:
            connection.request("POST", path, msgspec.json.encode(body), headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def _remembered(self) -> int:
        try:
            return msgspec.json.decode(read_bytes(self._memory), type=_Told).number
        except FileNotFoundError:
            return 0
        except msgspec.DecodeError as error:
            raise UserError(f"{self._memory} does not say which pages were posted: {error}; remove it") from error
