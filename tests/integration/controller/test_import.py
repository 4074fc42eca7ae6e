"""Import through the real controller: nothing reaches the agent as whole that was not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import signal
import socket
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from common.errors import (
    AppBusyError,
    ArchiveWrongKindError,
    NoSpaceError,
    ServiceError,
    TransferInProgressError,
)
from mathison.data.v1 import transfer_pb2
from tests.fakes.fake_agent import BLOCK, FakeAgent
from tests.fixtures.controller import ControllerProcess
from tests.fixtures.curl import curl
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
IMPORT = "/api/deployments/shop.db/import-data"
ARCHIVE = b"CREATE TABLE a (b text);\n" * 100_000
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


def digest_header(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def form(content: bytes, *, name: str = "file", headers: str = "", end: str = "\r\n--b--\r\n") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="dump.sql"\r\n'
    return f"--b\r\n{disposition}{headers}\r\n".encode() + content + end.encode()


FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=b"}


async def test_a_raw_body_is_staged_and_restored(
    client: aiohttp.ClientSession, agent: FakeAgent, controller: ControllerProcess
) -> None:
    headers = {
        "Mathison-Transfer": "t-1",
        "Content-Type": "application/sql",
        "Content-Disposition": "attachment; filename*=UTF-8''..%2Fd%C3%BCmp.sql",
        "Repr-Digest": digest_header(ARCHIVE),
    }

    async with client.post(IMPORT, data=BytesIO(ARCHIVE), headers=headers, params={"option.owner": "app"}) as answer:
        state = await answer.json()

    assert answer.status == 200
    assert (state["transfer_id"], state["kind"], state["result"]) == ("t-1", "import", "succeeded")
    assert (state["app_id"], state["progress"]["phase"]) == ("shop.db", "done")
    assert (state["end"]["size_bytes"], state["end"]["sha256"]) == (len(ARCHIVE), SHA256)
    received = agent.stages[0]
    assert (received.has_end, received.sha256, received.size_bytes) == (True, SHA256, len(ARCHIVE))
    assert dict(received.start.options) == {"owner": "app"}
    assert received.header is not None
    assert received.header.file_name == "d\u00fcmp.sql"
    assert received.header.media_type == "application/sql"
    assert received.header.size_bytes == len(ARCHIVE)
    assert agent.restored == ["t-1"]
    last = controller.audit()[-1]
    assert (last["action"], last["result"]) == ("import", "succeeded")
    assert (last["size_bytes"], last["sha256"]) == (len(ARCHIVE), SHA256)


async def test_a_form_with_the_file_is_staged_and_restored(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    content = aiohttp.FormData()
    content.add_field("file", BytesIO(ARCHIVE), filename="dump.sql", content_type="application/sql")

    async with client.post(IMPORT, data=content, headers={"Repr-Digest": digest_header(ARCHIVE)}) as answer:
        state = await answer.json()

    assert (answer.status, state["result"]) == (200, "succeeded")
    received = agent.stages[0]
    assert (received.has_end, received.sha256) == (True, SHA256)
    assert received.header is not None
    assert received.header.file_name == "dump.sql"


async def test_a_file_name_that_is_no_utf_8_keeps_no_file_out(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    body = form(b"SELECT 1;", headers="Content-Type: text/caf\u00e9\r\n").replace(b"dump.sql", b"caf\xe9.sql")

    async with client.post(IMPORT, data=body.replace("\u00e9".encode(), b"\xe9"), headers=FORM_TYPE) as answer:
        state = await answer.json()

    assert (answer.status, state["result"]) == (200, "succeeded")
    header = agent.stages[0].header
    assert header is not None
    assert (header.file_name, header.media_type) == ("caf?.sql", "text/caf?")


async def test_a_malformed_file_name_keeps_no_file_out_and_does_not_get_into_the_log(
    controller: ControllerProcess, client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    for disposition in (';;;=private"', "attachment; filename*=nonsense''private%ff"):
        async with client.post(IMPORT, data=b"x", headers={"Content-Disposition": disposition}) as answer:
            assert answer.status == 200

    log = controller.log.read_text()
    assert "private" not in log
    assert all(line.startswith("{") for line in log.splitlines())


async def test_curl_uploads_a_form_and_a_raw_body(
    controller: ControllerProcess, agent: FakeAgent, token: str, tmp_path: Path
) -> None:
    file = tmp_path / "dump.sql"
    file.write_bytes(BLOCK * 4)
    url, headers = controller.rest + IMPORT, ["--fail", "--header", f"Authorization: Bearer {token}"]

    by_form, _ = await curl(*headers, "--form", f"file=@{file}", url)
    raw, _ = await curl(*headers, "--request", "POST", "--upload-file", str(file), url)
    from_a_pipe, _ = await curl(*headers, "--request", "POST", "--upload-file", "-", url, stdin=file)

    assert (by_form, raw, from_a_pipe) == (0, 0, 0)
    assert [received.sha256 for received in agent.stages] == [hashlib.sha256(BLOCK * 4).hexdigest()] * 3
    assert len(agent.restored) == 3


async def test_a_dry_run_stops_before_the_swap(
    client: aiohttp.ClientSession, agent: FakeAgent, controller: ControllerProcess
) -> None:
    async with client.post(IMPORT, data=BytesIO(ARCHIVE), params={"dry_run": "true"}) as answer:
        state = await answer.json()

    assert (answer.status, state["progress"]["phase"]) == (200, "staged")
    assert state["preview"]["changes"] == ["12 tables"]
    assert agent.stages[0].start.dry_run
    assert not agent.restored
    assert controller.audit()[-1]["is_dry_run"]


@pytest.mark.parametrize("query", ["dryrun=true", "dry_run=1", "dry_run=true&dry_run=true"])
async def test_a_misspelt_dry_run_is_no_import(client: aiohttp.ClientSession, agent: FakeAgent, query: str) -> None:
    async with client.post(f"{IMPORT}?{query}", data=BytesIO(ARCHIVE)) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (400, "INVALID_REQUEST")
    assert not agent.stages


async def test_an_empty_body_is_passed_on_as_an_empty_archive(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    async with client.post(IMPORT) as answer:
        assert answer.status == 200

    assert (agent.stages[0].has_end, agent.stages[0].size_bytes) == (True, 0)


async def test_a_failed_upload_is_answered_once_the_app_is_free_for_the_next(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.stage_plan.tidy_seconds = 0.5

    headers = {"Content-Digest": digest_header(b"other")}
    async with client.post(IMPORT, data=BytesIO(ARCHIVE), headers=headers) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (400, "DIGEST_MISMATCH")
    assert problem["detail"].endswith(" Nothing was changed.")
    (state,) = agent.states.values()
    assert state.result == transfer_pb2.TRANSFER_RESULT_FAILED


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with a length", "chunked"])
async def test_a_body_that_is_cut_never_gets_an_end_frame(
    controller: ControllerProcess, agent: FakeAgent, token: str, is_chunked: bool
) -> None:
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(ARCHIVE)}"
    body = b"%x\r\n%b\r\n" % (1 << 20, ARCHIVE[: 1 << 20]) if is_chunked else ARCHIVE[:-1]

    async with half_a_request(controller, token, framing, body):
        await until(lambda: bool(agent.stages) and agent.stages[0].header is not None)

    await asyncio.wait_for(agent.stages[0].ended.wait(), 5)
    assert not agent.stages[0].has_end
    assert not agent.restored
    await until(lambda: controller.audit()[-1]["result"] != "started")
    last = controller.audit()[-1]
    assert (last["result"], last["reason"]) in (("failed", "UPLOAD_INCOMPLETE"), ("cancelled", "CALLER_LEFT"))


@contextlib.asynccontextmanager
async def half_a_request(controller: ControllerProcess, token: str, framing: str, body: bytes) -> AsyncIterator[None]:
    """Send the beginning of a request; leaving the context closes the connection."""
    host, _, port = controller.rest.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {IMPORT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{framing}\r\n\r\n".encode())
    writer.write(body)
    await writer.drain()
    yield
    writer.close()
    await writer.wait_closed()


async def test_a_form_that_is_cut_but_well_framed_never_gets_an_end_frame(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    whole = form(b"x" * 100)
    for size in (10, 60, 100, 150, *range(len(whole) - 12, len(whole) - 2)):
        async with client.post(IMPORT, data=whole[:size], headers=FORM_TYPE) as answer:
            problem = await answer.json()

        assert (answer.status, problem["reason"]) in ((400, "UPLOAD_INCOMPLETE"), (400, "INVALID_REQUEST")), size
    await asyncio.gather(*(received.ended.wait() for received in agent.stages))
    assert not any(received.has_end for received in agent.stages)
    assert not agent.restored


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(form(b"x", name="dump"), "INVALID_REQUEST", id="another name"),
        pytest.param(
            form(b"x", end='\r\n--b\r\nContent-Disposition: form-data; name="c"\r\n\r\ny\r\n--b--\r\n'),
            "INVALID_REQUEST",
            id="two parts",
        ),
        pytest.param(form(b"x", headers="Content-Transfer-Encoding: base64\r\n"), "INVALID_REQUEST", id="encoded"),
        pytest.param(form(b"x", headers=f"Content-Digest: {digest_header(b'y')}\r\n"), "DIGEST_MISMATCH", id="digest"),
        pytest.param(b"--b--\r\n", "INVALID_REQUEST", id="no part"),
        pytest.param(form(b"x", end="\r\n" + 10_000 * "--b\r\n\r\n\r\n"), "INVALID_REQUEST", id="10,000 parts"),
        pytest.param(form(b"x" * 40, name="_charset_"), "INVALID_REQUEST", id="a character set that is none"),
    ],
)
async def test_a_form_that_is_not_one_file_never_gets_an_end_frame(
    client: aiohttp.ClientSession, agent: FakeAgent, body: bytes, reason: str
) -> None:
    async with client.post(IMPORT, data=body, headers=FORM_TYPE) as answer:
        problem = await answer.json()

    assert problem["reason"] == reason
    await agent.stages[0].ended.wait()
    assert not agent.stages[0].has_end


@pytest.mark.parametrize("header", ["Repr-Digest", "Content-Digest"])
async def test_a_body_that_is_not_what_its_digest_says_never_gets_an_end_frame(
    client: aiohttp.ClientSession, agent: FakeAgent, header: str
) -> None:
    async with client.post(IMPORT, data=BytesIO(ARCHIVE), headers={header: digest_header(b"other")}) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (400, "DIGEST_MISMATCH")
    await agent.stages[0].ended.wait()
    assert not agent.stages[0].has_end
    assert not agent.restored


async def test_every_digest_that_is_announced_is_checked(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    headers = [("Repr-Digest", digest_header(ARCHIVE)), ("Repr-Digest", digest_header(b"other"))]

    async with client.post(IMPORT, data=BytesIO(ARCHIVE), headers=headers) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (400, "DIGEST_MISMATCH")
    assert not agent.restored


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Repr-Digest": "sha-512=:AAAA:"}, 400, id="a digest that is not checked"),
        pytest.param({"Repr-Digest": "sha-256=:AAAA:"}, 400, id="a malformed digest"),
        pytest.param({"Content-Encoding": "gzip"}, 415, id="an encoded body"),
        pytest.param({"Expect": "200-maybe"}, 417, id="another expectation"),
        pytest.param(FORM_TYPE | {"Content-Digest": digest_header(ARCHIVE)}, 400, id="a form's content digest"),
        pytest.param({"Content-Range": "bytes 100-199/200"}, 400, id="a part of the file"),
    ],
)
async def test_headers_that_cannot_be_met_are_refused_before_the_agent_is_asked(
    client: aiohttp.ClientSession, agent: FakeAgent, headers: dict[str, str], status: int
) -> None:
    async with client.post(IMPORT, data=BytesIO(ARCHIVE), headers=headers, skip_auto_headers=["Expect"]) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (status, "INVALID_REQUEST")
    assert not agent.stages


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with a length", "chunked"])
async def test_a_body_over_the_limit_is_refused(
    own_controller: ControllerProcess, own_agent: FakeAgent, is_chunked: bool
) -> None:
    own_controller.limits["upload_bytes"] = len(ARCHIVE) - 1
    await own_controller.start()
    headers = own_controller.bearer(own_controller.token())

    async def pieces() -> AsyncIterator[bytes]:
        yield ARCHIVE

    async with (
        aiohttp.ClientSession(own_controller.rest, headers=headers) as session,
        session.post(IMPORT, data=pieces() if is_chunked else BytesIO(ARCHIVE)) as answer,
    ):
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (413, "LIMIT_EXCEEDED")
    assert "limits.upload_bytes in the controller's settings" in problem["next_step"]
    assert not any(received.has_end for received in own_agent.stages)


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        pytest.param(TransferInProgressError("shop.db is busy with t-0."), 409, id="busy"),
        pytest.param(NoSpaceError("No room."), 507, id="no room"),
    ],
)
async def test_a_caller_who_asks_first_is_refused_before_the_body(
    controller: ControllerProcess, agent: FakeAgent, token: str, tmp_path: Path, refusal: ServiceError, status: int
) -> None:
    agent.stage_plan.refusal = refusal
    file = tmp_path / "dump.sql"
    file.write_bytes(BLOCK * 4)

    exit_status, output = await curl(
        *("--header", f"Authorization: Bearer {token}", "--header", "Expect: 100-continue"),
        *("--expect100-timeout", "20", "--request", "POST", "--upload-file", str(file)),
        *("--write-out", "\n%{http_code} %{size_upload}", controller.rest + IMPORT),
    )

    problem, _, facts = output.decode().rpartition("\n")
    assert exit_status == 0
    assert facts == f"{status} 0"
    assert json.loads(problem)["reason"] == refusal.reason


async def test_a_caller_who_asks_first_and_is_unknown_is_refused_before_the_body(
    controller: ControllerProcess, tmp_path: Path
) -> None:
    file = tmp_path / "dump.sql"
    file.write_bytes(BLOCK * 4)

    _, facts = await curl(
        *("--header", "Expect: 100-continue", "--expect100-timeout", "20", "--request", "POST"),
        *("--upload-file", str(file), "--output", "/dev/null"),
        *("--write-out", "%{http_code} %{size_upload}", controller.rest + IMPORT),
    )

    assert facts == b"401 0"


async def test_a_refusal_in_the_middle_is_answered_at_once(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.stage_plan.refusal = ArchiveWrongKindError("This is no SQL.", next_step="Choose another file.")
    agent.stage_plan.refusal_after_chunks = 1
    left = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while not left.is_set():
            yield BLOCK
            await asyncio.sleep(0)

    async with asyncio.timeout(5), client.post(IMPORT, data=endless()) as answer:
        problem = await answer.json()
        left.set()

    assert (answer.status, problem["reason"]) == (422, "ARCHIVE_WRONG_KIND")
    assert (problem["detail"], problem["next_step"]) == ("This is no SQL. Nothing was changed.", "Choose another file.")


async def test_a_sender_who_falls_silent_is_dropped(own_controller: ControllerProcess, own_agent: FakeAgent) -> None:
    own_controller.limits["stalled_caller_seconds"] = 1
    await own_controller.start()

    async def stuck() -> AsyncIterator[bytes]:
        yield BLOCK
        await asyncio.Event().wait()

    headers = own_controller.bearer(own_controller.token())
    async with (
        aiohttp.ClientSession(own_controller.rest, headers=headers) as session,
        session.post(IMPORT, data=stuck()) as answer,
    ):
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (400, "UPLOAD_INCOMPLETE")
    assert not own_agent.stages[0].has_end


async def test_a_caller_who_leaves_before_the_swap_ends_the_import(
    client: aiohttp.ClientSession, agent: FakeAgent, controller: ControllerProcess
) -> None:
    agent.stage_plan.verify_gate = asyncio.Event()
    running = asyncio.create_task(client.post(IMPORT, data=BytesIO(ARCHIVE)))
    await until(lambda: bool(agent.stages) and agent.stages[0].has_end)

    running.cancel()

    await asyncio.wait_for(agent.stages[0].ended.wait(), 5)
    await until(lambda: controller.audit()[-1]["result"] == "cancelled")
    assert not agent.restored


async def test_a_caller_who_leaves_during_the_swap_does_not_end_it(
    client: aiohttp.ClientSession, agent: FakeAgent, controller: ControllerProcess
) -> None:
    agent.stage_plan.restore_gate = asyncio.Event()
    running = asyncio.create_task(client.post(IMPORT, data=BytesIO(ARCHIVE), headers={"Mathison-Transfer": "t-1"}))
    await until(lambda: "t-1" in agent.states and agent.states["t-1"].progress.phase == 5)

    running.cancel()
    await asyncio.wait({running})
    agent.stage_plan.restore_gate.set()

    await until(lambda: controller.audit()[-1]["result"] == "succeeded")
    async with client.get("/api/transfers/t-1") as answer:
        assert (await answer.json())["result"] == "succeeded"


async def test_the_log_has_what_grpc_said_of_an_agent_that_is_away(
    own_controller: ControllerProcess, own_client: aiohttp.ClientSession, own_agent: FakeAgent
) -> None:
    await own_agent.stop()

    async with own_client.post(IMPORT, data=BytesIO(ARCHIVE)) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
    answered = [line for line in map(json.loads, own_controller.log.read_text().splitlines()) if "status" in line][-1]
    assert "StatusCode.UNAVAILABLE" in answered["cause"]


async def test_a_swap_that_fails_says_why(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.stage_plan.restore_failure = AppBusyError("Sessions did not end.", next_step="Try again.")

    async with client.post(IMPORT, data=BytesIO(ARCHIVE)) as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"], problem["detail"]) == (503, "APP_BUSY", "Sessions did not end.")
    assert "Retry-After" in answer.headers


async def test_an_agent_that_goes_away_during_the_swap_is_not_said_to_have_changed_nothing(
    own_client: aiohttp.ClientSession, own_agent: FakeAgent
) -> None:
    own_agent.stage_plan.restore_gate = asyncio.Event()
    running = asyncio.create_task(own_client.post(IMPORT, data=BytesIO(ARCHIVE), headers={"Mathison-Transfer": "t-1"}))
    await until(lambda: "t-1" in own_agent.states and own_agent.states["t-1"].progress.phase == 5)

    await own_agent.stop()
    async with await running as answer:
        problem = await answer.json()

    assert (answer.status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
    assert "while the app's data was being exchanged" in problem["detail"]
    assert problem["next_step"] == "Look at transfer t-1 then."


async def test_a_controller_that_stops_during_the_swap_does_not_say_how_it_ended(
    own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    own_controller.limits["stop_grace_seconds"] = 1
    await own_controller.start()
    own_agent.stage_plan.restore_gate = asyncio.Event()
    headers = {**own_controller.bearer(own_controller.token()), "Mathison-Transfer": "t-1"}
    async with aiohttp.ClientSession(own_controller.rest, headers=headers) as session:
        running = asyncio.create_task(session.post(IMPORT, data=BytesIO(ARCHIVE)))
        await until(lambda: "t-1" in own_agent.states and own_agent.states["t-1"].progress.phase == 5)

        await own_controller.stop()

        with pytest.raises(aiohttp.ClientError):
            await running
    last = own_controller.audit()[-1]
    assert (last["action"], last["result"], last["reason"]) == ("import", "unknown", "CONTROLLER_STOPPED")


async def test_repeating_a_finished_import_answers_its_state_and_changes_nothing(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    answers: list[dict[str, Any]] = []
    for _ in range(2):
        async with client.post(IMPORT, data=BytesIO(ARCHIVE), headers={"Mathison-Transfer": "t-1"}) as answer:
            answers.append(await answer.json())

    assert answers[0] == answers[1]
    assert agent.restored == ["t-1"]
    assert [received.sha256 for received in agent.stages] == [SHA256, SHA256]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        pytest.param(ARCHIVE[:-1] + b"!", {}, id="another file"),
        pytest.param(ARCHIVE[:-1] + b"!", {"Repr-Digest": digest_header(ARCHIVE[:-1] + b"!")}, id="with its digest"),
        pytest.param(ARCHIVE, {"Repr-Digest": digest_header(b"")}, id="another digest"),
        pytest.param(b"", {}, id="nothing"),
    ],
)
async def test_another_file_under_the_id_of_a_finished_import_is_not_said_to_have_succeeded(
    client: aiohttp.ClientSession,
    agent: FakeAgent,
    controller: ControllerProcess,
    content: bytes,
    headers: dict[str, str],
) -> None:
    async with client.post(IMPORT, data=BytesIO(ARCHIVE), headers={"Mathison-Transfer": "t-1"}) as answer:
        assert answer.status == 200

    async with client.post(IMPORT, data=BytesIO(content), headers={"Mathison-Transfer": "t-1", **headers}) as answer:
        problem = await answer.json()

    assert answer.status == 400
    assert problem["reason"] in ("INVALID_REQUEST", "DIGEST_MISMATCH")
    assert agent.restored == ["t-1"]
    lines = [(line["action"], line["result"], line.get("reason", "")) for line in controller.audit()]
    assert lines[-1] == ("import", "failed", problem["reason"])


async def test_killing_the_controller_during_an_upload_sends_no_end_frame(
    own_controller: ControllerProcess, own_client: aiohttp.ClientSession, own_agent: FakeAgent
) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield BLOCK * 3
        await asyncio.Event().wait()

    running = asyncio.create_task(own_client.post(IMPORT, data=stuck()))
    await until(lambda: bool(own_agent.stages) and own_agent.stages[0].size_bytes > 0)

    await own_controller.stop(signal.SIGKILL)

    with pytest.raises(aiohttp.ClientError):
        await running
    await asyncio.wait_for(own_agent.stages[0].ended.wait(), 5)
    assert not own_agent.stages[0].has_end
    assert not own_agent.restored


async def test_an_agent_that_stands_still_slows_the_sender(
    controller: ControllerProcess, agent: FakeAgent, token: str
) -> None:
    agent.stage_plan.chunk_gate = asyncio.Event()
    host, _, port = controller.rest.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        request = f"POST {IMPORT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        connection.sendall(f"{request}Content-Length: {1 << 34}\r\n\r\n".encode())

        sent = await asyncio.to_thread(send_until_blocked, connection)

    assert sent < 100 << 20
    agent.stage_plan.chunk_gate.set()
    await asyncio.wait_for(agent.stages[0].ended.wait(), 10)
    assert not agent.stages[0].has_end


def send_until_blocked(connection: socket.socket) -> int:
    """Send for as long as somebody takes it, at most 2 GiB; returns how much that was."""
    connection.settimeout(2)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 1 << 31:
            sent += connection.send(BLOCK)
    return sent
