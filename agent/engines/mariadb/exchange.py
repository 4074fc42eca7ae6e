"""All tables of a schema exchanged for others by one RENAME TABLE, which the server does entirely or not at all.

There is no journal: which tables were the app's when the exchange began is written down before it, and with that,
where each table is now says how far it got. Old servers (before 10.6) may stop half-way when they crash; the same
look then says what is left to be done.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence

from agent.engines.mariadb import names
from agent.engines.mariadb.catalog import table_names
from agent.engines.mariadb.client import query, quoted
from agent.engines.mariadb.settings import Login
from common.errors import AppBusyError, InternalError

LOCK_SECONDS = 10
_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0


class Side(enum.Enum):
    """Whose tables are in place."""

    PREVIOUS = "previous"
    IMPORTED = "imported"


class Exchange:
    """The exchange of one import.

    Args:
        previous: the app's tables from before it; None as long as no exchange was begun.
    """

    def __init__(self, admin: Login, database: str, key: str, previous: Sequence[str] | None) -> None:
        self._admin = admin
        self._database = database
        self._new = names.new_schema(key)
        self._old = names.old_schema(key)
        self._previous = frozenset(previous or ())
        self._is_begun = previous is not None

    async def side(self) -> Side | None:
        """Whose tables are in place; None: some of both."""
        if not self._is_begun:
            return Side.PREVIOUS
        kept = await table_names(self._admin, self._old)
        waiting = await table_names(self._admin, self._new)
        if not kept and kept is not None and not self._previous:
            # Nothing was there before, so only the new ones can tell.
            return Side.PREVIOUS if waiting else Side.IMPORTED
        if not kept:
            return Side.PREVIOUS
        return Side.IMPORTED if set(kept) == self._previous and not waiting else None

    async def bring(self, target: Side) -> None:
        """Put a side's tables in place and keep the other's. Repeating it changes nothing.

        Raises:
            AppBusyError: a table was locked all the time; all is as it was.
            AppUnavailableError, ToolFailedError: the server refused; all is as it was, as long as it lives.
        """
        await query(self._admin, f"CREATE DATABASE IF NOT EXISTS {quoted(self._old)};")
        present = await table_names(self._admin, self._database)
        kept = await table_names(self._admin, self._old)
        waiting = await table_names(self._admin, self._new)
        if present is None or kept is None or waiting is None:
            raise InternalError(f"What import of {self._database} keeps in the server is not there any more.")
        if target is Side.IMPORTED:
            leaving = [table for table in present if table in self._previous and table not in kept]
            moves = self._moves(leaving, self._database, self._old) + self._moves(waiting, self._new, self._database)
        else:
            leaving = [table for table in present if table not in self._previous or table in kept]
            moves = self._moves(leaving, self._database, self._new) + self._moves(kept, self._old, self._database)
        if not moves:
            return
        statement = f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}; RENAME TABLE {', '.join(moves)};"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await query(self._admin, statement)
            except AppBusyError:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    async def drop(self) -> None:
        """Forget the tables that are not in place."""
        await query(
            self._admin,
            f"SET SESSION foreign_key_checks = 0, lock_wait_timeout = {LOCK_SECONDS};"
            f" DROP DATABASE IF EXISTS {quoted(self._new)}; DROP DATABASE IF EXISTS {quoted(self._old)};",
        )

    @staticmethod
    def _moves(tables: Sequence[str], source: str, target: str) -> list[str]:
        return [f"{quoted(source)}.{quoted(table)} TO {quoted(target)}.{quoted(table)}" for table in sorted(tables)]
