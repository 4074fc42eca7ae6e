"""Uptime Kuma 2 on a MariaDB server: its tables and its files go out, in and back together."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from agent.engines.kuma import mariadb_data
from agent.engines.mariadb.exports.dumping import raw_dump
from agent.engines.mariadb.imports import exchange
from agent.engines.mariadb.server.client import query
from agent.engines.mariadb.server.settings import Login
from agent.engines.swapping import Side
from agent.recipes.base import ItemChanges, Recovered
from agent.recipes.exchanges import volume_exchange
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    NothingToUndoError,
    SourceUnreadableError,
    ToolFailedError,
)
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.archives import SYMLINK, entry, tar_of
from tests.fixtures.kuma_apps import KUMA_2, KumaApp, set_of
from tests.fixtures.mariadb_apps import KUMA_DUMP, MariadbApp
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.kuma_on_mariadb import KumaOnMariadb


@pytest.fixture
def kuma(shop: MariadbApp, tmp_path: Path) -> KumaOnMariadb:
    shop.fill()
    return KumaOnMariadb(shop, tmp_path / "kuma")


async def test_tables_and_files_are_the_same_after_export_and_import_and_undone_together(kuma: KumaOnMariadb) -> None:
    exported = await kuma.export("tar.zst")
    configuration = (kuma.directory / "db-config.json").read_bytes()
    kuma.make_other()
    before = await kuma.fingerprint()
    record = MemoryRecord()

    preview = await kuma.stage(exported.content, record)
    await kuma.recipe.restore(record, NotedProgress())
    imported = await kuma.fingerprint()
    await kuma.recipe.undo(record, NotedProgress())

    assert exported.fingerprint is not None
    assert imported.differences(exported.fingerprint) == []
    assert (await kuma.fingerprint()).differences(before) == []
    assert (kuma.directory / "db-config.json").read_bytes() == configuration
    assert kuma.noted.calls == ["stop", "start", "stop", "start"]
    assert exported.header.counts["heartbeats"] == preview.counts_after["heartbeats"] == 121
    assert preview.counts_after["files"] == 4
    assert preview.items["monitors"] == ItemChanges(same=12)
    assert preview.items["heartbeats"] == ItemChanges(same=33, added=88)
    assert preview.items["files"] == ItemChanges(same=4, removed=1)
    assert preview.room_bytes > 1_000_000
    assert not (kuma.directory / ".mathison-data").exists()
    assert kuma.database.leftovers(record) == []


async def test_an_archive_holds_a_dump_that_people_can_load_and_no_password_of_the_database(
    kuma: KumaOnMariadb,
) -> None:
    exported = await kuma.export("tar")

    with tarfile.open(fileobj=io.BytesIO(exported.content)) as archive:
        names = archive.getnames()
        dump = archive.extractfile("kuma.sql")
        assert dump is not None
        kuma.database.server.sql(dump.read().decode(), database=kuma.database.database)
    assert "db-config.json" not in names
    assert "upload/logo1.png" in names
    assert kuma.database.password.encode() not in exported.content


async def test_a_dump_alone_leaves_the_files_in_place(kuma: KumaOnMariadb) -> None:
    kuma.make_other()
    record = MemoryRecord()

    preview = await kuma.stage(KUMA_DUMP.read_bytes(), record)
    await kuma.recipe.restore(record, NotedProgress())

    assert kuma.database.sql("SELECT COUNT(*) FROM heartbeat") == "121"
    assert "upload/other.png" in kuma.files
    assert "the database alone" in preview.warnings[0]
    await kuma.recipe.discard(record)
    assert kuma.database.leftovers(record) == []


async def test_an_app_that_does_not_start_on_the_import_gets_tables_and_files_back(kuma: KumaOnMariadb) -> None:
    exported = await kuma.export()
    kuma.make_other()
    before, record = await kuma.fingerprint(), MemoryRecord()
    await kuma.stage(exported.content, record)
    kuma.noted.failures["start"] = [ToolFailedError("crash loop")]

    with pytest.raises(ToolFailedError, match="crash loop"):
        await kuma.recipe.restore(record, NotedProgress())

    assert (await kuma.fingerprint()).differences(before) == []
    assert kuma.noted.is_running


async def test_tables_and_files_are_exchanged_when_the_servers_answer_is_lost(
    kuma: KumaOnMariadb, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = await kuma.export()
    kuma.make_other()
    record = MemoryRecord()
    await kuma.stage(exported.content, record)

    async def lost(login: Login, sql: str) -> list[list[str]]:
        rows = await query(login, sql)
        if sql.startswith("RENAME TABLE"):
            raise AppUnavailableError("Lost connection to server during query.")
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "query", lost)
        await kuma.recipe.restore(record, NotedProgress())

    assert exported.fingerprint is not None
    assert (await kuma.fingerprint()).differences(exported.fingerprint) == []
    assert kuma.noted.calls == ["stop", "start"]
    await kuma.recipe.discard(record)


@variants("has_come_to", ["files", "tables"])
async def test_after_a_crash_the_files_follow_the_tables(has_come_to: str, kuma: KumaOnMariadb) -> None:
    exported = await kuma.export()
    kuma.make_other()
    before, record = await kuma.fingerprint(), MemoryRecord()
    await kuma.stage(exported.content, record)
    record.save(app_is_stopped=True)
    files, both = await volume_exchange(record, kuma.directory), await kuma.recipe._exchange_of(record)
    assert files is not None
    assert both is not None
    if has_come_to == "tables":
        await both.bring(Side.IMPORTED)
        await files.bring(Side.PREVIOUS)
    else:
        await files.bring(Side.IMPORTED)

    sides = [await kuma.recipe.recover(record) for _ in range(2)]

    assert sides == [Recovered.IMPORTED if has_come_to == "tables" else Recovered.PREVIOUS] * 2
    wanted = exported.fingerprint if has_come_to == "tables" else before
    assert wanted is not None
    assert (await kuma.fingerprint()).differences(wanted) == []
    await kuma.recipe.discard(record)
    assert kuma.database.leftovers(record) == []


@variants("removed", ["the schema", "the files", "a file"])
async def test_a_crash_after_the_exchange_is_found_out_although_some_of_what_is_kept_was_removed(
    removed: str, kuma: KumaOnMariadb
) -> None:
    exported = await kuma.export()
    kuma.make_other()
    record = await kuma.import_(exported.content)
    imported = await kuma.fingerprint()
    record.save(app_is_stopped=True)
    kept = kuma.directory / ".mathison-data" / record.key
    if removed == "the schema":
        kuma.database.server.sql(f"DROP DATABASE mathison_old_{record.key}")
    else:
        shutil.rmtree(kept if removed == "the files" else kept / "old" / "upload")

    sides = [await kuma.recipe.recover(record) for _ in range(2)]

    assert sides == [Recovered.IMPORTED] * 2
    assert kuma.noted.calls == ["stop", "start", "start"]
    assert (await kuma.fingerprint()).differences(imported) == []
    assert "upload/other.png" not in kuma.files
    await kuma.recipe.discard(record)
    assert kuma.database.leftovers(record) == []


@variants("what", ["the schema", "a table", "the files"], kept=["a table"])
async def test_an_undo_of_which_some_data_was_removed_says_so_before_the_app_is_stopped(
    what: str, kuma: KumaOnMariadb
) -> None:
    exported = await kuma.export()
    kuma.make_other()
    record = await kuma.import_(exported.content)
    imported = await kuma.fingerprint()
    if what == "the files":
        shutil.rmtree(kuma.directory / ".mathison-data")
    else:
        kept = f"mathison_old_{record.key}"
        kuma.database.server.sql(f"DROP DATABASE {kept}" if what == "the schema" else f"DROP TABLE {kept}.heartbeat")

    with pytest.raises(NothingToUndoError):
        await kuma.recipe.undo(record, NotedProgress())

    assert (await kuma.fingerprint()).differences(imported) == []
    assert kuma.noted.calls == ["stop", "start"]
    await kuma.recipe.discard(record)
    assert kuma.database.leftovers(record) == []


async def test_an_undo_into_a_database_that_was_dropped_says_what_to_do_and_goes_then(kuma: KumaOnMariadb) -> None:
    exported = await kuma.export()
    kuma.make_other()
    before = await kuma.fingerprint()
    record = await kuma.import_(exported.content)
    kuma.database.server.sql(f"DROP DATABASE {kuma.database.database}")

    with pytest.raises(AppUnavailableError, match=f"has no database {kuma.database.database}") as refused:
        await kuma.recipe.undo(record, NotedProgress())
    kuma.database.server.sql(f"CREATE DATABASE {kuma.database.database}")
    await kuma.recipe.undo(record, NotedProgress())

    assert "Make it again, empty" in (refused.value.next_step or "")
    assert (await kuma.fingerprint()).differences(before) == []
    assert kuma.database.leftovers(record) == []


async def test_tables_that_took_each_others_places_under_a_dump_are_found_out(
    kuma: KumaOnMariadb, monkeypatch: pytest.MonkeyPatch
) -> None:
    kuma.database.sql(
        "CREATE TABLE _tag_gho LIKE tag; CREATE TABLE one (id int PRIMARY KEY);"
        "CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (9))"
    )
    now = "SELECT UNIX_TIMESTAMP()"
    made_at = kuma.database.sql(now)
    # The server's times of tables are of whole seconds.
    await until(lambda: kuma.database.sql(now) != made_at)
    statements = [""]

    async def disturbed(login: Login, database: str) -> AsyncGenerator[bytes, None]:
        async for piece in raw_dump(login, database):
            yield piece
        kuma.database.sql(statements[0])

    monkeypatch.setattr(mariadb_data, "raw_dump", disturbed)

    statements[0] = "ALTER TABLE parted EXCHANGE PARTITION p WITH TABLE one"
    doubtful = await kuma.export()
    with pytest.raises(AppBusyError, match="exchanged partitions of parted"):
        await kuma.fingerprint()
    statements[0] = "RENAME TABLE tag TO _tag_del, _tag_gho TO tag"
    with pytest.raises(AppBusyError, match=r"replaced .*: tag\. Rows may be missing"):
        await kuma.export()

    assert doubtful.fingerprint is None
    assert doubtful.warnings[-1].endswith("are missing or there twice. So the export has no fingerprint.")


async def test_an_export_counts_what_is_in_its_dump(kuma: KumaOnMariadb, monkeypatch: pytest.MonkeyPatch) -> None:
    async def written_to(login: Login, database: str) -> AsyncGenerator[bytes, None]:
        async for piece in raw_dump(login, database):
            yield piece
        kuma.database.sql("INSERT INTO heartbeat (monitor_id, status, time) VALUES (1, 1, UTC_TIMESTAMP())")

    monkeypatch.setattr(mariadb_data, "raw_dump", written_to)

    exported = await kuma.export()

    assert exported.fingerprint is not None
    assert exported.fingerprint.parts["table heartbeat"].startswith("121 rows, ")
    assert exported.header.counts["heartbeats"] == exported.counts["heartbeats"] == 121
    assert (exported.counts["monitors"], exported.counts["users"]) == (12, 1)


async def test_what_is_dropped_half_is_dropped_entirely_and_moves_nothing(kuma: KumaOnMariadb) -> None:
    exported = await kuma.export()
    kuma.make_other()
    record = await kuma.import_(exported.content)
    imported = await kuma.fingerprint()
    kuma.database.server.sql(f"DROP DATABASE mathison_old_{record.key}")

    for _ in range(2):
        await kuma.recipe.discard(record)

    assert (await kuma.fingerprint()).differences(imported) == []
    assert "upload/other.png" not in kuma.files
    assert kuma.noted.calls == ["stop", "start"]
    assert kuma.database.leftovers(record) == []
    assert not (kuma.directory / ".mathison-data").exists()


@pytest.mark.parametrize(
    "name", ["SQLite archive", "SQLite database", "hostile dump", "cut dump", "newer", "migrating", "link"]
)
async def test_what_the_app_cannot_take_is_refused_and_changes_nothing(
    name: str, kuma: KumaOnMariadb, tmp_path: Path
) -> None:
    dump = KUMA_DUMP.read_bytes()
    link = entry("upload/x", type=SYMLINK, linkname="../db-config.json")
    hostile = b"DROP DATABASE mysql;\n-- Dump completed\n"
    content, error, words = {
        "SQLite archive": (set_of(KUMA_2), ArchiveWrongKindError, r"no kuma\.sql"),
        "SQLite database": (b"SQLite format 3\0" + bytes(4096), ArchiveWrongKindError, "a SQLite database"),
        "hostile dump": (tar_of(entry("kuma.sql", content=hostile)), ArchiveWrongKindError, "--databases"),
        "cut dump": (dump[:-2000], ArchiveTruncatedError, "."),
        "newer": (b"", ArchiveIncompatibleError, "newer than this app"),
        "migrating": (b"", ArchiveIncompatibleError, "migrating"),
        "link": (
            tar_of(entry("kuma.sql", content=gzip.decompress(dump)), link),
            ArchiveRefusedError,
            "leads out of its folder: 'upload/x'",
        ),
    }[name]
    if name == "newer":
        content = (await kuma.export()).content
        kuma.database.sql("DELETE FROM knex_migrations WHERE id > 50")
    if name == "migrating":
        text = "REPLACE INTO `setting` (`key`, `value`) VALUES ('migrateAggregateTableState', '\"migrating\"');"
        content = gzip.decompress(dump).replace(b"\n-- Dump completed", text.encode() + b"\n\n-- Dump completed")
    before, record = await kuma.fingerprint(), MemoryRecord()

    with pytest.raises(error, match=words):
        await kuma.stage(content, record)
    await kuma.recipe.discard(record)

    assert (await kuma.fingerprint()).differences(before) == []
    assert kuma.database.leftovers(record) == []
    assert not (kuma.directory / ".mathison-data").exists()


@variants("staged_on", ["sqlite", "mariadb", "another database"], kept=["mariadb"])
async def test_an_app_that_moves_to_another_database_takes_nothing_that_was_staged_before(
    staged_on: str, kuma: KumaOnMariadb
) -> None:
    configuration = kuma.directory / "db-config.json"
    on_mariadb = configuration.read_text()
    elsewhere = json.dumps({**json.loads(on_mariadb), "dbName": "elsewhere"})
    on_sqlite = '{"type": "sqlite"}'
    before, now = {
        "sqlite": (on_sqlite, on_mariadb),
        "mariadb": (on_mariadb, on_sqlite),
        "another database": (on_mariadb, elsewhere),
    }[staged_on]
    content = set_of(KUMA_2) if staged_on == "sqlite" else (await kuma.export()).content
    kuma.make_other()
    present, files, record = await kuma.fingerprint(), kuma.files, MemoryRecord()
    configuration.write_text(before)
    await kuma.stage(content, record)
    configuration.write_text(now)

    with pytest.raises(AppUnavailableError, match=r"By its db-config\.json the app keeps its data in .* now; when"):
        await kuma.recipe.restore(record, NotedProgress())

    assert kuma.noted.calls == []
    configuration.write_text(before)
    await kuma.recipe.restore(record, NotedProgress())
    configuration.write_text(now)
    with pytest.raises(AppUnavailableError, match=r"By its db-config\.json") as refusal:
        await kuma.recipe.undo(record, NotedProgress())
    assert refusal.value.next_step == "Put db-config.json back as it was."
    if staged_on != "sqlite":
        for act in (kuma.recipe.recover, kuma.recipe.discard):
            with pytest.raises(AppUnavailableError, match=r"By its db-config\.json"):
                await act(record)
    assert kuma.noted.calls == ["stop", "start"]
    configuration.write_text(before)
    await kuma.recipe.undo(record, NotedProgress())
    configuration.write_text(on_mariadb)
    assert kuma.files == files
    assert (await kuma.fingerprint()).differences(present) == []


@pytest.mark.parametrize("content", [KUMA_2, ""], ids=["on SQLite", "not set up yet"])
async def test_an_archive_of_mariadb_is_refused_by_an_app_that_is_not_on_it(
    content: str, kuma: KumaOnMariadb, tmp_path: Path
) -> None:
    exported = await kuma.export()
    other = KumaApp(tmp_path / "other", NotedApp(), content=content)

    with pytest.raises(ArchiveWrongKindError, match=r"in SQLite, or was not set up yet, .* of the other") as refusal:
        await other.stage(exported.content, MemoryRecord())

    assert refusal.value.next_step.startswith("Import it into an Uptime Kuma 2 that was set up with MariaDB")


async def test_what_is_not_the_apps_is_told_by_an_export_and_before_an_import(
    kuma: KumaOnMariadb,
) -> None:
    archive = (await kuma.export()).content
    kuma.database.sql(
        "CREATE TABLE wp_posts (id int); CREATE VIEW odd AS SELECT id FROM tag;"
        "CREATE TRIGGER watching AFTER INSERT ON tag FOR EACH ROW SET @a = 1"
    )

    exported = await kuma.export()
    kuma.database.sql("DROP VIEW odd; DROP TRIGGER watching")
    record = MemoryRecord()
    preview = await kuma.stage(archive, record)

    table, programs = exported.warnings
    assert "the table 'wp_posts'" in table
    assert "1 triggers and 1 views" in programs
    assert "an import of this export is refused" in programs
    [warning] = preview.warnings
    assert "the table 'wp_posts', which the file does not have" in warning
    await kuma.recipe.discard(record)


async def test_a_database_without_its_migrations_is_neither_exported_nor_imported_nor_imported_into(
    kuma: KumaOnMariadb,
) -> None:
    archive = (await kuma.export()).content
    dump = gzip.decompress(KUMA_DUMP.read_bytes())
    without = re.sub(rb"INSERT INTO `knex_migrations` .*?;\n", b"", dump, flags=re.DOTALL)
    record = MemoryRecord()
    with pytest.raises(ArchiveIncompatibleError, match="notes none of Uptime Kuma's migrations"):
        await kuma.stage(gzip.compress(without), record)
    await kuma.recipe.discard(record)

    kuma.database.sql("DELETE FROM knex_migrations")

    with pytest.raises(SourceUnreadableError, match="notes none of Uptime Kuma's migrations"):
        await kuma.export()
    with pytest.raises(SourceUnreadableError, match="notes none of Uptime Kuma's migrations"):
        await kuma.stage(archive, record)
    assert "notes none" in (await kuma.recipe.describe()).can_export.obstacle


async def test_an_app_that_was_updated_since_staging_is_not_imported_into(kuma: KumaOnMariadb) -> None:
    record = MemoryRecord()
    await kuma.stage((await kuma.export()).content, record)
    kuma.database.sql("DELETE FROM knex_migrations ORDER BY id DESC LIMIT 1")
    before = await kuma.fingerprint()

    with pytest.raises(AppUnavailableError, match="another release's database"):
        await kuma.recipe.restore(record, NotedProgress())

    assert (await kuma.fingerprint()).differences(before) == []
    assert kuma.noted.calls == []
    await kuma.recipe.discard(record)


async def test_an_app_in_a_migration_is_neither_exported_nor_imported_into(kuma: KumaOnMariadb) -> None:
    kuma.database.sql("UPDATE knex_migrations_lock SET is_locked = 1")

    with pytest.raises(SourceUnreadableError, match="is migrating"):
        await kuma.export()
    with pytest.raises(AppBusyError, match="is migrating"):
        await kuma.stage(KUMA_DUMP.read_bytes(), MemoryRecord())


async def test_without_an_admin_account_there_are_exports_only(shop: MariadbApp, tmp_path: Path) -> None:
    shop.fill()
    kuma = KumaOnMariadb(shop, tmp_path / "kuma", has_admin=False)

    described = await kuma.recipe.describe()

    assert described.can_export.is_possible
    assert described.engine_version == "2.5.1 or later"
    # There are no files but its configuration.
    assert described.estimated_bytes > 100_000
    assert "an account" in described.can_import.obstacle
    with pytest.raises(AppUnavailableError):
        await kuma.stage(KUMA_DUMP.read_bytes(), MemoryRecord())


async def test_a_server_that_does_not_answer_is_an_obstacle_without_its_password(kuma: KumaOnMariadb) -> None:
    configuration = json.loads((kuma.directory / "db-config.json").read_text())
    (kuma.directory / "db-config.json").write_text(json.dumps({**configuration, "port": 1}))

    described = await kuma.recipe.describe()

    assert "cannot be used" in described.can_export.obstacle
    assert kuma.database.password not in described.can_export.obstacle
