"""n8n's database in a PostgreSQL server: what it says of itself, its dump, and a new one built beside it.

The secrets are encrypted again in the new database while it is still the throw-away role's: whatever the upload has in
it runs with that role's rights.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import psycopg
from psycopg import sql

from agent.engines.filesystem import free_bytes
from agent.engines.n8n.facts import ENCRYPTED, Facts, facts_of
from agent.engines.n8n.preparations import Items, Prepared, Request, table_locked
from agent.engines.n8n.preparing import LOCK_WAIT_SECONDS, prepare_database
from agent.engines.n8n.settings import N8nSettings
from agent.engines.n8n.sharing import (
    Shared,
    explain_elsewhere,
    look_beside,
    require_alone,
    require_n8n,
    require_nothing_new,
    warnings_of_description,
    warnings_of_export,
    warnings_of_import,
)
from agent.engines.pg.exports.exporting import export_database, find_reader
from agent.engines.pg.exports.fingerprint import Scope, fingerprint
from agent.engines.pg.imports.beside import Beside
from agent.engines.pg.imports.remains import Record, Remains
from agent.engines.pg.imports.ways import Plan, Way, make_plan
from agent.engines.pg.loading.terms import LoadSurroundings
from agent.engines.pg.server.clients import Clients
from agent.engines.pg.server.connection import Connection, Login, connect
from agent.engines.pg.server.dump import DumpForm
from agent.engines.pg.server.settings import PostgresSettings
from agent.engines.pg.server.settings import read_settings as read_postgres_settings
from agent.engines.sqlite.questions import Answers, Questions
from agent.engines.swapping import Side
from agent.engines.tree import StagingArea
from agent.limits import Limits
from agent.steps import Progress, Unwatched
from common.errors import AppUnavailableError, NoSpaceError
from common.frames import CHUNK_BYTES
from common.headers import ArchiveHeader

_DATABASE_SCHEME = "n8n-database/2"
"""Another than PostgreSQL's own, since not everything counts."""
__all__ = ["DatabaseExchange", "PostgresHome", "read_postgres_settings"]


def scope_of(schema: str) -> Scope:
    """All of n8n's database but what is encrypted: that is another text under each key."""
    return Scope(_DATABASE_SCHEME, {(schema, table): columns for table, columns in ENCRYPTED.items()})


@dataclass(frozen=True)
class Dump:
    """Of n8n's database.

    Attributes:
        details: what an archive's header says of it.
        tables: the parts of a fingerprint, of the very same moment; None: none was taken.
    """

    file: BinaryIO
    details: dict[str, str]
    tables: dict[str, str] | None
    warnings: list[str]


