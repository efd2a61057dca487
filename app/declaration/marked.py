"""YAML text becomes plain values that remember where each was written, and every trap of YAML an error.

Scalars are read by YAML 1.2's core rules, as editors do: `2013-03-01` and `12:30` are text, `1e-3` is a number.
What YAML 1.1 and 1.2 read differently (`no`, `012`) is refused rather than guessed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml.composer import ComposerError

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
Place: TypeAlias = tuple[str | int, ...]
"""Where a value is: the keys and list positions that lead to it."""

MAX_DEPTH = 32
MAX_VALUES = 200_000
MAX_BITS = 1000  # of a whole number: what is larger has no float, and no place where it is allowed

_TAG = "tag:yaml.org,2002:"
_WORDS_OF_1_1 = re.compile(r"(?i:yes|no|on|off)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


@dataclass(frozen=True)
class Mark:
    """Where something was written: `origin` is a file or an override; lines and columns count from 1."""

    origin: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


@dataclass(frozen=True)
class Problem:
    """One mistake: where it was written, the key it is about, and what is wrong with it."""

    mark: Mark
    place: Place
    message: str

    def __str__(self) -> str:
        place = write_place(self.place)
        if not self.mark.line and self.mark.origin.endswith(place):  # an override names the key already
            place = ""
        return ": ".join(part for part in (str(self.mark), place, self.message) if part)


@dataclass
class Marked:
    """Plain values, the mark of every key and of every value, and what was wrong with them."""

    value: Plain = None
    keys: dict[Place, Mark] = field(default_factory=dict)
    values: dict[Place, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def at(self, place: Place) -> Plain:
        """Return the value at a place. Raises KeyError, IndexError or TypeError where there is none."""
        value = self.value
        for part in place:
            value = value[part]  # type: ignore[index]
        return value

    def mark(self, place: Place) -> Mark:
        """Return where the value at a place, or the nearest thing around it, was written."""
        while place not in self.values and place:
            place = place[:-1]
        return self.values[place]

    def graft(self, place: tuple[str, ...], other: "Marked", origin: str) -> None:
        """Put `other` at a place, making the mappings on the way; something else on the way is a problem."""
        if not isinstance(self.value, dict):
            return
        within: dict[str, Plain] = self.value
        for depth, part in enumerate(place[:-1], 1):
            inner = within.get(part)
            if inner is None:
                inner = within[part] = {}
                self.keys[place[:depth]] = self.values[place[:depth]] = Mark(origin)
            if not isinstance(inner, dict):
                message = f"{write_place(place[:depth])} is not a mapping there; set it as a whole"
                self.problems.append(Problem(Mark(origin), place, message))
                return
            within = inner
        within[place[-1]] = other.value
        for marks in (self.keys, self.values):
            for old in [old for old in marks if old[: len(place)] == place]:
                del marks[old]
        self.keys[place] = Mark(origin)
        self.keys.update({(*place, *below): mark for below, mark in other.keys.items()})
        self.values.update({(*place, *below): mark for below, mark in other.values.items()})
        self.problems += [Problem(p.mark, (*place, *p.place), p.message) for p in other.problems]


def write_place(place: Place) -> str:
    """Write a place as a reader would: data.split.gap, gate.slices[0]."""
    written = ""
    for part in place:
        written += f"[{part}]" if isinstance(part, int) else f".{part}"
    return written.removeprefix(".")


def parse(text: str, origin: str, inline: bool = False) -> Marked:
    """Read one YAML document; `inline` text (an override's value) has no lines worth naming.

    Mistakes are collected in `problems`, and the value beside them is the best guess, so that all mistakes of
    a file can be told at once; after a syntax error the value is None.
    """
    marked = Marked()

    def mark(at: yaml.Mark | None) -> Mark:
        return Mark(origin) if inline or at is None else Mark(origin, at.line + 1, at.column + 1)

    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        marked.problems.append(Problem(mark(error.problem_mark), (), _syntax(error)))
        return marked
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        at = Mark(origin, before.count("\n") + 1, error.position - before.rfind("\n"))
        marked.problems.append(
            Problem(at, (), f"found the character U+{error.character:04X}, which YAML does not allow")
        )
        return marked
    if node is None:
        marked.values[()] = mark(None)  # an override that is left empty: its mistake is told at its own name
    else:
        try:
            marked.value = _Reader(marked, mark).read(node, ())
        except _TooLargeError as error:
            marked.problems = [Problem(mark(node.start_mark), (), str(error))]
    return marked


class _TooLargeError(Exception):
    """The document grows beyond what a declaration can be."""


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with the core rules of YAML 1.2 for what an unquoted word is."""

    yaml_implicit_resolvers = {  # noqa: RUF012  None: whatever the first character
        None: [
            (_TAG + "null", re.compile(r"(~|null|Null|NULL|)$")),
            (_TAG + "bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$")),
            (_TAG + "int", re.compile(r"([-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)$")),
            (_TAG + "float", re.compile(r"([-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?)$")),
            (_TAG + "float", re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")),
        ],
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose as ever, but give up on nesting that would end in a RecursionError."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            start = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", start)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    """One walk over the node tree, with aliases written out up to a bound."""

    def __init__(self, marked: Marked, mark: Callable[[yaml.Mark | None], Mark]) -> None:
        self.marked = marked
        self.mark = mark

    def read(self, node: yaml.Node, place: Place) -> Plain:
        """Return the node's value; mistakes go to `marked.problems`."""
        self.marked.values[place] = self.mark(node.start_mark)
        if len(self.marked.values) > MAX_VALUES:
            raise _TooLargeError(f"more than {MAX_VALUES:,} values once its aliases are written out")
        if len(place) > MAX_DEPTH:
            raise _TooLargeError(f"nested deeper than {MAX_DEPTH} levels once its aliases are written out")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, (*place, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, place)
        self._problem(node, place, f"the YAML tag {node.tag.replace(_TAG, '!!')} is not read here")
        return None

    def _mapping(self, node: yaml.MappingNode, place: Place) -> Plain:
        found: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, place)
            if key is None:
                continue
            here = (*place, key)
            if key in found:
                first = self.marked.keys[here]
                self._problem(key_node, here, f"the key is given twice, first in line {first.line}")
            self.marked.keys.setdefault(here, self.mark(key_node.start_mark))
            found[key] = self.read(value_node, here)
        return found

    def _key(self, node: yaml.Node, place: Place) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._problem(node, place, "a key must be text, found a list or mapping")
            return None
        self._mend_halves(node, place)
        value = self._scalar(node, (*place, node.value))
        if isinstance(value, str) and value == "<<" and node.style is None:
            self._problem(node, place, "merge keys (<<) are not read here; write the keys out")
            return None
        if not isinstance(value, str):
            self._problem(node, place, f'a key must be text, found {node.value or "nothing"}; write "{node.value}"')
        return str(node.value)

    def _mend_halves(self, node: yaml.ScalarNode, place: Place) -> None:
        """Find an escape that is half a character: no text that could be written or shown holds one."""
        whole = node.value.encode(errors="replace").decode()
        if whole != node.value:
            node.value = whole
            self._problem(
                node, place, f"found {whole[:40]}, where ? was an escape of half a character (U+D800 to U+DFFF)"
            )

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Plain:
        self._mend_halves(node, place)
        text, kind = node.value, node.tag.removeprefix(_TAG)
        if kind == "str":
            if node.style is None and _WORDS_OF_1_1.fullmatch(text):
                truth = "true" if text.lower() in ("yes", "on") else "false"
                self._problem(
                    node,
                    place,
                    f'found {text}, which some readers of YAML take for {truth}: write "{text}" or {truth}',
                )
            elif node.style is None and _LEADING_ZERO.fullmatch(text):
                self._problem(
                    node, place, f'found {text}: write "{text}" in quotes for text, or the number without its zero'
                )
            return str(text)
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return _whole_number(text)
                case "float":
                    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            self._problem(node, place, f"found {text[:40]}, which cannot be read as a value of YAML's type {kind}")
            return None
        self._problem(node, place, f"the YAML tag {node.tag.replace(_TAG, '!!')} is not read here")
        return None

    def _problem(self, node: yaml.Node, place: Place, message: str) -> None:
        self.marked.problems.append(Problem(self.mark(node.start_mark), place, message))


def _whole_number(text: str) -> int:
    number = int(text, 0)
    if number.bit_length() > MAX_BITS:
        raise ValueError(f"{number.bit_length()} bits")
    return number


_HINTS = {
    "cannot start any token": "indent with spaces, never tabs, and quote text that starts with a sign",
    "mapping values are not allowed": "quote text that holds a colon, or put the key on a line of its own",
    "could not find expected ':'": "a key is followed by a colon and a space",
    "expected <block end>": "keys of one section start in the same column",
    "single document": "one file holds one declaration",
}


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """Say what the parser says, and what to do about it where that is known."""
    said = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for needle, hint in _HINTS.items() if needle in said), None)
    return f"not valid YAML: {said}" + (f"; {hint}" if hint else "")
