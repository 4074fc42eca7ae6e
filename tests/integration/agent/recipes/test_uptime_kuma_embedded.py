"""Uptime Kuma 2 with a MariaDB of its own: out of it over its socket, in as a data directory built beside it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.engines.kuma import embedded_data
from agent.engines.mariadb.own import mariadb as own_server
from agent.recipes.base import ItemChanges, Recovered
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    ToolFailedError,
)
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.archives import SYMLINK, entry, tar_of
from tests.fixtures.kuma_apps import KUMA_2, set_of
from tests.fixtures.kuma_embedded import KumaWithServer
from tests.fixtures.mariadb_apps import KUMA_DUMP
from tests.fixtures.waiting import until
from tools.servers import short_directory


@pytest.fixture(scope="module")
def shared_kuma() -> Iterator[KumaWithServer]:
    with short_directory("kuma") as folder:
        kuma = KumaWithServer(folder / "data")
        try:
            yield kuma
        finally:
            kuma.server.close()


@pytest.fixture
def kuma(shared_kuma: KumaWithServer) -> KumaWithServer:
    """A running app; one for all tests of a module: each leaves it as it was."""
    shared_kuma.noted.calls.clear()
    assert not (shared_kuma.directory / ".mathison-data").exists()
    return shared_kuma


async def test_tables_and_files_are_the_same_after_export_and_import_and_undone_together(kuma: KumaWithServer) -> None:
    original = await kuma.fingerprint()
    exported = await kuma.export("tar.zst")
    configuration = (kuma.directory / "db-config.json").read_bytes()
    kuma.make_other()
    before, record = await kuma.fingerprint(), MemoryRecord()

    preview = await kuma.stage(exported.content, record)
    kuma.server.ask("INSERT INTO tag (name, color) VALUES ('while it was staged', '#000')")
    await kuma.recipe.restore(record, NotedProgress())
    imported, accounts = (
        await kuma.fingerprint(),
        kuma.server.ask("SELECT User FROM mysql.global_priv", database="mysql"),
    )
    kuma.server.ask("INSERT INTO tag (name, color) VALUES ('after the import', '#000')")
    await kuma.recipe.undo(record, NotedProgress())
    went_back = kuma.server.ask("SELECT name FROM tag").splitlines()
    kuma.server.ask("DELETE FROM tag WHERE name = 'while it was staged'")

    assert exported.fingerprint == original
    assert imported.differences(original) == []
    assert (await kuma.fingerprint()).differences(before) == []
    assert (kuma.directory / "db-config.json").read_bytes() == configuration
    assert kuma.noted.calls == ["stop", "start", "stop", "start"]
    assert went_back == ["prod", "team", "while it was staged"]
    assert (exported.header.engine, preview.counts_after["heartbeats"]) == ("mariadb", 121)
    assert preview.items["monitors"] == ItemChanges(same=12)
    assert preview.items["heartbeats"] == ItemChanges(same=33, added=88)
    assert preview.items["files"] == ItemChanges(same=4, removed=1)
    assert preview.room_bytes > 1_000_000
    assert set(accounts.split()) == {"mariadb.sys", "node", "root"}
    assert not (kuma.directory / ".mathison-data").exists()
    kuma.fill()


async def test_an_exchange_that_fails_leaves_the_app_running_on_its_own_data(
    kuma: KumaWithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, record = await kuma.fingerprint(), MemoryRecord()
    await kuma.stage(KUMA_DUMP.read_bytes(), record)

    with monkeypatch.context() as stop_returns_too_early:
        stop_returns_too_early.setattr(embedded_data, "_RELEASE_SECONDS", 0.3)
        stop_returns_too_early.setattr(kuma.server, "stop", lambda: None)
        with pytest.raises(AppBusyError, match="still has its files open"):
            await kuma.recipe.restore(record, NotedProgress())
    kuma.noted.failures["start"] = [ToolFailedError("crash loop")]
    with pytest.raises(ToolFailedError, match="crash loop"):
        await kuma.recipe.restore(record, NotedProgress())

    assert (await kuma.fingerprint()).differences(before) == []
    assert await kuma.recipe.recover(record) is Recovered.PREVIOUS
    assert kuma.noted.calls == ["stop", "start", "stop", "start", "stop", "start"]
    await kuma.recipe.discard(record)


def servers_on(directory: Path) -> list[psutil.Process]:
    """Processes of ours that were told of a directory."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(f"={directory}/" in part for part in child.cmdline()):
                found.append(child)
    return found


async def test_an_import_that_is_cancelled_leaves_no_server_and_no_files(kuma: KumaWithServer) -> None:
    before, record = await kuma.fingerprint(), MemoryRecord()
    reserved = kuma.directory / ".mathison-data"
    staging = asyncio.create_task(kuma.stage(KUMA_DUMP.read_bytes(), record))
    await until(lambda: bool(list(reserved.rglob("socket"))) or staging.done())
    assert servers_on(reserved) != []

    staging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staging

    assert servers_on(reserved) == []
    assert list(reserved.rglob("opening.sql")) == []
    await kuma.recipe.discard(record)
    assert not reserved.exists()
    assert (await kuma.fingerprint()).differences(before) == []


