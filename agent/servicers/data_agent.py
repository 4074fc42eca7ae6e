"""DataAgent: requests checked and handed to `agent.transfers`, states and frames handed back.

Stage takes its messages as bytes, so `add_to` registers it without the generated deserializer: of a chunk in a message
of protobuf there would be two copies at a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from agent.interceptors import Context
from agent.recipes.base import Recipe
from agent.transfers import Transfers
from common.encoded_chunks import content_of_field_2
from common.errors import InvalidRequestError
from common.frames import IncomingFrame
from common.headers import MOST_COUNTED, MOST_ENTRIES, MOST_NAME_CHARACTERS, MOST_VALUE_CHARACTERS
from common.version import VERSION
from mathison.data.v1 import agent_pb2 as messages
from mathison.data.v1 import agent_pb2_grpc, transfer_pb2

SERVICE = "mathison.data.v1.DataAgent"


class DataAgentServicer(agent_pb2_grpc.DataAgentServicer):
    """One app's data out and in; what each call does is in agent.proto."""

    def __init__(self, transfers: Transfers, recipe: Recipe, *, app_id: str, started_at: dt.datetime) -> None:
        self._transfers = transfers
        self._recipe = recipe
        self._app_id = app_id
        self._started_at = started_at

    def add_to(self, server: grpc.aio.Server) -> None:
        agent_pb2_grpc.add_DataAgentServicer_to_server(self, server)
        stage: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self.Stage, response_serializer=transfer_pb2.TransferEvent.SerializeToString
        )
        server.add_registered_method_handlers(SERVICE, {"Stage": stage})  # takes the place of the one just added

    async def Describe(self, request: messages.DescribeRequest, context: Context) -> messages.DescribeResponse:
        overview = await self._transfers.overview()
        about = overview.description
        response = messages.DescribeResponse(
            app_id=self._app_id,
            recipe=self._recipe.name,
            data_export_description=self._recipe.data_export_description,
            engine=about.engine,
            engine_version=about.engine_version,
            export_formats=[
                messages.FormatDescription(
                    name=found.name, media_type=found.media_type, suffix=found.suffix, description=found.description
                )
                for found in self._recipe.export_formats
            ],
            import_formats=self._recipe.import_formats,
            can_export=about.can_export.is_possible,
            export_obstacle=about.can_export.obstacle,
            can_import=about.can_import.is_possible,
            import_obstacle=about.can_import.obstacle,
            estimated_bytes=about.estimated_bytes,
            import_needs_app_stop=about.import_needs_app_stop,
            can_undo=about.can_undo,
            warnings=about.warnings,
            agent_version=VERSION,
            details=about.details,
        )
        response.agent_started_at.FromDatetime(self._started_at)
        if overview.running is not None:
            response.running.CopyFrom(overview.running.to_proto())
        if overview.kept is not None:
            response.kept.CopyFrom(overview.kept.to_proto())
        return response

    async def Export(self, request: messages.ExportRequest, context: Context) -> AsyncIterator[transfer_pb2.Frame]:
        _check_texts("format", {"": request.format})
        _check_texts("options", request.options)
        frames = self._transfers.export(request.transfer_id, request.format, dict(request.options))
        async with aclosing(frames):
            async for frame in frames:
                yield cast("transfer_pb2.Frame", frame)  # or encoded already, which the interceptor lets through
                del frame  # a chunk, as in agent.exports

    async def Fingerprint(self, request: messages.FingerprintRequest, context: Context) -> messages.FingerprintResponse:
        taken = await self._transfers.fingerprint()
        response = messages.FingerprintResponse(fingerprint=taken.fingerprint.to_proto())
        response.taken_at.FromDatetime(taken.taken_at)
        return response

    async def Stage(self, request_iterator: object, context: Context) -> AsyncIterator[transfer_pb2.TransferEvent]:
        start = await _start(context)
        _check_texts("options", start.options)
        structlog.contextvars.bind_contextvars(transfer_id=start.transfer_id)
        states = self._transfers.stage(start.transfer_id, _frames(context), dict(start.options), dry_run=start.dry_run)
        async with aclosing(states):
            async for state in states:
                yield transfer_pb2.TransferEvent(state=state.to_proto())

    async def Restore(
        self, request: messages.RestoreRequest, context: Context
    ) -> AsyncIterator[transfer_pb2.TransferEvent]:
        async with aclosing(self._transfers.restore(request.transfer_id)) as states:
            async for state in states:
                yield transfer_pb2.TransferEvent(state=state.to_proto())

    async def Undo(self, request: messages.UndoRequest, context: Context) -> AsyncIterator[transfer_pb2.TransferEvent]:
        async with aclosing(self._transfers.undo(request.transfer_id)) as states:
            async for state in states:
                yield transfer_pb2.TransferEvent(state=state.to_proto())

    async def Discard(self, request: messages.DiscardRequest, context: Context) -> messages.DiscardResponse:
        return messages.DiscardResponse(discarded=await self._transfers.discard(request.transfer_id))

    async def Cancel(self, request: messages.CancelRequest, context: Context) -> messages.CancelResponse:
        state = await self._transfers.cancel(request.transfer_id)
        return messages.CancelResponse(state=state.to_proto())

    async def ListTransfers(
        self, request: messages.ListTransfersRequest, context: Context
    ) -> messages.ListTransfersResponse:
        return messages.ListTransfersResponse(transfers=[state.to_proto() for state in self._transfers.list()])

    async def WatchTransfer(
        self, request: messages.WatchTransferRequest, context: Context
    ) -> AsyncIterator[transfer_pb2.TransferEvent]:
        async with aclosing(self._transfers.watch(request.transfer_id)) as states:
            async for state in states:
                yield transfer_pb2.TransferEvent(state=state.to_proto())


