"""Who may call an agent, what it answers to odd requests, and that its certificate changes under way."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from common.credentials import TARGET_NAME_OPTION, Identity, agent_name, key_to_pem, new_key
from common.errors import InvalidRequestError, NotPermittedError, ToolFailedError
from common.status import error_from_call
from controller.identity.ca import CertificateAuthority
from mathison.data.v1 import agent_pb2 as messages
from mathison.data.v1 import agent_pb2_grpc, transfer_pb2
from tests.fixtures.agent_program import APP_ID
from tests.fixtures.waiting import until
from tests.integration.agent.core.conftest import AgentProcess

Stub = agent_pb2_grpc.DataAgentStub
MakeCredentials = Callable[[AgentProcess], grpc.ChannelCredentials]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One for all tests of this module: they leave it as they found it."""
    agent = AgentProcess(tmp_path_factory.mktemp("agent"))
    agent.give_identity()
    agent.start()
    yield agent
    agent.close()


def agents_own(agent: AgentProcess, app_id: str = APP_ID) -> grpc.ChannelCredentials:
    key = new_key()
    issued = agent.authority.issue_agent(app_id, key.public_key())
    return Identity(key_to_pem(key), issued.certificate, issued.authorities).channel_credentials()


def of_another_authority(agent: AgentProcess) -> grpc.ChannelCredentials:
    other = CertificateAuthority.open(agent.directory / "other authority").issue_controller()
    return Identity(other.key, other.certificate, agent.authority.pem).channel_credentials()


def without_certificate(agent: AgentProcess) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(agent.authority.pem)


async def describe(agent: AgentProcess, credentials: grpc.ChannelCredentials) -> messages.DescribeResponse:
    async with agent.channel(credentials) as channel:
        return await Stub(channel).Describe(messages.DescribeRequest(), timeout=20)


async def ask_health(agent: AgentProcess, credentials: grpc.ChannelCredentials, service: str = "") -> int:
    async with agent.channel(credentials) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        check: Any = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs are not for aio
        return int((await check(request, timeout=20)).status)


async def test_the_controller_and_debugging_clients_are_answered(agent: AgentProcess) -> None:
    for identity in (agent.controller_identity, agent.authority.issue_client("someone")):
        assert (await describe(agent, identity.channel_credentials())).app_id == APP_ID


