"""Statistics for the planner, of what an import brought and of nothing else.

A bare ANALYZE would read the previous data again, where it is kept in the same database, and the server's catalogs,
which alone take 35 ms of its CPU (PostgreSQL 17).
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

from psycopg import sql

from agent.engines.pg.server.catalog import USER_SCHEMA
from agent.engines.pg.server.connection import Connection, Login, connect
from common.errors import AppUnavailableError


async def analyze(login: Login, *, sessions: int, application_name: str = "mathison-data") -> None:
    """Gather planner statistics of the role's tables.

    Args:
        login: of who loaded: functions in indexes of the upload run with the role's rights.
        sessions: how many do it at the same time, if the server lets so many in.
    """
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connect(login, application_name=application_name))]
        # Of a partitioned table with its partitions, unless one is a foreign table: those cannot be reached yet.
        cursor = await connections[0].execute(f"""
            WITH RECURSIVE above_foreign (oid) AS (
                SELECT oid FROM pg_class WHERE relkind = 'f'
                UNION SELECT i.inhparent FROM above_foreign a JOIN pg_inherits i ON i.inhrelid = a.oid)
            SELECT n.nspname, c.relname
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
             WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'm') AND c.oid NOT IN (SELECT oid FROM above_foreign)
               AND pg_has_role(c.relowner, 'USAGE')
               AND (i.inhparent IS NULL OR i.inhparent IN (SELECT oid FROM above_foreign))
             ORDER BY pg_table_size(c.oid)
        """)  # noqa: S608
        tables = await cursor.fetchall()
        with suppress(AppUnavailableError):
            while len(connections) < min(sessions, len(tables)):
                connections.append(await stack.enter_async_context(connect(login, application_name=application_name)))
        await asyncio.gather(*(_analyze_from(tables, connection) for connection in connections))


async def _analyze_from(tables: list[tuple[str, str]], connection: Connection) -> None:
    while tables:
        await connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(*tables.pop())))
