"""MariaDB out and in: the same afterwards, undone as exactly, unharmed by whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.engines.mariadb import names
from agent.engines.mariadb.imports import loading
from agent.engines.mariadb.imports.exchange import Exchange
from agent.engines.mariadb.server import catalog, client
from agent.engines.mariadb.server.catalog import look
from agent.engines.mariadb.server.client import query
from agent.engines.swapping import Side
from agent.recipes.base import Recovered, Upload
from agent.unsettled import UnsettledError
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
    NothingToUndoError,
    ServiceError,
    ToolFailedError,
    TransferNotFoundError,
)
from common.headers import ArchiveHeader
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.children import agent_children
from tests.fixtures.mariadb_apps import KUMA_DUMP, RICH, MariadbApp
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until


def gz(text: str) -> bytes:
    return gzip.compress(text.encode())


def dump_of(statements: str) -> bytes:
    """A dump's beginning and end around statements."""
    return f"-- MariaDB dump 10.19\n\n{statements}\n\n-- Dump completed on 2026-11-23  8:35:57\n".encode()


@variants("format_name", ["sql.gz", "sql"])
async def test_a_database_is_the_same_after_export_and_import(format_name: str, shop: MariadbApp) -> None:
    shop.sql(RICH)
    exported = await shop.export(format_name)
    shop.sql("DELETE FROM parent; DROP TABLE parted; CREATE TABLE since (id int); SELECT NEXTVAL(numbers);")

    record = await shop.import_(exported.content)

    assert exported.fingerprint is not None
    assert (await shop.fingerprint()).differences(exported.fingerprint) == []
    assert (
        shop.sql("SELECT COUNT(*) FROM parted; SELECT p FROM child WHERE id = 1; SHOW TABLES LIKE 'since'") == "5000\n2"
    )
    assert shop.sql("SELECT COUNT(*), SUM(g) FROM `odd ``name```; SELECT HEX(b) FROM `odd ``name``` WHERE id = -1") == (
        "3\t8\n00FF27225C0A0D1A"
    )
    # The foreign key leads to the table that is in place.
    shop.sql("DELETE FROM parent WHERE id = 2")
    assert shop.sql("SELECT COUNT(*) FROM child") == "1"
    await shop.recipe.discard(record)
    assert shop.leftovers(record) == []


async def test_an_undo_of_which_a_table_was_removed_says_so_and_changes_nothing(shop: MariadbApp) -> None:
    shop.sql(RICH)
    record = await shop.import_(KUMA_DUMP.read_bytes())
    imported = await shop.fingerprint()
    shop.server.sql(f"DROP TABLE mathison_old_{record.key}.parted")

    with pytest.raises(NothingToUndoError, match="or some of them"):
        await shop.recipe.undo(record, NotedProgress())

    assert (await shop.fingerprint()).differences(imported) == []
    await shop.recipe.discard(record)
    assert shop.leftovers(record) == []


async def test_a_restore_of_which_what_was_staged_was_removed_says_so_and_changes_nothing(shop: MariadbApp) -> None:
    shop.sql(RICH)
    before, record = shop.dumped(), MemoryRecord()
    await shop.stage(KUMA_DUMP.read_bytes(), record)
    shop.server.sql(f"DROP DATABASE mathison_new_{record.key}")

    with pytest.raises(TransferNotFoundError, match=r"^What was staged is gone\."):
        await shop.recipe.restore(record, NotedProgress())

    assert shop.dumped() == before
    await shop.recipe.discard(record)
    assert shop.leftovers(record) == []


