"""The controller's gRPC port: the operations for programs, and who may call what."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from common.credentials import TARGET_NAME_OPTION, Identity, controller_name
from common.errors import (
    AgentUnavailableError,
    AppNotFoundError,
    DigestMismatchError,
    InvalidRequestError,
    NotAuthenticatedError,
    NothingToUndoError,
    NotPermittedError,
    ServiceError,
    ToolFailedError,
    UploadIncompleteError,
)
from common.status import error_from_call
from controller.callers import Scope
from mathison.data.v1 import controller_pb2 as wire
from mathison.data.v1 import controller_pb2_grpc, enrolment_pb2, enrolment_pb2_grpc, transfer_pb2
from tests.fakes.fake_agent import BLOCK, ExportPlan, FakeAgent
from tests.fixtures.controller import ControllerProcess, until_export_is_still
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
Stub = controller_pb2_grpc.DataControllerStub
Metadata = tuple[tuple[str, str], ...]
SHA256 = hashlib.sha256(BLOCK * 2).hexdigest()


@pytest_asyncio.fixture(loop_scope="module")
async def stub(controller: ControllerProcess) -> AsyncIterator[Stub]:
    async with controller.channel() as channel:
        yield Stub(channel)


@pytest.fixture
def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


async def failure(call: Any) -> ServiceError:
    """The typed error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (collect(call, []) if hasattr(call, "__aiter__") else call)
    return error_from_call(caught.value, peer="the controller")


async def collect(call: AsyncIterable[Any], messages: list[Any]) -> None:
    """Append each message of a stream to a list, which keeps those that came before an error."""
    async for message in call:
        messages.append(message)


async def refused_upload(
    controller: ControllerProcess, requests: Iterable[wire.ImportAppRequest], metadata: Metadata
) -> ServiceError:
    """The typed error that an upload ends with, met with gRPC's other Python client: in grpc.aio a write that meets a
    refusal loses its status (grpc/grpc#36066)."""
    credentials = controller.authority.issue_client("tester").channel_credentials()

    def upload() -> Any:
        options = [(TARGET_NAME_OPTION, controller_name())]
        with grpc.secure_channel(controller.grpc, credentials, options) as channel:
            stub: Any = controller_pb2_grpc.DataControllerStub(channel)  # type: ignore[arg-type]  # typed for aio
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.ImportApp(iter(requests), metadata=metadata))
            return caught.value

    return error_from_call(await asyncio.to_thread(upload), peer="the controller")


def import_requests(
    *, app_id: str = "shop.db", dry_run: bool = False, transfer_id: str = "t-1", end: transfer_pb2.End | None = None
) -> list[wire.ImportAppRequest]:
    start = wire.ImportStart(app_id=app_id, transfer_id=transfer_id, dry_run=dry_run, options={"owner": "app"})
    frames = [
        transfer_pb2.Frame(header=transfer_pb2.ArchiveHeader(recipe="postgresql", file_name="a.sql")),
        transfer_pb2.Frame(chunk=BLOCK),
        transfer_pb2.Frame(progress=transfer_pb2.Progress(sent_bytes=1)),
        transfer_pb2.Frame(chunk=BLOCK),
        transfer_pb2.Frame(end=end or transfer_pb2.End(size_bytes=2 * len(BLOCK), sha256=SHA256)),
    ]
    return [wire.ImportAppRequest(start=start), *(wire.ImportAppRequest(frame=frame) for frame in frames)]


async def test_apps_are_listed_and_described(stub: Stub, bearer: Metadata, agent: FakeAgent) -> None:
    listed = await stub.ListApps(wire.ListAppsRequest(), metadata=bearer)
    described = await stub.DescribeApp(wire.DescribeAppRequest(app_id="shop.db"), metadata=bearer)

    assert [(app.app_id, app.workspace, app.name, app.recipe, app.is_available) for app in listed.apps] == [
        ("shop.db", "shop", "db", "postgresql", True)
    ]
    assert described.app == listed.apps[0]
    assert described.description.engine_version == "17.6"


