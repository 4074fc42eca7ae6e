"""Servers as people have set them up: few rights, no CONFIG, TLS, a unix socket, modules, passwords between servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from redis import ResponseError

from agent.engines.redis.libraries import RIGHTS as RIGHTS_FOR_LIBRARIES
from agent.engines.redis.replica import Replica
from common.errors import AppUnavailableError, ArchiveIncompatibleError
from tests.fixtures.rdb_files import GOOD, rdb, text_key
from tests.fixtures.redis_data import content_of, fill, fill_otherwise
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.redis_apps import RedisApp
from tools.servers import RedisServer
from tools.servers.redis import falkordb_module

RIGHTS = (
    "+info",
    "+psync",
    "+replconf",
    "+config|get",
    "+config|set",
    "+client|list",
    "+client|pause",
    "+client|unpause",
    "+replicaof",
    "+bgsave",
    "+select",
    "+get",
    "+del",
    "~mathison-data:*",
)
"""docs/recipes/redis.md has the same."""


async def round_trip(app: RedisApp) -> None:
    """Out, other data in its place, in again, and back; nothing of it left over."""
    fill(app.server, keys=20)
    content, settings = await content_of(app.server), app.server_settings()
    exported = await app.export()
    fill_otherwise(app.server)
    otherwise = await content_of(app.server)

    record = await app.import_file(exported.file)
    assert (await content_of(app.server)).differences(content) == []
    app.require_released(settings)

    await app.recipe.undo(record, app.progress)
    assert (await content_of(app.server)).differences(otherwise) == []
    app.require_released(settings)
    assert app.files() == []


def app_of_user(server: RedisServer, directory: Path, *rights: str) -> RedisApp:
    """The app, seen by a user that has only these rights."""
    with client_of(server) as client:
        client.execute_command("ACL", "SETUSER", "keeper", "reset", "on", ">word", *rights)
    secret = directory / "word"
    secret.write_text("word")
    return RedisApp(server, directory / "work", {"user": "keeper", "password_file": str(secret)})


@variants("name", ["redis-6.2", "redis-7.0", "valkey-9.1"], kept=["redis-7.0"])
async def test_a_user_with_the_documented_rights_can_do_everything(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    rights = RIGHTS if name == "redis-6.2" else (*RIGHTS, *RIGHTS_FOR_LIBRARIES.split())
    await round_trip(app_of_user(start_redis(name, settings={"save": "3600 1"}), tmp_path, *rights))


@pytest.mark.parametrize("lacking", [right for right in RIGHTS if right != "+client|list"])
@variants("name", ["redis-6.2", "redis-7.0"], kept=["redis-7.0"])
async def test_a_right_that_is_missing_is_named_by_a_dry_run_and_nothing_is_changed(
    name: str, lacking: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"save": "3600 1"})
    fill_otherwise(server)
    content = await content_of(server)
    app = app_of_user(server, tmp_path, *(right for right in RIGHTS if right != lacking))
    settings = app.server_settings()

    with pytest.raises(AppUnavailableError, match=r"may not") as refused:
        await app.stage(rdb(text_key("a"), magic="REDIS0009"))

    assert f"ACL SETUSER keeper {lacking}" in refused.value.next_step
    assert (await content_of(server)).differences(content) == []
    app.require_released(settings)


async def test_an_export_needs_no_more_than_three_rights(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-7.0", settings={"repl-diskless-sync-delay": "0"})
    fill(server, keys=20)

    exported = await app_of_user(server, tmp_path, "+info", "+psync", "+replconf").export()

    assert exported.counts["database 3"] == 2


@variants("name", ["redis-6.2", "redis-7.0"])
async def test_without_config_an_import_works_and_says_what_it_costs(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(
        name, settings={"save": "3600 1", "repl-diskless-sync-delay": "0"}, lines=['rename-command CONFIG ""']
    )
    app = RedisApp(server, tmp_path / "work")
    fill(server, keys=20)
    content = await content_of(server)
    exported = await app.export()
    fill_otherwise(server)
    otherwise = await content_of(server)

    record, preview = await app.stage(exported.file)
    await app.recipe.restore(record, app.progress)
    imported = await content_of(server)
    server.kill()
    server.start()
    with client_of(server, database=15) as client:
        client.flushdb()
    restarted = await content_of(server)
    await app.recipe.undo(record, app.progress)

    assert any("does not let the agent change its settings" in warning for warning in preview.warnings)
    assert imported.differences(content) == []
    assert restarted.differences(content) == []
    assert (await content_of(server)).differences(otherwise) == []


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("redis-7.0", ["rename-command PUBLISH xpub"], "no command PUBLISH.* copied: messages are delivered again"),
        ("valkey-9.1", ["rename-command SPUBLISH xpub"], "no command SPUBLISH.* delivered again"),
        (
            "redis-6.2",
            ["rename-command EXPIRE xexp", "rename-command SET xset", 'rename-command SCRIPT ""'],
            "no command SCRIPT, SET, EXPIRE.*: scripts of clients .* again, times to live count from the undo",
        ),
        ("redis-7.0", ["rename-command EXPIRE xexp"], ""),
        ("redis-6.2", [], ""),
    ],
)
async def test_what_an_undo_may_not_recognize_since_it_was_renamed_is_told(
    name: str, lines: list[str], said: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    app = RedisApp(start_redis(name, lines=lines), tmp_path / "work")

    described = await app.recipe.describe()
    record, preview = await app.stage(rdb(text_key("a"), magic="REDIS0009"))
    await app.recipe.discard(record)

    for warnings in (described.warnings, preview.warnings):
        about = [warning for warning in warnings if "rename-command" in warning]
        assert len(about) == bool(said)
        assert not said or re.search(said, about[0])


@pytest.mark.parametrize("has_config", [True, False], ids=["told to copy without TLS", "copies over TLS"])
async def test_a_server_with_tls_alone_is_exported_and_imported(
    start_redis: StartRedis, tmp_path: Path, *, has_config: bool
) -> None:
    lines = [] if has_config else ['rename-command CONFIG ""']
    server = start_redis(
        "redis-7.0", tls=True, lines=lines, settings={"repl-diskless-sync-delay": "0"}, password="secret"
    )
    assert server.tls is not None
    settings: dict[str, object] = {"tls": True, "tls_ca_file": str(server.tls.authority)}
    if not has_config:
        settings |= {"tls_cert_file": str(server.tls.certificate), "tls_key_file": str(server.tls.key)}
    app = RedisApp(server, tmp_path / "work", settings)
    fill(server, keys=20)
    with client_of(server) as client:
        size = client.dbsize()

    exported = await app.export()
    with client_of(server) as client:
        client.flushall()
        client.set("old", "1")
    record = await app.import_file(exported.file)

    with client_of(server) as client:
        assert client.dbsize() == size
        assert client.info("replication")["role"] == "master"
        if has_config:
            assert client.config_get("tls-replication") == {"tls-replication": "yes"}
    await app.recipe.undo(record, app.progress)
    with client_of(server) as client:
        assert client.keys() == [b"old"]


async def test_a_server_that_copies_over_tls_needs_our_certificate(start_redis: StartRedis, tmp_path: Path) -> None:
    hasty = {"repl-diskless-sync-delay": "0"}
    server = start_redis("redis-7.0", tls=True, settings=hasty, lines=['rename-command CONFIG ""'])
    assert server.tls is not None
    app = RedisApp(server, tmp_path / "work", {"tls": True, "tls_ca_file": str(server.tls.authority)})

    with pytest.raises(Exception, match="replicates over TLS, and the agent has no certificate"):
        await app.import_file(GOOD)

    with client_of(server) as client:
        assert client.info("replication")["role"] == "master"
        assert client.dbsize() == 0


async def test_a_server_that_nobody_vouches_for_is_an_obstacle(start_redis: StartRedis, tmp_path: Path) -> None:
    app = RedisApp(start_redis("redis-7.0", tls=True), tmp_path / "work", {"tls": True})

    description = await app.recipe.describe()

    assert "do not agree on TLS" in description.can_export.obstacle


async def test_a_unix_socket_is_as_good_as_a_port(start_redis: StartRedis, short_path: Path, tmp_path: Path) -> None:
    socket = short_path / "redis.sock"
    short_path.chmod(0o777)
    server = start_redis("valkey-8.1", settings={"unixsocket": str(socket), "unixsocketperm": "777"})

    await round_trip(RedisApp(server, tmp_path / "work", {"host": str(socket)}))


@variants("name", ["redis-6.2", "redis-8.2"], kept=["redis-8.2"])
async def test_a_password_between_servers_stays_and_is_not_noted(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"masterauth": "between-servers", "masteruser": "copier"})
    app = RedisApp(server, tmp_path / "work")

    await round_trip(app)

    record = await app.import_file(rdb(text_key("a"), magic="REDIS0009"))
    assert "between-servers" not in repr(record.facts)


async def test_values_of_a_module_go_to_a_server_that_has_it_and_to_no_other(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-8.2", settings={"loadmodule": str(falkordb_module())})
    with client_of(server) as client:
        client.execute_command("GRAPH.QUERY", "people", "CREATE (:Person {name: 'Ada'})")
        client.set("text", "1")
    app = RedisApp(server, tmp_path / "work")

    exported = await app.export()
    with client_of(server) as client:
        client.flushall()
    await app.import_file(exported.file)

    assert exported.counts["module values"] == 1
    with client_of(server) as client:
        assert b"Ada" in client.execute_command("GRAPH.QUERY", "people", "MATCH (p) RETURN p.name")[1][0]
    plain = RedisApp(start_redis("redis-8.2"), tmp_path / "plain")
    with pytest.raises(ArchiveIncompatibleError, match=r"graphdata of module graph.*Modules of this server: vectorset"):
        await plain.stage(exported.file)


async def test_a_server_that_keeps_too_little_for_a_replica_is_told_with_the_setting(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings={"client-output-buffer-limit": "replica 1mb 1mb 0"})
    app = RedisApp(server, tmp_path / "work")
    record, _ = await app.stage(rdb(text_key("a")))
    tail = Replica.tail

    def flooded(replica: Replica, until: int) -> AsyncGenerator[bytes, None]:
        # Writes are paused for the second.
        monkeypatch.setattr(Replica, "tail", tail)
        with client_of(server) as client:
            for number in range(200):
                client.set(f"n{number}", "x" * 20_000)
        return tail(replica, until)

    monkeypatch.setattr(Replica, "tail", flooded)
    with pytest.raises(AppUnavailableError, match="broke the copy of its data off: The connection to") as broken:
        await app.recipe.restore(record, app.progress)

    assert "raise `client-output-buffer-limit replica`" in broken.value.next_step
    assert "CLIENT PAUSE" in broken.value.next_step
    with client_of(server) as client:
        assert client.get("n199")
        assert client.get("a") is None


async def test_what_a_busy_server_says_ends_with_one_stop(start_redis: StartRedis, tmp_path: Path) -> None:
    app = RedisApp(start_redis("redis-7.0"), tmp_path / "work")
    with client_of(app.server) as looping, client_of(app.server) as client:
        looping.config_set("busy-reply-threshold", 1)
        script = asyncio.create_task(asyncio.to_thread(looping.eval, "while true do end", 0))
        text = ""
        async with asyncio.timeout(30):
            while "BUSY" not in text:
                text = (await app.recipe.describe()).can_export.obstacle
        client.execute_command("SCRIPT", "KILL")
        with pytest.raises(ResponseError, match="killed"):
            await script

    assert ".." not in text
    assert text.endswith(".")


async def test_a_save_that_runs_already_is_waited_for(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-7.0", settings={"save": "3600 1", "rdb-key-save-delay": "300"})
    fill(server, keys=500)
    app = RedisApp(server, tmp_path / "work")
    with client_of(server) as client:
        client.bgsave()
        client.config_set("rdb-key-save-delay", "0")

    exported = await app.export()

    assert exported.counts["database 3"] == 2


@pytest.mark.parametrize("command", ["REPLICAOF", "CLIENT", "PSYNC", "REPLCONF", "BGSAVE", "SELECT", "GET", "DEL"])
async def test_a_command_that_was_renamed_away_is_named_before_anything_is_changed(
    command: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0", settings={"save": "3600 1"}, lines=[f'rename-command {command} ""'])
    app = RedisApp(server, tmp_path / "work")
    said = f"The server has no command {command}, which an import needs"

    described = await app.recipe.describe()
    with pytest.raises(AppUnavailableError, match=said) as refused:
        await app.stage(rdb(text_key("a")))

    assert said in described.can_import.obstacle
    assert bool(described.can_export.obstacle) is (command == "PSYNC")
    assert "rename" in refused.value.text


async def test_bgsave_is_missed_only_where_it_is_needed_and_bgrewriteaof_nowhere(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    lines = ['rename-command BGSAVE ""', 'rename-command BGREWRITEAOF ""']
    server = start_redis("redis-7.0", settings={"save": '""', "appendonly": "yes"}, lines=lines)

    await round_trip(RedisApp(server, tmp_path / "work"))
