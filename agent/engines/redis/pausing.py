"""A time in which no client can write: those that try wait, and go on as if nothing had been.

The server itself ends the pause some time after it was last renewed, so an agent that dies holds nobody up for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.engines.redis.connection import Connection, ReplyError, connect, reusing
from common.errors import AppBusyError, ServiceError, ToolFailedError

LEASE_SECONDS = 60.0
"""An agent that was killed is back by then as a rule, and goes on where it was."""
RENEW_SECONDS = 5.0
MARGIN_SECONDS = 15.0
"""Left of a lease when a load is allowed to take effect; that itself takes milliseconds."""


class Pause:
    """A pause that lasts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lasts_until = 0.0
        self._is_broken = False
        self._is_left_to_end = False
        self._lock = asyncio.Lock()

    async def renew(self) -> None:
        """Have it last LEASE_SECONDS from now on; ToolFailedError: the server does not do that."""
        async with self._lock:
            if self._is_left_to_end:
                return
            begun_at = time.monotonic()
            try:
                await self._connection.call("CLIENT", "PAUSE", int(LEASE_SECONDS * 1000), "WRITE")
            except ReplyError as error:
                raise ToolFailedError(f"The server does not pause writes: {error.text}.") from error
            self._is_broken = self._is_broken or (self._lasts_until > 0 and time.monotonic() > self._lasts_until)
            self._lasts_until = begun_at + LEASE_SECONDS

    @property
    def left_seconds(self) -> float:
        """How long it lasts at least; negative: it may be over."""
        return self._lasts_until - time.monotonic()

    async def leave_to_end(self) -> None:
        """Renew it no more: somebody else will end it."""
        async with self._lock:
            self._is_left_to_end = True

    def require_unbroken(self) -> None:
        """See that it has lasted all the time and will for a while. Asks the clock: a server that loads may be waiting
        for our next byte, and answers nothing meanwhile.

        Raises:
            AppBusyError: clients may have written.
        """
        if self._is_broken or self.left_seconds < MARGIN_SECONDS:
            raise AppBusyError(
                "The agent was held up for so long that clients could write again; nothing was changed.",
                next_step="Try again when the machine is less busy.",
            )

    async def keep(self) -> None:
        """Renew it for ever."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(ServiceError):
                await self.renew()


@asynccontextmanager
async def writes_paused(connection: Connection) -> AsyncIterator[Pause]:
    """No client's write is executed in this block; all that came before it are.

    Args:
        connection: one that ends the pause; it is renewed over another.
    """
    async with connect(connection.login) as renewing:
        pause = Pause(renewing)
        try:
            await pause.renew()
            keeping = asyncio.create_task(pause.keep(), name="keep writes paused")
            try:
                yield pause
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
        finally:
            await unpause(connection)


async def unpause(connection: Connection) -> None:
    """End a pause, over a new connection if that one was lost."""
    for _ in range(2):
        with contextlib.suppress(ServiceError, ReplyError):
            async with reusing(connection) as one:
                await one.call("CLIENT", "UNPAUSE")
            return
