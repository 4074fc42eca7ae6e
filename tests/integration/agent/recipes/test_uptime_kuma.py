"""Uptime Kuma on SQLite out and in, with data that the real 1.23 and 2.5 wrote."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import re
import sqlite3
import tarfile
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from agent.engines import comparing
from agent.engines.replay.__main__ import replay
from agent.engines.replay.request import Request
from agent.engines.sqlite.snapshots import Snapshots
from agent.recipes import uptime_kuma
from agent.recipes.base import Export, ExportOptions, ItemChanges, Recovered
from common.errors import (
    AppBusyError,
    AppMustStopError,
    ArchiveIncompatibleError,
    InvalidRequestError,
    SourceUnreadableError,
    ToolFailedError,
)
from common.seals import FingerprintFinder
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.children import agent_children
from tests.fixtures.held_reading import NO_MEMORY, hold_reading
from tests.fixtures.kuma_apps import (
    DATA,
    HEARTBEATS,
    KUMA_1,
    KUMA_1_LIVE,
    KUMA_2,
    KUMA_2_LIVE,
    SQLITE_SETS,
    KumaApp,
    archive_of,
    changed_set,
    execute,
    set_of,
)
from tests.fixtures.odd_tables import add_odd_tables, add_table_of_unknown_module
from tests.fixtures.waiting import until
from tests.integration.agent.recipes.conftest import NotedApp

MIGRATING = "UPDATE setting SET value = '\"migrating\"' WHERE key = 'migrateAggregateTableState'"
LOCKED = "UPDATE knex_migrations_lock SET is_locked = 1"


@pytest.fixture
def kuma(tmp_path: Path) -> KumaApp:
    """An Uptime Kuma 2 with data of its own."""
    return KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_2)


def make_other(kuma: KumaApp) -> None:
    """Data that is told from any set's."""
    kuma.execute("DELETE FROM heartbeat WHERE monitor_id > 3")
    (kuma.directory / "upload" / "other.png").write_bytes(b"another logo")


@pytest.mark.parametrize("name", SQLITE_SETS)
async def test_data_is_the_same_after_export_and_import(name: str, kuma: KumaApp, tmp_path: Path) -> None:
    source = KumaApp(tmp_path / "source", NotedApp(), content=name)
    files = source.files
    make_other(kuma)

    exported = await source.export("tar.zst")
    record = await kuma.import_(exported.content)

    assert exported.fingerprint is not None
    assert (await kuma.fingerprint()).differences(exported.fingerprint) == []
    assert exported.fingerprint.differences(await source.fingerprint()) == []
    assert kuma.execute("SELECT count(*) FROM heartbeat") == [(HEARTBEATS[name],)]
    assert exported.header.counts["heartbeats"] == HEARTBEATS[name]
    assert exported.warnings == []
    # The agent left nothing beside the app's files that was not there before; a -wal is the app's own.
    assert set(source.files) <= set(files)
    await kuma.recipe.discard(record)
    assert not (kuma.directory / ".mathison-data").exists()
    assert not (kuma.directory / "upload" / "other.png").exists()


@pytest.mark.parametrize("name", SQLITE_SETS)
async def test_an_archive_that_a_person_made_is_imported_with_what_was_in_its_wal(name: str, kuma: KumaApp) -> None:
    record = MemoryRecord()

    preview = await kuma.stage(set_of(name), record)
    await kuma.recipe.restore(record, NotedProgress())

    assert kuma.execute("SELECT count(*) FROM heartbeat") == [(HEARTBEATS[name],)]
    assert preview.counts_after["heartbeats"] == HEARTBEATS[name]
    assert (preview.counts_now["files"], preview.counts_after["files"]) == (4, 4)
    assert any("several files" in warning for warning in preview.warnings) == name.endswith("live")
    assert [found for found in kuma.files if found.startswith("kuma.db")] == ["kuma.db"]


