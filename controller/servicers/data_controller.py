"""DataController: the operations for programs, wire types in and out; documented in controller.proto.

ExportApp and ImportApp handle their frames as bytes (see `raw_frames`), so `add_to` registers them without the
generated serializers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import grpc
from google.protobuf.message import DecodeError

from common.errors import InvalidRequestError, UploadIncompleteError, unchanged
from controller.admission import Admission
from controller.callers import Caller
from controller.interceptors import Context
from controller.operations import Deployment, Operations, Order, transfer_id_or_new
from controller.relay import checked_upload
from mathison.data.v1 import controller_pb2 as wire
from mathison.data.v1 import controller_pb2_grpc
from mathison.data.v1.transfer_pb2 import TransferEvent, TransferState

SERVICE = "mathison.data.v1.DataController"
TRANSFER_KEY = "mathison-transfer"
"""Metadata of an export's answer, first and trailing: the transfer's id."""


class DataControllerServicer(controller_pb2_grpc.DataControllerServicer):
    """Callers are known by the token in their metadata; the certificate was looked at before."""

    def __init__(self, operations: Operations, admission: Admission, *, upload_limit_bytes: int) -> None:
        self._operations = operations
        self._admission = admission
        self._upload_limit_bytes = upload_limit_bytes

    def add_to(self, server: grpc.aio.Server) -> None:
        controller_pb2_grpc.add_DataControllerServicer_to_server(self, server)
        server.add_registered_method_handlers(  # takes the place of the two of them that were just added
            SERVICE,
            {
                "ExportApp": grpc.unary_stream_rpc_method_handler(
                    self.ExportApp, request_deserializer=wire.ExportAppRequest.FromString
                ),
                "ImportApp": grpc.stream_stream_rpc_method_handler(
                    self.ImportApp, response_serializer=TransferEvent.SerializeToString
                ),
            },
        )

    async def ListApps(self, request: wire.ListAppsRequest, context: Context) -> wire.ListAppsResponse:
        deployments = await self._operations.deployments(self._caller(context), workspace=request.workspace)
        return wire.ListAppsResponse(apps=map(_to_app, deployments))

    async def DescribeApp(self, request: wire.DescribeAppRequest, context: Context) -> wire.DescribeAppResponse:
        deployment = await self._operations.describe(self._caller(context), request.app_id)
        return wire.DescribeAppResponse(app=_to_app(deployment), description=deployment.description)

    async def ExportApp(  # type: ignore[override]  # encoded Frames
        self, request: wire.ExportAppRequest, context: Context
    ) -> AsyncIterator[bytes | memoryview]:
        order = Order(
            app_id=request.app_id,
            transfer_id=transfer_id_or_new(request.transfer_id),
            format=request.format,
            options=dict(request.options),
        )
        caller = self._caller(context)
        context.set_trailing_metadata(((TRANSFER_KEY, order.transfer_id),))
        async with aclosing(self._operations.export(caller, order)) as frames:
            async for frame in frames:
                if frame.kind == "header":
                    await context.send_initial_metadata(((TRANSFER_KEY, order.transfer_id),))
                yield frame.encoded

    async def FingerprintApp(
        self, request: wire.FingerprintAppRequest, context: Context
    ) -> wire.FingerprintAppResponse:
        found = await self._operations.fingerprint(self._caller(context), request.app_id)
        return wire.FingerprintAppResponse(fingerprint=found.fingerprint, taken_at=found.taken_at)

    async def ImportApp(  # type: ignore[override]  # encoded ImportAppRequests
        self, request_iterator: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[TransferEvent]:
        caller = self._caller(context)
        with unchanged():
            start = await _read_start(request_iterator)
            order = Order(
                app_id=start.app_id,
                transfer_id=transfer_id_or_new(start.transfer_id),
                options=dict(start.options),
                is_dry_run=start.dry_run,
            )
        frames = checked_upload(request_iterator, limit_bytes=self._upload_limit_bytes)
        async with aclosing(self._operations.import_data(caller, order, frames)) as states:
            async for event in _events(states):
                yield event

    async def UndoImport(self, request: wire.UndoImportRequest, context: Context) -> AsyncIterator[TransferEvent]:
        states = self._operations.undo(self._caller(context), request.app_id, request.transfer_id)
        async with aclosing(states):
            async for event in _events(states):
                yield event

    async def ConfirmImport(self, request: wire.ConfirmImportRequest, context: Context) -> wire.ConfirmImportResponse:
        caller = self._caller(context)
        return wire.ConfirmImportResponse(
            confirmed=await self._operations.confirm(caller, request.app_id, request.transfer_id)
        )

    async def CancelTransfer(
        self, request: wire.CancelTransferRequest, context: Context
    ) -> wire.CancelTransferResponse:
        caller = self._caller(context)
        return wire.CancelTransferResponse(
            state=await self._operations.cancel(caller, request.app_id, request.transfer_id)
        )

    async def ListAppTransfers(
        self, request: wire.ListAppTransfersRequest, context: Context
    ) -> wire.ListAppTransfersResponse:
        transfers = await self._operations.transfers(self._caller(context), request.app_id)
        return wire.ListAppTransfersResponse(transfers=transfers)

    async def WatchAppTransfer(
        self, request: wire.WatchAppTransferRequest, context: Context
    ) -> AsyncIterator[TransferEvent]:
        states = self._operations.watch(self._caller(context), request.app_id, request.transfer_id)
        async with aclosing(states):
            async for event in _events(states):
                yield event

    def _caller(self, context: Context) -> Caller:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        return self._admission.admit(metadata.get("authorization", ""), remote_address=context.peer())


async def _read_start(requests: AsyncIterator[bytes]) -> wire.ImportStart:
    first = await anext(requests, None)
    if first is None:
        raise UploadIncompleteError("The stream ended before its first message.")
    try:
        request = wire.ImportAppRequest.FromString(first)
    except DecodeError as failure:
        raise InvalidRequestError("The first message is not an ImportAppRequest.") from failure
    if request.WhichOneof("content") != "start":
        raise InvalidRequestError("The first message has to be `start`.")
    return request.start


async def _events(states: AsyncGenerator[TransferState, None]) -> AsyncIterator[TransferEvent]:
    async for state in states:
        yield TransferEvent(state=state)


def _to_app(deployment: Deployment) -> wire.App:
    return wire.App(
        app_id=deployment.app.id,
        workspace=deployment.app.workspace,
        name=deployment.app.name,
        recipe=deployment.recipe,
        is_available=deployment.description is not None,
        obstacle=deployment.obstacle,
    )
