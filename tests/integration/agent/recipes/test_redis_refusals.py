"""Files and servers that an import refuses: by name, before anything is touched, and with nothing left over."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zipfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from redis import ResponseError

from agent.engines.redis import swap
from agent.recipes.base import Limits, Record, Recovered, Upload
from agent.unsettled import UnsettledError
from common.codecs import zstd_compressor
from common.errors import (
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
    NoSpaceError,
    ServiceError,
    ToolFailedError,
    UploadIncompleteError,
)
from common.headers import ArchiveHeader
from tests.fakes.imports import FullRecord, MemoryRecord
from tests.fixtures.rdb_files import (
    GOOD,
    aux,
    database,
    expiring,
    key,
    length,
    listpack,
    module_field,
    module_key,
    rdb,
    repeated,
    size_hint,
    string,
    text_key,
)
from tests.fixtures.redis_data import content_of, fill, fill_otherwise
from tests.fixtures.redis_moments import MOMENTS
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.redis_apps import RedisApp
from tools.demo.cache_fingerprint import Fingerprint
from tools.servers import RedisServer


@pytest.fixture
def server(redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """A Redis 7.0 that others used before."""
    server = redis_servers("redis-7.0")
    fill_otherwise(server)
    return server


async def refuse(app: RedisApp, file: bytes, error: type[Exception], said: str) -> None:
    """Stage what has to be refused, and see that nothing happened."""
    content, settings = await content_of(app.server), app.server_settings()
    record = MemoryRecord()

    with pytest.raises(error, match=said):
        await app.stage(file, record)
    await app.recipe.discard(record)

    assert (await content_of(app.server)).differences(content) == []
    app.require_released(settings)
    assert app.files() == []


JSON = b'[{"key": "text:1", "value": "some text"}]'
AOF = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"
EVIL_LISTPACK = b"\x10\x00\x00\x00\x02\x00\xf0\xff\xff\xff\x7f\x01\x02\x03\x04\xff"
LONG_FLAGS = (
    length(1)
    + string(bytes(16))
    + string(
        listpack(
            [4, 0, 1, b"f", 0, *(part for number in range(4) for part in (2, 0, number, b"value", 4))],
            long={5, 10, 15, 20},
        )
    )
)
"""A stream's node; a server that trims it ends itself, again after each start."""

