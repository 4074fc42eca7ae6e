"""What an import would change: the app's schema and the loaded one side by side, within a bound."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.engines.mariadb.dumps import sequence_uses
from agent.engines.mariadb.server.catalog import Schema, columns_of, count_rows, look
from agent.engines.mariadb.server.client import WITHIN_SECONDS, query, quoted
from agent.engines.mariadb.server.programs import Program
from agent.engines.mariadb.server.settings import Login
from common.errors import ServiceError
from common.wording import some_of

_NAMED = 5
_COMPARED_BYTES = 256 << 20
"""Most data of one side whose rows are read once more for a preview; more is said to be not compared."""
_COMPARE_SECONDS = 10
_RENAME_SECONDS_PER_TABLE = 0.003
"""Seen with 28 tables and 23 foreign keys, MariaDB 10.11 on two cores: 0.08 s."""
_PROGRAM_SECONDS = 0.02
"""Around the RENAME, when there are views, triggers, routines or events: starts of a client program, mostly."""

Contents = Mapping[str, object]
"""Things by name, each with what tells its content; None: not looked at."""


@dataclass(frozen=True)
class Compared:
    """For recipes.base.Preview.

    Attributes:
        items: by kind, what is there now and what would be.
    """

    changes: tuple[str, ...]
    counts_now: Mapping[str, int]
    counts_after: Mapping[str, int]
    items: Mapping[str, tuple[Contents, Contents]]
    room_bytes: int
    swap_seconds: float


async def compare(
    admin: Login, database: str, new: str, present: Sequence[Program] = (), staged: Sequence[Program] = ()
) -> Compared:
    """The two schemas, with what views, triggers, routines and events each has."""
    now, after = await look(admin, database), await look(admin, new)
    rows_now, rows_after = await count_rows(admin, database, now), await count_rows(admin, new, after)
    added, gone = after.tables.keys() - now.tables.keys(), now.tables.keys() - after.tables.keys()
    both = sorted(now.tables.keys() & after.tables.keys())
    contents = await _contents(admin, (database, now), (new, after), both)
    items: dict[str, tuple[Contents, Contents]] = {}
    items["tables"] = ({**dict.fromkeys(now.tables), **contents[0]}, {**dict.fromkeys(after.tables), **contents[1]})
    for kind in sorted({program.kind for program in (*present, *staged)}):
        items[f"{kind}s"] = (_of_kind(kind, present), _of_kind(kind, staged))
    return Compared(
        changes=(
            f"{len(after.tables)} tables with {rows_after} rows take the place of {len(now.tables)} with {rows_now}.",
            f"Tables: {_named(added, 'new')}, {_named(gone, 'gone')}, {len(both)} in both.",
        ),
        counts_now={"tables": len(now.tables), **rows_now.counts},
        counts_after={"tables": len(after.tables), **rows_after.counts},
        items=items,
        room_bytes=after.size_bytes,
        swap_seconds=_RENAME_SECONDS_PER_TABLE * (len(now.tables) + len(after.tables))
        + (_PROGRAM_SECONDS if present or staged else 0),
    )


def _of_kind(kind: str, programs: Sequence[Program]) -> Contents:
    return {program.name: program for program in programs if program.kind == kind}


async def _contents(
    admin: Login, now: tuple[str, Schema], after: tuple[str, Schema], tables: Sequence[str]
) -> tuple[dict[str, object], dict[str, object]]:
    """Of tables that both have: columns and the server's own checksum, which tells contents apart within one server."""
    nothing: tuple[dict[str, object], dict[str, object]] = ({}, {})
    if not tables or max(now[1].size_bytes, after[1].size_bytes) > _COMPARED_BYTES:
        return nothing
    names = ", ".join(f"{quoted(database)}.{quoted(table)}" for database in (now[0], after[0]) for table in tables)
    try:
        rows = await query(admin, f"{WITHIN_SECONDS.format(seconds=_COMPARE_SECONDS)} CHECKSUM TABLE {names};")
    except ServiceError:
        return nothing
    checksums = {row[0]: row[1] for row in rows}
    columns = [await columns_of(admin, now[0]), await columns_of(admin, after[0])]
    if after[1].is_mariadb:
        for column in (column for table in columns[1].values() for column in table):
            column[-1] = sequence_uses.moved(column[-1], after[0], now[0])
    found: list[dict[str, object]] = [
        {
            table: (columns[side].get(table), checksum)
            for table in tables
            # None where the server cannot read it.
            if (checksum := checksums.get(f"{database}.{table}", "NULL")) != "NULL"
        }
        for side, database in enumerate((now[0], after[0]))
    ]
    return found[0], found[1]


def bridging(server: str, schema: Schema) -> str:
    """What goes over between versions; empty when the dump says nothing of its server, or the same.

    Args:
        server: the version of the dump's server as the dump says it, for example "11.8.9-MariaDB-0+deb13u1".
    """
    source, target = plain_version(server), plain_version(schema.version)
    return f"Written by {source}, goes into {target}." if server and source != target else ""


def plain_version(server: str) -> str:
    """For a person: "MariaDB 11.8.9" of what a server says of itself."""
    number = re.match(r"[\d.]*", server)
    return f"{'MariaDB' if 'mariadb' in server.lower() else 'MySQL'} {number[0] if number else server}"


def _named(tables: set[str], what: str) -> str:
    if not tables:
        return f"0 {what}"
    return f"{len(tables)} {what} ({some_of(sorted(tables), _NAMED)})"
