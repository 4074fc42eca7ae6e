"""Uploads that attack: each ends with an error that says why, and nothing outside of its own database has changed."""

from __future__ import annotations

import asyncio
import gzip
import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.pg.loading import loader_process
from agent.jail import Jail
from common.errors import (
    AppUnavailableError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveWrongKindError,
    LimitExceededError,
    ServiceError,
)
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.loading.conftest import MakeTarget, RichSource
from tests.integration.agent.engines.pg.loading.targets import CLOSING, OPENING, Target, children_of_load, until
from tools.servers import PostgresServer

TABLE = "CREATE TABLE public.t (a text);\n"


@pytest.fixture
def canary() -> Iterator[Path]:
    """Where an attack that works leaves a file; server, jail and agent may all write there."""
    folder = Path(tempfile.mkdtemp(prefix="mathison-canary-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder / "made"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def state_of(server: PostgresServer) -> list[tuple[object, ...]]:
    """What an upload must not change: databases, roles and their rights, settings, prepared transactions."""
    return server.run("""
        SELECT string_agg(datname || datallowconn, ',' ORDER BY datname) FROM pg_database
        UNION ALL SELECT string_agg(a::text, ',' ORDER BY rolname) FROM pg_authid AS a
        UNION ALL SELECT string_agg(m::text, ',' ORDER BY m) FROM pg_auth_members AS m
        UNION ALL SELECT count(*)::text FROM pg_file_settings WHERE sourcefile ~ 'auto.conf'
        UNION ALL SELECT count(*)::text FROM pg_prepared_xacts
        UNION ALL SELECT string_agg(s::text, ',' ORDER BY s) FROM pg_db_role_setting AS s""")


CLIENT_COMMANDS = {
    "shell": r"\! touch {canary}",
    "shell behind SQL": r"SELECT 1; \! touch {canary}",
    "backtick": r"\set x `touch {canary}`",
    "pipe": r"SELECT 1 \g |touch {canary}",
    "output": "\\o {canary}\nSELECT 1;",
    "write": r"\w {canary}",
    "copy program": r"\copy public.t from program 'touch {canary}; echo 1'",
    "copy to file": r"\copy public.t to '{canary}'",
    "include": r"\i /etc/passwd",
    "unrestrict with backtick": "\\restrict k\n\\unrestrict `touch {canary}`",
    "large object": r"\lo_export 1 {canary}",
    "gexec": r"SELECT 'DROP DATABASE x' \gexec",
    "in a function": "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; \\! touch {canary}\nEND;",
    "in a comment that ends": "/* x */ \\! touch {canary}",
    "behind a string that seems to go on": "SELECT 'a\\'; \\! touch {canary}\n--'",
    "behind rows": "COPY public.t FROM stdin;\n1\n\\.\n\\! touch {canary}",
    "rows of a table that is not there": "COPY public.nowhere FROM stdin;\n\\! touch {canary}\n\\.\n\\! touch {canary}",
    "environment": r"\setenv PAGER 'touch {canary}'",
}


@pytest.mark.parametrize("attack", CLIENT_COMMANDS.values(), ids=CLIENT_COMMANDS.keys())
async def test_client_commands_are_refused(attack: str, target: Target, canary: Path) -> None:
    before = state_of(target.server)

    with pytest.raises((ArchiveRefusedError, ArchiveIncompatibleError)) as refused:
        await target.load_sql(TABLE + attack.format(canary=canary) + "\n")

    if "nowhere" not in attack:
        assert "the file tries to run a client command" in refused.value.text
    assert not canary.exists()
    assert state_of(target.server) == before
    assert target.left_over() == []


SQL_ATTACKS = {
    "copy from program": "COPY public.t FROM PROGRAM 'touch {canary}';",
    "copy to program": "COPY public.t TO PROGRAM 'touch {canary}';",
    "copy to file": "COPY public.t TO '{canary}';",
    "copy from file": "COPY public.t FROM '/etc/passwd';",
    "copy to stdout": "COPY public.t TO STDOUT;",
    "copy in a block": "DO $$ BEGIN EXECUTE 'COPY public.t TO PROGRAM ''touch {canary}'''; END $$;",
    "copy with a comment": "COPY/**/public.t/**/FROM/**/PROGRAM 'touch {canary}';",
    "read a file": "SELECT pg_catalog.pg_read_file('/etc/passwd');",
    "read a file into a large object": "SELECT pg_catalog.lo_import('/etc/passwd');",
    "write a large object": "SELECT pg_catalog.lo_export(pg_catalog.lo_from_bytea(1, 'x'), '{canary}');",
    "list a directory": "SELECT pg_catalog.pg_ls_dir('/etc');",
    "become superuser": "SET ROLE postgres;",
    "become superuser by its name": "SET role TO postgres;",
    "become another user": "SET SESSION AUTHORIZATION postgres;",
    "raise itself": "ALTER ROLE {role} SUPERUSER;",
    "change the superuser": "ALTER ROLE postgres PASSWORD 'x';",
    "make a role": "CREATE ROLE intruder SUPERUSER LOGIN;",
    "drop a role": "DROP ROLE app;",
    "change settings": "ALTER SYSTEM SET archive_command = 'touch {canary}';",
    "settings of all": "ALTER ROLE ALL SET session_preload_libraries = 'x';",
    "make a database": "CREATE DATABASE mine;",
    "drop a database": "DROP DATABASE template0;",
    "drop a database in a block": "DO $$ BEGIN EXECUTE 'DROP DATABASE template0'; END $$;",
    "drop a database by a comment": "DROP/**/DATABASE postgres WITH (FORCE);",
    "rename a database": "ALTER/**/DATABASE {role} RENAME TO template2;",
    "leave a transaction": "BEGIN; LOCK TABLE public.t; PREPARE TRANSACTION 'x';",
    "leave a transaction, hidden": "BEGIN; PREPARE /* x */ TRANSACTION 'x';",
    "several in one": "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1' SET begin.x = 1; DROP TABLE t; END;",
    "untrusted extension": "CREATE EXTENSION dblink;",
    "untrusted extension by a comment": "CREATE/**/EXTENSION file_fdw;",
    "library": "LOAD '/tmp/evil.so';",
    "C function": "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/tmp/evil.so', 'f';",
    "tablespace": "CREATE TABLESPACE s LOCATION '/tmp';",
    "kill others": "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
    " WHERE usename = 'postgres';",
    "publish all, hidden": "CREATE/**/PUBLICATION p FOR ALL TABLES;",
    "subscribe, hidden": "CREATE/**/SUBSCRIPTION s CONNECTION 'host=10.0.0.1' PUBLICATION p;",
    "watch all, hidden": "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
    " CREATE/**/EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION e();",
    "slot": "SELECT pg_catalog.pg_create_physical_replication_slot('x');",
    "listen in": "SELECT * FROM pg_catalog.pg_authid;",
    "deep": "SELECT " + "(" * 20000 + "1" + ")" * 20000 + ";",
    "encoding in which a quote hides": "SET client_encoding = 'SJIS';",
    "encoding in which a quote hides, by a call": "SELECT pg_catalog.set_config('client_encoding', 'SJIS', false);"
    " SELECT 1;",
    "encoding in which a quote hides, by code": "DO $$ BEGIN SET client_encoding = 'BIG5'; END $$;"
    " COPY public.t FROM stdin;\n1\n\\.\n",
    "encoding in which a quote hides, reset": "SET/**/client_encoding = 'SJIS'; RESET client_encoding;",
    "open transaction": "BEGIN; INSERT INTO public.t VALUES (1);",
    "wrong rows": "COPY public.t (a, nothing) FROM stdin;\n1\n\\.\n",
    "own end": "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid());",
}


@pytest.mark.parametrize("attack", SQL_ATTACKS.values(), ids=SQL_ATTACKS.keys())
async def test_sql_that_reaches_further_than_its_database_is_refused(attack: str, target: Target, canary: Path) -> None:
    before = state_of(target.server)

    with pytest.raises((ArchiveError, AppUnavailableError)) as refused:
        await target.load_sql(TABLE + attack.format(canary=canary, role=target.name) + "\n")

    assert refused.value.text
    assert not canary.exists()
    assert state_of(target.server) == before
    assert target.left_over() == []


LEFT_OUT = {
    "grant": "GRANT postgres TO {role};",
    "grant to a role that is not there": "GRANT SELECT ON public.t TO nobody_there;",
    "owner": "ALTER TABLE public.t OWNER TO postgres;",
    "default privileges": "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO PUBLIC;",
    "security label": "SECURITY LABEL FOR selinux ON TABLE public.t IS 'x';",
}


@pytest.mark.parametrize("statement", LEFT_OUT.values(), ids=LEFT_OUT.keys())
async def test_owners_and_rights_are_left_out_with_a_warning(statement: str, target: Target) -> None:
    before = state_of(target.server)

    loaded = await target.load_sql(TABLE + statement.format(role=target.name))

    assert len(loaded.warnings) == 1
    assert "left out" in loaded.warnings[0]
    assert state_of(target.server) == before
    assert target.value("SELECT tableowner FROM pg_tables WHERE tablename = 't'") == target.name


async def test_what_only_a_superuser_may_make_is_handed_back(target: Target) -> None:
    loaded = await target.load_sql(
        TABLE + "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';\n"
        'CREATE EVENT TRIGGER "my; trigger" ON ddl_command_end EXECUTE FUNCTION e();\n'
        "COMMENT ON EVENT TRIGGER \"my; trigger\" IS 'mine';\n"
        "CREATE PUBLICATION everything FOR ALL TABLES;\n"
        "CREATE PUBLICATION one;\nALTER PUBLICATION one ADD TABLE ONLY public.t;\n"
        "CREATE PUBLICATION later WITH (publish = 'insert');\nCREATE PUBLICATION \"Mixed\";\n"
        "COMMENT ON PUBLICATION later IS 'mine';\nALTER PUBLICATION \"Mixed\" ADD TABLE ONLY public.t;\n"
        "ALTER PUBLICATION later ADD TABLES IN SCHEMA public;\n"
        'ALTER PUBLICATION "Mixed" ADD TABLES IN SCHEMA public;\n'
        "CREATE SUBSCRIPTION s CONNECTION 'password=x' PUBLICATION p;\n"
    )

    assert [(one.kind, one.name) for one in loaded.deferred] == [
        ("event trigger", '"my; trigger"'),
        ("publication", "everything"),
        ("publication", "later"),
        ("publication", '"Mixed"'),
        ("subscription", "s"),
    ]
    assert [one.sql.count(";\n") for one in loaded.deferred] == [2, 1, 3, 3, 1]
    assert loaded.deferred[2].sql.startswith("CREATE PUBLICATION later WITH")
    assert target.run("SELECT pubname FROM pg_publication ORDER BY 1") == [("one",)]
    assert target.value("SELECT count(*) FROM pg_event_trigger") == 0


@variants("end", [b"", b"-- x", b"SELECT 1"])
async def test_statements_too_large_to_hold_are_refused(target: Target, end: bytes) -> None:
    async def endless() -> object:
        yield OPENING + b"SELECT '"
        for _ in range(300):
            yield b"x" * (1 << 20)
        yield b"';" + CLOSING + end

    with pytest.raises(LimitExceededError, match="longer than the limit"):
        await target.load(endless())  # type: ignore[arg-type]

    assert target.left_over() == []


async def test_an_answer_too_large_to_hold_ends_the_load_and_not_the_agent(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A quarter of what the loader has otherwise, since a server needs long for an answer that fills that.
    monkeypatch.setattr(loader_process, "_JAIL", Jail(address_space_bytes=512 << 20))

    with pytest.raises(ServiceError):
        await target.load_sql("SELECT repeat('x', 250000000) FROM generate_series(1, 4);")

    assert target.left_over() == []


async def test_a_load_that_would_never_end_ends_when_it_is_cancelled(target: Target) -> None:
    loading = asyncio.create_task(target.load_sql("SELECT pg_catalog.pg_sleep(100000);"))
    await until(lambda: target.sessions("query ~ 'sleep' AND state = 'active'") > 0)

    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading

    assert children_of_load() == []
    assert target.left_over() == []


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member, b""


def _files(archive: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened.getmembers():
            if (file := opened.extractfile(member)) is not None:
                found.append((tarfile.TarInfo(member.name), file.read()))
    return found


@pytest.mark.parametrize("what", ["symlink", "hard link", "twice", "two dumps", "no toc", "device", "escaping"])
async def test_a_tar_that_is_not_one_dump_in_a_directory_is_refused(
    what: str, rich_source: RichSource, target: Target, canary: Path
) -> None:
    files = _files(rich_source(17).dump("directory"))
    folder = files[0][0].name.split("/")[0]
    extra = {
        "symlink": [_link(f"{folder}/9999.dat", "/etc/passwd")],
        "hard link": [_link(f"{folder}/9999.dat", f"{folder}/toc.dat", tarfile.LNKTYPE)],
        "device": [_link(f"{folder}/9999.dat", "", tarfile.CHRTYPE)],
        "twice": [(tarfile.TarInfo(f"{folder}/toc.dat"), b"x")],
        "two dumps": [(tarfile.TarInfo("other/toc.dat"), b"x")],
        "escaping": [(tarfile.TarInfo(f"../../../../../../{canary}/toc.dat"), b"x")],
        "no toc": [],
    }[what]
    if what == "no toc":
        files = [(member, content) for member, content in files if not member.name.endswith("toc.dat")]

    with pytest.raises(ArchiveWrongKindError if what == "no toc" else ArchiveRefusedError):
        await target.load(_tar(*files, *extra))

    assert not canary.exists()
    assert target.left_over() == []


def _header(kind: bytes) -> bytes:
    return b"PGDMP\x01\x0e\x00\x04\x08" + kind


WRONG_KINDS = {
    "empty": (b"", "empty"),
    "toc of a directory": (_header(b"\x05") + bytes(100), "only toc.dat"),
    "sqlite": (b"SQLite format 3\0" + bytes(84), "SQLite"),
    "redis": (b"REDIS0011\xfa\x09redis-ver\x057.2.0", "Redis"),
    "web page": (b"<!DOCTYPE html><html>not found</html>", "web page"),
    "json": (b'{"error": "not found"}', "JSON"),
    "mysql": (b"-- MySQL dump 10.13  Distrib 8.0\n--\n", "MySQL"),
    "sqlite text": (b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", "SQLite"),
    "utf-16": ("--\n-- PostgreSQL database dump\n".encode("utf-16"), "UTF-16"),
    "utf-16 without a mark": ("--\n-- PostgreSQL database dump\n".encode("utf-16-le"), "UTF-16"),
    "zeros": (bytes(100_000), "nothing but zeros"),
    "whole server": (b"--\n-- PostgreSQL database cluster dump\n--\n", "whole server"),
    "hand-written": (b"CREATE TABLE a (b int);\n", "not a dump"),
    "no SQL at all": (b"root:x:0:0:root:/root:/bin/bash\nmail:x:8:8:mail:/var/mail:/usr/sbin/nologin\n", "not a dump"),
    "hand-written and cut": (b"CREATE TABLE a (b int, c te", "not a dump"),
    "binary": (b"\x01\x02\x00\x04" * 100, "unknown kind"),
    "gzip of nothing": (gzip.compress(b""), "empty"),
    "tar of something else": (_tar((tarfile.TarInfo("photo.jpg"), b"x")), "no PostgreSQL dump"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100), "unknown kind"),
}


@pytest.mark.parametrize(("content", "said"), WRONG_KINDS.values(), ids=WRONG_KINDS.keys())
async def test_a_wrong_file_is_refused_by_what_it_is(content: bytes, said: str, target: Target) -> None:
    with pytest.raises(ArchiveWrongKindError, match=said):
        await target.load(content)

    assert target.left_over() == []


async def test_rows_that_do_not_fit_are_never_dropped_without_a_word(target: Target) -> None:
    with pytest.raises(ArchiveRefusedError, match="with ON_ERROR, which pg_dump does not write"):
        await target.load_sql("CREATE TABLE t (a int);\nCOPY t FROM stdin WITH (ON_ERROR ignore);\n1\nx\n\\.\n")

    assert target.left_over() == []


async def test_after_an_attack_an_honest_dump_loads(rich_source: RichSource, make_target: MakeTarget) -> None:
    attacked, target = make_target(), make_target()
    with pytest.raises(ArchiveRefusedError):
        await attacked.load_sql("\\! id\n")

    await target.load(rich_source(17).dump())

    assert (await rich_source(17).fingerprint()).differences(await target.fingerprint()) == []