BAD_FILES: dict[str, tuple[bytes, type[Exception], str]] = {
    "not an RDB file": (b"\x00\x01 whatever", ArchiveWrongKindError, "not an RDB file"),
    "nothing": (b"", ArchiveWrongKindError, "it is empty"),
    "JSON": (JSON, ArchiveWrongKindError, "not an RDB file, it is JSON"),
    "append-only file": (AOF, ArchiveWrongKindError, r"append-only file of Redis \(AOF\)"),
    "append-only file after a snapshot": (GOOD + AOF, ArchiveWrongKindError, "append-only file.*would lose them"),
    "newer RDB version": (
        rdb(aux("redis-ver", "8.2.3"), text_key("a"), magic="REDIS0012"),
        ArchiveIncompatibleError,
        r"RDB version 12 and needs Redis 7\.4 or newer; this is Redis 7\.0\.15, which reads RDB up to version 10",
    ),
    "RDB version of the future": (rdb(magic="REDIS0099"), ArchiveIncompatibleError, "RDB version 99"),
    "Valkey 9": (
        rdb(aux("valkey-ver", "9.1.2"), text_key("a"), magic="VALKEY080"),
        ArchiveIncompatibleError,
        "format of Valkey 9.*no Redis reads",
    ),
    "cut off": (GOOD[:60], ArchiveTruncatedError, "cut off at byte 60"),
    "cut off before its checksum": (GOOD[:-8], ArchiveTruncatedError, "cut off at byte"),
    "wrong checksum": (rdb(text_key("a"), crc=12345), ArchiveDamagedError, "was damaged.*checksum"),
    "flipped bit": (GOOD.replace(b"value", b"vblue", 1), ArchiveDamagedError, "was damaged.*checksum"),
    "value of a module": (
        rdb(module_key(b"g", "graphdata")),
        ArchiveIncompatibleError,
        r"needs module data that is not loaded here: graphdata of module graph \(1 keys\)",
    ),
    "value of an unknown module": (
        rdb(module_key(b"g", "something")),
        ArchiveIncompatibleError,
        "something of a module that this program does not know",
    ),
    "field of a module": (rdb(module_field("ft_index0")), ArchiveIncompatibleError, "ft_index0 of module search"),
    "same key twice": (rdb(text_key("k"), text_key("k", "2")), ArchiveDamagedError, "the same key twice"),
    "same field twice": (
        rdb(key(b"h", length(2) + string(b"f") + string(b"1") + string(b"f") + string(b"2"), kind=4)),
        ArchiveDamagedError,
        "same member stands twice",
    ),
    "listpack that points elsewhere": (
        rdb(key(b"h", string(EVIL_LISTPACK), kind=16)),
        ArchiveDamagedError,
        "a listpack points where nothing is",
    ),
    "stream that says other than it has": (
        rdb(key(b"s", length(0) + length(2) + length(0) * 3, kind=15)),
        ArchiveDamagedError,
        "has 2 entries and has 0",
    ),
    "stream whose entries' flags take more room than they need": (
        rdb(key(b"s", LONG_FLAGS + length(4) + length(0) + length(4) + length(0), kind=15)),
        ArchiveDamagedError,
        "a stream's node does not hold what it says, or not as a server writes it",
    ),
    "half a hash": (rdb(key(b"h", string(listpack([b"f"])), kind=16)), ArchiveDamagedError, "half an entry"),
    "absurd length": (rdb(key(b"k", b"\x80\x7f\xff\xff\xffabc")), ArchiveTruncatedError, "cut off"),
    "absurd size hint": (rdb(database(0), size_hint(1 << 50)), ArchiveDamagedError, "announces 1125899906842624 keys"),
    "unknown type": (rdb(key(b"k", string(b"x"), kind=99)), ArchiveIncompatibleError, "of type 99"),
    "bytes after the end": (GOOD + b"more", ArchiveDamagedError, "4 bytes after its end"),
    "database that is not there": (
        rdb(database(20), text_key("a")),
        ArchiveIncompatibleError,
        "keys in database 20, which this server does not have",
    ),
    "database that is not there, without keys": (rdb(database(20)), ArchiveIncompatibleError, "database 20"),
    "more memory than the machine has": (
        rdb(aux("used-mem", str(1 << 50)), text_key("a")),
        NoSpaceError,
        "about 1,073,741,824 MiB, is in memory beside",
    ),
}


@pytest.mark.parametrize(("file", "error", "said"), BAD_FILES.values(), ids=BAD_FILES)
async def test_a_bad_file_is_refused_with_its_reason_and_changes_nothing(
    file: bytes, error: type[Exception], said: str, server: RedisServer, tmp_path: Path
) -> None:
    await refuse(RedisApp(server, tmp_path / "work"), file, error, said)


