"""Connections to the REST port as a careless or hostile client opens them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import pytest
import pytest_asyncio

from tests.fakes.fake_agent import BLOCK, FakeAgent
from tests.fixtures.controller import ControllerProcess, start_agent
from tests.fixtures.waiting import until
from tests.integration.controller.conftest import APP

pytestmark = pytest.mark.asyncio(loop_scope="module")
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
SECRET = b"mathison-api.not-to-be-seen"
IDLE_SECONDS = 0.5


@asynccontextmanager
async def connected(controller: ControllerProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = controller.rest.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answer_to(controller: ControllerProcess, request: bytes) -> bytes:
    """Everything that comes until the controller closes."""
    async with connected(controller) as (reader, writer), asyncio.timeout(10):
        writer.write(request)
        return await reader.read()


async def is_healthy(controller: ControllerProcess) -> bool:
    """One try on a connection of its own."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with connected(controller) as (reader, writer), asyncio.timeout(2):
            writer.write(HEALTH)
            return (await reader.read(15)).startswith(b"HTTP/1.1 200")
    return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[ControllerProcess, FakeAgent]]:
    """A controller that closes idle connections soon, and its agent."""
    controller = ControllerProcess(tmp_path_factory.mktemp("impatient"))
    controller.limits["idle_connection_seconds"] = IDLE_SECONDS
    agent = await start_agent(controller, APP)
    await controller.start()
    yield controller, agent
    await controller.stop()
    await agent.stop()


@pytest.mark.parametrize("sent", [b"", b"GET /h", HEALTH[:-2], HEALTH], ids=["nothing", "line", "header", "whole"])
async def test_a_connection_that_sends_no_whole_request_is_closed(
    impatient: tuple[ControllerProcess, FakeAgent], sent: bytes
) -> None:
    answer = await answer_to(impatient[0], sent)

    assert answer.startswith(b"HTTP/1.1 200" if sent == HEALTH else b"")
    assert bool(answer) == (sent == HEALTH)


async def test_a_transfer_may_take_longer_than_a_header(impatient: tuple[ControllerProcess, FakeAgent]) -> None:
    controller, agent = impatient
    agent.export_plan.pause_seconds = IDLE_SECONDS
    url = f"{controller.rest}/api/deployments/{APP}"

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield BLOCK
            await asyncio.sleep(IDLE_SECONDS)

    async with aiohttp.ClientSession(headers=controller.bearer(controller.token())) as session:
        async with session.post(f"{url}/export-data") as export:
            content = await export.read()
        async with session.post(f"{url}/import-data", data=slowly()) as imported:
            state = await imported.json()

    assert len(content) == 3 * len(BLOCK)
    assert state["result"] == "succeeded"


async def test_a_connection_too_many_is_told_so_and_the_others_go_on(own_controller: ControllerProcess) -> None:
    own_controller.limits["rest_connections"] = 5
    await own_controller.start()

    async with contextlib.AsyncExitStack() as stack:
        held = [await stack.enter_async_context(connected(own_controller)) for _ in range(5)]
        refused = await answer_to(own_controller, HEALTH)
        reader, writer = held[0]
        writer.write(HEALTH)
        answer = await reader.read(15)
        held[4][1].close()
        async with asyncio.timeout(10):
            while not await is_healthy(own_controller):
                pass

    assert answer.startswith(b"HTTP/1.1 200")
    header, _, body = refused.partition(b"\r\n\r\n")
    assert header.startswith(b"HTTP/1.1 503")
    assert b"application/problem+json" in header
    assert b"Retry-After" in header
    assert json.loads(body)["detail"] == "The controller has too many connections."


async def test_want_of_open_files_is_said_once_and_passes(own_controller: ControllerProcess) -> None:
    await own_controller.start()

    with open_files_limited(own_controller.pid, more=3):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(30):
                await stack.enter_async_context(connected(own_controller))
            await until(lambda: "want of open files" in own_controller.log.read_text())
            await asyncio.sleep(1.5)  # asyncio tries to accept once a second

    async with asyncio.timeout(10):
        while not await is_healthy(own_controller):
            pass
    log = own_controller.log.read_text()
    assert log.count("want of open files") == 1
    assert "Traceback" not in log


@contextmanager
def open_files_limited(pid: int, *, more: int) -> Iterator[None]:
    """A process may open so many more."""
    _, most = before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1 + more, most))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


BEARER = b"Authorization: Bearer " + SECRET
MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02" + SECRET + b"\r\n\r\n",
    "a header too long": b"GET /api/deployments HTTP/1.1\r\nHost: x\r\n" + BEARER + b"a" * 100_000 + b"\r\n\r\n",
    "too many headers": b"GET /healthz HTTP/1.1\r\n" + BEARER + b"\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n",
    "a line without colon": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + SECRET + b"\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\n" + BEARER + b"\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nx",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + SECRET + b"\r\n\r\n",
    "another version": b"GET / HTTP/9.9 " + SECRET + b"\r\nHost: x\r\n\r\n",
    "an unknown expectation": b"GET /api/deployments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: "
    + SECRET
    + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_request_is_answered_with_a_problem_that_says_nothing_of_it(
    controller: ControllerProcess, name: str
) -> None:
    header, _, body = (await answer_to(controller, MALFORMED[name])).partition(b"\r\n\r\n")

    assert re.match(rb"HTTP/1\.[01] 4\d\d ", header), header
    assert b"application/problem+json" in header
    assert json.loads(body)["reason"] in ("INVALID_REQUEST", "NOT_AUTHENTICATED")
    assert SECRET not in header + body
    log = controller.log.read_bytes()
    assert SECRET not in log
    assert b"Traceback" not in log


@pytest.mark.parametrize(
    ("request_line", "status", "said"),
    [
        (b"FOO /api/deployments HTTP/1.1", 400, "its method is none that is known"),
        (b"PUT /api/deployments HTTP/1.1", 405, "There is nothing like this here."),
        (b"GET /api/nothing HTTP/1.1", 404, "There is nothing like this here."),
    ],
)
async def test_what_is_not_there_is_told_from_what_is_not_known(
    controller: ControllerProcess, token: str, request_line: bytes, status: int, said: str
) -> None:
    headers = f"\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n".encode()

    header, _, body = (await answer_to(controller, request_line + headers)).partition(b"\r\n\r\n")

    problem = json.loads(body)
    assert header.startswith((b"HTTP/1.1 %d " % status, b"HTTP/1.0 %d " % status))
    assert (problem["status"], problem["reason"]) == (status, "INVALID_REQUEST")
    assert said in problem["detail"]


@pytest.mark.parametrize("token", [b"\xff", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3\xa4"])
async def test_a_token_that_is_no_text_is_unknown(controller: ControllerProcess, token: bytes) -> None:
    request = b"GET /api/deployments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + token

    header, _, body = (await answer_to(controller, request + b"\r\n\r\n")).partition(b"\r\n\r\n")

    assert header.startswith(b"HTTP/1.1 401")
    assert json.loads(body)["reason"] == "NOT_AUTHENTICATED"
    assert "Traceback" not in controller.log.read_text()
