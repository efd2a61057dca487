"""How do tables of several model versions become one, whatever features each of them has?"""

from collections.abc import Sequence

import pyarrow as pa

from app.journal.rows import FIXED, Stream


def concat(stream: Stream, tables: Sequence[pa.Table]) -> pa.Table:
    """Return all rows in one table; columns that only some have are null for the others.

    Numbers are widened where types differ, to the nearest that a float64 holds; types that do not go together become
    text. A score is no list of scores (the task was another): beside lists it is null.
    """
    tables = [table for table in tables if table.num_rows]
    if not tables:
        return FIXED[stream].empty_table()
    if len({table.schema for table in tables}) > 1:
        fields: dict[str, pa.DataType] = {}
        for table in tables:
            for field in table.schema:
                fields[field.name] = _wider(fields.get(field.name, pa.null()), field.type)
        tables = [_as(table, fields) for table in tables]
    return pa.concat_tables(tables, promote_options="default")


def _as(table: pa.Table, fields: dict[str, pa.DataType]) -> pa.Table:
    for number, name in enumerate(table.column_names):
        if pa.types.is_list(fields[name]) and not pa.types.is_list(table[name].type):
            table = table.set_column(number, name, pa.nulls(table.num_rows, fields[name]))
    return table.cast(pa.schema([(name, fields[name]) for name in table.column_names]), safe=False)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return a type that both can be cast to."""
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = _wider(fields.get(field.name, pa.null()), field.type)
        return pa.struct(list(fields.items()))
    if pa.types.is_list(one) != pa.types.is_list(other):
        return one if pa.types.is_list(one) else other
    try:
        schemas = [pa.schema({"": type_}) for type_ in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()
