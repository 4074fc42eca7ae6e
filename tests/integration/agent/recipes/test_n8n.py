"""n8n out and in: secrets arrive readable with the key of the n8n that takes them, and nothing else changes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest

from agent.engines import comparing
from agent.engines.n8n.encryption import decrypt, encrypt
from agent.engines.replay.__main__ import replay
from agent.engines.replay.request import Request
from agent.engines.swapping import Side, Swap
from agent.recipes import n8n
from agent.recipes.base import ExportOptions, ItemChanges, Recovered
from common.codecs import UnpackedFile
from common.errors import AppBusyError, InvalidRequestError, ToolFailedError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.archives import described
from tests.fixtures.children import agent_children
from tests.fixtures.held_reading import hold_reading
from tests.fixtures.n8n_data import NEW_KEY, OLD_KEY, SECRET, SEED, N8n
from tests.fixtures.odd_tables import add_odd_tables, add_table_of_unknown_module
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.n8n_apps import N8nApp, new_app

IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT, SECRET_IDENTITY = str(IDENTITY.to_public()), str(IDENTITY)


@pytest.fixture
def source(tmp_path: Path) -> N8nApp:
    return N8nApp(N8n(tmp_path / "source").make())


@pytest.fixture
def target(tmp_path: Path) -> N8nApp:
    return new_app(tmp_path / "target")


def not_ours(path: str) -> bool:
    return not path.startswith(".mathison-data")


def unpacked(content: bytes) -> bytes:
    opened = UnpackedFile(io.BytesIO(content))
    return b"".join(iter(lambda: opened.read(1 << 20), b""))


@pytest.mark.parametrize(
    ("is_version_2", "is_rotating", "format_name"),
    [(False, False, "tar"), (True, False, "tar.zst"), (True, True, "tar.gz")],
    ids=["1.x", "2.x", "2.x rotating"],
)
async def test_secrets_are_readable_with_the_targets_key(
    is_version_2: bool, is_rotating: bool, format_name: str, tmp_path: Path, target: N8nApp
) -> None:
    source = N8nApp(N8n(tmp_path / "source", is_version_2=is_version_2, is_rotating=is_rotating).make())
    before = source.n8n.secrets(OLD_KEY)
    exported = await source.export(format_name, recipient=RECIPIENT)

    await target.import_(exported.content, identity=SECRET_IDENTITY)

    after = target.n8n.secrets(NEW_KEY)
    if is_version_2:
        assert (before.pop("data_encryption aes-256-cbc"), after.pop("data_encryption aes-256-cbc")) == (
            OLD_KEY,
            NEW_KEY,
        )
    assert after == before
    assert json.loads(after["credential c1"])["password"] == SECRET
    assert after["second factor"] == SEED


async def test_all_but_the_secrets_is_as_it_was(source: N8nApp, target: N8nApp) -> None:
    queries = [
        'SELECT * FROM "workflow_entity" ORDER BY id',
        'SELECT id, name, type FROM "credentials_entity" ORDER BY id',
        'SELECT * FROM "migrations"',
        'SELECT * FROM "execution_entity"',
    ]
    before = [source.n8n.rows(query) for query in queries]
    exported = await source.export(key="clear")

    await target.import_(exported.content)

    assert [target.n8n.rows(query) for query in queries] == before
    for name, content in source.n8n.files.items():
        assert (target.n8n.folder / name).read_bytes() == content


async def test_config_and_logs_of_the_source_stay_behind_and_the_targets_key_stays(
    source: N8nApp, target: N8nApp
) -> None:
    exported = await source.export(key="clear")

    await target.import_(exported.content)

    config = target.n8n.folder / "config"
    assert json.loads(config.read_text()) == {"encryptionKey": NEW_KEY, "fsStorageMigrated": True}
    assert config.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(target.n8n.folder)) == [".mathison-data", "config", "database.sqlite", "nodes", "storage"]
    with tarfile.open(fileobj=io.BytesIO(exported.content)) as archive:
        assert not {"config", "n8nEventLog.log", "crash.journal"} & set(archive.getnames())


async def test_binary_data_of_an_older_n8n_is_not_taken_for_moved(tmp_path: Path, target: N8nApp) -> None:
    source = N8nApp(N8n(tmp_path / "source", is_version_2=False, files={"binaryData/x": b"1"}).make())
    exported = await source.export(key="clear")

    await target.import_(exported.content)

    assert json.loads((target.n8n.folder / "config").read_text()) == {"encryptionKey": NEW_KEY}


async def test_a_busy_database_is_exported_as_of_one_moment_with_what_is_in_its_wal(
    source: N8nApp, target: N8nApp
) -> None:
    with sqlite3.connect(source.n8n.database) as held:
        held.execute("PRAGMA wal_autocheckpoint=0")
        held.execute("UPDATE workflow_entity SET name = 'only in the WAL' WHERE id = 'w1'")
        held.commit()
        exported = await source.export(key="clear")
    held.close()

    await target.import_(exported.content)

    assert target.n8n.workflow_names() == ["first 0", "only in the WAL", "first 2"]


async def test_tar_and_age_open_an_export_without_us(source: N8nApp, tmp_path: Path) -> None:
    exported = await source.export("tar.gz", recipient=RECIPIENT)
    out = tmp_path / "out"
    out.mkdir()

    listed = subprocess.run(["tar", "-t"], input=unpacked(exported.content), capture_output=True, check=True)
    subprocess.run(["tar", "-xC", out], input=unpacked(exported.content), check=True)

    names = listed.stdout.decode().split()
    assert names[0] == ".mathison-data/archive.json"
    assert names[-3:] == ["encryption-key.age", ".mathison-data/fingerprint.json", ".mathison-data/digest.json"]
    assert pyrage.decrypt((out / "encryption-key.age").read_bytes(), [IDENTITY]) == f"{OLD_KEY}\n".encode()
    assert sqlite3.connect(out / "database.sqlite").execute("PRAGMA quick_check").fetchone() == ("ok",)
    assert OLD_KEY.encode() not in unpacked(exported.content)


async def test_a_passphrase_seals_and_opens_the_key(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export(passphrase="correct horse")

    await target.import_(exported.content, passphrase="correct horse")

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
    assert exported.header.details["encryption_key"] == "sealed with a passphrase"


@pytest.mark.parametrize("key", [" spaced key ", "k\u00e4y\t", "of two lines\n"])
async def test_a_key_is_taken_with_the_white_space_around_it(key: str, tmp_path: Path, target: N8nApp) -> None:
    source = N8nApp(N8n(tmp_path / "source", key=key).make())
    by_hand = subprocess.run(["tar", "-c", "-C", source.n8n.folder, "."], capture_output=True, check=True).stdout
    in_clear = (await source.export(key="clear")).content
    sealed = (await source.export(recipient=RECIPIENT)).content

    for archive in (in_clear, sealed, by_hand):
        options = {"identity": SECRET_IDENTITY} if archive is sealed else {}
        record = await target.import_(archive, **options)
        assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
        await target.recipe.undo(record, NotedProgress())


async def test_settings_say_for_whom_a_key_is_sealed_and_what_opens_one(tmp_path: Path) -> None:
    identities = tmp_path / "identities"
    identities.write_text(f"# created for a test\n{SECRET_IDENTITY}\n")
    source = N8nApp(N8n(tmp_path / "source").make(), {"seal_recipients": [RECIPIENT]})
    target = N8nApp(N8n(tmp_path / "target", key=NEW_KEY).make(), {"identity_file": str(identities)})
    exported = await source.export()

    await target.import_(exported.content)

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_without_a_seal_the_key_stays_and_the_export_says_so(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export()

    assert "not in the archive" in exported.warnings[0]
    assert exported.header.details["encryption_key"] == "not in the archive"
    assert OLD_KEY.encode() not in exported.content
    await source.import_(exported.content)
    assert source.n8n.secrets(OLD_KEY)["ldap"] == "ldap!"
    await target.import_(exported.content, encryption_key=OLD_KEY)
    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_a_key_that_n8n_has_from_its_environment_is_read_from_a_file(tmp_path: Path, source: N8nApp) -> None:
    key = tmp_path / "key"
    key.write_text(f"{NEW_KEY}\n")
    target = N8nApp(N8n(tmp_path / "target", key=NEW_KEY).make(), {"encryption_key_file": str(key)})
    (target.n8n.folder / "config").unlink()
    exported = await source.export(key="clear")

    await target.import_(exported.content)

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
    assert not (target.n8n.folder / "config").exists()


async def test_a_copy_of_the_folder_made_by_hand_is_taken_with_the_key_in_its_config(
    source: N8nApp, target: N8nApp
) -> None:
    command: list[str | Path] = ["tar", "-cz", "-C", source.n8n.folder, "."]
    archive = subprocess.run(command, capture_output=True, check=True).stdout

    await target.import_(archive)

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
    assert json.loads((target.n8n.folder / "config").read_text())["encryptionKey"] == NEW_KEY


async def test_a_bare_database_is_taken_with_the_key_that_is_told(source: N8nApp, target: N8nApp) -> None:
    source.n8n.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    await target.import_(source.n8n.database.read_bytes(), encryption_key=OLD_KEY)

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]


async def test_a_database_of_another_name_gets_the_name_that_is_looked_for(tmp_path: Path, target: N8nApp) -> None:
    source = N8nApp(N8n(tmp_path / "s", database_file="n8n.db").make(), {"database_file": "n8n.db"})
    exported = await source.export(key="clear")

    await target.import_(exported.content)

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
    assert not (target.n8n.folder / "n8n.db").exists()


async def test_data_of_an_older_n8n_is_taken_and_the_preview_says_that_it_is(source: N8nApp, tmp_path: Path) -> None:
    newer = N8n(tmp_path / "target", key=NEW_KEY, migrations=(*source.n8n.migrations, "NewerYet1888888888888"))
    target = N8nApp(newer.make())
    exported = await source.export(key="clear")

    preview = await target.stage(exported.content, MemoryRecord())

    assert preview.bridging == (
        "Written by an older n8n: this one makes 1 migration when it starts (NewerYet1888888888888)."
    )


async def test_workflows_can_be_switched_off_on_the_way(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export(key="clear")

    preview = await target.stage(exported.content, MemoryRecord(), deactivate_workflows="true")
    await target.import_(exported.content, deactivate_workflows="true")

    assert preview.changes[0].startswith("3 workflows (0 active), ")
    assert "Switched off: 2 active workflows." in preview.changes
    assert preview.counts_after["active_workflows"] == 0
    assert target.n8n.rows('SELECT active, "activeVersionId" FROM workflow_entity') == [(0, None)] * 3
    assert target.n8n.rows("SELECT * FROM webhook_entity") == []


async def test_published_agents_are_told_and_switched_off_as_workflows_are(source: N8nApp, target: N8nApp) -> None:
    with source.n8n.opened() as database:
        database.executescript("""
            CREATE TABLE agents (id varchar PRIMARY KEY, "activeVersionId" varchar);
            INSERT INTO agents VALUES ('a1', 'v1'), ('a2', NULL), ('a3', 'v3');
        """)
    exported = await source.export(key="clear")

    preview = await target.stage(exported.content, MemoryRecord())
    off = await target.stage(exported.content, MemoryRecord(), deactivate_workflows="true")
    await target.import_(exported.content, deactivate_workflows="true")

    assert "as soon as n8n starts: 2 workflows, 2 published agents." in preview.warnings[0]
    assert "Switched off: 2 active workflows, 2 published agents." in off.changes
    assert "as soon as n8n starts" not in str(off.warnings)
    assert target.n8n.rows('SELECT id FROM agents WHERE "activeVersionId" IS NOT NULL') == []


async def test_executions_in_the_queue_are_told_and_cancelled_where_workflows_are_switched_off(
    source: N8nApp, target: N8nApp
) -> None:
    with source.n8n.opened() as database:
        database.execute("INSERT INTO execution_entity (\"workflowId\", status) VALUES ('w0', 'new'), ('w1', 'new')")
    exported = await source.export(key="clear")

    preview = await target.stage(exported.content, MemoryRecord())
    off = await target.stage(exported.content, MemoryRecord(), deactivate_workflows="true")
    await target.import_(exported.content, deactivate_workflows="true")

    assert "as soon as n8n starts: 2 workflows, 2 executions in its queue." in preview.warnings[0]
    assert "Cancelled: 2 executions in n8n's queue." in off.changes
    statuses = target.n8n.rows("SELECT status FROM execution_entity ORDER BY id")
    assert statuses == [("success",), ("waiting",), ("canceled",), ("canceled",)]


async def test_a_preview_counts_and_warns_of_workflows_that_would_fire(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export(key="clear")
    before = described(target.n8n.folder)
    record = MemoryRecord()

    preview = await target.stage(exported.content, record)

    assert preview.changes == (
        "3 workflows (2 active), 2 credentials, 2 executions take the place of 1 workflow (1 active), 1 credential, "
        "2 executions.",
        "Encrypted again with the key of this n8n: 10 secrets.",
    )
    assert (preview.counts_now["workflows"], preview.counts_after["workflows"]) == (1, 3)
    assert (preview.counts_now["credentials"], preview.counts_after["credentials"]) == (1, 2)
    assert preview.items == {
        "workflows": ItemChanges(added=2, changed=1),
        "credentials": ItemChanges(added=1, same=1),
        "users": ItemChanges(same=1),
        "executions": ItemChanges(same=2),
        "files": ItemChanges(same=2),
    }
    assert preview.bridging == ""
    assert preview.room_bytes > source.n8n.database.stat().st_size
    assert preview.swap_seconds > 0
    assert "fires here as soon as n8n starts: 2 workflows" in preview.warnings[0]
    assert "1 waiting execution will go on" in preview.warnings[1]
    assert described(target.n8n.folder, is_wanted=not_ours) == before
    assert target.app.calls == []
    await target.recipe.discard(record)
    assert described(target.n8n.folder) == before
    assert not target.has_leftovers


async def test_files_that_could_not_be_counted_in_time_are_not_counted_at_all(
    source: N8nApp, target: N8nApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(n8n, "_SURVEY_SECONDS", -1.0)
    monkeypatch.setattr(comparing, "_SECONDS", -1.0)

    exported = await source.export(key="clear")
    preview = await target.stage(exported.content, MemoryRecord())

    assert exported.header.counts.keys().isdisjoint({"files", "bytes"})
    assert "files" not in {**preview.counts_now, **preview.counts_after}
    assert preview.room_bytes > source.n8n.database.stat().st_size


@pytest.mark.parametrize("is_rotating", [False, True], ids=["keys as they are", "keys rotated"])
async def test_a_preview_tells_each_thing_by_its_content_and_secrets_in_clear(
    is_rotating: bool, tmp_path: Path
) -> None:
    source = N8nApp(N8n(tmp_path / "source", is_rotating=is_rotating).make())
    exported = await source.export(key="clear")
    target = N8nApp(N8n(tmp_path / "target", key=NEW_KEY, is_rotating=is_rotating, credentials=3).make())
    other = encrypt('{"user": "u1", "password": "another"}', NEW_KEY)
    with target.n8n.opened() as database:
        database.execute("UPDATE credentials_entity SET data = ? WHERE id = 'c1'", (other,))
        database.execute("UPDATE workflow_entity SET active = 1 WHERE id = 'w1'")
        database.execute("UPDATE user SET email = 'c@d.e'")
        database.execute("DELETE FROM execution_entity WHERE status = 'success'")
        database.commit()
        assert (target.n8n.folder / "database.sqlite-wal").stat().st_size
        (target.n8n.folder / "nodes/mine").touch()

        preview = await target.stage(exported.content, MemoryRecord())

    assert preview.items == {
        # One of them holds what another program encrypted, with a salt of its own.
        "workflows": ItemChanges(changed=2, same=1),
        "credentials": ItemChanges(removed=1, changed=1, same=1),
        "users": ItemChanges(changed=1),
        "executions": ItemChanges(added=1, same=1),
        "files": ItemChanges(removed=1, same=2),
    }


async def test_a_preview_tells_tables_that_people_keep_data_in_by_their_rows(source: N8nApp, target: N8nApp) -> None:
    rows = {"same": ["x", "y"], "changed": ["x"], "added": []}
    fill_data_tables(source, rows)
    exported = await source.export(key="clear")
    fill_data_tables(target, {"same": ["y", "x"], "changed": ["x", "x"], "gone": ["x"]})

    preview = await target.stage(exported.content, MemoryRecord())

    assert preview.items["data tables"] == ItemChanges(added=1, removed=1, changed=1, same=1)


def fill_data_tables(app: N8nApp, rows: Mapping[str, Sequence[str]]) -> None:
    """As n8n keeps them: a row that names it, and a table of its own."""
    with app.n8n.opened() as database:
        database.execute("CREATE TABLE data_table (id varchar PRIMARY KEY, name varchar)")
        for name, values in rows.items():
            database.execute("INSERT INTO data_table VALUES (?, ?)", (name, f"Table {name}"))
            database.execute(f"CREATE TABLE data_table_user_{name} (a varchar, n real)")
            for value in values:
                database.execute(f"INSERT INTO data_table_user_{name} VALUES (?, 1.5)", (value,))


async def test_kinds_that_are_too_many_are_left_out_of_a_preview(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export(key="clear")
    with target.n8n.opened() as database:
        database.executemany("INSERT INTO execution_entity (status) VALUES (?)", [("error",)] * 10_001)

    preview = await target.stage(exported.content, MemoryRecord())

    assert preview.items.keys() == {"workflows", "credentials", "users", "files"}


async def test_credentials_that_the_source_cannot_read_either_come_along_and_are_named(
    source: N8nApp, target: N8nApp
) -> None:
    with source.n8n.opened() as database:
        lost = "U2FsdGVkX19hYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg=="
        database.execute("UPDATE credentials_entity SET data = ? WHERE id = 'c1'", (lost,))
    exported = await source.export(key="clear")
    record = MemoryRecord()

    preview = await target.stage(exported.content, record)

    assert any("Mail 1 (c1)" in warning for warning in exported.warnings)
    assert any("1 secret (credential Mail 1 (c1))" in warning for warning in preview.warnings)
    await target.recipe.restore(record, NotedProgress())
    assert target.n8n.rows("SELECT data FROM credentials_entity WHERE id = 'c1'") == [(lost,)]


async def test_the_app_is_down_for_the_exchange_and_undo_brings_everything_back(source: N8nApp, target: N8nApp) -> None:
    before = described(target.n8n.folder)
    exported = await source.export(key="clear")

    record = await target.import_(exported.content)

    assert target.app.calls == ["stop", "start"]
    with target.n8n.opened() as database:
        database.execute("UPDATE workflow_entity SET name = 'written since'")
    await target.recipe.undo(record, NotedProgress())
    assert target.n8n.workflow_names() == ["present 0"]
    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
    assert described(target.n8n.folder).keys() == before.keys()
    assert not target.has_leftovers


async def test_confirming_drops_the_previous_data(source: N8nApp, target: N8nApp) -> None:
    record = await target.import_((await source.export(key="clear")).content)

    await target.recipe.discard(record)
    await target.recipe.discard(record)

    assert not target.has_leftovers
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]


async def test_an_n8n_that_does_not_start_gets_its_previous_data_back(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export(key="clear")
    target.app.failures["start"] = [ToolFailedError("it crashed")]

    with pytest.raises(ToolFailedError, match="did not start with the imported data"):
        await target.import_(exported.content)

    assert target.n8n.workflow_names() == ["present 0"]
    assert target.app.is_running


async def test_an_n8n_that_does_not_stop_keeps_its_data(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export(key="clear")
    target.app.failures["stop"] = [AppBusyError("it hangs")]

    with pytest.raises(AppBusyError):
        await target.import_(exported.content)

    assert target.n8n.workflow_names() == ["present 0"]


async def test_a_crash_between_stop_and_start_is_mended(source: N8nApp, target: N8nApp) -> None:
    record = MemoryRecord()
    await target.stage((await source.export(key="clear")).content, record)
    record.save(app_is_stopped=True)
    Swap(target.n8n.folder, record.key).bring(Side.IMPORTED)

    assert await target.recipe.recover(record) is Recovered.IMPORTED

    assert target.app.calls == ["start"]
    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_an_archive_has_the_fingerprint_that_its_import_has_under_another_key(
    source: N8nApp, target: N8nApp
) -> None:
    before = await source.fingerprint()
    exported = await source.export(key="clear")

    await target.import_(exported.content)

    after = await target.fingerprint()
    assert exported.fingerprint is not None
    assert exported.fingerprint.differences(before) == []
    assert exported.fingerprint.differences(after) == []
    assert "table workflow_entity" in after.parts
    with target.n8n.opened() as database:
        database.execute("UPDATE workflow_entity SET name = 'another' WHERE id = 'w1'")
    (target.n8n.folder / "storage" / "another").touch()
    changed = (await target.fingerprint()).differences(after)
    assert [one.partition(":")[0] for one in changed] == ["below 'storage'", "table workflow_entity"]


async def test_tables_of_any_kind_come_along_with_their_secrets_encrypted_again(source: N8nApp, target: N8nApp) -> None:
    add_odd_tables(source.n8n.database)
    with source.n8n.opened() as database:
        for name in ("odd_keys", "odd_words"):
            database.execute(f"UPDATE {name} SET b = ? WHERE a IN (1, 'some')", (encrypt("mine", OLD_KEY),))
    exported = await source.export(key="clear")

    await target.import_(exported.content)

    for name in ("odd_keys", "odd_words"):
        [(value,)] = target.n8n.rows(f"SELECT b FROM {name} WHERE a IN (1, 'some')")
        assert decrypt(str(value), NEW_KEY) == "mine"
    for query in ("SELECT * FROM odd_sums", 'SELECT * FROM ""', "SELECT * FROM odd_places"):
        assert target.n8n.rows(query) == source.n8n.rows(query) != []
    assert target.n8n.rows("INSERT INTO odd_words (odd_words) VALUES ('integrity-check')") == []
    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_tables_of_any_kind_are_in_the_fingerprint_that_an_import_and_the_archive_have(
    source: N8nApp, tmp_path: Path
) -> None:
    add_odd_tables(source.n8n.database)
    add_table_of_unknown_module(source.n8n.database)
    target = N8nApp(N8n(tmp_path / "same key", key=OLD_KEY, mark="present").make())
    exported = await source.export(key="clear")
    (tmp_path / "n8n.tar").write_bytes(exported.content)

    await target.import_(exported.content)

    archived = await replay(Request(file=str(tmp_path / "n8n.tar"), scheme="n8n/3", details=exported.header.details))
    assert exported.fingerprint is not None
    assert exported.fingerprint.differences(await source.fingerprint()) == []
    assert exported.fingerprint.differences(archived.fingerprint) == []
    assert exported.fingerprint.differences(await target.fingerprint()) == []
    assert exported.fingerprint.parts["table odd_keys"].startswith("2 rows, ")
    assert exported.fingerprint.parts["table odd_maps"].startswith("defined, ")
    assert exported.fingerprint.parts["table odd_maps_node"].startswith("1 rows, ")


async def test_an_export_takes_no_fingerprint_when_told_so(source: N8nApp) -> None:
    assert (await source.export(fingerprint="no")).fingerprint is None


async def test_an_archive_flows_while_its_fingerprint_is_taken_of_the_same_copy(
    source: N8nApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source.n8n.folder / "storage" / "big").write_bytes(os.urandom(8 << 20))
    present = await source.fingerprint()
    hold_reading(monkeypatch, tmp_path / "gate")
    options = ExportOptions(format=source.recipe.export_formats[0], app_id="shop.n8n", file_name="n8n.tar")

    async with asyncio.timeout(60), source.recipe.export_data(options, NotedProgress()) as export:
        await anext(export.chunks)
        with source.n8n.opened() as database:
            database.execute("DELETE FROM workflow_entity")
        await asyncio.to_thread((tmp_path / "gate").write_text, "")
        async for _ in export.chunks:
            pass

    assert export.fingerprint is not None
    assert export.fingerprint.differences(present) == []


async def test_leaving_an_export_early_leaves_nothing(source: N8nApp) -> None:
    (source.n8n.folder / "storage" / "big").write_bytes(os.urandom(8 << 20))
    (format, *_) = source.recipe.export_formats
    options = ExportOptions(format=format, app_id="shop.n8n", file_name="n8n.tar")
    async with source.recipe.export_data(options, NotedProgress()) as export:
        await anext(export.chunks)

    assert not source.has_leftovers
    assert agent_children() == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"recipent": "x"}, "no option 'recipent'"),
        ({"key": "plain"}, "sealed, omit or clear"),
        ({"key": "sealed"}, "for whom"),
        ({"key": "clear", "passphrase": "x"}, "does not go together"),
        ({"recipient": "age1x", "passphrase": "x"}, "allows not both"),
        ({"recipient": "age1nonsense"}, "none of age's"),
    ],
)
async def test_wrong_options_of_an_export_are_named(options: dict[str, str], match: str, source: N8nApp) -> None:
    with pytest.raises(InvalidRequestError, match=match):
        await source.export(**options)

    assert not source.has_leftovers


async def test_what_can_be_done_is_described(source: N8nApp, tmp_path: Path) -> None:
    empty = N8nApp(N8n(tmp_path / "empty"))
    empty.n8n.folder.mkdir()

    found = await source.recipe.describe()
    nothing = await empty.recipe.describe()

    assert found.can_export.is_possible
    assert found.can_import.is_possible
    assert found.import_needs_app_stop
    assert (found.details["workflows"], found.details["database"]) == ("3", "sqlite")
    assert "There is no database" in nothing.can_import.obstacle
    assert "There is no database" in nothing.can_export.obstacle


async def test_an_app_that_cannot_be_stopped_is_an_obstacle_for_imports_only(tmp_path: Path) -> None:
    app = N8nApp(N8n(tmp_path / "n").make(), app=NotedApp(is_possible=False))

    found = await app.recipe.describe()

    assert found.can_export.is_possible
    assert "`stop` and `start`" in found.can_import.obstacle
