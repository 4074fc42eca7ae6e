"""What an import of a MinIO keeps: missed when some of it is gone, and exchanged although the drive is full.

What needs room there says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.minio.directory import exporting
from agent.engines.minio.drive.exchange import Exchange
from agent.engines.minio.trees.sealing_below import close_below
from agent.engines.minio.trees.sealing_child import Work
from agent.engines.swapping import Side
from agent.recipes.base import Record, Recovered
from common.errors import NoSpaceError, NothingToUndoError, ToolFailedError, TransferNotFoundError
from tests.fixtures.minio_data import PASSWORDS, add_service_account, fill_otherwise, view
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.small_disks import NEEDS_A_SMALL_DISK, fill, tmpfs
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.minio_apps import MinioApp
from tests.integration.agent.recipes.minio_shared import Source, Target, shared_target, source, target
from tools.servers import MinioServer, minio, short_directory

__all__ = ["shared_target", "source", "target"]


def kept_in(app: MinioApp, record: Record) -> Path:
    return app.server.drive / ".mathison-data" / record.key / "new"


@variants("removed", ["own/old/xl.meta", "own/old", ".minio.sys/config/iam/users/local"])
async def test_an_undo_misses_what_is_gone_from_below(
    removed: str, source: Source, target: Target, tmp_path: Path
) -> None:
    app = target.app
    record = await app.import_file(source.drive.file)
    path = kept_in(app, record) / removed
    shutil.move(path, tmp_path / "away")

    with pytest.raises(NothingToUndoError, match="gone from the drive, or some of it"):
        await app.recipe.undo(record, app.progress)

    assert await view(target.server) == source.seen
    shutil.move(tmp_path / "away", path)
    await app.recipe.undo(record, app.progress)


async def test_an_undo_after_a_crash_misses_it_as_well(source: Source, target: Target, tmp_path: Path) -> None:
    app = target.app
    record, _ = await app.stage(source.drive.file)
    record.save(is_settled=False)
    Exchange(target.server.drive, record.key).bring(Side.IMPORTED)

    assert await app.recover(record) is Recovered.IMPORTED
    path = kept_in(app, record) / "own/old"
    shutil.move(path, tmp_path / "away")

    with pytest.raises(NothingToUndoError, match="or some of it"):
        await app.recipe.undo(record, app.progress)
    shutil.move(tmp_path / "away", path)
    await app.recipe.undo(record, app.progress)


async def test_what_was_staged_is_not_exchanged_without_what_is_gone_from_below(source: Source, target: Target) -> None:
    app = target.app
    record, _ = await app.stage(source.drive.file)
    shutil.rmtree(kept_in(app, record) / "plain/metadata")

    with pytest.raises(TransferNotFoundError, match="gone, or some of it"):
        await app.recipe.restore(record, app.progress)

    await app.recipe.discard(record)


async def test_an_undo_takes_what_came_since_and_what_cannot_be_counted_in_time(
    source: Source, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = target.app
    monkeypatch.setattr("agent.engines.noting._COUNT_SECONDS", -1.0)

    record = await app.import_file(source.drive.file)
    await app.recipe.undo(record, app.progress)


@pytest.fixture
def small() -> Iterator[MinioServer]:
    """A server on a small drive of its own; beside `drive` there is room to fill it."""
    with (
        short_directory("minio-small") as folder,
        tmpfs(folder / "disk", "-o", "size=64m,nr_inodes=3000"),
        MinioServer(minio(), directory=folder / "disk" / "minio") as server,
    ):
        yield server


@NEEDS_A_SMALL_DISK
@variants("only", ["", "plain"])
@pytest.mark.parametrize("of_files", [False, True])
async def test_a_full_drive_is_exchanged(
    of_files: bool, only: str, small: MinioServer, source: Source, tmp_path: Path
) -> None:
    await fill_otherwise(small)
    before = await view(small)
    app = MinioApp(small, tmp_path)
    record, _ = await app.stage(source.drive.file, None, **({"bucket": only} if only else {}))
    fill(small.directory, of_files=of_files)

    await app.recipe.restore(record, app.progress)
    imported = await view(small)
    fill(small.directory, of_files=of_files)
    await app.recipe.undo(record, app.progress)

    assert imported["plain"] == source.seen["plain"]
    assert await view(small) == before
    assert app.leftovers() == []


@NEEDS_A_SMALL_DISK
async def test_previous_data_is_put_back_on_a_full_drive_where_the_server_cannot_take_accounts_over(
    small: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    other = start_minio(user="other")
    async with client_of(other) as client:
        await add_service_account(client, "SAROOT", PASSWORDS["SAROOT"])
    exported = await MinioApp(other, tmp_path / "other").export(secrets="clear")
    await fill_otherwise(small)
    before = await view(small)
    app = MinioApp(small, tmp_path / "agent")
    record, _ = await app.stage(exported.file)
    fill(small.directory, of_files=False)

    with pytest.raises(ToolFailedError, match="The previous data is back in place"):
        await app.recipe.restore(record, app.progress)

    assert await view(small) == before
    await app.recipe.discard(record)
    assert app.leftovers() == []


@NEEDS_A_SMALL_DISK
async def test_an_import_of_an_older_agent_on_a_full_drive_stays_as_it_was(
    small: MinioServer, source: Source, tmp_path: Path
) -> None:
    await fill_otherwise(small)
    before = await view(small)
    app = MinioApp(small, tmp_path)
    record = await app.import_file(source.drive.file)
    (kept_in(app, record).parent / "exchange.json.new").unlink()
    fill(small.directory, of_files=True)

    with pytest.raises(NoSpaceError, match=r"has no room.*; the data is as it was") as caught:
        await app.recipe.undo(record, app.progress)

    assert "Free a little of it" in caught.value.next_step
    assert await view(small) == source.seen
    for path in small.directory.glob("fill *"):
        path.unlink()
    await app.recipe.undo(record, app.progress)
    assert await view(small) == before


@NEEDS_A_SMALL_DISK
@variants("secrets", ["sealed", "clear"])
@pytest.mark.parametrize("of_files", [False, True])
async def test_an_export_on_a_full_drive_says_that_it_is_full(
    of_files: bool, secrets: str, small: MinioServer, tmp_path: Path
) -> None:
    await fill_otherwise(small)
    app = MinioApp(small, tmp_path)
    fill(small.directory, of_files=of_files)

    with pytest.raises(NoSpaceError, match="The drive is full") as caught:
        await app.export(secrets=secrets)

    assert "`?format=s3`" in caught.value.next_step
    assert (await app.export("s3")).counts["objects"] == 2
    assert app.leftovers() == []


@NEEDS_A_SMALL_DISK
@pytest.mark.parametrize("of_files", [False, True])
async def test_an_export_that_has_no_room_to_seal_keys_says_that_the_drive_is_full(
    of_files: bool, small: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def on_a_full_drive(tree: Path, work: Work, passphrase: str) -> list[str]:
        fill(small.directory, of_files=of_files)
        return await close_below(tree, work, passphrase)

    await fill_otherwise(small)
    app = MinioApp(small, tmp_path)
    monkeypatch.setattr(exporting, "close_below", on_a_full_drive)

    with pytest.raises(NoSpaceError, match="The drive is full"):
        await app.export()

    assert app.leftovers() == []


@NEEDS_A_SMALL_DISK
async def test_an_export_whose_agent_has_no_room_for_names_says_so(start_minio: StartMinio, tmp_path: Path) -> None:
    server = start_minio()
    await fill_otherwise(server)

    with tmpfs(tmp_path / "agent", "-o", "size=1m,nr_inodes=20"):
        app = MinioApp(server, tmp_path / "agent")
        fill(tmp_path / "agent", of_files=True)
        with pytest.raises(NoSpaceError, match="the agent's state directory"):
            await app.export()