async def test_keys_without_content_are_refused_where_a_server_would_keep_them(
    redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    app = RedisApp(redis_servers("redis-6.2"), tmp_path / "work")
    file = rdb(database(0), text_key("a"), key(b"empty", length(0), kind=2), magic="REDIS0009")

    await refuse(app, file, ArchiveIncompatibleError, r"1 key without content, which Redis 6\.2")


@variants("name", ["valkey-8.1", "valkey-9.1", "redis-7.0"], kept=["valkey-9.1"])
async def test_a_key_that_expires_before_1970_is_refused_and_one_that_expires_never_stays(
    name: str, redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    app = RedisApp(redis_servers(name), tmp_path / "work")
    fill_otherwise(app.server)
    before, never = (database(0) + expiring(2**64 + moment) + text_key("a") for moment in (-2, -1))

    await refuse(app, rdb(before, magic="REDIS0009"), ArchiveDamagedError, "a key expires before 1970")
    record, preview = await app.stage(rdb(never, magic="REDIS0009"))
    await app.recipe.restore(record, app.progress)

    assert preview.counts_after == {"keys": 1, "database 0": 1, "strings": 1}
    assert not any("vanish" in warning for warning in preview.warnings)
    with client_of(app.server) as client:
        assert (client.keys(), client.ttl("a")) == ([b"a"], -1)


def _zip(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, GOOD)
    return out.getvalue()


def _zstd() -> bytes:
    compressor = zstd_compressor()
    return compressor.compress(GOOD) + compressor.flush()


WRAPPED = {
    "gzip": gzip.compress(GOOD),
    "zstd": _zstd(),
    "xz": lzma.compress(GOOD),
    "zip": _zip("dump.rdb"),
    "gzip, twice": gzip.compress(gzip.compress(GOOD)),
}


@pytest.mark.parametrize("file", WRAPPED.values(), ids=WRAPPED)
async def test_a_file_is_taken_out_of_what_it_is_wrapped_in(file: bytes, server: RedisServer, tmp_path: Path) -> None:
    await RedisApp(server, tmp_path / "work").import_file(file)

    with client_of(server) as client:
        assert sorted(client.keys()) == [b"a", b"b"]


BAD_WRAPPINGS: dict[str, tuple[bytes, type[Exception], str]] = {
    "JSON in gzip": (gzip.compress(JSON), ArchiveWrongKindError, "it is JSON"),
    "gzip that is cut off": (gzip.compress(GOOD)[:-6], ArchiveTruncatedError, "gzip data stops"),
    "snapshot that is cut off, in gzip": (gzip.compress(GOOD[:40]), ArchiveTruncatedError, "cut off at byte 40"),
    "gzip with a flipped bit": (
        gzip.compress(GOOD)[:-5] + b"\0" + gzip.compress(GOOD)[-4:],
        ArchiveDamagedError,
        "gzip data does not check out",
    ),
    "zip of two files": (_zip("dump.rdb", "other.rdb"), ArchiveWrongKindError, "more than one file"),
}


@pytest.mark.parametrize(("file", "error", "said"), BAD_WRAPPINGS.values(), ids=BAD_WRAPPINGS)
async def test_a_bad_wrapping_is_refused_with_its_reason(
    file: bytes, error: type[Exception], said: str, server: RedisServer, tmp_path: Path
) -> None:
    await refuse(RedisApp(server, tmp_path / "work"), file, error, said)


async def test_an_upload_that_breaks_off_says_that_and_not_that_the_file_is_cut(
    server: RedisServer, tmp_path: Path
) -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield GOOD[:50]
        raise UploadIncompleteError("The stream stopped after 50 bytes.")

    app = RedisApp(server, tmp_path / "work")
    record = MemoryRecord()

    with pytest.raises(UploadIncompleteError, match="after 50 bytes"):
        await app.recipe.stage(Upload(header=ArchiveHeader(), chunks=broken()), record, app.progress)
    await app.recipe.discard(record)

    assert app.files() == []


async def test_a_file_over_the_limit_is_refused(server: RedisServer, tmp_path: Path) -> None:
    app = RedisApp(server, tmp_path / "work", limits=Limits(content_bytes=100))

    await refuse(app, rdb(text_key("a", "x" * 200)), LimitExceededError, "more than the limit of 100 bytes")


async def test_a_disk_that_is_too_full_stops_the_upload(server: RedisServer, tmp_path: Path) -> None:
    app = RedisApp(server, tmp_path / "work", limits=Limits(free_bytes=1 << 60))

    await refuse(app, GOOD, NoSpaceError, "no room on the agent's disk")


async def test_data_beyond_maxmemory_is_refused_where_the_server_would_refuse_writes_then(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    app = RedisApp(start_redis("redis-7.0", settings={"maxmemory": "100mb"}), tmp_path / "work")
    file = rdb(aux("used-mem", str(200 << 20)), text_key("a"))

    await refuse(app, file, NoSpaceError, "about 200 MiB of memory, and the server may use 100 MiB")

    with client_of(app.server) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    _, preview = await app.stage(file)
    assert any("evict a part of it (allkeys-lru)" in warning for warning in preview.warnings)


@variants("said", [[], [aux("used-mem", "1000")]], ids=["nothing", "little"])
@pytest.mark.parametrize("value", [repeated(60 << 20), string(bytes(60 << 20))], ids=["compressed", "as it is"])
async def test_data_beyond_maxmemory_is_refused_however_little_the_file_says_of_it(
    said: list[bytes], value: bytes, start_redis: StartRedis, tmp_path: Path
) -> None:
    app = RedisApp(start_redis("redis-7.0", settings={"maxmemory": "100mb"}), tmp_path / "work")
    file = rdb(*said, key(b"a", value), key(b"b", length(1) + value, kind=1))

    await refuse(app, file, NoSpaceError, "of memory, and the server may use 100 MiB")


async def test_data_beyond_maxmemory_of_a_server_that_evicts_only_expiring_keys_needs_such_keys(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0", settings={"maxmemory": "100mb", "maxmemory-policy": "volatile-lru"})
    app = RedisApp(server, tmp_path / "work")
    size, long_gone, far_away = aux("used-mem", str(200 << 20)), expiring(1000), expiring(4_000_000_000_000)

    for file in (rdb(size, text_key("a")), rdb(size, text_key("a"), long_gone + text_key("b"))):
        await refuse(app, file, NoSpaceError, "volatile-lru evicts only keys with a time to live and the data has none")
    _, preview = await app.stage(rdb(size, text_key("a"), text_key("b"), far_away + text_key("c")))

    assert preview.warnings[-1] == (
        "The data is larger than maxmemory; the server will evict keys with a time to live (1 of 3), and refuse every "
        "write if the others do not fit (volatile-lru)."
    )


CROSSINGS = {
    ("redis-6.2", "redis-7.0"): True,
    ("redis-6.2", "valkey-9.1"): True,
    ("redis-7.0", "redis-8.2"): True,
    ("valkey-8.1", "redis-8.2"): True,
    ("valkey-8.1", "valkey-9.1"): True,
    ("redis-8.2", "valkey-9.1"): False,
    ("valkey-9.1", "redis-8.2"): False,
}
"""Whether the target reads what the source writes, where that is least sure; tests/matrix has every pair."""


@pytest.fixture(scope="module")
def exports() -> dict[str, tuple[bytes, Fingerprint]]:
    """By server: its export, of data that all of them know, and what was in it; each is made once."""
    return {}


async def _export_once(
    server: RedisServer, exports: dict[str, tuple[bytes, Fingerprint]], work_directory: Path
) -> tuple[bytes, Fingerprint]:
    name = server.install.name
    if name not in exports:
        with client_of(server) as client:
            client.flushall()
            if name != "redis-6.2":
                client.function_flush()
            fill(server, keys=20)
            client.delete("vectors", "hash:expiring", "hash:expiring, large")
        exports[name] = ((await RedisApp(server, work_directory).export()).file, await content_of(server))
    return exports[name]


@variants(("source", "target"), CROSSINGS, kept=[("redis-6.2", "redis-7.0"), ("valkey-9.1", "redis-8.2")])
async def test_between_versions_content_is_equal_or_refused_up_front(
    source: str,
    target: str,
    redis_servers: Callable[[str], RedisServer],
    exports: dict[str, tuple[bytes, Fingerprint]],
    tmp_path: Path,
) -> None:
    file, content = await _export_once(redis_servers(source), exports, tmp_path / "source")
    server = redis_servers(target)
    fill_otherwise(server)
    app = RedisApp(server, tmp_path / "work")

    if not CROSSINGS[source, target]:
        await refuse(app, file, ArchiveIncompatibleError, r"needs|does not read|no Redis reads")
        return
    await app.import_file(file)

    found = await content_of(server)
    assert found.differences(content) == []


async def _obstacle(app: RedisApp) -> str:
    """What describe says, and that staging and exporting say the same."""
    description = await app.recipe.describe()
    with pytest.raises(AppUnavailableError) as refused:
        await app.stage(GOOD)
    assert refused.value.text == description.can_import.obstacle
    return description.can_import.obstacle


async def test_a_cluster_is_refused(start_redis: StartRedis, tmp_path: Path) -> None:
    app = RedisApp(start_redis("redis-7.0", settings={"cluster-enabled": "yes"}), tmp_path / "work")

    assert "node of a cluster" in await _obstacle(app)
    with pytest.raises(AppUnavailableError, match="only a part of the data"):
        await app.export()


@variants("name", ["redis-7.0", "valkey-9.1"])
async def test_replicas_and_their_masters_are_refused_and_a_replica_can_be_exported(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    master = start_redis(name, settings={"repl-diskless-sync-delay": "0"})
    with client_of(master) as client:
        client.set("a", "1")
    replica = start_redis(name, settings={"replicaof": f"{master.host} {master.port}"})
    with client_of(replica) as client:
        while client.info("replication")["master_link_status"] != "up":
            pass

    of_master = await _obstacle(RedisApp(master, tmp_path / "master"))
    of_replica = await _obstacle(RedisApp(replica, tmp_path / "replica"))
    exported = await RedisApp(replica, tmp_path / "replica").export()

    assert "The server has 1 replica that would have to copy all of the new data" in of_master
    assert f"is a replica of {master.host}:{master.port}, which decides what it holds" in of_replica
    assert exported.counts["keys"] == 1
    master.kill()
    with client_of(replica) as client:
        while client.info("replication")["master_link_status"] == "up":
            pass
    with pytest.raises(AppUnavailableError, match="has lost it"):
        await RedisApp(replica, tmp_path / "replica").export()


def refuse_writes(server: RedisServer, kind: str) -> None:
    """Have it do what many do whose disk is full, or whose replicas are gone."""
    with client_of(server) as client:
        if kind == "NOREPLICAS":
            client.config_set("min-replicas-to-write", 1)
            return
        # One for a replica or a fingerprint that nobody waits for any more; a server makes one at a time.
        while client.info("persistence")["rdb_bgsave_in_progress"]:
            pass
        # The finished snapshot cannot take the place of a folder.
        (server.directory / "dump.rdb").unlink(missing_ok=True)
        (server.directory / "dump.rdb").mkdir()
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
            pass


@pytest.mark.parametrize(("kind", "advice"), [("NOREPLICAS", "min-replicas-to-write to 0"), ("MISCONF", "BGSAVE")])
@variants("name", ["redis-6.2", "redis-8.2", "valkey-9.1"], kept=["valkey-9.1"])
async def test_a_server_that_refuses_writes_is_refused_with_its_reason(
    name: str, kind: str, advice: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"save": "3600 1"})
    with client_of(server) as client:
        client.set("old", "yes")
    app = RedisApp(server, tmp_path / "work")
    file = rdb(text_key("new"), magic="REDIS0009")
    record, _ = await app.stage(file)
    content, settings = await content_of(server), app.server_settings()
    refuse_writes(server, kind)
    if kind == "NOREPLICAS":
        settings["min-replicas-to-write"] = settings["min-slaves-to-write"] = "1"

    obstacle = (await app.recipe.describe()).can_import.obstacle
    with pytest.raises(AppUnavailableError) as of_staging:
        await app.stage(file)
    with pytest.raises(AppUnavailableError) as of_restoring:
        await app.recipe.restore(record, app.progress)

    assert obstacle.startswith(f"The server refuses writes: {kind} ")
    assert advice in obstacle
    assert of_staging.value.text == of_restoring.value.text == f"{obstacle} Nothing was changed."
    assert (await content_of(server)).differences(content) == []
    assert app.server_settings() == settings


@pytest.mark.parametrize(("name", "settings"), [("redis-6.2", {}), ("valkey-9.1", {"repl-diskless-sync": "no"})])
async def test_an_export_does_without_the_disk_of_a_server_whose_snapshots_fail(
    name: str, settings: dict[str, str], start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"save": "3600 1", **settings})
    with client_of(server) as client:
        client.set("a", "1")
    refuse_writes(server, "MISCONF")
    app = RedisApp(server, tmp_path / "work")
    before = app.server_settings()

    assert (await app.export()).counts["keys"] == 1

    assert app.server_settings() == before


@pytest.mark.parametrize(("name", "settings"), [("redis-6.2", {}), ("valkey-9.1", {"repl-diskless-sync": "no"})])
async def test_where_it_may_not_do_that_it_says_that_they_fail(
    name: str, settings: dict[str, str], start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"save": "3600 1", **settings}, lines=WITHOUT_CONFIG)
    with client_of(server) as client:
        client.set("a", "1")
    refuse_writes(server, "MISCONF")

    with pytest.raises(ToolFailedError, match="could not write its snapshot to its own disk") as failed:
        await RedisApp(server, tmp_path / "work").export()

    assert "CONFIG GET dir" in failed.value.next_step
    assert "`repl-diskless-sync yes`" in failed.value.next_step


async def _staged_over_old(server: RedisServer, tmp_path: Path) -> tuple[RedisApp, Record]:
    """A server that holds "old", with an import of "new" staged."""
    app = RedisApp(server, tmp_path / "work")
    with client_of(server) as client:
        client.set("old", "yes")
    record, _ = await app.stage(rdb(text_key("new"), magic="REDIS0009"))
    return app, record


async def test_a_server_that_refuses_writes_gets_its_previous_data_back(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings={"save": "3600 1"})
    app, record = await _staged_over_old(server, tmp_path)
    with client_of(server) as client:
        with monkeypatch.context() as patches:
            MOMENTS["settings changed"].hook(lambda: client.set("in the tail", "1"), patches.setattr)
            await app.recipe.restore(record, app.progress)
        assert client.keys() == [b"new"]
        refuse_writes(server, "NOREPLICAS")

        await app.recipe.undo(record, app.progress)

        assert sorted(client.keys()) == [b"in the tail", b"old"]
        assert client.info("replication")["role"] == "master"


LOG = {"appendonly": "yes", "save": '""'}


def forbid_writing_the_log(server: RedisServer) -> Path:
    """As on a disk that has become read-only to it; returns the folder."""
    folder = server.directory / "appendonlydir"
    folder = folder if folder.exists() else server.directory
    folder.chmod(0o555)
    return folder


@variants("name", ["redis-6.2", "redis-7.0", "valkey-9.1"], kept=["redis-7.0"])
async def test_a_server_that_cannot_rewrite_its_append_only_file_is_refused_until_it_can(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings=LOG)
    app, record = await _staged_over_old(server, tmp_path)
    await app.recipe.restore(record, app.progress)
    folder = forbid_writing_the_log(server)
    with client_of(server) as client:
        with contextlib.suppress(ResponseError):
            client.bgrewriteaof()
        while client.info("persistence")["aof_last_bgrewrite_status"] == "ok":
            pass

        with pytest.raises(AppUnavailableError, match="could not rewrite its append-only file") as refused:
            await app.recipe.undo(record, app.progress)

        assert client.keys() == [b"new"]
        assert refused.value.text == (await app.recipe.describe()).can_import.obstacle
        folder.chmod(0o755)
        client.bgrewriteaof()
        while client.info("persistence")["aof_last_bgrewrite_status"] != "ok":
            pass
        await app.recipe.undo(record, app.progress)
        assert client.keys() == [b"old"]


WITHOUT_CONFIG = ['rename-command CONFIG ""']


@variants("name", ["redis-6.2", "redis-7.0", "valkey-9.1"], kept=["redis-7.0"])
async def test_without_config_a_server_that_cannot_save_keeps_what_it_has_and_is_undone_when_it_can(
    name: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis(name, settings={"save": "3600 1", "repl-diskless-sync-delay": "0"}, lines=WITHOUT_CONFIG)
    app, record = await _staged_over_old(server, tmp_path)
    with client_of(server) as client:
        with monkeypatch.context() as patches:
            MOMENTS["settings changed"].hook(lambda: client.set("in the tail", "1"), patches.setattr)
            await app.recipe.restore(record, app.progress)
        run_id = client.info("server")["run_id"]
        refuse_writes(server, "MISCONF")

        with pytest.raises(ToolFailedError, match=r"could not save a snapshot") as refused:
            await app.recipe.undo(record, app.progress)

        assert "BGSAVE" in refused.value.next_step
        assert client.keys() == [b"new"]
        (server.directory / "dump.rdb").rmdir()
        await app.recipe.undo(record, app.progress)
        assert sorted(client.keys()) == [b"in the tail", b"old"]
        assert client.info("server")["run_id"] == run_id


@pytest.mark.parametrize(
    "settings", [{"save": "3600 1"}, {"appendonly": "yes"}, {}], ids=["snapshots", "log", "nothing"]
)
@variants("name", ["redis-6.2", "redis-7.0"], kept=["redis-7.0"])
async def test_without_config_an_import_is_refused_where_the_server_cannot_write_the_file_that_it_loads_by(
    name: str, settings: dict[str, str], start_redis: StartRedis, tmp_path: Path
) -> None:
    settings = {"stop-writes-on-bgsave-error": "no", "repl-diskless-sync-delay": "0", **settings}
    server = start_redis(name, settings=settings, lines=WITHOUT_CONFIG)
    app, record = await _staged_over_old(server, tmp_path)
    refuse_writes(server, "MISCONF")

    with pytest.raises(ToolFailedError, match="could not write its snapshot to its own disk"):
        await app.recipe.restore(record, app.progress)

    with client_of(server) as client:
        assert client.keys() == [b"old"]
        assert client.info("replication")["role"] == "master"


async def test_an_import_that_the_server_cannot_save_is_taken_back(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings={"save": "3600 1"})
    app, record = await _staged_over_old(server, tmp_path)
    with client_of(server) as client:
        MOMENTS["settings changed"].hook(lambda: client.set("in the tail", "1"), monkeypatch.setattr)
        MOMENTS["before it is durable"].hook(lambda: refuse_writes(server, "MISCONF"), monkeypatch.setattr)

        with pytest.raises(ToolFailedError, match=r"could not save a snapshot.*previous data was put back"):
            await app.recipe.restore(record, app.progress)

        assert sorted(client.keys()) == [b"in the tail", b"old"]
        assert client.info("replication")["role"] == "master"


async def test_an_import_that_can_be_neither_saved_nor_taken_back_is_not_said_to_have_changed_nothing(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings={"save": "3600 1", "repl-diskless-sync-delay": "0"})
    app, record = await _staged_over_old(server, tmp_path)
    monkeypatch.setattr(swap, "SETTLE_SECONDS", 0.3)
    replicas: list[RedisServer] = []

    def go_wrong() -> None:
        replicas.append(start_redis("redis-7.0", settings={"replicaof": f"{server.host} {server.port}"}))
        with client_of(replicas[0]) as client:
            while client.info("replication")["master_link_status"] != "up":
                pass
        with client_of(server) as client:
            while client.info("persistence")["rdb_bgsave_in_progress"]:
                pass
        refuse_writes(server, "MISCONF")

    with monkeypatch.context() as patches:
        MOMENTS["before it is durable"].hook(go_wrong, patches.setattr)
        with pytest.raises(UnsettledError, match=r"could not save a snapshot.*could not be put back.*1 replica"):
            await app.recipe.restore(record, app.progress)

    with client_of(server) as client:
        assert client.keys() == [b"new"]
        replicas[0].kill()
        (server.directory / "dump.rdb").rmdir()
        assert await app.recover(record) is Recovered.IMPORTED
        while client.info("replication")["connected_slaves"]:
            pass
        await app.recipe.undo(record, app.progress)
        assert client.keys() == [b"old"]


@pytest.mark.parametrize("moment", ["loaded", "before it is durable"])
async def test_an_agent_whose_disk_is_full_lets_the_server_go_and_does_not_say_that_nothing_was_changed(
    moment: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings={"save": "3600 1"})
    app, record = RedisApp(server, tmp_path / "work"), FullRecord()
    with client_of(server) as client:
        client.set("old", "yes")
    settings = app.server_settings()
    await app.stage(rdb(text_key("new")), record)
    monkeypatch.setattr(swap, "SETTLE_SECONDS", 0.3)

    with monkeypatch.context() as patches:
        MOMENTS[moment].hook(lambda: setattr(record, "is_full", True), patches.setattr)
        with pytest.raises(UnsettledError, match="no room left in the agent's state directory"):
            await app.recipe.restore(record, app.progress)

    assert app.server_settings() == settings
    record.is_full = False
    assert await app.recover(record) is Recovered.IMPORTED
    app.require_released(settings)
    await app.recipe.undo(record, app.progress)
    with client_of(server) as client:
        assert client.keys() == [b"old"]


async def test_a_sentinel_and_who_it_watches_are_refused(start_redis: StartRedis, tmp_path: Path) -> None:
    master = start_redis("redis-7.0")
    sentinel = start_redis(
        "redis-7.0",
        settings={"sentinel monitor shop": f"{master.host} {master.port} 1"},
        is_sentinel=True,
    )
    with client_of(master) as client:
        while not any(one["name"].startswith("sentinel-") for one in client.client_list()):
            pass

    assert "A Sentinel watches the server" in await _obstacle(RedisApp(master, tmp_path / "master"))
    assert "This is a Sentinel" in await _obstacle(RedisApp(sentinel, tmp_path / "sentinel"))


async def test_a_wrong_password_is_an_obstacle_that_does_not_tell_it(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("valkey-8.1", password="secret")
    wrong = tmp_path / "wrong"
    wrong.write_text("not-it")
    app = RedisApp(server, tmp_path / "work", {"password_file": str(wrong)})

    description = await app.recipe.describe()

    assert "refuses the agent's password" in description.can_export.obstacle
    assert "not-it" not in description.can_export.obstacle


async def test_a_server_that_is_not_there_is_an_obstacle(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-7.0")
    app = RedisApp(server, tmp_path / "work")
    server.stop()

    description = await app.recipe.describe()

    assert "cannot be reached" in description.can_export.obstacle
    with pytest.raises(ServiceError, match="cannot be reached"):
        await app.export()


@pytest.mark.parametrize("absurd", ["9" * 20, "9" * 4000, "-" + "9" * 30, "yesterday", str(2**63)])
async def test_numbers_that_no_server_writes_are_not_believed(absurd: str, server: RedisServer, tmp_path: Path) -> None:
    app = RedisApp(server, tmp_path / "work")

    record, preview = await app.stage(rdb(aux("ctime", absurd), aux("used-mem", absurd), text_key("a")))
    await app.recipe.discard(record)

    assert preview.header is not None
    assert preview.header.created_at is None
    assert 0 < preview.room_bytes < 100_000
