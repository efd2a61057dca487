"""Where does the monitor go on after a restart? At its newest snapshot, `<name>/monitor/state-000123-<declaration>.bin`.

A snapshot only saves time: without one the journal is folded from its beginning. One of another declaration is not
looked at, and one that cannot be read is passed over.
"""

import re
from collections.abc import Iterator

from app.workspace import delete, join, list_files, read_bytes, write_bytes

KEPT = 2


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
        """Keep the state after a step, and only the newest before it."""
        write_bytes(self._uri(step), state)
        for old in sorted(self._steps(), reverse=True)[KEPT:]:
            delete(self._uri(old))

    def _uri(self, step: int) -> str:
        return join(self._folder, f"state-{step:06}-{self._digest}.bin")

    def _steps(self) -> Iterator[int]:
        for file in list_files(self._folder):
            name = re.fullmatch(r"state-(\d+)-([0-9a-f]+)\.bin", file.name)
            if name and name[2] == self._digest:
                yield int(name[1])
