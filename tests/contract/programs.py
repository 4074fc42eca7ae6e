"""The agent as it is installed: a process with a file of settings, called over gRPC with mutual TLS."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from agent.recipes.registry import RECIPES
from common.frames import FrameReceiver
from mathison.data.v1 import agent_pb2 as messages
from mathison.data.v1 import transfer_pb2
from mathison.data.v1.agent_pb2_grpc import DataAgentStub
from tests.contract.agents import LIMIT_BYTES
from tests.contract.app import AppUnderTest
from tests.fixtures.agent_program import AgentProgram, stage_requests
from tests.fixtures.uploads import frame_list


@asynccontextmanager
async def serving(app: AppUnderTest, directory: Path) -> AsyncIterator[tuple[AgentProgram, DataAgentStub]]:
    """An agent process for the time of the block. A recipe that is not ours is found by its entry point."""
    directory.mkdir()
    recipe = app.recipe
    program = AgentProgram(directory, recipe=recipe.name, recipe_settings=app.settings)
    if recipe.name not in RECIPES:
        program.install(recipe.name, f"{recipe.__module__}:{recipe.__name__}", Path(inspect.getfile(recipe)).parent)
    if app.app is not None:
        program.app_commands = {"stop": list(app.app.stop), "start": list(app.app.start)}
    program.give_identity()
    program.start()
    try:
        async with program.channel() as channel:
            yield program, DataAgentStub(channel)
    finally:
        program.close()


async def export(stub: DataAgentStub, transfer_id: str, format: str, options: Mapping[str, str]) -> bytes:
    """A whole archive, checked against its end frame."""
    call = stub.Export(messages.ExportRequest(transfer_id=transfer_id, format=format, options=options))
    receiver = FrameReceiver(aiter(call), limit_bytes=LIMIT_BYTES)
    await receiver.open()
    return b"".join([chunk async for chunk in receiver.chunks()])


async def import_(stub: DataAgentStub, transfer_id: str, file: bytes) -> None:
    """Stage and restore."""
    pieces = (file[start : start + (1 << 20)] for start in range(0, len(file), 1 << 20))
    async for _ in stub.Stage(stage_requests(transfer_id, frame_list(*pieces))):
        pass
    events = [event async for event in stub.Restore(messages.RestoreRequest(transfer_id=transfer_id))]
    assert events[-1].state.result == transfer_pb2.TRANSFER_RESULT_SUCCEEDED


async def undo(stub: DataAgentStub) -> None:
    """Of the latest import."""
    events = [event async for event in stub.Undo(messages.UndoRequest())]
    assert events[-1].state.undone
