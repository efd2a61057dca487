"""A peer's own virtual environment, made from its pinned requirements when it is not there yet."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from app.types import UserError

ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent


def python_of(environment: str, home: Path = _HERE) -> Path:
    """Return the interpreter of `.venvs/bench-<environment>`, up to date with `requirements-<environment>.txt` in `home`.

    Raises UserError when pip cannot install them.
    """
    requirements = home / f"requirements-{environment}.txt"
    folder = ROOT / ".venvs" / f"bench-{environment}"
    stamp = folder / "installed"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"installing {requirements.name} into {folder.relative_to(ROOT)}", flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    stamp.write_text(wanted)
    return python


def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the installed versions of those distributions that `python` finds."""
    script = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: found[n] for n in sys.argv[1:] if n in found}))"
    )
    done = subprocess.run([str(python), "-c", script, *names], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
