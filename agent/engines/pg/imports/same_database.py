"""The way of an import for who may not make databases: within the app's own, in one transaction.

What is there is moved aside, the upload is loaded in its place, and the transaction is committed when all of it held.
Nothing is loaded before `restore`, since there is no other place; staging reads the file to its end and judges it. The
upload runs with the app's own rights, so only statements that pg_dump writes are run, each alone (none of them ends the
transaction), and before the commit the server itself says whether what was moved aside is untouched. The app waits
while the upload is loaded.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import structlog

from agent.engines.pg.aside.dropping import drop_schemas, require_unused
from agent.engines.pg.aside.moving import (
    app_schemas,
    bring_back,
    doomed_schemas,
    extensions_of,
    kept_keys,
    kept_schemas,
)
from agent.engines.pg.aside.publications import published, told_after, warnings_before
from agent.engines.pg.belongings.carry_over import warnings_of_owners
from agent.engines.pg.belongings.read import read_belongings
from agent.engines.pg.imports.lock_room import require_lock_room
from agent.engines.pg.imports.own_rights import end_loaders, same_outside
from agent.engines.pg.imports.preview import (
    Changes,
    Held,
    changes_by_file,
    look_at_content,
    look_at_tables,
    size_of,
    tables_of,
)
from agent.engines.pg.imports.statistics import analyze
from agent.engines.pg.imports.transaction import LOCK_WAIT_SECONDS, make_terms, relations
from agent.engines.pg.imports.ways import Plan
from agent.engines.pg.loading.load import Loaded, load
from agent.engines.pg.loading.spool import Room, write_all
from agent.engines.pg.loading.terms import LoadProgressOf, LoadSurroundings, Terms
from agent.engines.pg.server.catalog import extension_tables, foreign_servers, kept_schema_names
from agent.engines.pg.server.connection import Connection, connect
from agent.engines.pg.server.dump import DumpForm, dump
from agent.engines.pg.server.names import session_name
from agent.engines.pg.server.prepared import how_to_go_on
from agent.engines.pg.server.room import Disk, keep_room
from agent.steps import Progress, Step
from agent.unsettled import UnsettledError
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    NothingToUndoError,
    ServiceError,
    ToolFailedError,
    TransferNotFoundError,
    say_unchanged,
)
from common.frames import CHUNK_BYTES
from common.headers import ArchiveHeader

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SameDatabase:
    """An app's database, seen by a role that owns what is in it.

    Attributes:
        plan: its login leads into the app's database.
    """

    plan: Plan
    app_id: str
    surroundings: LoadSurroundings

    @property
    def database(self) -> str:
        return self.plan.database.name

    async def stage(self, chunks: AsyncIterator[bytes], key: str, progress: Progress) -> Changes:
        """Keep the upload in a file and read it to its end; the server is only looked at."""
        # At most one import is staged or restored at a time, so what others left is of no use any more.
        self._remove_files("import-*")
        async with self._connect(key) as connection:
            before = await look_at_content(connection)
            held = await look_at_tables(connection)
            present_bytes = await size_of(connection)
            extensions = await extensions_of(connection)
            kept = await kept_keys(connection)
            role = self.plan.login.user
            belongings = await read_belongings(connection, self.plan.database, app_role=role, loader=role)
            new_schemas = await _renamed(connection)
            of_owners = await warnings_of_owners(connection, belongings, new_schemas=new_schemas)
            publications = await published(connection)
            terms = Terms(
                is_restricted=True,
                is_check=True,
                foreign_servers=frozenset(await foreign_servers(connection)),
                extension_tables=await extension_tables(connection),
            )
        disk = self.plan.disk
        room = Room(self.surroundings.spool_directory, free_bytes=self.surroundings.limits.free_bytes)
        file = os.open(self._upload_file(key), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async with aclosing(_copied(chunks, file, room)) as copied:
                loaded = await self._load(copied, progress, terms, extensions)
                async for _ in copied:  # a format may end before its file does
                    pass
        finally:
            os.close(file)
        async with self._connect(key) as connection:
            await require_lock_room(connection, loaded)
        warnings = [
            "The app waits while the file is loaded into its own database.",
            *self._warnings_of_room(disk, loaded, present_bytes),
            *of_owners,
            *warnings_before(publications, renamed=new_schemas, gone=_not_in(loaded, held), role=role),
        ]
        if len(kept) > 1:
            names = ", ".join(f"mathison_kept_{other}_*" for other in sorted(kept))
            warnings.append(f"Schemas of earlier imports are still there; drop those that are not needed: {names}.")
        return changes_by_file(
            before,
            loaded,
            held=held,
            server_version=self.plan.server.version,
            present_bytes=present_bytes,
            upload_bytes=self._upload_file(key).stat().st_size,
            warnings=warnings,
        )

    def _warnings_of_room(self, disk: Disk, loaded: Loaded, present_bytes: int) -> list[str]:
        """The text's size says about how much the server will write; its log of that comes on top."""
        text, least = f"{loaded.text_bytes >> 20:,} MiB of SQL text", disk.least_room()
        if least is None:
            return [f"{disk.warning} The file makes {text}; the app's database takes {present_bytes >> 20:,} MiB now."]
        directory, free = least
        if free - self.surroundings.limits.free_bytes > loaded.text_bytes:
            return []
        return [
            f"The file makes {text}, and the disk of {disk.place} has {free >> 20:,} MiB left at {directory}: an "
            f"import stops at {self.surroundings.limits.free_bytes >> 20} MiB, with nothing changed. Make room first."
        ]

    async def restore(self, key: str, progress: Progress) -> str:
        """Exchange the content; on failure it is as before.

        Returns:
            What publications do not publish any more, for a person; empty: nothing.
        Raises:
            TransferNotFoundError: the upload is gone.
            AppUnavailableError: since it was staged, something came in the way.
            AppBusyError: the app's transactions hold its tables.
            NoSpaceError: the server's disk is nearly full.
            UnsettledError: the server went away in the middle.
        """
        if not self._upload_file(key).exists():
            raise TransferNotFoundError("The file that was staged is gone.", next_step="Import it again.")
        if self.plan.loading_obstacle:
            error = AppUnavailableError(self.plan.loading_obstacle)
            say_unchanged(error)
            raise error
        disk = self.plan.disk
        disk.require_room(self.surroundings.limits.free_bytes)
        progress.step(Step.RESTORING, "copying the previous data first")
        await self._copy_previous(key)
        async with self._connect(key) as connection:
            before = await relations(connection)
            extensions = await extensions_of(connection)
            publications, renamed = await published(connection), await _renamed(connection)
            terms = await make_terms(connection, self.plan.database, key)
        progress.step(Step.RESTORING, "loading the file; the app waits")
        try:
            async with (
                same_outside(self.plan.login, loads_into=self.database, session=session_name(key)),
                aclosing(_read(self._upload_file(key))) as chunks,
            ):
                loading = self._load(chunks, progress, terms, extensions)
                await keep_room(loading, disk, free_bytes=self.surroundings.limits.free_bytes)
        except ServiceError as failure:
            await self._take_back(key, before, failure)
            if isinstance(failure, AppBusyError):
                with suppress(ServiceError):
                    async with self._connect(key) as connection:
                        failure.next_step = await how_to_go_on(connection, self.database, failure.next_step)
            say_unchanged(failure)
            raise
        self._remove_files(f"import-{key}.*")
        await self._analyze(key)
        if not publications:
            return ""
        try:
            async with self._connect(key) as connection:
                return told_after(publications, await published(connection), renamed=renamed)
        except ServiceError as failure:
            return f"Whether publications have their tables again could not be seen: {failure.text}"

    async def undo(self, key: str, _progress: Progress) -> None:
        """Bring the previous content back, and drop the imported with what the app wrote since.

        Raises:
            NothingToUndoError: it is gone.
            ToolFailedError: somebody changed what says what it was.
            UnknownVersionError: an agent of another version kept it.
            AppBusyError: as in `restore`.
            UnsettledError: as there; or it is done but for dropping what was imported.
        """
        try:
            async with self._connect(key) as connection:
                await _bring_back(connection, key)
        except (NothingToUndoError, AppBusyError):
            raise
        except ServiceError as failure:
            try:
                is_imported = await self.is_imported(key)
            except ServiceError:
                raise UnsettledError(failure.text) from failure
            if is_imported:
                raise
        try:
            await self._drop_doomed(key)
        except ServiceError as failure:
            raise UnsettledError(failure.text) from failure

    async def is_imported(self, key: str) -> bool:
        """Which content the app has: the swap is one transaction, so the kept schemas say it."""
        async with self._connect(key) as connection:
            await end_loaders(connection, self.database)
            return bool(await kept_schemas(connection, key))

    async def discard(self, key: str) -> None:
        """Drop the previous content and the files, whatever there is of them, and what an undo left.

        The schema that says what the others are is the first to go: nobody brings back a part.

        Raises:
            AppBusyError: it is in use; nothing more was dropped.
        """
        async with self._connect(key) as connection:
            await end_loaders(connection, self.database)
            kept = await kept_schemas(connection, key)
            await require_unused(connection, kept)
            await drop_schemas(connection, kept)
        await self._drop_doomed(key)
        self._remove_files(f"import-{key}.*")

    def _connect(self, key: str) -> AbstractAsyncContextManager[Connection]:
        return connect(self.plan.login, application_name=session_name(key))

    async def _drop_doomed(self, key: str) -> None:
        async with self._connect(key) as connection:
            doomed = await doomed_schemas(connection, key)
            await require_unused(connection, doomed)
            await drop_schemas(connection, doomed)

    def _upload_file(self, key: str) -> Path:
        return self.surroundings.spool_directory / f"import-{key}.upload"

    def _previous_file(self, key: str) -> Path:
        return self.surroundings.spool_directory / f"import-{key}.previous"

    def _remove_files(self, pattern: str) -> None:
        for file in self.surroundings.spool_directory.glob(pattern):
            file.unlink()

    async def _copy_previous(self, key: str) -> None:
        """A dump of the present content, for the case that nothing else helps."""
        room = Room(self.surroundings.spool_directory, free_bytes=self.surroundings.limits.free_bytes)
        client = await self.surroundings.clients.for_server(self.plan.server.version_num)
        async with connect(self.plan.login) as connection:
            kept = await kept_schema_names(connection)
        file = os.open(self._previous_file(key), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            async with dump(
                self.plan.login,
                client,
                form=DumpForm.CUSTOM,
                header=ArchiveHeader(),
                app_id=self.app_id,
                encoding=self.plan.database.encoding,
                without=kept,
                on_read=lambda _: None,
            ) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(write_all, file, chunk, room)
            await asyncio.to_thread(os.fsync, file)
        finally:
            os.close(file)

    async def _load(
        self, chunks: AsyncIterator[bytes], progress: Progress, terms: Terms, extensions: list[str]
    ) -> Loaded:
        return await load(
            chunks,
            self.plan.login,
            server_version_num=self.plan.server.version_num,
            clients=self.surroundings.clients,
            spool_directory=self.surroundings.spool_directory,
            limits=self.surroundings.limits,
            pre_created_extensions=frozenset(extensions),
            progress=LoadProgressOf(progress, Step.TRANSFERRING if terms.is_check else Step.RESTORING),
            sessions=1,
            terms=terms,
        )

    async def _take_back(self, key: str, before: frozenset[int], failure: ServiceError) -> None:
        """After a failure: see that the transaction left nothing; undo it where it did, and say so."""
        try:
            async with self._connect(key) as connection:
                await end_loaders(connection, self.database)
                was_committed = bool(await kept_schemas(connection, key))
                if was_committed:
                    await _bring_back(connection, key)
                    await self._drop_doomed(key)
                missing = before - await relations(connection)
        except ServiceError as obstacle:
            raise UnsettledError(obstacle.text) from failure
        if not (missing or was_committed):
            self._previous_file(key).unlink()
            return
        saved = self._previous_file(key).rename(self.surroundings.spool_directory / f"previous-{key}.dump")
        if missing:
            error = ToolFailedError(
                f"The import failed and {len(missing)} tables of before are gone. A dump of them is in {saved} beside "
                "the agent.",
                next_step="Restore that dump with pg_restore, then find out what dropped the tables.",
            )
            error.says_what_changed = True
            raise error from failure
        failure.text = (
            f"{failure.text.rstrip('.')}. Its transaction was committed all the same, and was taken back; whether "
            f"the data is as it was before could not be seen. A dump of that is in {saved} beside the agent."
        )
        failure.args = (failure.text,)
        failure.says_what_changed = True
        failure.next_step = (
            f"Compare the app's data with that dump (pg_restore --file=- reads it). {failure.next_step}".strip()
        )

    async def _analyze(self, key: str) -> None:
        try:
            await analyze(self.plan.login, sessions=1, application_name=session_name(key))
        except ServiceError as failure:
            _log.warning("Statistics were not gathered.", action="analyze", error=failure.text)


async def _renamed(connection: Connection) -> list[str]:
    """Schemas that are taken aside as a whole."""
    return [schema.name for schema in await app_schemas(connection) if schema.can_be_renamed]


def _not_in(loaded: Loaded, held: Held) -> frozenset[str]:
    """Tables of now that the file does not have, as far as it says."""
    after = tables_of(loaded.fingerprint)
    return frozenset(held) - after.keys() if after else frozenset()


async def _bring_back(connection: Connection, key: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'")
            for statement in await bring_back(connection, key):
                await connection.execute(statement)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as failure:
        usually = "Stop the app or end its transactions, then repeat the step."
        raise AppBusyError(
            f"The app holds its tables: {failure.diag.message_primary}.",
            next_step=await how_to_go_on(connection, connection.info.dbname, usually),
        ) from failure


async def _copied(chunks: AsyncIterator[bytes], file: int, room: Room) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        await asyncio.to_thread(write_all, file, chunk, room)
        yield chunk
    await asyncio.to_thread(os.fsync, file)


async def _read(path: Path) -> AsyncGenerator[bytes, None]:
    file = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while chunk := await asyncio.to_thread(os.read, file, CHUNK_BYTES):
            yield chunk
    finally:
        os.close(file)
