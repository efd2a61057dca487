"""Pydantic's errors become one clear sentence a mistake, at the line where it was written."""

import difflib
import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.declaration.marked import Marked, Place, Problem, write_place
from app.declaration.schema import Allowed
from app.spec import ConflictError


def explain(error: ValidationError, marked: Marked) -> list[Problem]:
    """Return what is wrong with the values of `marked`: a place is named once, whatever it might have been."""
    root = Allowed.in_declaration()
    by_place: dict[Place, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_place.setdefault(_place(root, detail, marked), []).append(detail)
    # a union reports each alternative: the one that got further in is the one that was meant
    above = {place[:depth] for place in by_place for depth in range(len(place))}
    return [
        problem
        for place, details in by_place.items()
        if place not in above
        for problem in _problems(root, place, details, marked)
    ]


def _place(root: Allowed, detail: ErrorDetails, marked: Marked) -> Place:
    """Return the error's place, without the names of alternatives that pydantic puts between the keys."""
    place: tuple[str | int, ...] = ()
    last = len(detail["loc"]) - 1
    for i, part in enumerate(detail["loc"]):
        known = root.at(place).below(part).options and (
            (*place, part) in marked.values or detail["type"] == "missing"
        )
        if known or (i == last and detail["type"] == "extra_forbidden"):
            place = (*place, part)
    return place


def _problems(root: Allowed, place: Place, details: list[ErrorDetails], marked: Marked) -> Iterator[Problem]:
    own_words = ""
    for detail in details:
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, ConflictError):
            for key, why in cause.conflicts:
                where = (*place, *key)
                yield Problem(marked.mark(where), where, why)
            return
        if detail["type"] == "string_too_short" and detail["loc"][-1] == "[key]":
            yield Problem(marked.keys[place], place, "a column's name cannot be empty")
            return
        if detail["type"] == "extra_forbidden":
            yield Problem(marked.keys[place], place, _unknown(root, place, marked))
            return
        if detail["type"] == "missing":
            yield _missing(root, place, marked)
            return
        if detail["type"] == "union_tag_not_found":
            yield _missing(root, (*place, "type"), marked)
            return
        if detail["type"] == "union_tag_invalid" and isinstance(marked.at(place), dict):
            place = (*place, "type")
        if cause is not None:
            own_words = f" ({cause})"
    found = marked.at(place)
    yield Problem(marked.mark(place), place, _wrong(root.at(place), found) + own_words)


def _missing(root: Allowed, place: Place, marked: Marked) -> Problem:
    return Problem(marked.mark(place), place, f"this key is missing; allowed: {root.at(place).words()}")


def _unknown(root: Allowed, place: Place, marked: Marked) -> str:
    *above, key = place
    section = root.at(tuple(above))
    chosen = section.among(marked.at(tuple(above)))
    allowed = f"allowed: {', '.join(chosen.keys)}"
    others = [
        option["properties"]["type"]["const"] for option in section.options if key in option.get("properties", ())
    ]
    if others:
        return f"is for {' and '.join(others)} features; {allowed}"
    if close := difflib.get_close_matches(str(key), chosen.keys, 1):
        return f"unknown key, did you mean {close[0]}? {allowed}"
    elsewhere = [write_place(other) for other in _places(root, ()) if other[-1] == key]
    if elsewhere:
        return f"unknown key here, did you mean {' or '.join(elsewhere)}? {allowed}"
    return f"unknown key; {allowed}"


def _places(allowed: Allowed, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the place of every key below, those of features and lists left out."""
    for key in allowed.keys:
        yield (*above, key)
        yield from _places(allowed.below(key), (*above, key))


def _wrong(allowed: Allowed, found: Any) -> str:
    said = f"found {_written(found)}; allowed: {allowed.words()}"
    if isinstance(found, str):
        if close := difflib.get_close_matches(found, allowed.names, 1):
            return f"{said}; did you mean {close[0]}?"
        if allowed.types & {"integer", "number"} and (number := _number(found)) is not None:
            return f"{said}; write {number} without quotes or separators"
    elif allowed.takes_any_text and isinstance(found, bool | int | float):
        return f"{said}; in quotes it is text"
    return said


def _number(text: str) -> str | None:
    digits = text.replace("_", "").replace(",", "").strip()
    try:
        float(digits)
    except ValueError:
        return None
    return digits


def _written(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list" if value else "an empty list"
        case str():
            written = json.dumps(value, ensure_ascii=False)
            return "text " + (written if len(written) <= 60 else written[:57] + '..."')
        case _:
            return str(value).lower()[:60]
