"""What clients did while the present data was copied, and what an undo does of it again: the data, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.redis_moments import MOMENTS
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tests.integration.agent.recipes.test_redis_crashes import Import, stage

NAMES = ["redis-6.2", "redis-7.0", "redis-8.2", "valkey-8.1", "valkey-9.1"]


async def restore(one: Import, write: Callable[[], None]) -> None:
    """An import, in whose middle clients write: after the copy and before writes are paused."""
    with pytest.MonkeyPatch.context() as patches:
        MOMENTS["settings changed"].hook(write, patches.setattr)
        await one.app.recipe.restore(one.entry, one.app.progress)


async def undo(one: Import) -> None:
    await one.app.recipe.undo(one.read(), one.app.progress)


@variants("name", NAMES, kept=["valkey-9.1"])
async def test_an_undo_delivers_no_message_a_second_time(name: str, start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis(name, settings={"save": "3600 1", "notify-keyspace-events": "KEA"})
    one = await stage(server, tmp_path)
    with client_of(server) as client, client.pubsub() as subscriber:
        subscriber.psubscribe("*")

        def write() -> None:
            client.publish("orders", "charge the card")
            client.eval("redis.call('PUBLISH', 'orders', 'by a script') redis.call('SET', 'by a script', 1)", 0)
            with client.pipeline(transaction=True) as transaction:
                transaction.publish("orders", "in a transaction").set("in a transaction", "1").execute()
            if name != "redis-6.2":
                client.execute_command("SPUBLISH", "orders", "of a shard")
            client.set("written", "1")

        await restore(one, write)
        client.publish("orders", "before the undo")
        heard = await _heard(subscriber, b"before the undo")
        assert {b"charge the card", b"by a script", b"in a transaction"} < {*heard}

        await undo(one)
        client.publish("orders", "after the undo")

        assert await _heard(subscriber, b"after the undo") == []
        assert client.mget("written", "by a script", "in a transaction") == [b"1"] * 3
        assert client.config_get("notify-keyspace-events") == {"notify-keyspace-events": "AKE"}
        client.set("notified", "1")
        client.publish("orders", "end")
        assert b"notified" in await _heard(subscriber, b"end")


async def _heard(subscriber: Any, last: bytes) -> list[bytes]:
    """Messages up to that one, but for those of the database where an import has its marker."""
    heard: list[bytes] = []
    while True:
        message = subscriber.get_message(timeout=10)
        assert message is not None, f"nothing more came after {heard}"
        if message["type"] != "pmessage" or b"@15__:" in message["channel"]:
            continue
        if message["data"] == last:
            return heard
        heard.append(message["data"])


@variants("name", NAMES, kept=["valkey-9.1"])
async def test_a_key_written_while_the_copy_is_made_lives_no_longer_for_an_undo(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"save": "3600 1"})
    one = await stage(server, tmp_path)
    moments: dict[str, tuple[float, float]] = {}

    def write() -> None:
        with client_of(server) as client:
            for living, lifetime_ms in (("short", 1000), ("long", 100_000)):
                begun_at = time.time()
                keys = _write_expiring(client, living, lifetime_ms)
                moments.update(dict.fromkeys(keys, (begun_at + lifetime_ms / 1000, time.time() + lifetime_ms / 1000)))

    await restore(one, write)
    last_moment = max(latest for name, (_, latest) in moments.items() if name.startswith("short"))
    await until(lambda: time.time() > last_moment)
    await undo(one)

    with client_of(server) as client:
        for key, (earliest, latest) in moments.items():
            ends_at = time.time() + client.pttl(key) / 1000
            if key.startswith("short"):
                assert client.exists(key) == 0, key
            else:
                # Redis 6.2 says times to live, which count from when its stream was read.
                assert earliest - 0.1 < ends_at < latest + (1 if name == "redis-6.2" else 0.1), key


def _write_expiring(client: Any, living: str, lifetime_ms: int) -> list[str]:
    """A key for each way of giving one a time to live; their names."""
    seconds = lifetime_ms // 1000
    client.set("source", "1")
    payload = client.dump("source")
    ways: dict[str, Callable[[str], object]] = {
        "set": lambda key: client.set(key, "1", px=lifetime_ms),
        "set in seconds": lambda key: client.set(key, "1", ex=seconds),
        "setex": lambda key: client.execute_command("SETEX", key, seconds, "1"),
        "psetex": lambda key: client.execute_command("PSETEX", key, lifetime_ms, "1"),
        "expire": lambda key: (client.set(key, "1"), client.expire(key, seconds)),
        "pexpire": lambda key: (client.set(key, "1"), client.pexpire(key, lifetime_ms)),
        "getex": lambda key: (client.set(key, "1"), client.getex(key, px=lifetime_ms)),
        "restore": lambda key: client.restore(key, lifetime_ms, payload),
        "script": lambda key: client.eval(f"redis.call('SET', KEYS[1], 1, 'PX', {lifetime_ms})", 1, key),
        "transaction": lambda key: client.pipeline(transaction=True).set(key, "1", px=lifetime_ms).execute(),
    }
    for way, do in ways.items():
        do(f"{living}: {way}")
    return [f"{living}: {way}" for way in ways]


@variants("name", NAMES, kept=["valkey-9.1"])
async def test_an_undo_leaves_scripts_that_clients_hold(name: str, start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis(name)
    one = await stage(server, tmp_path)
    with client_of(server) as client:
        await restore(one, client.script_flush)
        held = client.script_load("return 5")

        await undo(one)

        assert client.evalsha(held, 0) == 5
