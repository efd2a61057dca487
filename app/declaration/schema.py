"""The declaration's JSON Schema (draft 2020-12), and what it allows at a place, said in words."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from app.declaration.marked import Place
from app.spec import ABSOLUTE_PATH, DURATION, MOMENT, NAME, WEB_ADDRESS, Spec, write_duration

Schema: TypeAlias = dict[str, Any]

_PATTERNS = {
    DURATION: "a number and a unit (ms, s, m, h, d, w) such as 30m or 90d",
    MOMENT: "an ISO 8601 date or date and time such as 2013-03-01 or 2013-03-01T06:00Z",
    WEB_ADDRESS: "an http(s) address, without user and password",
    ABSOLUTE_PATH: "an absolute path",
    NAME: "1 to 63 lower-case letters, digits and hyphens that start with a letter",
}


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: object) -> Any:
        """Write a duration as the declaration does."""
        return write_duration(dft) if isinstance(dft, dt.timedelta) else super().encode_default(dft)

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        """Show made defaults too: a list left out is empty, and a section left out has its own defaults."""
        if "default_factory" in schema:
            return [] if schema["default_factory"] is list else {}
        return super().get_default_value(schema)


def json_schema() -> Schema:
    """Return the schema that editors check and complete a declaration with."""
    generated = Spec.model_json_schema(schema_generator=_Generator)
    return {
        "$schema": _Generator.schema_dialect,
        **generated,
        "title": "Evertrue declaration",
        "description": "One model service, declared: its table, its network, what a version must prove, its endpoint.",
    }


@dataclass(frozen=True)
class Allowed:
    """What the schema allows at one place: its alternatives, references followed and null left aside."""

    root: Schema
    options: tuple[Schema, ...]

    @staticmethod
    def in_declaration() -> "Allowed":
        """Return what is allowed as a whole declaration."""
        root = json_schema()
        return Allowed(root, (root,))

    def below(self, part: str | int) -> "Allowed":
        """Return what is allowed under a key or list position; no options when nothing is."""
        return Allowed(self.root, tuple(self._children(part)))

    def at(self, place: Place) -> "Allowed":
        """Return what is allowed at a place further down."""
        allowed = self
        for part in place:
            allowed = allowed.below(part)
        return allowed

    def among(self, found: object) -> "Allowed":
        """Narrow the kinds of feature to the one that `found` names as its `type`."""
        kind = found.get("type") if isinstance(found, dict) else None
        same = tuple(o for o in self.options if o.get("properties", {}).get("type", {}).get("const") == kind)
        return Allowed(self.root, same or self.options)

    @property
    def keys(self) -> list[str]:
        """The keys of all alternatives that are mappings with fixed keys."""
        return list(dict.fromkeys(key for option in self.options for key in option.get("properties", ())))

    @property
    def names(self) -> list[str]:
        """The words allowed, where only certain words are."""
        return [str(value) for option in self.options for value in _constants(option) if isinstance(value, str)]

    @property
    def types(self) -> set[str]:
        """The JSON types allowed."""
        return {option["type"] for option in self.options if "type" in option}

    @property
    def takes_any_text(self) -> bool:
        """Say whether any text is right here, if not empty."""
        return any(o.get("type") == "string" and not {"const", "enum", "pattern"} & o.keys() for o in self.options)

    @property
    def description(self) -> str:
        """The key's own description."""
        return str(self.options[0].get("description", "")) if self.options else ""

    def words(self) -> str:
        """Say what is allowed: `auto, binary, multiclass or regression`, `a whole number, at least 1`."""
        constants = [_word(value) for option in self.options for value in _constants(option)]
        phrases = [phrase for option in self.options if "const" not in option for phrase in self._phrases(option)]
        if "a number" in phrases:
            phrases = [phrase for phrase in phrases if phrase != "a whole number"]
        said = list(dict.fromkeys([*constants, *phrases]))
        return f"{', '.join(said[:-1])} or {said[-1]}" if len(said) > 1 else "".join(said)

    def _children(self, part: str | int) -> Iterator[Schema]:
        for option in self.options:
            if isinstance(part, int):
                child = option.get("items")
            else:
                child = option.get("properties", {}).get(part, option.get("additionalProperties"))
            if isinstance(child, dict):
                yield from self._alternatives(child)

    def _alternatives(self, node: Schema) -> Iterator[Schema]:
        own = {key: value for key, value in node.items() if key not in ("$ref", "anyOf", "oneOf")}
        if "$ref" in node:
            yield from self._alternatives({**self.root["$defs"][node["$ref"].rpartition("/")[2]], **own})
        elif choices := node.get("anyOf", node.get("oneOf")):
            for choice in choices:
                for alternative in self._alternatives(choice):
                    yield {**alternative, **own}
        elif node.get("type") != "null":
            yield node

    def _phrases(self, option: Schema) -> Iterator[str]:
        match option.get("type"):
            case "integer":
                yield "a whole number" + _limits(option)
            case "number":
                yield "a number" + _limits(option)
            case "boolean":
                yield from ("true", "false")
            case "string" if "enum" not in option:
                yield _PATTERNS.get(option.get("pattern", ""), "text")
            case "array":
                items = Allowed(self.root, tuple(self._alternatives(option["items"]))).words()
                yield f"a list of {items.replace('a mapping', 'mappings')}"
            case "object" if "properties" in option:
                yield f"a mapping with {', '.join(self.keys)}"
            case "object":
                yield f"a mapping of names to {self._values(option)}"

    def _values(self, option: Schema) -> str:
        """Say what a mapping with free keys holds: the kinds of its values, or their type."""
        values = list(self._alternatives(option["additionalProperties"]))
        kinds = [value["properties"]["type"]["const"] for value in values if "properties" in value]
        return " or ".join(dict.fromkeys(kinds)) or " or ".join(f"{value['type']}s" for value in values)


def _constants(option: Schema) -> Iterator[object]:
    if "const" in option:
        yield option["const"]
    yield from option.get("enum", ())


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _limits(option: Schema) -> str:
    low, above = option.get("minimum"), option.get("exclusiveMinimum")
    high, below = option.get("maximum"), option.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    said = [
        f"{phrase} {limit}"
        for phrase, limit in (("at least", low), ("above", above), ("at most", high), ("below", below))
        if limit is not None
    ]
    return ", " + " and ".join(said) if said else ""
