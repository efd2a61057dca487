"""How does another process of the cluster read the same declaration, long after the one that was given it has ended?"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from app.declaration import Declaration, read
from app.workspace import Workspace, write_bytes

FILE = "declaration.yaml"


@dataclass(frozen=True)
class Carried:
    """A declaration's file, and the keys that are set over it."""

    path: str
    overrides: tuple[str, ...]

    @staticmethod
    def of(declaration: Declaration, workspace: Workspace) -> "Carried":
        """Keep the declaration as `<name>/declaration.yaml`, its relative sources made absolute.

        From an object store no job could read it: there the file stays what it is, in the working directory that
        every job of the cluster was given.
        """
        if "://" in workspace.root:
            return Carried(str(declaration.path), declaration.overrides)
        uri = workspace.uri(declaration.spec.name, FILE)
        write_bytes(uri, declaration.text.encode())
        base, source = declaration.path.resolve().parent, declaration.spec.data.source
        sources = [_absolute(one, base) for one in ([source] if isinstance(source, str) else source)]
        given = f"data.source={json.dumps(sources[0] if isinstance(source, str) else sources)}"
        return Carried(uri, (*declaration.overrides, given))

    def read(self) -> Declaration:
        """Read it again. Raises UserError where the file is gone or changed for the worse."""
        return read(self.path, self.overrides)


def fingerprint(declaration: Declaration) -> str:
    """Name what decides: the declaration and our code; with another of either, another actor takes over."""
    digest = hashlib.sha256(declaration.spec.model_dump_json().encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _absolute(source: str, base: Path) -> str:
    return source if "://" in source else str(base / source)