async def test_an_export_is_passed_on_frame_by_frame(stub: Stub, bearer: Metadata, agent: FakeAgent) -> None:
    call = stub.ExportApp(wire.ExportAppRequest(app_id="shop.db", format="sql.gz"), metadata=bearer)

    frames = [frame async for frame in call]

    kinds = [frame.WhichOneof("content") for frame in frames]
    assert kinds == ["header", "progress", "chunk", "chunk", "chunk", "end"]
    assert frames[0].header == agent.export_plan.header
    assert b"".join(frame.chunk for frame in frames) == BLOCK * 3
    assert frames[-1].end.sha256 == hashlib.sha256(BLOCK * 3).hexdigest()
    chosen = agent.export_requests[0].transfer_id
    assert ("mathison-transfer", chosen) in tuple(await call.initial_metadata())
    assert ("mathison-transfer", chosen) in tuple(await call.trailing_metadata())


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        pytest.param(ExportPlan(failure=ToolFailedError("pg_dump was killed")), ToolFailedError, id="tool"),
        pytest.param(ExportPlan(sends_end=False), AgentUnavailableError, id="no end"),
        pytest.param(ExportPlan(end_sha256="0" * 64), DigestMismatchError, id="digest"),
    ],
)
async def test_a_broken_export_has_no_end_frame(
    stub: Stub, bearer: Metadata, agent: FakeAgent, plan: ExportPlan, kind: type[ServiceError]
) -> None:
    agent.export_plan = plan
    call = stub.ExportApp(wire.ExportAppRequest(app_id="shop.db"), metadata=bearer)
    frames: list[transfer_pb2.Frame] = []

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(call, frames)

    kinds = [frame.WhichOneof("content") for frame in frames]
    assert isinstance(error_from_call(caught.value, peer="the controller"), kind)
    assert "chunk" in kinds
    assert "end" not in kinds


async def test_a_caller_who_cancels_ends_the_dump_within_a_second(
    stub: Stub, bearer: Metadata, agent: FakeAgent, controller: ControllerProcess
) -> None:
    agent.export_plan.chunks = 10_000
    call = stub.ExportApp(wire.ExportAppRequest(app_id="shop.db"), metadata=bearer)
    await anext(aiter(call))

    call.cancel()

    await asyncio.wait_for(agent.export_ended.wait(), 1)
    await until(lambda: controller.audit()[-1]["result"] == "cancelled")


async def test_a_caller_who_takes_nothing_stops_the_agent(
    stub: Stub, bearer: Metadata, agent: FakeAgent, controller: ControllerProcess
) -> None:
    agent.export_plan.chunks = 10_000
    call = stub.ExportApp(wire.ExportAppRequest(app_id="shop.db"), metadata=bearer)

    exported = await until_export_is_still(controller, agent)

    assert exported < 100
    call.cancel()


async def test_an_import_is_staged_and_restored(stub: Stub, bearer: Metadata, agent: FakeAgent) -> None:
    events = [event.state async for event in stub.ImportApp(iter(import_requests()), metadata=bearer)]

    phases = [event.progress.phase for event in events]
    assert phases == sorted(phases)
    assert (phases[-1], events[-1].result) == (transfer_pb2.PHASE_DONE, transfer_pb2.TRANSFER_RESULT_SUCCEEDED)
    received = agent.stages[0]
    assert (received.has_end, received.sha256) == (True, SHA256)
    assert received.header == transfer_pb2.ArchiveHeader(recipe="postgresql", file_name="a.sql")
    assert dict(received.start.options) == {"owner": "app"}
    assert agent.restored == ["t-1"]


async def test_a_dry_run_ends_staged(stub: Stub, bearer: Metadata, agent: FakeAgent) -> None:
    events = [event.state async for event in stub.ImportApp(iter(import_requests(dry_run=True)), metadata=bearer)]

    assert events[-1].progress.phase == transfer_pb2.PHASE_STAGED
    assert not agent.restored


WRONG: list[Any] = [
    pytest.param(import_requests()[:-1], UploadIncompleteError, id="no end"),
    pytest.param([], UploadIncompleteError, id="nothing"),
    pytest.param(import_requests()[1:], InvalidRequestError, id="no start"),
    pytest.param([*import_requests()[:1], *import_requests()[2:]], InvalidRequestError, id="no header"),
    pytest.param([*import_requests()[:2], import_requests()[0]], InvalidRequestError, id="start twice"),
    pytest.param([*import_requests()[:2], *import_requests()[1:]], InvalidRequestError, id="header twice"),
    pytest.param(
        import_requests(end=transfer_pb2.End(size_bytes=2 * len(BLOCK), sha256="0" * 64)),
        DigestMismatchError,
        id="digest",
    ),
    pytest.param(import_requests(end=transfer_pb2.End(size_bytes=1, sha256=SHA256)), DigestMismatchError, id="size"),
    pytest.param(import_requests(transfer_id="a b"), InvalidRequestError, id="transfer id"),
    pytest.param(import_requests(app_id="shop.web"), AppNotFoundError, id="app"),
]


