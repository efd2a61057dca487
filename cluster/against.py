"""Hold a part of a file to a JSON Schema, and say where it differs."""

from collections.abc import Iterator
from typing import Any

import jsonschema


def against(schema: dict[str, Any], found: object, where: list[str]) -> Iterator[str]:
    """Yield every difference; `where` the part stands opens each."""
    for error in jsonschema.Draft202012Validator(schema).iter_errors(found):
        yield told(error, where)


def told(error: jsonschema.ValidationError, where: list[str]) -> str:
    """Say one difference: where, what was found, what is allowed."""
    path = ".".join(str(part) for part in [*where, *error.absolute_path]) or "top level"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        unknown = [repr(key) for key in error.instance if key not in known]
        return f"{path}: found {', '.join(unknown)}, allowed: {', '.join(known)}"
    return f"{path}: {error.message}"
