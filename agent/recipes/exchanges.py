"""What an import exchanges: the content of a volume, or two things that have to be on the same side.

Who stops and starts the app around it: `stopped_app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Protocol

from agent.engines import tree
from agent.engines.swapping import Side, Swap
from agent.recipes.base import Record
from common.errors import InternalError, ServiceError


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
