"""Whether tables took each other's places while they were dumped.

A dump reads rows as of one moment, and looks a table up by its name when it comes to it. After a RENAME it finds
another one there, with the rows that this one had at that moment, and the server says nothing of it: so end
pt-online-schema-change and gh-ost. What tells is CREATE_TIME: on MariaDB when the table's definition was last written
or renamed, on MySQL when the table was made, under whatever name (seen with 10.11, 11.8 and 9.7).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

import msgspec

from agent.engines.mariadb.server.client import literal, query, quoted
from agent.engines.mariadb.server.settings import Login
from common.errors import AppBusyError, ToolFailedError

_APART_SECONDS = 5.0
"""A change counts as later than a read only by that much: the server's files may have another clock than it."""


class _Tables(msgspec.Struct, frozen=True):
    """What the server says of a schema's InnoDB tables; of others a dump is of no one moment anyway.

    Attributes:
        at: the server's time, in seconds.
        made_at: of each table, as text.
        partitioned: those that have partitions.
        alterations: how many ALTER TABLE there were in the whole server.
    """

    at: float
    made_at: Mapping[str, str]
    partitioned: tuple[str, ...]
    alterations: str


class TableWatch:
    """The tables of a database from `begin` to `finish`, between which it is dumped.

    Attributes:
        doubt: after `finish`, a sentence about what cannot be told of the dump; empty as a rule.
    """

    doubt = ""

    def __init__(self, login: Login, database: str) -> None:
        self._login = login
        self._database = database
        self._asked_at = 0.0
        self._before: _Tables | None = None

    async def begin(self) -> None:
        """Before the dump."""
        self._asked_at = time.monotonic()
        self._before = await self._look()

    async def finish(self, read_at: Mapping[str, float]) -> None:
        """After the dump.

        Args:
            read_at: by when a table's rows had been read, by time.monotonic(); those left out: by now.
        Raises:
            AppBusyError: one was altered or replaced before that, so the dump may hold others' rows.
        """
        if (before := self._before) is None:
            return
        now = await self._look()
        changed = [
            table
            for table, made_at in now.made_at.items()
            if table in before.made_at
            and made_at != before.made_at[table]
            and not self._is_after(made_at, read_at.get(table))
        ]
        if changed:
            raise AppBusyError(
                f"Tables were altered or replaced while {self._database} was read: {', '.join(changed)}. Rows may be "
                "missing or there twice.",
                next_step="Try again when nothing migrates them.",
            )
        if before.partitioned and now.alterations != before.alterations:
            # An exchange of partitions leaves no trace that an account without PROCESS can see.
            self.doubt = (
                f"Tables of the server were altered while {self._database} was read. Where that exchanged partitions "
                f"of {', '.join(before.partitioned)}, rows are missing or there twice."
            )

    def _is_after(self, made_at: str, read_at: float | None) -> bool:
        if self._before is None or read_at is None or made_at == "NULL":
            return False
        return float(made_at) > self._before.at + read_at - self._asked_at + _APART_SECONDS

    async def _look(self) -> _Tables:
        found = await self._ask("")
        untold = [table for table, made_at in found.made_at.items() if made_at == "NULL"]
        if untold:
            # Where a key is on a generated column, the server's own handle from when the table was made knows no time
            # (10.11); while that one is in use, it opens another.
            opening = (
                f"HANDLER {quoted(self._database)}.{quoted(table)} OPEN AS {quoted(f'mathison {number}')};"
                for number, table in enumerate(untold)
            )
            with contextlib.suppress(ToolFailedError):
                found = await self._ask("".join(opening))
        return found

    async def _ask(self, opening: str) -> _Tables:
        rows = await query(
            self._login,
            f"{opening} SET @mathison_zone = @@time_zone, time_zone = '+00:00'; SELECT 'now', UNIX_TIMESTAMP(NOW(6));"  # noqa: S608  # a literal
            " SELECT 'table', TABLE_NAME, UNIX_TIMESTAMP(CREATE_TIME), CREATE_OPTIONS LIKE '%partitioned%'"
            f" FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(self._database)} AND ENGINE = 'InnoDB'"
            " AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY TABLE_NAME;"
            " SHOW GLOBAL STATUS LIKE 'Com_alter_table'; SET time_zone = @mathison_zone;",
            is_apart=bool(opening),
        )
        tables = [row[1:] for row in rows if row[0] == "table"]
        return _Tables(
            at=float(rows[0][1]),
            made_at={name: made_at for name, made_at, _ in tables},
            partitioned=tuple(name for name, _, is_partitioned in tables if is_partitioned == "1"),
            alterations=rows[-1][1],
        )
