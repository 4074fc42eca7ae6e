"""What can be done with an app's server now, and why not where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.engines.redis.connection import Connection, connect
from agent.engines.redis.durable import Keeping, find_keeping, why_by_file
from agent.engines.redis.exporting import put_back_leftovers
from agent.engines.redis.facts import ServerFacts, look
from agent.engines.redis.obstacles import (
    export_obstacle,
    import_obstacle,
    no_command_obstacle,
    renamed_warnings,
    write_obstacle,
)
from agent.engines.redis.settings import RedisSettings
from common.errors import ServiceError


@dataclass(frozen=True)
class Overview:
    """See recipes.base.Description; an obstacle is a sentence, empty when there is none."""

    engine: str
    engine_version: str = ""
    export_obstacle: str = ""
    import_obstacle: str = ""
    estimated_bytes: int = 0
    warnings: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


async def describe(settings: RedisSettings, work_directory: Path) -> Overview:
    """Never raises for a server that does not answer: that is an obstacle."""
    try:
        async with connect(settings.login()) as connection:
            server = await look(connection)
            await put_back_leftovers(connection, work_directory, run_id=server.run_id)
            return await _describe(connection, server, work_directory)
    except ServiceError as failure:
        return Overview(engine="redis", export_obstacle=failure.text, import_obstacle=failure.text)


async def _describe(connection: Connection, server: ServerFacts, work_directory: Path) -> Overview:
    keeping = await find_keeping(connection, server, work_directory=work_directory)
    warnings = []
    if keeping is Keeping.NOTHING:
        warnings.append("The server saves nothing, so all its data is gone when it restarts.")
    by_file = await why_by_file(connection, server)
    if by_file:
        warnings.append(
            f"{by_file}, so an import empties the server before it loads, and clients get no answer meanwhile."
        )
    elif not server.serves_while_loading:
        warnings.append(f"{server.name} answers -LOADING to its clients during an import.")
    warnings += await renamed_warnings(connection, server)
    return Overview(
        engine=server.kind,
        engine_version=server.version,
        export_obstacle=export_obstacle(server) or await no_command_obstacle(connection, is_export=True),
        import_obstacle=await import_obstacle(connection, server)
        or await no_command_obstacle(connection, saves=bool(by_file) or keeping is Keeping.SNAPSHOTS)
        or await write_obstacle(connection.login),
        # A snapshot takes about half of the memory that its data does.
        estimated_bytes=server.data_bytes // 2,
        warnings=tuple(warnings),
        details={
            "keys": ", ".join(f"{count:,} in database {number}" for number, count in server.keys.items()) or "none",
            "kept_by": keeping.value,
            "used_memory_bytes": str(server.used_bytes),
            **({"modules": ", ".join(sorted(server.modules))} if server.modules else {}),
        },
    )
