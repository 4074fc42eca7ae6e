"""Apps and transfers over REST: listing, following, undoing, confirming, cancelling."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import grpc
import pytest

from common.errors import AgentUnavailableError, NothingToUndoError
from mathison.data.v1.transfer_pb2 import Progress, TransferState
from tests.fakes.fake_agent import ExportPlan, FakeAgent
from tests.fixtures.controller import ControllerProcess, start_agent
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXPORT = "/api/deployments/shop.db/export-data"
IMPORT = "/api/deployments/shop.db/import-data"


async def get(client: aiohttp.ClientSession, path: str) -> Any:
    async with client.get(path) as answer:
        assert answer.status == 200
        return await answer.json()


async def post(client: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, Any]:
    async with client.post(path, headers=headers) as answer:
        content = await answer.read()
        return answer.status, json.loads(content) if answer.content_type.endswith("json") else content


async def test_apps_are_described(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    listed = await get(client, "/api/deployments")
    of_workspace = await get(client, "/api/deployments?workspace=shop")
    of_another = await get(client, "/api/deployments?workspace=blog")
    one = await get(client, "/api/deployments/shop.db")
    workspaces = await get(client, "/api/workspaces")

    assert listed == of_workspace == {"deployments": [one]}
    assert of_another == {"deployments": []}
    assert workspaces == {"workspaces": [{"name": "shop", "apps": ["shop.db"]}]}
    description = one.pop("description")
    assert one == {
        "id": "shop.db",
        "workspace": "shop",
        "name": "db",
        "recipe": "postgresql",
        "is_available": True,
        "obstacle": "",
    }
    assert description["export_formats"] == [
        {"name": "sql.gz", "media_type": "application/gzip", "suffix": ".sql.gz", "description": ""}
    ]
    assert (description["estimated_bytes"], description["can_export"]) == (123, True)
    assert (description["running"], description["agent_started_at"]) == (None, None)
    assert description["details"] == {"database": "app"}


async def test_an_app_whose_agent_is_away_is_listed_with_the_reason(
    own_client: aiohttp.ClientSession, own_agent: FakeAgent
) -> None:
    await own_agent.stop()

    listed = await get(own_client, "/api/deployments")

    (one,) = listed["deployments"]
    assert (one["is_available"], one["description"]) == (False, None)
    assert one["obstacle"].startswith("The agent of shop.db does not answer")


async def test_an_agent_that_comes_back_is_reached_at_once(
    own_client: aiohttp.ClientSession, own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    await own_agent.stop()
    for _ in range(5):
        assert not (await get(own_client, "/api/deployments/shop.db"))["is_available"]

    successor = FakeAgent("shop.db")
    await successor.start(own_controller.agent_identity("shop.db"), own_agent.address)

    assert (await get(own_client, "/api/deployments/shop.db"))["is_available"]
    await successor.stop()


async def test_an_agent_with_the_certificate_of_another_app_is_not_believed(
    own_controller: ControllerProcess,
) -> None:
    impostor = await start_agent(own_controller, "shop.db")
    own_controller.apps = {"shop.web": impostor.address}
    await own_controller.start()
    headers = own_controller.bearer(own_controller.token())

    async with aiohttp.ClientSession(own_controller.rest, headers=headers) as session:
        one = await get(session, "/api/deployments/shop.web")

    assert not one["is_available"]
    await impostor.stop()


async def test_a_finished_transfer_is_found_by_its_id(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    await post(client, EXPORT, **{"Mathison-Transfer": "t-1"})

    state = await get(client, "/api/transfers/t-1")
    listed = await get(client, "/api/deployments/shop.db/transfers")

    assert listed == {"transfers": [state]}
    assert (state["app_id"], state["transfer_id"], state["kind"]) == ("shop.db", "t-1", "export")
    assert (state["result"], state["progress"]["phase"]) == ("succeeded", "done")
    assert state["end"]["size_bytes"] == 3 << 20
    assert len(state["end"]["sha256"]) == 64
    assert state["started_at"].endswith("Z")
    assert (state["error"], state["preview"], state["kept_until"]) == (None, None, None)


async def test_a_transfer_that_did_not_come_through_the_controller_is_found_too(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    await post(client, EXPORT, **{"Mathison-Transfer": "t-1"})
    agent.states["by-hand"] = agent.states["t-1"]

    state = await get(client, "/api/transfers/by-hand")

    assert state["app_id"] == "shop.db"


async def test_an_unknown_transfer_is_not_found(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    for path in ("/api/transfers/t-9", "/api/transfers/t-9/events"):
        async with client.get(path) as answer:
            assert (answer.status, (await answer.json())["reason"]) == (404, "TRANSFER_NOT_FOUND")


async def test_a_transfer_that_an_unreachable_agent_may_know_is_not_called_unknown(
    own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    own_controller.apps["shop.web"] = "127.0.0.1:1"
    await own_controller.start()
    headers = own_controller.bearer(own_controller.token())

    async with aiohttp.ClientSession(own_controller.rest, headers=headers) as session:
        for ask in (session.get, session.delete):
            async with ask("/api/transfers/t-9") as answer:
                problem = await answer.json()

                assert (answer.status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
                assert "The agent of shop.web does not answer" in problem["detail"]


async def test_a_transfer_is_followed_by_server_sent_events_until_it_is_over(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.stage_plan.restore_gate = asyncio.Event()
    importing = asyncio.create_task(post(client, IMPORT, **{"Mathison-Transfer": "t-1"}))
    await until(lambda: "t-1" in agent.states and agent.states["t-1"].progress.phase == 5)

    async with client.get("/api/transfers/t-1/events") as answer:
        assert answer.content_type == "text/event-stream"
        first = await answer.content.readuntil(b"\n\n")
        agent.stage_plan.restore_gate.set()
        rest = await answer.content.read()

    events = [json.loads(event.removeprefix(b"data: ")) for event in (first + rest).split(b"\n\n")[:-1]]
    assert events[0]["progress"]["phase"] == "restoring"
    assert events[0]["result"] is None
    assert (events[-1]["progress"]["phase"], events[-1]["result"]) == ("done", "succeeded")
    assert (await importing)[0] == 200


async def test_followers_are_dropped_at_once_when_the_controller_stops(
    own_client: aiohttp.ClientSession, own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    own_agent.export_plan = ExportPlan(chunks=1, hangs_after_chunks=True)
    download = await own_client.post(EXPORT, headers={"Mathison-Transfer": "t-1"})
    answer = await own_client.get("/api/transfers/t-1/events")
    await answer.content.readuntil(b"\n\n")
    stopping = asyncio.create_task(own_controller.stop())

    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(answer.content.read(), 5)

    answer.close()
    download.close()
    assert await stopping == 0


async def test_a_follower_who_reads_nothing_is_dropped(own_controller: ControllerProcess, own_agent: FakeAgent) -> None:
    own_controller.limits["stalled_caller_seconds"] = 1
    await own_controller.start()
    headers = own_controller.bearer(own_controller.token())
    more_than_buffers_hold = "x" * (8 << 20)
    own_agent.states["t-1"] = TransferState(transfer_id="t-1", progress=Progress(note=more_than_buffers_hold))
    with socket.socket() as follower:
        follower.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = urlsplit(own_controller.rest)
        follower.connect((address.hostname, address.port))

        request = ["GET /api/transfers/t-1/events HTTP/1.1", "Host: x", *map(": ".join, headers.items()), "", ""]
        follower.sendall("\r\n".join(request).encode())

        await until(lambda: "A transfer is followed no longer." in own_controller.log.read_text())


async def test_an_agent_that_dies_drops_the_followers(own_client: aiohttp.ClientSession, own_agent: FakeAgent) -> None:
    own_agent.export_plan = ExportPlan(chunks=1, hangs_after_chunks=True)
    download = await own_client.post(EXPORT, headers={"Mathison-Transfer": "t-1"})
    answer = await own_client.get("/api/transfers/t-1/events")
    await answer.content.readuntil(b"\n\n")

    await own_agent.stop()

    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(answer.content.read(), 5)
    answer.close()
    download.close()


async def test_cancelling_answers_the_state(
    client: aiohttp.ClientSession, agent: FakeAgent, controller: ControllerProcess
) -> None:
    agent.export_plan = ExportPlan(chunks=1, hangs_after_chunks=True)
    download = await client.post(EXPORT, headers={"Mathison-Transfer": "t-1"})

    async with client.delete("/api/transfers/t-1") as answer:
        state = await answer.json()

    download.close()
    assert (answer.status, state["result"]) == (200, "cancelled")
    line = next(line for line in controller.audit() if line["action"] == "cancel" and line["result"] != "started")
    assert (line["result"], line["transfer_id"]) == ("succeeded", "t-1")


async def test_an_import_is_undone_and_a_second_undo_is_refused(
    client: aiohttp.ClientSession, agent: FakeAgent, controller: ControllerProcess
) -> None:
    await post(client, IMPORT, **{"Mathison-Transfer": "t-1"})

    undone = await post(client, "/api/deployments/shop.db/undo-import")
    again = await post(client, "/api/deployments/shop.db/undo-import")

    assert undone[0] == 200
    assert (undone[1]["transfer_id"], undone[1]["undone"], undone[1]["result"]) == ("t-1", True, "succeeded")
    assert (again[0], again[1]["reason"]) == (409, NothingToUndoError.reason)
    lines = [(line["result"], line.get("transfer_id")) for line in controller.audit() if line["action"] == "undo"]
    assert lines == [("started", None), ("succeeded", "t-1"), ("started", None), ("failed", None)]


async def test_an_undo_for_an_agent_that_is_away_says_that_nothing_was_changed(
    own_client: aiohttp.ClientSession, own_agent: FakeAgent
) -> None:
    await post(own_client, IMPORT, **{"Mathison-Transfer": "t-1"})
    await own_agent.stop()

    status, problem = await post(own_client, "/api/deployments/shop.db/undo-import")

    assert (status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
    assert problem["detail"] == "The agent of shop.db does not answer or went away. Nothing was changed."


async def test_an_undo_that_an_agent_refuses_since_it_stops_says_that_nothing_was_changed(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.undo_failure = AgentUnavailableError("The agent of shop.db is being stopped.")

    status, problem = await post(client, "/api/deployments/shop.db/undo-import")

    assert (status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
    assert problem["detail"] == "The agent of shop.db is being stopped. Nothing was changed."


async def test_an_agent_that_goes_away_before_it_names_the_transfer_is_told_without_a_name(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.undo_failure = grpc.StatusCode.UNAVAILABLE

    status, problem = await post(client, "/api/deployments/shop.db/undo-import")

    assert (status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
    assert "while the app's data was being exchanged" in problem["detail"]
    assert problem["next_step"] == "Look at the app's transfers then."


async def test_an_import_is_confirmed(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    await post(client, IMPORT)

    first = await post(client, "/api/deployments/shop.db/confirm-import")
    second = await post(client, "/api/deployments/shop.db/confirm-import")

    assert first == (200, {"confirmed": True})
    assert second == (200, {"confirmed": False})


async def test_a_confirmation_for_an_agent_that_is_away_says_that_nothing_was_changed(
    own_client: aiohttp.ClientSession, own_agent: FakeAgent
) -> None:
    await own_agent.stop()

    status, problem = await post(own_client, "/api/deployments/shop.db/confirm-import")

    assert (status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
    assert problem["detail"] == "The agent of shop.db does not answer or went away. Nothing was changed."


async def test_a_confirmation_whose_agent_goes_away_in_the_middle_may_have_begun(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.discard_failure = grpc.StatusCode.UNAVAILABLE

    status, problem = await post(client, "/api/deployments/shop.db/confirm-import")

    assert (status, problem["reason"]) == (503, "AGENT_UNAVAILABLE")
    assert "What it has begun to drop it drops to the end when it is back." in problem["detail"]
    assert "Nothing was changed" not in problem["detail"]


async def test_a_confirmation_that_an_agent_refuses_since_it_stops_says_that_nothing_was_changed(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.discard_failure = AgentUnavailableError("The agent of shop.db is being stopped.")

    _, problem = await post(client, "/api/deployments/shop.db/confirm-import")

    assert problem["detail"] == "The agent of shop.db is being stopped. Nothing was changed."


@pytest.mark.parametrize("operation", ["import-data", "undo-import", "confirm-import"])
@pytest.mark.parametrize(
    "target", ["shop.none/{}", "shop.db/{}?dryrun=true", "shop.db/{}?transfer_id=a/b"], ids=["app", "parameter", "id"]
)
async def test_a_request_that_is_refused_says_that_nothing_was_changed(
    client: aiohttp.ClientSession, agent: FakeAgent, operation: str, target: str
) -> None:
    status, problem = await post(client, f"/api/deployments/{target.format(operation)}")

    assert status in (400, 404)
    assert problem["detail"].endswith(" Nothing was changed.")
    assert problem["next_step"]


async def test_dropping_what_an_import_holds_may_take_minutes(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    await post(client, IMPORT, **{"Mathison-Transfer": "t-1"})

    await post(client, "/api/deployments/shop.db/confirm-import")
    async with client.delete("/api/transfers/t-1"):
        pass

    assert min(agent.patience_seconds[call] for call in ("Discard", "Cancel")) > 600


async def test_an_apps_fingerprint_is_asked_of_its_agent(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    found = await get(client, "/api/deployments/shop.db/fingerprint")

    assert found == {
        "app_id": "shop.db",
        "fingerprint": {"scheme": "fake/1", "sha256": "ab" * 32, "parts": {"table a": "2 rows"}},
        "taken_at": "2023-11-14T22:13:20Z",
    }
