"""Exports and imports of real Redis and Valkey servers, whole: out, in, back, and over restarts."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engines.redis import comparing, exporting
from agent.recipes.base import ItemChanges
from agent.recipes.redis import RDB_GZIP
from common.errors import InvalidRequestError
from common.rdb import read_header
from tests.fixtures.rdb_files import database, expiring, key, length, rdb, text_key
from tests.fixtures.redis_data import LIBRARY, content_of, fill, fill_otherwise
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.redis_apps import LAST_DATABASE, RedisApp
from tools.servers import REDIS_NAMES, RedisServer

NOTHING, SNAPSHOTS, LOG = {"save": '""'}, {"save": "3600 1"}, {"appendonly": "yes", "save": '""'}
KEEPING = {"nothing": NOTHING, "snapshots": SNAPSHOTS, "append-only file": LOG}
RDB_VERSIONS = {
    "redis-6.2": "REDIS0009",
    "redis-7.0": "REDIS0010",
    "redis-8.2": "REDIS0012",
    "valkey-8.1": "REDIS0011",
    "valkey-9.1": "VALKEY080",
}


def drop_marker(server: RedisServer) -> None:
    """A server that comes back from the snapshot of an import has the marker in it, until its next one."""
    with client_of(server, database=LAST_DATABASE) as client:
        assert len(client.keys()) <= 1
        client.flushdb()


@variants(
    ("name", "keeping"),
    [*((name, "snapshots") for name in REDIS_NAMES)]
    + [(name, keeping) for name in ("redis-7.0", "valkey-9.1") for keeping in ("nothing", "append-only file")],
    kept=[("redis-7.0", "snapshots"), ("valkey-9.1", "append-only file")],
)
async def test_what_was_exported_comes_back_and_so_does_what_it_replaced(
    name: str, keeping: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, password="secret", settings=KEEPING[keeping])
    app = RedisApp(server, tmp_path / "work")
    fill(server)
    exported_content = await content_of(server)
    settings = app.server_settings()

    exported = await app.export()
    fill_otherwise(server)
    replaced_content = await content_of(server)
    record, preview = await app.stage(exported.file)
    await app.recipe.restore(record, app.progress)

    assert (await content_of(server)).differences(exported_content) == []
    app.require_released(settings)
    assert preview.counts_now["keys"] == 5
    assert preview.counts_after == exported.counts
    if keeping != "nothing":
        server.kill()
        server.start()
        drop_marker(server)
        assert (await content_of(server)).differences(exported_content) == []

    with client_of(server) as client:
        client.set("written later", "1")
    await app.recipe.undo(record, app.progress)

    assert (await content_of(server)).differences(replaced_content) == []
    app.require_released(settings)
    assert app.files() == []
    if keeping != "nothing":
        server.kill()
        server.start()
        drop_marker(server)
        assert (await content_of(server)).differences(replaced_content) == []


@pytest.mark.parametrize("name", REDIS_NAMES)
async def test_an_export_counts_what_is_in_it_and_names_its_version(
    name: str, redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    server = redis_servers(name)
    with client_of(server) as client:
        client.flushall()
    fill(server)
    app = RedisApp(server, tmp_path / "work")

    exported = await app.export()

    header = read_header(exported.file)
    assert header is not None
    assert header.magic == RDB_VERSIONS[name] == exported.details["rdb_version"]
    assert exported.engine == server.install.kind
    with client_of(server) as client:
        assert exported.counts["database 0"] == client.dbsize()
    assert exported.counts["database 3"] == 2
    assert exported.counts["streams"] == 2
    assert exported.counts.get("functions", 0) == (0 if name == "redis-6.2" else 1)
    assert exported.warnings == []
    assert app.files() == []


@pytest.mark.parametrize("diskless", ["yes", "no"])
async def test_a_snapshot_comes_at_once_and_without_the_servers_disk_whatever_it_is_set_to(
    diskless: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    settings = {"repl-diskless-sync": diskless, "repl-diskless-sync-delay": "600", "rdbcompression": "no"}
    server = start_redis("redis-6.2", settings=settings)
    fill(server)
    app = RedisApp(server, tmp_path / "work")
    before = app.server_settings()

    exported = await app.export()

    assert app.server_settings() == before
    assert not (server.directory / "dump.rdb").exists()
    fill_otherwise(server)
    await app.import_file(exported.file)
    assert (await content_of(server)).databases.keys() == {0, 3, 14}


async def test_a_compressed_export_is_the_same_snapshot(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("valkey-8.1")
    fill(server)
    app = RedisApp(server, tmp_path / "work")

    exported = await app.export(RDB_GZIP)

    assert read_header(gzip.decompress(exported.file)) is not None
    content = await content_of(server)
    fill_otherwise(server)
    await app.import_file(exported.file)
    assert (await content_of(server)).differences(content) == []


async def test_an_empty_server_is_exported_and_imported(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-7.0")
    app = RedisApp(server, tmp_path / "work")

    exported = await app.export()
    fill_otherwise(server)
    record, preview = await app.stage(exported.file)
    await app.recipe.restore(record, app.progress)

    content = await content_of(server)
    assert (content.databases, content.functions) == ({}, {})
    assert preview.counts_after["keys"] == 0


@pytest.mark.parametrize("name", REDIS_NAMES)
async def test_a_preview_tells_of_function_libraries_that_will_be_gone_where_there_are_any(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    app = RedisApp(start_redis(name), tmp_path / "work")
    file = rdb(text_key("a"), magic="REDIS0009")

    _, without = await app.stage(file)

    assert not any("unction librar" in change for change in without.changes)
    if name != "redis-6.2":
        with client_of(app.server) as client:
            client.function_load(LIBRARY)
        _, preview = await app.stage(file)
        assert "1 function library of the server will be gone; the file has none." in preview.changes


async def test_keys_that_expire_on_the_way_are_told_and_vanish(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-7.0")
    app = RedisApp(server, tmp_path / "work")
    with client_of(server) as client:
        client.set("stays", "1")
        client.set("goes", "1", px=400)
        client.set("later", "1", ex=3600)
    exported = await app.export()
    with client_of(server) as client:
        while client.dbsize() == 3:
            client.get("goes")

    record, preview = await app.stage(exported.file)
    await app.recipe.restore(record, app.progress)

    assert preview.warnings[0] == "1 key of the file will vanish: the time to live is over."
    with client_of(server) as client:
        assert client.get("goes") is None
        assert client.get("stays") == b"1"
        assert 3500 < client.ttl("later") <= 3600


async def test_a_second_import_replaces_the_first_and_takes_back_to_it(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("valkey-9.1", settings=LOG)
    app = RedisApp(server, tmp_path / "work")
    files = []
    for number in range(2):
        with client_of(server) as client:
            client.flushall()
            client.set("which", number)
        files.append((await app.export()).file)

    first = await app.import_file(files[0])
    second = await app.import_file(files[1])
    await app.recipe.discard(first)
    await app.recipe.undo(second, app.progress)

    with client_of(server) as client:
        assert client.get("which") == b"0"
    assert app.files() == []


async def test_what_was_staged_can_be_dropped_and_leaves_nothing(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-7.0")
    fill(server, keys=10)
    app = RedisApp(server, tmp_path / "work")
    content = await content_of(server)
    record, _ = await app.stage((await app.export()).file)
    assert app.files() == [f"{record.key}.staged.rdb"]

    await app.recipe.discard(record)
    await app.recipe.discard(record)

    assert app.files() == []
    assert (await content_of(server)).differences(content) == []


async def test_an_unknown_option_is_refused(start_redis: StartRedis, tmp_path: Path) -> None:
    app = RedisApp(start_redis("redis-7.0"), tmp_path / "work")

    with pytest.raises(InvalidRequestError, match="no option 'database'"):
        await app.export(options={"database": "0"})


async def test_a_recipe_describes_its_server(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-8.2", settings=SNAPSHOTS)
    with client_of(server) as client:
        client.set("a", "1")

    description = await RedisApp(server, tmp_path / "work").recipe.describe()

    assert (description.engine, description.engine_version) == ("redis", "8.2.3")
    assert description.can_export.is_possible
    assert description.can_import.is_possible
    assert description.details["keys"] == "1 in database 0"
    assert description.details["kept_by"] == "snapshots"
    assert description.details["modules"] == "vectorset"
    assert description.estimated_bytes > 0
    assert description.warnings == ()


async def test_a_preview_tells_key_by_key_what_becomes_of_little_data(
    redis_servers: Callable[[str], RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = redis_servers("redis-7.0"), RedisApp(redis_servers("valkey-8.1"), tmp_path / "work")
    for server in (source, target.server):
        with client_of(server) as client:
            client.flushall()
            client.rpush("same", "a", "b")
            client.hset("changed", "in", server.install.name)
            client.set("expires otherwise", 1, ex=1000 if server is source else 2000)
            client.set(f"only in {server.install.name}", 1)
    with client_of(target.server, database=3) as client:
        client.set("old", 1)
    file = (await RedisApp(source, tmp_path / "source").export()).file

    _, little = await target.stage(file)
    monkeypatch.setattr(comparing, "MOST_KEYS", 3)
    _, much = await target.stage(file)

    assert little.items == {
        "keys of database 0": ItemChanges(added=1, removed=1, changed=2, same=1),
        "keys of database 3": ItemChanges(removed=1),
    }
    assert little.bridging == (
        f"Written by Redis {source.install.version}, goes into Valkey {target.server.install.version}, which reads "
        "that version of the format (REDIS0010)."
    )
    assert little.room_bytes > 100_000
    assert 0 < little.swap_seconds < 1
    assert much.items == {"keys of database 3": ItemChanges(removed=1)}


async def test_a_preview_counts_what_the_server_will_have_and_has_then(
    redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    app = RedisApp(redis_servers("redis-7.0"), tmp_path / "work")
    with client_of(app.server) as client:
        client.flushall()
        client.set("gone", 1)
    keys = [text_key("a"), expiring(1000) + text_key("b"), key(b"expired", length(0), kind=2)]
    empty = key(b"empty", length(0), kind=2)

    _, expired_only = await app.stage(rdb(database(0), *keys[:2], database(4), expiring(1000) + text_key("c")))
    record, preview = await app.stage(rdb(database(0), *keys, database(4), empty))
    await app.recipe.restore(record, app.progress)

    with client_of(app.server) as client:
        assert list(filter(client.exists, client.scan_iter())) == [b"a"]
    for found in (expired_only, preview):
        assert found.counts_after == {"keys": 1, "database 0": 1, "strings": 1}
        assert found.changes[0] == "Database 0: 1 key now, 1 after the import."
    assert expired_only.items == {"keys of database 0": ItemChanges(added=1, removed=1)}
    assert preview.items == {}
    assert preview.warnings[0] == "1 key of the file will vanish: the time to live is over."
    assert preview.warnings[1] == "The server leaves out 2 empty keys of the file."


PACKED_OTHERWISE = {
    "hash-max-ziplist-entries": "2",
    "zset-max-ziplist-entries": "2",
    "set-max-intset-entries": "2",
    "list-max-ziplist-size": "2",
    "stream-node-max-entries": "3",
    "rdbcompression": "no",
}


@variants("name", REDIS_NAMES, kept=["redis-7.0", "valkey-9.1"])
async def test_an_archives_fingerprint_is_that_of_every_server_that_holds_the_same(
    name: str, start_redis: StartRedis, redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    source = RedisApp(redis_servers(name), tmp_path / "source")
    target = RedisApp(start_redis(name, settings=PACKED_OTHERWISE), tmp_path / "target")
    with client_of(source.server) as client:
        client.flushall()
    fill(source.server, keys=20)

    exported = await source.export()
    await target.import_file(exported.file)

    assert exported.fingerprint is not None
    assert len(exported.fingerprint.parts) > 8
    assert exported.fingerprint.differences(await source.recipe.fingerprint(source.progress)) == []
    assert exported.fingerprint.differences(await target.recipe.fingerprint(target.progress)) == []
    with client_of(target.server) as client:
        client.hset("hash:small", "f7", "other")
    changed = exported.fingerprint.differences(await target.recipe.fingerprint(target.progress))
    assert [difference.partition(":")[0] for difference in changed] == ["hash keys of database 0"]


async def test_a_fingerprint_is_taken_unasked_of_little_data_alone(
    redis_servers: Callable[[str], RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = RedisApp(redis_servers("redis-7.0"), tmp_path / "work")
    unasked = await app.export()
    declined = await app.export(options={"fingerprint": "no"})
    monkeypatch.setattr(exporting, "SMALL_BYTES", 0)
    unasked_of_much = await app.export()
    asked = await app.export(options={"fingerprint": "yes"})

    assert (declined.fingerprint, unasked_of_much.fingerprint) == (None, None)
    assert asked.fingerprint == unasked.fingerprint is not None
    with pytest.raises(InvalidRequestError, match="yes or no, not 'maybe'"):
        await app.export(options={"fingerprint": "maybe"})


async def test_a_server_that_has_just_started_empty_is_not_said_to_hold_more_than_there_is(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-8.2")

    assert (await RedisApp(server, tmp_path / "work").recipe.describe()).estimated_bytes < 1 << 30
