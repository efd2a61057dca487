"""Does a row keep the contract? Columns get their one type; rows that break a rule are set aside with the reason."""

import datetime as dt
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from app.data.inference import find_column, is_quantity, is_text, resolve_features
from app.data.moments import is_time, to_moments
from app.spec import CategoryFeature, NumberFeature, Rule, Spec
from app.types import UserError

CATEGORY = pa.dictionary(pa.int32(), pa.string())
LARGEST = float(np.finfo(np.float32).max)


class Checked(NamedTuple):
    """`kept` has the contract's schema; `rejected` the source's columns and `reason`; `counts` is rows by reason."""

    kept: pa.Table
    rejected: pa.Table
    counts: dict[str, int]


@dataclass
class _Faults:
    """The first reason against each row."""

    rows: int
    reasons: list[str] = field(default_factory=list)
    first: npt.NDArray[np.int32] | None = None  # (rows,) index + 1 of the reason; 0 is none

    def add(self, reason: str, bad: pa.Array) -> None:
        """Reject the rows where `bad` is true; null is not."""
        mask = bad.fill_null(False).to_numpy(zero_copy_only=False)
        if not mask.any():
            return
        if self.first is None:
            self.first = np.zeros(self.rows, np.int32)
        self.reasons.append(reason)
        self.first[mask & (self.first == 0)] = len(self.reasons)


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
        target = find_column(schema, spec.task.target, "task.target")
        plain = target.type.value_type if pa.types.is_dictionary(target.type) else target.type
        if not (is_text(plain) or is_quantity(plain) or pa.types.is_boolean(plain) or pa.types.is_null(plain)):
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
            find_column(schema, name, "gate.slices")
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
            for name in _expression(rule).meta.root_names():
                find_column(schema, name, f"quality.rules: {rule.name!r}")
        for name, feature in features.items():
            _allowed(name, feature, schema.field(name).type)
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
            _allowed(name, feature, schema.field(name).type)
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
        asked |= {name for rule in self.rules for name in _expression(rule).meta.root_names()}
        return [name for name in self.source.names if name in asked]

    @property
    def dictionary(self) -> list[str]:
        """Text columns that are read as dictionaries: categories and slices repeat their values."""
        plain = {self.target, self.key, self.time}
        numbers = {name for name, feature in self.features.items() if feature.type == "number"}
        named = {*self.features, *self.slices} - plain - numbers
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
        raw = {name: _single(table.column(name)) for name in self.columns}
        faults = _Faults(table.num_rows)
        kept: dict[str, pa.Array] = {}
        if self.key is not None:
            kept[self.key] = _plain(raw[self.key])
            faults.add(f"{self.key}: null key", kept[self.key].is_null())
        if self.time is not None:
            kept[self.time] = self._moments(self.time, raw[self.time], now, faults)
        for name, feature in self.features.items():
            column = (
                _number(raw[name], name, faults) if feature.type == "number" else _category(raw[name], name, faults)
            )
            kept[name] = column
            if feature.required and column.null_count:
                faults.add(f"{name}: required, found null", column.is_null())
            if feature.type == "number":
                _check_limits(column, name, feature, faults)
            elif (allowed := _allowed(name, feature, column.type)) is not None:
                _check_values(column, name, allowed, faults)
        if self.target is not None:
            kept[self.target] = self._labels(self.target, raw[self.target], faults)
        for name in self.slices:
            if name not in kept:
                kept[name] = _names(raw[name]) if is_text(raw[name].type) else raw[name]
        for rule in self.rules:
            faults.add(rule.name, _evaluate(rule, raw | kept))
        return _divide(pa.table(kept), table, faults)

    def _moments(self, name: str, column: pa.Array, now: dt.datetime, faults: _Faults) -> pa.Array:
        moments = _single(to_moments(pa.chunked_array([column]), self.timezone))
        if moments.null_count:
            faults.add(f"{name}: null time", column.is_null())
            faults.add(f"{name}: not an ISO 8601 time", moments.is_null())
        if self.reject_future:
            newest = pc.max(moments).as_py()
            if newest is not None and newest > now:
                faults.add(f"{name}: in the future", pc.greater(moments, pa.scalar(now, moments.type)))
        return moments

    def _labels(self, name: str, column: pa.Array, faults: _Faults) -> pa.Array:
        """Return the target; null where there is no label."""
        if self.regression:
            column = _number(column, name, faults)
        column = _plain(column)
        if pa.types.is_floating(column.type):
            faults.add(f"{name}: infinite", pc.is_inf(column))
        return column


def _single(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, without a copy where it is one already."""
    if column.num_chunks == 1:
        return column.chunk(0)
    joined = column.combine_chunks()
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _plain(column: pa.Array) -> pa.Array:
    """Return text as string, decimals as float64, NaN as null; everything else as it is."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type):
        return column.cast(pa.string())
    if pa.types.is_decimal(column.type):
        return column.cast(pa.float64())
    if pa.types.is_floating(column.type):
        nan = pc.is_nan(column)
        return pc.if_else(nan, pa.scalar(None, column.type), column) if pc.any(nan).as_py() else column
    return column


def _number(column: pa.Array, name: str, faults: _Faults) -> pa.Array:
    """Return whole or floating numbers; text is parsed, truth values are 0 and 1."""
    if pa.types.is_floating(column.type) and column.type.bit_width == 16:
        column = column.cast(pa.float32())
    column = _plain(column)
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int64())
    if pa.types.is_null(column.type):
        return column.cast(pa.float64())
    if is_text(column.type):
        text = pl.Series(name, column, dtype=pl.String).str.strip_chars()
        number = _plain(text.cast(pl.Float64, strict=False).to_arrow())
        missing = ((text.str.len_bytes() == 0) | (text.str.to_lowercase() == "nan")).to_arrow()
        faults.add(f"{name}: not a number", pc.and_not(pc.and_(column.is_valid(), number.is_null()), missing))
        return number
    return column


