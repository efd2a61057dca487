"""Where does the monitor go on after a restart? At its newest snapshot, `<name>/monitor/state-000123-<declaration>.bin`.

A snapshot only saves time: without one the journal is folded from its beginning. One of another declaration is not
looked at, and one that cannot be read is passed over. Of all others the newest stay, for whoever goes back to theirs.
"""

import re
from collections.abc import Iterator

from app.workspace import delete, join, list_files, read_bytes, write_bytes

KEPT = 2
_NAME = re.compile(r"state-(\d+)-([0-9a-f]+)\.bin")


class Snapshots:
    """The snapshots of one declaration, whose `digest` is part of their names."""

    def __init__(self, folder: str, digest: str) -> None:
        self._folder = folder
        self._digest = digest

    def newest_first(self) -> Iterator[bytes]:
        """Yield snapshots, the newest first."""
        for step in sorted(self._steps(), reverse=True):
            yield read_bytes(self._uri(step))

    def write(self, step: int, state: bytes) -> None:
        """Keep the state after a step, and only the newest before it, of ours and of all other declarations."""
        write_bytes(self._uri(step), state)
        for old in sorted(self._steps(), reverse=True)[KEPT:]:
            delete(self._uri(old))
        files = [
            file
            for file in list_files(self._folder)
            if (name := _NAME.fullmatch(file.name)) and name[2] != self._digest
        ]
        for file in sorted(files, key=lambda file: file.written, reverse=True)[KEPT:]:
            delete(join(self._folder, file.name))

    def _uri(self, step: int) -> str:
        return join(self._folder, f"state-{step:06}-{self._digest}.bin")

    def _steps(self) -> Iterator[int]:
        for file in list_files(self._folder):
            name = _NAME.fullmatch(file.name)
            if name and name[2] == self._digest:
                yield int(name[1])