@pytest.mark.parametrize(("requests", "kind"), WRONG)
async def test_a_wrong_upload_never_gets_an_end_frame(
    controller: ControllerProcess,
    bearer: Metadata,
    agent: FakeAgent,
    requests: Iterable[wire.ImportAppRequest],
    kind: type[ServiceError],
) -> None:
    error = await refused_upload(controller, requests, bearer)

    assert isinstance(error, kind)
    for received in agent.stages:
        assert error.text.endswith(" Nothing was changed.")
        await asyncio.wait_for(received.ended.wait(), 5)
        assert not received.has_end


async def test_a_failed_upload_is_told_once_the_app_is_free_for_the_next(
    controller: ControllerProcess, bearer: Metadata, agent: FakeAgent
) -> None:
    agent.stage_plan.tidy_seconds = 0.5

    await refused_upload(controller, import_requests()[:-1], bearer)

    assert agent.states["t-1"].result == transfer_pb2.TRANSFER_RESULT_FAILED


async def test_a_caller_who_cancels_an_upload_sends_no_end_frame(
    stub: Stub, bearer: Metadata, agent: FakeAgent
) -> None:
    async def stuck() -> AsyncIterator[wire.ImportAppRequest]:
        for request in import_requests()[:-1]:
            yield request
        await asyncio.Event().wait()

    call = stub.ImportApp(stuck(), metadata=bearer)
    await until(lambda: bool(agent.stages) and agent.stages[0].size_bytes == 2 * len(BLOCK))

    call.cancel()

    await asyncio.wait_for(agent.stages[0].ended.wait(), 5)
    assert not agent.stages[0].has_end


async def test_transfers_are_listed_watched_undone_confirmed_and_cancelled(
    stub: Stub, bearer: Metadata, agent: FakeAgent
) -> None:
    async for _ in stub.ImportApp(iter(import_requests()), metadata=bearer):
        pass

    listed = await stub.ListAppTransfers(wire.ListAppTransfersRequest(app_id="shop.db"), metadata=bearer)
    watch = wire.WatchAppTransferRequest(app_id="shop.db", transfer_id="t-1")
    watched = [event.state async for event in stub.WatchAppTransfer(watch, metadata=bearer)]
    undone = [event.state async for event in stub.UndoImport(wire.UndoImportRequest(app_id="shop.db"), metadata=bearer)]
    confirmed = await stub.ConfirmImport(wire.ConfirmImportRequest(app_id="shop.db"), metadata=bearer)
    cancelled = await stub.CancelTransfer(
        wire.CancelTransferRequest(app_id="shop.db", transfer_id="t-1"), metadata=bearer
    )
    undone_again = await failure(stub.UndoImport(wire.UndoImportRequest(app_id="shop.db"), metadata=bearer))

    assert [state.transfer_id for state in listed.transfers] == ["t-1"]
    assert [state.result for state in watched] == [transfer_pb2.TRANSFER_RESULT_SUCCEEDED]
    assert undone[-1].undone
    assert not confirmed.confirmed
    assert cancelled.state.result == transfer_pb2.TRANSFER_RESULT_CANCELLED
    assert isinstance(undone_again, NothingToUndoError)


async def test_a_call_without_a_token_is_in_the_audit_log(own_controller: ControllerProcess) -> None:
    await own_controller.start()

    async with own_controller.channel() as channel:
        await failure(controller_pb2_grpc.DataControllerStub(channel).ListApps(wire.ListAppsRequest()))

    (line,) = own_controller.audit()
    assert (line["action"], line["result"]) == ("authenticate", "refused")
    assert line["remote_address"].startswith("ipv4:127.0.0.1:")


