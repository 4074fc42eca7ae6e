"""`mathison verify` on exports of real apps: proven, different, damaged, or not to be found out."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.engines.replay.postgresql import replay
from agent.engines.replay.request import Request
from common.errors import ArchiveIncompatibleError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.rdb import END_BYTES, crc64
from common.seals import SQL_FINGERPRINT, FingerprintFinder, SqlSealWriter
from tests.fixtures.archives import make_nasty
from tests.fixtures.n8n_data import N8n
from tests.fixtures.rdb_files import aux
from tests.fixtures.redis_data import fill
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.verifying import verify_as_json
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.recipes.conftest import Volume
from tests.integration.agent.recipes.n8n_apps import N8nApp
from tests.integration.agent.recipes.redis_apps import RedisApp
from tools.servers import PostgresServer, postgres

PROGRAMS = "MATHISON_POSTGRESQL_BIN"
REDIS_PROGRAMS = "MATHISON_REDIS_BIN"
MARIADB_PROGRAMS = "MATHISON_MARIADB_BIN"


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume")


@pytest.fixture
async def app(postgres_servers: Callable[[int], PostgresServer], tmp_path: Path) -> AsyncIterator[PostgresApp]:
    made = PostgresApp(postgres_servers(17), tmp_path)
    yield made
    await made.close()


def verify(
    file: Path,
    *,
    programs: Path | None = None,
    redis_programs: Path | None = None,
    mariadb_programs: Path | None = None,
    told: Path | None = None,
    is_forked: bool = True,
) -> tuple[int, dict[str, object]]:
    """Exit code and document.

    Args:
        is_forked: False: started as a person does, once for each engine.
    """
    named = {PROGRAMS: programs, REDIS_PROGRAMS: redis_programs, MARIADB_PROGRAMS: mariadb_programs}
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment["PATH"] = "/bin"
    environment.update({name: str(directory) for name, directory in named.items() if directory})
    options = ["--fingerprint", str(told)] if told else []
    if is_forked:
        return verify_as_json(file, *options, environment=environment)
    command = [sys.executable, "-m", "cli", "verify", str(file), "--json", *options]
    ended = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=120)
    assert ended.stdout, ended.stderr.decode()
    return ended.returncode, json.loads(ended.stdout)


def forged(archive: bytes) -> bytes:
    """An SQL export whose seal is right, and whose fingerprint tells of another row."""
    finder = FingerprintFinder()
    finder.add(archive)
    told = finder.fingerprint()
    assert told is not None
    first, rest = archive.split(b"\n", 1)
    body = rest[: rest.rindex(SQL_FINGERPRINT)]
    seal = SqlSealWriter()
    opening = seal.opening(ArchiveHeader.from_json(first.partition(b"archive: ")[2]))
    seal.add(body)
    wrong = Fingerprint(scheme=told.scheme, parts={**told.parts, "table public.gone": "1 rows, 7"})
    return opening + body + seal.closing(wrong)


async def test_a_database_export_is_proven_by_replaying_it(app: PostgresApp, tmp_path: Path) -> None:
    app.fill()
    programs = postgres(17).bin_directory
    text = await app.export("sql")
    files = {"good.sql.gz": gzip.compress(text), "cut.sql": text[:-2000], "forged.sql": forged(text)}
    files["good.dump"] = await app.export("custom")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    proven = verify(tmp_path / "good.sql.gz", programs=programs)
    custom = verify(tmp_path / "good.dump", programs=programs, is_forked=False)
    cut = verify(tmp_path / "cut.sql", programs=programs)
    different = verify(tmp_path / "forged.sql", programs=programs)

    assert (proven[0], proven[1].get("differences")) == (0, []), proven
    assert (custom[0], custom[1].get("differences")) == (0, []), custom
    assert (cut[0], cut[1]["error"]["reason"]) == (6, "ARCHIVE_TRUNCATED")  # type: ignore[index]
    assert different[0] == 10
    assert different[1]["differences"] == ["table public.gone: 1 rows, 7 here, nothing there"]


async def test_what_only_a_superuser_may_make_is_counted_and_not_made(app: PostgresApp, tmp_path: Path) -> None:
    app.run(
        "CREATE TABLE t (a int); CREATE SCHEMA s; CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS"
        " 'BEGIN END'; CREATE EVENT TRIGGER watches ON sql_drop EXECUTE FUNCTION e();"
        " COMMENT ON EVENT TRIGGER watches IS 'it; watches'; CREATE PUBLICATION everything FOR ALL TABLES;"
        " CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA s; CREATE PUBLICATION one FOR TABLE t;"
        " COMMENT ON PUBLICATION everything IS 'x'; COMMENT ON PUBLICATION one IS 'x'"
    )
    files = {"good.sql.gz": await app.export("sql.gz"), "good.dump": await app.export("custom")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    for name in files:
        code, document = verify(tmp_path / name, programs=postgres(17).bin_directory)

        assert (code, document.get("differences")) == (0, []), document
        assert "compared: publication everything, publication of_schema, event trigger watches." in str(document)


async def test_an_export_with_extensions_that_only_a_superuser_may_create_is_proven(
    app: PostgresApp, tmp_path: Path
) -> None:
    app.run(
        f'CREATE SCHEMA "of us" AUTHORIZATION {app.role}; CREATE EXTENSION pg_stat_statements SCHEMA "of us";'
        " CREATE EXTENSION dblink; CREATE EXTENSION earthdistance CASCADE; CREATE EXTENSION postgres_fdw;"
        " CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'example.org');"
        f" GRANT USAGE ON FOREIGN SERVER far TO {app.role};"
        f" CREATE USER MAPPING FOR {app.role} SERVER far OPTIONS (user 'u', password 'p')"
    )
    app.run(
        'CREATE TABLE t (a float8); CREATE VIEW seen AS SELECT * FROM "of us".pg_stat_statements_info;'
        " CREATE INDEX ON t (sec_to_gc(a)); CREATE FOREIGN TABLE ft (a int) SERVER far; INSERT INTO t VALUES (1);"
        f" ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t TO {app.role} USING (true)",
        as_app=True,
    )
    files = {"good.sql.gz": await app.export("sql.gz"), "good.dump": await app.export("custom")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    found = [verify(tmp_path / name, programs=postgres(17).bin_directory) for name in files]

    assert [(code, document.get("differences")) for code, document in found] == [(0, [])] * 2, found


async def test_an_extension_that_is_not_there_to_prove_an_export_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRAMS, str(postgres(17).bin_directory))
    details = {"extensions": "hstore 1.8, not_here 2.0, cut_o…"}
    request = Request(file=str(tmp_path / "a"), scheme="postgresql/2", engine_version="17.1", details=details)

    with pytest.raises(ArchiveIncompatibleError, match="needs what it does not have, the extension not_here") as failed:
        await replay(request)

    assert "Install what is missing" in failed.value.next_step


async def test_an_n8n_export_is_proven_by_reading_its_database_and_files(tmp_path: Path) -> None:
    app = N8nApp(N8n(tmp_path / "n8n", is_rotating=True).make())
    exported = await app.export("tar.gz", key="clear")
    (tmp_path / "n8n.tar.gz").write_bytes(exported.content)

    code, document = verify(tmp_path / "n8n.tar.gz", is_forked=False)

    assert (code, document.get("differences")) == (0, []), document
    assert "secrets in credentials, settings, second factors" in str(document["unproven"])


async def test_without_a_fingerprint_nothing_is_claimed(app: PostgresApp, tmp_path: Path) -> None:
    app.run("CREATE TABLE a (n int)")
    (tmp_path / "a.sql").write_bytes(await app.export("sql", options={"fingerprint": "no"}))

    code, document = verify(tmp_path / "a.sql")

    assert (code, document["error"]["reason"]) == (11, "UNVERIFIABLE")  # type: ignore[index]


ROUTED = """
    CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l');
    CREATE TABLE felt (at int, m mood, note text) PARTITION BY RANGE (at);
    CREATE TABLE early PARTITION OF felt FOR VALUES FROM (0) TO (50) PARTITION BY HASH (m);
    CREATE TABLE early_0 PARTITION OF early FOR VALUES WITH (modulus 3, remainder 0);
    CREATE TABLE early_1 PARTITION OF early FOR VALUES WITH (modulus 3, remainder 1);
    CREATE TABLE other_order (note text, m mood, at int);
    ALTER TABLE early ATTACH PARTITION other_order FOR VALUES WITH (modulus 3, remainder 2);
    CREATE TABLE late PARTITION OF felt FOR VALUES FROM (50) TO (100);
    INSERT INTO felt SELECT n, (enum_range(NULL::mood))[1 + n % 12], 'note ' || n FROM generate_series(0, 99) AS n;
