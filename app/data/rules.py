"""Does a row keep a rule of the user's own: an SQL expression over the table's columns?"""

import polars as pl
import pyarrow as pa

from app.data.columns import plain
from app.spec import Rule
from app.types import UserError


def columns_of(rule: Rule) -> list[str]:
    """Return the columns a rule reads. Raises UserError when it is no SQL expression."""
    return _expression(rule).meta.root_names()


def _expression(rule: Rule) -> pl.Expr:
    try:
        return pl.sql_expr(rule.expression)
    except pl.exceptions.PolarsError as error:
        raise _broken(rule, error) from error


def broken_by(rule: Rule, columns: dict[str, pa.Array]) -> pa.Array:
    """Return true where a rule rejects. Raises UserError when it is no condition on one row."""
    expression = _expression(rule)
    frame = pl.DataFrame({name: pl.Series(name, plain(columns[name])) for name in expression.meta.root_names()})
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
