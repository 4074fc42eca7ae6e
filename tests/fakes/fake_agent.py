"""An agent without an app: it serves the real DataAgent interface over real mutual TLS and does what a test says.

Run as a program (`python -m tests.fakes.fake_agent FILE`) it can be killed; FILE is a msgspec-encoded `Launch`.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import msgspec

from common.credentials import CONTROLLER_URI, Identity
from common.errors import InvalidRequestError, NothingToUndoError, ServiceError, TransferNotFoundError
from common.status import status_code, trailing_metadata
from mathison.data.v1 import agent_pb2 as wire
from mathison.data.v1 import agent_pb2_grpc, transfer_pb2
from mathison.data.v1.transfer_pb2 import TransferEvent, TransferState

Context = grpc.aio.ServicerContext[Any, Any]
BLOCK = hashlib.sha256(b"incompressible").digest() * (1 << 15)
"""1 MiB."""


@dataclass
class ExportPlan:
    """What the next exports do."""

    chunks: int = 3
    chunk: bytes = BLOCK
    header: transfer_pb2.ArchiveHeader = field(
        default_factory=lambda: transfer_pb2.ArchiveHeader(
            recipe="postgresql",
            format="sql.gz",
            engine="postgresql",
            engine_version="17.6",
            media_type="application/gzip",
            file_name="shop-db.sql.gz",
        )
    )
    refusal: ServiceError | None = None
    """Raised before the header."""
    failure: ServiceError | None = None
    """Raised after the chunks, instead of the end frame."""
    hangs_after_chunks: bool = False
    sends_end: bool = True
    end_sha256: str = ""
    """Sent instead of the right one."""
    pause_seconds: float = 0.0
    """Between chunks."""


@dataclass
class StagePlan:
    """What the next imports do."""

    refusal: ServiceError | None = None
    """Raised at the start, before a frame is read."""
    refusal_after_chunks: int = 0
    """When set, `refusal` is raised after so many chunks."""
    restore_failure: ServiceError | None = None
    restore_gate: asyncio.Event | None = None
    """Restore waits for it after its first event."""
    verify_gate: asyncio.Event | None = None
    """Stage waits for it after the end frame."""
    chunk_gate: asyncio.Event | None = None
    """Stage waits for it after its first chunk: an agent that stands still."""
    tidy_seconds: float = 0.0
    """How long an agent whose call was ended is busy with dropping what it has staged."""


@dataclass
class Received:
    """What one Stage call was sent."""

    start: wire.StageStart
    header: transfer_pb2.ArchiveHeader | None = None
    size_bytes: int = 0
    sha256: str = ""
    has_end: bool = False
    """An end frame came, and it agreed."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The call is over, however."""


