"""An upload on its way into a file of ours, checked while it arrives: nothing of it reaches the server before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from agent.engines.rdb.child import Look
from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.examination import examining
from agent.engines.rdb.stripping import without_scripts
from agent.engines.redis.compatibility import require_readable
from agent.engines.redis.connection import connect
from agent.engines.redis.durable import why_by_file
from agent.engines.redis.facts import ServerFacts, look
from agent.engines.redis.fitting import Needs, require_fit
from agent.engines.redis.libraries import require_libraries
from agent.engines.redis.settings import RedisSettings
from agent.engines.redis.snapshots import Snapshot, Spool
from agent.engines.redis.swap_record import SwapRecord
from agent.limits import Limits
from agent.unpacking import unpacked
from common.errors import ArchiveIncompatibleError
from common.rdb import RdbHeader
from common.wording import counted


async def receive(
    chunks: AsyncIterator[bytes],
    record: SwapRecord,
    server: ServerFacts,
    settings: RedisSettings,
    limits: Limits,
) -> RdbContent:
    """Take the upload apart, to its end, and see that this server can load it safely.

    Args:
        server: as it was before the upload; it is asked again when all of that has come.
    Raises:
        ArchiveError (its subclasses): the file. AppUnavailableError: its function libraries cannot be tried.
        LimitExceededError, NoSpaceError: there is too much of it.
    """

    def look_at(header: RdbHeader) -> None:
        require_readable(header, server)

    directory = record.staged_path.parent
    async with (
        unpacked(chunks, limits=limits) as upload,
        examining(directory, Look.CHECK, on_header=look_at) as examination,
    ):
        with Spool(record.staged_path, free_bytes=limits.free_bytes) as spool:
            async for chunk in upload.chunks:
                await examination.add(chunk)
                await spool.add(chunk)
            content = await asyncio.to_thread(without_scripts, record.staged_path, await examination.finish())
            await spool.sync()
    needs = Needs.of_file(content)
    async with connect(settings.login()) as connection:
        server = await look(connection)
        await require_fit(
            connection,
            server,
            content.header,
            needs,
            module_types=settings.module_types,
            drops_data=bool(await why_by_file(connection, server)),
        )
        if content.empty and not server.leaves_out_empty_keys:
            raise ArchiveIncompatibleError(
                f"The file has {counted(content.empty, 'keys')} without content, which {server.name} takes and may end "
                "itself on when it starts again.",
                next_step="Import it into Redis 7.0 or newer or a Valkey, which leave them out, and export from there.",
            )
        await require_libraries(connection, content.libraries)
    record.save_staged(
        Snapshot(record.staged_path, content.body_bytes, content.body_crc, has_crc=content.header.has_crc), needs
    )
    return content
