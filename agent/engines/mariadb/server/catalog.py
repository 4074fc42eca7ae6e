"""What is in a server and a schema, from information_schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.engines.mariadb.server.client import WITHIN_SECONDS, literal, of_schema, query, quoted
from agent.engines.mariadb.server.settings import Login
from common.errors import AppBusyError, AppUnavailableError, ServiceError

SYSTEM_SCHEMAS = frozenset({"information_schema", "mysql", "performance_schema", "sys"})
ESTIMATED_ROWS = "estimated_rows"
"""What rows are called where nobody has counted them: the statistics may be far off."""
_COUNT_SECONDS = 20
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_TRANSACTIONAL = "InnoDB"
_READ_ONLY = ("read_only", "innodb_read_only")
_OFF = ("0", "OFF")


@dataclass(frozen=True)
class Schema:
    """A database.

    Attributes:
        version: the server's, for example "10.11.19-MariaDB".
        max_packet_bytes: the longest statement that the server takes; 0: not known.
        tables: base tables and sequences with the rows that the server's statistics say.
        sequences: which of `tables` are some; the server keeps a row for each, which is none of the app's.
        programs: how many views, triggers, routines and events, by kind; only kinds that there are.
        untransactional: tables of which a dump beside a writer is of no one moment.
        versioned: tables that keep their earlier rows, which a dump leaves out.
        read_only: which settings keep everybody but administrators from writing, or all.
        adds_keys: the server gives each new table without a primary key a column for one, see `added_keys`.
    """

    version: str
    charset: str
    collation: str
    tables: Mapping[str, int] = field(default_factory=dict)
    sequences: frozenset[str] = frozenset()
    programs: Mapping[str, int] = field(default_factory=dict)
    untransactional: tuple[str, ...] = ()
    versioned: tuple[str, ...] = ()
    size_bytes: int = 0
    max_packet_bytes: int = 0
    read_only: tuple[str, ...] = ()
    adds_keys: bool = False

    @property
    def is_mariadb(self) -> bool:
        return "mariadb" in self.version.lower()

    @property
    def release(self) -> tuple[int, int]:
        found = _VERSION.search(self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def counts(self) -> dict[str, int]:
        """For a header."""
        return {"tables": len(self.tables), ESTIMATED_ROWS: sum(self.rows.values()), **self.programs}

    @property
    def rows(self) -> dict[str, int]:
        """Those of `tables` that hold rows of the app."""
        return {table: rows for table, rows in self.tables.items() if table not in self.sequences}


@dataclass(frozen=True)
class RowCount:
    """How many rows a database has."""

    rows: int
    is_estimated: bool = False

    def __str__(self) -> str:
        """For a person."""
        return f"about {self.rows:,}" if self.is_estimated else f"{self.rows:,}"

    @property
    def counts(self) -> dict[str, int]:
        """For a preview."""
        return {ESTIMATED_ROWS if self.is_estimated else "rows": self.rows}


async def look(login: Login, database: str) -> Schema:
    """
    Raises:
        AppUnavailableError: no server, no such database, or it is one of the server's own.
    """
    if database.lower() in SYSTEM_SCHEMAS:
        raise AppUnavailableError(
            f"{database} is a database of the server itself.", next_step="Name the app's in the setting `database`."
        )
    name = literal(database)
    rows = await query(
        login,
        f"""
        SELECT 'version', VERSION(), @@max_allowed_packet, 0 /*!80030 + @@sql_generate_invisible_primary_key */,
               {", ".join(f"@@{name}" for name in _READ_ONLY)};
        SELECT 'schema', DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA
         WHERE SCHEMA_NAME = {name};
        SELECT 'table', TABLE_NAME, TABLE_TYPE, COALESCE(TABLE_ROWS, 0), COALESCE(ENGINE, ''),
               COALESCE(DATA_LENGTH, 0) + COALESCE(INDEX_LENGTH, 0)
          FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name} ORDER BY TABLE_NAME;
        SELECT 'triggers', COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {name};
        SELECT 'routines', COUNT(*) FROM information_schema.ROUTINES WHERE {of_schema("ROUTINE_SCHEMA", database)};
        SELECT 'events', COUNT(*) FROM information_schema.EVENTS WHERE {of_schema("EVENT_SCHEMA", database)};
        """,  # noqa: S608  # a literal
    )
    version, max_packet, adds_keys, *read_only = next(row[1:] for row in rows if row[0] == "version")
    schema = next((row for row in rows if row[0] == "schema"), None)
    if schema is None:
        raise AppUnavailableError(
            f"{login.place} has no database {database}, or {login.user} may not see it.",
            next_step="Correct the setting `database`, or grant the account what it needs.",
        )
    listed = [row[1:] for row in rows if row[0] == "table"]
    views = sum(kind.endswith("VIEW") for _, kind, *_ in listed)
    programs = {row[0]: int(row[1]) for row in rows if row[0] in ("triggers", "routines", "events")}
    tables = [row for row in listed if not row[1].endswith("VIEW")]
    return Schema(
        version=version,
        charset=schema[1],
        collation=schema[2],
        tables={row[0]: int(row[2]) for row in tables},
        sequences=frozenset(row[0] for row in tables if row[1] == "SEQUENCE"),
        programs={kind: count for kind, count in {"views": views, **programs}.items() if count},
        untransactional=tuple(row[0] for row in tables if row[1] == "BASE TABLE" and row[3] != _TRANSACTIONAL),
        versioned=tuple(row[0] for row in tables if row[1] == "SYSTEM VERSIONED"),
        size_bytes=sum(int(row[4]) for row in tables),
        max_packet_bytes=int(max_packet),
        read_only=tuple(name for name, value in zip(_READ_ONLY, read_only, strict=True) if value not in _OFF),
        adds_keys=adds_keys == "1",
    )


async def count_rows(login: Login, database: str, schema: Schema) -> RowCount:
    """Rows of all tables; as the statistics have them when counting takes too long."""
    if not schema.rows:
        return RowCount(0)
    counts = " UNION ALL ".join(
        f"SELECT COUNT(*) FROM {quoted(database)}.{quoted(table)}"  # noqa: S608
        for table in schema.rows
    )
    try:
        rows = await query(login, f"{WITHIN_SECONDS.format(seconds=_COUNT_SECONDS)} {counts};")
    except ServiceError:
        return RowCount(sum(schema.rows.values()), is_estimated=True)
    return RowCount(sum(int(count) for [count] in rows))


async def columns_of(login: Login, database: str) -> dict[str, list[list[str]]]:
    """The columns of each table: name, type, whether it may be NULL, what it is generated from, in their order."""
    rows = await query(
        login,
        "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COALESCE(GENERATION_EXPRESSION, ''),"  # noqa: S608
        " COALESCE(COLLATION_NAME, ''), COALESCE(COLUMN_DEFAULT, '')"
        f" FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {literal(database)}"
        " ORDER BY TABLE_NAME, ORDINAL_POSITION;",
    )
    found: dict[str, list[list[str]]] = {}
    for table, *column in rows:
        found.setdefault(table, []).append(column)
    return found


async def table_names(login: Login, database: str) -> list[str] | None:
    """Base tables and sequences; None when there is no such database."""
    [names] = await tables_of(login, database)
    return names


async def tables_of(login: Login, *databases: str) -> list[list[str] | None]:
    """`table_names` of several.

    Raises:
        AppBusyError: there are more or fewer than were told.
    """
    rows = await query(
        login,
        "".join(
            f"SELECT 's{number}', SCHEMA_NAME FROM information_schema.SCHEMATA"  # noqa: S608  # a literal
            f" WHERE SCHEMA_NAME = {literal(database)};"
            f" SELECT 't{number}', TABLE_NAME FROM information_schema.TABLES"
            f" WHERE TABLE_SCHEMA = {literal(database)} AND TABLE_TYPE NOT LIKE '%VIEW' ORDER BY TABLE_NAME;"
            # Who exchanges tables must not miss one.
            f" SELECT 'n{number}', COUNT(*) FROM information_schema.TABLES"
            f" WHERE TABLE_SCHEMA = {literal(database)} AND TABLE_TYPE NOT LIKE '%VIEW';"
            for number, database in enumerate(databases)
        ),
    )
    there = {row[0] for row in rows}
    counts = {row[0][1:]: int(row[1]) for row in rows if row[0].startswith("n")}
    found = []
    for number, database in enumerate(databases):
        tables = [row[1] for row in rows if row[0] == f"t{number}"]
        if len(tables) != (count := counts.get(str(number), 0)):
            raise AppBusyError(
                f"{login.place} told {len(tables)} tables of {database}, which has {count}: some are made or dropped.",
                next_step="Try again.",
            )
        found.append(tables if f"s{number}" in there else None)
    return found