def _category(column: pa.Array, name: str, faults: _Faults) -> pa.Array:
    """Return dictionary<string>, int64 or bool."""
    if is_text(column.type) or pa.types.is_null(column.type):
        return _names(column)
    column = _plain(column)
    if pa.types.is_boolean(column.type) or pa.types.is_int64(column.type):
        return column
    if pa.types.is_integer(column.type) and not pa.types.is_uint64(column.type):
        return column.cast(pa.int64())
    whole = pl.Series(name, column).cast(pl.Int64, strict=False).to_arrow()
    same = pc.equal(whole.cast(column.type, safe=False), column)
    faults.add(f"{name}: not a whole number of 64 bits", pc.and_(column.is_valid(), pc.invert(same.fill_null(False))))
    return whole


def _names(column: pa.Array) -> pa.Array:
    """Return text, plain or as any dictionary, as dictionary<string>."""
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary.cast(pa.string()))


def _check_limits(column: pa.Array, name: str, feature: NumberFeature, faults: _Faults) -> None:
    """Reject infinite numbers, those beyond float32, and those beyond the declared limits."""
    found = pc.min_max(column)
    low, high = found["min"].as_py(), found["max"].as_py()
    if low is None:
        return
    if low < -LARGEST or high > LARGEST:  # only floating numbers reach so far
        faults.add(f"{name}: infinite", pc.is_inf(column))
        faults.add(f"{name}: beyond float32", pc.greater(pc.abs(column), LARGEST))
    if feature.min is not None and low < feature.min:
        faults.add(f"{name}: below min {feature.min:g}", pc.less(column, feature.min))
    if feature.max is not None and high > feature.max:
        faults.add(f"{name}: above max {feature.max:g}", pc.greater(column, feature.max))


def _allowed(name: str, feature: NumberFeature | CategoryFeature, type_: pa.DataType) -> pa.Array | None:
    """Return a category's declared values in the column's kind. Raises UserError when they are of another."""
    if feature.type == "number" or feature.values is None:
        return None
    wanted = pa.int64()
    if is_text(type_) or pa.types.is_null(type_):
        wanted = pa.string()
    elif pa.types.is_boolean(type_):
        wanted = pa.bool_()
    kind = {pa.int64(): int, pa.string(): str, pa.bool_(): bool}[wanted]
    wrong = [value for value in feature.values if type(value) is not kind]
    if wrong:
        raise UserError(
            f"features.{name}.values: found {wrong[0]!r}, but the column holds {type_}; allowed: {wanted} values"
        )
    return pa.array(feature.values, wanted)


def _check_values(column: pa.Array, name: str, allowed: pa.Array, faults: _Faults) -> None:
    if pa.types.is_dictionary(column.type):
        known = pc.is_in(column.dictionary, value_set=allowed)
        if not pc.all(known).as_py():
            faults.add(f"{name}: value not allowed", pc.invert(known.take(column.indices)))
    else:
        known = pc.is_in(column, value_set=allowed)
        faults.add(f"{name}: value not allowed", pc.and_not(column.is_valid(), known))


def _expression(rule: Rule) -> pl.Expr:
    try:
        return pl.sql_expr(rule.expression)
    except pl.exceptions.PolarsError as error:
        raise _broken(rule, error) from error


def _evaluate(rule: Rule, columns: dict[str, pa.Array]) -> pa.Array:
    """Return true where a rule rejects. Raises UserError when it is no condition on one row."""
    expression = _expression(rule)
    frame = pl.DataFrame({name: pl.Series(name, _plain(columns[name])) for name in expression.meta.root_names()})
    try:
        held = frame.lazy().select(expression.alias("held")).collect()["held"]
    except pl.exceptions.PolarsError as error:
        raise _broken(rule, error) from error
    if held.dtype != pl.Boolean:
        raise UserError(
            f"quality.rules: {rule.name!r} gives {held.dtype}; allowed: a condition that is true or false"
        )
    if len(held) != frame.height:
        raise UserError(f"quality.rules: {rule.name!r} looks at all rows at once; allowed: a condition on one row")
    return (~held).to_arrow()


def _broken(rule: Rule, error: pl.exceptions.PolarsError) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"quality.rules: {rule.name!r} cannot be evaluated: {reason}; found {rule.expression!r}")


def _divide(kept: pa.Table, source: pa.Table, faults: _Faults) -> Checked:
    if faults.first is None:
        empty = source.schema.empty_table()
        return Checked(kept, _with_reason(empty, pa.array([], pa.string())), {})
    bad = faults.first > 0
    reasons = np.array(faults.reasons, dtype=object)[faults.first[bad] - 1]
    numbers, counts = np.unique(faults.first[bad], return_counts=True)
    return Checked(
        kept.filter(pa.array(~bad)),
        _with_reason(source.filter(pa.array(bad)), pa.array(reasons, pa.string())),
        {faults.reasons[number - 1]: int(count) for number, count in zip(numbers, counts, strict=True)},
    )


def _with_reason(rejected: pa.Table, reasons: pa.Array) -> pa.Table:
    """Append the reasons; a column of the source's by that name steps aside."""
    names = [f"{name} (source)" if name == "reason" else name for name in rejected.column_names]
    return rejected.rename_columns(names).append_column("reason", reasons)
