"""An upload on its way into a file of ours, checked while it arrives: nothing of it reaches the server before."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agent.engines.rdb.child import Look
from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.examination import examining
from agent.engines.redis.compatibility import require_databases, require_modules, require_readable
from agent.engines.redis.connection import Connection
from agent.engines.redis.facts import ServerFacts
from agent.engines.redis.libraries import require_libraries
from agent.engines.redis.settings import RedisSettings
from agent.engines.redis.snapshots import Snapshot, Spool
from agent.engines.redis.swap_record import SwapRecord
from agent.limits import Limits
from agent.unpacking import unpacked
from common.errors import NoSpaceError
from common.rdb import RdbHeader

_MOST_MEMORY_BYTES = 1 << 50
"""What a file says beyond that is not believed."""
_MEMORY_FOR_EACH_BYTE = 3
"""Of a file that does not say how much memory its data took; small keys take more, packed values less."""


async def receive(
    chunks: AsyncIterator[bytes],
    record: SwapRecord,
    connection: Connection,
    server: ServerFacts,
    settings: RedisSettings,
    limits: Limits,
) -> RdbContent:
    """Take the upload apart, to its end, and see that this server can load it safely.

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
            content = await examination.finish()
            await spool.sync()
    # Once more, with what the file says of its writer.
    require_readable(content.header, server)
    require_modules(content, server, settings.module_types)
    await require_databases(connection, content)
    require_memory(content, server)
    await require_libraries(connection, content.libraries)
    record.save_staged(
        Snapshot(record.staged_path, content.body_bytes, content.body_crc, has_crc=content.header.has_crc)
    )
    return content


def memory_of(content: RdbContent) -> int:
    """What the data will take in a server, in bytes, about."""
    said = content.fields.get("used-mem", "")
    if said.isdecimal() and (size_bytes := int(said)) <= _MOST_MEMORY_BYTES:
        return size_bytes
    return _MEMORY_FOR_EACH_BYTE * content.size_bytes


def expiring_keys(content: RdbContent) -> int:
    """How many keys with a time to live a server has when it has loaded the file."""
    return content.expiring - content.expired


def require_memory(content: RdbContent, server: ServerFacts) -> None:
    """
    Raises:
        NoSpaceError: old and new data together do not fit into the machine, or the new alone not into the server.
    """
    needed = memory_of(content)
    if server.maximum_bytes and needed > server.maximum_bytes and not _may_evict(content, server):
        why = (
            f", since {server.eviction} evicts only keys with a time to live and the file has none"
            if server.evicts_only_expiring
            else ""
        )
        raise NoSpaceError(
            f"The data takes about {_mib(needed)} of memory, and the server may use {_mib(server.maximum_bytes)} "
            f"(maxmemory): it would refuse every write afterwards{why}. Nothing was changed.",
            next_step="Raise maxmemory, or choose an eviction policy that takes any key (allkeys-lru, for example).",
        )
    if server.system_bytes and server.used_bytes + needed > server.system_bytes:
        raise NoSpaceError(
            f"Until the swap the new data, about {_mib(needed)}, is in memory beside the {_mib(server.used_bytes)} of "
            f"now; the machine has {_mib(server.system_bytes)}. Nothing was changed.",
            next_step="Give the server more memory for the import.",
        )


def _may_evict(content: RdbContent, server: ServerFacts) -> bool:
    return expiring_keys(content) > 0 if server.evicts_only_expiring else server.may_evict


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20:,} MiB"
