"""A server that was set up anew after it was looked at: nothing is changed where the data does not go in any more."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from pathlib import Path

import pytest

from agent.engines.redis import exchange
from agent.engines.redis.connection import Connection
from agent.engines.redis.facts import ServerFacts, look
from agent.journal import Entry
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from common.errors import (
    NOTHING_CHANGED,
    AppUnavailableError,
    ArchiveIncompatibleError,
    NoSpaceError,
    NothingToUndoError,
    ServiceError,
)
from tests.fixtures import forked
from tests.fixtures.redis_data import content_of
from tests.fixtures.redis_moments import MOMENTS
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tests.integration.agent.recipes import redis_program
from tests.integration.agent.recipes.redis_apps import RedisApp
from tools.servers import RedisServer

NOTHING, SNAPSHOTS = {"save": '""'}, {"save": "3600 1"}
MANY = {"databases": "32"}
ANEW: dict[str, tuple[str, dict[str, str], type[ServiceError], str]] = {
    "fewer databases": (
        "redis-8.2",
        {"databases": "16"},
        ArchiveIncompatibleError,
        "has keys in database 20, which this server does not have",
    ),
    "less memory": ("redis-8.2", {**MANY, "maxmemory": "3mb"}, NoSpaceError, "it would refuse every write"),
    "an older release": ("redis-7.0", MANY, ArchiveIncompatibleError, "of RDB version 12 and needs Redis 7.4 or newer"),
}


def fill_large(server: RedisServer, value: str) -> None:
    """About 5 MB, and a key in a high database."""
    with client_of(server, database=20) as client:
        client.flushall()
        client.set("high", value)
    with client_of(server) as client, client.pipeline(transaction=False) as pipeline:
        for number in range(2000):
            pipeline.set(f"{value}:{number}", os.urandom(2000))
        pipeline.execute()


async def stage(server: RedisServer, directory: Path) -> tuple[RedisApp, Entry]:
    """An import of such data into a server with other such data."""
    app = RedisApp(server, directory / "work")
    fill_large(server, "imported")
    file = (await app.export()).file
    fill_large(server, "previous")
    state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
    entry = redis_program.journal_in(directory / "journal").open(state)
    await app.stage(file, entry)
    return app, entry


def restart(app: RedisApp, start_redis: StartRedis, name: str, **options: object) -> None:
    """The server, killed, in the same place and set up otherwise."""
    app.server.kill()
    app.server = start_redis(name, directory=app.server.directory, port=app.server.port, **options)


@pytest.mark.parametrize("how", ANEW)
async def test_an_import_is_refused_by_a_server_that_cannot_take_the_file_any_more(
    how: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    name, settings, error, said = ANEW[how]
    app, entry = await stage(start_redis("redis-8.2", settings={**NOTHING, **MANY}), tmp_path)
    restart(app, start_redis, name, settings={**NOTHING, **settings})
    with client_of(app.server) as client:
        client.set("its own", "1")
    content, before = await content_of(app.server), app.server_settings()

    with pytest.raises(error, match=said):
        await app.recipe.restore(entry, app.progress)

    assert (await content_of(app.server)).differences(content) == []
    app.require_released(before)


@variants("how", ANEW)
async def test_so_is_an_undo_until_the_server_is_as_it_was(how: str, start_redis: StartRedis, tmp_path: Path) -> None:
    name, settings, _, said = ANEW[how]
    app, entry = await stage(start_redis("redis-8.2", settings={**NOTHING, **MANY}), tmp_path)
    previous = await content_of(app.server)
    await app.recipe.restore(entry, app.progress)
    restart(app, start_redis, name, settings={**NOTHING, **settings})
    with client_of(app.server) as client:
        client.set("its own", "1")
    content, before = await content_of(app.server), app.server_settings()

    with pytest.raises(AppUnavailableError, match=f"restarted or set up anew since its previous data.*{said}"):
        await app.recipe.undo(entry, app.progress)

    assert (await content_of(app.server)).differences(content) == []
    app.require_released(before)
    restart(app, start_redis, "redis-8.2", settings={**NOTHING, **MANY})
    await app.recipe.undo(entry, app.progress)
    assert (await content_of(app.server)).differences(previous) == []


@variants("how", ANEW)
async def test_so_is_the_copy_of_the_previous_data_after_a_crash(
    how: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    name, settings, _, said = ANEW[how]
    app, entry = await stage(start_redis("redis-8.2", settings={**NOTHING, **MANY}), tmp_path)
    previous = await content_of(app.server)
    journal = tmp_path / "journal"
    forked.require_killed(redis_program.die_at, "loaded", "restore", app.server.port, app.work_directory, journal)
    restart(app, start_redis, name, settings={**NOTHING, **settings})
    [entry] = redis_program.journal_in(journal).read()

    with pytest.raises(AppUnavailableError, match=f"could not be put back yet.*{said}") as refused:
        await app.recover(entry)

    assert "The server has nothing at all" in refused.value.text
    assert NOTHING_CHANGED not in refused.value.text
    with client_of(app.server) as client:
        assert client.dbsize() == 0
    restart(app, start_redis, "redis-8.2", settings={**NOTHING, **MANY})
    assert await app.recover(entry) is Recovered.PREVIOUS
    assert (await content_of(app.server)).differences(previous) == []


async def test_a_server_without_config_keeps_its_own_snapshot_file(start_redis: StartRedis, tmp_path: Path) -> None:
    without_config = ['rename-command CONFIG ""']
    app, entry = await stage(start_redis("redis-7.0", settings={**SNAPSHOTS, **MANY}, lines=without_config), tmp_path)
    with client_of(app.server) as client:
        client.flushall()
        client.set("its own", "1")
        # The process that wrote for the last export may not have ended.
        await until(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0)
        client.save()
    restart(app, start_redis, "redis-7.0", settings=SNAPSHOTS, lines=without_config)

    with pytest.raises(ArchiveIncompatibleError, match="database 20"):
        await app.recipe.restore(entry, app.progress)

    app.server.kill()
    app.server.start()
    with client_of(app.server) as client:
        assert client.keys() == [b"its own"]


@variants("is_restarted", [False, True], ids=["same run", "restarted"], kept=[True])
@variants("lines", [[], ['rename-command CONFIG ""']], ids=["beside", "by file"])
async def test_an_undo_is_not_refused_only_because_imported_data_grew(
    lines: list[str], start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_restarted: bool
) -> None:
    settings = {**SNAPSHOTS, **MANY, "repl-diskless-sync-delay": "0"}
    app, entry = await stage(start_redis("redis-7.0", settings=settings, lines=lines), tmp_path)
    previous = await content_of(app.server)
    await app.recipe.restore(entry, app.progress)
    if is_restarted:
        restart(app, start_redis, "redis-7.0", settings=settings, lines=lines)

    async def look_at_a_small_machine(connection: Connection) -> ServerFacts:
        server = await look(connection)
        return dataclasses.replace(server, system_bytes=server.used_bytes + (1 << 20))

    monkeypatch.setattr(exchange, "look", look_at_a_small_machine)
    if is_restarted and not lines:
        with pytest.raises(AppUnavailableError, match=r"was restarted or set up anew.*; the machine has"):
            await app.recipe.undo(entry, app.progress)
    else:
        await app.recipe.undo(entry, app.progress)
        assert (await content_of(app.server)).differences(previous) == []


@variants("suffix", ["previous.rdb", "previous.commands"])
async def test_an_undo_whose_copy_lacks_a_file_has_nothing_to_undo(
    suffix: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    app, entry = await stage(start_redis("redis-7.0", settings={**NOTHING, **MANY}), tmp_path)
    await app.recipe.restore(entry, app.progress)
    imported, before = await content_of(app.server), app.server_settings()
    (app.work_directory / f"{entry.key}.{suffix}").unlink()

    with pytest.raises(NothingToUndoError, match="previous data is gone"):
        await app.recipe.undo(entry, app.progress)

    assert (await content_of(app.server)).differences(imported) == []
    app.require_released(before)


async def test_a_database_that_only_commands_after_the_copy_used_counts_too(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    app, entry = await stage(start_redis("redis-7.0", settings={**NOTHING, **MANY}), tmp_path)

    def use_another() -> None:
        with client_of(app.server, database=25) as client:
            client.set("written", "1")
            # FLUSHALL would end the child that wrote the copy, and the copy with it.
            client.delete("written")

    with pytest.MonkeyPatch.context() as patches:
        MOMENTS["settings changed"].hook(use_another, patches.setattr)
        await app.recipe.restore(entry, app.progress)
    restart(app, start_redis, "redis-7.0", settings={**NOTHING, "databases": "24"})

    with pytest.raises(AppUnavailableError, match="has keys in database 25"):
        await app.recipe.undo(entry, app.progress)
