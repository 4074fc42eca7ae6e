"""Transactions that somebody prepared and nobody has ended: they hold their locks whatever stops or starts again."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.privileges import listed


async def prepared_in(connection: Connection, databases: Sequence[str]) -> list[str]:
    """Names of those in these databases of the server."""
    cursor = await connection.execute(
        "SELECT gid FROM pg_prepared_xacts WHERE database = ANY(%s) ORDER BY prepared, gid", [list(databases)]
    )
    return [gid for (gid,) in await cursor.fetchall()]


async def how_to_go_on(connection: Connection, database: str, next_step: str) -> str:
    """What to do about something that is in use: `next_step`, and to end what was prepared, if anything was."""
    found = await prepared_in(connection, [database])
    if not found:
        return next_step
    ending = sql.SQL("ROLLBACK PREPARED {}").format(found[0]).as_string(connection)
    return (
        f"Database {database} has prepared transactions, which hold what they use until somebody ends them: "
        f"{listed(found)}. End each there, by COMMIT PREPARED or {ending}. {next_step}"
    )
