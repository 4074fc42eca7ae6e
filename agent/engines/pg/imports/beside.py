"""The way of an import for who may make databases: a new one is built beside the app's and takes its name.

The app notices nothing until the swap, a hostile upload reaches nothing but its own database, and the previous database
is kept as it was. After a crash the names in the server say how far it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

import msgspec
import structlog

from agent.engines.pg.belongings.carry_over import things_in_both
from agent.engines.pg.belongings.foreign_servers import ForeignServer, read_servers
from agent.engines.pg.belongings.read import Belongings, read_belongings
from agent.engines.pg.belongings.system_grants import SystemGrants, read_system_grants
from agent.engines.pg.imports import green
from agent.engines.pg.imports.filled_views import filled_views, warnings_about
from agent.engines.pg.imports.own_rights import same_outside
from agent.engines.pg.imports.preview import (
    Changes,
    Content,
    Held,
    changes_between,
    items_between,
    look_at_content,
    look_at_tables,
    size_of,
    tables_of,
)
from agent.engines.pg.imports.same_belongings import require_same, sums_of
from agent.engines.pg.imports.statistics import analyze
from agent.engines.pg.imports.swap import Rename, exchange
from agent.engines.pg.imports.ways import Plan
from agent.engines.pg.loading.load import Loaded, load
from agent.engines.pg.loading.terms import LoadProgressOf, LoadSurroundings, Terms
from agent.engines.pg.server.catalog import extension_tables
from agent.engines.pg.server.connection import Connection, Login, connect
from agent.engines.pg.server.names import Label, find_ours, kept_name, new_name, session_name
from agent.engines.pg.server.room import keep_room, look_at_disk
from agent.engines.pg.server.settings import PostgresSettings
from agent.engines.places import moved
from agent.engines.swapping import Side
from agent.steps import Progress, Step
from agent.unsettled import UnsettledError
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    NoSpaceError,
    NothingToUndoError,
    ServiceError,
    TransferNotFoundError,
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Before:
    """What the app's database has before an import; the new one is made like it, or compared with it.

    Attributes:
        extensions, servers: see `green.prepare`.
    """

    belongings: Belongings
    system_grants: SystemGrants
    content: Content
    held: Held
    extensions: Mapping[str, str]
    servers: Sequence[ForeignServer]
    extension_tables: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Beside:
    """An app's database, seen by a role that may make databases beside it.

    Attributes:
        plan: its login leads into the maintenance database.
    """

    plan: Plan
    app_id: str
    surroundings: LoadSurroundings

    @property
    def manager(self) -> Login:
        return self.plan.login

    @property
    def database(self) -> str:
        return self.plan.database.name

    async def stage(
        self,
        chunks: AsyncIterator[bytes],
        key: str,
        progress: Progress,
        *,
        rework: Callable[[Login], Awaitable[None]] | None = None,
        remember: Callable[[str], None] | None = None,
    ) -> Changes:
        """Build the new database: loaded, checked, and like the old one but for its name and content.

        On failure what was made is left; `discard` drops it.

        Args:
            rework: changes what was loaded, as the role that loaded it: triggers of the upload run with its rights.
            remember: see `own_rights.same_outside`.
        """
        label = Label(of=self.database, app_id=self.app_id, key=key, comment=self.plan.database.comment)
        async with self._connect(key) as connection:
            left = await self._drop_leftovers(connection, key)
            disk = self.plan.disk
            disk.require_room(self.surroundings.limits.free_bytes)
            login = await self._make_database(connection, label, self.surroundings.sessions)
        before = await self._look_before(key)
        prepared = await green.prepare(
            self.manager, server=self.plan.server, key=key, extensions=before.extensions, foreign_servers=before.servers
        )
        async with self._watched(key, remember):
            loading = self._load(chunks, login, progress, before, prepared)
            try:
                loaded = await keep_room(loading, disk, free_bytes=self.surroundings.limits.free_bytes)
            except NoSpaceError:
                await green.empty(login)
                raise
            if rework is not None:
                await rework(login)
            # As the role that loaded them: what is called to read them runs with its rights.
            async with connect(login) as connection:
                held = await look_at_tables(connection)
        progress.step(Step.VERIFYING, "carrying owners, grants and settings over")
        warnings = await green.adopt(
            self.manager,
            login,
            belongings=before.belongings,
            system_grants=before.system_grants,
            label=label,
            superfluous_extensions=prepared.extensions.difference(loaded.extensions),
            foreign_servers=prepared.servers,
        )
        warnings = [*([disk.warning] if disk.warning else []), *left, *warnings]
        return await self._changes(before, loaded, held, label, warnings=warnings)

    async def _look_before(self, key: str) -> _Before:
        async with connect(self.manager.to(self.database), application_name=session_name(key)) as connection:
            return _Before(
                belongings=await self._read_belongings(connection),
                system_grants=await read_system_grants(connection),
                content=await look_at_content(connection),
                held=await look_at_tables(connection),
                extensions=await green.untrusted_extensions(connection),
                servers=await read_servers(connection) if self.plan.server.is_superuser else [],
                extension_tables=await extension_tables(connection),
            )

    async def _changes(
        self, before: _Before, loaded: Loaded, held: Held, label: Label, *, warnings: list[str]
    ) -> Changes:
        """What to tell of the new database; its label says from now on what was carried over.

        Args:
            held: by its tables, as its loader saw them.
        """
        key = label.key
        async with connect(self.manager.to(new_name(key)), application_name=session_name(key)) as connection:
            after = await look_at_content(connection)
            views = await filled_views(connection)
            room_bytes = await size_of(connection)
            both = await things_in_both(connection, before.belongings)
            sums = sums_of(before.belongings, both, before.system_grants)
            await green.label_database(connection, msgspec.structs.replace(label, belongings=sums))
        return changes_between(
            before.content,
            after,
            loaded,
            held=before.held,
            items=items_between(
                before.held,
                held,
                views_now=before.held.keys() - before.content.tables,
                views_after=held.keys() - after.tables,
            ),
            server_version=self.plan.server.version,
            room_bytes=room_bytes,
            warnings=[*warnings, *warnings_about(views, exported=tables_of(loaded.fingerprint), imported=held)],
        )

    async def _read_belongings(self, connection: Connection) -> Belongings:
        loader = self.manager.user if self.plan.has_own_rights else None
        return await read_belongings(connection, self.plan.database, app_role=self.plan.app_role, loader=loader)

    async def _make_database(self, connection: Connection, label: Label, sessions: int) -> Login:
        """Its loader's way into it."""
        server, old = self.plan.server, self.plan.database
        if self.plan.has_own_rights:
            login = self.manager.to(new_name(label.key))
        else:
            login = await green.create_role(connection, self.manager, server=server, label=label, sessions=sessions)
        await green.create_database(connection, login, server=server, old=old, label=label)
        await green.write_money_alike(connection, label.key, like=old, app_role=self.plan.app_role)
        return login

    def _watched(self, key: str, remember: Callable[[str], None] | None) -> AbstractAsyncContextManager[None]:
        """Around the time in which code of the upload may run."""
        if not self.plan.has_own_rights:
            return nullcontext()
        return same_outside(self.manager, loads_into=new_name(key), session=session_name(key), remember=remember)

    async def _load(
        self,
        chunks: AsyncIterator[bytes],
        login: Login,
        progress: Progress,
        before: _Before,
        prepared: green.Prepared,
    ) -> Loaded:
        surroundings = self.surroundings
        terms = Terms(
            is_restricted=self.plan.has_own_rights,
            foreign_servers=prepared.servers.names,
            extension_tables=before.extension_tables,
        )
        loaded = await load(
            chunks,
            login,
            server_version_num=self.plan.server.version_num,
            clients=surroundings.clients,
            spool_directory=surroundings.spool_directory,
            limits=surroundings.limits,
            pre_created_extensions=prepared.extensions,
            progress=LoadProgressOf(progress, Step.TRANSFERRING),
            sessions=surroundings.sessions,
            terms=terms,
        )
        progress.step(Step.VERIFYING, "gathering statistics for the planner")
        async with connect(self.manager) as connection:
            await green.open_again(connection, login.database, like=self.plan.database)
            if not self.plan.has_own_rights:
                await green.let_in_again(connection, login)
        await analyze(login, sessions=surroundings.sessions)
        return loaded

    async def _drop_leftovers(self, connection: Connection, key: str) -> list[str]:
        """Drop what imports into this database left that no journal knows any more; say what is only reported."""
        found = await find_ours(connection, self.database)
        for other in found.new.keys() - {key}:
            _log.warning("What an earlier import left is dropped.", action="drop_leftovers", key=other)
            await _drop(connection, self.manager, other, self.surroundings.settings, names=[new_name(other)])
        # The latest may be the one that an undo brings back; the journal decides about it.
        if len(found.kept) < 2:
            return []
        names = ", ".join(sorted(kept_name(other) for other in found.kept))
        return [f"Databases of earlier imports are still there; drop those that are not needed: {names}."]

    async def restore(self, key: str, _progress: Progress) -> None:
        """Exchange the databases.

        Raises:
            TransferNotFoundError: there is no new database.
            AppUnavailableError: it was staged beside another database, or what was carried over from the app's changed
                since; nothing was changed.
            AppBusyError: sessions are in the way that may not be ended; nothing was changed.
            UnsettledError: the server went away in the middle.
        """
        async with self._connect(key) as connection:
            there = await _databases(connection, [new_name(key), self.database])
        if new_name(key) not in there:
            raise TransferNotFoundError(
                f"The database {new_name(key)} that was staged is gone.", next_step="Import it again."
            )
        staged = Label.from_text(there[new_name(key)])
        self._require_of_this(staged)
        await self._require_same_belongings(key, staged)
        comment = there.get(self.database)
        async with self._connect(key) as connection:
            imported = await _number_of(connection, new_name(key))
        label = Label(of=self.database, app_id=self.app_id, key=key, comment=comment, imported=imported)
        renames = [
            Rename(self.database, kept_name(key), label.to_text()),
            Rename(new_name(key), self.database, comment),
        ]
        await self._exchange(renames, key, wants_imported=True)

    def _require_of_this(self, label: Label | None) -> None:
        """See that what is found by a key belongs to this database; nothing is known where the label is gone."""
        if label is not None and label.of != self.database:
            raise moved(now=f"database {self.database}", then=f"database {label.of}")

    async def _require_same_belongings(self, key: str, staged: Label | None) -> None:
        """As `same_belongings.require_same`; nothing is known of what an older agent staged."""
        if staged is None or staged.belongings is None:
            return
        async with connect(self.manager.to(self.database), application_name=session_name(key)) as connection:
            belongings = await self._read_belongings(connection)
            system_grants = await read_system_grants(connection)
        async with connect(self.manager.to(new_name(key)), application_name=session_name(key)) as connection:
            now = sums_of(belongings, await things_in_both(connection, belongings), system_grants)
        require_same(staged.belongings, now, database=self.database)

    async def undo(self, key: str, _progress: Progress) -> None:
        """Exchange the databases back and drop the imported one.

        Raises:
            UnsettledError: as in `restore`; or it is done but for dropping what was imported.
            As `bring_back`.
        """
        await self.bring_back(key)
        try:
            await self.discard(key)
        except ServiceError as failure:
            raise UnsettledError(failure.text) from failure

    async def bring_back(self, key: str) -> None:
        """Exchange the databases back; the imported one stays, as before `restore`.

        Raises:
            NothingToUndoError: the previous database is gone.
            AppUnavailableError: it is the previous one of another database, or the app's is not the imported one any
                more; nothing was changed.
            AppBusyError, UnsettledError: as in `restore`.
        """
        async with self._connect(key) as connection:
            there = await _databases(connection, [kept_name(key), self.database])
            present = await _number_of(connection, self.database)
        if kept_name(key) not in there:
            raise NothingToUndoError(f"The database {kept_name(key)} with the previous data is gone.")
        label = Label.from_text(there[kept_name(key)])
        self._require_of_this(label)
        if label is not None and label.imported is not None and present not in (label.imported, None):
            raise AppUnavailableError(
                f"Database {self.database} is not the one that the import brought: somebody made it since, and an undo "
                "would drop it.",
                next_step=f"Undo it by hand: give that database another name (ALTER DATABASE ... RENAME TO ...), and "
                f"{kept_name(key)} the name {self.database}; then confirm the import. To confirm it alone drops the "
                "previous data.",
            )
        ours = Label(of=self.database, app_id=self.app_id, key=key)
        # Where somebody took our label away, the imported database still has the comment, which it got with the name.
        comment = label.comment if label else there.get(self.database)
        renames = [
            Rename(self.database, new_name(key), ours.to_text()),
            Rename(kept_name(key), self.database, comment),
        ]
        await self._exchange(renames if self.database in there else renames[1:], key, wants_imported=False)

    async def _exchange(self, renames: list[Rename], key: str, *, wants_imported: bool) -> None:
        try:
            await exchange(self.manager, renames, key=key)
        except AppBusyError:
            raise
        except ServiceError as failure:
            try:
                is_imported = await self.is_imported(key)
            except ServiceError:
                raise UnsettledError(failure.text) from failure
            if is_imported is not wants_imported:
                raise

    async def is_imported(self, key: str) -> bool:
        """Which data the app has: the swap is one transaction, so its own database's name says it."""
        return await kept(self.manager, key) is Side.PREVIOUS

    async def discard(self, key: str) -> None:
        """Drop the new or the previous database and the role, whatever there is of them; raises as `_drop`."""
        await discard(self.manager, key, self.surroundings.settings)

    def _connect(self, key: str) -> AbstractAsyncContextManager[Connection]:
        return connect(self.manager, application_name=session_name(key))


