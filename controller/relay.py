"""Passes one caller's archive to or from one agent and stores nothing.

Each frame is checked before it is passed on, and the end frame only when it agrees with all that went before: whoever
gets it through us may believe it. Nothing is taken from one side before the other has taken what came earlier.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc

from common.errors import (
    AgentUnavailableError,
    CancelledError,
    DigestMismatchError,
    InternalError,
    InvalidRequestError,
    LimitExceededError,
    ServiceError,
    UploadIncompleteError,
    unchanged,
)
from common.frames import MAX_CHUNK_BYTES, RunningDigest
from common.headers import Receipt
from controller.agents import Agent, error_of
from controller.raw_frames import RawFrame, frame_in_request
from mathison.data.v1 import agent_pb2 as wire
from mathison.data.v1 import transfer_pb2
from mathison.data.v1.transfer_pb2 import TransferState

FIRST_WORD_SECONDS = 1.0
"""How long the payload waits for an agent to refuse, so that a caller who asked first (`Expect: 100-continue`) need not
send it. An agent that says nothing gets it then."""

RECALL_SECONDS = 5.0
"""How long an agent is asked why a connection broke; one that is gone refuses at once."""

TIDYING_SECONDS = 10.0
"""How long an upload's error waits for the agent to be free again, so that the caller's next import is not refused."""

Publish = Callable[[TransferState], None]

if TYPE_CHECKING:
    from controller.agents import StageCall


class StreamCheck:
    """Order, size and digest of one stream of frames."""

    def __init__(self, *, limit_bytes: int = sys.maxsize) -> None:
        self.receipt: Receipt | None = None
        self._limit_bytes = limit_bytes
        self._is_open = False
        self._digest = RunningDigest()

    async def see(self, frame: RawFrame) -> None:
        """Raises InvalidRequestError, LimitExceededError or DigestMismatchError for a frame that must not go on."""
        match frame.kind:
            case "header" if not self._is_open:
                self._is_open = True
            case "chunk" if self._is_open and self.receipt is None:
                if not 0 < len(frame.chunk) <= MAX_CHUNK_BYTES:
                    raise InvalidRequestError(f"A chunk has 1 to {MAX_CHUNK_BYTES} bytes, not {len(frame.chunk)}.")
                if self._digest.size_bytes + len(frame.chunk) > self._limit_bytes:
                    raise over_limit(self._limit_bytes)
                await self._digest.add(frame.chunk)
            case "progress" if self._is_open and self.receipt is None:
                pass
            case "end" if self._is_open and self.receipt is None and frame.message is not None:
                receipt = Receipt.from_proto(frame.message.end)
                await self._digest.check(receipt)
                self.receipt = receipt
            case _:
                raise InvalidRequestError("The frames are out of order: a header, chunks and progress, then the end.")

    def finish(self) -> Receipt:
        """The checked end frame; UploadIncompleteError when there was none."""
        if self.receipt is None:
            raise UploadIncompleteError(
                f"The stream stopped after {self._digest.size_bytes} bytes without saying that it was whole.",
                next_step="Send the file again.",
            )
        return self.receipt


def over_limit(limit_bytes: int) -> LimitExceededError:
    """The refusal of an upload that the controller itself does not pass on."""
    return LimitExceededError(
        f"The upload is larger than the controller's limit of {limit_bytes} bytes.",
        next_step="Raise limits.upload_bytes in the controller's settings, or do not import it.",
    )


async def export(agent: Agent, request: wire.ExportRequest) -> AsyncGenerator[RawFrame, None]:
    """An archive's frames, each checked; the end frame comes only after the agent's call ended well, too.

    Raises:
        AgentUnavailableError: the agent stopped in the middle.
        DigestMismatchError: what arrived is not what the agent sent.
    """
    check = StreamCheck()
    end: RawFrame | None = None
    async with aclosing(agent.export(request)) as messages:
        async for message in messages:
            try:
                frame = RawFrame.parse(message)
                await check.see(frame)
            except InvalidRequestError as broken:
                raise InternalError(f"{agent.peer} does not keep to the protocol.") from broken
            except DigestMismatchError as broken:
                raise DigestMismatchError(f"{agent.peer}: {broken.text}", next_step="Export again.") from broken
            if frame.kind == "end":
                end = frame
            else:
                yield frame
    if end is None:
        raise AgentUnavailableError(f"{agent.peer} stopped in the middle of the archive.", next_step="Export again.")
    yield end


async def checked_upload(requests: AsyncIterator[bytes], *, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    """The frames of ImportAppRequests, each checked, as they are passed on to Stage.

    Raises:
        UploadIncompleteError: the caller stopped before its end frame.
        LimitExceededError, DigestMismatchError, InvalidRequestError: as StreamCheck.
    """
    check = StreamCheck(limit_bytes=limit_bytes)
    async for encoded in requests:
        await check.see(frame_in_request(encoded))
        yield encoded
        if check.receipt is not None:
            return
    check.finish()


async def stage(
    agent: Agent, start: wire.StageStart, frames: AsyncGenerator[bytes, None], *, publish: Publish
) -> TransferState:
    """Pass an upload to an agent until it is staged, and return its last state.

    Whatever ends this early, an error of the caller's stream, the agent's refusal, a cancellation, ends the agent's
    call without an end frame, so nothing is kept there.

    Args:
        frames: encoded StageRequests, checked by whoever made them; closed here.
        publish: gets each state that the agent tells.
    Raises:
        ServiceError: what the caller's stream or the agent raised; its text says that nothing was changed.
    """
    with unchanged():
        return await _pass_on(agent, start, frames, publish)


async def _pass_on(
    agent: Agent, start: wire.StageStart, frames: AsyncGenerator[bytes, None], publish: Publish
) -> TransferState:
    call = agent.stage()
    has_spoken = asyncio.Event()
    receiving = asyncio.create_task(_receive(agent, call, has_spoken, publish), name=f"states from {agent.peer}")
    sending = asyncio.create_task(_send(call, start, frames, has_spoken), name=f"upload to {agent.peer}")
    try:
        await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not sending.cancelled() and sending.exception() is not None:
            call.cancel()
            await _until_over(agent, start.transfer_id)
            sending.result()
        return await receiving
    except AgentUnavailableError as lost:
        meant = await _what_it_meant(agent, start.transfer_id)
        if meant is None:
            raise
        raise meant from lost
    finally:
        call.cancel()
        receiving.cancel()
        sending.cancel()
        await asyncio.gather(receiving, sending, return_exceptions=True)


async def _what_it_meant(agent: Agent, transfer_id: str) -> ServiceError | None:
    """Why the agent refused an upload, as it remembers; None when it did not or does not answer.

    A write that fails because the agent has refused makes grpc.aio replace the status that says why by one of its own
    (grpcio 1.85.1, grpc/grpc#36066), which reads like a lost connection.
    """
    try:
        async with asyncio.timeout(RECALL_SECONDS), aclosing(agent.watch(transfer_id)) as states:
            async for state in states:
                meant = error_of(state)
                if meant is not None:
                    # It met the end of a connection that was lost, too.
                    return None if isinstance(meant, UploadIncompleteError | CancelledError) else meant
    except (ServiceError, TimeoutError):
        pass
    return None


async def _until_over(agent: Agent, transfer_id: str) -> None:
    """Return once the agent has dropped what came of an upload that has failed, or after a while."""
    try:
        async with asyncio.timeout(TIDYING_SECONDS), aclosing(agent.watch(transfer_id)) as states:
            async for state in states:
                if state.progress.phase == transfer_pb2.PHASE_STAGED:
                    return  # by an earlier upload under the same id
    except (ServiceError, TimeoutError):
        pass


async def _receive(agent: Agent, call: StageCall, has_spoken: asyncio.Event, publish: Publish) -> TransferState:
    last: TransferState | None = None
    try:
        async for event in call:
            has_spoken.set()
            last = event.state
            publish(last)
    except grpc.aio.AioRpcError as failed:
        raise agent.error(failed) from failed
    if last is None:
        raise AgentUnavailableError(f"{agent.peer} ended the import without a word.", next_step="Import again.")
    return last


async def _send(
    call: StageCall, start: wire.StageStart, frames: AsyncGenerator[bytes, None], has_spoken: asyncio.Event
) -> None:
    """Raises only what the caller's stream raises; what the agent says is the receiver's to tell."""
    async with aclosing(frames):
        try:
            await call.write(wire.StageRequest(start=start).SerializeToString())
            try:
                async with asyncio.timeout(FIRST_WORD_SECONDS):
                    await has_spoken.wait()
            except TimeoutError:
                pass
            async for frame in frames:
                await call.write(frame)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call has ended
