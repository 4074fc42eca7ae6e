"""Whether a server comes back with what it has now, and having it do so."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable
from pathlib import Path

from agent.engines.redis.connection import Connection, NotAllowedError, ReplyError
from agent.engines.redis.copied import has_copied_us_alone
from agent.engines.redis.facts import ServerFacts, look, read_setting
from common.errors import ToolFailedError

_LOOK_EVERY_SECONDS = 0.05


class Keeping(enum.Enum):
    """How a server keeps its data."""

    LOG = "an append-only file"
    SNAPSHOTS = "snapshots"
    NOTHING = "nothing"


async def find_keeping(connection: Connection, server: ServerFacts, *, work_directory: Path) -> Keeping:
    """From its settings; a server that does not tell them may have snapshots, as is the default.

    Args:
        work_directory: the agent's, where it noted what the server copied from it.
    """
    if server.has_aof:
        return Keeping.LOG
    save = await read_setting(connection, "save")
    if save == "" and not _has_file(server, work_directory):
        return Keeping.NOTHING
    return Keeping.SNAPSHOTS


def _has_file(server: ServerFacts, work_directory: Path) -> bool:
    """Whether it may have come from a snapshot, made one since it started, or got one as a replica: that one would come
    back.

    The keys that it loaded last are not counted where they were an agent's: it kept nothing before.
    """
    started_at = int(server.raw.get("server_time_usec", 0)) // 1_000_000 - int(server.raw.get("uptime_in_seconds", 0))
    was_saved = int(server.raw.get("rdb_last_save_time", 0)) > started_at + 1 if started_at > 0 else False
    has_loaded = int(server.raw.get("rdb_last_load_keys_loaded", 0)) > 0
    return was_saved or (has_loaded and not has_copied_us_alone(work_directory, server))


async def make_durable(connection: Connection, keeping: Keeping) -> None:
    """Returns when the server's own files hold what it holds.

    Raises:
        ToolFailedError: it cannot write them.
    """
    match keeping:
        case Keeping.LOG:
            await _await_log(connection)
        case Keeping.SNAPSHOTS:
            await save_snapshot(connection)
        case Keeping.NOTHING:
            # There is nothing to be done, but for seeing that it is still there: it would have come back empty.
            await look(connection)


async def why_by_file(connection: Connection, server: ServerFacts) -> str:
    """Why a snapshot that it copies goes through its own file, and its data is dropped before: the beginning of a
    sentence, empty where that is not so."""
    if await read_setting(connection, "repl-diskless-load") is None:
        return "The server does not let the agent change its settings (CONFIG)"
    if not server.modules_against_swap:
        return ""
    does = "module does" if len(server.modules_against_swap) == 1 else "modules do"
    names = ", ".join(server.modules_against_swap)
    return f"The server's {does} not declare to bear a load beside its data ({names}; `options` in INFO modules)"


async def require_file(connection: Connection, by_file: str) -> None:
    """See that a server that loads by a file can write that file now.

    One that cannot would drop its data and load nothing, or end itself on the first command after the load, from Redis
    7.0 on (serverPanic in processCommand), where nobody can tell it `replica-ignore-disk-write-errors`.

    Args:
        by_file: see `why_by_file`.
    Raises:
        ToolFailedError: it cannot.
    """
    await _require(
        save_snapshot(connection),
        f"{by_file}, so it would lose its data, or end in the middle",
    )


async def require_disk(connection: Connection, keeping: Keeping) -> None:
    """See that a server could make durable now what it is given; as a rule one whose disk is full could not.

    Args:
        keeping: LOG: asked only where the agent's user may have it rewritten, and the command was not renamed.
    Raises:
        ToolFailedError: it could not.
    """
    if keeping is not Keeping.NOTHING:
        await _require(
            _rewrite_log(connection) if keeping is Keeping.LOG else save_snapshot(connection),
            "What it is given now would be lost when it restarts",
        )


async def _require(trial: Awaitable[None], or_else: str) -> None:
    try:
        await trial
    except ToolFailedError as failure:
        raise ToolFailedError(
            f"{failure.text} {or_else}.",
            next_step="See that BGSAVE, or BGREWRITEAOF where there is an append-only file, works again: as a rule "
            "there is no room in the server's folder, or it may not write there. Then try again.",
        ) from failure


async def _rewrite_log(connection: Connection) -> None:
    await _when_idle(connection)
    try:
        await connection.call("BGREWRITEAOF")
    except NotAllowedError:
        return
    except ReplyError as refused:
        if refused.is_of_unknown_command:
            return
        # One that has begun by itself meanwhile is as good.
        if _is_idle(await look(connection)):
            raise ToolFailedError(f"The server does not rewrite its append-only file: {refused.text}.") from refused
    await _await_log(connection)


async def _await_log(connection: Connection) -> None:
    """A server that has loaded as a replica rewrites its append-only file by itself.

    Where that fails it begins again, for ever. The one before the swap succeeded, see `require_disk`.
    """
    while True:
        server = await look(connection)
        if not server.has_aof or not server.has_rewritten_aof:
            raise ToolFailedError(
                "The server could not write its append-only file; its log has the cause.",
                next_step="As a rule there is no room on its disk.",
            )
        if _is_idle(server):
            return
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def save_snapshot(connection: Connection) -> None:
    """BGSAVE, to its end.

    Raises:
        ToolFailedError: it cannot write that file.
    """
    server = await _when_idle(connection)
    for words in (("BGSAVE",), ("BGSAVE", "SCHEDULE")):
        try:
            await connection.call(*words)
            break
        except ReplyError as error:
            refused = error
    else:
        raise ToolFailedError(f"The server does not save a snapshot: {refused.text}.") from refused
    server = await _when_idle(connection)
    if server.raw.get("rdb_last_bgsave_status") != "ok":
        raise ToolFailedError(
            "The server could not save a snapshot to its disk; its log has the cause.",
            next_step="As a rule there is no room on its disk, or it may not write there.",
        )


async def _when_idle(connection: Connection) -> ServerFacts:
    """The server when nothing is being written to its disk or about to be."""
    while True:
        server = await look(connection)
        if _is_idle(server):
            return server
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _is_idle(server: ServerFacts) -> bool:
    names = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
    return not any(server.raw.get(name) == "1" for name in names)
