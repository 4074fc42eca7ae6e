"""What an export holds opens with the programs that people have, and what goes in comes out."""

from __future__ import annotations

import gzip
import subprocess

import psycopg
import pytest

from agent.engines.pg.exports.fingerprint import Fingerprint
from tests.acceptance.world import DATABASE_ID, VOLUME_ID, World
from tools.demo import database_content, volume_content
from tools.demo.ledger import read_ledger

HOLDS_NOTHING_UP = True
OTHER_DATABASE = "loaded_by_psql"


def test_psql_of_the_servers_version_loads_an_export_made_with_curl(world: World) -> None:
    archive = world.folder / "by-curl.sql.gz"
    server = world.database.server
    done = world.curl(f"/api/deployments/{DATABASE_ID}/export-data", "--output", archive)
    assert done.returncode == 0, done.stderr
    server.psql(f"CREATE DATABASE {OTHER_DATABASE}")

    try:
        loaded = subprocess.run(
            [server.install.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1"],
            input=gzip.decompress(archive.read_bytes()),
            env=server.environment(OTHER_DATABASE),
            capture_output=True,
            check=False,
        )

        assert loaded.returncode == 0, loaded.stderr
        found = world.content_of_database(OTHER_DATABASE)
        original = world.content(DATABASE_ID)
        assert isinstance(original, Fingerprint)
        assert found.differences(original) == []
    finally:
        server.psql(f"DROP DATABASE {OTHER_DATABASE}")


def test_pg_restore_lists_an_export_in_custom_format(world: World) -> None:
    archive = world.export(DATABASE_ID, format="custom")

    listed = subprocess.run(
        [world.database.server.install.program("pg_restore"), "--list", archive],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "TABLE DATA sales orders" in listed.stdout
    assert "Öffnungszeiten" in listed.stdout


def test_tar_lists_an_export_of_a_volume(world: World) -> None:
    archive = world.folder / "by-curl.tar"
    done = world.curl(f"/api/deployments/{VOLUME_ID}/export-data", "--output", archive)
    assert done.returncode == 0, done.stderr

    listed = subprocess.run(["tar", "--list", "--file", archive], capture_output=True, text=True, check=True)

    names = {name.removeprefix("./") for name in listed.stdout.splitlines()}
    assert "ledger.sqlite" in names
    assert "odd/program.sh" in names
    assert not any(name.startswith("ledger.sqlite-") for name in names)


@pytest.mark.parametrize("app_id", [DATABASE_ID, VOLUME_ID])
def test_content_is_equal_after_an_export_a_wipe_an_import_and_after_an_undo(world: World, app_id: str) -> None:
    original = world.content(app_id)
    archive = world.export(app_id)
    wipe(world, app_id)
    wiped = world.content(app_id)
    assert wiped != original

    imported = world.import_(app_id, archive)

    assert imported.status == 200, imported.body
    assert world.content(app_id) == original
    undone = world.ask("POST", f"/api/deployments/{app_id}/undo-import")
    assert undone.status == 200, undone.body
    assert world.content(app_id) == wiped
    world.replace(app_id, archive)
    assert world.content(app_id) == original


def test_an_imported_database_is_the_apps_own_again(world: World) -> None:
    world.replace(DATABASE_ID, world.export(DATABASE_ID))

    with psycopg.connect(world.database.dsn) as app:
        app.execute("UPDATE sales.orders SET state = 'returned' WHERE id = 1")
        app.execute("CREATE TABLE sales.later (id int)")
        app.execute("DROP TABLE sales.later")
        app.rollback()
        owner = app.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
        assert owner.fetchone() == (world.database.role,)


def test_the_volumes_app_works_on_with_what_was_imported(world: World) -> None:
    archive = world.export(VOLUME_ID)
    transfers_before = read_ledger(world.volume.directory).transfers
    wipe(world, VOLUME_ID)

    world.replace(VOLUME_ID, archive)

    assert world.volume.pid != 0
    ledger = read_ledger(world.volume.directory)
    assert ledger.faults == ()
    assert ledger.transfers >= transfers_before - 1000
    assert ledger.transfers > 0


def wipe(world: World, app_id: str) -> None:
    """Lose everything."""
    if app_id == DATABASE_ID:
        database_content.wipe(world.database.dsn)
    else:
        world.volume.stop_program()
        volume_content.wipe(world.volume.directory)
        world.volume.start_program()
