"""What was decided, when, and on what evidence? An append-only book of small JSON files, `<name>/ledger/000042.json`.

An entry is written whole, under the next free number, and never changed. It is created exclusively, so that two writers
cannot take the same number.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from app.types import UserError
from app.workspace import Workspace, create_bytes, join, list_files, read_bytes

Kind: TypeAlias = Literal[
    "deploy",  # a version answers since somebody, or the first training, put it up
    "alarm_noted",  # inputs or the loss moved, and what that leads to
    "fault",  # the data are broken upstream: pages, unless it is about a fault that did, and blocks retraining
    "fault_over",  # all that the fault broke is whole again
    "probe",  # a cheap model is to tell what a retraining would gain
    "probed",  # what it told
    "retrain",  # a retraining is bought, or tried again
    "retrained",  # it gave a version that passed the gate
    "refused",  # it gave one that did not, or whose bundle is broken
    "retrain_failed",  # it gave none
    "shadow",  # the version scores unheard
    "stage",  # it answers a share of the rows
    "promote",  # it is champion, the one before stays in reserve
    "settled",  # it has proven itself as champion
    "rollback",  # the version before answers again
    "ended",  # a rollout was ended by hand
    "page",  # a person is needed
]
"""What an entry is about."""

_FILE = re.compile(r"\d{6,}\.json")
_PAGES: frozenset[Kind] = frozenset({"fault", "rollback", "page"})


@dataclass(frozen=True)
class Draft:
    """A decision before it is in the book: `key` is all that makes it another than those of its kind.

    `at` is in event time, in ms since 1970, and `step` the journal's step that it rests on. `evidence` is plain
    JSON. `about` is the entry that it answers, `version` the one that it concerns.
    """

    kind: Kind
    key: str
    at: int
    step: int
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    about: str | None = None
    version: str | None = None

    def id(self, name: str) -> str:
        """Return the decision's id, always the same for the same decision of the declaration `name`."""
        digest = hashlib.sha256("\0".join((name, self.kind, self.about or "", self.key)).encode())
        return f"{name}-{self.kind.replace('_', '-')}-{digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class Entry:
    """A decision, or what became of one; `at` is event time and `written` the clock's, both ISO 8601 in UTC."""

    number: int
    id: str
    kind: Kind
    at: str
    written: str
    step: int
    about: str | None
    version: str | None
    reason: str
    evidence: dict[str, Any]

    @property
    def at_ms(self) -> int:
        """Event time in ms since 1970."""
        return from_iso(self.at)

    @property
    def written_ms(self) -> int:
        """The clock when it was written, in ms since 1970."""
        return from_iso(self.written)


class Ledger:
    """The book of one declaration; what has been read once is not read again."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._name = name
        self._entries: list[Entry] = []
        self._ids: dict[str, Entry] = {}
        self._whole = False  # looked once whether an entry is missing

    @staticmethod
    def open(workspace: Workspace, name: str) -> "Ledger":
        """Open the ledger of declaration `name`; it begins with its first entry."""
        return Ledger(workspace.uri(name, "ledger"), name)

    def entries(self) -> list[Entry]:
        """Return every entry, oldest first. Raises UserError for a file that is no entry, or missing among others."""
        self._read_on()
        if not self._whole:
            newest = max(
                (int(file.name[:-5]) for file in list_files(self._folder) if _FILE.fullmatch(file.name)), default=0
            )
            self._read_on()  # what was written meanwhile
            if newest > len(self._entries):
                missing = self._uri(len(self._entries) + 1)
                raise UserError(f"{missing} is missing, and the ledger goes on to entry {newest}; restore it")
            self._whole = True
        return list(self._entries)

    def find(self, entry_id: str) -> Entry | None:
        """Return the entry of this id, if it has been written."""
        self.entries()
        return self._ids.get(entry_id)

    def append(self, draft: Draft, now: int) -> Entry:
        """Write an entry, durably, and return it; a decision that is in the book already is returned as it is.

        `now` is the clock in ms since 1970. Raises OSError where disk or store does not take it.
        """
        entry_id = draft.id(self._name)
        while (known := self.find(entry_id)) is None:
            entry = Entry(
                number=len(self._entries) + 1,
                id=entry_id,
                kind=draft.kind,
                at=to_iso(draft.at),
                written=to_iso(now),
                step=draft.step,
                about=draft.about,
                version=draft.version,
                reason=draft.reason,
                evidence=plain(draft.evidence),
            )
            with suppress(FileExistsError):  # another took the number: his entry is read, and the next one tried
                create_bytes(self._uri(entry.number), msgspec.json.format(msgspec.json.encode(entry)))
        return known

    def _read_on(self) -> None:
        while (entry := self._read(len(self._entries) + 1)) is not None:
            self._entries.append(entry)
            self._ids[entry.id] = entry

    def _uri(self, number: int) -> str:
        return join(self._folder, f"{number:06}.json")

    def _read(self, number: int) -> Entry | None:
        uri = self._uri(number)
        try:
            return msgspec.json.decode(read_bytes(uri), type=Entry)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{uri} is no entry of a ledger: {error}") from error


def plain(evidence: dict[str, Any]) -> dict[str, Any]:
    """Return evidence as JSON will give it back: no NaN, no tuples, keys of text."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(evidence))
    return decoded


def newest(entries: Sequence[Entry], *kinds: Kind) -> Entry | None:
    """Return the last entry of these kinds."""
    return next((entry for entry in reversed(entries) if entry.kind in kinds), None)


def pages(entry: Entry) -> bool:
    """Say whether a person is told of an entry at once; of what joins a fault that is open, somebody knows."""
    return entry.kind in _PAGES and not (entry.kind == "fault" and entry.about is not None)


def answers(entries: Sequence[Entry], to: Entry, *kinds: Kind) -> list[Entry]:
    """Return the entries of these kinds that are about another."""
    return [entry for entry in entries if entry.about == to.id and entry.kind in kinds]


def to_iso(milliseconds: int) -> str:
    """Write a moment, given in ms since 1970."""
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(moment: str) -> int:
    """Return a moment in ms since 1970."""
    return round(dt.datetime.fromisoformat(moment).timestamp() * 1000)
