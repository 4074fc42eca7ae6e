"""Scripts that a Redis 6.2 writes into its snapshots, and runs when it loads one: none of a file reaches a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.rdb_files import aux, database, rdb, text_key
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.integration.agent.recipes.redis_apps import RedisApp

HARMFUL = {
    "never ends": "return 1 end while true do end function x()",
    "calls the server": "return 1 end redis.call('set', 'injected', '1') function x()",
    "does not compile": "this is no Lua",
}


@pytest.mark.parametrize("script", HARMFUL.values(), ids=HARMFUL)
async def test_a_script_of_a_file_is_not_run(script: str, start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-6.2")
    app = RedisApp(server, tmp_path / "work")
    with client_of(server) as client:
        client.set("old", "1")
        run_id = client.info("server")["run_id"]

    record, preview = await app.stage(
        rdb(aux("lua", script), database(0), text_key("new"), aux("LUA", script), magic="REDIS0009")
    )
    await app.recipe.restore(record, app.progress)

    assert [warning for warning in preview.warnings if warning.startswith("2 Lua scripts that")]
    with client_of(server) as client:
        assert client.keys() == [b"new"]
        await app.recipe.undo(record, app.progress)
        assert client.keys() == [b"old"]
        assert client.info("server")["run_id"] == run_id


@pytest.mark.parametrize("into", ["redis-6.2", "redis-7.0"])
async def test_an_export_goes_in_without_the_scripts_that_its_server_had_cached(
    into: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    source, target = start_redis("redis-6.2"), start_redis(into)
    with client_of(source) as client:
        client.set("a", "1")
        held = [client.script_load(f"return {number}") for number in range(3)]
    exported = await RedisApp(source, tmp_path / "source").export()
    app = RedisApp(target, tmp_path / "target")

    record, preview = await app.stage(exported.file)
    await app.recipe.restore(record, app.progress)

    assert exported.file.count(b"\xfa\x03lua") == 3
    assert [warning for warning in preview.warnings if warning.startswith("3 Lua scripts that")]
    with client_of(target) as client:
        assert client.keys() == [b"a"]
        assert client.script_exists(*held) == [False, False, False]
