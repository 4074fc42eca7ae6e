"""An export from the recipe to the caller: one task reads and hashes, another sends, one chunk between them.

A recipe may use cancel scopes and task groups around what it yields, so all of it runs in one task; the caller's pace
reaches it through a queue of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from agent.clock import Clock
from agent.progress import GAP_SECONDS
from agent.recipes.base import ExportOptions, Recipe, Step
from agent.states import Phase, Result
from agent.transfer_list import Transfer
from common.encoded_chunks import encoded_chunk
from common.errors import CancelledError
from common.frames import MAX_CHUNK_BYTES, RunningDigest
from common.headers import ArchiveHeader, Receipt
from mathison.data.v1 import transfer_pb2 as wire

OutgoingFrame = wire.Frame | bytes
"""Chunks come encoded already; the interceptor lets bytes out as they are."""


class ExportPipe:
    """Carries the frames of one export; `produce` and `deliver` run in different tasks."""

    def __init__(self, transfer: Transfer, clock: Clock, *, idle_seconds: float) -> None:
        self._transfer = transfer
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._frames: asyncio.Queue[OutgoingFrame | None] = asyncio.Queue()

    async def produce(self, recipe: Recipe, options: ExportOptions, *, made_by: str) -> None:
        """Run the recipe's export; returns when the end frame was taken.

        Raises:
            CancelledError: the caller took nothing for `idle_seconds`.
        """
        tracker = self._transfer.tracker
        async with recipe.export_data(options, tracker) as export:
            header = _completed(export.header, options, recipe=recipe.name, made_by=made_by, clock=self._clock)
            tracker.update(header=header)
            await self._pass_on(wire.Frame(header=header.to_proto()))
            digest = RunningDigest()
            async with aclosing(export.chunks) as chunks:
                async for chunk in chunks:
                    if tracker.phase is Phase.PREPARING:
                        tracker.step(Step.TRANSFERRING)
                    size = len(chunk)
                    pieces = _pieces(chunk)
                    del chunk  # so that there is one copy of it, not two
                    while pieces:
                        encoded, content = encoded_chunk(pieces.pop())
                        await digest.add(content)
                        del content
                        await self._until_taken()
                        self._frames.put_nowait(encoded)
                        del encoded
                    tracker.sent(size)
        # Only now: what the recipe still finds wrong while it closes has to come before the end frame.
        receipt = Receipt(
            size_bytes=digest.size_bytes,
            sha256=await digest.finish(),
            counts=export.counts,
            warnings=tuple(export.warnings),
            fingerprint=export.fingerprint,
        )
        await self._pass_on(wire.Frame(end=receipt.to_proto()))
        await self._until_taken()
        tracker.update(phase=Phase.DONE, note="", result=Result.SUCCEEDED, receipt=receipt, ended_at=self._clock.now())

    def close(self) -> None:
        """No more frames come; `deliver` ends once it has got to here."""
        self._frames.put_nowait(None)

    async def deliver(self) -> AsyncGenerator[OutgoingFrame, None]:
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
            is_between_header_and_end = isinstance(frame, bytes) or not frame.HasField("end")
            del frame  # a chunk, of which there would otherwise be two while the next is made
            self._frames.task_done()

    async def _pass_on(self, frame: OutgoingFrame) -> None:
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


def _pieces(chunk: bytes) -> list[bytes]:
    """What a recipe gave, never empty and never above the limit; the last first."""
    if 0 < len(chunk) <= MAX_CHUNK_BYTES:
        return [chunk]
    return [chunk[start : start + MAX_CHUNK_BYTES] for start in range(0, len(chunk), MAX_CHUNK_BYTES)][::-1]


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
