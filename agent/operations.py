"""One operation at a time on an app's data, each an owned task: a caller watches it and may go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import structlog

from agent.clock import Clock
from agent.faults import fault_of
from agent.journal import ImportPhase
from agent.states import Failure, Phase, Result, TransferState
from agent.transfer_list import Transfer, TransferList
from common import heap
from common.errors import AgentUnavailableError, CancelledError, ServiceError, TransferInProgressError

_log = structlog.get_logger(__name__)


class Operations:
    """Starts, follows and ends them.

    Attributes:
        running: the transfer that is worked on now.
        recipe_lock: held while the recipe changes anything, by an operation or by housekeeping; who starts an operation
            meanwhile waits in it instead of being refused.
        is_closing: nothing new is begun.
    """

    def __init__(self, transfers: TransferList, clock: Clock, *, app_id: str, gap_seconds: float) -> None:
        self.running: Transfer | None = None
        self.recipe_lock = asyncio.Lock()
        self.is_closing = False
        self._transfers = transfers
        self._clock = clock
        self._app_id = app_id
        self._gap_seconds = gap_seconds
        self._reading: asyncio.Task[object] | None = None

    def refuse_if_occupied(self) -> None:
        """
        Raises:
            TransferInProgressError: another operation runs.
            AgentUnavailableError: the agent is being stopped.
        """
        if self.is_closing:
            raise self._stopping()
        if self.running is not None:
            raise TransferInProgressError(
                f"{self._app_id} is busy with transfer {self.running.transfer_id}.",
                next_step="Wait until it has ended, or cancel it.",
            )
        if self._reading is not None:
            raise TransferInProgressError(
                f"{self._app_id} is busy: a fingerprint of its content is being taken.",
                next_step="Wait until that has ended.",
            )

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """The app's content is read in the block, which is no transfer; nothing else can begin meanwhile.

        Raises:
            TransferInProgressError, AgentUnavailableError: as `refuse_if_occupied`.
        """
        self.refuse_if_occupied()
        self._reading = asyncio.current_task()
        try:
            async with self.recipe_lock:
                yield
        finally:
            self._reading = None

    def start(
        self,
        transfer: Transfer,
        work: Callable[[], Awaitable[None]],
        *,
        is_swap: bool = False,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin an operation; `refuse_if_occupied` was asked before.

        Args:
            is_swap: nobody may end it; else anybody may, until `work` says otherwise in the transfer.
            on_end: called last, whatever the end.
        """
        self.running = transfer
        transfer.failure = transfer.cancelled_with = None
        transfer.has_begun = False
        transfer.is_swap = is_swap
        transfer.is_cancellable = not is_swap
        transfer.operation = asyncio.create_task(
            self._run(transfer, work, on_end), name=f"{transfer.state.kind.value} {transfer.transfer_id}"
        )

    async def _run(self, transfer: Transfer, work: Callable[[], Awaitable[None]], on_end: Callable[[], None]) -> None:
        """From begin to end; never raises."""
        began_at = self._clock.monotonic()
        _log.info(
            "An operation has begun.",
            action="begin_operation",
            transfer_id=transfer.transfer_id,
            kind=transfer.state.kind.value,
            phase=transfer.state.phase.value,
        )
        try:
            if transfer.cancelled_with is not None:
                raise transfer.cancelled_with
            transfer.has_begun = True
            async with self.recipe_lock:
                heap.give_back()  # holes that the transfer before left do not fit what this one needs
                await work()
        except asyncio.CancelledError:
            transfer.failure = transfer.cancelled_with or CancelledError("The transfer was cancelled.")
        except ServiceError as error:
            transfer.failure = error
        except Exception:
            _log.exception("An operation ended with a fault.", action="operation", transfer_id=transfer.transfer_id)
            transfer.failure = fault_of(transfer.transfer_id)
        finally:
            transfer.is_cancellable = False
            self.running = None
            self._note_end(transfer, seconds=self._clock.monotonic() - began_at)
            self._transfers.remember()
            on_end()

    def _note_end(self, transfer: Transfer, *, seconds: float) -> None:
        error = transfer.failure
        if error is not None and transfer.state.result is None and transfer.phase in (None, ImportPhase.DROPPING):
            transfer.tracker.update(
                phase=Phase.DONE,
                note="",
                result=Result.CANCELLED if isinstance(error, CancelledError) else Result.FAILED,
                failure=Failure.of(error),
                ended_at=self._clock.now(),
            )
        transfer.tracker.wake(at_once=True)
        state = transfer.state
        _log.info(
            "An operation has ended.",
            action="end_operation",
            transfer_id=transfer.transfer_id,
            kind=state.kind.value,
            phase=state.phase.value,
            result=state.result.value if state.result else None,
            reason=error.reason if error else None,
            error=error.text if error else None,
            read_bytes=state.read_bytes,
            size_bytes=state.receipt.size_bytes if state.receipt else None,
            seconds=round(seconds, 3),
        )

    async def follow(self, transfer: Transfer) -> AsyncGenerator[TransferState, None]:
        """The states of a transfer until its present operation ends; raises what that failed with."""
        operation = transfer.operation

        def is_over() -> bool:
            return self.running is not transfer or transfer.operation is not operation

        async with aclosing(transfer.tracker.watch(is_over, gap_seconds=self._gap_seconds)) as states:
            async for state in states:
                if is_over() and transfer.failure is not None:
                    raise transfer.failure
                yield state

    async def watch(self, transfer: Transfer) -> AsyncGenerator[TransferState, None]:
        """The states of a transfer until it is over.

        Raises:
            AgentUnavailableError: the agent is being stopped before that.
        """

        def is_over() -> bool:
            return self.running is not transfer and (self.is_closing or transfer.state.result is not None)

        async with aclosing(transfer.tracker.watch(is_over, gap_seconds=self._gap_seconds)) as states:
            async for state in states:
                yield state
        if transfer.state.result is None:
            raise self._stopping()

    async def end(self, transfer: Transfer, reason: ServiceError) -> None:
        """End its operation if that does no harm, and wait until it has ended, one way or the other."""
        if transfer.operation is not None:
            transfer.cancel(reason)
            await asyncio.wait({transfer.operation})

    async def close(self, grace_seconds: float) -> bool:
        """Take nothing new, end what may be ended, wait for a restore or an undo.

        Returns:
            False: it still runs; its journal entry lets the next agent bring it to an end.
        """
        self.is_closing = True
        for transfer in self._transfers.latest_first():
            transfer.tracker.wake(at_once=True)
        if self._reading is not None:
            self._reading.cancel()
        running = self.running
        if running is None or running.operation is None:
            return True
        running.cancel(self._stopping())
        await asyncio.wait({running.operation}, timeout=grace_seconds)
        return running.operation.done()

    def _stopping(self) -> AgentUnavailableError:
        return AgentUnavailableError(
            f"The agent of {self._app_id} is being stopped.", next_step="Try again when it is back."
        )
