"""What happens by itself: recovery when the agent starts, expiry, trying again what could not be done, and giving back
the memory that a transfer needed."""

from __future__ import annotations

import asyncio

import structlog

from agent.clock import Clock
from agent.faults import fault_of
from agent.imports import Imports
from agent.journal import ImportPhase, Journal
from agent.operations import Operations
from agent.transfer_list import TransferList
from agent.versions import UnknownVersionError
from common import heap
from common.errors import AgentUnavailableError, AppUnavailableError, CancelledError, InternalError, ServiceError

INTERVAL_SECONDS = 15.0
"""Between two rounds; what waits for its app to start waits so long at most after that."""
SETTLE_SECONDS = 60.0
"""For one import, so that an app that hangs does not keep its agent from answering; what was begun is begun again."""
_UNSETTLED = (ImportPhase.RESTORING, ImportPhase.UNDOING)
_INTERRUPTED = (ImportPhase.STAGING, *_UNSETTLED, ImportPhase.DROPPING)
_log = structlog.get_logger(__name__)


class Housekeeping:
    """Looks after what imports hold."""

    def __init__(
        self, imports: Imports, journal: Journal, transfers: TransferList, operations: Operations, clock: Clock
    ) -> None:
        self._imports = imports
        self._journal = journal
        self._transfers = transfers
        self._operations = operations
        self._clock = clock
        self._obstacle: ServiceError | None = None

    def unsettled(self, *, only_reads: bool = False) -> AppUnavailableError | None:
        """Why no transfer may begin: a swap was interrupted and the app is not on one side yet, or nobody here knows.

        Args:
            only_reads: it would leave what imports keep as it is, so one that rests is in nobody's way.
        """
        for line in self._journal.unknown:
            if not (only_reads and line.is_at_rest):
                return line.to_error()
        for transfer in self._transfers.holding(*_UNSETTLED):
            if transfer is not self._operations.running:
                cause = f": {self._obstacle.text.rstrip(' .')}." if self._obstacle else "."
                next_step = "See that the app runs; the agent tries again by itself."
                if transfer.entry and isinstance(self._obstacle, InternalError | UnknownVersionError):
                    next_step = f"Correct that; the agent tries again by itself. {transfer.entry.way_out}"
                return AppUnavailableError(
                    f"Import {transfer.transfer_id} was interrupted; bringing the app to one side has to wait{cause}",
                    next_step=next_step,
                )
        return None

    async def recover(self) -> None:
        """Go through the journal, before the first call is answered. What cannot be settled yet is tried again."""
        self._transfers.restore(self._journal.read(), self._clock)
        async with self._operations.recipe_lock:
            await self._settle(ImportPhase.STAGED, *_INTERRUPTED)
            await self._imports.tidy_app()

    async def run(self) -> None:
        """Tidy up, for ever."""
        while True:
            await self._clock.sleep(INTERVAL_SECONDS)
            try:
                await self.tidy()
            except Exception:
                _log.exception("A round of housekeeping ended with a fault; the next comes.", action="keep_house")

    async def tidy(self) -> None:
        """One round; leaves everything to the next while an operation runs."""
        if self._operations.running is not None or self._operations.is_closing:
            return
        async with self._operations.recipe_lock:
            await self._settle(*_INTERRUPTED)
            await self._drop_expired()
        heap.give_back()

    async def _settle(self, *phases: ImportPhase) -> None:
        self._obstacle = None
        restarted = AgentUnavailableError(
            "The agent was restarted in the middle. Nothing was changed.", next_step="Import the archive again."
        )
        for transfer in self._transfers.holding(*phases):
            interrupted = transfer.phase
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._imports.settle(transfer, restarted)
            except Exception as obstacle:
                if isinstance(obstacle, TimeoutError):
                    obstacle = AppUnavailableError(f"It took more than {SETTLE_SECONDS:.0f} seconds.")
                self._obstacle = obstacle if isinstance(obstacle, ServiceError) else fault_of(transfer.transfer_id)
                _log.warning(
                    "An interrupted import could not be brought to one side yet; it will be tried again.",
                    action="recover",
                    transfer_id=transfer.transfer_id,
                    error=str(obstacle),
                    exc_info=not isinstance(obstacle, ServiceError),
                )
            else:
                _log.info(
                    "An interrupted import was looked after.",
                    action="recover",
                    transfer_id=transfer.transfer_id,
                    interrupted_in=interrupted.value if interrupted else None,
                    still_holds=transfer.phase.value if transfer.phase else None,
                )
        # Also what a swap left kept that turned out to be done only now.
        await self._imports.drop_superseded()

    async def _drop_expired(self) -> None:
        now = self._clock.now()
        for transfer in self._transfers.holding(ImportPhase.STAGED, ImportPhase.KEPT):
            expires_at = transfer.entry.expires_at if transfer.entry else None
            if expires_at is not None and expires_at <= now:
                _log.info("What an import held has expired.", action="expire", transfer_id=transfer.transfer_id)
                await self._imports.give_up(
                    transfer, CancelledError("The staged import was not restored in time and was dropped.")
                )
