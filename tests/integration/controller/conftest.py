"""A real controller process in front of a fake agent.

Starting one costs a second, so most tests of a module share one, reset for each; a test that stops, kills or configures
it takes `own_controller` with `own_agent`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.fakes.fake_agent import FakeAgent
from tests.fixtures.controller import ControllerProcess, start_agent

APP = "shop.db"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[ControllerProcess, FakeAgent, str]]:
    """A running controller, its agent, and a token of a caller who may do everything."""
    controller = ControllerProcess(tmp_path_factory.mktemp("controller"))
    agent = await start_agent(controller, APP)
    await controller.start()
    yield controller, agent, controller.token()
    await controller.stop()
    await agent.stop()


@pytest.fixture
def controller(shared: tuple[ControllerProcess, FakeAgent, str], agent: FakeAgent) -> ControllerProcess:
    os.truncate(shared[0].state.audit, 0)
    return shared[0]


@pytest.fixture
def agent(shared: tuple[ControllerProcess, FakeAgent, str]) -> FakeAgent:
    shared[1].reset()
    return shared[1]


@pytest.fixture
def token(shared: tuple[ControllerProcess, FakeAgent, str]) -> str:
    return shared[2]


@pytest_asyncio.fixture(loop_scope="module")
async def client(controller: ControllerProcess, token: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(controller.rest, headers=controller.bearer(token)) as session:
        yield session


@pytest_asyncio.fixture(loop_scope="module")
async def own_controller(tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    """Not started yet; whoever starts it need not stop it."""
    made = ControllerProcess(tmp_path)
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def own_agent(own_controller: ControllerProcess) -> AsyncIterator[FakeAgent]:
    made = await start_agent(own_controller, APP)
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def own_client(own_controller: ControllerProcess, own_agent: FakeAgent) -> AsyncIterator[aiohttp.ClientSession]:
    """Of a caller who may do everything; starts the controller."""
    await own_controller.start()
    headers = own_controller.bearer(own_controller.token())
    async with aiohttp.ClientSession(own_controller.rest, headers=headers) as session:
        yield session
