"""A server that evicts: what it drops after a swap, be it the marker, misleads nobody about what it holds."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.engines.redis import durable, exchange
from agent.engines.redis.swap_record import Aim
from agent.journal import Entry
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from common.errors import AppUnavailableError, ToolFailedError
from tests.fixtures import forked
from tests.fixtures.rdb_files import aux, expiring, rdb, text_key
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes import redis_program
from tests.integration.agent.recipes.redis_apps import LAST_DATABASE, RedisApp
from tests.integration.agent.recipes.test_redis_swap import KEYS as MANY_KEYS
from tests.integration.agent.recipes.test_redis_swap import fill_with
from tools.servers import RedisServer

KEYS = 1500
MAXIMUM = "4mb"
"""Less than a server needs for so many keys, more than it needs for a few."""
WEEK_MS = 7 * 24 * 3600 * 1000
POLICIES = ["volatile-ttl", "allkeys-random"]
"""Both drop the marker among the first keys: it expires before those of the file, and is alone in its database."""
PREVIOUS = {b"old": b"yes", b"older": b"too"}
WRITTEN_SINCE = b"written since the server came back"
SNAPSHOTS, LOG = {"save": "3600 1"}, {"appendonly": "yes", "save": '""', "appendfsync": "always"}


def large_file() -> bytes:
    """It says that it needs less than it does; most of its keys expire, later than the marker."""
    expires_at_ms = int(time.time() * 1000) + WEEK_MS
    texts = [text_key(f"new:{number}", "x" * 4000) for number in range(KEYS)]
    expires = [expiring(expires_at_ms) + text for text in texts[100:]]
    return rdb(aux("used-mem", "1000"), *expires, *texts[:100], magic="REDIS0009")


def content(server: RedisServer) -> Mapping[bytes, bytes]:
    """Of the first database."""
    with client_of(server) as client:
        keys = list(client.scan_iter(count=KEYS))
        return dict(zip(keys, client.mget(keys), strict=True)) if keys else {}


async def stage(server: RedisServer, directory: Path) -> tuple[RedisApp, Entry, dict[str, str]]:
    """An app with the previous data, into which a large file is to be imported; and its settings."""
    with client_of(server) as client:
        client.mset(PREVIOUS)
    app = RedisApp(server, directory / "work")
    settings = app.server_settings()
    state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
    entry = redis_program.journal_in(directory / "journal").open(state)
    await app.stage(large_file(), entry)
    return app, entry, settings


def evicting(policy: str, **more: str) -> dict[str, str]:
    return {"maxmemory": MAXIMUM, "maxmemory-policy": policy, **more}


async def require(side: Recovered, app: RedisApp, entry: Entry, settings: Mapping[str, str]) -> None:
    """The server has what is said, as far as it could keep it; an import can be undone."""
    app.require_released(settings)
    if side is Recovered.IMPORTED:
        assert b"old" not in content(app.server)
        await app.recipe.undo(entry, app.progress)
        app.require_released(settings)
    assert {key: value for key, value in content(app.server).items() if key != WRITTEN_SINCE} == PREVIOUS


@variants("policy", POLICIES)
@variants("name", ["redis-6.2", "redis-7.0", "redis-8.2", "valkey-9.1"], kept=["redis-7.0"])
async def test_an_import_whose_marker_is_evicted_is_an_import_and_can_be_undone(
    name: str, policy: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings=evicting(policy, **SNAPSHOTS))
    app, entry, settings = await stage(server, tmp_path)

    await app.recipe.restore(entry, app.progress)

    with client_of(server) as client:
        assert client.info("stats")["evicted_keys"] > 0
    await require(Recovered.IMPORTED, app, entry, settings)


@variants("policy", POLICIES)
@variants("moment", ["all sent", "loaded", "before it is durable"], kept=["loaded"])
async def test_an_agent_killed_in_a_restore_is_recovered_from_where_the_marker_is_evicted(
    moment: str, policy: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0", settings=evicting(policy, **SNAPSHOTS))
    app, entry, settings = await stage(server, tmp_path)

    _die_at(moment, "restore", app, tmp_path)
    entry = _read(tmp_path)
    sides = [await app.recover(entry) for _ in range(2)]

    assert sides[0] is sides[1]
    assert sides[0] is Recovered.IMPORTED or moment == "all sent"
    await require(sides[0], app, entry, settings)


@variants("moment", ["all sent", "loaded", "before it is durable"], kept=["loaded"])
async def test_an_agent_killed_in_an_undo_is_recovered_from_where_the_marker_is_evicted(
    moment: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0", settings=evicting("allkeys-random", **SNAPSHOTS))
    app, entry, settings = await stage(server, tmp_path)
    await app.recipe.restore(entry, app.progress)

    _die_at(moment, "undo", app, tmp_path)
    entry = _read(tmp_path)
    side = await app.recover(entry)

    assert side is Recovered.PREVIOUS or moment == "all sent"
    await require(side, app, entry, settings)


@variants("moment", ["all sent but the end", "loaded", "before it is durable"], kept=["loaded"])
@variants("keeping", [SNAPSHOTS, LOG], ids=["snapshots", "append-only file"])
async def test_agent_and_server_killed_together_are_recovered_from_where_the_marker_is_evicted(
    keeping: dict[str, str], moment: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0", settings=evicting("allkeys-random", **keeping))
    app, entry, settings = await stage(server, tmp_path)

    _die_at(moment, "restore", app, tmp_path)
    server.kill()
    server.start()
    with client_of(server) as client:
        client.set(WRITTEN_SINCE, "1")
    entry = _read(tmp_path)
    side = await _recover_or_decide(app, entry)

    assert side is Recovered.IMPORTED or WRITTEN_SINCE in content(server)
    await require(side, app, entry, settings)


@variants("second", ["settings changed", "told to copy us", "all sent but the end"], kept=["told to copy us"])
@variants("first", ["all sent", "loaded", "before it is durable"], kept=["loaded"])
@variants("keeping", [SNAPSHOTS, LOG], ids=["snapshots", "append-only file"], kept=[LOG])
async def test_a_second_death_does_not_make_known_what_is_not(
    keeping: dict[str, str], first: str, second: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0", settings=evicting("allkeys-random", **keeping))
    app, entry, settings = await stage(server, tmp_path)
    _die_at(first, "restore", app, tmp_path)
    with client_of(server) as client:
        client.client_unpause()
        client.set(WRITTEN_SINCE, "1")

    _die_if_reached(second, app, tmp_path)
    server.kill()
    server.start()
    _die_if_reached(second, app, tmp_path)
    entry = _read(tmp_path)
    side = await _recover_or_decide(app, entry)

    await require(side, app, entry, settings)


@variants("policy", POLICIES)
async def test_an_import_that_could_not_be_taken_back_is_known_without_its_marker(
    policy: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings=evicting(policy, **LOG))
    app, entry, settings = await stage(server, tmp_path)
    load, make_durable = exchange.Exchange._load, durable.make_durable
    tried: list[Aim] = []

    async def load_but_not_back(self: exchange.Exchange, *arguments: Any) -> None:
        tried.append(arguments[2])
        if tried == [Aim.IMPORTED, Aim.PREVIOUS]:
            raise ToolFailedError("The agent cannot listen for the server.")
        await load(self, *arguments)

    async def fail_once(*arguments: Any) -> None:
        if tried == [Aim.IMPORTED]:
            with client_of(server, database=LAST_DATABASE) as client:
                assert client.keys() == []
            raise ToolFailedError("The server could not write its append-only file.")
        await make_durable(*arguments)

    with monkeypatch.context() as patches:
        patches.setattr(exchange.Exchange, "_load", load_but_not_back)
        patches.setattr(exchange, "make_durable", fail_once)
        await app.recipe.restore(entry, app.progress)

    assert tried == [Aim.IMPORTED, Aim.PREVIOUS]
    assert any(key.startswith(b"new:") for key in content(server))
    await require(Recovered.IMPORTED, app, entry, settings)


@variants("name", ["redis-6.2", "redis-7.0", "valkey-9.1"], kept=["redis-7.0"])
async def test_data_that_fits_is_not_evicted_for_what_it_replaced(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"maxmemory-policy": "allkeys-lru"})
    app = RedisApp(server, tmp_path / "work")
    fill_with(server, "new")
    exported = await app.export()
    with client_of(server) as client:
        client.flushall()
        fill_with(server, "old")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.3))

        record = await app.import_file(exported.file)
        assert client.exists("new:0:1")
        assert (client.dbsize(), client.info("stats")["evicted_keys"]) == (MANY_KEYS, 0)

        await app.recipe.undo(record, app.progress)
        assert client.exists("old:0:1")
        assert (client.dbsize(), client.info("stats")["evicted_keys"]) == (MANY_KEYS, 0)


def _die_at(moment: str, action: str, app: RedisApp, directory: Path) -> None:
    port, work_directory = app.server.port, app.work_directory
    forked.require_killed(redis_program.die_at, moment, action, port, work_directory, directory / "journal")


def _read(directory: Path) -> Entry:
    [entry] = redis_program.journal_in(directory / "journal").read()
    return entry


def _die_if_reached(moment: str, app: RedisApp, directory: Path) -> None:
    """A recovery that needs no load does not come to such a moment."""
    with contextlib.suppress(AssertionError):
        _die_at(moment, "recover", app, directory)


async def _recover_or_decide(app: RedisApp, entry: Entry) -> Recovered:
    """Which data there is; where the agent cannot know it, a person looks and says it."""
    try:
        side = await app.recover(entry)
    except AppUnavailableError as unknown:
        if "Nobody can know which data" not in unknown.text:
            raise
        side = Recovered.PREVIOUS if b"old" in content(app.server) else Recovered.IMPORTED
        with client_of(app.server, database=LAST_DATABASE) as client:
            client.config_set("maxmemory", "0")
            client.set(f"mathison-data:import:{entry.key}", side.value)
            assert await app.recover(entry) is side
            client.config_set("maxmemory", MAXIMUM)
    assert b"old" not in content(app.server) or side is Recovered.PREVIOUS
    return side