@pytest.mark.parametrize("make", [without_certificate, of_another_authority], ids=lambda make: make.__name__)
async def test_strangers_do_not_get_past_the_handshake(agent: AgentProcess, make: MakeCredentials) -> None:
    for call in (describe(agent, make(agent)), ask_health(agent, make(agent))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("app_id", [APP_ID, "shop.web"])
async def test_agents_may_ask_for_health_and_nothing_else(agent: AgentProcess, app_id: str) -> None:
    credentials = agents_own(agent, app_id)

    assert await ask_health(agent, credentials) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await describe(agent, credentials)

    error = error_from_call(caught.value, peer="the agent")
    assert isinstance(error, NotPermittedError)
    assert f"agent/{app_id}" in error.text


METHODS = messages.DESCRIPTOR.services_by_name["DataAgent"].methods_by_name


@pytest.mark.parametrize("method", METHODS)
async def test_every_call_of_the_service_is_closed_to_agents(agent: AgentProcess, method: str) -> None:
    path = f"/mathison.data.v1.DataAgent/{method}"
    async with agent.channel(agents_own(agent)) as channel:
        unary: Any = channel.unary_stream(path)
        stream: Any = channel.stream_stream(path)
        # What is written to a call that has ended may replace its status by another (grpc/grpc#36066).
        call = stream() if METHODS[method].client_streaming else unary(b"")
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_agent_is_not_taken_for_another(agent: AgentProcess) -> None:
    credentials = agent.controller_identity.channel_credentials()
    options = [(TARGET_NAME_OPTION, agent_name("shop.web"))]
    async with grpc.aio.secure_channel(agent.address_file.read_text(), credentials, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Stub(channel).Describe(messages.DescribeRequest(), timeout=20)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("service", ["", "mathison.data.v1.DataAgent"])
async def test_health_says_serving(agent: AgentProcess, service: str) -> None:
    credentials = agent.controller_identity.channel_credentials()

    assert await ask_health(agent, credentials, service) == health_pb2.HealthCheckResponse.SERVING


async def test_health_of_an_unknown_service_is_not_found(agent: AgentProcess) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask_health(agent, agent.controller_identity.channel_credentials(), "nobody")

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_describes_the_service(agent: AgentProcess) -> None:
    def reflect() -> tuple[list[str], list[str]]:
        options = [(TARGET_NAME_OPTION, agent_name(APP_ID))]
        credentials = agent.controller_identity.channel_credentials()
        with grpc.secure_channel(agent.address_file.read_text(), credentials, options=options) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            service = DescriptorPool(database).FindServiceByName("mathison.data.v1.DataAgent")
            return list(database.get_services()), [method.name for method in service.methods]

    services, methods = await asyncio.to_thread(reflect)

    assert {"mathison.data.v1.DataAgent", "grpc.health.v1.Health"} < set(services)
    assert {"Describe", "Export", "Stage", "Restore"} < set(methods)


def served_serial_number(agent: AgentProcess) -> str:
    """Of the certificate that a new connection meets."""
    identity = agent.controller_identity
    (agent.directory / "caller.pem").write_bytes(identity.key + identity.certificate)
    context = ssl.create_default_context(cadata=agent.authority.pem.decode())
    context.load_cert_chain(agent.directory / "caller.pem")
    host, _, port = agent.address_file.read_text().rpartition(":")
    with (
        socket.create_connection((host, int(port))) as connection,
        context.wrap_socket(connection, server_hostname=agent_name(APP_ID)) as secured,
    ):
        certificate = secured.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


async def test_a_renewed_certificate_is_used_at_once_while_a_stream_goes_on(agent: AgentProcess) -> None:
    agent.pause("export chunk")
    async with agent.channel() as channel:
        call = aiter(Stub(channel).Export(messages.ExportRequest(transfer_id="t-1")))
        await anext(call)
        before = await asyncio.to_thread(served_serial_number, agent)

        agent.give_identity()

        after = await asyncio.to_thread(served_serial_number, agent)
        assert (await describe(agent, agent.controller_identity.channel_credentials())).app_id == APP_ID
        agent.go_on("export chunk")
        frames = [frame async for frame in call]

    assert before != after
    assert frames[-1].end.size_bytes == 8


async def test_a_renewed_certificate_that_cannot_be_used_leaves_the_one_before(agent: AgentProcess) -> None:
    before = await asyncio.to_thread(served_serial_number, agent)

    (agent.state / "identity" / "identity.pem").write_text("nonsense")

    assert await asyncio.to_thread(served_serial_number, agent) == before
    await until(lambda: any(line["action"] == "renew_identity" for line in agent.log))
    agent.give_identity()


ODD_REQUESTS = {
    "an id with a slash": messages.ExportRequest(transfer_id="../x"),
    "no id": messages.ExportRequest(),
    "a long format": messages.ExportRequest(transfer_id="t", format="x" * 2000),
    "a long option": messages.ExportRequest(transfer_id="t", options={"x": "y" * 2000}),
    "many options": messages.ExportRequest(transfer_id="t", options={str(n): "" for n in range(100)}),
}


@pytest.mark.parametrize("name", ODD_REQUESTS)
async def test_odd_requests_are_refused(stub: Stub, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.Export(ODD_REQUESTS[name])))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(error_from_call(caught.value, peer="the agent"), InvalidRequestError)


def odd_uploads() -> dict[str, list[messages.StageRequest]]:
    """The last message of each is the odd one: what is written after the agent has answered may fail anyhow."""
    start = messages.StageRequest(start=messages.StageStart(transfer_id="odd-1"))
    never = transfer_pb2.ArchiveHeader(file_name="x")
    never.created_at.seconds = 1 << 60
    long = transfer_pb2.ArchiveHeader(file_name="x" * 5000)
    many = transfer_pb2.ArchiveHeader(details={str(number): "" for number in range(100)})
    return {
        "no start": [messages.StageRequest(frame=transfer_pb2.Frame(chunk=b"x"))],
        "an empty message": [messages.StageRequest()],
        "two starts": [start, start],
        "no such moment": [start, messages.StageRequest(frame=transfer_pb2.Frame(header=never))],
        "a long name": [start, messages.StageRequest(frame=transfer_pb2.Frame(header=long))],
        "many details": [start, messages.StageRequest(frame=transfer_pb2.Frame(header=many))],
        "nothing": [],
    }


@pytest.mark.parametrize("name", odd_uploads())
async def test_odd_uploads_are_refused_and_the_agent_is_ready_again(agent: AgentProcess, stub: Stub, name: str) -> None:
    call = stub.Stage()
    for request in odd_uploads()[name]:
        await call.write(request)
    if name == "nothing":
        await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass

    assert isinstance(error_from_call(caught.value, peer="the agent"), InvalidRequestError)
    frames = [frame async for frame in stub.Export(messages.ExportRequest(transfer_id="t-2"))]
    assert frames[-1].HasField("end")
    assert agent.journal_lines == 0


async def test_a_message_over_the_limit_is_refused(stub: Stub) -> None:
    async def requests() -> AsyncIterator[messages.StageRequest]:
        yield messages.StageRequest(start=messages.StageStart(transfer_id="large-1"))
        yield messages.StageRequest(frame=transfer_pb2.Frame(chunk=bytes(5 << 20)))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Stage(requests()):
            pass

    assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)


async def test_a_long_error_arrives_with_its_reason(stopped_agent: AgentProcess) -> None:
    agent = stopped_agent
    agent.recipe_settings["failure"] = "ä\n" * 3000 + "the last line"
    agent.start()
    async with agent.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in Stub(channel).Export(messages.ExportRequest(transfer_id="t-1")):
                pass

    error = error_from_call(caught.value, peer="the agent")
    assert isinstance(error, ToolFailedError)
    assert error.text.endswith("the last line")


async def test_a_fault_is_answered_without_details_and_found_in_the_log(stopped_agent: AgentProcess) -> None:
    agent = stopped_agent
    agent.recipe_settings["fault"] = "a secret detail"
    agent.start()
    async with agent.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in Stub(channel).Export(messages.ExportRequest(transfer_id="t-17")):
                pass

    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value)
    assert "t-17" in str(caught.value.details())
    traces = [line for line in agent.log if "exception" in line]
    assert [trace["transfer_id"] for trace in traces] == ["t-17"]
    assert "a secret detail" in traces[0]["exception"]