async def test_a_call_without_a_token_is_not_authenticated(stub: Stub, agent: FakeAgent) -> None:
    for metadata in ((), (("authorization", "Bearer nonsense"),), (("authorization", "Basic x"),)):
        error = await failure(stub.ListApps(wire.ListAppsRequest(), metadata=metadata))

        assert isinstance(error, NotAuthenticatedError)


async def test_a_token_without_the_scope_is_refused_and_audited(
    controller: ControllerProcess, stub: Stub, agent: FakeAgent
) -> None:
    reader = (("authorization", f"Bearer {controller.token('reader', scopes=[Scope.READ])}"),)

    exporting = await failure(stub.ExportApp(wire.ExportAppRequest(app_id="shop.db"), metadata=reader))
    importing = await refused_upload(controller, import_requests(), reader)

    assert isinstance(exporting, NotPermittedError)
    assert isinstance(importing, NotPermittedError)
    assert not agent.export_requests
    assert not agent.stages
    lines = [(line["action"], line["result"], line["caller"], line["reason"]) for line in controller.audit()]
    assert lines == [
        ("export", "refused", "reader", "NOT_PERMITTED"),
        ("import", "refused", "reader", "NOT_PERMITTED"),
    ]


async def test_apps_of_other_workspaces_do_not_exist(
    controller: ControllerProcess, stub: Stub, agent: FakeAgent
) -> None:
    stranger = (("authorization", f"Bearer {controller.token('stranger', workspaces=['blog'])}"),)

    listed = await stub.ListApps(wire.ListAppsRequest(), metadata=stranger)
    hidden = await failure(stub.ExportApp(wire.ExportAppRequest(app_id="shop.db"), metadata=stranger))
    missing = await failure(stub.ExportApp(wire.ExportAppRequest(app_id="blog.db"), metadata=stranger))

    assert not listed.apps
    assert isinstance(hidden, AppNotFoundError)
    assert hidden.text == missing.text.replace("blog.db", "shop.db")


async def test_an_agents_certificate_may_only_renew(controller: ControllerProcess, bearer: Metadata) -> None:
    async with controller.channel(controller.agent_identity("shop.db")) as channel:
        error = await failure(Stub(channel).ListApps(wire.ListAppsRequest(), metadata=bearer))

    assert isinstance(error, NotPermittedError)


async def test_a_clients_certificate_may_not_renew(controller: ControllerProcess) -> None:
    async with controller.channel() as channel:
        error = await failure(enrolment_pb2_grpc.EnrolmentStub(channel).Renew(enrolment_pb2.RenewRequest()))

    assert isinstance(error, NotPermittedError)


async def test_without_a_certificate_of_our_ca_there_is_no_connection(
    controller: ControllerProcess, own_controller: ControllerProcess, bearer: Metadata
) -> None:
    options = [(TARGET_NAME_OPTION, controller_name()), ("grpc.use_local_subchannel_pool", 1)]
    foreign = own_controller.authority.issue_client("tester")
    authorities = controller.authority.pem
    for credentials in (
        grpc.ssl_channel_credentials(authorities),
        Identity(foreign.key, foreign.certificate, authorities).channel_credentials(),
    ):
        async with grpc.aio.secure_channel(controller.grpc, credentials, options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel).ListApps(wire.ListAppsRequest(), metadata=bearer)

            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_health_and_reflection_answer_on_both_ports(controller: ControllerProcess) -> None:
    options = [(TARGET_NAME_OPTION, controller_name())]
    client = controller.authority.issue_client("tester").channel_credentials()
    anonymous = grpc.ssl_channel_credentials(controller.authority.pem)

    def look(address: str, credentials: grpc.ChannelCredentials) -> tuple[int, set[str]]:
        with grpc.secure_channel(address, credentials, options) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status
            database = ProtoReflectionDescriptorDatabase(channel)
            services = set(database.get_services())
            for service in services:
                DescriptorPool(database).FindServiceByName(service)
            return status, services

    programs = await asyncio.to_thread(look, controller.grpc, client)
    enrolments = await asyncio.to_thread(look, controller.enrolment, anonymous)

    serving = health_pb2.HealthCheckResponse.SERVING
    assert programs[0] == enrolments[0] == serving
    assert {"mathison.data.v1.DataController", "mathison.data.v1.Enrolment"} <= programs[1]
    assert "mathison.data.v1.Enrolment" in enrolments[1]
    assert "mathison.data.v1.DataController" not in enrolments[1]
