"""n8n's database, the SQLite file or the PostgreSQL schema, as what re-encryption needs of it: tables, texts, counts.

Runs in a child process only. What is in there came from an upload: names are quoted, and nothing is believed of them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from common.sqlite_tables import columns_of, quoted, tables_of

if TYPE_CHECKING:
    import psycopg

Row = tuple[Any, ...]
_SQLITE_TEXT = ("text", "varchar", "json", "simple-json", "clob", "char", "")
_ROWIDS = ("rowid", "_rowid_", "oid")
"""SQLite's names for it, unless a column has them."""
_ROWS_AT_ONCE = 10
"""From the server: a workflow can have megabytes."""
_POSTGRES_TEXT = ("text", "character varying", "json", "jsonb")


class Store(Protocol):
    """One database, in one transaction. SQL is what both engines take."""

    def tables(self) -> set[str]:
        """Names of the ordinary tables."""

    def columns(self, table: str) -> dict[str, bool]:
        """Names of a table's columns, and whether they hold text."""

    def run(self, sql: str, *parameters: object, table: str = "", column: str = "") -> list[Row]:
        """Rows of a statement, none of one that gives none.

        Args:
            sql: with `?` for parameters, {table} and {column} for those names.
        """

    def texts(self, table: str, column: str, *, containing: str) -> Iterator[tuple[Row, str]]:
        """What a text column holds, with what `write` wants to find it again; rows may be written meanwhile."""

    def write(self, table: str, column: str, row: Row, value: str) -> None:
        """Put another text in a place that `texts` gave."""

    def contents(self, table: str, columns: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
        """These columns of every row as text, one row at a time."""

    def size_bytes(self) -> int:
        """Of a whole database in a server; 0 for one that is a file."""


class SqliteStore:
    """A staged file that nobody else has open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._keys: dict[str, tuple[str, str]] = {}

    def tables(self) -> set[str]:
        """Also virtual ones; not those in which such a one keeps what it holds, since through it they stay in step."""
        return {table.name for table in tables_of(self._connection) if table.kind in ("table", "virtual")}

    def columns(self, table: str) -> dict[str, bool]:
        """Without generated ones, which follow from the others."""
        described = columns_of(self._connection, table)
        return {
            column.name: column.type.lower().partition("(")[0].strip() in _SQLITE_TEXT
            for column in described
            if not column.is_generated
        }

    def run(self, sql: str, *parameters: object, table: str = "", column: str = "") -> list[Row]:
        named = sql.format(table=quoted(table), column=quoted(column))
        return self._connection.execute(named, parameters).fetchall()

    def texts(self, table: str, column: str, *, containing: str) -> Iterator[tuple[Row, str]]:
        row, is_row = self._key_of(table)
        return _texts(self, table, column, containing, row=row, is_row=is_row)

    def write(self, table: str, column: str, row: Row, value: str) -> None:
        _, is_row = self._key_of(table)
        update = "UPDATE {table} SET {column} = ? WHERE " + is_row  # noqa: S608  # names of ours, or quoted
        self.run(update, value, *row, table=table, column=column)

    def contents(self, table: str, columns: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
        # Nothing makes a text be one in SQLite, so it comes as bytes.
        wanted = ", ".join(f"CAST({quoted(name)} AS BLOB)" for name in columns)
        for row in self._connection.execute(f"SELECT {wanted} FROM {quoted(table)}"):  # noqa: S608  # quoted
            yield tuple(None if value is None else value.decode(errors="backslashreplace") for value in row)

    def size_bytes(self) -> int:
        return 0

    def _key_of(self, table: str) -> tuple[str, str]:
        """What tells a row from all others, and a condition for it: its rowid, its key, or all that is in it."""
        if table not in self._keys:
            self._keys[table] = self._find_key(table)
        return self._keys[table]

    def _find_key(self, table: str) -> tuple[str, str]:
        columns = columns_of(self._connection, table)
        taken = {column.name.lower() for column in columns}
        has_rowid = all(one.has_rowid for one in tables_of(self._connection) if one.name == table)
        if has_rowid and (free := [name for name in _ROWIDS if name not in taken]):
            return free[0], f"{free[0]} = ?"
        own = [column for column in columns if not column.is_generated]
        # Rows that are the same in every column hold the same text, so that they may be written together.
        key = [column for column in own if column.is_key] if not has_rowid else own
        names = [quoted(column.name).replace("{", "{{").replace("}", "}}") for column in key]
        return ", ".join(names), " AND ".join(f"{name} IS ? COLLATE BINARY" for name in names)


class PostgresStore:
    """A schema of a database that was loaded beside the app's."""

    def __init__(self, connection: psycopg.Connection[Row], schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def tables(self) -> set[str]:
        query = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = to_regnamespace(?)"
        return {row[0] for row in self.run(query, quoted(self._schema))}

    def columns(self, table: str) -> dict[str, bool]:
        query = (
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = ? AND table_name = ?"
        )
        return {name: kind in _POSTGRES_TEXT for name, kind in self.run(query, self._schema, table)}

    def run(self, sql: str, *parameters: object, table: str = "", column: str = "") -> list[Row]:
        named = sql.format(table=f"{quoted(self._schema)}.{quoted(table)}", column=quoted(column))
        # As bytes: psycopg's type wants a literal, and the names are quoted.
        cursor = self._connection.execute(named.replace("%", "%%").replace("?", "%s").encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def texts(self, table: str, column: str, *, containing: str) -> Iterator[tuple[Row, str]]:
        return _texts(self, table, column, containing, row="ctid::text", is_row="ctid = ?::tid")

    def write(self, table: str, column: str, row: Row, value: str) -> None:
        self.run("UPDATE {table} SET {column} = ? WHERE ctid = ?::tid", value, *row, table=table, column=column)

    def contents(self, table: str, columns: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
        wanted = ", ".join(f"{quoted(name)}::text" for name in columns)
        with self._connection.cursor(name="contents") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            cursor.execute(f"SELECT {wanted} FROM {quoted(self._schema)}.{quoted(table)}".encode())  # noqa: S608
            yield from cursor

    def size_bytes(self) -> int:
        [(size,)] = self.run("SELECT pg_database_size(current_database())")
        return int(size)


@contextlib.contextmanager
def without_triggers(connection: sqlite3.Connection) -> Iterator[None]:
    """For a transaction: what an upload wants done with every change is not done, since that could be anything."""
    triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {quoted(name)}")
    yield
    for _, definition in triggers:
        connection.execute(definition)


def count(store: Store, table: str, condition: str = "") -> int:
    """Rows of a table; 0 when it is not there."""
    if table not in store.tables():
        return 0
    [(number,)] = store.run("SELECT count(*) FROM {table} " + condition, table=table)  # noqa: S608  # constants
    return int(number)


def _texts(
    store: Store, table: str, column: str, containing: str, *, row: str, is_row: str
) -> Iterator[tuple[Row, str]]:
    """First where they are, then one at a time: rows that change under a query could come twice."""
    where = f"SELECT {row} FROM {{table}} WHERE CAST({{column}} AS TEXT) LIKE ?"  # noqa: S608
    what = f"SELECT CAST({{column}} AS TEXT) FROM {{table}} WHERE {is_row}"  # noqa: S608
    for place in store.run(where, f"%{containing}%", table=table, column=column):
        for (value,) in store.run(what, *place, table=table, column=column):
            yield place, value
