"""A real agent process over mutual TLS, with the recipe of tests/fakes, which a test stops and watches by files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mathison.data.v1 import agent_pb2 as messages
from mathison.data.v1 import agent_pb2_grpc
from tests.fixtures.agent_program import AgentProgram


class AgentProcess(AgentProgram):
    """One agent whose app is a file; may be started again and again."""

    def __init__(self, directory: Path) -> None:
        self.app = directory / "app"
        super().__init__(directory, recipe="fake", recipe_settings={"directory": str(self.app)})
        self.app.mkdir(parents=True)
        (self.app / "live").write_bytes(b"old data")
        self.install("fake", "tests.fakes.recipe:FakeRecipe")

    def pause(self, step: str) -> None:
        """Let the recipe wait there."""
        (self.app / f"pause {step}").touch()

    def go_on(self, step: str) -> None:
        (self.app / f"pause {step}").unlink()

    def has_reached(self, step: str) -> bool:
        return (self.app / f"reached {step}").exists()

    @property
    def live(self) -> bytes:
        return (self.app / "live").read_bytes()

    async def as_at_first(self) -> None:
        """Serving, with the first data and nothing that a test held up, staged or kept."""
        for path in [*self.app.glob("pause *"), *self.app.glob("reached *")]:
            path.unlink()
        if self.process is None or self.process.poll() is not None:
            self.log_path.unlink(missing_ok=True)
            self.start()
        async with self.channel() as channel:
            stub = agent_pb2_grpc.DataAgentStub(channel)
            for state in (await stub.ListTransfers(messages.ListTransfersRequest())).transfers:
                async for _ in stub.WatchTransfer(messages.WatchTransferRequest(transfer_id=state.transfer_id)):
                    pass
            while self.journal_lines:
                await stub.Discard(messages.DiscardRequest())
        (self.app / "live").write_bytes(b"old data")

    @property
    def beside(self) -> set[str]:
        return {path.name.split("-")[0] for path in self.app.iterdir() if "-" in path.name}


@pytest.fixture
def stopped_agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent with a certificate that is not started yet."""
    agent = AgentProcess(tmp_path)
    agent.give_identity()
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """The one behind `agent`."""
    agent = AgentProcess(tmp_path_factory.mktemp("agent"))
    agent.give_identity()
    yield agent
    agent.close()


@pytest.fixture
async def agent(shared_agent: AgentProcess) -> AgentProcess:
    """An agent that serves, the same for all tests of a module: it remembers the ids of what was done before."""
    await shared_agent.as_at_first()
    return shared_agent


@pytest.fixture
async def stub(agent: AgentProcess) -> AsyncIterator[agent_pb2_grpc.DataAgentStub]:
    """Calls to it, as the controller."""
    async with agent.channel() as channel:
        yield agent_pb2_grpc.DataAgentStub(channel)
