"""Questions about a SQLite database, and how a child that has it open answers them.

`asked` runs in the children of SQLite only (`child`), on databases that may be hostile: answers are short.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent.engines.sqlite.bounds import stop_at
from agent.engines.table_parts import MOST_PARTS, Kind, Parts, width_for
from common.sqlite_tables import columns_of, is_of_unknown_module, quoted

MAX_ANSWER_BYTES = 1 << 20
_MAX_ROWS = 2000
_ROWS_TOGETHER = 1000
"""In one array of what is digested: part of every fingerprint, so it stays as it is."""
_BYTES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 100
"""Taken and encoded in one go while they are small, in a fifth less time than one by one; divides `_ROWS_TOGETHER`."""
_SMALL_ROW_BYTES = 1 << 15
PARTS_SECONDS = 5.0
"""For all kinds together."""


@dataclass(frozen=True)
class Questions:
    """What to ask of a database.

    Attributes:
        queries: SQL by name, for a few rows of a few columns each.
        tables: what the queries read; in an upload each has to be a table, or not be there.
        with_content: read everything as well, for a digest of every table.
        without_columns: by table, what the digests leave out.
        kinds: what to take apart for a comparison, by names of their own; what takes too long is left out.
    """

    queries: Mapping[str, str] = field(default_factory=dict)
    tables: Collection[str] = ()
    with_content: bool = False
    without_columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)


NOTHING = Questions()


@dataclass(frozen=True)
class Answers:
    """What a database said, all of one moment.

    Attributes:
        rows: of each query by its name; None when a table or column of it is not there.
        content: of each table its row count and a digest, in words.
        parts: of each kind that could be taken apart in time.
    """

    rows: Mapping[str, list[list[Any]] | None] = field(default_factory=dict)
    content: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Parts] = field(default_factory=dict)


_TOO_LONG = "what it says of itself is too long"
_ENCODER = msgspec.msgpack.Encoder()
_ODD_TEXT = 1
_MISSING = ("no such table", "no such column")


def asked(connection: sqlite3.Connection, request: Mapping[str, Any], *, ends_at: float = math.inf) -> dict[str, Any]:
    """Answers to what a request asks besides its own subject; empty when it asks nothing.

    Args:
        ends_at: when the connection stops its queries.
    Raises:
        sqlite3.Error: the database is damaged, or an answer would be too long.
    """
    found: dict[str, Any] = {}
    if queries := request.get("queries"):
        found["rows"] = {name: _rows(connection, query) for name, query in queries.items()}
    if request.get("with_content"):
        found["content"] = _content(connection, request.get("without_columns", {}))
    if kinds := request.get("kinds"):
        found["parts"] = _parts_of_kinds(connection, kinds, ends_at)
    if len(json.dumps(found)) > MAX_ANSWER_BYTES:
        raise sqlite3.DataError(_TOO_LONG)
    return found


def not_a_table(connection: sqlite3.Connection, names: Collection[str]) -> str:
    """The first of these names that is a view's, or of a table whose rows a module makes; empty when none is."""
    wanted = {name.lower() for name in names}
    made = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND rootpage = 0")
    return next((str(name) for (name,) in made if str(name).lower() in wanted), "")


def _rows(connection: sqlite3.Connection, query: str) -> list[list[Any]] | None:
    """The first rows; None when a table or column of the query is not there."""
    rows: list[list[Any]] = []
    length = 0
    try:
        for row in itertools.islice(connection.execute(query), _MAX_ROWS):
            # Any column may hold bytes, and an answer is text.
            rows.append([value.decode(errors="replace") if isinstance(value, bytes) else value for value in row])
            length += sum(len(value) for value in rows[-1] if isinstance(value, str))
            if length > MAX_ANSWER_BYTES:
                raise sqlite3.DataError(_TOO_LONG)
        return rows
    except sqlite3.OperationalError as failure:
        if str(failure).startswith(_MISSING):
            return None
        raise


def _parts_of_kinds(connection: sqlite3.Connection, kinds: Mapping[str, Any], all_ends_at: float) -> dict[str, Any]:
    """Parts by kind; without those that are not there, are too many, or for which there was no time left."""
    ends_at = time.monotonic() + PARTS_SECONDS
    stop_at(connection, ends_at)
    try:
        found = {}
        for kind, (table, names) in kinds.items():
            with contextlib.suppress(sqlite3.OperationalError):
                if (parts := _parts(connection, table, names, ends_at)) is not None:
                    found[kind] = parts
        return found
    finally:
        stop_at(connection, all_ends_at)