async def test_an_app_that_moved_to_another_database_takes_nothing_that_was_staged_before(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE t (a text); INSERT INTO t VALUES ('imported')")
    archive = (await shop.export()).content
    shop.sql("UPDATE t SET a = 'previous'")
    staged, restored = MemoryRecord(), await shop.import_(archive)
    await shop.stage(archive, staged)
    other = MariadbApp(shop.server, shop.work_directory.parent / "other")
    other.sql("CREATE TABLE t (a text); INSERT INTO t VALUES ('live')")

    for step in (
        other.recipe.restore(staged, NotedProgress()),
        other.recipe.undo(restored, NotedProgress()),
        other.recipe.recover(restored),
        other.recipe.discard(restored),
        shop.recipe_with(host="localhost").discard(staged),
    ):
        with pytest.raises(AppUnavailableError, match=r"keeps its data in MariaDB \(database .* now; when the file"):
            await step

    assert other.sql("SELECT a FROM t") == "live"
    assert shop.sql("SELECT a FROM t") == "imported"
    await shop.recipe.discard(staged)
    await shop.recipe.undo(restored, NotedProgress())
    assert shop.sql("SELECT a FROM t") == "previous"
    assert shop.leftovers(staged) == shop.leftovers(restored) == []


async def test_an_undo_does_not_need_the_empty_schema_beside_it(shop: MariadbApp) -> None:
    shop.sql(RICH)
    before = shop.dumped()
    record = await shop.import_(KUMA_DUMP.read_bytes())
    shop.server.sql(f"DROP DATABASE mathison_new_{record.key}")

    await shop.recipe.undo(record, NotedProgress())

    assert shop.dumped() == before
    assert shop.leftovers(record) == []


async def test_a_dump_of_the_real_app_is_imported_and_undone(shop: MariadbApp) -> None:
    shop.sql(RICH)
    before = await shop.fingerprint()
    record = MemoryRecord()

    preview = await shop.stage(KUMA_DUMP.read_bytes(), record)
    staged = await shop.fingerprint()
    await shop.recipe.restore(record, NotedProgress())
    imported = shop.sql("SELECT COUNT(*) FROM heartbeat; SHOW TABLES LIKE 'parted'")
    shop.sql(
        "CREATE TABLE since (id int, m int unsigned, FOREIGN KEY (m) REFERENCES monitor(id)); DELETE FROM heartbeat"
    )
    await shop.recipe.undo(record, NotedProgress())

    assert staged.differences(before) == []
    assert imported == "121"
    assert (await shop.fingerprint()).differences(before) == []
    assert shop.leftovers(record) == []
    assert preview.counts_after == {"tables": 28, "rows": 315}
    assert preview.changes[1].startswith("Tables: 28 new (api_key, docker_host, ")


async def test_an_import_into_an_empty_database_is_undone_to_empty(shop: MariadbApp) -> None:
    record = await shop.import_(KUMA_DUMP.read_bytes())
    assert await shop.recipe.recover(record) is Recovered.IMPORTED

    await shop.recipe.undo(record, NotedProgress())

    assert shop.sql("SHOW TABLES") == ""
    assert shop.leftovers(record) == []


async def test_an_export_is_of_one_moment_while_the_app_writes(shop: MariadbApp) -> None:
    shop.sql(
        "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b LIKE a;"
        " INSERT INTO a SELECT seq, 0 FROM seq_1_to_20000; INSERT INTO b SELECT seq, 0 FROM seq_1_to_20000;"
    )
    is_done = asyncio.Event()

    async def write() -> int:
        count = 0
        while not is_done.is_set():
            count += 1
            both = f"UPDATE a SET n = {count} WHERE id = 20000; UPDATE b SET n = {count} WHERE id = 1;"
            await asyncio.to_thread(shop.sql, f"START TRANSACTION; {both} COMMIT;")
        return count

    writing = asyncio.create_task(write(), name="write as the app")
    try:
        exported = await shop.export("sql")
    finally:
        is_done.set()
        written = await writing
    record = await shop.import_(exported.content)

    assert written > 0
    assert shop.sql("SELECT a.n = b.n FROM a, b WHERE a.id = 20000 AND b.id = 1") == "1"
    await shop.recipe.discard(record)


async def test_people_open_an_export_with_their_own_client(shop: MariadbApp) -> None:
    shop.fill()
    exported = await shop.export("sql.gz")
    other = f"{shop.database}_by_hand"
    shop.server.sql(f"CREATE DATABASE {other}")

    shop.server.sql(gzip.decompress(exported.content).decode(), database=other)

    assert shop.server.sql("SELECT COUNT(*) FROM heartbeat", database=other) == "121"
    assert b"sandbox" not in gzip.decompress(exported.content)


ADMINER = b"""-- Adminer 4.8.1 MySQL 5.5.5-10.11.6-MariaDB dump

SET NAMES utf8;
SET time_zone = '+00:00';
SET foreign_key_checks = 0;
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';

DROP TABLE IF EXISTS `a`;
CREATE TABLE `a` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

INSERT INTO `a` (`id`) VALUES
(1),
(2);

-- 2026-01-01 00:00:00
"""


BAD: dict[str, tuple[bytes, type[ArchiveError], str]] = {
    "empty": (b"", ArchiveWrongKindError, "no SQL dump"),
    "text": (b"Hello, this is no dump.\n", ArchiveWrongKindError, "it is text"),
    "notes": (b"# Notes\n\nHello, this is no dump.\n", ArchiveWrongKindError, "no SQL dump"),
    "web page": (b"\n<!DOCTYPE html><p>It's a; page</p>\n", ArchiveWrongKindError, "it is a web page"),
    "JSON": (b'{"monitors": [1]}\n', ArchiveWrongKindError, "it is JSON"),
    "zeros": (bytes(4096), ArchiveWrongKindError, "nothing but zeros"),
    "UTF-16": ("-- MariaDB dump 10.19\n".encode("utf-16"), ArchiveWrongKindError, "PowerShell"),
    "SQLite": (b"SQLite format 3\0" + bytes(100), ArchiveWrongKindError, "SQLite"),
    "PostgreSQL": (b"--\n-- PostgreSQL database dump\n--\nSET x = 0;\n", ArchiveWrongKindError, "PostgreSQL"),
    "cut between statements": (
        gzip.decompress(KUMA_DUMP.read_bytes()).rpartition(b"/*!40103 SET TIME_ZONE=@OLD")[0],
        ArchiveTruncatedError,
        "Dump completed",
    ),
    "cut within a row": (gzip.decompress(KUMA_DUMP.read_bytes())[:30_000], ArchiveTruncatedError, "cut off"),
    "of Adminer": (ADMINER, ArchiveTruncatedError, "Whether the file is whole cannot be told"),
    "without comments": (
        b"/*!40101 SET NAMES utf8mb4 */;\nCREATE TABLE `t` (`a` int);\n",
        ArchiveTruncatedError,
        "Whether the file is whole cannot be told",
    ),
    "cut gzip": (KUMA_DUMP.read_bytes()[:-2000], ArchiveTruncatedError, "."),
    "damaged gzip": (
        KUMA_DUMP.read_bytes()[:5000] + bytes(40) + KUMA_DUMP.read_bytes()[5040:],
        ArchiveDamagedError,
        ".",
    ),
    "several databases": (dump_of("CREATE DATABASE `x`;\nUSE `x`;"), ArchiveWrongKindError, "--databases"),
    "client command": (dump_of("\\! touch /tmp/x"), ArchiveRefusedError, "client command"),
    "file": (dump_of("LOAD DATA INFILE '/etc/passwd' INTO TABLE t;"), ArchiveRefusedError, "LOAD DATA INFILE"),
    "temporary table": (
        dump_of("CREATE OR REPLACE TEMPORARY TABLE `t` (`a` int);\nINSERT INTO `t` VALUES (1);"),
        ArchiveRefusedError,
        "CREATE OR REPLACE TEMPORARY",
    ),
    "other schema": (dump_of("DROP TABLE IF EXISTS `mysql`.`global_priv`;"), ArchiveRefusedError, "plain name"),
    "a zero byte behind which a client sees nothing": (
        dump_of(
            "CREATE TABLE `t` (`a` text);\nINSERT INTO `t` VALUES ('a\\\0');\n"
            "INSERT INTO `t` VALUES ('); CREATE TABLE stolen (a int); -- ');"
        ),
        ArchiveRefusedError,
        "zero byte",
    ),
    "a line that loses its end": (
        dump_of(
            "CREATE TABLE `t` (\ndelimiter_a int DEFAULT (5 -\n- char_length(' \n"
            "+ 3)); CREATE TABLE stolen (a int); -- ')));"
        ),
        ArchiveIncompatibleError,
        "DELIMITER",
    ),
    "half a trigger": (
        dump_of("DELIMITER ;;\nCREATE TRIGGER x AFTER INSERT ON t FOR;;\nDELIMITER ;"),
        ArchiveDamagedError,
        "syntax",
    ),
    "unknown collation": (
        dump_of("CREATE TABLE `t` (`a` int) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_xy_ci;"),
        ArchiveIncompatibleError,
        "utf8mb4_0900_xy_ci",
    ),
    "two rows of one key": (
        dump_of("CREATE TABLE `t` (`a` int PRIMARY KEY);\nINSERT INTO `t` VALUES (1),(1);"),
        ArchiveDamagedError,
        "Duplicate entry",
    ),
    "two rows of one key that the file has not checked": (
        dump_of(
            "SET unique_checks=0, foreign_key_checks=0;\nCREATE TABLE `t` (`a` int PRIMARY KEY, `u` int UNIQUE);\n"
            "INSERT INTO `t` VALUES (1,1),(2,1);"
        ),
        ArchiveDamagedError,
        "rows of t: the server does not keep .* twice in a unique key",
    ),
    "a failing statement before much more": (
        dump_of("INSERT INTO `missing` VALUES (1);\n" + "INSERT INTO `missing` VALUES (1);\n" * 50_000),
        ArchiveDamagedError,
        "missing",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_upload_is_refused_and_changes_nothing(name: str, shop: MariadbApp) -> None:
    content, error, words = BAD[name]
    shop.sql("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (42);")
    before, record = shop.dumped(), MemoryRecord()

    with pytest.raises(error, match=words):
        await shop.stage(content, record)
    await shop.recipe.discard(record)

    assert shop.dumped() == before
    assert shop.leftovers(record) == []
    assert agent_children() == []


async def test_a_file_of_another_program_is_taken_from_who_says_that_it_is_whole(shop: MariadbApp) -> None:
    record = MemoryRecord()
    with pytest.raises(ArchiveTruncatedError) as refused:
        await shop.stage(ADMINER, record)
    await shop.recipe.discard(record)
    [_, last_line] = refused.value.next_step.split("of your own: ")

    record = await shop.import_(ADMINER + last_line.encode() + b"\n")

    assert shop.sql("SELECT id FROM a") == "1\n2"
    await shop.recipe.discard(record)


@variants("share", [0.3, 0.999], kept=[0.999])
async def test_a_cut_or_changed_export_of_ours_is_noticed(share: float, shop: MariadbApp) -> None:
    shop.fill()
    content = (await shop.export("sql")).content
    at = int(len(content) * share)
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    for odd in (content[:at], flipped):
        record = MemoryRecord()
        with pytest.raises(ArchiveError):
            await shop.stage(odd, record)
        await shop.recipe.discard(record)


ELSEWHERE = [
    "SELECT * FROM {shop}.monitor",
    "INSERT INTO {shop}.tag (name, color) VALUES ('x', 'y')",
    "DROP TABLE {shop}.heartbeat",
    "CREATE TABLE {shop}.x (a int)",
    "RENAME TABLE t TO {shop}.t",
    "CREATE TEMPORARY TABLE x (a int)",
    "CREATE TABLE x (a int unsigned, FOREIGN KEY (a) REFERENCES {shop}.monitor(id))",
    "SELECT * FROM mysql.global_priv",
    "SELECT LOAD_FILE('/etc/passwd') IS NULL FROM nothing",
    "SELECT 1 INTO OUTFILE '/tmp/mathison-out'",
    "LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
    "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t",
    "SET GLOBAL general_log = 1",
    "CREATE USER other",
    "GRANT ALL ON {shop}.* TO CURRENT_USER",
    "CREATE DATABASE other",
    "CREATE DEFINER='root'@'%' PROCEDURE p() SELECT 1",
    "INSTALL SONAME 'ha_connect'",
    "KILL 1",
    "SHUTDOWN",
    "SET SESSION sql_log_bin = 0",
]


async def test_who_loads_may_do_nothing_elsewhere_whatever_gets_past_the_filter(shop: MariadbApp) -> None:
    shop.fill()
    admin = shop.recipe._admin()
    key = MemoryRecord().key
    loader = await loading.make_beside(admin, await look(admin, shop.database), key)
    carried_out = []
    try:
        await query(loader, "CREATE TABLE t (a text);", database=names.new_schema(key))

        for sql in ELSEWHERE:
            with contextlib.suppress(ServiceError):
                await query(loader, sql.format(shop=shop.database) + ";", database=names.new_schema(key))
                carried_out.append(sql)
    finally:
        await loading.drop_beside(admin, key)

    assert carried_out == []
    assert shop.sql("SELECT COUNT(*) FROM heartbeat") == "121"


ENDLESS = "DELIMITER ;;\nBEGIN NOT ATOMIC WHILE TRUE DO SET @a = 1; END WHILE; END ;;\n"


async def test_a_statement_that_goes_on_without_its_client_is_ended_with_the_account_that_loads(
    shop: MariadbApp,
) -> None:
    admin, key = shop.recipe._admin(), MemoryRecord().key
    loader = await loading.make_beside(admin, await look(admin, shop.database), key)
    sessions = f"SELECT COMMAND FROM information_schema.PROCESSLIST WHERE USER = '{loader.user}'"
    working = asyncio.create_task(query(loader, ENDLESS, database=names.new_schema(key)), name="work without an end")
    await until(lambda: shop.server.sql(sessions) == "Query")
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    gone_on = shop.server.sql(sessions)

    await loading.drop_beside(admin, key)

    assert gone_on == "Query"
    assert shop.server.sql(sessions) == ""


async def test_a_file_whose_short_rows_become_long_ones_is_refused_before_the_disk_is_full(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "RATIO_COUNTS_FROM_BYTES", 4 << 20)
    monkeypatch.setattr(loading, "_SIZE_SECONDS", 0.05)
    sent = 0

    async def upload() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"-- MariaDB dump 10.19\n\nCREATE TABLE t (a longtext DEFAULT (REPEAT('x', 1000000)));\n"
        while sent < 1000:
            sent += 1
            yield b"INSERT INTO t VALUES ();\n"
            await asyncio.sleep(0.01)

    record = MemoryRecord()
    with pytest.raises(LimitExceededError, match="200 times its size"):
        await shop.recipe.stage(Upload(header=ArchiveHeader(), chunks=upload(), options={}), record, NotedProgress())
    await shop.recipe.discard(record)

    assert sent < 1000
    assert shop.leftovers(record) == []


@variants("column", ["DEFAULT (REPEAT('x', 1000000))", "AS (REPEAT('x', 1000000)) STORED"])
async def test_a_server_stops_in_the_middle_of_many_rows_that_become_long_ones(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    monkeypatch.setattr(loading, "RATIO_COUNTS_FROM_BYTES", 4 << 20)
    monkeypatch.setattr(loading, "_SIZE_SECONDS", 0.05)
    rows = ",".join(["(1)"] * 5_000)
    dump = f"-- MariaDB dump 10.19\n\nCREATE TABLE t (a int, b longtext {column});\nINSERT INTO t (a) VALUES {rows};\n"
    dump += "-- Dump completed\n"
    record = MemoryRecord()

    with pytest.raises(LimitExceededError, match="200 times its size"):
        await shop.stage(dump.encode(), record)
    await shop.recipe.discard(record)

    assert shop.leftovers(record) == []
    assert shop.server.sql(f"{PROCESSES} WHERE USER LIKE 'mathison%'") == ""


PROCESSES = "SELECT INFO FROM information_schema.PROCESSLIST"


async def test_a_locked_table_makes_a_swap_wait_and_then_fail_with_everything_in_place(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engines.mariadb.server.client.LOCK_SECONDS", 1)
    monkeypatch.setattr("agent.engines.mariadb.server.client.ATTEMPTS", 1)
    shop.fill()
    before, record = shop.dumped(), MemoryRecord()
    await shop.stage(KUMA_DUMP.read_bytes(), record)

    async with shop.lock_held():
        with pytest.raises(AppBusyError):
            await shop.recipe.restore(record, NotedProgress())

    assert shop.dumped() == before
    await shop.recipe.restore(record, NotedProgress())
    assert await shop.recipe.recover(record) is Recovered.IMPORTED
    await shop.recipe.discard(record)


async def test_an_undo_whose_leavings_cannot_be_dropped_yet_is_settled_as_undone(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql("CREATE TABLE own (id int)")
    before, record = shop.dumped(), await shop.import_(KUMA_DUMP.read_bytes())

    async def busy(_: Exchange) -> None:
        raise AppBusyError("In use.")

    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "drop", busy)
        with pytest.raises(UnsettledError):
            await shop.recipe.undo(record, NotedProgress())

    assert await shop.recipe.recover(record) is Recovered.PREVIOUS
    assert shop.dumped() == before
    await shop.recipe.discard(record)
    assert shop.leftovers(record) == []


async def test_a_rename_that_waits_when_its_agent_is_gone_does_not_come_true_later(shop: MariadbApp) -> None:
    shop.fill()
    before, record = shop.dumped(), MemoryRecord()
    await shop.stage(KUMA_DUMP.read_bytes(), record)

    async with shop.lock_held():
        restoring = asyncio.create_task(shop.recipe.restore(record, NotedProgress()), name="a restore that is killed")
        await until(lambda: "RENAME TABLE" in shop.server.sql(PROCESSES))
        restoring.cancel()
        await asyncio.gather(restoring, return_exceptions=True)
        side = await shop.recipe.recover(record)
        pending = shop.server.sql(PROCESSES)

    assert side is Recovered.PREVIOUS
    assert "RENAME TABLE" not in pending
    await shop.recipe.discard(record)
    assert shop.dumped() == before
    assert shop.leftovers(record) == []


async def test_a_rename_that_stopped_half_way_is_taken_back(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE a (n int); INSERT INTO a VALUES (1); CREATE TABLE b (n int); CREATE TABLE c (n int);")
    before, record = shop.dumped(), MemoryRecord()
    await shop.stage(dump_of("CREATE TABLE `a` (`n` int);\nCREATE TABLE `d` (`n` int);"), record)
    record.save(previous=["a", "b", "c"])
    new, old = names.new_schema(record.key), names.old_schema(record.key)
    shop.server.sql(
        f"CREATE DATABASE {old}; RENAME TABLE {shop.database}.a TO {old}.a, {shop.database}.b TO {old}.b,"
        f" {shop.database}.c TO {old}.c, {new}.a TO {shop.database}.a;"
    )

    sides = [await shop.recipe.recover(record) for _ in range(2)]

    assert sides == [Recovered.PREVIOUS, Recovered.PREVIOUS]
    assert shop.dumped() == before
    await shop.recipe.discard(record)
    assert shop.leftovers(record) == []


async def test_a_restore_goes_on_where_its_rename_stopped_half_way_or_was_done(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE a (n int); CREATE TABLE b (n int);")
    before, record = shop.dumped(), MemoryRecord()
    await shop.stage(dump_of("CREATE TABLE `a` (`n` int);\nCREATE TABLE `d` (`n` int);"), record)
    record.save(previous=["a", "b"])
    new, old = names.new_schema(record.key), names.old_schema(record.key)
    shop.server.sql(f"CREATE DATABASE {old}; RENAME TABLE {shop.database}.a TO {old}.a, {new}.a TO {shop.database}.a;")

    for _ in range(2):
        await shop.recipe.restore(record, NotedProgress())

        assert shop.sql("SHOW TABLES") == "a\nd"
    await shop.recipe.undo(record, NotedProgress())
    assert shop.dumped() == before
    assert shop.leftovers(record) == []


@variants("moment", ["nothing", "written down", "renamed"], kept=["renamed"])
async def test_a_restore_that_was_interrupted_is_recovered_from(moment: str, shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE a (n int);")
    record = MemoryRecord()
    await shop.stage(dump_of("CREATE TABLE `b` (`n` int);"), record)
    if moment == "written down":
        record.save(previous=["a"])
    if moment == "renamed":
        exchange = Exchange(shop.recipe._admin(), shop.database, record)
        await exchange.bring(Side.IMPORTED)

    side = await shop.recipe.recover(record)

    assert side is (Recovered.IMPORTED if moment == "renamed" else Recovered.PREVIOUS)
    assert shop.sql("SHOW TABLES") == ("b" if moment == "renamed" else "a")
    await shop.recipe.discard(record)
    assert shop.leftovers(record) == []


async def test_a_dump_tool_that_fails_or_ends_early_makes_no_archive(shop: MariadbApp, short_path: Path) -> None:
    shop.fill()
    real = shop.server.install.bin_directory / "mariadb"
    (short_path / "mariadb").write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    (short_path / "mariadb").chmod(0o755)
    tool = short_path / "mariadb-dump"
    for script, words in (
        ("echo '-- MariaDB dump'; echo; echo '-- Dump completed on today'; exit 3", "status 3|refused"),
        ("echo '-- MariaDB dump'; exit 0", "complete"),
        ("exit 0", "complete"),
    ):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)

        with pytest.raises(ToolFailedError, match=words):
            await shop.export("sql", recipe=shop.recipe_with(client_directory=str(short_path)))


async def test_no_password_is_on_any_command_line(shop: MariadbApp, short_path: Path) -> None:
    for program in ("mariadb", "mariadb-dump"):
        real = shop.server.install.bin_directory / program
        (short_path / program).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {short_path}/argv\nexec {real} "$@"\n')
        (short_path / program).chmod(0o755)
    (short_path / "argv").touch()
    (short_path / "argv").chmod(0o666)
    shop.fill()
    recipe = shop.recipe_with(client_directory=str(short_path))

    await shop.export("sql", recipe=recipe)

    assert shop.database in (short_path / "argv").read_text()
    assert shop.password not in (short_path / "argv").read_text()


async def test_settings_that_do_not_work_are_obstacles_with_reasons(shop: MariadbApp) -> None:
    for changes, words in (
        ({"port": 1}, "cannot be used"),
        ({"database": "nowhere"}, "no database|cannot be used"),
        ({"database": "mysql"}, "server itself"),
        ({"password_file": "/nowhere"}, "/nowhere with a secret"),
    ):
        described = await shop.recipe_with(**changes).describe()
        assert described.can_export.obstacle, changes
        with pytest.raises(AppUnavailableError, match=words):
            await shop.export(recipe=shop.recipe_with(**changes))
    without = await shop.recipe_with(admin_user="").describe()
    assert without.can_export.is_possible
    assert "admin_user" in without.can_import.obstacle


VERSIONED = """
CREATE TABLE v (x int PRIMARY KEY, w int) WITH SYSTEM VERSIONING; INSERT INTO v VALUES (1, 1), (2, 2);
UPDATE v SET w = 3; DELETE FROM v WHERE x = 2;
CREATE TABLE own (x int, a timestamp(6) GENERATED ALWAYS AS ROW START, b timestamp(6) GENERATED ALWAYS AS ROW END,
  PERIOD FOR SYSTEM_TIME (a, b)) WITH SYSTEM VERSIONING; INSERT INTO own (x) VALUES (1); UPDATE own SET x = 2;
"""
HISTORY = "SELECT *, row_start, row_end FROM v FOR SYSTEM_TIME ALL; SELECT * FROM own FOR SYSTEM_TIME ALL"


async def test_export_and_preview_say_which_tables_have_a_history_that_they_do_not_hold(shop: MariadbApp) -> None:
    shop.sql(VERSIONED)
    record = MemoryRecord()

    exported = await shop.export("sql")
    preview = await shop.stage(exported.content, record)
    await shop.recipe.discard(record)

    assert exported.header.details["history"] == "left out"
    assert exported.warnings == [
        "2 tables are system-versioned; the export holds their present rows without their history: own, v."
    ]
    assert preview.warnings == (
        "2 tables are system-versioned; the file holds their present rows without their history: own, v.",
    )


async def test_an_export_that_is_asked_for_it_takes_the_history_of_tables_along(shop: MariadbApp) -> None:
    shop.sql(VERSIONED)
    before, record = shop.sql(HISTORY), MemoryRecord()

    exported = await shop.export("sql", history="yes")
    shop.sql("DROP TABLE v")
    preview = await shop.stage(exported.content, record)
    await shop.recipe.restore(record, NotedProgress())

    assert shop.sql(HISTORY) == before
    assert before.count("\n") == 5
    assert shop.sql("SELECT * FROM v; SELECT x FROM own") == "1\t3\n2"
    assert exported.header.details["history"] == "included"
    assert (exported.warnings, preview.warnings, exported.fingerprint) == ([], (), None)
    await shop.recipe.discard(record)


async def test_a_history_in_which_time_ends_on_another_day_is_refused(shop: MariadbApp) -> None:
    shop.sql(VERSIONED)
    sealed = (await shop.export("sql", history="yes")).content
    exported = sealed[sealed.index(b"\n") + 1 : sealed.index(b"-- mathison-data digest")]
    newer, record = exported.replace(b"-- Server version\t10.11.", b"-- Server version\t11.8."), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=r"11\.8\..* time ends on another day than in 10\.11"):
        await shop.stage(newer, record)
    await shop.recipe.discard(record)

    assert shop.leftovers(record) == []


async def test_rows_are_counted_where_they_can_be_and_called_estimated_where_not(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT seq FROM seq_1_to_5000")

    exported = await shop.export()
    without = await shop.export(fingerprint="no")
    counted = await shop.stage(exported.content, MemoryRecord())
    # As a server says that a statement took too long.
    monkeypatch.setattr(catalog, "WITHIN_SECONDS", "SIGNAL SQLSTATE '70100';")
    estimated = await shop.stage(exported.content, MemoryRecord())

    assert exported.header.counts.keys() == {"tables", "estimated_rows"}
    assert exported.counts == {"tables": 1, "rows": 5000}
    assert without.counts == without.header.counts
    assert counted.counts_now == counted.counts_after == {"tables": 1, "rows": 5000}
    assert estimated.counts_now.keys() == {"tables", "estimated_rows"}
    assert " with about " in estimated.changes[0]


async def test_a_server_that_takes_connections_and_says_nothing_is_given_up(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with asyncio.timeout(30):
            found = await shop.recipe_with(port=port).describe()

    text = f"MariaDB on 127.0.0.1:{port} took the connection and said nothing for 1 seconds."
    assert (found.can_export.obstacle, found.can_import.obstacle) == (text, text)
