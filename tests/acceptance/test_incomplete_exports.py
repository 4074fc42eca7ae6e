"""A dump that was killed never looks like a whole download, to no kind of client."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import aiohttp
import grpc
import pytest

from mathison.data.v1 import agent_pb2, agent_pb2_grpc, controller_pb2, controller_pb2_grpc, transfer_pb2
from tests.acceptance.world import DATABASE_ID, World, wait_until
from tools.deployment import agent_channel, controller_channel
from tools.servers.toolchains import node_directory

ROUTE = f"/api/deployments/{DATABASE_ID}/export-data?format=sql"
SLOWLY_BYTES = 4 << 20


def test_curl_exits_with_an_error(world: World) -> None:
    target = world.folder / "killed-dump"
    curl = subprocess.Popen(
        world.curl_command(ROUTE, "--limit-rate", "2M", "--output", target), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: target.exists() and target.stat().st_size > 0, "curl has received something")

    world.kill(DATABASE_ID, "pg_dump")

    _, said = curl.communicate(timeout=60)
    # 18: the transfer ended early; 56: the connection was reset.
    assert curl.returncode in (18, 56), said


FETCH = """
const [url] = process.argv.slice(1);
const headers = { authorization: `Bearer ${process.env.MATHISON_TOKEN}` };
const answer = await fetch(url, { method: "POST", headers });
const reader = answer.body.getReader();
let size = 0;
while (size < Number(process.env.SLOWLY_BYTES)) size += (await reader.read()).value.length;
console.log(answer.status);
await new Promise((resolve) => process.stdin.once("data", resolve));
try {
  while (!(await reader.read()).done);
  console.log("whole");
} catch (error) {
  console.log(error.name);
}
process.exit(0);
"""
"""A browser's own fetch is not at hand here; Node's follows the same Fetch Standard, which asks for a network error, a
TypeError, when a body ends before its last chunk."""


def test_a_browsers_fetch_raises(world: World) -> None:
    environment = {"MATHISON_TOKEN": world.deployment.token, "SLOWLY_BYTES": str(SLOWLY_BYTES)}
    node = subprocess.Popen(
        [node_directory() / "bin" / "node", "--input-type=module", "--eval", FETCH, world.deployment.rest + ROUTE],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert node.stdout is not None
    assert node.stdout.readline() == "200\n"

    world.kill(DATABASE_ID, "pg_dump")

    said, _ = node.communicate("go on\n", timeout=60)
    assert said == "TypeError\n"


async def test_aiohttp_raises(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.deployment.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(world.deployment.rest + ROUTE) as answer,
    ):
        assert answer.status == 200
        await answer.content.readexactly(SLOWLY_BYTES)

        await asyncio.to_thread(world.kill, DATABASE_ID, "pg_dump")

        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()


async def test_no_end_frame_comes_from_the_controller(world: World) -> None:
    async with controller_channel(world.deployment.grpc_address, world.deployment.client) as channel:
        call = controller_pb2_grpc.DataControllerStub(channel).ExportApp(
            controller_pb2.ExportAppRequest(app_id=DATABASE_ID, format="sql"),
            metadata=(("authorization", f"Bearer {world.deployment.token}"),),
        )

        await assert_breaks_without_end(world, call)


async def test_no_end_frame_comes_from_the_agent(world: World) -> None:
    site = world.deployment[DATABASE_ID]
    async with agent_channel(site.address, DATABASE_ID, world.deployment.client) as channel:
        call = agent_pb2_grpc.DataAgentStub(channel).Export(
            agent_pb2.ExportRequest(transfer_id="killed-dump", format="sql")
        )

        await assert_breaks_without_end(world, call)


async def assert_breaks_without_end(world: World, call: grpc.aio.UnaryStreamCall[Any, transfer_pb2.Frame]) -> None:
    """Kill the dump of a call once it has begun, and take what still comes."""
    kinds: list[str | None] = []

    async def take() -> None:
        async for frame in call:
            kinds.append(frame.WhichOneof("content"))
            if len(kinds) == 1:
                await asyncio.to_thread(world.kill, DATABASE_ID, "pg_dump")

    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await take()

    assert kinds[0] == "header"
    assert "end" not in kinds
    assert failed.value.code() is grpc.StatusCode.INTERNAL