async def _start(context: Context) -> messages.StageStart:
    first = await context.read()
    request = messages.StageRequest() if first is grpc.aio.EOF else _decoded(first)
    if not request.HasField("start"):
        raise InvalidRequestError("The first message of Stage has to be `start`.")
    return request.start


async def _frames(context: Context) -> AsyncIterator[IncomingFrame]:
    """Read one by one: gRPC's own iterator holds on to each message until the next has arrived."""
    while (encoded := await context.read()) is not grpc.aio.EOF:
        frame = _chunk_in(encoded) or _frame_in(encoded)
        del encoded
        yield frame
        del frame


def _chunk_in(encoded: bytes) -> bytes | None:
    """A copy of the chunk, when the message is nothing but that."""
    frame = content_of_field_2(encoded)
    chunk = content_of_field_2(frame) if frame is not None else None
    return bytes(chunk) if chunk is not None else None


def _frame_in(encoded: bytes) -> transfer_pb2.Frame:
    request = _decoded(encoded)
    if not request.HasField("frame"):
        raise InvalidRequestError("After `start` come frames only.")
    if request.frame.HasField("header"):
        _check_header(request.frame.header)
    return request.frame


def _decoded(encoded: bytes) -> messages.StageRequest:
    try:
        return messages.StageRequest.FromString(encoded)
    except DecodeError as failure:
        raise InvalidRequestError("A message is not a StageRequest.") from failure


def _check_header(header: transfer_pb2.ArchiveHeader) -> None:
    """An uploader writes what it likes; refuse what would not fit into the journal or an answer."""
    texts = {field.name: value for field, value in header.ListFields() if isinstance(value, str)}
    _check_texts("header", texts)
    _check_texts("header.details", header.details)
    _check_texts("header.counts", dict.fromkeys(header.counts, ""))
    if any(count > MOST_COUNTED for count in (*header.counts.values(), header.size_bytes)):
        raise InvalidRequestError(f"header: a count is at most {MOST_COUNTED}.")
    try:
        header.created_at.ToDatetime(dt.UTC)
    except (ValueError, OverflowError) as failure:
        raise InvalidRequestError("header.created_at is no moment.") from failure


def _check_texts(what: str, texts: Mapping[str, str]) -> None:
    if len(texts) > MOST_ENTRIES:
        raise InvalidRequestError(f"{what} has at most {MOST_ENTRIES} entries.")
    for name, value in texts.items():
        if len(name) > MOST_NAME_CHARACTERS or len(value) > MOST_VALUE_CHARACTERS:
            raise InvalidRequestError(
                f"{what}: a name has at most {MOST_NAME_CHARACTERS} characters, a value {MOST_VALUE_CHARACTERS}."
            )
