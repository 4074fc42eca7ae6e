"""What recipes share whose app has to be down while its directory's content is exchanged.

A running app keeps writing to the files that it has open, or writes what it remembers over what was imported. So the
exchange stands between a stop and a start, and whatever fails, app and data are brought back to where they were.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from agent.engines import tree
from agent.engines.swapping import Side, Swap
from agent.recipes.base import AppControl, Progress, Record, Recovered, Step
from common.errors import AppMustStopError, ServiceError, ToolFailedError

_log = structlog.get_logger(__name__)

NO_APP_CONTROL = (
    "The app has to be stopped for an import, and the agent has no way to do that: its settings need "
    "`stop` and `start` in the table [app]."
)


class UnsettledError(Exception):
    """A step failed half-way, or is done but for some clearing up. No answer but a fault: the agent then settles it by
    `recover` and `discard`, now and, where that is not possible yet, later."""


class StoppedExchange:
    """A recipe's restore, undo, discard and recover, for what was staged in a `tree.StagingArea` on the volume.

    The record holds `directory`, the volume, from before the area is made; and here `app_is_stopped`.
    """

    def __init__(self, app: AppControl) -> None:
        self._app = app

    async def restore(self, record: Record, progress: Progress) -> None:
        """Bring the imported data in place, or leave everything as it was."""
        await self._exchange(record, Side.IMPORTED, progress)

    async def undo(self, record: Record, progress: Progress) -> None:
        """Bring the previous data in place and drop the imported."""
        await self._exchange(record, Side.PREVIOUS, progress)
        try:
            await self.discard(record)
        except ServiceError as failure:
            raise UnsettledError from failure

    async def discard(self, record: Record) -> None:
        """Drop the side that is not in place."""
        if (directory := staged_in(record)) is None:
            return
        swap = Swap(directory, record.key)
        if swap.is_unfinished():
            await asyncio.to_thread(swap.recover)
        await asyncio.to_thread(tree.StagingArea(directory, record.key).remove)

    async def recover(self, record: Record) -> Recovered:
        """Finish an interrupted exchange; when the app does not start with imported data, go back to the previous."""
        if (directory := staged_in(record)) is None:
            return Recovered.PREVIOUS
        swap = Swap(directory, record.key)
        if not swap.is_prepared():
            return Recovered.PREVIOUS
        if swap.is_unfinished() and self._app.is_possible:
            await self._app.stop()
        side = await asyncio.to_thread(swap.recover)
        if record.facts.get("app_is_stopped"):
            try:
                await self._app.start()
            except ServiceError as failure:
                _log.warning("The app did not start.", action="recover", side=side.name, error=failure.text)
                if side is Side.IMPORTED:
                    await self._app.stop()
                    await asyncio.to_thread(swap.bring, Side.PREVIOUS)
                    side = Side.PREVIOUS
                    await self._app.start()
            record.save(app_is_stopped=False)
        return Recovered[side.name]

    async def _exchange(self, record: Record, target: Side, progress: Progress) -> None:
        if not self._app.is_possible:
            raise AppMustStopError(NO_APP_CONTROL)
        if (directory := staged_in(record)) is None:
            raise ToolFailedError("Nothing is staged on the volume.")
        swap = Swap(directory, record.key)
        step = Step.RESTORING if target is Side.IMPORTED else Step.UNDOING
        record.save(app_is_stopped=True)
        progress.step(step, "stopping the app")
        try:
            await self._app.stop()
            progress.step(step, "exchanging the data")
            await asyncio.to_thread(swap.bring, target)
        except ServiceError as failure:
            if swap.is_unfinished():
                raise UnsettledError from failure
            await self._start_again(record)
            raise
        progress.step(step, "starting the app")
        try:
            await self._app.start()
        except ServiceError as failure:
            try:
                await self._app.stop()
                await asyncio.to_thread(swap.bring, target.other)
            except ServiceError as second_failure:
                raise UnsettledError from second_failure
            ended = await self._start_again(record)
            data = "imported" if target is Side.IMPORTED else "previous"
            raise ToolFailedError(
                f"The app did not start with the {data} data, so the other is back in place{ended}: {failure.text}",
                next_step="See the app's own log for what it has against the data.",
            ) from failure
        record.save(app_is_stopped=False)

    async def _start_again(self, record: Record) -> str:
        """Start the app on the data that it had; what to add to an error's text."""
        try:
            await self._app.start()
        except ServiceError as failure:
            _log.warning("The app did not start again.", action="start_app", error=failure.text)
            return ", and it did not start with that either"
        record.save(app_is_stopped=False)
        return " and it was started again"


def staged_in(record: Record) -> Path | None:
    """The volume on which the import has its staging area; None when it has not come so far."""
    directory = record.facts.get("directory")
    return Path(directory) if isinstance(directory, str) else None