def _parts(connection: sqlite3.Connection, table: str, names: Sequence[str], ends_at: float) -> dict[str, Any] | None:
    columns = [column.name for column in columns_of(connection, table)]
    width = 0 if names else width_for(_highest(connection, table))
    told_by = [columns.index(name) for name in names or ("id",) if name in columns]
    if len(told_by) < len(names or ("id",)):
        return None
    parts: dict[str, tuple[int, int]] = {}
    for row in connection.execute(f"SELECT * FROM {quoted(table)} NOT INDEXED"):  # noqa: S608  # quoted
        identity = [row[column] for column in told_by]
        if width and not isinstance(identity[0], int):
            return None
        name = str(identity[0] // width) if width else f"{_hash(identity):x}"
        count, digest = parts.get(name, (0, 0))
        parts[name] = count + 1, digest ^ _hash(row)
        if len(parts) > MOST_PARTS or time.monotonic() > ends_at:
            return None
    return {"columns": columns, "width": width, "parts": parts}


def _highest(connection: sqlite3.Connection, table: str) -> int:
    found = connection.execute(f"SELECT max(id) FROM {quoted(table)}").fetchone()[0]  # noqa: S608  # quoted
    return found if isinstance(found, int) else 0


def _hash(values: Sequence[object]) -> int:
    # Not `encode`: where memory ends it ends the process (msgspec 0.22), this raises MemoryError.
    _ENCODER.encode_into(values, encoded := bytearray())
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")


def _content(connection: sqlite3.Connection, without: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Row count and SHA-256 of each table, rows in the order of their keys; of all definitions, under the name of
    SQLite's own table of them; and of the numbers that tables count up from, likewise."""
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    names = [row[0] for row in connection.execute(f"{query} OR name = 'sqlite_sequence'")]
    found = {"sqlite_schema": _definitions(connection)}
    for name in sorted(names):
        try:
            found[name] = _digest(connection, name, without.get(name, ()))
        except sqlite3.OperationalError as failure:
            if not is_of_unknown_module(failure):
                raise
            found[name] = _definition(connection, name)
    return found


def _definitions(connection: sqlite3.Connection) -> str:
    digest = hashlib.sha256()
    count = 0
    text_factory, connection.text_factory = connection.text_factory, _text
    try:
        query = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\'"
        for row in connection.execute(f"{query} ORDER BY type, name"):
            _ENCODER.encode_into(row, encoded := bytearray())
            digest.update(encoded)
            count += 1
    finally:
        connection.text_factory = text_factory
    for setting in ("user_version", "application_id"):
        digest.update(b"%d," % connection.execute(f"PRAGMA {setting}").fetchone())
    return f"{count} definitions, {digest.hexdigest()}"


def _definition(connection: sqlite3.Connection, table: str) -> str:
    """Of a virtual table that only its app can read; the tables in which it keeps its rows are told by themselves."""
    [sql] = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,)).fetchone()
    return f"defined, {hashlib.sha256(str(sql).encode()).hexdigest()}"


def _digest(connection: sqlite3.Connection, table: str, without: Sequence[str]) -> str:
    name = quoted(table)
    # Generated ones follow from the others, and may say what is left out.
    columns = columns_of(connection, table)
    told = [column.name for column in columns if not column.is_generated]
    wanted = ", ".join(quoted(column) for column in told if column not in without) or "NULL" if without else "*"
    [total] = connection.execute(f"SELECT count(*) FROM {name} NOT INDEXED").fetchone()  # noqa: S608  # quoted above
    count = 0
    digest = hashlib.sha256()
    text_factory, connection.text_factory = connection.text_factory, str
    try:
        # Not by an index that happens to hold all columns: the table itself is in the order of its key.
        query = f"SELECT {wanted} FROM {name} NOT INDEXED"  # noqa: S608  # quoted above
        for rows, encoded in _encoded_rows(connection, query, _SMALL_ROW_BYTES // max(len(columns), 1)):
            if count % _ROWS_TOGETHER == 0:
                digest.update(_array_of(min(total - count, _ROWS_TOGETHER)))
            digest.update(encoded)
            count += rows
    finally:
        connection.text_factory = text_factory
    if count != total:
        raise sqlite3.DatabaseError(f"it counts {total} rows in {table} and gives {count}")
    return f"{count} rows, {digest.hexdigest()}"


def _encoded_rows(
    connection: sqlite3.Connection, query: str, small_bytes: int
) -> Iterator[tuple[int, bytearray | memoryview]]:
    """How many rows of a query, and those in MessagePack; never some of two arrays.

    Args:
        small_bytes: rows are taken one by one from the first on that has a longer value.
    """
    count = 0
    limit = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, small_bytes)
    try:
        found = connection.execute(query)
        while rows := found.fetchmany(_ROWS_AT_ONCE):
            _ENCODER.encode_into(rows, encoded := bytearray())
            yield len(rows), memoryview(encoded)[len(_array_of(len(rows))) :]
            count += len(rows)
        return
    except sqlite3.Error:
        # Above all that limit; whatever else it is shows again without it.
        pass
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
    encoded, taken = bytearray(), 0
    connection.text_factory = _text
    for row in connection.execute(f"{query} LIMIT -1 OFFSET {count}"):
        _ENCODER.encode_into(row, encoded, -1)
        taken += 1
        count += 1
        if len(encoded) > _BYTES_AT_ONCE or count % _ROWS_TOGETHER == 0:
            yield taken, encoded
            encoded, taken = bytearray(), 0
    if taken:
        yield taken, encoded


def _text(value: bytes) -> str | msgspec.msgpack.Ext:
    """A text; one that is no UTF-8, which SQLite keeps as well, by its bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return msgspec.msgpack.Ext(_ODD_TEXT, value)


def _array_of(length: int) -> bytes:
    """How MessagePack begins an array; its elements follow, one row after another."""
    return bytes([0x90 | length]) if length < 16 else b"\xdc" + length.to_bytes(2, "big")