BAD: dict[str, tuple[bytes, type[ArchiveError], str]] = {
    "SQLite archive": (set_of(KUMA_2), ArchiveWrongKindError, r"no kuma\.sql"),
    "raw directory": (
        tar_of(entry("mariadb/ibdata1", content=b"x"), entry("kuma.sql", content=b"x")),
        ArchiveWrongKindError,
        "own files",
    ),
    "statement for another database": (
        tar_of(entry("kuma.sql", content=b"INSERT INTO `mysql`.`user` VALUES (1);\n-- Dump completed\n")),
        ArchiveRefusedError,
        ".",
    ),
    "cut dump": (KUMA_DUMP.read_bytes()[:-2000], ArchiveTruncatedError, "."),
    "link for the dump": (
        tar_of(entry("kuma.sql", type=SYMLINK, linkname="upload/x"), entry("upload/x", content=b"x")),
        ArchiveWrongKindError,
        "is no file",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_the_app_cannot_take_is_refused_and_changes_nothing(name: str, kuma: KumaWithServer) -> None:
    content, error, words = BAD[name]
    before, record = await kuma.fingerprint(), MemoryRecord()

    with pytest.raises(error, match=words):
        await kuma.stage(content, record)
    await kuma.recipe.discard(record)

    assert (await kuma.fingerprint()).differences(before) == []
    assert kuma.noted.calls == []


async def test_an_import_needs_a_server_of_the_same_release(
    kuma: KumaWithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = await kuma.recipe.describe()
    monkeypatch.setattr(own_server, "_VERSION", re.compile(r"Ver (\d)0?\.(\d)1.*-MariaDB"))

    other = await kuma.recipe.describe()

    assert described.can_import.is_possible
    assert described.engine_version == "2.5.1 or later"
    assert other.can_export.is_possible
    assert "made by a 10.11" in other.can_import.obstacle


async def test_without_a_server_program_there_are_exports_only(
    kuma: KumaWithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_server, "_SHARES", ())

    described = await kuma.recipe.describe()

    assert described.can_export.is_possible
    assert "no MariaDB server of its own" in described.can_import.obstacle
    with pytest.raises(AppUnavailableError, match="mariadbd"):
        await kuma.stage(KUMA_DUMP.read_bytes(), MemoryRecord())


async def test_databases_that_are_not_the_apps_are_not_lost(kuma: KumaWithServer) -> None:
    kuma.server.ask("CREATE DATABASE wiki")

    described = await kuma.recipe.describe()
    kuma.server.ask("DROP DATABASE wiki")

    assert "database wiki" in described.can_import.obstacle


async def test_a_database_or_account_made_after_staging_is_not_lost(kuma: KumaWithServer) -> None:
    record = MemoryRecord()
    await kuma.stage(KUMA_DUMP.read_bytes(), record)
    before = await kuma.fingerprint()

    # As CREATE USER does, which a server without rights (a user's, see `ServerOfKuma`) refuses.
    account = "INSERT INTO mysql.global_priv (Host, User, Priv) VALUES ('localhost', 'monitoring', '{}')"
    kuma.server.ask(f"CREATE DATABASE wiki; {account}")
    with pytest.raises(AppUnavailableError, match=r"database wiki, account monitoring.*Nothing was changed"):
        await kuma.recipe.restore(record, NotedProgress())

    assert kuma.noted.calls == []
    assert "wiki" in kuma.server.ask("SHOW DATABASES")
    assert (await kuma.fingerprint()).differences(before) == []
    kuma.server.ask("DROP DATABASE wiki; DELETE FROM mysql.global_priv WHERE User = 'monitoring'")
    await kuma.recipe.restore(record, NotedProgress())
    await kuma.recipe.undo(record, NotedProgress())
    await kuma.recipe.discard(record)


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_an_app_that_does_not_run_is_an_obstacle(end: str, kuma: KumaWithServer) -> None:
    kuma.server.stop() if end == "stopped" else kuma.server.kill()
    leaves_socket = kuma.server.socket_path.exists()

    described = await kuma.recipe.describe()
    with pytest.raises(AppUnavailableError, match="not running"):
        await kuma.export()
    with pytest.raises(AppUnavailableError, match="not running"):
        await kuma.fingerprint()
    with pytest.raises(AppUnavailableError, match="not running"):
        await kuma.stage(KUMA_DUMP.read_bytes(), MemoryRecord())
    kuma.server.start()

    assert leaves_socket == (end == "killed")
    assert "embedded-mariadb" in described.can_export.obstacle
    assert "embedded-mariadb" in described.can_import.obstacle


async def test_data_of_a_server_that_was_killed_with_its_app_comes_back(
    kuma: KumaWithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, record = await kuma.fingerprint(), MemoryRecord()
    kuma.server.ask("INSERT INTO tag (name, color) VALUES ('the last', '#000')")
    await kuma.stage(KUMA_DUMP.read_bytes(), record)

    with monkeypatch.context() as ends_with_its_container:
        ends_with_its_container.setattr(kuma.server, "stop", kuma.server.kill)
        await kuma.recipe.restore(record, NotedProgress())
        imported = kuma.server.ask("SELECT name FROM tag").splitlines()
        await kuma.recipe.undo(record, NotedProgress())
    went_back = kuma.server.ask("SELECT name FROM tag").splitlines()
    kuma.server.ask("DELETE FROM tag WHERE name = 'the last'")

    assert imported == ["prod", "team"]
    assert went_back == ["prod", "team", "the last"]
    assert (await kuma.fingerprint()).differences(before) == []
