"""Does a row keep the contract? Columns get their one type; rows that break a rule are set aside with the reason."""

import datetime as dt
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.data.columns import (
    LARGEST,
    Faults,
    allowed_values,
    check_limits,
    check_values,
    names_of,
    plain,
    single,
    to_category,
    to_number,
)
from app.data.inference import find_column, is_quantity, is_text, resolve_features
from app.data.moments import is_time, to_moments
from app.data.rules import broken_by, columns_of
from app.spec import CategoryFeature, NumberFeature, Rule, Spec
from app.types import UserError


class Checked(NamedTuple):
    """`kept` has the contract's schema; `rejected` the source's columns and `reason`; `counts` is rows by reason."""

    kept: pa.Table
    rejected: pa.Table
    counts: dict[str, int]


@dataclass(frozen=True)
class Contract:
    """What a declaration asks of a table with a certain schema, and what becomes of its columns.

    Numbers stay whole or floating, NaN becomes null; categories become dictionary<string>, int64 or bool; the time
    timestamp[ms, UTC]; key and target plain. `columns` are those read, `dictionary` those of them best read as
    dictionaries, `notes` say which columns were left aside and why.
    """

    features: dict[str, NumberFeature | CategoryFeature]
    target: str | None
    regression: bool
    key: str | None
    time: str | None
    timezone: str
    reject_future: bool
    rules: tuple[Rule, ...]
    slices: tuple[str, ...]
    source: pa.Schema
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(spec: Spec, schema: pa.Schema, sample: pa.Table | None = None) -> "Contract":
        """Return the contract of a declaration with a table; `sample` is for inferring features.

        Raises UserError for columns that are missing or cannot be what they are declared, and for broken rules.
        """
        _check_roles(spec, schema)
        features, notes = resolve_features(spec, schema, sample)
        contract = Contract(
            features=features,
            target=spec.task.target,
            regression=spec.task.type == "regression",
            key=spec.data.key,
            time=spec.data.time,
            timezone=spec.data.timezone,
            reject_future=spec.quality.future == "reject",
            rules=tuple(spec.quality.rules),
            slices=tuple(spec.gate.slices),
            source=schema,
            notes=tuple(notes),
        )
        for rule in contract.rules:
            for name in columns_of(rule):
                find_column(schema, name, f"quality.rules: {rule.name!r}")
        for name, feature in features.items():
            allowed_values(name, feature, schema.field(name).type)
        contract.check(contract._empty, dt.datetime.now(dt.UTC))  # finds broken rules and an unknown zone
        return contract

    @staticmethod
    def of_features(
        features: dict[str, NumberFeature | CategoryFeature], schema: pa.Schema, key: str | None = None
    ) -> "Contract":
        """Return the contract of rows that are only to be scored: features, and the key where the table has it."""
        for name in features:
            find_column(schema, name, "features")
        for name, feature in features.items():
            allowed_values(name, feature, schema.field(name).type)
        return Contract(
            features=features,
            target=None,
            regression=False,
            key=key if key in schema.names else None,
            time=None,
            timezone="UTC",
            reject_future=False,
            rules=(),
            slices=(),
            source=schema,
        )

    @property
    def columns(self) -> list[str]:
        """The source's columns that are read, in the source's order."""
        asked = {self.target, self.key, self.time, *self.features, *self.slices}
        asked |= {name for rule in self.rules for name in columns_of(rule)}
        return [name for name in self.source.names if name in asked]

    @property
    def dictionary(self) -> list[str]:
        """Text columns that are read as dictionaries: categories and slices repeat their values."""
        others = {self.target, self.key, self.time}
        numbers = {name for name, feature in self.features.items() if feature.type == "number"}
        named = {*self.features, *self.slices} - others - numbers
        return [name for name in self.columns if name in named and is_text(self.source.field(name).type)]

    @property
    def schema(self) -> pa.Schema:
        """The columns of checked rows."""
        return self.check(self._empty, dt.datetime.now(dt.UTC)).kept.schema

    @property
    def _empty(self) -> pa.Table:
        return pa.schema([self.source.field(name) for name in self.columns]).empty_table()

    def check(self, table: pa.Table, now: dt.datetime) -> Checked:
        """Check rows that hold `columns`; each is kept, or rejected with the first reason found.

        Raises UserError when a rule cannot be evaluated.
        """
        raw = {name: single(table.column(name)) for name in self.columns}
        faults = Faults(table.num_rows)
        kept: dict[str, pa.Array] = {}
        if self.key is not None:
            kept[self.key] = plain(raw[self.key])
            faults.add(f"{self.key}: null key", kept[self.key].is_null())
        if self.time is not None:
            kept[self.time] = self._moments(self.time, raw[self.time], now, faults)
        for name, feature in self.features.items():
            convert = to_number if feature.type == "number" else to_category
            kept[name] = column = convert(raw[name], name, faults)
            if feature.required and column.null_count:
                faults.add(f"{name}: required, found null", column.is_null())
            if feature.type == "number":
                check_limits(column, name, feature, faults)
            elif (allowed := allowed_values(name, feature, column.type)) is not None:
                check_values(column, name, allowed, faults)
        if self.target is not None:
            kept[self.target] = self._labels(self.target, raw[self.target], faults)
        for name in self.slices:
            if name not in kept:
                kept[name] = names_of(raw[name]) if is_text(raw[name].type) else raw[name]
        for rule in self.rules:
            faults.add(rule.name, broken_by(rule, raw | kept))
        return _divide(pa.table(kept), table, faults)

    def _moments(self, name: str, column: pa.Array, now: dt.datetime, faults: Faults) -> pa.Array:
        moments = single(to_moments(pa.chunked_array([column]), self.timezone))
        if moments.null_count:
            faults.add(f"{name}: null time", column.is_null())
            faults.add(f"{name}: not an ISO 8601 time", moments.is_null())
        if self.reject_future:
            faults.add(f"{name}: in the future", pc.greater(moments, pa.scalar(now, moments.type)))
        return moments

    def _labels(self, name: str, column: pa.Array, faults: Faults) -> pa.Array:
        """Return the target; null where there is no label."""
        if self.regression:
            column = to_number(column, name, faults)
        column = plain(column)
        if pa.types.is_floating(column.type):
            faults.add(f"{name}: infinite", pc.is_inf(column))
            faults.add(f"{name}: beyond float32", pc.greater(pc.abs(column), LARGEST))
        return column


