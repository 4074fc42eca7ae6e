"""An export from the recipe to the caller: one task reads and hashes, another sends, one chunk between them.

A recipe may use cancel scopes and task groups around what it yields, so all of it runs in one task; the caller's pace
reaches it through a queue of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec

from agent.clock import Clock
from agent.progress import GAP_SECONDS, Tracker
from agent.recipes.base import ExportOptions, Recipe, Step
from agent.states import Phase, Result
from agent.transfer_list import Transfer
from common.errors import CancelledError
from common.frames import send_frames
from common.headers import ArchiveHeader, Receipt
from mathison.data.v1 import transfer_pb2 as wire


class ExportPipe:
    """Carries the frames of one export; `produce` and `deliver` run in different tasks."""

    def __init__(self, transfer: Transfer, clock: Clock, *, idle_seconds: float) -> None:
        self._transfer = transfer
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._frames: asyncio.Queue[wire.Frame | None] = asyncio.Queue()

    async def produce(self, recipe: Recipe, options: ExportOptions, *, made_by: str) -> None:
        """Run the recipe's export; returns when the end frame was taken.

        Raises:
            CancelledError: the caller took nothing for `idle_seconds`.
        """
        tracker = self._transfer.tracker
        async with recipe.export_data(options, tracker) as export:
            header = _completed(export.header, options, recipe=recipe.name, made_by=made_by, clock=self._clock)
            tracker.update(header=header)
            async with (
                aclosing(export.chunks),
                aclosing(_counted(export.chunks, tracker)) as chunks,
                aclosing(send_frames(header, chunks, lambda: (export.counts, export.warnings))) as frames,
            ):
                end = wire.Frame()
                async for frame in frames:
                    if frame.HasField("end"):
                        end = frame
                    else:
                        await self._pass_on(frame)
        # Only now: what the recipe still finds wrong while it closes has to come before it.
        await self._pass_on(end)
        await self._until_taken()
        receipt = Receipt.from_proto(end.end)
        tracker.update(phase=Phase.DONE, note="", result=Result.SUCCEEDED, receipt=receipt, ended_at=self._clock.now())

    def close(self) -> None:
        """No more frames come; `deliver` ends once it has got to here."""
        self._frames.put_nowait(None)

    async def deliver(self) -> AsyncGenerator[wire.Frame, None]:
        """The frames, with progress among them; each counts as taken when the next is asked for."""
        loop = asyncio.get_running_loop()
        told_at = loop.time()
        is_between_header_and_end = False
        while True:
            if is_between_header_and_end and loop.time() - told_at >= GAP_SECONDS:
                told_at = loop.time()
                yield wire.Frame(progress=self._transfer.state.progress_to_proto())
            try:
                async with asyncio.timeout(GAP_SECONDS):
                    frame = await self._frames.get()
            except TimeoutError:
                continue
            if frame is None:
                return
            yield frame
            is_between_header_and_end = not frame.HasField("end")
            self._frames.task_done()

    async def _pass_on(self, frame: wire.Frame) -> None:
        await self._until_taken()
        self._frames.put_nowait(frame)

    async def _until_taken(self) -> None:
        """Wait until the caller has taken what was passed on before."""
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._frames.join()
        except TimeoutError:
            raise CancelledError(
                f"The caller took nothing for {self._idle_seconds:.0f} seconds.", next_step="Start the export again."
            ) from None


async def _counted(chunks: AsyncIterator[bytes], tracker: Tracker) -> AsyncGenerator[bytes, None]:
    """Count what is passed on. (Asking a frame for its chunk would copy it.)"""
    async for chunk in chunks:
        if tracker.phase is Phase.PREPARING:
            tracker.step(Step.TRANSFERRING)
        yield chunk
        tracker.sent(len(chunk))


def _completed(
    header: ArchiveHeader, options: ExportOptions, *, recipe: str, made_by: str, clock: Clock
) -> ArchiveHeader:
    """The recipe's header, with what every archive has where the recipe left it out."""
    return msgspec.structs.replace(
        header,
        recipe=header.recipe or recipe,
        format=header.format or options.format.name,
        media_type=header.media_type or options.format.media_type,
        file_name=header.file_name or options.file_name,
        app_id=header.app_id or options.app_id,
        made_by=header.made_by or made_by,
        created_at=header.created_at or clock.now(),
    )
