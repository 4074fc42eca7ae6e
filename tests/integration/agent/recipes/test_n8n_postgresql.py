"""n8n on a PostgreSQL server, with and without a folder: database and files change together, while it is down."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from agent.engines.n8n import postgres as n8n_postgres
from agent.engines.n8n import preparations, preparing
from agent.engines.n8n.encryption import decrypt, encrypt
from agent.engines.pg.server.connection import Login
from agent.engines.replay.n8n import replay
from agent.engines.replay.request import Request
from agent.engines.sqlite import bounds
from agent.engines.swapping import Side, Swap
from agent.engines.tree import StagingArea
from agent.recipes.base import ItemChanges, Recovered
from agent.unsettled import UnsettledError
from common.codecs import UnpackedFile
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveIncompatibleError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
    ServiceError,
    ToolFailedError,
)
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.archives import entry, tar_of
from tests.fixtures.n8n_data import MIGRATIONS, NEW_KEY, OLD_KEY, N8n
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.n8n_apps import MakePair, N8nApp, Pair, make_pair, new_app
from tools.servers import postgres


def source_of(make_pair: MakePair, **facts: object) -> Pair:
    return make_pair("source", **facts)


def target_of(make_pair: MakePair, **facts: object) -> Pair:
    return make_pair("target", key=NEW_KEY, mark="present", workflows=1, credentials=1, **facts)


__all__ = ["make_pair"]


@variants("has_folder", [True, False], ids=["with a folder", "without a folder"])
@variants(
    ("is_version_2", "is_rotating"), [(False, False), (True, True)], ids=["1.x", "2.x rotating"], kept=[(True, True)]
)
async def test_database_and_files_arrive_readable_with_the_targets_key_and_go_back(
    is_version_2: bool, is_rotating: bool, has_folder: bool, make_pair: MakePair
) -> None:
    facts = {"is_version_2": is_version_2, "is_rotating": is_rotating, "has_folder": has_folder}
    source, target = source_of(make_pair, **facts), target_of(make_pair, **facts)
    before = source.n8n.secrets(OLD_KEY)
    (target.n8n.folder / "storage" / "own").write_text("of the target")
    exported = await source.app.export("tar.gz", key="clear")
    record = MemoryRecord()

    preview = await target.app.stage(exported.content, record)
    await target.app.recipe.restore(record, NotedProgress())

    files = {"files": ItemChanges(removed=1, same=2)} if has_folder else {}
    assert preview.items == {
        "workflows": ItemChanges(added=2, changed=1),
        "credentials": ItemChanges(added=1, same=1),
        "users": ItemChanges(same=1),
        "executions": ItemChanges(same=2),
        **files,
    }
    assert preview.room_bytes > 1_000_000
    after = target.n8n.secrets(NEW_KEY)
    if is_version_2:
        assert (before.pop("data_encryption aes-256-cbc"), after.pop("data_encryption aes-256-cbc")) == (
            OLD_KEY,
            NEW_KEY,
        )
    assert after == before
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    assert (target.n8n.folder / "storage" / "own").exists() is not has_folder
    assert target.app.app.calls == ["stop", "start"]
    await target.app.recipe.undo(record, NotedProgress())
    assert target.n8n.workflow_names() == ["present 0"]
    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
    assert (target.n8n.folder / "storage" / "own").exists()
    target.require_no_leftovers()
    source.require_no_leftovers()


async def test_confirming_drops_the_previous_database_and_files(make_pair: MakePair) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    record = await target.app.import_((await source.app.export(key="clear")).content)

    await target.app.recipe.discard(record)
    await target.app.recipe.discard(record)

    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    target.require_no_leftovers()


async def test_a_confirm_whose_files_cannot_be_deleted_is_finished_later_and_moves_nothing(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    record = await target.app.import_((await source.app.export(key="clear")).content)
    written = target.n8n.folder / "storage" / "written since"
    written.write_text("by the app")

    def refuse(_area: StagingArea) -> None:
        raise ToolFailedError("Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(StagingArea, "remove", refuse)
        for _ in range(2):
            with pytest.raises(ToolFailedError, match="Permission denied"):
                await target.app.recipe.discard(record)
    await target.app.recipe.discard(record)

    assert written.exists()
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    assert target.app.app.calls == ["stop", "start"]
    target.require_no_leftovers()


async def test_an_n8n_that_moved_to_postgresql_takes_no_undo_of_what_it_had_in_sqlite(
    make_pair: MakePair, tmp_path: Path
) -> None:
    before = new_app(tmp_path / "sqlite")
    record = await before.import_((await N8nApp(N8n(tmp_path / "source").make()).export(key="clear")).content)
    now = N8nApp(before.n8n, {"postgresql": make_pair("server").database.settings})

    with pytest.raises(AppUnavailableError, match="staged in SQLite"):
        await now.recipe.undo(record, NotedProgress())

    assert now.app.calls == []
    assert before.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    await now.recipe.discard(record)
    assert not now.has_leftovers


async def test_an_n8n_that_moved_to_another_database_takes_nothing_that_was_staged_before(make_pair: MakePair) -> None:
    target, other = target_of(make_pair), make_pair("other")
    record = await target.app.import_((await source_of(make_pair).app.export(key="clear")).content)
    calls, names, files = list(target.app.app.calls), other.n8n.workflow_names(), sorted(os.listdir(target.n8n.folder))
    now = replace(target.app, settings={**target.app.settings, "postgresql": other.database.settings})

    for step in (
        now.recipe.undo(record, NotedProgress()),
        now.recipe.recover(record),
        now.recipe.discard(record),
    ):
        with pytest.raises(AppUnavailableError, match=r"keeps its data in PostgreSQL \(database .* now; when"):
            await step

    assert target.app.app.calls == calls
    assert other.n8n.workflow_names() == names
    assert sorted(os.listdir(target.n8n.folder)) == files
    await target.app.recipe.undo(record, NotedProgress())
    target.require_no_leftovers()


async def test_an_export_opens_with_tar_gunzip_and_psql(make_pair: MakePair) -> None:
    source = source_of(make_pair)

    exported = await source.app.export("tar.gz", key="clear")

    content = UnpackedFile(io.BytesIO(exported.content))
    with tarfile.open(fileobj=io.BytesIO(b"".join(iter(lambda: content.read(1 << 20), b"")))) as archive:
        names = archive.getnames()
        dump = archive.extractfile("database.sql.gz")
        assert dump is not None
        text = subprocess.run(["gunzip"], input=dump.read(), capture_output=True, check=True).stdout
    assert names[:2] == [".mathison-data/archive.json", "database.sql.gz"]
    assert names[-3:] == ["encryption-key.txt", ".mathison-data/fingerprint.json", ".mathison-data/digest.json"]
    assert b"PostgreSQL database dump complete" in text
    assert exported.header.details["database_type"] == "postgresql"
    assert exported.counts["workflows"] == 3


@variants("has_folder", [True, False], ids=["with a folder", "without a folder"])
async def test_an_archive_has_the_fingerprint_of_its_import_and_of_its_replay(
    has_folder: bool, make_pair: MakePair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = source_of(make_pair, has_folder=has_folder), target_of(make_pair, has_folder=has_folder)
    archive = tmp_path / "n8n.tar.gz"
    before = await source.app.fingerprint()
    exported = await source.app.export("tar.gz", key="clear")
    archive.write_bytes(exported.content)

    await target.app.import_(exported.content)

    assert exported.fingerprint is not None
    assert exported.fingerprint.differences(before) == []
    assert exported.fingerprint.differences(await target.app.fingerprint()) == []
    assert 'table public."user"' in before.parts
    monkeypatch.setenv("MATHISON_POSTGRESQL_BIN", str(postgres(17).bin_directory))
    replayed = await replay(Request(file=str(archive), scheme="n8n/3", details=exported.header.details))
    assert exported.fingerprint.differences(replayed.fingerprint) == []
    target.database.run("UPDATE workflow_entity SET name = 'another' WHERE id = 'w1'")
    changed = (await target.app.fingerprint()).differences(before)
    assert [one.partition(":")[0] for one in changed] == ["table public.workflow_entity"]


async def test_a_bare_dump_is_taken_with_the_key_that_is_told(make_pair: MakePair) -> None:
    source, target = source_of(make_pair), target_of(make_pair)

    for form in ("sql.gz", "custom"):
        dump = await source.database.export(form)
        record = await target.app.import_(dump, encryption_key=OLD_KEY, deactivate_workflows="true")

        assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
        assert target.n8n.rows('SELECT active, "activeVersionId" FROM workflow_entity') == [(False, None)] * 3
        await target.app.recipe.undo(record, NotedProgress())
    target.require_no_leftovers()


@variants("has_folder", [False, True], ids=["files without a folder", "a folder without files"])
async def test_files_that_are_left_out_or_go_with_the_previous_data_are_told(
    has_folder: bool, make_pair: MakePair
) -> None:
    source = source_of(make_pair, has_folder=not has_folder)
    target = target_of(make_pair, has_folder=has_folder)

    preview = await target.app.stage((await source.app.export(key="clear")).content, MemoryRecord())

    [warning] = [warning for warning in preview.warnings if "2 files ('nodes', 'storage')" in warning]
    assert ("go with the previous data" if has_folder else "settings name no folder of n8n") in warning


async def test_a_preview_tells_tables_that_people_keep_data_in_by_their_rows(make_pair: MakePair) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    for pair, value in ((source, "1"), (target, "2")):
        pair.database.run(
            "CREATE TABLE data_table (id varchar PRIMARY KEY, name varchar);"
            "INSERT INTO data_table VALUES ('same', 'Same'), ('changed', 'Changed');"
            "CREATE TABLE data_table_user_same (a text, n int); INSERT INTO data_table_user_same VALUES ('x', 1);"
            f"CREATE TABLE data_table_user_changed (a text); INSERT INTO data_table_user_changed VALUES ('{value}')",
            as_app=True,
        )

    preview = await target.app.stage((await source.app.export(key="clear")).content, MemoryRecord())

    assert preview.items["data tables"] == ItemChanges(changed=1, same=1)


async def test_an_execution_that_waits_can_be_gone_on_with(make_pair: MakePair) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    data = json.dumps(["who started it", encrypt("a cookie", OLD_KEY)])
    for execution in (1, 2):
        source.database.run(
            'INSERT INTO execution_data ("executionId", data) VALUES (%s, %s)', values=[execution, data]
        )

    await target.app.import_((await source.app.export(key="clear")).content)

    [(of_the_past,), (waiting,)] = target.n8n.rows('SELECT data FROM execution_data ORDER BY "executionId"')
    assert of_the_past == data
    assert decrypt(json.loads(str(waiting))[1], NEW_KEY) == "a cookie"


async def test_data_without_its_key_is_taken_without_credentials_when_asked(make_pair: MakePair) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    exported = await source.app.export()

    await target.app.import_(exported.content, without_credentials="true")

    assert target.n8n.secrets(NEW_KEY)["credential c0"] == "{}"
    assert target.n8n.rows("SELECT count(*) FROM deployment_key") == [(0,)]


async def test_a_role_that_may_only_make_databases_is_enough(make_pair: MakePair) -> None:
    source, target = source_of(make_pair), target_of(make_pair, has_admin=False, rights="CREATEDB")
    exported = await source.app.export(key="clear")

    await target.app.import_(exported.content)

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_a_role_that_may_not_make_databases_is_an_obstacle(make_pair: MakePair) -> None:
    target = target_of(make_pair, has_admin=False)

    found = await target.app.recipe.describe()

    assert found.can_export.is_possible
    assert "may not make databases" in found.can_import.obstacle


REFUSED: dict[str, tuple[bytes, type[ServiceError], str]] = {
    "sqlite": (tar_of(entry("database.sqlite", b"SQLite format 3\0")), ArchiveIncompatibleError, "on SQLite"),
    "no database": (tar_of(entry("storage/x", b"1")), ArchiveWrongKindError, "no database of n8n"),
    "cut dump": (
        tar_of(entry("database.sql", b"--\n-- PostgreSQL database dump\n--\n")),
        ArchiveTruncatedError,
        "cut off",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_wrong_archive_is_refused_and_changes_nothing(name: str, make_pair: MakePair) -> None:
    target = target_of(make_pair)
    content, error, match = REFUSED[name]
    record = MemoryRecord()

    with pytest.raises(error, match=match):
        await target.app.stage(content, record, encryption_key=OLD_KEY)

    await target.app.recipe.discard(record)
    assert target.n8n.workflow_names() == ["present 0"]
    target.require_no_leftovers()


async def test_work_without_end_in_an_upload_ends_at_its_time_and_leaves_nothing(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    source.database.run(
        "CREATE FUNCTION public.endless() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(86400); "
        "RETURN NEW; END'; CREATE TRIGGER t BEFORE UPDATE ON public.credentials_entity FOR EACH ROW "
        "EXECUTE FUNCTION public.endless()"
    )
    archive = (await source.app.export(key="clear")).content
    monkeypatch.setattr(bounds, "LEAST_SECONDS", 2.0)
    monkeypatch.setattr(preparing, "_BYTES_A_SECOND", 1 << 30)
    record = MemoryRecord()

    async with asyncio.timeout(60):
        with pytest.raises(LimitExceededError, match=r"PostgreSQL did not get through the database .* in 2 seconds"):
            await target.app.stage(archive, record)
        await target.app.recipe.discard(record)

    assert target.n8n.workflow_names() == ["present 0"]
    target.require_no_leftovers()


@variants("what", ["a look", "the work", "an import"])
async def test_a_table_that_somebody_has_locked_is_not_waited_for_without_end(
    what: str, make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_of(make_pair)
    database = target.database
    login = Login(database.server.host, database.server.port, database.database, database.role, database.password)
    monkeypatch.setattr(preparing, "LOCK_WAIT_SECONDS", 1)
    monkeypatch.setattr(n8n_postgres, "LOCK_WAIT_SECONDS", 1)
    request = preparations.Request(keys=[NEW_KEY], target_key="" if what == "a look" else OLD_KEY)
    with psycopg.connect(database.server.dsn(database.database)) as holder:
        holder.execute("LOCK TABLE workflow_entity")

        async with asyncio.timeout(60):
            attempt = (
                target.app.stage(b"--", MemoryRecord())
                if what == "an import"
                else preparing.prepare_database(login, request, schema="public")
            )
            with pytest.raises(AppBusyError, match="Another session has locked a table"):
                await attempt

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_a_newer_n8n_or_a_wrong_key_is_refused_and_leaves_nothing(make_pair: MakePair) -> None:
    source = source_of(make_pair, migrations=(*MIGRATIONS, "FromTheFuture1999999999999"))
    target = target_of(make_pair)
    exported = await source.app.export(key="clear")
    record = MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="FromTheFuture1999999999999"):
        await target.app.stage(exported.content, record)

    await target.app.recipe.discard(record)
    target.require_no_leftovers()


async def test_an_n8n_that_does_not_start_gets_its_previous_database_and_files_back(make_pair: MakePair) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    (target.n8n.folder / "storage" / "own").write_text("of the target")
    exported = await source.app.export(key="clear")
    target.app.app.failures["start"] = [ToolFailedError("it crashed")]
    record = MemoryRecord()
    await target.app.stage(exported.content, record)

    with pytest.raises(ToolFailedError, match="did not start with the imported data"):
        await target.app.recipe.restore(record, NotedProgress())

    assert target.n8n.workflow_names() == ["present 0"]
    assert (target.n8n.folder / "storage" / "own").exists()
    await target.app.recipe.restore(record, NotedProgress())
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    target.app.app.failures["start"] = [ToolFailedError("it crashed")]
    with pytest.raises(ToolFailedError, match="did not start with the previous data"):
        await target.app.recipe.undo(record, NotedProgress())
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    assert not (target.n8n.folder / "storage" / "own").exists()


async def test_files_go_back_when_the_database_cannot_be_exchanged(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    (target.n8n.folder / "storage" / "own").write_text("of the target")
    record = MemoryRecord()
    await target.app.stage((await source.app.export(key="clear")).content, record)

    async def busy(*_: object, **__: object) -> None:
        raise AppBusyError("somebody holds it")

    monkeypatch.setattr("agent.engines.pg.imports.beside.exchange", busy)
    with pytest.raises(AppBusyError):
        await target.app.recipe.restore(record, NotedProgress())

    assert target.n8n.workflow_names() == ["present 0"]
    assert (target.n8n.folder / "storage" / "own").exists()
    assert target.app.app.is_running


async def test_a_server_that_is_stopped_with_n8n_is_waited_for_and_n8n_started_then(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    (target.n8n.folder / "storage" / "own").write_text("of the target")
    server, app, record = target.database.server, target.app.app, MemoryRecord()
    await target.app.stage((await source.app.export(key="clear")).content, record)
    stop = app.stop

    async def stop_both() -> None:
        await stop()
        await asyncio.to_thread(server.stop)

    with monkeypatch.context() as patch:
        patch.setattr(app, "stop", stop_both)
        with pytest.raises(UnsettledError):
            await target.app.recipe.restore(record, NotedProgress())
    with pytest.raises(AppUnavailableError):
        await target.app.recipe.recover(record)
    await asyncio.to_thread(server.start)

    assert await target.app.recipe.recover(record) is Recovered.PREVIOUS
    assert app.is_running
    assert (target.n8n.folder / "storage" / "own").exists()
    assert target.n8n.workflow_names() == ["present 0"]


class KilledError(BaseException):
    """The agent is gone."""


async def test_that_the_previous_database_is_gone_after_a_crash_in_an_undo_proves_nothing(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = source_of(make_pair, has_folder=False), target_of(make_pair, has_folder=False)
    record = await target.app.import_((await source.app.export(key="clear")).content)

    async def die() -> None:
        raise KilledError

    with monkeypatch.context() as killed:
        killed.setattr(target.app.app, "stop", die)
        with pytest.raises(KilledError):
            await target.app.recipe.undo(record, NotedProgress())
    home = target.app.recipe._postgres
    assert home is not None
    await home.exchange(record).drop()

    assert [await target.app.recipe.recover(record) for _ in range(2)] == [Recovered.IMPORTED] * 2
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    assert target.app.app.calls == ["stop", "start", "start"]


@variants("is_database_swapped", [False, True])
async def test_after_a_crash_the_files_follow_the_database(is_database_swapped: bool, make_pair: MakePair) -> None:
    source, target = source_of(make_pair), target_of(make_pair)
    (target.n8n.folder / "storage" / "own").write_text("of the target")
    record = MemoryRecord()
    await target.app.stage((await source.app.export(key="clear")).content, record)
    record.save(app_is_stopped=True)
    Swap(target.n8n.folder, record.key).bring(Side.IMPORTED)
    if is_database_swapped:
        home = target.app.recipe._postgres
        assert home is not None
        await home.exchange(record).bring(Side.IMPORTED)

    side = await target.app.recipe.recover(record)

    assert side is (Recovered.IMPORTED if is_database_swapped else Recovered.PREVIOUS)
    assert target.n8n.workflow_names() == (["first 0", "first 1", "first 2"] if is_database_swapped else ["present 0"])
    assert (target.n8n.folder / "storage" / "own").exists() is not is_database_swapped
    assert await target.app.recipe.recover(record) is side
