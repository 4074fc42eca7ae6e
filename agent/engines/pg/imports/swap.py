"""Databases exchanged by their names, in one transaction.

Renaming waits up to 5 s for a database's sessions to go, and holds a lock meanwhile at which new connections queue. So
one connection renames while another ends sessions: clients meet one broken connection and at most one "does not exist",
then the other data (0.13 to 0.22 s with eight clients that reconnect at once; PostgreSQL 15 to 18). A transaction needs
no journal: after a crash the names are those of before or of after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import psycopg
from psycopg import sql

from agent.engines.pg.server.connection import Connection, Login, connect
from agent.engines.pg.server.names import session_name
from agent.engines.pg.server.prepared import how_to_go_on, prepared_in
from common.errors import AppBusyError

SWAP_SECONDS = 30.0
"""Several tries of 5 s each."""
_TERMINATE_EVERY_SECONDS = 0.02


class Rename(NamedTuple):
    """A database gets another name and comment."""

    name: str
    to: str
    comment: str | None


async def exchange(manager: Login, renames: Sequence[Rename], *, key: str) -> None:
    """Do all renames, in order, or none.

    Args:
        manager: way into a database that is not renamed; superuser, or owner of all of them with CREATEDB.
    Raises:
        AppBusyError: sessions that the manager may not end, or prepared transactions, are in the way.
    """
    session = session_name(key)
    deadline = asyncio.get_running_loop().time() + SWAP_SECONDS
    async with (
        connect(manager, application_name=session) as renaming,
        connect(manager, application_name=session) as ending,
    ):
        while True:
            is_over = asyncio.Event()
            terminator = asyncio.create_task(
                _end_sessions(ending, renames, until=is_over), name="end sessions for the swap"
            )
            try:
                await _rename(renaming, renames)
            except psycopg.errors.ObjectInUse as failure:
                if asyncio.get_running_loop().time() > deadline:
                    raise await _busy(renames, manager) from failure
            else:
                return
            finally:
                is_over.set()
                await asyncio.gather(terminator, return_exceptions=True)


async def _rename(connection: Connection, renames: Sequence[Rename]) -> None:
    async with connection.transaction():
        # What was loaded without waiting for the disk has to be on it once the names say so.
        await connection.execute(
            "SELECT set_config('synchronous_commit', 'local', true) WHERE current_setting('synchronous_commit') = 'off'"
        )
        for rename in renames:
            name, to = sql.Identifier(rename.name), sql.Identifier(rename.to)
            await connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(name, to))
            await connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(to, sql.Literal(rename.comment)))


async def _end_sessions(connection: Connection, renames: Sequence[Rename], *, until: asyncio.Event) -> None:
    names = [rename.name for rename in renames]
    while not until.is_set():
        cursor = await connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = ANY(%s)", [names])
        for (pid,) in await cursor.fetchall():
            # One that may not be ended must not protect the others: one call each.
            with suppress(psycopg.errors.InsufficientPrivilege):
                await connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        with suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), _TERMINATE_EVERY_SECONDS)


async def _busy(renames: Sequence[Rename], manager: Login) -> AppBusyError:
    names = [rename.name for rename in renames]
    async with connect(manager) as connection:
        cursor = await connection.execute(
            "SELECT format('%%s session(s) of role %%s (%%s)', count(*), usename, backend_type) FROM pg_stat_activity"
            " WHERE datname = ANY(%s) GROUP BY usename, backend_type",
            [names],
        )
        found = [row[0] for row in await cursor.fetchall()]
        prepared = [f"prepared transaction {gid}" for gid in await prepared_in(connection, names)]
        usually = (
            "End that, or let the agent do it: GRANT pg_signal_backend to its role, or set admin_user to a superuser. "
            "Then repeat the step."
        )
        return AppBusyError(
            f"The database {names[0]} could not be exchanged, because it is in use by "
            f"{', '.join([*found, *prepared]) or 'someone'}. Nothing was changed; what was staged is still there.",
            next_step=await how_to_go_on(connection, names[0], usually if found else "Then repeat the step."),
        )
