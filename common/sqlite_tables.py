"""What SQLite says of tables, their columns, and whether they are whole.

Asked by statements, not by table-valued functions: a table of the database may have the name of one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_NULL_FOUND = "NULL value in "
"""How quick_check begins to say that a column holds what it may not."""
_ALL = 2**31 - 1
_HIDDEN = 1
"""What a virtual table has besides its content; 2 and 3 are generated columns."""


@dataclass(frozen=True)
class Column:
    """One that `SELECT *` gives.

    Attributes:
        type: as it was declared; empty for none.
        is_key: part of the primary key.
    """

    name: str
    type: str
    is_key: bool
    is_generated: bool


@dataclass(frozen=True)
class Table:
    """
    Attributes:
        kind: "table", "virtual", "shadow" (in which a virtual one keeps what it holds) or "view".
    """

    name: str
    kind: str
    has_rowid: bool


def tables_of(connection: sqlite3.Connection) -> list[Table]:
    """Those of the database, SQLite's own left out."""
    return [
        Table(name, kind, not is_without_rowid)
        for schema, name, kind, _, is_without_rowid, *_ in connection.execute("PRAGMA main.table_list").fetchall()
        if schema == "main" and not name.lower().startswith("sqlite_")
    ]


def columns_of(connection: sqlite3.Connection, table: str) -> list[Column]:
    """A table's columns in the order of `SELECT *`; none of one that is not there.

    Raises:
        sqlite3.OperationalError: `is_of_unknown_module`, or a virtual table that is not right.
    """
    rows = connection.execute(f"PRAGMA main.table_xinfo({quoted(table)})").fetchall()
    return [
        Column(name, kind or "", bool(key), bool(hidden))
        for _, name, kind, _, _, key, hidden in rows
        if hidden != _HIDDEN
    ]


def quick_check(connection: sqlite3.Connection) -> str:
    """ "ok", or the first of what SQLite's check of a database's structure finds wrong.

    Raises:
        sqlite3.Error: it cannot be read so far.
    """
    verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict.startswith(_NULL_FOUND) and (unfounded := _nulls_not_there(connection)):
        # Now with all that it finds, one for each row: pages are looked at first, and they are right.
        found = (str(text) for (text,) in connection.execute(f"PRAGMA quick_check({_ALL})"))
        verdict = next((text for text in found if text not in unfounded), "ok")
    return verdict


def _nulls_not_there(connection: sqlite3.Connection) -> set[str]:
    """What quick_check may say of NULLs that are not there.

    SQLite 3.40 looks for them at the wrong place in a table without rowid whose key is in another order than its
    columns.
    """
    found = set()
    for table in tables_of(connection):
        if table.has_rowid:
            continue
        name = quoted(table.name)
        for _, column, _, may_not, *_ in connection.execute(f"PRAGMA main.table_xinfo({name})").fetchall():
            # Not `IS NULL`: SQLite knows that it cannot be, and does not look.
            query = f"SELECT 1 FROM {name} WHERE typeof({quoted(column)}) = 'null' LIMIT 1"  # noqa: S608  # quoted
            if may_not and connection.execute(query).fetchone() is None:
                found.add(f"{_NULL_FOUND}{table.name}.{column}")
    return found


def is_of_unknown_module(failure: sqlite3.Error) -> bool:
    """Whether a virtual table cannot be read because nobody here knows its kind."""
    return str(failure).startswith("no such module")


def quoted(name: str) -> str:
    """A name in SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
