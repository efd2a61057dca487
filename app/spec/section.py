"""What every section of a declaration does: refuse unknown keys, and keys that do not go together."""

from collections.abc import Iterator
from typing import Self, TypeAlias

from pydantic import BaseModel, ConfigDict, model_validator

Conflict: TypeAlias = tuple[tuple[str, ...], str]
"""The key to change (its path below the section that finds the conflict) and why."""


class ConflictError(ValueError):
    """Keys that are right by themselves and do not go together."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__("; ".join(f"{'.'.join(key)}: {why}" for key, why in conflicts))
        self.conflicts = conflicts


class Section(BaseModel):
    """A mapping with fixed keys, which never changes once it is read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what cannot go together in this section."""
        yield from ()

    @model_validator(mode="after")
    def _without_conflicts(self) -> Self:
        if conflicts := list(self.conflicts()):
            raise ConflictError(conflicts)
        return self
