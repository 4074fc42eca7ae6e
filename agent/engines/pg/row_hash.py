"""SQL that hashes a table's rows on the server, exactly and cheaply: equal rows have equal hashes, whatever the major.

A value of a common type is hashed as the server holds it, by the hash function of the server's own hash indexes; these
and what they give are the same in majors 13 to 18. Making text of such values first took two to three times as much of
the server's time. Any other value is hashed by its text: some types' own functions call values equal which a dump tells
apart (numeric 1.0 and 1.00, float 0 and -0).
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

_HASHES = {
    "bool": "hashint4extended(int4({column}), 0)",
    "int2": "hashint2extended({column}, 0)",
    "int4": "hashint4extended({column}, 0)",
    "int8": "hashint8extended({column}, 0)",
    "oid": "hashoidextended({column}, 0)",
    "text": 'hashtextextended({column} COLLATE "C", 0)',
    "varchar": 'hashtextextended({column} COLLATE "C", 0)',
    "timestamp": "timestamp_hash_extended({column}, 0)",
    "timestamptz": "timestamp_hash_extended(timezone('UTC', {column}), 0)",
    "uuid": "uuid_hash_extended({column}, 0)",
}
"""By the type's name in pg_catalog. Functions of pg_catalog alone: nothing that the database's owner made is called."""


def row_hash(columns: Sequence[tuple[str, str | None]], alias: sql.Identifier) -> sql.Composable:
    """An expression of type bigint for one row.

    Args:
        columns: name and, of a type of pg_catalog, its name; in the table's order, which counts.
        alias: of the table.
    """
    hashes: list[sql.Composable] = []
    others: list[sql.Composable] = []
    for name, type_name in columns:
        column = sql.SQL("{}.{}").format(alias, sql.Identifier(name))
        if type_name in _HASHES:
            hashes.append(sql.SQL(_HASHES[type_name]).format(column=column))
        else:
            others.append(column)
    if others:
        # Not by a cast to text, which whoever made a type may have defined: its function would run with our rights.
        text = sql.SQL("textin(record_out(ROW({})))").format(sql.SQL(", ").join(others))
        hashes.append(sql.SQL('hashtextextended({} COLLATE "C", 0)').format(text))
    # An array's hash depends on the order of its elements, and NULL is one of its own. But it is linear in them:
    # without the last step, a sum over rows would not see two rows exchange a value.
    array = sql.SQL("hash_array_extended(ARRAY[{}]::bigint[], 0)").format(sql.SQL(", ").join(hashes))
    return sql.SQL("hashint8extended({}, 0)").format(array)
