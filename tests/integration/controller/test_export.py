"""Export through the real controller: whole or visibly broken."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from common.errors import AppUnavailableError, FormatNotSupportedError, ServiceError, ToolFailedError
from tests.fakes.fake_agent import BLOCK, ExportPlan, FakeAgent, Launch
from tests.fixtures.controller import ControllerProcess, until_export_is_still
from tests.fixtures.curl import curl
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXPORT = "/api/deployments/shop.db/export-data"


def curl_export(controller: ControllerProcess, token: str, target: Path) -> list[str]:
    headers = ["--header", f"Authorization: Bearer {token}"]
    return ["--request", "POST", *headers, "--output", str(target), controller.rest + EXPORT]


async def test_an_export_arrives_whole_with_its_headers(
    client: aiohttp.ClientSession, agent: FakeAgent, controller: ControllerProcess
) -> None:
    params = {"format": "sql.gz", "option.tables": "a", "database": "app", "fingerprint": "no"}
    async with client.post(EXPORT, params=params) as answer:
        content = await answer.read()

    assert answer.status == 200
    assert content == BLOCK * 3
    assert answer.content_type == "application/gzip"
    assert "Content-Length" not in answer.headers
    assert answer.headers["Mathison-Recipe"] == "postgresql"
    assert answer.headers["Mathison-Format"] == "sql.gz"
    assert answer.headers["Mathison-Engine-Version"] == "17.6"
    request = agent.export_requests[0]
    assert (request.format, dict(request.options)) == (
        "sql.gz",
        {"tables": "a", "database": "app", "fingerprint": "no"},
    )
    assert answer.headers["Mathison-Transfer"] == request.transfer_id


async def test_an_export_leaves_two_lines_in_the_audit_log(
    client: aiohttp.ClientSession, controller: ControllerProcess
) -> None:
    async with client.post(EXPORT, headers={"Mathison-Transfer": "t-1"}) as answer:
        await answer.read()

    await until(lambda: len(controller.audit()) == 2)
    started, ended = controller.audit()
    assert (started["result"], ended["result"]) == ("started", "succeeded")
    for line in (started, ended):
        assert (line["action"], line["app_id"], line["transfer_id"]) == ("export", "shop.db", "t-1")
        assert (line["caller"], line["remote_address"]) == ("tester", "127.0.0.1")
    assert ended["size_bytes"] == len(BLOCK) * 3
    assert ended["sha256"] == hashlib.sha256(BLOCK * 3).hexdigest()
    assert controller.state.audit.stat().st_mode & 0o777 == 0o600


async def test_file_names_cannot_leave_their_header(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.export_plan.header.file_name = '../r\u00e9sum\u00e9 "1"\r\nSet-Cookie: a=b.sql'
    agent.export_plan.header.engine_version = "17\r\nX: y"
    agent.export_plan.header.media_type = "text/html\r\nX: y"

    async with client.post(EXPORT) as answer:
        await answer.read()

    assert answer.headers["Content-Disposition"] == (
        'attachment; filename="r_sum_ _1___Set-Cookie: a=b.sql"; '
        "filename*=UTF-8''r%C3%A9sum%C3%A9%20%221%22%0D%0ASet-Cookie%3A%20a%3Db.sql"
    )
    assert answer.content_disposition is not None
    assert "Set-Cookie" not in answer.headers
    assert answer.content_type == "application/octet-stream"


async def test_an_empty_archive_is_a_whole_empty_file(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.export_plan.chunks = 0

    async with client.post(EXPORT) as answer:
        content = await answer.read()

    assert (answer.status, content) == (200, b"")


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        pytest.param(AppUnavailableError("PostgreSQL does not answer.", next_step="Start it."), 503, id="app away"),
        pytest.param(FormatNotSupportedError("There is no format 'x'."), 400, id="format"),
        pytest.param(ToolFailedError("pg_dump: out of memory"), 502, id="tool"),
    ],
)
async def test_what_fails_before_the_first_chunk_is_a_clean_problem(
    client: aiohttp.ClientSession, agent: FakeAgent, refusal: ServiceError, status: int
) -> None:
    agent.export_plan.refusal = refusal

    async with client.post(EXPORT, headers={"Mathison-Transfer": "t-1"}) as answer:
        problem = json.loads(await answer.read())

    assert answer.status == problem["status"] == status
    assert answer.content_type == "application/problem+json"
    assert problem["type"] == "https://data.mathison.io/errors/" + refusal.reason.lower().replace("_", "-")
    assert (problem["reason"], problem["detail"]) == (refusal.reason, refusal.text)
    assert problem["next_step"] == refusal.next_step
    assert problem["transfer_id"] == answer.headers["Mathison-Transfer"] == "t-1"
    assert ("Retry-After" in answer.headers) == (status == 503)


async def test_a_failure_after_the_header_but_before_the_first_chunk_is_a_clean_problem(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.export_plan = ExportPlan(chunks=0, failure=ToolFailedError("pg_dump was killed"))

    async with client.post(EXPORT) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (502, "TOOL_FAILED")


BROKEN = [
    pytest.param(ExportPlan(failure=ToolFailedError("pg_dump was killed")), "TOOL_FAILED", id="the tool fails"),
    pytest.param(ExportPlan(sends_end=False), "AGENT_UNAVAILABLE", id="no end frame"),
    pytest.param(ExportPlan(end_sha256="0" * 64), "DIGEST_MISMATCH", id="wrong digest"),
]


@pytest.mark.parametrize(("plan", "reason"), BROKEN)
async def test_a_broken_export_makes_curl_fail(
    controller: ControllerProcess, agent: FakeAgent, token: str, tmp_path: Path, plan: ExportPlan, reason: str
) -> None:
    agent.export_plan = plan

    status, _ = await curl(*curl_export(controller, token, tmp_path / "file"))

    assert status in (18, 56)  # partial file, failure in receiving
    assert controller.audit()[-1]["result"] == "failed"
    assert controller.audit()[-1]["reason"] == reason


@pytest.mark.parametrize(("plan", "reason"), BROKEN)
async def test_a_broken_export_makes_aiohttp_raise(
    client: aiohttp.ClientSession, agent: FakeAgent, plan: ExportPlan, reason: str
) -> None:
    agent.export_plan = plan

    with pytest.raises(aiohttp.ClientError):
        async with client.post(EXPORT) as answer:
            await answer.read()


async def test_a_whole_export_makes_curl_succeed(controller: ControllerProcess, token: str, tmp_path: Path) -> None:
    target = tmp_path / "file"

    status, _ = await curl(*curl_export(controller, token, target))

    assert status == 0
    assert target.read_bytes() == BLOCK * 3


@contextlib.asynccontextmanager
async def agent_process(controller: ControllerProcess, **plan: Any) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A fake agent that can be killed, and the controller started in front of it."""
    identity = controller.agent_identity("shop.db")
    launch = Launch("shop.db", identity.key, identity.certificate, identity.authorities, "127.0.0.1:0", **plan)
    file = controller.directory / "launch"
    file.write_bytes(msgspec.msgpack.encode(launch))
    program = [sys.executable, "-m", "tests.fakes.fake_agent", str(file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, env={"PYTHONPATH": ".:protos"}) as process:
        assert process.stdout is not None
        controller.apps["shop.db"] = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
        try:
            await controller.start()
            yield process
        finally:
            process.kill()


async def test_an_agent_killed_in_the_middle_makes_curl_fail(own_controller: ControllerProcess, tmp_path: Path) -> None:
    target = tmp_path / "file"
    async with agent_process(own_controller, chunks=10_000, pause_seconds=0.01) as process:
        running = asyncio.create_task(curl(*curl_export(own_controller, own_controller.token(), target)))
        await until(lambda: target.exists() and target.stat().st_size > 5 * len(BLOCK))

        process.send_signal(signal.SIGKILL)
        status, _ = await running

    assert status in (18, 56)
    assert own_controller.audit()[-1]["reason"] == "AGENT_UNAVAILABLE"


async def test_an_agent_that_gives_no_sign_of_life_makes_curl_fail_and_a_silent_one_does_not(
    own_controller: ControllerProcess, tmp_path: Path
) -> None:
    own_controller.limits["agent_keepalive_seconds"] = 1
    target = tmp_path / "file"
    async with agent_process(own_controller, chunks=3, pause_seconds=0, hangs_after_chunks=True) as process:
        running = asyncio.create_task(curl(*curl_export(own_controller, own_controller.token(), target)))
        await until(lambda: target.exists() and target.stat().st_size == 3 * len(BLOCK))
        await asyncio.wait({running}, timeout=5)
        assert not running.done()

        process.send_signal(signal.SIGSTOP)
        status, _ = await asyncio.wait_for(running, 20)

    assert status in (18, 56)
    assert own_controller.audit()[-1]["reason"] == "AGENT_UNAVAILABLE"


async def test_a_client_who_leaves_while_the_agent_is_silent_ends_the_dump_within_a_second(
    client: aiohttp.ClientSession, agent: FakeAgent, controller: ControllerProcess
) -> None:
    agent.export_plan = ExportPlan(chunks=1, hangs_after_chunks=True)
    answer = await client.post(EXPORT)
    await answer.content.readany()

    answer.close()

    await asyncio.wait_for(agent.export_ended.wait(), 1)
    await until(lambda: len(controller.audit()) == 2)
    assert controller.audit()[-1]["result"] == "cancelled"


async def test_a_client_who_leaves_while_the_controller_is_blocked_writing_ends_the_dump_within_a_second(
    controller: ControllerProcess, agent: FakeAgent, token: str
) -> None:
    agent.export_plan.chunks = 1_000
    host, _, port = controller.rest.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        request = f"POST {EXPORT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        await asyncio.to_thread(connection.sendall, request.encode())
        await until_export_is_still(controller, agent)

    await asyncio.wait_for(agent.export_ended.wait(), 1)
    assert agent.exported_chunks < 100


async def test_a_client_who_takes_nothing_for_too_long_is_dropped(
    own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    own_controller.limits["stalled_caller_seconds"] = 1
    await own_controller.start()
    own_agent.export_plan.chunks = 1_000
    headers = own_controller.bearer(own_controller.token())
    async with aiohttp.ClientSession(own_controller.rest, headers=headers) as session:
        answer = await session.post(EXPORT)

        await asyncio.wait_for(own_agent.export_ended.wait(), 10)
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_http_1_0_is_refused(controller: ControllerProcess, token: str, agent: FakeAgent, tmp_path: Path) -> None:
    target = tmp_path / "file"

    status, code = await curl("--http1.0", "--write-out", "%{http_code}", *curl_export(controller, token, target))

    assert (status, code) == (0, b"505")
    assert json.loads(target.read_bytes())["reason"] == "INVALID_REQUEST"
    assert not agent.export_requests


async def test_an_agent_that_is_away_is_a_problem_that_says_so(
    own_client: aiohttp.ClientSession, own_agent: FakeAgent
) -> None:
    await own_agent.stop()

    async with own_client.post(EXPORT) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
    assert "The agent of shop.db" in problem["detail"]


@pytest.mark.parametrize(
    ("query", "named"),
    [("?fromat=sql", "fromat"), ("?format=a&format=b", "format"), ("?option.=x", "option.")],
)
async def test_unknown_and_repeated_parameters_are_refused_by_name(
    client: aiohttp.ClientSession, agent: FakeAgent, query: str, named: str
) -> None:
    async with client.post(EXPORT + query) as answer:
        problem = await answer.json()

    assert answer.status == 400
    assert re.search(rf"'{re.escape(named)}'", problem["detail"])
    assert not agent.export_requests


@pytest.mark.parametrize("route", ["export-data", "undo-import", "confirm-import"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["with a length", "chunked"])
async def test_parameters_in_a_body_are_not_passed_over_in_silence(
    client: aiohttp.ClientSession, agent: FakeAgent, route: str, is_chunked: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"format": "tar"}'

    body = pieces() if is_chunked else b"{broken"
    async with client.post(f"/api/deployments/shop.db/{route}", data=body) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (400, "INVALID_REQUEST")
    assert "This takes no body." in problem["detail"]
    assert ("format" if route == "export-data" else "transfer_id") in problem["next_step"]
    assert not agent.export_requests


async def test_a_body_without_a_byte_is_none(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    pieces: list[bytes] = []

    async def nothing() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    headers = {"Content-Type": "application/json"}
    async with client.post(EXPORT, data=b"", headers=headers) as empty:
        await empty.read()
    async with client.post(EXPORT, data=nothing(), headers=headers) as without_chunks:
        await without_chunks.read()

    assert (empty.status, without_chunks.status) == (200, 200)


async def test_a_malformed_transfer_id_is_refused(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    async with client.post(EXPORT, headers={"Mathison-Transfer": "../x"}) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (400, "INVALID_REQUEST")
    assert not agent.export_requests


async def test_sigterm_ends_a_stuck_download_visibly_within_the_grace_period(
    own_controller: ControllerProcess, own_agent: FakeAgent, tmp_path: Path
) -> None:
    own_controller.limits["stop_grace_seconds"] = 1
    await own_controller.start()
    own_agent.export_plan = ExportPlan(chunks=5, hangs_after_chunks=True)
    target = tmp_path / "file"
    running = asyncio.create_task(curl(*curl_export(own_controller, own_controller.token(), target)))
    await until(target.exists)

    exit_status = await asyncio.wait_for(own_controller.stop(), 10)

    assert exit_status == 0
    assert (await running)[0] in (18, 56)
    last = own_controller.audit()[-1]
    assert (last["result"], last["reason"]) == ("cancelled", "CONTROLLER_STOPPED")


async def test_killing_the_controller_ends_the_dump_and_the_download(
    own_controller: ControllerProcess, own_agent: FakeAgent, tmp_path: Path
) -> None:
    await own_controller.start()
    own_agent.export_plan = ExportPlan(chunks=5, hangs_after_chunks=True)
    target = tmp_path / "file"
    running = asyncio.create_task(curl(*curl_export(own_controller, own_controller.token(), target)))
    await until(target.exists)

    await own_controller.stop(signal.SIGKILL)

    await asyncio.wait_for(own_agent.export_ended.wait(), 5)
    assert (await running)[0] in (18, 56)
    assert [line["result"] for line in own_controller.audit()] == ["started"]
