"""Flat memory at any size: archives of five times what may be held, both ways, and callers who take their time.

`make bench` measures the same at full size.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from mathison.data.v1 import controller_pb2 as wire
from mathison.data.v1 import controller_pb2_grpc, transfer_pb2
from tests.fakes.fake_agent import BLOCK, FakeAgent
from tests.fixtures.controller import ControllerProcess, until_export_is_still

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXPORT = "/api/deployments/shop.db/export-data"
IMPORT = "/api/deployments/shop.db/import-data"
BLOCKS = 256
LIMIT_ABOVE_IDLE = 48 << 20
LIMIT = 256 << 20


def assert_is_flat(controller: ControllerProcess, idle_bytes: int) -> None:
    peak = controller.peak_bytes()
    assert peak < LIMIT
    assert peak - idle_bytes < LIMIT_ABOVE_IDLE


async def test_memory_is_flat_for_an_export_over_rest(
    own_client: aiohttp.ClientSession, own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    own_agent.export_plan.chunks = BLOCKS
    idle_bytes = own_controller.resident_bytes()
    size = 0

    async with own_client.post(EXPORT) as answer:
        async for piece in answer.content.iter_any():
            size += len(piece)

    assert size == BLOCKS * len(BLOCK)
    assert_is_flat(own_controller, idle_bytes)


async def test_memory_is_flat_for_an_import_over_rest(
    own_client: aiohttp.ClientSession, own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    idle_bytes = own_controller.resident_bytes()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(BLOCKS):
            yield BLOCK

    async with own_client.post(IMPORT, data=pieces()) as answer:
        assert answer.status == 200

    assert own_agent.stages[0].size_bytes == BLOCKS * len(BLOCK)
    assert_is_flat(own_controller, idle_bytes)


async def test_memory_is_flat_for_an_export_and_an_import_over_grpc(
    own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    own_agent.export_plan.chunks = BLOCKS
    await own_controller.start()
    idle_bytes = own_controller.resident_bytes()
    bearer = (("authorization", f"Bearer {own_controller.token()}"),)
    digest = hashlib.sha256()

    async with own_controller.channel() as channel:
        stub = controller_pb2_grpc.DataControllerStub(channel)
        async for frame in stub.ExportApp(wire.ExportAppRequest(app_id="shop.db"), metadata=bearer):
            digest.update(frame.chunk)

        async def requests() -> AsyncIterator[wire.ImportAppRequest]:
            yield wire.ImportAppRequest(start=wire.ImportStart(app_id="shop.db"))
            yield wire.ImportAppRequest(frame=transfer_pb2.Frame(header=transfer_pb2.ArchiveHeader()))
            for _ in range(BLOCKS):
                yield wire.ImportAppRequest(frame=transfer_pb2.Frame(chunk=BLOCK))
            end = transfer_pb2.End(size_bytes=BLOCKS * len(BLOCK), sha256=digest.hexdigest())
            yield wire.ImportAppRequest(frame=transfer_pb2.Frame(end=end))

        events = [event async for event in stub.ImportApp(requests(), metadata=bearer)]

    assert events[-1].state.result == transfer_pb2.TRANSFER_RESULT_SUCCEEDED
    assert_is_flat(own_controller, idle_bytes)


async def test_a_client_that_holds_still_holds_the_agent_instead_of_filling_memory(
    own_client: aiohttp.ClientSession, own_controller: ControllerProcess, own_agent: FakeAgent
) -> None:
    own_agent.export_plan.chunks = 4 * BLOCKS
    idle_bytes = own_controller.resident_bytes()

    answer = await own_client.post(EXPORT)
    taken = len(await answer.content.readexactly(20 << 16))
    exported = await until_export_is_still(own_controller, own_agent)

    ahead = exported * len(BLOCK) - taken
    answer.close()
    assert ahead < 64 << 20
    assert_is_flat(own_controller, idle_bytes)