class FakeAgent(agent_pb2_grpc.DataAgentServicer):
    """One app's agent."""

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.address = ""
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything, as for the next test."""
        self.export_plan = ExportPlan()
        self.stage_plan = StagePlan()
        self.export_requests: list[wire.ExportRequest] = []
        self.exported_chunks = 0
        """Of all exports together, counted when gRPC took them."""
        self.export_ended = asyncio.Event()
        self.stages: list[Received] = []
        self.restored: list[str] = []
        self.states: dict[str, TransferState] = {}
        self.kept = ""
        self.undo_failure: ServiceError | grpc.StatusCode | None = None
        """Answered to an undo: an agent's own words, or what gRPC says of one that went away."""
        self.discard_failure: ServiceError | grpc.StatusCode | None = None
        """Likewise, to a confirmation."""
        self.patience_seconds: dict[str, float] = {}
        """How long the latest caller of Discard or Cancel would wait."""

    async def start(self, identity: Identity, address: str = "127.0.0.1:0") -> None:
        # As a real agent, it does not take signs of life for an attack.
        self._server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 500)])
        agent_pb2_grpc.add_DataAgentServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials(
            [(identity.key, identity.certificate)], identity.authorities, require_client_auth=True
        )
        port = self._server.add_secure_port(address, credentials)
        await self._server.start()
        self.address = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def Describe(self, request: wire.DescribeRequest, context: Context) -> wire.DescribeResponse:
        assert CONTROLLER_URI.encode() in context.auth_context()["x509_subject_alternative_name"]
        return wire.DescribeResponse(
            app_id=self.app_id,
            recipe="postgresql",
            engine="postgresql",
            engine_version="17.6",
            export_formats=[wire.FormatDescription(name="sql.gz", media_type="application/gzip", suffix=".sql.gz")],
            import_formats=["sql"],
            can_export=True,
            can_import=True,
            estimated_bytes=123,
            can_undo=True,
            details={"database": "app"},
        )

    async def Fingerprint(self, request: wire.FingerprintRequest, context: Context) -> wire.FingerprintResponse:
        response = wire.FingerprintResponse(
            fingerprint=transfer_pb2.Fingerprint(scheme="fake/1", sha256="ab" * 32, parts={"table a": "2 rows"})
        )
        response.taken_at.FromSeconds(1_700_000_000)
        return response

    async def Export(self, request: wire.ExportRequest, context: Context) -> AsyncIterator[transfer_pb2.Frame]:
        plan = self.export_plan
        self.export_requests.append(request)
        ended = self.export_ended = asyncio.Event()
        state = await self._begin(request.transfer_id, transfer_pb2.TRANSFER_KIND_EXPORT)
        digest = hashlib.sha256()
        try:
            if plan.refusal is not None:
                await _abort(context, plan.refusal)
            yield transfer_pb2.Frame(header=plan.header)
            yield transfer_pb2.Frame(progress=transfer_pb2.Progress(phase=transfer_pb2.PHASE_TRANSFERRING))
            for _ in range(plan.chunks):
                yield transfer_pb2.Frame(chunk=plan.chunk)
                digest.update(plan.chunk)
                self.exported_chunks += 1
                if plan.pause_seconds:
                    await asyncio.sleep(plan.pause_seconds)
            if plan.hangs_after_chunks:
                await asyncio.Event().wait()
            if plan.failure is not None:
                await _abort(context, plan.failure)
            if plan.sends_end:
                end = transfer_pb2.End(
                    size_bytes=plan.chunks * len(plan.chunk), sha256=plan.end_sha256 or digest.hexdigest()
                )
                await self._end(state, end=end)
                yield transfer_pb2.Frame(end=end)
        finally:
            ended.set()
            if state.result == transfer_pb2.TRANSFER_RESULT_UNSPECIFIED:
                await self._end(state, result=transfer_pb2.TRANSFER_RESULT_FAILED)

    async def Stage(
        self, request_iterator: AsyncIterator[wire.StageRequest], context: Context
    ) -> AsyncIterator[TransferEvent]:
        plan = self.stage_plan
        received = Received((await anext(request_iterator)).start)
        self.stages.append(received)
        state: TransferState | None = None
        try:
            known = self.states.get(received.start.transfer_id)
            if known is not None and known.result == transfer_pb2.TRANSFER_RESULT_SUCCEEDED:
                # As a real agent: what was done is told once the upload has turned out to be the same.
                await self._receive(received, request_iterator, context)
                if received.has_end and received.sha256 != known.end.sha256:
                    await _abort(context, InvalidRequestError("The id was used before, for another file."))
                if received.has_end:
                    yield TransferEvent(state=known)
                return
            state = await self._begin(received.start.transfer_id, transfer_pb2.TRANSFER_KIND_IMPORT)
            if plan.refusal is not None and not plan.refusal_after_chunks:
                await _abort(context, plan.refusal)
            yield TransferEvent(state=state)
            await self._receive(received, request_iterator, context)
            if not received.has_end:
                return
            if plan.verify_gate is not None:
                await plan.verify_gate.wait()
            state.end.size_bytes, state.end.sha256 = received.size_bytes, received.sha256
            state.preview.changes.append("12 tables")
            await self._move(state, transfer_pb2.PHASE_STAGED)
            yield TransferEvent(state=state)
        finally:
            received.ended.set()
            if state is not None and state.progress.phase == transfer_pb2.PHASE_PREPARING:
                # As a real agent: that its call is cancelled does not cut the cleaning up short.
                await asyncio.shield(asyncio.create_task(self._tidy(state, plan.tidy_seconds)))

    async def _tidy(self, state: TransferState, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._end(state, result=transfer_pb2.TRANSFER_RESULT_FAILED)

    async def _receive(self, received: Received, requests: AsyncIterator[wire.StageRequest], context: Context) -> None:
        digest = hashlib.sha256()
        chunks = 0
        async for request in requests:
            match request.frame.WhichOneof("content"):
                case "header":
                    received.header = request.frame.header
                case "chunk":
                    digest.update(request.frame.chunk)
                    received.size_bytes += len(request.frame.chunk)
                    chunks += 1
                    if self.stage_plan.refusal is not None and chunks == self.stage_plan.refusal_after_chunks:
                        await self._fail(received.start.transfer_id, self.stage_plan.refusal, context)
                    if self.stage_plan.chunk_gate is not None:
                        await self.stage_plan.chunk_gate.wait()
                case "end":
                    received.sha256 = digest.hexdigest()
                    said = (request.frame.end.size_bytes, request.frame.end.sha256)
                    received.has_end = said == (received.size_bytes, received.sha256)
                    return

    async def Restore(self, request: wire.RestoreRequest, context: Context) -> AsyncIterator[TransferEvent]:
        state = self.states[request.transfer_id]
        await self._move(state, transfer_pb2.PHASE_RESTORING)
        yield TransferEvent(state=state)
        await asyncio.shield(asyncio.create_task(self._restore(state)))
        if self.stage_plan.restore_failure is not None:
            await _abort(context, self.stage_plan.restore_failure)
        yield TransferEvent(state=state)

    async def _restore(self, state: TransferState) -> None:
        """As a real agent's swap: goes on when the caller leaves."""
        if self.stage_plan.restore_gate is not None:
            await self.stage_plan.restore_gate.wait()
        if self.stage_plan.restore_failure is not None:
            await self._move(state, transfer_pb2.PHASE_STAGED)
            return
        self.kept = state.transfer_id
        self.restored.append(state.transfer_id)
        await self._end(state, end=state.end)

    async def Undo(self, request: wire.UndoRequest, context: Context) -> AsyncIterator[TransferEvent]:
        await _fail_as_told(context, self.undo_failure)
        if not self.kept:
            await _abort(context, NothingToUndoError("No previous data is kept."))
        state = self.states[request.transfer_id or self.kept]
        await self._move(state, transfer_pb2.PHASE_UNDOING)
        yield TransferEvent(state=state)
        state.undone = True
        self.kept = ""
        await self._end(state, end=state.end)
        yield TransferEvent(state=state)

    async def Discard(self, request: wire.DiscardRequest, context: Context) -> wire.DiscardResponse:
        self.patience_seconds["Discard"] = context.time_remaining()
        await _fail_as_told(context, self.discard_failure)
        had, self.kept = self.kept, ""
        return wire.DiscardResponse(discarded=bool(had))

    async def Cancel(self, request: wire.CancelRequest, context: Context) -> wire.CancelResponse:
        self.patience_seconds["Cancel"] = context.time_remaining()
        state = await self._state(request.transfer_id, context)
        await self._end(state, result=transfer_pb2.TRANSFER_RESULT_CANCELLED)
        return wire.CancelResponse(state=state)

    async def ListTransfers(self, request: wire.ListTransfersRequest, context: Context) -> wire.ListTransfersResponse:
        return wire.ListTransfersResponse(transfers=reversed(self.states.values()))

    async def WatchTransfer(self, request: wire.WatchTransferRequest, context: Context) -> AsyncIterator[TransferEvent]:
        state = await self._state(request.transfer_id, context)
        while True:
            event = TransferEvent(state=state)
            yield event
            if event.state.result != transfer_pb2.TRANSFER_RESULT_UNSPECIFIED:
                return
            async with self._changed:
                await self._changed.wait_for(lambda: state != event.state)  # noqa: B023  # waited for right here

    async def _state(self, transfer_id: str, context: Context) -> TransferState:
        if transfer_id not in self.states:
            await _abort(context, TransferNotFoundError(f"No transfer {transfer_id} is known."))
        return self.states[transfer_id]

    async def _begin(self, transfer_id: str, kind: transfer_pb2.TransferKind.ValueType) -> TransferState:
        state = TransferState(transfer_id=transfer_id, kind=kind)
        state.progress.phase = transfer_pb2.PHASE_PREPARING
        state.started_at.GetCurrentTime()
        self.states[transfer_id] = state
        await self._notify()
        return state

    async def _move(self, state: TransferState, phase: transfer_pb2.Phase.ValueType) -> None:
        state.progress.phase = phase
        await self._notify()

    async def _end(
        self,
        state: TransferState,
        *,
        end: transfer_pb2.End | None = None,
        result: transfer_pb2.TransferResult.ValueType = transfer_pb2.TRANSFER_RESULT_SUCCEEDED,
    ) -> None:
        if end is not None and end is not state.end:
            state.end.CopyFrom(end)
        state.result = result
        state.ended_at.GetCurrentTime()
        await self._move(state, transfer_pb2.PHASE_DONE)

    async def _fail(self, transfer_id: str, error: ServiceError, context: Context) -> None:
        """As a real agent: what it refused is remembered before it is answered."""
        state = self.states[transfer_id]
        state.error.reason, state.error.message, state.error.next_step = error.reason, error.text, error.next_step
        await self._end(state, result=transfer_pb2.TRANSFER_RESULT_FAILED)
        await _abort(context, error)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _fail_as_told(context: Context, failure: ServiceError | grpc.StatusCode | None) -> None:
    if isinstance(failure, ServiceError):
        await _abort(context, failure)
    elif failure is not None:
        await context.abort(failure, "Socket closed")


async def _abort(context: Context, error: ServiceError) -> None:
    await context.abort(status_code(error), error.text, trailing_metadata(error))


class Launch(msgspec.Struct):
    """What the program needs."""

    app_id: str
    key: bytes
    certificate: bytes
    authorities: bytes
    address: str
    chunks: int
    pause_seconds: float
    hangs_after_chunks: bool = False


async def _main(launch: Launch) -> None:
    agent = FakeAgent(launch.app_id)
    agent.export_plan = ExportPlan(
        chunks=launch.chunks, pause_seconds=launch.pause_seconds, hangs_after_chunks=launch.hangs_after_chunks
    )
    identity = Identity(key=launch.key, certificate=launch.certificate, authorities=launch.authorities)
    await agent.start(identity, launch.address)
    print(agent.address, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Launch)))
