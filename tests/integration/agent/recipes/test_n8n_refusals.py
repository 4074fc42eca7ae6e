"""What n8n must not get: refused with its reason, before the app is stopped, and nothing is changed."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest

from agent.engines import tar_stream
from agent.engines.n8n import preparing
from agent.engines.replay.__main__ import replay
from agent.engines.replay.request import Request
from common.errors import (
    AppMustStopError,
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    InvalidRequestError,
    LimitExceededError,
)
from common.headers import ArchiveHeader
from tests.fakes.imports import MemoryRecord
from tests.fixtures.archives import DIRECTORY, SYMLINK, Entry, described, entry, tar_of
from tests.fixtures.n8n_data import MIGRATIONS, NEW_KEY, OLD_KEY, SECRET, N8n
from tests.fixtures.odd_tables import add_table_of_unknown_module
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.n8n_apps import N8nApp, new_app

IDENTITY = pyrage.x25519.Identity.generate()


@pytest.fixture
def source(tmp_path: Path) -> N8nApp:
    return N8nApp(N8n(tmp_path / "source").make())


@pytest.fixture
def target(tmp_path: Path) -> N8nApp:
    return new_app(tmp_path / "target")


async def refused(
    target: N8nApp, content: bytes, error: type[Exception], match: str, **options: str
) -> pytest.ExceptionInfo[Exception]:
    """Try to import; see that the error is right and that nothing was changed."""
    before = described(target.n8n.folder)
    record = MemoryRecord()
    with pytest.raises(error, match=match) as caught:
        await target.stage(content, record, **options)
    await target.recipe.discard(record)
    assert described(target.n8n.folder) == before
    assert target.app.calls == []
    assert not target.has_leftovers
    for secret in (OLD_KEY, NEW_KEY, SECRET):
        assert secret not in str(caught.value)
    return caught


async def database_of(app: N8nApp) -> bytes:
    app.n8n.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    app.n8n.rows("PRAGMA journal_mode=DELETE")
    return app.n8n.database.read_bytes()


async def test_tables_with_a_prefix_are_refused_with_a_word_on_that(source: N8nApp) -> None:
    source.n8n.rows('ALTER TABLE "workflow_entity" RENAME TO "p_workflow_entity"')

    with pytest.raises(AppUnavailableError) as caught:
        await source.export()

    assert "DB_TABLE_PREFIX" in caught.value.next_step


async def test_data_without_its_key_is_refused_and_taken_without_credentials_when_asked(
    source: N8nApp, target: N8nApp
) -> None:
    exported = await source.export()

    caught = await refused(target, exported.content, ArchiveIncompatibleError, "without its encryption key")

    error = caught.value
    assert isinstance(error, ArchiveIncompatibleError)
    assert "without_credentials=true" in error.next_step
    record = await target.import_(exported.content, without_credentials="true")
    names = 'SELECT id, name FROM "credentials_entity" ORDER BY id'
    assert target.n8n.rows(names) == source.n8n.rows(names)
    assert target.n8n.rows("SELECT count(*) FROM deployment_key") == [(0,)]
    secrets = target.n8n.secrets(NEW_KEY)
    assert (secrets["credential c0"], secrets["credential c1"], secrets["ldap"]) == ("{}", "{}", "")
    assert target.n8n.rows('SELECT "mfaEnabled", "mfaSecret", "mfaRecoveryCodes" FROM "user"') == [(0, None, None)]
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    await target.recipe.discard(record)


@pytest.mark.parametrize(("is_version_2", "is_rotating"), [(False, False), (True, True)], ids=["1.x", "2.x rotating"])
async def test_all_forms_can_be_taken_without_credentials(
    is_version_2: bool, is_rotating: bool, tmp_path: Path, target: N8nApp
) -> None:
    source = N8nApp(N8n(tmp_path / "source", is_version_2=is_version_2, is_rotating=is_rotating).make())
    exported = await source.export()

    preview = await target.stage(exported.content, MemoryRecord(), without_credentials="true")

    assert "2 credentials without content" in preview.warnings[0]


@pytest.mark.parametrize("is_version_2", [False, True], ids=["1.x", "2.x"])
async def test_a_wrong_key_is_refused(is_version_2: bool, tmp_path: Path, target: N8nApp) -> None:
    source = N8nApp(N8n(tmp_path / "source", is_version_2=is_version_2).make())
    exported = await source.export()

    await refused(
        target, exported.content, ArchiveIncompatibleError, "does not belong to this data", encryption_key="wrong"
    )


async def test_a_sealed_key_that_nothing_was_given_for_is_refused(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export(recipient=str(IDENTITY.to_public()))

    await refused(target, exported.content, ArchiveIncompatibleError, "sealed, and nothing was given")


async def test_a_wrong_identity_or_passphrase_is_refused(source: N8nApp, target: N8nApp) -> None:
    exported = await source.export(recipient=str(IDENTITY.to_public()))
    another = str(pyrage.x25519.Identity.generate())

    caught = await refused(target, exported.content, ArchiveIncompatibleError, "does not open", identity=another)
    await refused(target, exported.content, ArchiveIncompatibleError, "does not open", passphrase="wrong")
    await refused(target, exported.content, InvalidRequestError, "none of age's", identity="AGE-SECRET-KEY-1X")

    assert another not in str(caught.value)


async def test_data_of_a_newer_n8n_is_refused_by_the_name_of_its_migration(tmp_path: Path, target: N8nApp) -> None:
    source = N8nApp(N8n(tmp_path / "source", migrations=(*MIGRATIONS, "FromTheFuture1999999999999")).make())
    exported = await source.export(key="clear")

    await refused(target, exported.content, ArchiveIncompatibleError, "newer n8n.*FromTheFuture1999999999999")


async def test_triggers_and_views_of_an_upload_that_n8n_does_not_make_are_refused_by_name(
    source: N8nApp, target: N8nApp, tmp_path: Path
) -> None:
    source.n8n.rows("CREATE TRIGGER bad AFTER UPDATE ON credentials_entity BEGIN DELETE FROM workflow_entity; END")
    source.n8n.rows("CREATE VIEW names AS SELECT name FROM workflow_entity")
    exported = await source.export("tar", key="clear")

    caught = await refused(target, exported.content, ArchiveRefusedError, "holds the trigger 'bad', the view 'names'")

    [warning] = [said for said in exported.warnings if "trigger" in said]
    assert warning.startswith("The database holds the trigger 'bad', the view 'names', which n8n does not make")

    assert "make the same in the app" in caught.value.next_step  # type: ignore[attr-defined]
    (tmp_path / "n8n.tar").write_bytes(exported.content)
    found = await replay(Request(file=str(tmp_path / "n8n.tar"), scheme="n8n/3", details=exported.header.details))
    assert "held the trigger 'bad', the view 'names'" in found.unproven


async def test_a_virtual_table_that_nobody_here_knows_is_refused_by_its_kind_where_the_key_changes(
    source: N8nApp, target: N8nApp
) -> None:
    add_table_of_unknown_module(source.n8n.database)
    exported = await source.export(key="clear")

    caught = await refused(target, exported.content, ArchiveIncompatibleError, "no such module: maps")

    assert "drop it in a copy" in caught.value.next_step  # type: ignore[attr-defined]


ON_NODES = 'OLD."nodes" IS NOT NEW."nodes"'


@pytest.mark.parametrize(
    ("condition", "quote", "is_own"),
    [
        ("", "", True),
        (f'AND ({ON_NODES} OR OLD."settings" IS NOT NEW."settings")', '"', True),
        (f"AND ({ON_NODES})", '"', False),
    ],
)
async def test_the_trigger_that_n8n_makes_itself_comes_along_in_its_own_words_only(
    condition: str, quote: str, is_own: bool, source: N8nApp, target: N8nApp
) -> None:
    table, counter = f"{quote}workflow_entity{quote}", f"{quote}versionCounter{quote}"
    for column in ('"versionCounter" integer NOT NULL DEFAULT 1', "settings text"):
        source.n8n.rows(f"ALTER TABLE workflow_entity ADD COLUMN {column}")
    source.n8n.rows(
        f"""CREATE TRIGGER {quote}workflow_version_increment{quote}