@pytest.mark.parametrize("within", ["data", "app/data", "./srv/app/data"])
async def test_folders_around_the_data_do_not_matter(within: str, kuma: KumaApp, tmp_path: Path) -> None:
    source = KumaApp(tmp_path / "source", NotedApp(), content=KUMA_2_LIVE)
    make_other(kuma)

    await kuma.import_(archive_of(source.directory, within=within))

    assert (await kuma.fingerprint()).differences(await source.fingerprint()) == []


@pytest.mark.parametrize("beside", ["._data", ".DS_Store", "__MACOSX/data/._kuma.db", "data/._kuma.db"])
async def test_what_macos_puts_beside_the_folder_does_not_matter(beside: str, kuma: KumaApp, tmp_path: Path) -> None:
    source = KumaApp(tmp_path / "data", NotedApp(), content=KUMA_2)
    make_other(kuma)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(beside))
        archive.add(source.directory, arcname="data")

    await kuma.import_(packed.getvalue())

    assert (await kuma.fingerprint()).differences(await source.fingerprint()) == []


@pytest.mark.parametrize("packing", ["alone", "gzip", "zip"])
async def test_a_database_alone_leaves_the_other_files_in_place(packing: str, kuma: KumaApp, tmp_path: Path) -> None:
    source = KumaApp(tmp_path / "source", NotedApp(), content=KUMA_2)
    content = (source.directory / "kuma.db").read_bytes()
    make_other(kuma)
    if packing == "gzip":
        content = gzip.compress(content)
    if packing == "zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("kuma.db", content)
        content = packed.getvalue()
    record = MemoryRecord()

    preview = await kuma.stage(content, record)
    await kuma.recipe.restore(record, NotedProgress())

    assert kuma.execute("SELECT count(*) FROM heartbeat") == [(143,)]
    assert "upload/other.png" in kuma.files
    assert "the database alone" in preview.warnings[0]
    await kuma.recipe.undo(record, NotedProgress())
    assert kuma.execute("SELECT count(*) FROM heartbeat WHERE monitor_id > 3") == [(0,)]


async def test_an_export_beside_a_writing_app_is_of_one_moment(kuma: KumaApp) -> None:
    with closing(sqlite3.connect(kuma.directory / "kuma.db", isolation_level=None)) as app:
        app.execute("PRAGMA journal_mode=WAL")
        app.execute("INSERT INTO tag (name, color) VALUES ('committed', '#000')")
        app.execute("BEGIN IMMEDIATE")
        app.execute("INSERT INTO tag (name, color) VALUES ('not committed', '#000')")

        exported = await kuma.export()
        app.execute("COMMIT")

    with tarfile.open(fileobj=io.BytesIO(exported.content)) as archive:
        archive.extract("kuma.db", kuma.work_directory)
        names = archive.getnames()
    tags = [row[0] for row in execute(kuma.work_directory / "kuma.db", "SELECT name FROM tag")]
    assert "committed" in tags
    assert "not committed" not in tags
    assert not [name for name in names if name.startswith(("kuma.db-", "db-config"))]


async def test_an_archive_carries_its_fingerprint_unless_it_is_not_wanted(kuma: KumaApp) -> None:
    finder = FingerprintFinder()

    exported = await kuma.export()
    finder.add(exported.content)

    assert finder.fingerprint() == exported.fingerprint
    assert (await kuma.export(fingerprint="no")).fingerprint is None
    with pytest.raises(InvalidRequestError, match="faster"):
        await kuma.export(faster="yes")


