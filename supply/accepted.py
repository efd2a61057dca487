"""What does the audit let pass, and why? The entries of accepted.toml."""

import datetime as dt
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.types import UserError

FILE = Path(__file__).parent / "accepted.toml"
Said = Annotated[str, Field(min_length=1)]


class Licence(BaseModel):
    """A licence that is let pass: `says` is what the metadata say now, `licence` what it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: list[str]
    licence: Said
    reason: Said


class Build(BaseModel):
    """What comes with some builds of another package: it is in no lock, and its licence is let pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Said


class Vulnerability(BaseModel):
    """A known vulnerability that is let pass until the end of a day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: Said
    reason: Said
    until: dt.date


class Accepted(BaseModel):
    """All that is let pass: licences by package, builds by a pattern of packages, vulnerabilities by any name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    licences: dict[str, Licence] = {}
    builds: dict[str, Build] = {}
    vulnerabilities: dict[str, Vulnerability] = {}

    def of_a_build(self, package: str) -> bool:
        """Tell whether a package comes with some builds alone."""
        return any(fnmatchcase(package, pattern) for pattern in self.builds)


def read(path: Path = FILE) -> Accepted:
    """Read the file. Raises UserError, naming the entry, when it is no such file."""
    try:
        return Accepted.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path.name}: {error}") from error
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UserError(f"{path.name}: {'; '.join(told)}") from error
