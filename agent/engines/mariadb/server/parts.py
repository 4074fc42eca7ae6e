"""Tables of a schema taken apart for a comparison; the server makes the digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.engines.mariadb.server.client import literal, query, quoted
from agent.engines.mariadb.server.settings import Login
from agent.engines.table_parts import MOST_PARTS, Kind, Parts, width_for
from common.errors import ServiceError

_SECONDS = 5
"""For each kind; MariaDB gives up then."""


async def parts_of(login: Login, schema: str, kinds: Mapping[str, Kind]) -> dict[str, Parts]:
    """By kind; without those that are not there, are too many, or take too long."""
    found = {}
    for name, kind in kinds.items():
        try:
            parts = await _parts(login, schema, kind)
        except ServiceError:
            continue
        if parts is not None:
            found[name] = parts
    return found


async def _parts(login: Login, schema: str, kind: Kind) -> Parts | None:
    table = f"{quoted(schema)}.{quoted(kind.table)}"
    rows = await query(
        login,
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS"  # noqa: S608  # literals
        f" WHERE TABLE_SCHEMA = {literal(schema)} AND TABLE_NAME = {literal(kind.table)} ORDER BY ORDINAL_POSITION;",
    )
    columns = [row[0] for row in rows]
    width = 0
    if not kind.names:
        highest = await query(login, f"SELECT COALESCE(MAX(id), 0) FROM {table};")  # noqa: S608  # quoted
        width = width_for(int(highest[0][0]))
    told_by = f"id DIV {width}" if width else _digest(kind.names)
    rows = await query(
        login,
        f"SET SESSION max_statement_time = {_SECONDS};"  # noqa: S608  # quoted
        f" SELECT {told_by} AS part, COUNT(*), BIT_XOR({_digest(columns)}) FROM {table}"
        f" GROUP BY part LIMIT {MOST_PARTS + 1};",
    )
    if len(rows) > MOST_PARTS:
        return None
    return Parts(columns, width, {part: (int(count), int(digest)) for part, count, digest in rows})


def _digest(columns: Sequence[str]) -> str:
    """64 bits of a hash of some columns of a row."""
    listed = ", ".join(quoted(name) for name in columns)
    return f"CAST(CONV(LEFT(MD5(JSON_ARRAY({listed})), 16), 16, 10) AS UNSIGNED)"
