"""The contract over Redis."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from agent.engines.redis.exchange import LENT
from agent.recipes.redis import RedisRecipe
from tests.contract.app import Fill, ServerApp
from tests.contract.suite import ContractSuite
from tests.fixtures.redis_data import content_of
from tests.fixtures.redis_servers import client_of
from tools.servers import RedisServer, redis

KEEPS_ALL = {"appendonly": "yes", "appendfsync": "always"}
"""So that a server that was killed comes back with what it had."""
_SETTINGS = (*LENT, "masterauth", "repl-diskless-sync", "repl-diskless-sync-delay", "save", "appendonly")


class Redis(ServerApp[RedisServer]):
    """A whole server; the row of Valkey is another one of these."""

    recipe = RedisRecipe
    kills_apart = 3
    new_counts: ClassVar[Mapping[str, int]] = {"keys": 203, "strings": 201, "lists": 1, "hashes": 1}
    export_options: ClassVar[Mapping[str, str]] = {"fingerprint": "yes"}
    wrong_files: ClassVar[Mapping[str, bytes]] = {"an append-only file": b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"}

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server, {"port": server.port})
        self._state = self._state_now()

    async def fill(self, what: Fill) -> None:
        with client_of(self.server) as client:
            client.flushall()
            if what is not Fill.EMPTY:
                client.mset({f"both:{number}": f"{what.value} {number}" for number in range(200)})
                client.rpush(f"only {what.value}", *range(200))
                client.hset("hash", mapping={what.value: 1, "both": 2})
            if what is Fill.BIG:
                generator = random.Random(1)
                for number in range((self.big_bytes >> 18) + 1):
                    client.set(f"big:{number}", generator.randbytes(1 << 18))
        if what is not Fill.EMPTY:
            with client_of(self.server, database=3) as client:
                client.set("in database 3", what.value)

    async def write_more(self) -> None:
        with client_of(self.server) as client:
            client.set("both:1", "more")
            client.set("more", "more")

    async def contents(self) -> object:
        return await content_of(self.server)

    async def remove_kept(self, work_directory: Path) -> None:
        for file in work_directory.iterdir():
            file.unlink()

    def leftovers(self) -> list[str]:
        now = self._state_now()
        return [f"{name} is {now[name]}, not {kept}" for name, kept in self._state.items() if now[name] != kept]

    def _state_now(self) -> dict[str, object]:
        """What an import changes in a server for a while."""
        with client_of(self.server, database=15) as client:
            found: dict[str, object] = {name: client.config_get(name) for name in _SETTINGS}
            found["role"] = client.info("replication")["role"]
            found["markers"] = client.keys("mathison-data:*")
            # One whose writes are paused would not answer in time.
            client.set("probe", "1", ex=60)
            client.delete("probe")
        return found


@pytest.fixture(scope="module")
def app() -> Iterator[Redis]:
    with RedisServer(redis("redis-7.0"), settings=KEEPS_ALL) as server:
        yield Redis(server)


class TestRedis(ContractSuite):
    """All of it."""
