"""An import and the server's disk: it stops before that is full, however the import goes and whoever may ask."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.pg.imports import green
from agent.engines.pg.server import room
from agent.engines.pg.server.connection import Login
from agent.recipes.base import Limits, Recovered
from agent.recipes.postgresql import PostgresqlRecipe
from agent.unsettled import UnsettledError
from common.errors import NoSpaceError
from tests.contract.agents import Agent, Launch
from tests.fakes.imports import MemoryRecord
from tests.fixtures.small_disks import NEEDS_A_SMALL_DISK, fill, tmpfs
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp
from tools.servers import PostgresServer, postgres, short_directory

DISK_BYTES = 400 << 20
LARGE_BYTES = 300 << 20
FREE_BYTES = 96 << 20
"""That has to stay free of it."""
# Autovacuum takes away the file without which a database on a full disk lets nobody in.
_LITTLE_LOG = {"min_wal_size": "32MB", "max_wal_size": "64MB", "autovacuum": "off"}
WAYS = ["", "CREATEDB", "CREATEDB CREATEROLE"]
"""Rights of the app's role, none of which may ask for the server's directory."""


@pytest.fixture(scope="module")
def small_server() -> Iterator[PostgresServer]:
    """A server all of whose data is on a small disk of its own."""
    with (
        short_directory("small") as folder,
        tmpfs(folder / "disk", "-o", f"size={DISK_BYTES},mode=755"),
        PostgresServer(postgres(17), directory=folder / "disk" / "pg", settings=_LITTLE_LOG) as server,
    ):
        yield server


def large_dump(app: PostgresApp) -> bytes:
    """Of one table with more rows than the disk has room for."""
    app.run("CREATE TABLE big (i int, v text)", as_app=True)
    text = app.dump("--no-owner").decode()
    app.run("DROP TABLE big", as_app=True)
    before, _, after = text.partition("FROM stdin;\n")
    row = "0123456789abcdef" * 64
    number = LARGE_BYTES // (len(row) + 8)
    return "".join([before, "FROM stdin;\n", *(f"{i}\t{row[i % 16 :]}\n" for i in range(number)), after]).encode()


async def _import(app: PostgresApp, content: bytes) -> MemoryRecord:
    record, _ = await app.stage(content)
    try:
        await app.recipe.restore(record, app.progress)
    except BaseException:
        await app.recipe.discard(record)
        raise
    return record


def _without_space(app: PostgresApp) -> None:
    app.limits = dataclasses.replace(Limits(), free_bytes=1 << 60)
    app.recipe = app.new_recipe()


@pytest.mark.parametrize("rights", ["CREATEDB", "CREATEDB CREATEROLE"])
async def test_a_role_that_may_not_ask_for_the_directory_is_guarded_too(make_app: MakeApp, rights: str) -> None:
    app = make_app(has_admin=False, rights=rights)
    app.run("CREATE TABLE t (a int)", as_app=True)
    archive = await app.export()
    _without_space(app)

    with pytest.raises(NoSpaceError, match=r"The disk of PostgreSQL at .* has \d+ MiB left at /"):
        await app.stage(archive)

    assert app.left_over() == []


async def test_an_import_within_the_database_is_guarded_too(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(has_admin=False)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    record, _ = await app.stage(await app.export())
    app.run("UPDATE t SET a = 2", as_app=True)
    rooms = iter([1 << 60, 0])
    monkeypatch.setattr(room, "_free_bytes", lambda _: next(rooms, 0))

    with pytest.raises(NoSpaceError, match=r"has 0 MiB left at /.*Nothing was changed"):
        await app.recipe.restore(record, app.progress)

    assert app.run("SELECT a FROM t") == [(2,)]
    await app.recipe.discard(record)
    assert app.left_over() == []


@variants("rights", WAYS)
async def test_where_the_disk_is_not_seen_a_preview_says_so(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, rights: str
) -> None:
    monkeypatch.setattr(room, "find_directory", lambda _: None)
    app = make_app(has_admin=False, rights=rights)
    app.run("CREATE TABLE t (a int)", as_app=True)

    said = (await app.recipe.describe()).warnings
    record, preview = await app.stage(await app.export())

    for warnings in (said, preview.warnings):
        [warning] = [one for one in warnings if one.startswith("The agent cannot see the disk of PostgreSQL at ")]
        assert f"role {app.role} may not ask for its directory" in warning
        assert "the setting data_directory" in warning
    await app.recipe.discard(record)


async def test_the_setting_names_the_directory(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_directory", lambda _: None)
    app = make_app(has_admin=False, rights="CREATEDB")
    app.run("CREATE TABLE t (a int)", as_app=True)
    archive = await app.export()
    app.settings["data_directory"] = str(app.server.data_directory)
    _without_space(app)

    assert not any("cannot see the disk" in one for one in (await app.recipe.describe()).warnings)
    with pytest.raises(NoSpaceError, match=f"MiB left at {app.server.data_directory}"):
        await app.stage(archive)


async def test_a_setting_with_another_servers_directory_is_told(make_app: MakeApp) -> None:
    app, other = make_app(has_admin=False), make_app(15)
    app.settings["data_directory"] = str(other.server.data_directory)

    warnings = (await app.new_recipe().describe()).warnings

    assert any(f"is {other.server.data_directory}, where no data of the server is seen" in one for one in warnings)


async def test_a_file_larger_than_the_room_is_told_before_it_is_loaded_within(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(has_admin=False)
    app.run("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 2100)", as_app=True)
    archive = await app.export()
    monkeypatch.setattr(room, "_free_bytes", lambda _: Limits().free_bytes + (1 << 20))

    record, preview = await app.stage(archive)

    assert any("The file makes 2 MiB of SQL text" in one and "257 MiB left at /" in one for one in preview.warnings)
    await app.recipe.discard(record)


@NEEDS_A_SMALL_DISK
@pytest.mark.parametrize("rights", WAYS)
async def test_the_server_goes_on_after_a_file_that_is_larger_than_its_disk(
    small_server: PostgresServer, tmp_path: Path, rights: str
) -> None:
    app = PostgresApp(small_server, tmp_path, rights=rights, has_admin=False)
    content = large_dump(app)
    app.run("CREATE TABLE precious AS SELECT 1 AS a", as_app=True)
    app.limits = dataclasses.replace(Limits(), free_bytes=FREE_BYTES)
    app.recipe = app.new_recipe()

    with pytest.raises(NoSpaceError, match="MiB left at"):
        await _import(app, content)

    small_server.psql("CHECKPOINT")
    assert app.run("SELECT a FROM precious") == [(1,)]
    assert app.left_over() == []
    await app.close()


@NEEDS_A_SMALL_DISK
async def test_a_server_whose_disk_is_full_and_not_seen_gets_its_room_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log is on another disk; a checkpoint that has no room in the data directory still ends the server."""
    monkeypatch.setattr(room, "find_directory", lambda _: None)
    settings = {"max_wal_size": "4GB", "checkpoint_timeout": "1h", "autovacuum": "off"}
    with (
        short_directory("small") as folder,
        tmpfs(folder / "disk", "-o", f"size={200 << 20},mode=755"),
        PostgresServer(postgres(17), directory=folder / "disk" / "pg", settings=settings) as server,
    ):
        server.stop()
        log = server.data_directory / "pg_wal"
        owner = log.stat()
        shutil.move(log, folder / "log")
        for path in [folder / "log", *(folder / "log").rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid)
        log.symlink_to(folder / "log")
        server.start()
        app = PostgresApp(server, tmp_path, rights="CREATEDB", has_admin=False)
        content = large_dump(app)
        app.run("CREATE TABLE precious AS SELECT 1 AS a", as_app=True)
        empty = green.empty

        async def fill_first(login: Login) -> None:
            # What was not enough for another piece of the table is taken by others.
            await asyncio.to_thread(fill, folder / "disk", of_files=False)
            await empty(login)

        monkeypatch.setattr(green, "empty", fill_first)

        with pytest.raises(NoSpaceError, match=r"The disk of the PostgreSQL server is full"):
            await _import(app, content)

        server.psql("CHECKPOINT")
        assert app.run("SELECT a FROM precious") == [(1,)]
        assert app.left_over() == []
        await app.close()