"""
"""Its rows are in other partitions in each database, since the values of an enum have other numbers."""


async def test_rows_that_change_places_in_a_dump_are_told_by_the_whole_table(app: PostgresApp, tmp_path: Path) -> None:
    app.run(ROUTED, as_app=True)
    (tmp_path / "a.sql").write_bytes(await app.export("sql"))

    code, document = verify(tmp_path / "a.sql", programs=app.server.install.bin_directory)

    assert (code, document.get("differences")) == (0, []), document
    fingerprint = document["fingerprint"]
    assert isinstance(fingerprint, dict)
    assert fingerprint["scheme"] == "postgresql/3"
    assert sorted(name for name in fingerprint["parts"] if name.startswith("table ")) == [
        "table public.early",
        "table public.late",
    ]
    assert fingerprint["parts"]["table public.early"].startswith("50 rows, ")


async def test_an_archive_that_tells_such_partitions_one_by_one_was_made_differently(
    app: PostgresApp, tmp_path: Path
) -> None:
    app.run(ROUTED, as_app=True)
    (tmp_path / "a.sql").write_bytes(await app.export("sql", options={"fingerprint": "no"}))
    told = tmp_path / "told.json"
    told.write_bytes(Fingerprint(scheme="postgresql/2", parts={"table public.early_0": "20 rows, 1"}).to_json())

    code, document = verify(tmp_path / "a.sql", programs=app.server.install.bin_directory, told=told)

    assert code == 10
    assert document["differences"] == [
        "The fingerprints cannot be compared: they were made differently, postgresql/2 and postgresql/3."
    ]


async def test_without_fitting_programs_an_archive_is_not_replayed(tmp_path: Path) -> None:
    request = Request(file=str(tmp_path / "a.sql"), scheme="postgresql/2", engine_version="99.1")

    with pytest.raises(ArchiveIncompatibleError, match="server programs of PostgreSQL 99 or newer are needed"):
        await replay(request)


async def test_a_volume_export_is_proven_by_unpacking_it(volume: Volume, tmp_path: Path) -> None:
    make_nasty(volume.directory)
    exported = await volume.export("tar.zst")
    (tmp_path / "files.tar.zst").write_bytes(exported.content)

    code, document = verify(tmp_path / "files.tar.zst", is_forked=False)

    assert (code, document.get("differences")) == (0, []), document
    assert "Owners, times and extended attributes are in no fingerprint" in str(document["unproven"])
    assert "Left out" not in str(document["unproven"])


async def test_what_a_volumes_export_left_out_is_not_called_proven(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume", settings={"exclude": ["cache"]})
    (volume.directory / "cache").mkdir()
    (tmp_path / "files.tar").write_bytes((await volume.export("tar")).content)

    code, document = verify(tmp_path / "files.tar")

    assert code == 0, document
    assert str(document["unproven"]).endswith("Left out by the agent's settings: 'cache'.")


async def test_a_file_whose_name_is_no_utf_8_is_proven_as_any_other(volume: Volume, tmp_path: Path) -> None:
    (volume.directory / "data").write_text("1")
    file = tmp_path / os.fsdecode(b"b\xff.tar")
    file.write_bytes((await volume.export("tar")).content)

    code, document = verify(file)

    assert (code, document.get("file"), document.get("differences")) == (0, str(file), []), document


async def test_a_redis_export_is_proven_by_a_server_that_loads_it_or_by_reading_it_through(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("valkey-9.1", settings={"enable-debug-command": "local"})
    fill(server, keys=20)
    with client_of(server) as client:
        client.config_set("hash-max-listpack-entries", "2")
        client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        client.set("expires at once", "1", px=1)
    exported = await RedisApp(server, tmp_path / "work").export()
    assert exported.fingerprint is not None
    added = {"list keys of database 9": "1 keys, 7"}
    wrong = Fingerprint(scheme=exported.fingerprint.scheme, parts={**exported.fingerprint.parts, **added})
    sha256, told_json = hashlib.sha256(exported.file).hexdigest(), exported.fingerprint.to_json()
    files = {
        "good.rdb": exported.file,
        "good.rdb.gz": gzip.compress(exported.file),
        "damaged.rdb": exported.file.replace(b"where", b"wherf"),
        "export.json": b'{"file": "good.rdb", "sha256": "%s", "fingerprint": %s}' % (sha256.encode(), told_json),
        "taken.json": b'{"app_id": "shop.cache", "fingerprint": %s}' % told_json,
        "wrong.json": wrong.to_json(),
        "none.json": b'{"file": "good.rdb", "fingerprint": null}',
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    good, told = tmp_path / "good.rdb", tmp_path / "export.json"

    loaded = verify(good, redis_programs=server.install.server.parent, told=told, is_forked=False)
    read = verify(tmp_path / "good.rdb.gz", told=told)
    different = verify(good, redis_programs=server.install.server.parent, told=tmp_path / "wrong.json")
    damaged = verify(tmp_path / "damaged.rdb", told=told)
    by_fingerprint = verify(tmp_path / "good.rdb.gz", told=tmp_path / "taken.json")
    alone = [verify(good), verify(good, told=tmp_path / "none.json")]

    assert (loaded[0], loaded[1].get("engine"), loaded[1].get("differences")) == (0, "Valkey 9.1.2", []), loaded
    assert (read[0], read[1].get("engine"), read[1].get("differences")) == (0, "", []), read
    assert loaded[1]["unproven"] == by_fingerprint[1]["unproven"] == ""
    assert f"on purpose: {told} tells of another file, whose SHA-256 is {sha256}." in str(read[1]["unproven"])
    assert different[0] == 10
    assert different[1]["differences"] == ["list keys of database 9: 1 keys, 7 here, nothing there"]
    assert damaged[0] == 6
    assert [code for code, _ in alone] == [11, 11]


async def test_a_server_that_takes_long_to_load_a_redis_export_is_waited_for(
    start_redis: StartRedis, short_path: Path
) -> None:
    """A Valkey: it tells of another loading beside the one that counts."""
    server = start_redis("valkey-9.1")
    fill(server, keys=20)
    exported = await RedisApp(server, short_path / "work").export()
    assert exported.fingerprint is not None
    file, told, slow = short_path / "good.rdb", short_path / "export.json", short_path / "valkey-server"
    file.write_bytes(exported.file)
    told.write_bytes(b'{"file": "good.rdb", "fingerprint": %s}' % exported.fingerprint.to_json())
    delay = "--key-load-delay 20000 --loading-process-events-interval-bytes 1024"
    slow.write_text(f'#!/bin/sh\nexec {server.install.server} "$@" {delay}\n')
    slow.chmod(0o755)

    code, document = verify(file, redis_programs=short_path, told=told)

    assert (code, document.get("engine"), document.get("differences")) == (0, "Valkey 9.1.2", []), document


async def test_the_server_that_proves_a_redis_export_runs_no_script_of_it(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-6.2")
    with client_of(server) as client:
        client.set("a", "1")
    exported = await RedisApp(server, tmp_path / "work").export()
    assert exported.fingerprint is not None
    body = exported.file[:-END_BYTES] + aux("lua", "return 1 end while true do end function x()") + b"\xff"
    file, told = tmp_path / "scripts.rdb", tmp_path / "export.json"
    file.write_bytes(body + crc64(body).to_bytes(8, "little"))
    told.write_bytes(b'{"file": "scripts.rdb", "fingerprint": %s}' % exported.fingerprint.to_json())

    code, document = verify(file, redis_programs=server.install.server.parent, told=told)

    assert (code, document.get("engine"), document.get("differences")) == (0, "Redis 6.2.5", []), document


async def test_what_a_function_library_does_when_it_is_loaded_is_not_done_to_prove_an_export(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0")
    with client_of(server) as client:
        client.function_load("#!lua name=x\nfor i = 1, 3 do end\nredis.register_function('f', function() end)")
    exported = await RedisApp(server, tmp_path / "work").export()
    assert exported.fingerprint is not None
    file, told = tmp_path / "library.rdb", tmp_path / "export.json"
    file.write_bytes(exported.file)
    told.write_bytes(b'{"file": "library.rdb", "fingerprint": %s}' % exported.fingerprint.to_json())

    code, document = verify(file, redis_programs=server.install.server.parent, told=told)

    assert (code, document.get("engine"), document.get("differences")) == (0, "", []), document
