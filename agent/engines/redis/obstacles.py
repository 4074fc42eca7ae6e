"""Why a server cannot take an import, or give an export, as it is set up now."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from agent.engines.redis.connection import (
    Connection,
    ConnectionLostError,
    Login,
    NotAllowedError,
    ReplyError,
    connect,
)
from agent.engines.redis.facts import ServerFacts
from agent.engines.redis.marker import Marker
from common.errors import AppUnavailableError

_SENTINEL_CLIENT = b"name=sentinel-"
_PROBE = "mathison-data:probe"
_PROBE_SECONDS = 1.0
_ADVICE = {
    "NOREPLICAS": "Set min-replicas-to-write to 0 for the import.",
    "MISCONF": "As a rule there is no room on its disk, or it may not write there; see that BGSAVE works again.",
}
"""By the kind of the server's refusal of a write."""
_PROBES = (
    ("REPLICAOF", "NO", "ONE"),
    ("CLIENT", "PAUSE", "?", "WRITE"),
    ("CLIENT", "UNPAUSE"),
    ("CONFIG", "GET", "?"),
    ("CONFIG", "SET", "?", "?"),
)
"""What a server that allows them refuses, or does without an effect: it looks at the rights first."""
_PROBES_OF_A_COPY = (
    ("REPLCONF", "?"),
    # "PSYNC FAILOVER can't be sent to a master" (syncCommand, since 6.2); a replica wants the name of its history.
    ("PSYNC", "?", "-1", "FAILOVER"),
)

_FOR_EXPORTS = ("PSYNC",)
_FOR_UNDOS = ("REPLICAOF", "CLIENT", "SELECT", "GET", "DEL")
_FOR_IMPORTS = (*_FOR_UNDOS, "PSYNC", "REPLCONF")
_OF_THEIR_TIME = {"PUBLISH": "messages are delivered again", "SPUBLISH": "messages are delivered again"}
_OF_THEIR_TIME_OLD = {
    "PUBLISH": "messages are delivered again",
    "SCRIPT": "scripts of clients are loaded and flushed again",
    **dict.fromkeys(
        ("SET", "SETEX", "PSETEX", "GETEX", "EXPIRE", "PEXPIRE", "RESTORE"), "times to live count from the undo"
    ),
}
"""What an undo does with commands that it does not know by their names, see `commands`; the second before Redis 7.0."""
_HARMLESS = {"BGSAVE": ("?",)}
"""What a command is refused with, where it would do something without any words."""


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
    if server.has_aof and not server.has_rewritten_aof:
        # After a load it begins a new one; where that cannot be, it ends itself (restartAOFAfterSYNC, replication.c).
        return (
            "The server could not rewrite its append-only file the last time (aof_last_bgrewrite_status is err), which "
            "an import has it do. As a rule there is no room on its disk, or it may not write there; see that "
            "BGREWRITEAOF works again."
        )
    if await _is_watched(connection):
        return "A Sentinel watches the server and would take an import for its failure; have it stop that first."
    return ""


async def no_command_obstacle(
    connection: Connection, *, is_export: bool = False, is_undo: bool = False, saves: bool = False
) -> str:
    """Which commands the server lacks; empty when it has all. CONFIG and BGREWRITEAOF can be done without.

    Args:
        is_export, is_undo: for what they are needed; neither: for an import.
        saves: the server will be asked to save a snapshot.
    """
    names = list(_FOR_EXPORTS if is_export else _FOR_UNDOS if is_undo else _FOR_IMPORTS)
    if saves:
        names.append("BGSAVE")
    if not (lacking := await _lacking(connection, names)):
        return ""
    what = "an export" if is_export else "an undo" if is_undo else "an import"
    return (
        f"The server has no command {', '.join(lacking)}, which {what} needs; as a rule a line `rename-command` in its "
        "configuration takes it away."
    )


async def renamed_warnings(connection: Connection, server: ServerFacts) -> list[str]:
    """What to know of an undo where commands may have other names than their own; no server tells which."""
    effects = _OF_THEIR_TIME if server.serves_while_loading else _OF_THEIR_TIME_OLD
    lacking = await _lacking(connection, list(effects))
    if not lacking:
        return []
    return [
        f"The server has no command {', '.join(lacking)}. If a line `rename-command` in its configuration gave it "
        "another name, an undo does not recognize it in what was written while the previous data was copied: "
        f"{', '.join(dict.fromkeys(effects[name] for name in lacking))}."
    ]


async def _lacking(connection: Connection, names: Sequence[str]) -> list[str]:
    """Commands that the server does not have by these names."""
    # Without the words that they want: a server looks for the name first.
    answers = await connection.calls([(name, *_HARMLESS.get(name, ())) for name in names])
    return [
        name
        for name, answer in zip(names, answers, strict=True)
        if isinstance(answer, ReplyError) and answer.is_of_unknown_command
    ]


async def write_obstacle(login: Login) -> str:
    """Why the server refuses writes of every client at the moment; empty when it takes them, or lets them wait.

    Asked by removing a key that is not there, which changes nothing. Rights that are missing are named by staging.
    """
    try:
        async with connect(login) as connection:
            await connection.call("DEL", _PROBE, timeout_seconds=_PROBE_SECONDS)
    except ReplyError as refusal:
        return _refused(refusal)
    except (NotAllowedError, ConnectionLostError):
        pass
    return ""


def _refused(refusal: ReplyError) -> str:
    return f"The server refuses writes: {refusal.text}. {_ADVICE.get(refusal.kind, 'Try again when it takes them.')}"


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


async def require_rights(connection: Connection, key: str, *, saves: bool, is_undo: bool = False) -> None:
    """See that everything is allowed that a swap needs. None of this changes anything.

    Args:
        key: the import's.
        saves: the server will be asked to save a snapshot.
        is_undo: the previous data comes back; nothing is copied then, and one that refuses writes now is no obstacle.
    Raises:
        NotAllowedError: names the right that is missing. AppUnavailableError: with the server's reason, or the command
            that it lacks.
    """
    if obstacle := await no_command_obstacle(connection, is_undo=is_undo, saves=saves):
        raise AppUnavailableError(
            f"{obstacle} Nothing was changed.",
            next_step="Take that line out of the server's configuration and restart it, then try again.",
        )
    try:
        marker = await Marker.on(connection, key)
        await marker.read(connection)
        await marker.remove(connection)
    except ReplyError as refusal:
        if not is_undo:
            raise AppUnavailableError(
                f"{_refused(refusal)} Nothing was changed.", next_step="When it takes writes, try again."
            ) from refusal
    for words in [*_PROBES, *([] if is_undo else _PROBES_OF_A_COPY), *([("BGSAVE", "?")] if saves else [])]:
        # What it says to these does not matter; CONFIG may be renamed away.
        with contextlib.suppress(ReplyError):
            await connection.call(*words)


def _told(master: tuple[str, int]) -> str:
    return f"{master[0]}:{master[1]}"