@NEEDS_A_SMALL_DISK
@pytest.mark.parametrize("rights", ["CREATEDB", "CREATEDB CREATEROLE"])
@pytest.mark.parametrize("is_undone", [False, True], ids=["confirm", "undo"])
async def test_what_is_dropped_on_a_full_disk_makes_its_room_first(
    small_server: PostgresServer, tmp_path: Path, rights: str, is_undone: bool
) -> None:
    app = PostgresApp(small_server, tmp_path, rights=rights, has_admin=False)
    app.run("CREATE TABLE t AS SELECT repeat('x', 1000) AS a FROM generate_series(1, 80000)", as_app=True)
    app.limits = dataclasses.replace(Limits(), free_bytes=1 << 20)
    app.recipe = app.new_recipe()
    if is_undone:
        archive = await app.export()
        app.run("TRUNCATE t; INSERT INTO t VALUES ('small')", as_app=True)
    else:
        archive = app.dump("--no-owner", "--schema-only")
    record = await app.bring_in(archive)
    # What the log needs next is there already.
    small_server.psql("CHECKPOINT")
    fill(small_server.directory.parent, of_files=False)

    try:
        await (app.recipe.undo(record, app.progress) if is_undone else app.recipe.discard(record))
    finally:
        for file in small_server.directory.parent.glob("fill *"):
            file.unlink()

    small_server.psql("CHECKPOINT")
    assert app.run("SELECT a FROM t LIMIT 1") == ([("small",)] if is_undone else [])
    assert app.left_over() == []
    await app.close()


