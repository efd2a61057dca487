"""How a declaration's file becomes a `Spec`, or an error that names every mistake in it."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from app.declaration.marked import Mark, Marked, Problem, parse
from app.declaration.mistakes import explain
from app.spec import Spec
from app.types import UserError

MAX_BYTES = 1_048_576
MAX_TOLD = 50

_KEY = r'"[^"]+"|[^."]+'


@dataclass(frozen=True)
class Declaration:
    """A checked declaration: the object, its file (relative sources start at the file's folder), its text.

    `overrides` are the keys that were set over the file, so that another process can read the same declaration.
    """

    spec: Spec
    path: Path
    text: str
    overrides: tuple[str, ...] = ()


class DeclarationError(UserError):
    """Every mistake of one declaration, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(
            problems, key=lambda problem: (not problem.mark.line, problem.mark.line, problem.mark.column)
        )
        heading = f"{len(problems)} mistakes in the declaration:\n" if len(problems) > 1 else ""
        more = f"\nand {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
        super().__init__(heading + "\n".join(str(problem) for problem in self.problems[:MAX_TOLD]) + more)


def read(path: str | Path, overrides: Sequence[str] = ()) -> Declaration:
    """Read and check a declaration's file; `overrides` such as `train.epochs=5` replace single keys.

    A key holding a dot is quoted: `features."dep.time".max=24`. Raises UserError (a DeclarationError where
    lines can be named) with all mistakes; what sections say against each other is judged once each is right.
    """
    path = Path(path)
    text = _load(path)
    marked = parse(text, str(path))
    if marked.value is None and marked.problems:
        raise DeclarationError(marked.problems)
    if not isinstance(marked.value, dict):
        found = "is empty" if marked.value is None else "is not a mapping of keys"
        raise UserError(f"{path} {found}; it needs at least name, task.target and data.source")
    for override in overrides:
        _override(marked, override)
    problems = list(marked.problems)
    try:
        spec = Spec.model_validate(marked.value)
    except ValidationError as error:
        told = {problem.place for problem in problems}
        problems += [
            p for p in explain(error, marked) if not any(p.place[:i] in told for i in range(1, len(p.place) + 1))
        ]
    if problems:
        raise DeclarationError(problems)
    return Declaration(spec, path, text, tuple(overrides))


def _override(marked: Marked, override: str) -> None:
    key, equals, value = override.partition("=")
    key = key.strip()
    origin = f"--set {key}"
    if not equals or not re.fullmatch(rf"({_KEY})(\.({_KEY}))*", key):
        message = "an override is key.key=value, such as train.epochs=5"
        marked.problems.append(Problem(Mark(f"--set {override}"), (), message))
        return
    place = tuple(part.strip('"') for part in re.findall(_KEY, key))
    marked.graft(place, parse(value, origin, inline=True), origin)


def _load(path: Path) -> str:
    if not path.is_file():
        raise UserError(_not_a_file(path))
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes; a declaration is a short YAML file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8") from None


def _not_a_file(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    said = f"{path} is a directory, not a file" if path.is_dir() else f"{path} does not exist"
    if path.exists() and not path.is_dir():
        return f"{path} is not a regular file"
    if not folder.is_dir():
        return f"{said}, nor does its folder"
    names = sorted(found.name for pattern in ("*.yaml", "*.yml") for found in folder.glob(pattern))
    near = difflib.get_close_matches(path.name, names, 3, 0.5) or names[:5]
    return f"{said}; did you mean {', '.join(str(folder / name) for name in near)}?" if near else said
