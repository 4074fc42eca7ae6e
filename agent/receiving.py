"""An upload as it comes in: its limits, its pace, and that all of it came.

The one fact to know: a format may end before the file does, and only the end frame says that a file is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

from agent.progress import Tracker
from agent.recipes.base import Step, Upload
from agent.states import Phase
from common.errors import LimitExceededError, UploadIncompleteError
from common.frames import FrameReceiver, IncomingFrame


@asynccontextmanager
async def opened(
    frames: AsyncIterator[IncomingFrame], tracker: Tracker, *, limit_bytes: int, idle_seconds: float
) -> AsyncIterator[FrameReceiver]:
    """An upload of which the header has come, which the tracker then knows.

    Raises:
        LimitExceededError: it says to be larger than the limit.
        UploadIncompleteError, InvalidRequestError: as `unless_idle` and FrameReceiver.
    """
    async with aclosing(unless_idle(frames, idle_seconds)) as patient_frames:
        receiver = FrameReceiver(patient_frames, limit_bytes=limit_bytes)
        header = await receiver.open()
        if header.size_bytes > limit_bytes:
            raise LimitExceededError(f"The archive has {header.size_bytes} bytes; the limit is {limit_bytes}.")
        tracker.expect(header.size_bytes)
        tracker.update(header=header)
        yield receiver


@asynccontextmanager
async def received(receiver: FrameReceiver, tracker: Tracker, options: Mapping[str, str]) -> AsyncIterator[Upload]:
    """The upload for a recipe; what that leaves of it is received as well, so that it is whole after the block.

    Raises:
        UploadIncompleteError, DigestMismatchError, LimitExceededError: as FrameReceiver.
    """
    async with aclosing(receiver.chunks()) as chunks, aclosing(_counted(chunks, tracker)) as counted:
        yield Upload(header=receiver.header, chunks=counted, options=options)
        async for _ in counted:
            pass


async def unless_idle(frames: AsyncIterator[IncomingFrame], seconds: float) -> AsyncGenerator[IncomingFrame, None]:
    """The frames; UploadIncompleteError when the caller sends nothing for too long, which would block all others."""
    while True:
        try:
            async with asyncio.timeout(seconds):
                frame = await anext(frames)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UploadIncompleteError(
                f"The caller sent nothing for {seconds:.0f} seconds.", next_step="Send the file again."
            ) from None
        yield frame
        del frame  # a chunk, of which there would otherwise be two while the next is waited for


class ReceivingProgress:
    """What a recipe may say during an import; the bytes received are counted where they arrive."""

    def __init__(self, tracker: Tracker) -> None:
        self.step = tracker.step
        self.expect = tracker.expect

    def read(self, size_bytes: int) -> None:
        pass


async def _counted(chunks: AsyncIterator[bytes], tracker: Tracker) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        if tracker.phase is Phase.PREPARING:
            tracker.step(Step.TRANSFERRING)
        tracker.read(len(chunk))
        yield chunk
        del chunk
    if tracker.phase is Phase.TRANSFERRING:
        tracker.step(Step.VERIFYING)
