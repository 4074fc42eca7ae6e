"""A real controller process in front of a fake agent, both new for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.fake_agent import FakeAgent
from tests.fixtures.controller import ControllerProcess, start_agent

APP = "shop.db"


@pytest.fixture
async def stopped_controller(tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    """Its settings can still be changed; whoever starts it need not stop it."""
    made = ControllerProcess(tmp_path)
    yield made
    await made.stop()


@pytest.fixture
async def agent(stopped_controller: ControllerProcess) -> AsyncIterator[FakeAgent]:
    made = await start_agent(stopped_controller, APP)
    yield made
    await made.stop()


@pytest.fixture
async def controller(stopped_controller: ControllerProcess, agent: FakeAgent) -> ControllerProcess:
    await stopped_controller.start()
    return stopped_controller


@pytest.fixture
async def token(controller: ControllerProcess) -> str:
    """Of a caller who may do everything."""
    return controller.token()


@pytest.fixture
async def client(controller: ControllerProcess, token: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(controller.rest, headers=controller.bearer(token)) as session:
        yield session