@dataclass(frozen=True)
class PostgresHome:
    """A database that an n8n uses."""

    settings: N8nSettings
    postgresql: PostgresSettings
    app_id: str
    work_directory: Path
    limits: Limits

    @property
    def clients(self) -> Clients:
        return Clients(self.postgresql.client_paths())

    async def ask(self, questions: Questions, key: str = "") -> Facts:
        """
        Raises:
            AppUnavailableError: no server, no database, or it is not n8n's.
            AppBusyError: another session has locked a table.
        """
        async with self._connected() as connection:
            rows = {name: await _rows(connection, query) for name, query in questions.queries.items()}
            try:
                return await facts_of(Answers(rows=rows), key)
            except AppUnavailableError:
                await explain_elsewhere(connection, self.settings.schema)
                raise

    async def warnings(self) -> list[str]:
        """What to know of the database before anything is done; raises as `ask`."""
        return warnings_of_description(await self._shared())

    async def require_alone(self) -> None:
        """Before an import that is not to exchange what else is in the database.

        Raises:
            AppUnavailableError: there is something.
        """
        require_alone(await self._shared())

    async def require_nothing_new(self, record: Record) -> None:
        """Before an undo, which drops the database that an import brought.

        Raises:
            AppUnavailableError: somebody else began to use it since.
        """
        # An older agent noted nothing.
        if (known := record.facts.get("others")) is not None:
            require_nothing_new(await self._shared(), known)

    async def _shared(self) -> Shared:
        """What else is in the database; raises as `ask`."""
        async with self._connected() as connection:
            migrations = await _rows(connection, "SELECT name FROM migrations") or []
            return await look_beside(connection, self.settings.schema, [str(name) for (name,) in migrations])

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        async with connect(self.postgresql.app_login()) as connection:
            schema = sql.Identifier(self.settings.schema)
            await connection.execute(sql.SQL("SET search_path = pg_catalog, {}").format(schema))
            await connection.execute(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
            yield connection

    async def plan(self, *, loads: bool = False) -> Plan:
        """How an import is done.

        Args:
            loads: a file; else databases are exchanged.
        Raises:
            AppUnavailableError: there is no way.
        """
        plan = await make_plan(self.postgresql)
        if obstacle := plan.loading_obstacle if loads else plan.obstacle:
            raise AppUnavailableError(obstacle)
        if plan.way is not Way.BESIDE:
            raise AppUnavailableError(
                f"Role {plan.login.user} may not make databases, and n8n's data is prepared in one of its own.",
                next_step=f'ALTER ROLE "{plan.login.user}" CREATEDB CREATEROLE; or give the agent an admin_user.',
            )
        return plan

    @asynccontextmanager
    async def dumped(self, progress: Progress, *, takes_fingerprint: bool) -> AsyncIterator[Dump]:
        """The dump in a file without a name: a tar wants its size first.

        Raises:
            NoSpaceError: the agent's state directory has no room for it.
        """
        header = ArchiveHeader(recipe="postgresql", format="sql.gz", format_version=1, app_id=self.app_id)
        shared = await self._shared()
        with tempfile.TemporaryFile(dir=self.work_directory) as file:
            async with export_database(
                self._readers(),
                header,
                progress,
                form=DumpForm.SQL_GZIP,
                clients=self.clients,
                takes_fingerprint=takes_fingerprint,
                scope=scope_of(self.settings.schema),
            ) as export:
                async for chunk in export.chunks:
                    if free_bytes(self.work_directory) - len(chunk) < self.limits.free_bytes:
                        raise NoSpaceError(
                            f"There is no room for the dump of n8n's database in {self.work_directory}.",
                            next_step="Give the agent's state_directory more room.",
                        )
                    await asyncio.to_thread(file.write, chunk)
                proof = await export.proof.fingerprint() if export.proof else None
                warnings = [*warnings_of_export(shared), *export.warnings]
                warnings += export.proof.warnings if export.proof else ()
            file.flush()
            details = {
                "schema": self.settings.schema,
                "database_version": export.header.engine_version,
                "encoding": export.header.details.get("encoding", ""),
            }
            yield Dump(file, details, dict(proof.parts) if proof else None, warnings)

    async def tables(self) -> dict[str, str]:
        """The parts of a fingerprint that are the database's, as it is now."""
        scope = scope_of(self.settings.schema)
        async with connect(await find_reader(self._readers())) as connection:
            return dict((await fingerprint(connection, scope)).comparable(scope.scheme).parts)

    def _readers(self) -> list[Login]:
        admin = self.postgresql.admin_login()
        return [self.postgresql.app_login(), *([admin.to(self.postgresql.database)] if admin else [])]

    async def stage(self, dump: BinaryIO, record: Record, progress: Progress, request: Request) -> Prepared:
        """Load a dump beside the present database and make it fit; on failure its `remains` are to be dropped.

        What the new database holds besides n8n is noted in the record.
        """
        prepared: list[Prepared] = []
        brought: list[Shared] = []

        async def rework(login: Login) -> None:
            schema = self.settings.schema
            async with connect(login) as connection:
                await require_n8n(connection, schema)
            prepared.append(await prepare_database(login, request, schema=schema))
            async with connect(login) as connection:
                brought.append(await look_beside(connection, schema, prepared[0].migrations))

        changes = await (await self.beside()).stage(
            _chunks(dump), record.key, progress, rework=rework, remember=self.remains(record).remember
        )
        record.save(others=list(brought[0].others))
        told = warnings_of_import(await self._shared(), brought[0])
        return msgspec.structs.replace(prepared[0], warnings=[*told, *changes.warnings])

    async def items(self, request: Request) -> Items:
        """What the database holds now, to be compared with what an import brings."""
        return (await prepare_database(self.postgresql.app_login(), request, schema=self.settings.schema)).items

    def remains(self, record: Record) -> Remains:
        """What an import left in the server."""
        return Remains(self.postgresql, record)

    def exchange(self, record: Record, *, area: StagingArea | None = None) -> DatabaseExchange:
        """The two databases of an import."""
        return DatabaseExchange(self, record, area)

    async def beside(self) -> Beside:
        """The way of an import; raises as `plan`."""
        load = LoadSurroundings(self.clients, self.work_directory, self.limits, self.postgresql)
        return Beside(await self.plan(), self.app_id, load)


@dataclass(frozen=True)
class DatabaseExchange:
    """Implements recipes.exchanges.Exchange for a database; its swap is one transaction, so never unfinished.

    Only `bring` needs rights on the app's database.

    Attributes:
        area: where the upload was unpacked, to be dropped with what is not in place; None: somebody else does.
    """

    home: PostgresHome
    record: Record
    area: StagingArea | None = None

    async def kept(self) -> Side | None:
        return await self.home.remains(self.record).kept()

    async def is_unfinished(self) -> bool:
        return False

    async def bring(self, target: Side) -> None:
        if await self.kept() is target.other:
            return
        if target is Side.IMPORTED:
            await (await self.home.beside()).restore(self.record.key, Unwatched())
        else:
            await (await self.home.beside()).bring_back(self.record.key)

    async def recover(self) -> Side | None:
        kept = await self.kept()
        return kept and kept.other

    async def drop(self) -> None:
        await self.home.remains(self.record).discard()
        if self.area is not None:
            await asyncio.to_thread(self.area.remove)


async def _rows(connection: Connection, query: str) -> list[list[Any]] | None:
    """Of one query; None when a table or column of it is not there, AppBusyError when it is locked for long."""
    try:
        cursor = await connection.execute(query.encode())
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName):
        return None
    except psycopg.errors.LockNotAvailable as failure:
        raise table_locked() from failure
    return [list(row) for row in await cursor.fetchall()]


async def _chunks(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    file.seek(0, os.SEEK_SET)
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk
