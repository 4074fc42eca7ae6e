"""What recipes share whose app has to be down while its directory's content is exchanged.

A running app keeps writing to the files that it has open, or writes what it remembers over what was imported. So the
exchange stands between a stop and a start, and whatever fails, app and data are brought back to where they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Protocol

import structlog

from agent.engines import tree
from agent.engines.places import require_same_directory
from agent.engines.swapping import Side, Swap
from agent.recipes import in_place
from agent.recipes.base import AppControl, Progress, Record, Recovered, Step, note_done
from agent.unsettled import UnsettledError
from common.errors import (
    AppMustStopError,
    InternalError,
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


class Exchange(Protocol):
    """Two sides of an app's data, one of them in place. Each call may be repeated; none starts or stops the app."""

    async def kept(self) -> Side | None:
        """Whose data is kept beside what is in place; None: nobody's, for it was never staged, or was dropped, or
        somebody removed it. None as well while it is unfinished.
        """

    async def is_unfinished(self) -> bool:
        """Whether an exchange was interrupted, so that `recover` has something to do."""

    async def bring(self, target: Side) -> None:
        """Put a side in place and keep the other; what fails leaves it as it was, or unfinished."""

    async def recover(self) -> Side | None:
        """Finish what was interrupted and say which side is in place, although what is kept is not whole; None when
        nothing of the import is there that tells.
        """

    async def drop(self) -> None:
        """Let go of the side that is not in place. Moves nothing, however much of it is gone already.

        Raises:
            UnknownVersionError, InternalError: files are exchanged half, or nobody can tell; nothing was dropped.
        """


class StoppedExchange:
    """A recipe's restore, undo, discard and recover, for data that is exchanged while its app is down.

    The record holds here `app_is_stopped`, what `in_place` notes, and what the exchange is found by, see
    `volume_exchange`.
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


class VolumeExchange:
    """Implements Exchange for what was staged in a `tree.StagingArea`.

    Args:
        until_released: returns when nothing has the app's files open any more, which may be after the app's stop.
    """

    def __init__(
        self,
        directory: Path,
        key: str,
        *,
        names: Collection[str] | None = None,
        until_released: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._swap = Swap(directory, key, names=names)
        self._area = tree.StagingArea(directory, key)
        self._until_released = until_released

    async def note_staged(self) -> None:
        """As `Swap.note_staged`."""
        await asyncio.to_thread(self._swap.note_staged)

    async def note_kept(self) -> None:
        """As `Swap.note_kept`."""
        await asyncio.to_thread(self._swap.note_kept)

    async def kept(self) -> Side | None:
        return await asyncio.to_thread(self._swap.kept)

    async def is_unfinished(self) -> bool:
        return await asyncio.to_thread(self._swap.is_unfinished)

    async def bring(self, target: Side) -> None:
        if self._until_released:
            await self._until_released()
        await asyncio.to_thread(self._swap.bring, target)

    async def recover(self) -> Side | None:
        if self._until_released and await self.is_unfinished():
            await self._until_released()
        return await asyncio.to_thread(self._swap.recover)

    async def drop(self) -> None:
        if await self.is_unfinished():
            raise InternalError("An exchange of the volume's data was interrupted and is not finished yet.")
        await asyncio.to_thread(self._area.remove)


class Together:
    """Implements Exchange for two that have to be on the same side, for example a volume and a database.

    Args:
        decisive: changes in one step; after a crash the other follows it.
        follower: files, see `VolumeExchange`.
    """

    def __init__(self, decisive: Exchange, follower: Exchange) -> None:
        self._decisive = decisive
        self._follower = follower

    async def kept(self) -> Side | None:
        side = await self._decisive.kept()
        return side if side is await self._follower.kept() else None

    async def is_unfinished(self) -> bool:
        if await self._decisive.is_unfinished() or await self._follower.is_unfinished():
            return True
        return {await self._decisive.kept(), await self._follower.kept()} == set(Side)

    async def bring(self, target: Side) -> None:
        await self._follower.bring(target)
        try:
            await self._decisive.bring(target)
        except ServiceError:
            await self._follower.bring(target.other)
            raise

    async def recover(self) -> Side | None:
        side, following = await self._decisive.recover(), await self._follower.recover()
        if side is None or await self._decisive.kept() is None:
            return following
        if following not in (side, None):
            await self._follower.bring(side)
        return side

    async def drop(self) -> None:
        # First what may refuse.
        await self._follower.drop()
        await self._decisive.drop()


async def volume_exchange(
    record: Record, volume: Path, *, until_released: Callable[[], Awaitable[None]] | None = None
) -> VolumeExchange | None:
    """The usual one: the record holds `directory`, the volume, from before the area is made; and `names` when only
    these entries at its top are exchanged and the others stay.

    Args:
        volume: where the settings have it now.
    """
    if (directory := staged_in(record, volume)) is None:
        return None
    names = record.facts.get("names")
    names = names if isinstance(names, list) else None
    return VolumeExchange(directory, record.key, names=names, until_released=until_released)


async def note_staged(record: Record, volume: Path) -> None:
    """At the end of staging on a volume; raises as `Swap.note_kept`."""
    if exchange := await volume_exchange(record, volume):
        await exchange.note_staged()


def staged_in(record: Record, volume: Path) -> Path | None:
    """The directory in which the import has its staging area; None when it has not come so far.

    Args:
        volume: where the settings have it now. The area is there where somebody moved the directory with all in it.
    """
    directory = record.facts.get("directory")
    if not isinstance(directory, str):
        return None
    then = Path(directory)
    has_moved = not tree.StagingArea(then, record.key).exists and tree.StagingArea(volume, record.key).exists
    return volume if has_moved else then
