"""The swap of one import as a recipe asks for it: there, back, and after a death in between."""

from __future__ import annotations

import asyncio

from agent.engines.redis.exchange import Exchange
from agent.engines.redis.recovery import recover
from agent.engines.redis.settings import RedisSettings
from agent.engines.redis.swap_record import Aim, SwapRecord
from agent.steps import Progress
from agent.unsettled import UnsettledError
from common.errors import ServiceError, ToolFailedError

SETTLE_SECONDS = 30.0
"""How long a server that went away is waited for before an answer; afterwards recovery goes on by itself."""
_TRY_EVERY_SECONDS = 0.25


class Swap:
    """Raises errors of common.errors when the outcome is known, and UnsettledError when it is not."""

    def __init__(self, settings: RedisSettings, record: SwapRecord, progress: Progress, *, free_bytes: int) -> None:
        self._settings = settings
        self._record = record
        self._exchange = Exchange(settings, record, progress, free_bytes=free_bytes)

    async def restore(self) -> None:
        """Swap the staged data in, durably; see Exchange.restore."""
        try:
            await self._exchange.restore()
        except UnsettledError as unknown:
            if await self._settle(unknown) is not Aim.IMPORTED:
                raise ToolFailedError(
                    f"The server did not take the data: {str(unknown).rstrip('.')}. It has its previous data.",
                    next_step="Look into the server's log for the reason, then restore again.",
                ) from unknown

    async def undo(self) -> None:
        """Swap the previous data back in; see Exchange.undo."""
        try:
            await self._exchange.undo()
        except UnsettledError as unknown:
            if await self._settle(unknown) is not Aim.PREVIOUS:
                raise ToolFailedError(
                    f"The server did not take the previous data: {str(unknown).rstrip('.')}. It has the imported data.",
                    next_step="Look into the server's log for the reason, then undo again.",
                ) from unknown

    async def recover(self) -> Aim:
        """Which data the server has, after it was brought to one side; AppUnavailableError: not yet."""
        return await recover(self._settings, self._record, self._exchange)

    async def _settle(self, unknown: UnsettledError) -> Aim:
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    try:
                        return await self.recover()
                    except ServiceError:
                        # Whatever it is, an answer that says so would say that nothing was changed.
                        await asyncio.sleep(_TRY_EVERY_SECONDS)
        except TimeoutError:
            raise unknown from None
