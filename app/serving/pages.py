"""What can be read about the service: its state, its decisions, and the console that shows both.

The drift actor publishes the state as a file and writes one file a decision; replicas hand them out, read at most once
a second and off the event loop.
"""

import asyncio
import logging
import re
import time
from urllib.parse import parse_qs

import msgspec

from app.console.page import HEADERS, files
from app.serving.asgi import Answer
from app.serving.bodies import JSON
from app.serving.problems import Problem
from app.workspace import PROMPT, join, list_files, read_bytes

log = logging.getLogger(__name__)

SECONDS = 1.0
"""How old an answer may be."""
MOST_DECISIONS = 1000
"""Most decisions of an answer."""
DECISIONS = 100
"""Decisions of an answer when no limit is given."""

_NOTHING = b'{"status":"no drift actor has reported yet"}'
_CONSOLE = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())


class Pages:
    """The pages of one service, whose folder in the workspace is `folder`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files = files()
        self._entries: dict[str, bytes] = {}  # a decision never changes
        self._read = -SECONDS
        self._reading = asyncio.Lock()
        self._status = _NOTHING

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pages."""
        return ("drift", "decisions", *self._files)

    async def answer(self, name: str, query: bytes) -> Answer:
        """Return a page. Raises Problem 422 for a limit that is none."""
        if name in self._files:
            return Answer(200, *self._files[name], "page", _CONSOLE)
        limit = _limit(query) if name == "decisions" else 0
        async with self._reading:
            if time.monotonic() - self._read >= SECONDS:
                try:
                    await asyncio.get_running_loop().run_in_executor(None, self._refresh)
                except OSError as error:  # the last state that could be read is better than none
                    log.warning("the loop's state cannot be read: %s", error)
                self._read = time.monotonic()
        if name == "drift":
            return Answer(200, JSON, self._status, "page")
        newest = [self._entries[file] for file in sorted(self._entries, reverse=True)[:limit]]
        return Answer(200, JSON, b'{"decisions":[' + b",".join(newest) + b"]}", "page")

    def _refresh(self) -> None:
        try:
            self._status = _json(read_bytes(join(self._folder, "status.json"), PROMPT)) or _NOTHING
        except FileNotFoundError:
            self._status = _NOTHING
        files = list_files(join(self._folder, "ledger"), patience=PROMPT)
        names = sorted(file.name for file in files if file.name.endswith(".json"))[-MOST_DECISIONS:]
        entries = {}
        for name in names:
            entry = self._entries.get(name) or _json(read_bytes(join(self._folder, "ledger", name), PROMPT))
            if entry is not None:
                entries[name] = entry
        self._entries = entries


def _json(data: bytes) -> bytes | None:
    """Return a document as it is; None for what is none."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return data


def _limit(query: bytes) -> int:
    sent = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("limit", [str(DECISIONS)])[-1]
    if not re.fullmatch("[0-9]{1,4}", sent) or not 1 <= int(sent) <= MOST_DECISIONS:
        allowed = f"a whole number from 1 to {MOST_DECISIONS}"
        raise Problem(
            422, "not-allowed", f"limit: found {sent!r:.100}, allowed is {allowed}", found=sent, allowed=allowed
        )
    return int(sent)
