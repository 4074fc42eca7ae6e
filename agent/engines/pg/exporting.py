"""An export: who reads the database, what its header says, and the dump with an estimate of its size."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agent.engines.pg.catalog import (
    ServerFacts,
    count_objects,
    describe_content,
    estimate_bytes,
    look_at_database,
    look_at_server,
    unreadable_tables,
)
from agent.engines.pg.clients import Client, Clients
from agent.engines.pg.connection import Connection, Login, connect
from agent.engines.pg.dump import DumpForm, dump, end_leftovers
from agent.recipes.base import Export, ExportOptions, Progress, Step
from common.errors import AppUnavailableError, SourceUnreadableError
from common.headers import ArchiveHeader
from common.seals import FORMAT_VERSION

CUSTOM_SHRINKS_BY = 4
"""pg_dump compresses a custom archive before we see its bytes; SQL text shrinks about so much."""
_MOST_NAMES = 10


@asynccontextmanager
async def export_database(
    logins: Sequence[Login],
    options: ExportOptions,
    progress: Progress,
    *,
    form: DumpForm,
    clients: Clients,
    made_by: str,
) -> AsyncIterator[Export]:
    """A database as an archive, read by the first of `logins` that may read all of it.

    Raises:
        SourceUnreadableError: none may; names the tables.
        AppUnavailableError: no server, no database, or it refuses the role.
    """
    progress.step(Step.PREPARING)
    login = await _find_reader(logins)
    async with connect(login) as connection:
        await end_leftovers(connection, options.app_id)
        server = await look_at_server(connection)
        client = await clients.for_server(server.version_num)
        header = await _make_header(connection, login, server, client, options, form, made_by=made_by)
        estimate = asyncio.create_task(_estimate(connection, progress, form), name="estimate the size of an export")
        try:
            async with dump(
                login, client, form=form, header=header, app_id=options.app_id, on_read=progress.read
            ) as chunks:
                progress.step(Step.TRANSFERRING)
                yield Export(header=header, chunks=chunks, counts=dict(header.counts))
        finally:
            estimate.cancel()
            await asyncio.gather(estimate, return_exceptions=True)


async def _find_reader(logins: Sequence[Login]) -> Login:
    unreadable: list[str] = []
    for login in logins:
        async with connect(login) as connection:
            unreadable = await unreadable_tables(connection)
        if not unreadable:
            return login
    raise SourceUnreadableError(
        explain_unreadable(logins[-1], unreadable), next_step="Grant what is missing, or give the agent an admin_user."
    )


def explain_unreadable(login: Login, unreadable: Sequence[str]) -> str:
    """Why an export would not be whole."""
    more = f" and {len(unreadable) - _MOST_NAMES} more" if len(unreadable) > _MOST_NAMES else ""
    return (
        f"Role {login.user} may not read all of database {login.database}, so an export would not be whole: "
        f"{', '.join(unreadable[:_MOST_NAMES])}{more}."
    )


async def _make_header(
    connection: Connection,
    login: Login,
    server: ServerFacts,
    client: Client,
    options: ExportOptions,
    form: DumpForm,
    *,
    made_by: str,
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
    return ArchiveHeader(
        recipe="postgresql",
        format=form.value,
        format_version=0 if form is DumpForm.CUSTOM else FORMAT_VERSION,
        engine="postgresql",
        engine_version=server.version,
        made_by=made_by,
        created_at=dt.datetime.now(dt.UTC),
        app_id=options.app_id,
        counts=await count_objects(connection),
        details={name: value for name, value in details.items() if value},
        media_type=options.format.media_type,
        file_name=options.file_name,
    )


async def _estimate(connection: Connection, progress: Progress, form: DumpForm) -> None:
    size_bytes = await estimate_bytes(connection)
    progress.expect(size_bytes // CUSTOM_SHRINKS_BY if form is DumpForm.CUSTOM else size_bytes)
