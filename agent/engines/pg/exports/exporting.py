"""An export: who reads the database, what its header says, and the dump with an estimate of its size."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec

from agent.engines.pg.aside.dropping import users
from agent.engines.pg.exports.fingerprint import EVERYTHING, Scope
from agent.engines.pg.exports.not_importable import warnings_of_not_importable
from agent.engines.pg.exports.proving import SnapshotProof, proving
from agent.engines.pg.server.catalog import (
    ServerFacts,
    count_objects,
    describe_content,
    estimate_bytes,
    foreign_servers,
    kept_schema_names,
    look_at_database,
    look_at_server,
    may_read_views,
    unreadable_parts,
)
from agent.engines.pg.server.clients import Client, Clients
from agent.engines.pg.server.connection import Connection, Login, connect
from agent.engines.pg.server.dump import DumpForm, dump, end_leftovers
from agent.engines.pg.server.privileges import listed
from agent.steps import Progress, Step
from common.errors import AppUnavailableError, ServiceError, SourceUnreadableError
from common.headers import ArchiveHeader

CUSTOM_SHRINKS_BY = 4
"""pg_dump compresses a custom archive before we see its bytes; SQL text shrinks about so much."""


@dataclass(frozen=True)
class DatabaseExport:
    """An archive that is about to flow; `chunks` ends normally only when it is whole.

    Attributes:
        proof: has the fingerprint then, or says why there is none; None: none was wanted, or `warnings` say why not.
    """

    header: ArchiveHeader
    chunks: AsyncGenerator[bytes, None]
    proof: SnapshotProof | None
    warnings: Sequence[str] = ()


@asynccontextmanager
async def export_database(
    logins: Sequence[Login],
    known: ArchiveHeader,
    progress: Progress,
    *,
    form: DumpForm,
    clients: Clients,
    takes_fingerprint: bool,
    scope: Scope = EVERYTHING,
) -> AsyncIterator[DatabaseExport]:
    """A database as an archive, read by the first of `logins` that may read all of it.

    Args:
        known: what the caller knows for the archive's header: the app, who makes it, names of file and format.
        scope: of the fingerprint.
    Raises:
        SourceUnreadableError: none may; names the tables.
        AppUnavailableError: no server, no database, or it refuses the role.
    """
    progress.step(Step.PREPARING)
    login = await find_reader(logins)
    async with connect(login) as connection:
        await end_leftovers(connection, known.app_id)
        server = await look_at_server(connection)
        client = await clients.for_server(server.version_num)
        header = await _make_header(connection, login, server, client, known)
        kept = await kept_schema_names(connection)
        of_catalog = [
            *_about(await foreign_servers(connection)),
            *await _about_users(connection, kept),
            *await warnings_of_not_importable(connection),
        ]

        async def estimate() -> None:
            await _estimate(connection, progress, form)

        async with AsyncExitStack() as stack:
            proof, warnings = (
                await _begin_proof(stack, connection, login, first=estimate, scope=scope)
                if takes_fingerprint
                else (None, [])
            )
            if proof is None:
                await stack.enter_async_context(_beside(estimate()))
            dumping = dump(
                login,
                client,
                form=form,
                header=header,
                app_id=known.app_id,
                encoding=connection.info.parameter_status("server_encoding") or "UTF8",
                without=kept,
                on_read=progress.read,
                proof=proof,
            )
            chunks = await stack.enter_async_context(dumping)
            progress.step(Step.TRANSFERRING)
            yield DatabaseExport(header, chunks, proof, [*of_catalog, *warnings])


def _about(servers: Sequence[str]) -> list[str]:
    """A warning of what an import will ask for."""
    if not servers:
        return []
    return [
        "An import brings no foreign servers, only what uses them: these have to be in the database that it replaces, "
        f"made there by a superuser: {listed(servers)}. The archive may hold passwords of their user mappings."
    ]


async def _about_users(connection: Connection, kept: Sequence[str]) -> list[str]:
    """A warning of what a dump holds that is made of what it leaves out."""
    names = await users(connection, kept, all_casts=True) if kept else []
    if not names:
        return []
    return [
        f"Made of previous data that an import keeps, which is in no archive: {listed(names)}. An archive that makes "
        "them cannot be loaded. Drop them, or make them anew of the present data, then export again."
    ]


@asynccontextmanager
async def _beside(estimating: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """It may fail, or be ended; an export does not need it."""
    task = asyncio.create_task(estimating, name="estimate the size of an export")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _begin_proof(
    stack: AsyncExitStack,
    connection: Connection,
    login: Login,
    *,
    first: Callable[[], Awaitable[None]],
    scope: Scope,
) -> tuple[SnapshotProof | None, list[str]]:
    """In the session that is there already: a role may have few. Where it does not work, the export goes on without."""
    try:
        return await stack.enter_async_context(proving(connection, login, first=first, scope=scope)), []
    except ServiceError as failure:
        return None, [f"No fingerprint could be taken: {failure.text}"]


async def find_reader(logins: Sequence[Login]) -> Login:
    """The first that may read all of its database, materialized views too where one may.

    Raises:
        SourceUnreadableError: names what none may read of what a dump holds.
    """
    unreadable: list[str] = []
    fitting: Login | None = None
    for login in logins:
        async with connect(login) as connection:
            unreadable = await unreadable_parts(connection)
            if not unreadable:
                if await may_read_views(connection):
                    return login
                fitting = fitting or login
    if fitting is not None:
        return fitting
    raise SourceUnreadableError(
        explain_unreadable(logins[-1], unreadable), next_step="Grant what is missing, or give the agent an admin_user."
    )


def explain_unreadable(login: Login, unreadable: Sequence[str]) -> str:
    """Why an export would not be whole."""
    return (
        f"Role {login.user} may not read all of database {login.database}, so an export would not be whole: "
        f"{listed(unreadable)}."
    )


async def _make_header(
    connection: Connection, login: Login, server: ServerFacts, client: Client, known: ArchiveHeader
) -> ArchiveHeader:
    database = await look_at_database(connection, login.database)
    if database is None:
        raise AppUnavailableError(f"{login.place} has no database {login.database} any more.")
    details = {
        "database": database.name,
        "encoding": database.encoding,
        "collate": database.collate,
        "ctype": database.ctype,
        "locale": database.locale or "",
        "owner": database.owner,
        "dumped_by": f"pg_dump {client.version}",
        **await describe_content(connection),
    }
    return msgspec.structs.replace(
        known,
        engine="postgresql",
        engine_version=server.version,
        created_at=dt.datetime.now(dt.UTC),
        counts=await count_objects(connection),
        details={name: value for name, value in details.items() if value},
    )


async def _estimate(connection: Connection, progress: Progress, form: DumpForm) -> None:
    size_bytes = await estimate_bytes(connection)
    progress.expect(size_bytes // CUSTOM_SHRINKS_BY if form is DumpForm.CUSTOM else size_bytes)