async def kept(manager: Login, key: str, *, may_be_restored: bool = True) -> Side | None:
    """Whose database is kept beside the app's; None: nobody's (any more). Asks nothing of the app's database.

    Args:
        may_be_restored: else what is called like its previous database is another one.
    """
    async with connect(manager, application_name=session_name(key)) as connection:
        await green.end_own_sessions(connection, key)
        there = await _databases(connection, [kept_name(key), new_name(key)])
    if may_be_restored and kept_name(key) in there:
        return Side.PREVIOUS
    return Side.IMPORTED if new_name(key) in there else None


async def discard(manager: Login, key: str, settings: PostgresSettings, *, may_be_restored: bool = True) -> None:
    """See `Beside.discard`; asks nothing of the app's database. Args as `kept`."""
    names = [new_name(key), *([kept_name(key)] if may_be_restored else [])]
    async with connect(manager, application_name=session_name(key)) as connection:
        await _drop(connection, manager, key, settings, names=names)


async def _drop(
    connection: Connection, manager: Login, key: str, settings: PostgresSettings, *, names: list[str]
) -> None:
    """Drop databases of an import, and its role.

    Where the disk is nearly full they are emptied first, which makes room at once and takes nearly none.

    Raises:
        NoSpaceError: the server would stop; they are empty now, as far as the manager may drop what is in them.
        AppBusyError: someone uses one, whose sessions the manager may not end.
    """
    await green.end_own_sessions(connection, key)
    if there := list(await _databases(connection, names)):
        disk = await look_at_disk(connection, manager, settings, there[0])
        try:
            disk.require_room_to_drop(there)
        except NoSpaceError:
            for name in there:
                await green.empty(manager.to(name))
            disk.require_room_to_drop(there)
    await green.drop(connection, key)
    for name in there:
        await green.drop_database(connection, name)


async def _number_of(connection: Connection, name: str) -> int | None:
    """What a database keeps under every name; None: there is none."""
    cursor = await connection.execute("SELECT oid::bigint FROM pg_database WHERE datname = %s", [name])
    row = await cursor.fetchone()
    return int(row[0]) if row else None


async def _databases(connection: Connection, names: list[str]) -> dict[str, str | None]:
    """Those that exist, and their comments."""
    cursor = await connection.execute(
        "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = ANY(%s)", [names]
    )
    return dict(await cursor.fetchall())
