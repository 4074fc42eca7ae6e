"""What a server held at the moment of a swap, to the last write: a snapshot, and the commands after it.

The snapshot is taken while clients go on writing, so that they need not wait for it. What they wrote since comes as the
server's replication stream; when writes are paused only its last few bytes are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from agent.engines.redis.commands import Commands
from agent.engines.redis.connection import Connection
from agent.engines.redis.durable import Keeping, why_by_file
from agent.engines.redis.facts import ServerFacts, look
from agent.engines.redis.fitting import Needs
from agent.engines.redis.lending import Loan
from agent.engines.redis.replica import Replica, Wish, replicating
from agent.engines.redis.snapshots import BodyReader, Snapshot, Spool
from agent.engines.redis.swap_record import SwapRecord
from agent.steps import Progress
from common.errors import ToolFailedError
from common.files import sync_directory


class Previous:
    """The snapshot is there; the commands after it are still being written."""

    def __init__(
        self, replica: Replica, snapshot: Snapshot, tail: Spool, record: SwapRecord, *, highest_database: int
    ) -> None:
        """
        Args:
            highest_database: the highest number that the snapshot uses.
        """
        self._replica = replica
        self._snapshot = snapshot
        self._tail = tail
        self._record = record
        self._commands = Commands()
        self._highest_database = highest_database

    async def catch_up(self, connection: Connection) -> ServerFacts:
        """Have everything that was written up to now; the server as it was then."""
        server = await look(connection)
        async for piece in self._replica.tail(server.replication_offset):
            if kept := await asyncio.to_thread(self._commands.add, piece, at_ms=server.clock_ms):
                await self._tail.add(kept)
        return server

    async def complete(self, connection: Connection) -> None:
        """`catch_up` while writes are paused: afterwards it is complete, durable and noted."""
        server = await self.catch_up(connection)
        if self._commands.is_cut:
            raise ToolFailedError("The server does not replicate as Redis does: its last command is cut off.")
        await self._tail.sync()
        sync_directory(self._tail.path.parent)
        highest = max(self._highest_database, self._commands.highest_database)
        self._record.save_previous(self._snapshot, Needs.of_server(server, highest_database=highest))


@asynccontextmanager
async def keeping_previous(
    connection: Connection,
    record: SwapRecord,
    loan: Loan,
    progress: Progress,
    *,
    keeping: Keeping,
    free_bytes: int,
) -> AsyncIterator[Previous]:
    """Copy what the server holds into files, and go on with what is written meanwhile, in the block.

    A server that lives by snapshots makes its own one current by the same: should it die in the swap, it comes back
    with the data of this moment, not of its last save. One that is going to load by that file shows that it can.

    Raises:
        ToolFailedError: it cannot make a snapshot. NoSpaceError: the agent has no room for it.
    """
    async with AsyncExitStack() as stack:
        server = await look(connection)
        is_on_disk = keeping is Keeping.SNAPSHOTS or bool(await why_by_file(connection, server))
        wish = Wish(server.version, has_tail=True, is_on_servers_disk=is_on_disk)
        replica = await stack.enter_async_context(replicating(wish, loan=loan, admin=connection))
        spool = stack.enter_context(Spool(record.previous_path, free_bytes=free_bytes))
        tail = stack.enter_context(Spool(record.tail_path, free_bytes=free_bytes))
        body = BodyReader()
        async for chunk in replica.snapshot():
            body.add(chunk)
            await spool.add(chunk)
            progress.read(len(chunk))
        await spool.sync()
        snapshot = body.finish(record.previous_path)
        previous = Previous(replica, snapshot, tail, record, highest_database=max(server.keys, default=0))
        await previous.catch_up(connection)
        yield previous
