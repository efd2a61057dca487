"""Which packages does the project need, at which versions, and under which licences do they say they are?"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCK = "requirements.lock"
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([\w.!+]+)")
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


class Pin(NamedTuple):
    """One package at one version; the name in its canonical form."""

    name: str
    version: str


@dataclass(frozen=True)
class Needed:
    """A package that is installed because something needs it."""

    distribution: Distribution
    needs: frozenset[str]

    @property
    def version(self) -> str:
        """Return the version, without what says how it was built (`+cpu`)."""
        return Version(self.distribution.version).public


def declared(project: Path, *extras: str) -> list[Requirement]:
    """Return what pyproject.toml asks for: the dependencies, and those of the extras that are named."""
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    more = [one for extra in extras for one in table["optional-dependencies"][extra]]
    return [Requirement(one) for one in [*table["dependencies"], *more]]


def extras(project: Path) -> list[str]:
    """Return the names of all extras."""
    return list(tomllib.loads((project / "pyproject.toml").read_text())["project"].get("optional-dependencies", {}))


def locked(project: Path) -> tuple[list[Pin], list[str]]:
    """Return what is locked, and the lines that lock nothing: no address, no option, no range has a place there."""
    pins, wrong = [], []
    for line in (project / LOCK).read_text().splitlines():
        if match := _PIN.fullmatch(line):
            pins.append(Pin(canonicalize_name(match[1]), match[2]))
        else:
            wrong.append(line)
    return pins, wrong


def needed(requirements: Iterable[Requirement]) -> tuple[dict[str, Needed], set[str]]:
    """Return by name all that is needed here, near and far, as installed; and the names of what is not installed."""
    found: dict[str, Needed] = {}
    missing: set[str] = set()
    seen, waiting = set(), [one for one in requirements if _applies(one, set())]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if (name, frozenset(one.extras)) in seen:
            continue
        seen.add((name, frozenset(one.extras)))
        try:
            installed = distribution(one.name)
        except PackageNotFoundError:
            missing.add(name)
            continue
        more = [need for need in map(Requirement, installed.requires or []) if _applies(need, one.extras)]
        before = found[name].needs if name in found else frozenset()
        found[name] = Needed(installed, before | {canonicalize_name(need.name) for need in more})
        waiting += more
    return found, missing


def carried(installed: Distribution) -> list[Pin]:
    """Return the copies of other packages within a package, which no lock reaches."""
    copies = [file for file in installed.files or [] if file.name == "METADATA" and len(file.parts) > 2]
    headers = [HeaderParser().parsestr(file.read_text()) for file in copies]
    return sorted({Pin(canonicalize_name(one["Name"]), one["Version"]) for one in headers})


def licences(installed: Distribution) -> list[str]:
    """Return what the metadata say: one SPDX expression, or classifiers, or a text; nothing if they say nothing."""
    headers = installed.metadata
    if expression := headers.get_all("License-Expression"):
        return expression
    classifiers = [one for one in headers.get_all("Classifier") or [] if one.startswith("License :: ")]
    stated = [one.rpartition(" :: ")[2] for one in classifiers if one != "License :: OSI Approved"]
    texts = [text.strip().partition("\n")[0] for text in headers.get_all("License") or []]
    return sorted({_SPDX.get(one, one) for one in stated or texts if one not in {"", "UNKNOWN"}})


def _applies(one: Requirement, extras: Iterable[str]) -> bool:
    return one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ["", *extras])
