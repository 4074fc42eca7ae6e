"""Servers that close connections of clients which are silent for too long, and servers that take no more clients."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.engines.redis.snapshots import Spool
from agent.recipes.base import Recovered, Upload
from common.headers import ArchiveHeader
from tests.fakes.imports import MemoryRecord
from tests.fixtures.redis_moments import MOMENTS
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tests.integration.agent.recipes.redis_apps import RedisApp
from tests.integration.agent.recipes.test_redis_crashes import stage
from tools.servers import RedisServer

SHORT = {"timeout": "1", "save": "3600 1"}
NAMES = ["redis-6.2", "redis-7.0", "valkey-9.1"]


class Silent:
    """A client of a server that says nothing any more."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection((server.host, server.port), timeout=30)
        self._socket.sendall(b"PING\r\n")
        assert self._socket.recv(100) == b"+PONG\r\n"
        self._socket.setblocking(False)

    def is_turned_out(self) -> bool:
        try:
            return self._socket.recv(1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._socket.close()


async def until_the_silent_are_turned_out(server: RedisServer) -> None:
    silent = Silent(server)
    try:
        await until(silent.is_turned_out)
    finally:
        silent.close()


@variants("name", NAMES, kept=["redis-7.0"])
async def test_an_upload_may_take_longer_than_a_server_lets_clients_be_silent(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings=SHORT)
    app = RedisApp(server, tmp_path / "work")
    with client_of(server) as client:
        client.set("imported", "1")
    file = (await app.export()).file

    async def slow() -> AsyncIterator[bytes]:
        yield file[:20]
        await until_the_silent_are_turned_out(server)
        yield file[20:]

    record = MemoryRecord()
    await app.recipe.stage(Upload(header=ArchiveHeader(), chunks=slow(), options={}), record, app.progress)
    with client_of(server) as client:
        client.delete("imported")
    await app.recipe.restore(record, app.progress)

    with client_of(server) as client:
        assert client.get("imported") == b"1"


@variants("name", NAMES, kept=["redis-7.0"])
async def test_so_may_the_copy_of_the_present_data(
    name: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis(name, settings=SHORT)
    one = await stage(server, tmp_path)
    sync = Spool.sync

    async def slow(self: Spool) -> None:
        await until_the_silent_are_turned_out(server)
        await sync(self)

    with monkeypatch.context() as patches:
        patches.setattr(Spool, "sync", slow)
        await one.app.recipe.restore(one.entry, one.app.progress)

    await one.require(Recovered.IMPORTED)
    await one.take_back()


@contextmanager
def all_clients_taken(server: RedisServer) -> Iterator[None]:
    """Whoever leaves, another client takes the place."""
    clients: list[socket.socket] = []
    is_full, is_over = threading.Event(), threading.Event()

    def take() -> None:
        while not is_over.is_set():
            taken = socket.create_connection((server.host, server.port), timeout=30)
            clients.append(taken)
            taken.sendall(b"PING\r\n")
            if taken.recv(100).startswith(b"-ERR max number of clients"):
                clients.pop().close()
                is_full.set()
                is_over.wait(0.002)

    taking = threading.Thread(target=take)
    taking.start()
    try:
        assert is_full.wait(30)
        yield
    finally:
        is_over.set()
        taking.join()
        for client in clients:
            client.close()
        while not _takes_clients(server):
            pass


def _takes_clients(server: RedisServer) -> bool:
    with socket.create_connection((server.host, server.port), timeout=30) as client:
        client.sendall(b"PING\r\n")
        return client.recv(100) == b"+PONG\r\n"


@variants(
    "keeping", [{"save": '""'}, {"save": "3600 1"}, {"appendonly": "yes", "save": '""'}], kept=[{"save": "3600 1"}]
)
@variants("name", NAMES, kept=["redis-7.0"])
async def test_an_import_comes_to_its_end_in_a_server_that_takes_no_more_clients(
    name: str, keeping: dict[str, str], start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis(name, settings={**keeping, "maxclients": "20"})
    one = await stage(server, tmp_path)

    def take_all_clients() -> None:
        taken.enter_context(all_clients_taken(server))

    with ExitStack() as taken, monkeypatch.context() as patches:
        MOMENTS["told to copy us"].hook(take_all_clients, patches.setattr)
        await one.app.recipe.restore(one.entry, one.app.progress)
    await one.require(Recovered.IMPORTED)

    with ExitStack() as taken, monkeypatch.context() as patches:
        MOMENTS["told to copy us"].hook(take_all_clients, patches.setattr)
        await one.app.recipe.undo(one.read(), one.app.progress)
    await one.require(Recovered.PREVIOUS)
