"""Which columns are features? Those declared, or what the table's types and its first rows suggest."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from app.spec import CategoryFeature, NumberFeature, Spec
from app.types import UserError

ID_SHARE = 0.9  # text that names nearly every row anew is an identifier, not a category
ID_ROWS = 100  # fewer values than this prove nothing


class Resolved(NamedTuple):
    """The features by column, and notes on the columns that were left aside."""

    features: dict[str, NumberFeature | CategoryFeature]
    notes: list[str]


def resolve_features(spec: Spec, schema: pa.Schema, sample: pa.Table | None = None) -> Resolved:
    """Return the declared features, or infer them: numbers from numbers, categories from text and truth values.

    `sample` holds some of the table's rows; by them columns without values and identifiers are left aside.
    Raises UserError for a column that is not there, or holds what its feature cannot be made of.
    """
    for name in spec.data.exclude:
        find_column(schema, name, "data.exclude")
    if spec.features is not None:
        for name, feature in spec.features.items():
            _fits(find_column(schema, name, f"features.{name}"), feature)
        return Resolved(dict(spec.features), [])
    features: dict[str, NumberFeature | CategoryFeature] = {}
    notes: list[str] = []
    taken = {spec.task.target, spec.data.key, spec.data.time, *spec.data.exclude}
    for field in schema:
        if field.name in taken:
            continue
        kind = _kind(field.type)
        reason = f"its type {field.type} is no feature's" if kind is None else _unusable(field.name, kind, sample)
        if reason is not None:
            notes.append(f"column {field.name!r} is left aside: {reason}")
        elif kind == "number":
            features[field.name] = NumberFeature(type="number")
        else:
            features[field.name] = CategoryFeature(type="category")
    if not features:
        raise UserError("no column can be a feature: " + ("; ".join(notes) or "the table has no others"))
    return Resolved(features, notes)


def find_column(schema: pa.Schema, name: str, where: str) -> pa.Field:
    """Return the column's field. Raises UserError that says where it was named and what may have been meant."""
    if name in schema.names:
        return schema.field(name)
    close = difflib.get_close_matches(name, schema.names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"{where}: the table has no column {name!r}; {hint}found {_listed(schema.names)}")


def is_text(type_: pa.DataType) -> bool:
    """Say whether a column holds text, plain or as a dictionary."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def is_quantity(type_: pa.DataType) -> bool:
    """Say whether a column holds numbers: whole, floating or decimal."""
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _kind(type_: pa.DataType) -> str | None:
    if pa.types.is_null(type_) or is_quantity(type_):
        return "number"
    names = type_.value_type if pa.types.is_dictionary(type_) else type_
    listed = pa.types.is_dictionary(type_) and pa.types.is_integer(names)
    return "category" if listed or is_text(names) or pa.types.is_boolean(names) else None


def _unusable(name: str, kind: str, sample: pa.Table | None) -> str | None:
    """Return why a column's rows make no feature, or None."""
    if sample is None:
        return None
    column = sample.column(name)
    present = len(column) - column.null_count
    if present == 0:
        return f"no value in the {len(column):,} rows looked at"
    if kind == "category" and present >= ID_ROWS:
        distinct = pc.count_distinct(column.cast(pa.string()), mode="only_valid").as_py()
        if distinct > ID_SHARE * present:
            return f"{distinct:,} different values in {present:,} rows look like an identifier"
    return None


def _fits(field: pa.Field, feature: NumberFeature | CategoryFeature) -> None:
    """Raise UserError when a column's type can never hold the feature."""
    plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    usable = is_text(plain) or is_quantity(plain) or pa.types.is_boolean(plain) or pa.types.is_null(plain)
    if not usable:
        allowed = "numbers, text or truth values"
        raise UserError(
            f"features.{field.name}: declared {feature.type}, found a column of {field.type}; allowed: {allowed}"
        )


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
