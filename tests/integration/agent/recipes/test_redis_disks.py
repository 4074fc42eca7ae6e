"""A server whose disk refuses: it is refused before anything is changed, and what shows only later is said and kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from agent.engines.redis import swap
from agent.recipes.base import Recovered
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, ToolFailedError
from tests.fixtures.redis_data import content_of
from tests.fixtures.redis_moments import MOMENTS
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tests.integration.agent.recipes.redis_apps import LAST_DATABASE
from tests.integration.agent.recipes.test_redis_crashes import KEEPING, Import, stage
from tests.integration.agent.recipes.test_redis_refusals import WITHOUT_CONFIG
from tools.servers import RedisServer

NAMES = ["redis-6.2", "redis-7.0", "valkey-9.1"]
THAT_SAVE = ["snapshots", "append-only file"]


def break_disk(server: RedisServer) -> Callable[[], None]:
    """Have it write no new file, and no append-only file again.

    Returns:
        Mends it.
    """
    folders = [server.directory, server.directory / "appendonlydir"]
    folders = [folder for folder in folders if folder.exists()]
    for folder in folders:
        folder.chmod(0o555)

    def mend() -> None:
        for folder in folders:
            folder.chmod(0o755)

    return mend


def break_disk_of_a_copy(server: RedisServer) -> Callable[[], None]:
    """`break_disk` when it has begun to receive what it copies into a file."""
    while not list(server.directory.glob("temp-*.rdb")):
        pass
    return break_disk(server)


async def recover_at_last(one: Import) -> Recovered:
    """As an agent that goes on trying: for a second a server stumbles over the file of the copy that failed."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(AppUnavailableError):
                return await one.app.recover(one.read())


def save_again(server: RedisServer, keeping: str) -> None:
    """As somebody does who has made room on its disk."""
    with client_of(server) as client:
        if keeping == "snapshots":
            client.save()
            return
        with contextlib.suppress(ResponseError):
            client.bgrewriteaof()
        while client.info("persistence")["aof_last_bgrewrite_status"] != "ok":
            pass


@variants("name", [*NAMES, "redis-8.2", "valkey-8.1"], kept=["redis-7.0"])
async def test_a_server_that_keeps_nothing_needs_no_disk_and_gets_no_snapshot_file(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings=KEEPING["nothing"])
    one = await stage(server, tmp_path)
    mend = break_disk(server)

    await one.app.recipe.restore(one.read(), one.app.progress)
    await one.require(Recovered.IMPORTED)
    file = (await one.app.export()).file
    await one.take_back()
    await one.app.import_file(file)
    await one.require(Recovered.IMPORTED)

    mend()
    assert not (server.directory / "dump.rdb").exists()
    server.kill()
    server.start()
    with client_of(server) as client:
        assert client.dbsize() == 0


@variants("has_imported", [False, True], ids=["at first", "after an import"], kept=[True])
@variants("name", ["redis-7.0", "redis-8.2", "valkey-9.1"])
async def test_a_former_replica_comes_back_with_an_import_and_not_with_the_file_of_what_it_copied(
    name: str, start_redis: StartRedis, tmp_path: Path, *, has_imported: bool
) -> None:
    master, server = start_redis(name), start_redis(name, settings=KEEPING["nothing"])
    one = await stage(server, tmp_path)
    if has_imported:
        await one.app.import_file((await one.app.export()).file)
    with client_of(master) as client:
        client.set("of the former master", "1")
    with client_of(server) as client:
        client.replicaof(master.host, str(master.port))
        await until(lambda: client.info("replication")["master_link_status"] == "up")
        client.replicaof("NO", "ONE")
    assert (server.directory / "dump.rdb").exists()

    await one.app.recipe.restore(one.read(), one.app.progress)
    server.kill()
    server.start()

    with client_of(server, database=LAST_DATABASE) as client:
        client.flushdb()
    await one.require(Recovered.IMPORTED)


@variants("keeping", THAT_SAVE)
@variants("name", NAMES, kept=["redis-7.0"])
async def test_nothing_is_changed_in_a_server_whose_disk_refuses_until_it_does_not(
    name: str, keeping: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={**KEEPING[keeping], "repl-diskless-sync-delay": "0"})
    one = await stage(server, tmp_path)
    mend = break_disk(server)

    with pytest.raises(ToolFailedError, match=r"could not|does not") as refused:
        await one.app.recipe.restore(one.entry, one.app.progress)
    assert "BGSAVE" in refused.value.next_step
    assert (await content_of(server)).differences(one.previous) == []
    mend()
    save_again(server, keeping)
    await one.require(Recovered.PREVIOUS)
    await one.app.recipe.restore(one.entry, one.app.progress)
    await one.require(Recovered.IMPORTED)

    mend = break_disk(server)
    with pytest.raises(ToolFailedError, match=r"would be lost when it restarts\.$"):
        await one.app.recipe.undo(one.entry, one.app.progress)
    mend()
    save_again(server, keeping)
    await one.require(Recovered.IMPORTED)
    await one.take_back()