@pytest.fixture
def gate(kuma: KumaApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the child that reads the copy for a fingerprint is held; an archive of the data has several pieces."""
    (kuma.directory / "upload" / "large.png").write_bytes(os.urandom(4 << 20))
    hold_reading(monkeypatch, tmp_path / "gate")
    return tmp_path / "gate"


@asynccontextmanager
async def begun(kuma: KumaApp) -> AsyncIterator[Export]:
    """An export whose first bytes have come."""
    (format,) = [found for found in kuma.recipe.export_formats if found.name == "tar"]
    options = ExportOptions(format=format, app_id="shop.status", file_name="status.tar")
    async with asyncio.timeout(60), kuma.recipe.export_data(options, NotedProgress()) as export:
        assert await anext(export.chunks)
        yield export


async def rest_of(export: Export) -> None:
    async for _ in export.chunks:
        pass


async def test_an_archive_flows_while_its_fingerprint_is_taken_of_the_same_copy(kuma: KumaApp, gate: Path) -> None:
    present = await kuma.fingerprint()

    async with begun(kuma) as export:
        kuma.execute("DELETE FROM heartbeat")
        await asyncio.to_thread(gate.write_text, "")
        await rest_of(export)

    assert export.fingerprint is not None
    assert export.fingerprint.differences(present) == []
    assert agent_children() == []


async def test_an_export_fails_where_its_fingerprint_cannot_be_taken(kuma: KumaApp, gate: Path) -> None:
    async with begun(kuma) as export:
        await asyncio.to_thread(gate.write_text, NO_MEMORY)
        with pytest.raises(SourceUnreadableError, match=r"'kuma\.db' cannot be read: a row of it needs more memory"):
            await rest_of(export)

    assert not (kuma.directory / ".mathison-data").exists()


@pytest.mark.usefixtures("gate")
async def test_an_export_fails_where_what_takes_its_fingerprint_is_killed(kuma: KumaApp) -> None:
    async with begun(kuma) as export:
        (child,) = agent_children()
        child.kill()
        with pytest.raises(ToolFailedError, match="SIGKILL"):
            await rest_of(export)

    assert not (kuma.directory / ".mathison-data").exists()


@pytest.mark.usefixtures("gate")
async def test_leaving_an_export_ends_what_reads_for_its_fingerprint(kuma: KumaApp) -> None:
    async with begun(kuma):
        assert len(agent_children()) == 1

    assert agent_children() == []
    assert not (kuma.directory / ".mathison-data").exists()


@pytest.mark.usefixtures("gate")
async def test_leaving_an_export_that_waits_for_its_fingerprint_alone_ends_it(
    kuma: KumaApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, content = threading.Event(), Snapshots.content

    def noted(snapshots: Snapshots, path: str) -> Mapping[str, str]:
        waits.set()
        return content(snapshots, path)

    monkeypatch.setattr(Snapshots, "content", noted)

    async def exported() -> None:
        async with begun(kuma) as export:
            await rest_of(export)

    export = asyncio.create_task(exported(), name="export")
    await until(waits.is_set)

    export.cancel()

    with pytest.raises(asyncio.CancelledError):
        await export
    assert agent_children() == []
    assert not (kuma.directory / ".mathison-data").exists()


async def test_what_is_not_part_of_an_export_stays_in_place(kuma: KumaApp) -> None:
    (kuma.directory / "kuma.db.bak20260101").write_bytes(b"an old copy")
    configuration = (kuma.directory / "db-config.json").read_bytes()

    await kuma.import_(set_of(KUMA_1))

    assert (kuma.directory / "kuma.db.bak20260101").read_bytes() == b"an old copy"
    assert (kuma.directory / "db-config.json").read_bytes() == configuration


async def test_an_undo_brings_back_what_was_there_whatever_was_written_since(kuma: KumaApp) -> None:
    make_other(kuma)
    before = await kuma.fingerprint()
    record = await kuma.import_(set_of(KUMA_2_LIVE))
    kuma.execute("PRAGMA journal_mode=WAL")
    kuma.execute("DELETE FROM monitor")
    (kuma.directory / "upload" / "since.png").write_bytes(b"new")

    await kuma.recipe.undo(record, NotedProgress())

    assert (await kuma.fingerprint()).differences(before) == []
    assert "upload/since.png" not in kuma.files
    assert not (kuma.directory / ".mathison-data").exists()


async def test_an_app_that_does_not_start_on_the_import_gets_its_data_back(tmp_path: Path) -> None:
    app = NotedApp(failures={"start": [ToolFailedError("crash loop")]})
    kuma = KumaApp(tmp_path / "kuma", app, content=KUMA_2)
    make_other(kuma)
    before = await kuma.fingerprint()

    with pytest.raises(ToolFailedError, match="crash loop"):
        await kuma.import_(set_of(KUMA_1))

    assert (await kuma.fingerprint()).differences(before) == []
    assert app.is_running


async def test_an_app_without_data_yet_is_filled_and_told_that_its_version_is_not_known(tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp())
    record = MemoryRecord()

    preview = await kuma.stage(set_of(KUMA_2), record)
    await kuma.recipe.restore(record, NotedProgress())

    assert kuma.execute("SELECT count(*) FROM monitor") == [(12,)]
    assert any("version is not known" in warning for warning in preview.warnings)
    await kuma.recipe.undo(record, NotedProgress())
    assert kuma.files == []


async def test_data_of_version_1_goes_into_version_2_with_warnings(kuma: KumaApp) -> None:
    preview = await kuma.stage(set_of(KUMA_1_LIVE), MemoryRecord())

    assert any("must not be stopped" in warning for warning in preview.warnings)
    assert any("deletes heartbeats" in warning for warning in preview.warnings)
    assert "Heartbeats: 143 now, 174 after." in preview.changes
    assert preview.header is not None
    assert preview.header.engine_version == "1.23.12 or later"


async def test_a_preview_tells_what_becomes_of_each_kind_of_thing(kuma: KumaApp) -> None:
    exported = await kuma.export()
    kuma.execute("UPDATE monitor SET url = 'https://other.example.test' WHERE id = 2")
    kuma.execute("INSERT INTO tag (name, color) VALUES ('new', '#000')")
    kuma.execute("DELETE FROM notification WHERE id = 2")
    kuma.execute("DELETE FROM heartbeat WHERE monitor_id > 8")
    kuma.execute("UPDATE heartbeat SET ping = 9999 WHERE id = (SELECT min(id) FROM heartbeat)")
    (kuma.directory / "upload" / "logo1.png").write_bytes(b"another logo")
    (left,) = kuma.execute("SELECT count(*) FROM heartbeat")[0]
    assert isinstance(left, int)

    preview = await kuma.stage(exported.content, MemoryRecord())

    assert preview.items["monitors"] == ItemChanges(same=11, changed=1)
    assert preview.items["tags"] == ItemChanges(same=2, removed=1)
    assert preview.items["notifications"] == ItemChanges(same=1, added=1)
    assert preview.items["heartbeats"] == ItemChanges(added=143 - left, same=left - 1, not_compared=1)
    assert preview.items["users"] == preview.items["status_pages"] == ItemChanges(same=1)
    assert preview.items["files"] == ItemChanges(same=3, changed=1)
    assert preview.bridging == ""
    assert preview.room_bytes >= (kuma.directory / "kuma.db").stat().st_size
    assert 5 <= preview.swap_seconds < 6


async def test_files_that_could_not_be_counted_in_time_are_not_counted_at_all(
    kuma: KumaApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uptime_kuma, "_SURVEY_SECONDS", -1.0)
    monkeypatch.setattr(comparing, "_SECONDS", -1.0)

    exported = await kuma.export()
    preview = await kuma.stage(exported.content, MemoryRecord())

    assert exported.header.counts.keys().isdisjoint({"files", "bytes"})
    assert "files" not in {**preview.counts_now, **preview.counts_after}


async def test_tables_of_any_kind_come_along_and_are_proven(kuma: KumaApp, tmp_path: Path) -> None:
    source = KumaApp(tmp_path / "source", NotedApp(), content=KUMA_2)
    add_odd_tables(source.directory / "kuma.db")
    add_table_of_unknown_module(source.directory / "kuma.db")
    source.execute("ALTER TABLE tag ADD COLUMN length AS (length(name))")

    exported = await source.export()
    preview = await kuma.stage(exported.content, MemoryRecord())
    await kuma.import_(exported.content)

    assert preview.items["monitors"] == ItemChanges(same=12)
    assert exported.fingerprint is not None
    assert (await kuma.fingerprint()).differences(exported.fingerprint) == []
    assert exported.fingerprint.differences(await source.fingerprint()) == []
    (tmp_path / "kuma.tar").write_bytes(exported.content)
    archived = await replay(Request(file=str(tmp_path / "kuma.tar"), scheme="uptime-kuma/3"))
    assert exported.fingerprint.differences(archived.fingerprint) == []


async def test_a_preview_into_another_version_compares_names_and_tells_the_migration(kuma: KumaApp) -> None:
    preview = await kuma.stage(set_of(KUMA_1), MemoryRecord())

    assert preview.items["monitors"] == ItemChanges(not_compared=12)
    assert preview.items["heartbeats"].same == 0
    assert preview.bridging.startswith(
        "Written by Uptime Kuma 1.23.12 or later, goes into 2.5.1 or later: at its first"
    )
    assert 6 <= preview.swap_seconds < 8


async def test_a_preview_of_an_app_without_data_counts_all_as_added(tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp())

    preview = await kuma.stage(set_of(KUMA_2), MemoryRecord())

    assert preview.items["monitors"] == ItemChanges(added=12)
    assert preview.items["heartbeats"] == ItemChanges(added=143)
    assert preview.items["files"].added == 4


async def test_data_of_an_older_release_of_version_2_is_taken(kuma: KumaApp, tmp_path: Path) -> None:
    older = changed_set(KUMA_2, lambda db: execute(db, "DELETE FROM knex_migrations WHERE id > 48"), tmp_path / "older")

    preview = await kuma.stage(older, MemoryRecord())

    assert any("applies 7 migrations" in warning for warning in preview.warnings)
    assert preview.bridging == (
        "Written by Uptime Kuma 2.1.1 or later, goes into 2.5.1 or later: the app applies 7 migrations at its start."
    )


async def test_data_of_version_1_that_a_first_start_of_version_2_touched_is_of_version_1(
    kuma: KumaApp, tmp_path: Path
) -> None:
    def touch(database: Path) -> None:
        execute(database, "CREATE TABLE knex_migrations (id INTEGER PRIMARY KEY, name TEXT)")
        execute(database, "CREATE TABLE knex_migrations_lock (is_locked INTEGER)")

    preview = await kuma.stage(changed_set(KUMA_1, touch, tmp_path / "touched"), MemoryRecord())

    assert any("deletes heartbeats that are older than 24 hours" in warning for warning in preview.warnings)
    assert preview.bridging.startswith("Written by Uptime Kuma 1.23")


async def test_what_the_app_has_does_not_change_while_an_import_is_staged(kuma: KumaApp) -> None:
    record = MemoryRecord()
    before = await kuma.fingerprint()

    await kuma.stage(set_of(KUMA_1), record)

    assert (await kuma.fingerprint()).differences(before) == []
    await kuma.recipe.discard(record)
    assert not (kuma.directory / ".mathison-data").exists()
    assert await kuma.recipe.recover(record) is Recovered.PREVIOUS


@pytest.mark.parametrize("sql", [MIGRATING, LOCKED], ids=["statistics", "schema"])
async def test_an_app_in_a_migration_is_neither_exported_nor_imported_into(sql: str, kuma: KumaApp) -> None:
    staged = MemoryRecord()
    await kuma.stage(set_of(KUMA_1), staged)
    kuma.execute(sql)
    before = await kuma.fingerprint()

    with pytest.raises(SourceUnreadableError, match="is migrating"):
        await kuma.export()
    with pytest.raises(AppBusyError, match="is migrating"):
        await kuma.stage(set_of(KUMA_1), MemoryRecord())
    with pytest.raises(AppBusyError, match="is migrating"):
        await kuma.recipe.restore(staged, NotedProgress())

    assert (await kuma.fingerprint()).differences(before) == []
    described = await kuma.recipe.describe()
    assert not described.can_import.is_possible


@pytest.mark.parametrize(("page", "pages"), [(20, 4), (0, 1)], ids=["some pages", "no database at all"])
async def test_a_damaged_database_is_not_exported(page: int, pages: int, kuma: KumaApp) -> None:
    database = kuma.directory / "kuma.db"
    content = bytearray(database.read_bytes())
    content[4096 * page + 16 : 4096 * (page + pages)] = bytes(4096 * pages - 16)
    database.write_bytes(content)

    with pytest.raises(SourceUnreadableError, match="damaged"):
        await kuma.export()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo], ids=["a link", "a fifo"])
async def test_what_is_no_file_in_the_databases_place_is_said_to_be_none(
    make: Callable[[Path], None], kuma: KumaApp
) -> None:
    database = kuma.directory / "kuma.db"
    database.unlink()
    make(database)

    with pytest.raises(SourceUnreadableError, match="is a link or something else that is no file"):
        await kuma.export()
    with pytest.raises(SourceUnreadableError, match="is a link or something else that is no file"):
        await kuma.stage(set_of(KUMA_2), MemoryRecord())

    described = await kuma.recipe.describe()
    assert "is a link or something else" in described.can_export.obstacle
    assert "is a link or something else" in described.can_import.obstacle


async def test_a_directory_without_a_database_is_not_exported(tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp())

    with pytest.raises(SourceUnreadableError, match=r"no kuma\.db"):
        await kuma.export()

    assert not (await kuma.recipe.describe()).can_export.is_possible


async def test_an_app_that_cannot_be_stopped_is_not_imported_into(tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp(is_possible=False), content=KUMA_2)

    with pytest.raises(AppMustStopError):
        await kuma.stage(set_of(KUMA_2), MemoryRecord())

    assert (await kuma.recipe.describe()).can_import.obstacle


@pytest.mark.parametrize("text", ["", "[]", '{"type": "oracle", "password": "secret-1"}', '{"type": 5}'])
async def test_a_configuration_that_is_none_is_an_obstacle_without_its_content(text: str, kuma: KumaApp) -> None:
    (kuma.directory / "db-config.json").write_text(text)

    described = await kuma.recipe.describe()

    assert "db-config.json" in described.can_export.obstacle
    assert "secret" not in described.can_export.obstacle


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
@pytest.mark.parametrize("name", ["db-config.json", "kuma.db"])
async def test_a_file_of_the_app_that_is_none_is_an_obstacle_and_keeps_nobody_waiting(
    name: str, make: Callable[[Path], None], kuma: KumaApp
) -> None:
    for file in (name, f"{name}-wal", f"{name}-shm"):
        (kuma.directory / file).unlink(missing_ok=True)
    make(kuma.directory / name)

    described = await kuma.recipe.describe()

    assert name in described.can_export.obstacle
    assert re.search("is no (regular )?file", described.can_export.obstacle)


async def test_a_newer_file_is_refused_with_what_is_new_in_it(kuma: KumaApp, tmp_path: Path) -> None:
    sql = "INSERT INTO knex_migrations (name) VALUES ('2027-01-01-0000-add-telepathy.js')"
    newer = changed_set(KUMA_2, lambda db: execute(db, sql), tmp_path / "newer")

    with pytest.raises(ArchiveIncompatibleError, match="add-telepathy"):
        await kuma.stage(newer, MemoryRecord())


async def test_an_unknown_option_is_refused(kuma: KumaApp) -> None:
    with pytest.raises(InvalidRequestError, match="faster"):
        await kuma.stage(set_of(KUMA_2), MemoryRecord(), faster="yes")


def test_the_sets_are_those_that_their_readme_describes() -> None:
    assert {path.name for path in DATA.glob("*.tar.gz")} == {f"{name}.tar.gz" for name in SQLITE_SETS}
