"""Servers with a module that does not declare to bear a load beside its data: they load by their snapshot file, their
data dropped before, whatever they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.redis import releasing, swap
from agent.recipes.base import Recovered
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, ToolFailedError
from tests.fixtures.rdb_files import database, module_key, rdb, text_key
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.integration.agent.recipes.redis_apps import RedisApp
from tests.integration.agent.recipes.test_redis_refusals import refuse_writes
from tools.servers import RedisServer, ServerStartError
from tools.servers.redis import falkordb_module

BY_FILE = "The server's module does not declare to bear a load beside its data (graph; `options` in INFO modules)"


def start(start_redis: StartRedis) -> RedisServer:
    """A server that lives by snapshots and has two values, of which one is a module's."""
    settings = {"save": "3600 1", "loadmodule": str(falkordb_module())}
    server = start_redis("redis-8.2", settings=settings)
    with client_of(server) as client:
        client.execute_command("GRAPH.QUERY", "people", "CREATE (:Person {name: 'Ada'})")
        client.set("old", "1")
    return server


async def test_it_is_said_that_the_server_will_drop_its_data_first(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start(start_redis)
    app = RedisApp(server, tmp_path / "work")
    plain = [RedisApp(start_redis(name), tmp_path / name) for name in ("redis-8.2", "valkey-9.1")]

    described = await app.recipe.describe()
    record, preview = await app.stage(rdb(database(0), text_key("new")))
    await app.recipe.restore(record, app.progress)

    assert any(warning.startswith(f"{BY_FILE}, so an import empties") for warning in described.warnings)
    assert any(warning.startswith(f"{BY_FILE}, so it will drop its data first") for warning in preview.warnings)
    assert not any("not looked into" in warning for warning in preview.warnings)
    assert "Skipping diskless-load" in server.log()
    with client_of(server) as client:
        assert client.keys() == [b"new"]
        await app.recipe.undo(record, app.progress)
        assert {b"people", b"old"} <= {*client.keys()}
    for one in plain:
        _, other = await one.stage(rdb(text_key("new")))
        assert not any("beside its data" in said for said in (*(await one.recipe.describe()).warnings, *other.warnings))


async def test_nothing_is_changed_where_it_cannot_write_the_file_that_it_loads_by(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start(start_redis)
    app = RedisApp(server, tmp_path / "work")
    record = await app.import_file(rdb(text_key("new")))
    refuse_writes(server, "MISCONF")

    with pytest.raises(ToolFailedError, match=r"could not save a snapshot.*module does not declare.* lose its data"):
        await app.recipe.undo(record, app.progress)

    with client_of(server) as client:
        assert client.keys() == [b"new"]
        (server.directory / "dump.rdb").rmdir()
        await app.recipe.undo(record, app.progress)
        assert {b"people", b"old"} <= {*client.keys()}


async def test_a_value_that_its_module_does_not_take_costs_no_data_and_the_way_out_is_told(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(start_redis)
    app = RedisApp(server, tmp_path / "work")
    monkeypatch.setattr(swap, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(releasing, "RELEASE_SECONDS", 1.0)

    record, preview = await app.stage(rdb(database(0), text_key("new"), module_key(b"m", "graphdata")))
    with pytest.raises(UnsettledError):
        await app.recipe.restore(record, app.progress)
    server.wait()
    with pytest.raises(ServerStartError):
        server.start()
    with pytest.raises(AppUnavailableError, match=r"cannot be reached.*\(`dbfilename`\), move that away"):
        await app.recover(record)
    (server.directory / "dump.rdb").rename(server.directory / "away.rdb")
    server.start()

    assert await app.recover(record) is Recovered.PREVIOUS
    assert any("(graphdata) is not looked into" in one and "moved away" in one for one in preview.warnings)
    with client_of(server) as client:
        assert {b"people", b"old"} <= {*client.keys()}
        assert b"Ada" in client.execute_command("GRAPH.QUERY", "people", "MATCH (p) RETURN p.name")[1][0]
