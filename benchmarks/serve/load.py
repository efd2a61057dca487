"""Load from `wrk`: how it is called and what it says."""

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.types import UserError

_SCRIPT = Path(__file__).with_name("post.lua")
_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Load:
    """One measurement of one server."""

    connections: int
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def per_second(self) -> float:
        """Requests answered per second."""
        return self.requests / self.seconds

    @property
    def failed(self) -> bool:
        """Some answer had status 400 or above, or a connection broke: the figure counts for nothing."""
        return self.refused > 0 or self.broken > 0 or self.requests == 0

    def dump(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"per_second": self.per_second, "failed": self.failed}


def find_wrk() -> str:
    """Return the path of wrk. Raises UserError when it is not installed."""
    path = shutil.which("wrk")
    if path is None:
        raise UserError(
            "wrk is not installed: on Debian and Ubuntu `apt-get install wrk`, on macOS `brew install wrk`"
        )
    return path


def parse(output: str, connections: int) -> Load:
    """Read the JSON line that post.lua prints last. Raises UserError when there is none."""
    line = output.strip().rpartition("\n")[2]
    try:
        return Load(connections=connections, **json.loads(line))
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"wrk did not end with a summary: {output[-500:]!r}") from error


def run(url: str, bodies: Path, connections: int, seconds: float) -> Load:
    """Post the lines of `bodies` in turn over so many connections for so long, from one thread."""
    command = [
        find_wrk(),
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        f"--timeout={_TIMEOUT_SECONDS}s",
    ]
    done = subprocess.run(
        [*command, "-s", str(_SCRIPT), url, "--", str(bodies)],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 3 * _TIMEOUT_SECONDS,
    )
    if done.returncode:
        raise UserError(f"wrk ended with {done.returncode}: {done.stderr[-500:]}")
    return parse(done.stdout, connections)
