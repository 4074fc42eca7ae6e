"""All tables of a schema exchanged for others by one RENAME TABLE, which the server does entirely or not at all.

There is no journal: which tables were the app's when the exchange began is written down before it, and with that,
where each table is now says how far it got. Old servers (before 10.6) may stop half-way when they crash; the same
look then says what is left to be done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence

from agent.engines.mariadb import names, sequences
from agent.engines.mariadb.catalog import table_names, tables_of
from agent.engines.mariadb.client import once_it_is_back, patiently, query, quoted
from agent.engines.mariadb.loading import drop_loader
from agent.engines.mariadb.settings import Login
from agent.engines.swapping import Side
from agent.unsettled import UnsettledError
from common.errors import AppBusyError, InternalError, ServiceError, ToolFailedError

_PENDING_SECONDS = 30.0
_LOOK_SECONDS = 0.1


class Exchange:
    """The exchange of one import. Implements recipes.stopped_app.Exchange, for apps that have to be down for it."""

    def __init__(
        self,
        admin: Login,
        database: str,
        key: str,
        previous: Sequence[str] | None,
        write_down: Callable[[list[str]], None],
    ) -> None:
        """
        Args:
            previous: the app's tables from before it, as `write_down` was told them; None: no exchange was begun.
            write_down: called before the first exchange; returns when that is durable.
        """
        self._admin = admin
        self._database = database
        self._key = key
        self._new = names.new_schema(key)
        self._old = names.old_schema(key)
        self._previous = frozenset(previous or ())
        self._is_begun = previous is not None
        self._write_down = write_down

    async def kept(self) -> Side | None:
        """Whose tables are kept beside those in place; None: nobody's (any more), or only some of them."""
        kept, waiting = await tables_of(self._admin, self._old, self._new)
        side = self._side_of(kept, waiting) if self._is_begun else Side.PREVIOUS
        # Nor when both are empty-handed: somebody has dropped the previous ones, and the new ones are in place.
        if side is Side.PREVIOUS and (waiting is None or (kept is None and self._previous and not waiting)):
            return None
        return side and side.other

    async def is_unfinished(self) -> bool:
        """Whether a server that knows no RENAME of all or nothing was killed in the middle of one."""
        return await self._side() is None

    async def recover(self) -> Side:
        """Finish what was interrupted and say whose tables are in place. Repeating it changes nothing."""
        await self._end_pending()
        if (side := await self._side()) is None:
            await self._rename(await self.prepare(Side.PREVIOUS))
            side = Side.PREVIOUS
        return side

    async def _side(self) -> Side | None:
        """Whose tables are in place; None: some of both."""
        if not self._is_begun:
            return Side.PREVIOUS
        return self._side_of(*await tables_of(self._admin, self._old, self._new))

    def _side_of(self, kept: list[str] | None, waiting: list[str] | None) -> Side | None:
        """The same, by the tables in the schemas for the previous ones and for the new ones."""
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
            UnsettledError: nobody knows which side's tables are in place, or will be; `recover` is to be asked.
        """
        await self.rename(await self.prepare(target), target)

    async def prepare(self, target: Side) -> list[str]:
        """Write down what is to be known after a crash; what `rename` has to move."""
        present, kept, waiting = await tables_of(self._admin, self._database, self._old, self._new)
        if present is not None and (not self._is_begun or self._side_of(kept, waiting) is Side.PREVIOUS):
            if target is Side.PREVIOUS:
                return []
            self._write_down(present)
            self._previous, self._is_begun = frozenset(present), True
        if kept is None:
            await query(self._admin, f"CREATE DATABASE IF NOT EXISTS {quoted(self._old)};")
            kept = []
        if waiting is None and target is Side.PREVIOUS:
            # Empty while the imported tables are in place, so somebody may have dropped it.
            await query(self._admin, f"CREATE DATABASE IF NOT EXISTS {quoted(self._new)};")
            waiting = []
        if present is None or waiting is None:
            raise InternalError(f"What import of {self._database} keeps in the server is not there any more.")
        if target is Side.IMPORTED:
            leaving = [table for table in present if table in self._previous and table not in kept]
            return self._moves(leaving, self._database, self._old) + self._moves(waiting, self._new, self._database)
        leaving = [table for table in present if table not in self._previous or table in kept]
        return self._moves(leaving, self._database, self._new) + self._moves(kept, self._old, self._database)

    async def rename(self, moves: Sequence[str], target: Side) -> None:
        """Move tables, all or none; errors as `bring`."""
        try:
            await self._rename(moves)
        except ServiceError as cause:
            # Whatever it was, only the server knows: it may have done it and its answer was lost, or do it later.
            try:
                side = await once_it_is_back(self.recover)
            except ServiceError as obstacle:
                raise UnsettledError(f"{cause.text} What came of it is not known: {obstacle.text}") from cause
            if side is not target:
                raise

    async def _rename(self, moves: Sequence[str]) -> None:
        if moves:
            await patiently(lambda: query(self._admin, f"RENAME TABLE {', '.join(moves)};"))

    async def lead_defaults(self) -> None:
        """Have the imported tables, in place, take their defaults from the sequences that came with them.

        Raises:
            AppBusyError, AppUnavailableError, ToolFailedError: some are not led there; it can be repeated.
        """
        await patiently(lambda: sequences.lead(self._admin, self._database, source=self._new, target=self._database))

    async def coming(self, target: Side) -> Collection[str]:
        """The tables that `bring` would put in place."""
        source = self._new if target is Side.IMPORTED else self._old
        return await table_names(self._admin, source) or []

    async def is_waiting(self) -> bool:
        """Whether a RENAME of ours waits in the server for others to let go of a table, or runs."""
        return bool(await self._pending())

    async def drop(self) -> None:
        """Forget the tables that are not in place, and the account that loaded."""
        await self._end_pending()
        await drop_loader(self._admin, self._key)
        # The new ones last: an undo may end between the two, and an app that had no tables before would look as if the
        # imported ones were in place, with the old schema there and no new one.
        await query(
            self._admin,
            f"SET SESSION foreign_key_checks = 0;"
            f" DROP DATABASE IF EXISTS {quoted(self._old)}; DROP DATABASE IF EXISTS {quoted(self._new)};",
        )

    async def _end_pending(self) -> None:
        """Make sure that the server does not carry out a RENAME later whose client is gone: one that waits for a lock
        goes on waiting, and what was said to be in place would not be.

        Raises:
            AppBusyError: it cannot be ended.
        """
        try:
            async with asyncio.timeout(_PENDING_SECONDS):
                while pending := await self._pending():
                    for session in pending:
                        with contextlib.suppress(ToolFailedError):
                            # It may have ended by itself.
                            await query(self._admin, f"KILL {int(session)};")
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise AppBusyError(
                "The server is still at work on an exchange of tables that was interrupted.",
                next_step="The agent tries again by itself.",
            ) from None

    async def _pending(self) -> list[str]:
        """Sessions of ours in which such a RENAME is running."""
        rows = await query(
            self._admin,
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()"  # noqa: S608  # a name of ours
            # Where a side has no tables, only the other's schema is named.
            f" AND INFO LIKE 'RENAME TABLE %' AND (INFO LIKE '%{self._new}%' OR INFO LIKE '%{self._old}%');",
        )
        return [row[0] for row in rows]

    @staticmethod
    def _moves(tables: Sequence[str], source: str, target: str) -> list[str]:
        return [f"{quoted(source)}.{quoted(table)} TO {quoted(target)}.{quoted(table)}" for table in sorted(tables)]