@variants(
    ("name", "keeping"),
    # A newer server than 6.2 ends itself where it cannot begin a new append-only file.
    [("redis-6.2", "snapshots"), ("redis-6.2", "append-only file"), ("valkey-9.1", "snapshots")],
)
async def test_an_undo_that_is_not_durable_keeps_its_copy_until_it_is(
    name: str, keeping: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis(name, settings={**KEEPING[keeping], "repl-diskless-sync-delay": "0"})
    one = await stage(server, tmp_path)
    await one.app.recipe.restore(one.entry, one.app.progress)
    mends: list[Callable[[], None]] = []

    with monkeypatch.context() as patches:
        patches.setattr(swap, "SETTLE_SECONDS", 0.3)
        MOMENTS["before it is durable"].hook(lambda: mends.append(break_disk(server)), patches.setattr)
        if keeping == "append-only file":
            # It begins to rewrite that file as soon as it has loaded.
            MOMENTS["all sent"].hook(lambda: mends.append(break_disk(server)), patches.setattr)
        with pytest.raises(UnsettledError, match="It has the previous data in its memory alone"):
            await one.app.recipe.undo(one.entry, one.app.progress)
    with pytest.raises(AppUnavailableError, match="It has the previous data in its memory alone"):
        await one.app.recover(one.read())
    assert any("previous.rdb" in name for name in one.app.files())

    mends[0]()
    save_again(server, keeping)
    assert await one.app.recover(one.read()) is Recovered.PREVIOUS
    server.kill()
    server.start()
    with client_of(server, database=LAST_DATABASE) as client:
        client.flushdb()
    await one.require(Recovered.PREVIOUS)


@pytest.mark.parametrize("action", ["restore", "undo"])
@variants("keeping", THAT_SAVE)
@variants("name", ["redis-6.2", "redis-7.0"])
async def test_without_config_a_server_that_lost_its_data_to_its_disk_gets_it_back(
    name: str, keeping: str, action: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis(name, settings={**KEEPING[keeping], "repl-diskless-sync-delay": "0"})
    one = await stage(server, tmp_path)
    server.stop()
    server._lines.extend(WITHOUT_CONFIG)
    server.start()
    if action == "undo":
        await one.app.recipe.restore(one.entry, one.app.progress)
    mends: list[Callable[[], None]] = []

    with monkeypatch.context() as patches:
        patches.setattr(swap, "SETTLE_SECONDS", 0.3)
        MOMENTS["all sent but the end"].hook(lambda: mends.append(break_disk_of_a_copy(server)), patches.setattr)
        with pytest.raises(UnsettledError, match="has dropped its data and could not load other data"):
            await getattr(one.app.recipe, action)(one.entry, one.app.progress)
    with client_of(server) as client:
        assert client.dbsize() == 0
        with pytest.raises(ResponseError, match=r"read only replica|MISCONF"):
            client.set("written since", "1")
        with pytest.raises(AppUnavailableError, match="could not save a snapshot"):
            await one.app.recover(one.read())
        assert any("previous.rdb" in name for name in one.app.files())

        mends[0]()
        assert await recover_at_last(one) is Recovered.PREVIOUS
        client.set("probe", "1")
        client.delete("probe")
    server.kill()
    server.start()
    with client_of(server, database=LAST_DATABASE) as client:
        client.flushdb()
    assert (await content_of(server)).differences(one.previous) == []


async def test_no_marker_stays_of_an_import_that_was_taken_back(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings=KEEPING["snapshots"])
    one = await stage(server, tmp_path)
    mends: list[Callable[[], None]] = []

    with monkeypatch.context() as patches:
        MOMENTS["before it is durable"].hook(lambda: mends.append(break_disk(server)), patches.setattr)
        with pytest.raises(ToolFailedError, match="previous data was put back"):
            await one.app.recipe.restore(one.entry, one.app.progress)

    with client_of(server, database=LAST_DATABASE) as client:
        assert client.keys() == []
    mends[0]()
    save_again(server, "snapshots")
    await one.require(Recovered.PREVIOUS)