@NEEDS_A_SMALL_DISK
@pytest.mark.parametrize("rights", ["CREATEDB", "CREATEDB CREATEROLE"])
async def test_a_database_that_lets_nobody_in_on_a_full_disk_is_exchanged_back(
    small_server: PostgresServer, tmp_path: Path, rights: str
) -> None:
    app = PostgresApp(small_server, tmp_path, rights=rights, has_admin=False)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    record = await app.bring_in(archive)
    number = small_server.psql(f"SELECT oid FROM pg_database WHERE datname = '{app.database}'").strip()
    small_server.psql("CHECKPOINT")
    (small_server.data_directory / "base" / number / "pg_internal.init").unlink()
    fill(small_server.directory.parent, of_files=False)

    try:
        with pytest.raises(NoSpaceError, match=rf"is full, and so it lets nobody into database {app.database}: could"):
            await app.recipe.fingerprint(app.progress)
        with pytest.raises(UnsettledError, match="it makes a checkpoint"):
            await app.recipe.undo(record, app.progress)
    finally:
        for file in small_server.directory.parent.glob("fill *"):
            file.unlink()

    assert await app.recipe.recover(record) is Recovered.PREVIOUS
    assert app.run("SELECT a FROM t") == [(2,)]
    # It could not be emptied, and to drop it with its content could have stopped the server.
    assert f"database mathison_new_{record.key}" in app.left_over()
    await app.recipe.discard(record)
    assert app.left_over() == []
    await app.close()


async def test_a_database_is_not_dropped_as_long_as_that_could_stop_the_server(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    record = await app.bring_in(await app.export())

    with monkeypatch.context() as patch:
        patch.setattr(room, "_free_bytes", lambda _: 3 << 20)
        with pytest.raises(NoSpaceError, match=r"3 MiB left at /.* drops mathison_kept_\w+ it makes a checkpoint"):
            await app.recipe.discard(record)

    assert app.left_over() == [f"database mathison_kept_{record.key}"]
    await app.recipe.discard(record)
    assert app.left_over() == []


async def test_what_an_undo_cannot_drop_yet_is_dropped_as_soon_as_there_is_room(
    app: PostgresApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    agent = Agent(Launch(PostgresqlRecipe, app.settings, None, tmp_path / "agent"))
    await agent.start()
    try:
        await agent.import_("one", archive)

        with monkeypatch.context() as patch:
            patch.setattr(room, "_free_bytes", lambda _: 3 << 20)
            undone = await agent.undo()
            await agent.transfers.housekeeping.tidy()
            kept = app.left_over()
        await agent.transfers.housekeeping.tidy()

        assert undone.undone
        assert app.run("SELECT a FROM t") == [(2,)]
        assert [one.rpartition("_")[0] for one in kept] == ["database mathison_new"]
        assert app.left_over() == []
        assert agent.state("one") == undone
    finally:
        await agent.close()


async def test_a_role_that_may_not_ask_for_the_servers_number_does_without(make_app: MakeApp) -> None:
    app = make_app(has_admin=False)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    app.run("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")

    found = await app.recipe.describe()

    assert found.can_import.obstacle == ""
    assert any("permission denied for function pg_control_system" in one for one in found.warnings)
