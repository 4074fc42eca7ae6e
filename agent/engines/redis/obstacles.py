"""Why a server cannot take an import, or give an export, as it is set up now."""

from __future__ import annotations

import contextlib

from agent.engines.redis.connection import Connection, NotAllowedError, ReplyError
from agent.engines.redis.facts import ServerFacts
from agent.engines.redis.marker import Marker
from common.errors import AppUnavailableError

_SENTINEL_CLIENT = b"name=sentinel-"


def export_obstacle(server: ServerFacts) -> str:
    """A sentence; empty when there is none."""
    if server.mode == "sentinel":
        return "This is a Sentinel, which watches other servers and holds no data."
    if server.mode == "cluster":
        return "The server is a node of a cluster, which holds only a part of the data."
    if server.master is not None and not server.link_is_up:
        return f"The server is a replica of {_told(server.master)} and has lost it; its data may be old."
    if server.is_loading:
        return "The server is still loading its data."
    return ""


async def import_obstacle(connection: Connection, server: ServerFacts) -> str:
    """A sentence; empty when there is none."""
    if server.mode == "cluster":
        return "The server is a node of a cluster; it takes data only from its cluster."
    if server.master is not None:
        return f"The server is a replica of {_told(server.master)}, which decides what it holds; import there."
    if obstacle := export_obstacle(server):
        return obstacle
    if server.replicas:
        return (
            f"The server has {server.replicas} replica{'s' if server.replicas > 1 else ''} that would have to copy all "
            "of the new data; detach them first (REPLICAOF NO ONE there)."
        )
    if await _is_watched(connection):
        return "A Sentinel watches the server and would take an import for its failure; have it stop that first."
    return ""


async def _is_watched(connection: Connection) -> bool:
    """Sentinels call their connections so (sentinelSetClientName, sentinel.c)."""
    try:
        clients = await connection.call("CLIENT", "LIST")
    except (ReplyError, NotAllowedError):
        return False
    return isinstance(clients, bytes) and _SENTINEL_CLIENT in clients


async def require_importable(connection: Connection, server: ServerFacts) -> None:
    """
    Raises:
        AppUnavailableError: with the obstacle.
    """
    if obstacle := await import_obstacle(connection, server):
        raise AppUnavailableError(obstacle)


async def require_rights(connection: Connection, marker: Marker, *, saves: bool) -> None:
    """See that everything is allowed that is needed from the middle of a swap on. None of this changes anything.

    Args:
        saves: the server will be asked to save a snapshot.
    Raises:
        NotAllowedError: names the right that is missing.
    """
    await marker.read(connection)
    await marker.remove(connection)
    commands = [("REPLICAOF", "NO", "ONE"), ("CLIENT", "UNPAUSE"), ("CONFIG", "GET", "?"), ("CONFIG", "SET", "?", "?")]
    for words in [*commands, *([("BGSAVE", "?")] if saves else [])]:
        # What it says to these does not matter; CONFIG may be renamed away.
        with contextlib.suppress(ReplyError):
            await connection.call(*words)


def _told(master: tuple[str, int]) -> str:
    return f"{master[0]}:{master[1]}"
