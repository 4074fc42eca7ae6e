"""SQL that hashes a table's rows on the server, exactly and cheaply: equal rows have equal hashes, whatever the major.

A value of a common type is hashed as the server holds it, by functions that its own hash indexes use, the same ones in
majors 13 to 18. To make text of all values first takes twice as much of the server's time. Text is made of any other
type's values, since the functions of many do not tell apart what a dump does: numeric 1.0 and 1.00 are equal to them,
and of a bigint or timestamp they see the XOR of its halves.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

_TEXT = """hashtextextended(coalesce({column}, '') COLLATE "C", {seed})"""
_TIME = "hashtextextended(coalesce(textin({out}({{column}})), '') COLLATE \"C\", {{seed}})"
_HASHES = {
    "bool": "hashint4extended(coalesce(int4({column}), 0), {seed})",
    "int2": "hashint4extended(coalesce({column}, 0), {seed})",
    "int4": "hashint4extended(coalesce({column}, 0), {seed})",
    "oid": "hashoidextended(coalesce({column}, 0), {seed})",
    "text": _TEXT,
    "varchar": _TEXT,
    "timestamp": _TIME.format(out="timestamp_out"),
    "timestamptz": _TIME.format(out="timestamptz_out"),
    "uuid": "uuid_hash_extended(coalesce({column}, '00000000-0000-0000-0000-000000000000'), {seed})",
}
"""By the type's name in pg_catalog. Functions of pg_catalog alone: nothing that the database's owner made is called."""
_SEED = "int8xor({before}, CASE WHEN {column} IS NULL THEN 1::bigint ELSE 0::bigint END)"
_INT8 = "hashint4extended(CASE WHEN {column} IS NULL THEN 1 ELSE 0 END, int8xor({before}, coalesce({column}, 0)))"
"""By the seed, all 64 bits of which count."""
MOST_NESTED = 100
"""Columns; each is an argument of the next, and a server's stack has an end."""


def row_hash(columns: Sequence[tuple[str, str | None]], alias: sql.Identifier) -> sql.Composable:
    """An expression of type bigint for one row; the hash of each value depends on all before it.

    Args:
        columns: name and, of a type of pg_catalog, its name; in the table's order, which counts.
        alias: of the table.
    """
    found: sql.Composable = sql.SQL("0::bigint")
    others: list[sql.Composable] = []
    is_wide = len(columns) > MOST_NESTED
    for name, type_name in columns:
        column = sql.SQL("{}.{}").format(alias, sql.Identifier(name))
        if type_name == "int8" and not is_wide:
            found = sql.SQL(_INT8).format(column=column, before=found)
        elif type_name in _HASHES and not is_wide:
            seed = sql.SQL(_SEED).format(before=found, column=column)
            found = sql.SQL(_HASHES[type_name]).format(column=column, seed=seed)
        else:
            others.append(column)
    if others:
        # Not by a cast to text, which whoever made a type may have defined: its function would run with our rights.
        text = sql.SQL("textin(record_out(ROW({})))").format(sql.SQL(", ").join(others))
        found = sql.SQL('hashtextextended({} COLLATE "C", {})').format(text, found)
    return found
