"""Work that may outlive its caller: an import or undo goes on once its swap has begun, watched or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import structlog

from common.errors import ServiceError
from mathison.data.v1.transfer_pb2 import TransferState

_log = structlog.get_logger(__name__)


class Run:
    """What the work is given: where it tells its states, and how it says that there is no way back."""

    def __init__(self) -> None:
        self.is_past_return = False
        self._states: asyncio.Queue[TransferState | None] = asyncio.Queue()

    def publish(self, state: TransferState) -> None:
        """Tell a state; never waits: a transfer has a few states a second and a caller who left is not waited for."""
        self._states.put_nowait(state)

    def pass_return(self) -> None:
        """From here on the work goes on when its caller leaves."""
        self.is_past_return = True

    def end(self) -> None:
        self._states.put_nowait(None)

    async def next(self) -> TransferState | None:
        return await self._states.get()


class Runs:
    """All work that goes on now."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self, work: Callable[[Run], Awaitable[None]], *, name: str) -> AsyncGenerator[TransferState, None]:
        """Start work and follow its states; its error comes last.

        Closing the generator early cancels the work and waits for its end, unless it has passed the point of no return.
        """
        run = Run()

        async def to_the_end() -> None:
            try:
                await work(run)
            finally:
                run.end()

        task = asyncio.create_task(to_the_end(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while (state := await run.next()) is not None:
                yield state
            await task
        finally:
            if not run.is_past_return:
                task.cancel()
                await asyncio.wait({task})
            task.add_done_callback(_take_notice)

    async def close(self, *, grace_seconds: float) -> None:
        """Wait for what goes on, then cancel it; an agent finishes a swap by itself."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _take_notice(task: asyncio.Task[None]) -> None:
    """The audit log has what became of a transfer; what is not an answer to anybody but a fault is logged here."""
    if not task.cancelled() and not isinstance(failure := task.exception(), ServiceError | None):
        _log.error("Work on a transfer has failed.", action="end_run", run=task.get_name(), exc_info=failure)
