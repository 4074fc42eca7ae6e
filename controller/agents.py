"""A typed client for one agent over mutual TLS.

Each operation dials a connection of its own (3 ms on one machine): an export that a slow caller holds up shares its
flow control with nobody, an agent that was away is reached at once instead of after a back-off, and a renewed
certificate needs no old channels to be wound up.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from common.credentials import TARGET_NAME_OPTION, Identity, agent_name
from common.errors import NOTHING_CHANGED, AgentUnavailableError, ServiceError, make_error, say_unchanged
from common.status import error_from_call
from controller.buffers import GRPC_OPTIONS
from controller.discovery.inventory import App
from controller.strangers import stranger_at
from mathison.data.v1 import agent_pb2 as wire
from mathison.data.v1 import agent_pb2_grpc
from mathison.data.v1.transfer_pb2 import TransferEvent, TransferState

ANSWER_SECONDS = 20.0
"""Deadline of calls with one answer. Above what an agent gives an app that does not answer."""
DROPPING_SECONDS = 3600.0
"""Of calls that return once what an import holds is removed: a volume's million files take minutes. Keepalive notices
an agent that has gone."""
FINGERPRINT_SECONDS = 3600.0
"""A fingerprint reads all of an app's content."""
_SERVICE = "/mathison.data.v1.DataAgent/"
_Message = TypeVar("_Message")

if TYPE_CHECKING:
    ExportCallable = grpc.aio.UnaryStreamMultiCallable[wire.ExportRequest, bytes]
    StageCallable = grpc.aio.StreamStreamMultiCallable[bytes, TransferEvent]
    StageCall = grpc.aio.StreamStreamCall[bytes, TransferEvent]


class Agents:
    """Dials the agents of apps as the controller."""

    def __init__(self, identity: Callable[[], Identity], *, keepalive_seconds: float) -> None:
        self._identity = identity
        self._keepalive_milliseconds = round(keepalive_seconds * 1000)

    @asynccontextmanager
    async def dial(self, app: App) -> AsyncIterator[Agent]:
        """A connection to an app's agent; its calls are cancelled when the context is left."""
        options = [
            *GRPC_OPTIONS,
            (TARGET_NAME_OPTION, agent_name(app.id)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", self._keepalive_milliseconds),
            ("grpc.keepalive_timeout_ms", self._keepalive_milliseconds),
            ("grpc.http2.ping_timeout_ms", self._keepalive_milliseconds),  # else 60 s, whatever keepalive says
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.max_receive_message_length", 16 << 20),  # 100 transfers with the largest headers allowed
        ]
        credentials = self._identity().channel_credentials()
        async with grpc.aio.secure_channel(app.agent, credentials, options) as channel:
            try:
                yield Agent(channel, peer=f"The agent of {app.id}")
            except AgentUnavailableError as lost:
                await self._name_stranger(app, lost)
                raise

    async def _name_stranger(self, app: App, lost: AgentUnavailableError) -> None:
        """Add to an error whether another than the agent answers at its address."""
        cause = lost.__cause__
        if not isinstance(cause, grpc.aio.AioRpcError) or cause.code() is not grpc.StatusCode.UNAVAILABLE:
            return  # connected, or waited for in vain
        if not lost.is_refusal and (stranger := await stranger_at(app, self._identity().authorities)):
            unchanged = lost.text.endswith(NOTHING_CHANGED)
            lost.text = f"{lost.text.removesuffix(NOTHING_CHANGED).rstrip()} At its address {stranger}."
            lost.args = (lost.text,)
            if unchanged:
                say_unchanged(lost)
            lost.next_step = f"Correct the address of {app.id} in the controller's settings, or who listens there."


class Agent:
    """The calls of DataAgent. A failed one raises the ServiceError that the agent meant, or AgentUnavailableError."""

    def __init__(self, channel: grpc.aio.Channel, *, peer: str) -> None:
        self.peer = peer
        """For texts: "The agent of shop.db"."""
        self._stub = agent_pb2_grpc.DataAgentStub(channel)
        self._export: ExportCallable = channel.unary_stream(_SERVICE + "Export", wire.ExportRequest.SerializeToString)
        self._stage: StageCallable = channel.stream_stream(
            _SERVICE + "Stage", response_deserializer=TransferEvent.FromString
        )

    async def reach(self) -> None:
        """Raises AgentUnavailableError when the agent does not answer. What was to be asked next has not begun then,
        which the failure of that itself would leave open."""
        await self.transfers()

    async def describe(self, *, timeout: float = ANSWER_SECONDS) -> wire.DescribeResponse:
        return await self._answer(self._stub.Describe(wire.DescribeRequest(), timeout=timeout))

    async def discard(self, transfer_id: str) -> bool:
        request = wire.DiscardRequest(transfer_id=transfer_id)
        return (await self._answer(self._stub.Discard(request, timeout=DROPPING_SECONDS))).discarded

    async def cancel(self, transfer_id: str) -> TransferState:
        request = wire.CancelRequest(transfer_id=transfer_id)
        return (await self._answer(self._stub.Cancel(request, timeout=DROPPING_SECONDS))).state

    async def transfers(self) -> Sequence[TransferState]:
        request = wire.ListTransfersRequest()
        return (await self._answer(self._stub.ListTransfers(request, timeout=ANSWER_SECONDS))).transfers

    async def transfer(self, transfer_id: str) -> TransferState:
        """The state of one transfer now; TransferNotFoundError."""
        call = self._stub.WatchTransfer(wire.WatchTransferRequest(transfer_id=transfer_id), timeout=ANSWER_SECONDS)
        async with aclosing(self._states(call)) as states:
            async for state in states:
                return state
        raise AgentUnavailableError(f"{self.peer} said nothing about the transfer.")

    async def fingerprint(self) -> wire.FingerprintResponse:
        return await self._answer(self._stub.Fingerprint(wire.FingerprintRequest(), timeout=FINGERPRINT_SECONDS))

    def export(self, request: wire.ExportRequest) -> AsyncGenerator[bytes, None]:
        """Frames as they lie on the wire."""
        return self._messages(self._export(request))

    def stage(self) -> StageCall:
        """A call to write encoded StageRequests to; `relay.stage` does."""
        return self._stage()

    def restore(self, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        return self._states(self._stub.Restore(wire.RestoreRequest(transfer_id=transfer_id)))

    def undo(self, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        return self._states(self._stub.Undo(wire.UndoRequest(transfer_id=transfer_id)))

    def watch(self, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        return self._states(self._stub.WatchTransfer(wire.WatchTransferRequest(transfer_id=transfer_id)))

    def error(self, failed: grpc.aio.AioRpcError) -> ServiceError:
        return error_from_call(failed, peer=self.peer)

    async def _answer(self, call: Awaitable[_Message]) -> _Message:
        try:
            return await call
        except grpc.aio.AioRpcError as failed:
            raise self.error(failed) from failed

    async def _messages(self, call: grpc.aio.UnaryStreamCall[Any, _Message]) -> AsyncGenerator[_Message, None]:
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as failed:
            raise self.error(failed) from failed
        finally:
            call.cancel()

    async def _states(self, call: grpc.aio.UnaryStreamCall[Any, TransferEvent]) -> AsyncGenerator[TransferState, None]:
        async with aclosing(self._messages(call)) as events:
            async for event in events:
                yield event.state


def error_of(state: TransferState) -> ServiceError | None:
    """What a transfer failed with; None when it did not."""
    failure = state.error
    return make_error(failure.reason, failure.message, next_step=failure.next_step) if failure.reason else None
