"""A freeze holds every client and ends, whatever becomes of those who wanted it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.minio.drive.exchange import Exchange
from agent.engines.minio.server.client import BYPASS, Client
from agent.engines.minio.server.facts import look
from agent.engines.minio.server.freezing import frozen, thaw
from agent.engines.minio.server.restarting import restart
from agent.engines.minio.server.settings import MinioSettings
from agent.engines.minio.server.watchdog import Guarded
from agent.engines.swapping import Side
from agent.engines.tree import StagingArea
from agent.recipes.base import Limits
from common.errors import AppBusyError, AppUnavailableError, NoSpaceError
from tests.fixtures.children import agent_children
from tests.fixtures.minio_data import put, view
from tests.fixtures.minio_servers import client_of
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer, minio

SETTINGS = MinioSettings(user="rootuser", password_file="unused")


@pytest.fixture(scope="module")
def server() -> Iterator[MinioServer]:
    """One for all: every test leaves it serving."""
    with MinioServer(minio()) as server:
        asyncio.run(_fill(server))
        yield server


async def _fill(server: MinioServer) -> None:
    async with client_of(server) as client:
        await client.call("PUT", "bucket")
        await put(client, "bucket", "key", b"content")


async def _is_held(client: Client) -> bool:
    try:
        await client.call("GET", "bucket", "key", seconds=0.5)
    except AppUnavailableError:
        return True
    return False


async def test_clients_wait_for_the_end_of_a_freeze_and_get_no_error(server: MinioServer) -> None:
    async with client_of(server) as client:
        async with frozen(client, SETTINGS, most_seconds=30) as freeze:
            waiting = asyncio.create_task(put(client, "bucket", "during", b"x"))
            is_held = await _is_held(client)
            passed = await client.call("GET", "bucket", "key", headers=BYPASS)
            assert not waiting.done()
        await waiting

        assert is_held
        assert passed.body == b"content"
        assert not await _is_held(client)
        assert (await client.call("GET", "bucket", "during")).body == b"x"
        assert 0.5 < freeze.seconds < 30


async def test_a_freeze_that_takes_too_long_is_ended_and_that_is_said(server: MinioServer) -> None:
    async with client_of(server) as client:
        with pytest.raises(AppBusyError, match="not held still"):
            async with frozen(client, SETTINGS, most_seconds=0.2):
                # Held until the watchdog's clock says otherwise.
                await client.call("GET", "bucket", "key", seconds=20)

        assert not await _is_held(client)


async def test_an_error_within_a_freeze_ends_it(server: MinioServer) -> None:
    async with client_of(server) as client:
        with pytest.raises(ZeroDivisionError):
            async with frozen(client, SETTINGS, most_seconds=30):
                raise ZeroDivisionError

        assert not await _is_held(client)


async def test_a_watchdog_that_is_killed_is_noticed_and_the_freeze_ended(server: MinioServer) -> None:
    async with client_of(server) as client:
        freeze = frozen(client, SETTINGS, most_seconds=30)
        await freeze.__aenter__()
        [watchdog] = agent_children()
        os.kill(watchdog.pid, signal.SIGKILL)
        is_held = await _is_held(client)
        with pytest.raises(AppBusyError):
            await freeze.__aexit__(None, None, None)

        assert is_held
        assert not await _is_held(client)


async def test_time_that_is_up_waits_for_an_exchange_that_was_begun_and_none_begins_after_that(
    server: MinioServer, tmp_path: Path
) -> None:
    StagingArea(tmp_path, "key").create()
    exchange = Exchange(tmp_path, "key")
    guarded: Guarded = {"drive": str(tmp_path), "key": "key", "only": "", "side": Side.PREVIOUS.value}
    async with client_of(server) as client:
        freezing = frozen(client, SETTINGS, most_seconds=0.2, exchange=guarded)
        freeze = await freezing.__aenter__()
        with exchange.held() as is_only:
            # Longer than its time.
            is_held = [await _is_held(client) for _ in range(2)]
            was_on = freeze.is_on()
        await client.call("GET", "bucket", "key", seconds=20)

        assert is_only
        assert is_held == [True, True]
        assert was_on
        assert not freeze.is_on()
        with pytest.raises(AppBusyError, match="too short"):
            exchange.bring(Side.IMPORTED, is_frozen=freeze.is_on)
        with pytest.raises(AppBusyError, match="not held still"):
            await freezing.__aexit__(None, None, None)


async def test_a_server_whose_drive_is_not_whole_stays_frozen(server: MinioServer) -> None:
    async with client_of(server) as client:
        async with frozen(client, SETTINGS, most_seconds=30, is_whole=lambda: False):
            pass
        assert await _is_held(client)

        await thaw(client)
        assert not await _is_held(client)


async def test_a_server_that_cannot_be_frozen_is_not(server: MinioServer) -> None:
    async with client_of(server, password="not the password") as client:
        with pytest.raises(AppUnavailableError, match="could not be frozen"):
            async with frozen(client, SETTINGS, most_seconds=30):
                raise AssertionError("it is not frozen")


async def test_an_export_that_fails_in_the_freeze_leaves_the_server_serving(
    server: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await view(server)
    monkeypatch.setattr("agent.engines.minio.drive.snapshot._ROOM_CHECKED_EVERY", 1)
    app = MinioApp(server, tmp_path, limits=Limits(free_bytes=1 << 60))

    with pytest.raises(NoSpaceError):
        await app.export()

    assert await view(server) == before
    assert app.leftovers() == []


async def test_an_export_that_is_cancelled_in_the_freeze_leaves_the_server_serving(
    server: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await view(server)
    app = MinioApp(server, tmp_path)
    is_frozen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stand_still(snapshot: object) -> None:
        loop.call_soon_threadsafe(is_frozen.set)
        while not getattr(snapshot, "_is_stopped", True):
            time.sleep(0.01)

    monkeypatch.setattr("agent.engines.minio.drive.snapshot.Snapshot.second_pass", stand_still)
    export = asyncio.create_task(app.export())
    async with asyncio.timeout(30):
        await is_frozen.wait()

    export.cancel()
    with pytest.raises(asyncio.CancelledError):
        await export

    assert await view(server) == before
    assert app.leftovers() == []
    assert agent_children() == []


async def test_a_restart_is_over_when_the_new_process_serves(server: MinioServer) -> None:
    pid = server.pid
    async with client_of(server) as client:
        for _ in range(2):
            await restart(client)

            assert (await client.call("GET", "bucket", "key")).body == b"content"
            assert (await look(client)).uptime_seconds <= 2
    assert server.pid == pid
