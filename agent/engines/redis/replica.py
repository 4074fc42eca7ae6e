"""Our own replication client: a server's snapshot as a stream and, if wanted, everything that is written after it.

The server forks and goes on serving. Nothing is written to its disk unless that is asked for, or CONFIG is not there to
prevent it; then its own snapshot file is current as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.engines.redis.connection import ANSWER_SECONDS, Connection, ConnectionLostError, ReplyError, connect
from agent.engines.redis.facts import look
from agent.engines.redis.lending import Loan
from common.errors import AppUnavailableError, ServiceError, ToolFailedError
from common.frames import CHUNK_BYTES

SILENCE_SECONDS = 60.0
"""A server that forks for us sends an empty line each second; one whose other child has to end first does so too."""
ACKNOWLEDGE_SECONDS = 1.0
_AT_ONCE = {"repl-diskless-sync-delay": "0"}
"""A server begins at once; else it waits for seconds also where it only has to let a child for another copy end."""
_WITHOUT_FILE = {**_AT_ONCE, "repl-diskless-sync": "yes"}
"""It leaves its own snapshot file alone, too: one that keeps nothing would come back with that."""
_MARK_BYTES = 40


@dataclass(frozen=True)
class Wish:
    """What a replica asks for.

    Attributes:
        has_tail: what is written after the snapshot, too; the server keeps it in memory until it is read.
        version: that we claim to be of; Valkey 9 writes a snapshot that such a server can read.
        is_on_servers_disk: have the server write its snapshot file, and send that.
    """

    version: str
    has_tail: bool = False
    is_on_servers_disk: bool = False


class Replica:
    """A replication stream that has begun.

    Attributes:
        offset: where in the server's history the snapshot is.
    """

    def __init__(self, connection: Connection, *, offset: int, size_bytes: int | None, mark: bytes) -> None:
        self.offset = offset
        self._connection = connection
        self._size_bytes = size_bytes
        self._mark = mark
        self._acknowledging: asyncio.Task[None] | None = None

    async def snapshot(self) -> AsyncGenerator[bytes, None]:
        """The RDB in pieces of about 1 MiB; ends normally only when the server said that it was all of it.

        Raises:
            ConnectionLostError: it was not.
        """
        if self._size_bytes is None:
            async for chunk in self._until_mark():
                yield chunk
            return
        left = self._size_bytes
        while left:
            chunk = await self._some(min(left, CHUNK_BYTES))
            left -= len(chunk)
            yield chunk

    async def _until_mark(self) -> AsyncGenerator[bytes, None]:
        held = b""
        while True:
            held += await self._some(CHUNK_BYTES)
            # A server sends nothing after the mark before it was acknowledged.
            is_end = held.endswith(self._mark)
            ready = len(held) - _MARK_BYTES
            if ready > 0:
                yield held[:ready]
            if is_end:
                return
            held = held[max(ready, 0) :]

    async def tail(self, until: int) -> AsyncGenerator[bytes, None]:
        """The commands that follow, as the server sends them to replicas, up to a point in its history.

        Args:
            until: may be asked again for a later point.
        """
        if self._acknowledging is None:
            self._acknowledging = asyncio.create_task(self._acknowledge(), name="acknowledge replication")
        while self.offset < until:
            chunk = await self._some(CHUNK_BYTES, timeout_seconds=ANSWER_SECONDS)
            self.offset += len(chunk)
            yield chunk

    async def _some(self, most_bytes: int, *, timeout_seconds: float = SILENCE_SECONDS) -> bytes:
        try:
            return await self._connection.some(most_bytes, timeout_seconds=timeout_seconds)
        except ConnectionLostError as lost:
            raise _broken_off(lost) from lost

    async def _acknowledge(self) -> None:
        """Tell the server each second how far we are, as replicas do.

        It sends commands only to a replica that has acknowledged its snapshot, and does not count an acknowledgement
        that comes before it has noticed that the fork which sent the snapshot ended. Without any it gives up after a
        minute.
        """
        with contextlib.suppress(ConnectionLostError):
            while True:
                await self._connection.send("REPLCONF", "ACK", self.offset)
                await asyncio.sleep(ACKNOWLEDGE_SECONDS)

    async def close(self) -> None:
        """Acknowledge no more."""
        if self._acknowledging is not None:
            self._acknowledging.cancel()
            await asyncio.gather(self._acknowledging, return_exceptions=True)


@asynccontextmanager
async def replicating(wish: Wish, *, loan: Loan, admin: Connection) -> AsyncIterator[Replica]:
    """A replication stream for the time of the block, over a connection of its own.

    Args:
        loan: for the settings of how a server begins.
        admin: a connection to the server.
    Raises:
        AppUnavailableError: the server refuses; ToolFailedError: it could not make a snapshot.
    """
    async with connect(admin.login, stays_awake=False) as connection:
        await _tell(connection, "version", wish.version)
        if not wish.is_on_servers_disk:
            await _tell(connection, "capa", "eof")
            if not wish.has_tail:
                await _tell(connection, "rdb-only", "1")
        await loan.change(admin, _AT_ONCE if wish.is_on_servers_disk else _WITHOUT_FILE)
        try:
            replica = await _begin(connection)
        except ConnectionLostError as lost:
            raise await _cause(lost, wish, admin) from lost
        finally:
            with contextlib.suppress(ServiceError):
                await loan.give_back(admin)
        try:
            yield replica
        finally:
            await replica.close()


async def _tell(connection: Connection, *words: str) -> None:
    """Something about us; older servers do not know all of it."""
    with contextlib.suppress(ReplyError):
        await connection.call("REPLCONF", *words)


async def _begin(connection: Connection) -> Replica:
    await connection.send("PSYNC", "?", "-1")
    offset = -1
    while True:
        line = await connection.line(timeout_seconds=SILENCE_SECONDS)
        if line.startswith(b"+FULLRESYNC "):
            offset = int(line.split()[2])
        elif line.startswith(b"-"):
            raise _refusal(connection, line[1:].decode("utf-8", "replace"))
        elif line.startswith(b"$EOF:") and len(line) == 5 + _MARK_BYTES:
            return Replica(connection, offset=offset, size_bytes=None, mark=line[5:])
        elif line.startswith(b"$"):
            return Replica(connection, offset=offset, size_bytes=int(line[1:]), mark=b"")
        elif line:
            raise ToolFailedError(f"{connection.login.place} does not replicate as Redis does.")


async def _cause(lost: ConnectionLostError, wish: Wish, admin: Connection) -> ServiceError:
    """Why a server left before it sent anything: one whose snapshot failed on its disk does so without a word
    (updateSlavesWaitingBgsave, replication.c)."""
    try:
        server = await look(admin)
    except ServiceError:
        return lost
    if server.raw.get("rdb_last_bgsave_status", "ok") == "ok":
        return _broken_off(lost)
    or_else = "" if wish.is_on_servers_disk else " Or have it send without its disk: `repl-diskless-sync yes`."
    return ToolFailedError(
        f"{admin.login.place} could not write its snapshot to its own disk (rdb_last_bgsave_status is err); its log "
        "has the cause.",
        next_step="See that BGSAVE works again: as a rule there is no room in the server's folder (CONFIG GET dir), or "
        f"it may not write there.{or_else}",
    )


def _broken_off(lost: ConnectionLostError) -> ConnectionLostError:
    return ConnectionLostError(
        f"The server, or the way to it, broke the copy of its data off: {lost.text}",
        next_step="The server's log has the cause. If it is `output buffer limits`, more is written meanwhile than it "
        "keeps for a replica: raise `client-output-buffer-limit replica`, or try again when less is written. If "
        "somebody has paused its clients (CLIENT PAUSE), wait until that is over. Else see that it runs.",
    )


def _refusal(connection: Connection, text: str) -> ServiceError:
    place = connection.login.place
    match text.split():
        case ["NOPERM", *_]:
            user = connection.login.user or "default"
            return AppUnavailableError(
                f"User {user} of {place} may not replicate.",
                next_step=f"Allow it: ACL SETUSER {user} +sync +psync +replconf",
            )
        case ["ERR", "BGSAVE", "failed,", *_] | ["ERR", "Unable", "to", "perform", *_]:
            return ToolFailedError(
                f"{place} could not make a snapshot; its log has the cause.",
                next_step="As a rule it lacks memory to fork, or room on its disk.",
            )
    return AppUnavailableError(f"{place} does not send a snapshot: {text}.")
