"""What recipes share whose app has to be down while its data is exchanged.

A running app keeps writing to the files that it has open, or writes what it remembers over what was imported. So the
exchange stands between a stop and a start, and whatever fails, app and data are brought back to where they were.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from agent.engines import tree
from agent.engines.places import require_same_directory
from agent.engines.swapping import Side
from agent.recipes import in_place
from agent.recipes.base import AppControl, Progress, Record, Recovered, Step, note_done
from agent.recipes.exchanges import Exchange, staged_in, volume_exchange
from agent.unsettled import UnsettledError
from common.errors import (
    AppMustStopError,
    NothingToUndoError,
    ServiceError,
    ToolFailedError,
    TransferNotFoundError,
)

_log = structlog.get_logger(__name__)

NO_APP_CONTROL = (
    "The app has to be stopped for an import, and the agent has no way to do that: its settings need "
    "`stop` and `start` in the table [app]."
)

_STOP_AND_START_SECONDS = 5.0
"""Of an app of the usual size; only the app's own commands know better."""
_ENTRY_SECONDS = 0.001
"""A rename out and one in, on a busy disk."""


def expected_swap_seconds(entries: int) -> float:
    """How long the app is likely to be down.

    Args:
        entries: at the top of both sides, which are moved one by one.
    """
    return _STOP_AND_START_SECONDS + entries * _ENTRY_SECONDS