\t\t\tAFTER UPDATE ON {table}
\t\t\tFOR EACH ROW
\t\t\tWHEN OLD.{counter} = NEW.{counter}
\t\t\t\t{condition}
\t\t\tBEGIN
\t\t\t\tUPDATE {table}
\t\t\t\tSET {counter} = {counter} + 1
\t\t\t\tWHERE id = NEW.id;
\t\t\tEND;"""
    )
    exported = await source.export(key="clear")

    assert any("does not make" in said for said in exported.warnings) is not is_own
    if not is_own:
        await refused(target, exported.content, ArchiveRefusedError, "trigger 'workflow_version_increment'")
        return
    record = await target.import_(exported.content)

    assert target.n8n.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger'") == [("workflow_version_increment",)]
    await target.recipe.discard(record)


async def test_triggers_that_the_app_has_come_along_and_do_nothing_meanwhile(source: N8nApp, target: N8nApp) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    for app in (source, target):
        app.n8n.rows("CREATE TRIGGER bad AFTER UPDATE ON credentials_entity BEGIN DELETE FROM workflow_entity; END")
        app.n8n.rows(f"CREATE TRIGGER long AFTER UPDATE ON workflow_entity BEGIN {endless}; END")
        app.n8n.rows("CREATE TRIGGER out AFTER UPDATE ON user BEGIN SELECT load_extension('/tmp/x.so'); END")
    exported = await source.export(key="clear")

    record = await target.import_(exported.content, deactivate_workflows="true")

    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    assert target.n8n.secrets(NEW_KEY)["credential c0"]
    triggers = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY name"
    assert target.n8n.rows(triggers) == source.n8n.rows(triggers)
    await target.recipe.discard(record)


async def test_a_database_that_takes_too_long_to_encrypt_again_is_refused(
    source: N8nApp, target: N8nApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "seconds_for", lambda *_: 0.0)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT i FROM n"
    source.n8n.rows(f"CREATE TABLE many AS SELECT CAST(i AS TEXT) AS name FROM ({numbers})")
    exported = await source.export(key="clear")

    await refused(target, exported.content, LimitExceededError, "did not get through")


async def test_an_n8n_without_a_database_takes_nothing_yet(source: N8nApp, tmp_path: Path) -> None:
    target = N8nApp(N8n(tmp_path / "target"))
    target.n8n.folder.mkdir()
    exported = await source.export(key="clear")

    await refused(target, exported.content, AppUnavailableError, "There is no database")


async def test_an_n8n_whose_key_is_not_known_takes_nothing(source: N8nApp, target: N8nApp) -> None:
    (target.n8n.folder / "config").unlink()
    exported = await source.export(key="clear")

    await refused(target, exported.content, AppUnavailableError, "neither in .*config.* nor in a file")


async def test_an_app_that_cannot_be_stopped_is_told_before_the_upload_is_read(tmp_path: Path) -> None:
    target = N8nApp(N8n(tmp_path / "target", key=NEW_KEY).make(), app=NotedApp(is_possible=False))

    await refused(target, b"never read", AppMustStopError, "`stop` and `start`")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("format_name", ["tar", "tar.zst", "tar.gz"])
async def test_an_export_cut_anywhere_is_refused(
    format_name: str, share: float, source: N8nApp, target: N8nApp
) -> None:
    content = (await source.export(format_name, key="clear")).content

    await refused(target, content[: int(len(content) * share)], ArchiveTruncatedError, "cut off")


async def test_a_flipped_bit_is_noticed(source: N8nApp, target: N8nApp) -> None:
    content = bytearray((await source.export(key="clear")).content)
    content[content.index(b"first 1")] ^= 1

    await refused(target, bytes(content), ArchiveDamagedError, "SHA-256")


async def test_an_export_of_another_recipe_is_refused_by_name(source: N8nApp, target: N8nApp) -> None:
    content = (await source.export(key="clear")).content.replace(b'"recipe":"n8n"', b'"recipe":"vol"')

    await refused(target, content, ArchiveWrongKindError, "'vol'")


def _truncated(content: bytes) -> bytes:
    return content[:-4096]


def _zeroed_page(content: bytes) -> bytes:
    return content[:8192] + bytes(4096) + content[12288:]


def _of_another_app(_: bytes) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE monitor (id)")
    return bytes(connection.serialize())


DATABASES: dict[str, tuple[Callable[[bytes], bytes], type[ArchiveError], str]] = {
    "cut by a page": (_truncated, ArchiveTruncatedError, "its header says"),
    "a page of zeros": (_zeroed_page, ArchiveDamagedError, "cannot be imported"),
    "of another app": (_of_another_app, ArchiveIncompatibleError, "lacks the tables workflow_entity"),
    "empty": (lambda _: b"", ArchiveWrongKindError, "empty"),
    "no database": (lambda _: b"hello" * 1000, ArchiveWrongKindError, "not a SQLite database"),
}


@pytest.mark.parametrize("name", DATABASES)
async def test_a_wrong_database_in_an_archive_is_refused(name: str, source: N8nApp, target: N8nApp) -> None:
    spoil, error, match = DATABASES[name]
    content = tar_of(entry("database.sqlite", spoil(await database_of(source))), entry("config", b"{}"))

    await refused(target, content, error, match)


ARCHIVES: dict[str, tuple[bytes, type[ArchiveError], str]] = {
    "no database": (tar_of(entry("storage/x", b"1")), ArchiveWrongKindError, "no database of n8n"),
    "nothing": (b"", ArchiveWrongKindError, "empty"),
    "text": (b"hello world\n" * 1000, ArchiveWrongKindError, "not a tar or zip"),
    "workflows as JSON": (b'{"nodes": []}' * 100, ArchiveWrongKindError, "JSON"),
    "postgresql dump": (b"PGDMP" + bytes(5000), ArchiveWrongKindError, "PostgreSQL"),
    "database is a link": (
        tar_of(entry("database.sqlite", type=SYMLINK, linkname="storage"), entry("storage", b"")),
        ArchiveWrongKindError,
        "no database of n8n",
    ),
    "link out": (
        tar_of(entry("database.sqlite", b""), entry("storage", type=SYMLINK, linkname="/etc")),
        ArchiveRefusedError,
        "out of the volume",
    ),
    "path out": (tar_of(entry("../database.sqlite", b"")), ArchiveRefusedError, "leaves the volume"),
}


@pytest.mark.parametrize("name", ARCHIVES)
async def test_a_wrong_archive_is_refused(name: str, target: N8nApp) -> None:
    content, error, match = ARCHIVES[name]

    await refused(target, content, error, match)


async def test_a_link_that_leads_out_is_told_in_the_export_and_refused_elsewhere(
    source: N8nApp, target: N8nApp
) -> None:
    (source.n8n.folder / "nodes").mkdir(exist_ok=True)
    (source.n8n.folder / "nodes" / "inside").symlink_to("../database.sqlite")
    (source.n8n.folder / "nodes" / "outside").symlink_to("/etc/passwd")

    exported = await source.export(key="clear")

    assert [warning for warning in exported.warnings if "link" in warning] == [
        "1 symbolic link leads out; only an app that has the same one takes the archive: 'nodes/outside'."
    ]
    caught = await refused(target, exported.content, ArchiveRefusedError, "'nodes/outside' -> '/etc/passwd'")
    assert isinstance(caught.value, ArchiveRefusedError)
    assert "make the same one" in caught.value.next_step
    assert "outside_links" not in caught.value.next_step


async def test_the_folder_itself_in_an_archive_is_refused_with_what_to_do(source: N8nApp, target: N8nApp) -> None:
    command: list[str | Path] = ["tar", "-c", "-C", source.n8n.folder.parent, source.n8n.folder.name]
    content = subprocess.run(command, capture_output=True, check=True).stdout

    caught = await refused(target, content, ArchiveWrongKindError, "no database of n8n")

    assert isinstance(caught.value, ArchiveWrongKindError)
    assert "not the folder" in caught.value.next_step


KEYS: dict[str, tuple[Entry, str]] = {
    "sealed key that is none": (entry("encryption-key.age", b"not age"), "no age file"),
    "sealed key that is huge": (entry("encryption-key.age", bytes(100_000)), "not a small file"),
    "key that is a link": (
        entry("encryption-key.txt", type=SYMLINK, linkname="storage"),
        "not a small file that can be read",
    ),
    "key that is a directory": (entry("encryption-key.txt", type=DIRECTORY), "no regular file"),
    "sealed key that is a directory": (entry("encryption-key.age", type=DIRECTORY), "no regular file"),
    "config that is a directory": (entry("config", type=DIRECTORY), "no regular file"),
    "config that is no JSON": (entry("config", b"{"), "not JSON"),
    "config that is JSON without end": (entry("config", b"[" * 60_000), "not JSON"),
}


@pytest.mark.parametrize("name", KEYS)
async def test_an_odd_key_in_an_archive_is_refused(name: str, source: N8nApp, target: N8nApp) -> None:
    member, match = KEYS[name]
    content = tar_of(entry("database.sqlite", await database_of(source)), member, entry("storage", b""))

    await refused(target, content, ArchiveDamagedError, match, passphrase="x")


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("attributes", [{"type": DIRECTORY}, {"type": SYMLINK, "linkname": "storage/none"}], ids=str)
async def test_what_sqlite_keeps_beside_a_database_has_to_be_a_file(
    attributes: dict[str, object], ending: str, source: N8nApp, target: N8nApp
) -> None:
    content = tar_of(
        entry("database.sqlite", await database_of(source)),
        entry(f"database.sqlite{ending}", None, **attributes),
        entry("storage", type=DIRECTORY),
    )

    await refused(target, content, ArchiveRefusedError, f"database.sqlite{ending}", encryption_key=OLD_KEY)


async def test_a_directory_that_has_the_name_of_this_n8ns_database_is_refused(source: N8nApp, tmp_path: Path) -> None:
    target = N8nApp(
        N8n(tmp_path / "other", key=NEW_KEY, database_file="n8n.sqlite").make(), {"database_file": "n8n.sqlite"}
    )
    content = tar_of(
        entry("database.sqlite", await database_of(source)), entry("n8n.sqlite", type=DIRECTORY), entry("storage", b"")
    )

    await refused(target, content, ArchiveRefusedError, "n8n.sqlite", encryption_key=OLD_KEY)


async def test_a_secret_with_half_a_character_is_a_key_that_does_not_open(source: N8nApp, target: N8nApp) -> None:
    config = entry("config", b'{"encryptionKey": "\\ud800"}')
    content = tar_of(entry("database.sqlite", await database_of(source)), config, entry("storage", b""))

    await refused(target, content, ArchiveIncompatibleError, "does not open|do not open|opens")


async def test_an_n8n_whose_own_config_is_a_directory_is_not_imported_into(
    source: N8nApp, target: N8nApp, tmp_path: Path
) -> None:
    exported = await source.export(key="clear")
    (tmp_path / "key").write_text(NEW_KEY)
    (target.n8n.folder / "config").unlink()
    (target.n8n.folder / "config").mkdir()
    target = N8nApp(target.n8n, {"encryption_key_file": str(tmp_path / "key")})

    await refused(target, exported.content, AppUnavailableError, "config")


async def test_an_archive_of_an_n8n_on_postgresql_is_refused(target: N8nApp) -> None:
    header = ArchiveHeader(recipe="n8n", format_version=1, details={"database_type": "postgresql"})
    content = b"".join(tar_stream.sealed((b"" for _ in range(0)), header))

    await refused(target, content, ArchiveIncompatibleError, "on PostgreSQL")


async def test_wrong_options_of_an_import_are_named(target: N8nApp) -> None:
    await refused(target, b"", InvalidRequestError, "no option 'passfrase'", passfrase="x")
    await refused(target, b"", InvalidRequestError, "true or false", without_credentials="yes")