def _check_roles(spec: Spec, schema: pa.Schema) -> None:
    """Raise UserError when target, key, time or a slice is missing or of a type that cannot be it."""
    target = find_column(schema, spec.task.target, "task.target")
    value = target.type.value_type if pa.types.is_dictionary(target.type) else target.type
    if not (is_text(value) or is_quantity(value) or pa.types.is_boolean(value) or pa.types.is_null(value)):
        allowed = "numbers, text or truth values"
        raise UserError(f"task.target: column {target.name!r} holds {target.type}; allowed: {allowed}")
    if spec.data.key is not None:
        key = find_column(schema, spec.data.key, "data.key")
        if not (is_text(key.type) or pa.types.is_integer(key.type) or pa.types.is_null(key.type)):
            raise UserError(f"data.key: column {key.name!r} holds {key.type}; allowed: text or whole numbers")
    if spec.data.time is not None:
        time = find_column(schema, spec.data.time, "data.time")
        if not is_time(time.type):
            allowed = "timestamps, dates or ISO 8601 text"
            raise UserError(f"data.time: column {time.name!r} holds {time.type}; allowed: {allowed}")
    for name in spec.gate.slices:
        slice_ = find_column(schema, name, "gate.slices")
        if pa.types.is_nested(slice_.type):
            raise UserError(f"gate.slices: column {name!r} holds {slice_.type}; allowed: single values")


def _divide(kept: pa.Table, source: pa.Table, faults: Faults) -> Checked:
    if faults.first is None:
        empty = source.schema.empty_table()
        return Checked(kept, with_reason(empty, pa.array([], pa.string())), {})
    bad = faults.first > 0
    reasons = np.array(faults.reasons, dtype=object)[faults.first[bad] - 1]
    found, counts = np.unique(faults.first[bad], return_counts=True)
    return Checked(
        kept.filter(pa.array(~bad)),
        with_reason(source.filter(pa.array(bad)), pa.array(reasons, pa.string())),
        {faults.reasons[index - 1]: int(count) for index, count in zip(found, counts, strict=True)},
    )


def with_reason(rejected: pa.Table, reasons: pa.Array) -> pa.Table:
    """Append the reasons; a column of the source's by that name steps aside."""
    names = [f"{name} (source)" if name == "reason" else name for name in rejected.column_names]
    return rejected.rename_columns(names).append_column("reason", reasons)