class StoppedExchange:
    """A recipe's restore, undo, discard and recover, for data that is exchanged while its app is down.

    The record holds here `app_is_stopped`, what `in_place` notes, and what the exchange is found by, see
    `exchanges.volume_exchange`.
    """

    def __init__(
        self,
        app: AppControl,
        volume: Path,
        exchange_of: Callable[[Record], Awaitable[Exchange | None]] | None = None,
    ) -> None:
        """
        Args:
            volume: where the settings have it now; on another one, nothing is exchanged that was staged there.
            exchange_of: what an import staged, None when it has not come so far; not given: a volume's content.
        """
        self._app = app
        self._volume = volume
        self._exchange_of = exchange_of or (lambda record: volume_exchange(record, volume))

    async def restore(self, record: Record, progress: Progress) -> None:
        """Bring the imported data in place, or leave everything as it was.

        Raises:
            TransferNotFoundError: somebody removed what was staged.
            AppUnavailableError: the app has moved since.
        """
        self._require_here(record)
        exchange = await self._exchange_of(record)
        if exchange is None or await exchange.kept() is not Side.IMPORTED:
            raise TransferNotFoundError("What was staged is gone.", next_step="Import it again.")
        await self._exchange(exchange, record, Side.IMPORTED, progress)
        progress.step(Step.RESTORING, "counting what is kept; the app runs")
        await self._note_kept(record)

    async def undo(self, record: Record, progress: Progress) -> None:
        """Bring the previous data in place and drop the imported.

        Raises:
            NothingToUndoError: somebody removed the previous data, or some of it.
            AppUnavailableError: the app has moved since.
        """
        self._require_here(record)
        exchange = await self._exchange_of(record)
        if exchange is None or await exchange.kept() is not Side.PREVIOUS:
            raise NothingToUndoError("The previous data is gone, or some of it.", next_step=self._what_is_left(record))
        await self._exchange(exchange, record, Side.PREVIOUS, progress)
        progress.step(Step.UNDOING, "removing the imported data; the app runs")
        try:
            await self.discard(record)
        except ServiceError as failure:
            raise UnsettledError from failure

    async def discard(self, record: Record) -> None:
        """Drop the side that is not in place."""
        # What is gone already may be what an interrupted drop took, so nothing is concluded from it, and nothing moved.
        if exchange := await self._exchange_of(record):
            await exchange.drop()

    async def recover(self, record: Record) -> Recovered:
        """Finish an interrupted exchange; when the app does not start with imported data, go back to the previous.

        Raises:
            InternalError: what would tell how far it came is gone; the app was not started.
        """
        exchange = await self._exchange_of(record)
        if exchange is None:
            return Recovered.PREVIOUS
        if await exchange.is_unfinished() and self._app.is_possible:
            await self._app.stop()
        # Nothing is there once it was dropped, at the end of an undo; or where somebody else removed it.
        side = await exchange.recover() or in_place.noted(record)
        if record.facts.get("app_is_stopped"):
            try:
                await self._app.start()
            except ServiceError as failure:
                _log.warning("The app did not start.", action="recover", side=side.name, error=failure.text)
                if side is Side.PREVIOUS or await exchange.kept() is not Side.PREVIOUS:
                    raise
                await self._app.stop()
                await _bring(exchange, record, Side.PREVIOUS)
                side = Side.PREVIOUS
                await self._app.start()
            note_done(record, app_is_stopped=False)
        if side is Side.IMPORTED:
            await self._note_kept(record)
        return Recovered[side.name]

    async def _note_kept(self, record: Record) -> None:
        """After the app's start, since it may take seconds; without it, an undo misses only what was at the top."""
        try:
            if files := await volume_exchange(record, self._volume):
                await files.note_kept()
        except ServiceError as failure:
            _log.warning("What is kept was not counted.", action="note_kept", error=failure.text)

    def _what_is_left(self, record: Record) -> str:
        if (directory := staged_in(record, self._volume)) is None:
            return ""
        previous = tree.StagingArea(directory, record.key).new.with_name(Side.PREVIOUS.value)
        if not previous.is_dir():
            return ""
        return (
            f"Files that are left of it lie in {previous} until the import is confirmed, replaced or expires. "
            "An export from before can be imported."
        )

    def _require_here(self, record: Record) -> None:
        if directory := staged_in(record, self._volume):
            require_same_directory(directory, self._volume)

    async def _exchange(self, exchange: Exchange, record: Record, target: Side, progress: Progress) -> None:
        if not self._app.is_possible:
            raise AppMustStopError(NO_APP_CONTROL)
        step = Step.RESTORING if target is Side.IMPORTED else Step.UNDOING
        in_place.begin(record, target, app_is_stopped=True)
        progress.step(step, "stopping the app")
        try:
            await self._app.stop()
            progress.step(step, "exchanging the data")
            await _bring(exchange, record, target)
        except ServiceError as failure:
            if await _may_be_unfinished(exchange):
                raise UnsettledError from failure
            in_place.settle(record, target.other)
            if not await self._start_again(record):
                failure.text = f"{failure.text.rstrip(' .')}. The app could not be started again."
                failure.args = (failure.text,)
            raise
        progress.step(step, "starting the app")
        try:
            await self._app.start()
        except ServiceError as failure:
            try:
                await self._app.stop()
                await _bring(exchange, record, target.other)
            except ServiceError as second_failure:
                raise UnsettledError from second_failure
            is_running = await self._start_again(record)
            ended = " and it was started again" if is_running else ", and it did not start with that either"
            data = "imported" if target is Side.IMPORTED else "previous"
            error = ToolFailedError(
                f"The app did not start with the {data} data, so the other is back in place{ended}: {failure.text}",
                next_step="See the app's own log for what it has against the data.",
            )
            error.says_what_changed = True
            raise error from failure
        note_done(record, app_is_stopped=False)

    async def _start_again(self, record: Record) -> bool:
        """Start the app on the data that it had; whether that was possible."""
        try:
            await self._app.start()
        except ServiceError as failure:
            _log.warning("The app did not start again.", action="start_app", error=failure.text)
            return False
        note_done(record, app_is_stopped=False)
        return True


async def _bring(exchange: Exchange, record: Record, target: Side) -> None:
    """As `Exchange.bring`, noted before and after."""
    in_place.leave_open(record)
    await exchange.bring(target)
    in_place.settle(record, target)


async def _may_be_unfinished(exchange: Exchange) -> bool:
    """Whether an exchange was interrupted, or nobody can tell, since a server is down."""
    try:
        return await exchange.is_unfinished()
    except ServiceError:
        return True
