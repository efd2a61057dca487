"""Which flaws of these packages are known? pip-audit asks a service; no answer is never taken for a good one."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from supply.packages import Pin


class Flaw(NamedTuple):
    """A known vulnerability of a package, by all its names, and the versions without it."""

    pin: Pin
    names: tuple[str, ...]
    fixed_in: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What is known, and why nothing is known of the rest."""

    flaws: list[Flaw]
    silence: str | None


def ask(pins: Sequence[Pin], service: str | None = None) -> Answer:
    """Ask for all packages: PyPI, or the service at an address that speaks OSV's language.

    One is asked for first: whoever does not answer for it is not asked for hundreds.
    """
    first = _ask(pins[:1], service)
    if first.silence:
        return first
    answers = [_ask(group, service) for group in _groups(pins)]
    flaws = {flaw for answer in answers for flaw in answer.flaws}
    return Answer(sorted(flaws), next((answer.silence for answer in answers if answer.silence), None))


def _groups(pins: Sequence[Pin]) -> list[list[Pin]]:
    """Divide so that no group names a package twice, which pip-audit refuses."""
    groups: list[dict[str, Pin]] = []
    for pin in dict.fromkeys(pins):
        free = next((group for group in groups if pin.name not in group), None)
        if free is None:
            groups.append(free := {})
        free[pin.name] = pin
    return [list(group.values()) for group in groups]


def _ask(pins: Sequence[Pin], service: str | None) -> Answer:
    where = ["--vulnerability-service", "osv", "--osv-url", service] if service else []
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder, "asked.txt")
        asked.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(asked), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--desc", "off", "--progress-spinner", "off", *where]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    if not told.stdout.strip():
        lines = [line for line in told.stderr.splitlines() if ": " in line and not line.startswith(" ")]
        return Answer([], lines[-1] if lines else f"pip-audit ended with {told.returncode} and said nothing")
    packages = json.loads(told.stdout)["dependencies"]
    unknown = [one["skip_reason"] for one in packages if "skip_reason" in one]
    flaws = [
        Flaw(Pin(one["name"], one["version"]), (flaw["id"], *sorted(flaw["aliases"])), tuple(flaw["fix_versions"]))
        for one in packages
        for flaw in one.get("vulns", [])
    ]
    return Answer(flaws, f"{len(unknown)} of {len(packages)}: {unknown[0]}" if unknown else None)
