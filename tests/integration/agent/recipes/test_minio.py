"""A MinIO server out and into another: everything arrives, and an undo brings everything back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.engines.minio.accounts import buckets_with_remote_targets
from agent.recipes.base import ExportOptions
from agent.recipes.minio import TAR
from common.errors import ArchiveWrongKindError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_data import (
    PASSWORDS,
    access,
    add_remote_target,
    fill,
    fill_otherwise,
    fill_users,
    users,
    view,
)
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

CHECKOUT = Path(__file__).parents[4]


async def test_everything_arrives_at_a_server_with_another_root_and_an_undo_takes_it_back(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio()
    target = start_minio(user="otheradmin", password="otherpass456")
    await fill(source)
    await fill_users(source)
    await fill_otherwise(target)
    wanted, before = await view(source), await view(target)
    rights = await access(source)
    app = MinioApp(target, tmp_path / "b", {"open_files": [str(_file(tmp_path / "theirs", source.password))]})

    exported = await MinioApp(source, tmp_path / "a").export()
    record = await app.import_file(exported.file)

    assert await view(target) == wanted
    assert await access(target) == rights
    assert await users(target) == ["alice", "bob", "off"]
    await app.recipe.undo(record, app.progress)
    assert await view(target) == before
    assert await users(target) == ["local"]
    assert app.leftovers() == []


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def test_an_archive_and_the_server_that_it_was_imported_into_have_one_fingerprint(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(), start_minio()
    await fill(source)
    await fill_otherwise(target)
    one, other = MinioApp(source, tmp_path / "a"), MinioApp(target, tmp_path / "b")
    different = await other.recipe.fingerprint(other.progress)

    exported = await one.export("tar.zst")
    record, preview = await other.stage(exported.file)
    await other.recipe.restore(record, other.progress)

    assert exported.fingerprint is not None
    assert exported.fingerprint == await one.recipe.fingerprint(one.progress)
    assert exported.fingerprint == await other.recipe.fingerprint(other.progress)
    assert different.differences(exported.fingerprint)
    # Two objects are below others, which a listing hides; markers are versions too.
    listed = [found for bucket in (await view(source)).values() if isinstance(bucket, dict) for found in bucket]
    versions = sum(isinstance(found, tuple) for found in listed)
    assert exported.counts["versions"] == preview.counts_after["versions"] == versions + 2
    assert exported.counts["buckets"] == 5
    assert preview.counts_now == {"buckets": 2, "objects": 2, "versions": 2, "markers": 0, "bytes": 32}
    assert "Bucket own goes, with 1 versions." in preview.changes
    assert any("below other objects" in warning for warning in exported.warnings)


async def test_an_empty_server_goes_out_and_in(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    await fill_otherwise(target)
    app = MinioApp(target, tmp_path / "b")

    record = await app.import_file((await MinioApp(source, tmp_path / "a").export()).file)

    assert await view(target) == {}
    assert await users(target) == []
    await app.recipe.undo(record, app.progress)
    assert await users(target) == ["local"]


async def test_secrets_go_sealed_or_in_clear_or_not_at_all(start_minio: StartMinio, tmp_path: Path) -> None:
    source = start_minio()
    await fill_users(source)
    app = MinioApp(source, tmp_path)

    found = {way: await app.export(secrets=way) for way in ("sealed", "clear", "left-out")}

    shown = {way: PASSWORDS["alice"].encode() in exported.file for way, exported in found.items()}
    assert shown == {"sealed": False, "clear": True, "left-out": False}
    assert {way: exported.header.details["secrets"] for way, exported in found.items()} == {way: way for way in found}
    assert "in clear" in found["clear"].warnings[0]
    assert "not in the archive" in found["left-out"].warnings[0]
    record = await app.import_file(found["left-out"].file)
    assert await users(source) == ["alice", "bob", "off"]
    await app.recipe.undo(record, app.progress)


async def test_an_export_that_is_left_early_leaves_nothing(start_minio: StartMinio, tmp_path: Path) -> None:
    source = start_minio()
    await fill(source)
    app = MinioApp(source, tmp_path)
    options = ExportOptions(format=TAR, app_id="shop.files", file_name="files.tar")

    async with app.recipe.export_data(options, app.progress) as export:
        await anext(export.chunks)

    assert app.leftovers() == []


async def test_a_staged_import_that_is_dropped_leaves_nothing(start_minio: StartMinio, tmp_path: Path) -> None:
    source = start_minio()
    await fill(source)
    app = MinioApp(source, tmp_path)
    before = await view(source)
    record, _ = await app.stage((await app.export()).file)

    await app.recipe.discard(record)
    await app.recipe.discard(record)

    assert await view(source) == before
    assert app.leftovers() == []


async def test_locked_objects_hinder_neither_an_import_nor_its_undo(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    await fill(target)
    before = await view(target)
    app = MinioApp(target, tmp_path / "b")

    record = await app.import_file((await MinioApp(source, tmp_path / "a").export()).file)

    assert await view(target) == {}
    await app.recipe.undo(record, app.progress)
    assert await view(target) == before


async def test_a_server_is_described(start_minio: StartMinio, tmp_path: Path) -> None:
    source = start_minio()
    await fill(source)

    found = await MinioApp(source, tmp_path).recipe.describe()

    assert found.engine == "minio"
    assert found.engine_version
    assert found.can_export.is_possible
    assert found.can_import.is_possible
    assert not found.import_needs_app_stop
    assert found.estimated_bytes > 8 << 20


async def test_one_bucket_alone_is_imported_and_everything_else_stays(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    await fill(source)
    await fill_otherwise(target)
    before, wanted = await view(target), await view(source)
    app = MinioApp(target, tmp_path / "b")
    file = (await MinioApp(source, tmp_path / "a").export()).file

    record, preview = await app.stage(file, None, bucket="plain")
    await app.recipe.restore(record, app.progress)

    found = await view(target)
    assert found["plain"] == wanted["plain"]
    assert found["own"] == before["own"]
    assert found.keys() == before.keys()
    assert await users(target) == ["local"]
    assert [change.split(" ")[1] for change in preview.changes[:-1]] == ["plain"]
    await app.recipe.undo(record, app.progress)
    assert await view(target) == before
    assert app.leftovers() == []


async def test_one_bucket_that_was_not_there_comes_and_goes(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    await fill(source)
    app = MinioApp(target, tmp_path / "b")
    file = (await MinioApp(source, tmp_path / "a").export()).file

    record = await app.import_file(file, bucket="versions")

    assert (await view(target))["versions"] == (await view(source))["versions"]
    await app.recipe.undo(record, app.progress)
    assert await view(target) == {}


@pytest.mark.parametrize("format_name", ["tar", "s3"])
async def test_a_bucket_that_the_archive_does_not_hold_is_refused(
    format_name: str, start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio()
    await fill_otherwise(source)
    app, record = MinioApp(source, tmp_path), MemoryRecord()
    file = (await app.export(format_name)).file

    with pytest.raises(ArchiveWrongKindError, match="no bucket 'other'"):
        await app.stage(file, record, bucket="other")

    await app.recipe.discard(record)
    assert app.leftovers() == []


async def test_an_archive_opens_by_hand_as_its_page_says(start_minio: StartMinio, tmp_path: Path) -> None:
    source = start_minio()
    await fill(source)
    await fill_users(source)
    exported = await MinioApp(source, tmp_path).export()
    by_hand = MinioServer(source.program, directory=Path(), user=source.user, password=source.password)
    by_hand.prepare()
    try:
        subprocess.run(["tar", "-xf", "-", "-C", by_hand.drive], input=exported.file, check=True)
        shutil.rmtree(by_hand.drive / ".mathison-data")
        page = (CHECKOUT / "docs/recipes/minio.md").read_text()
        lines = page.partition("```python\n")[2].partition("```")[0]
        subprocess.run([sys.executable, "-c", lines, by_hand.drive, source.password], check=True)

        by_hand.start()

        assert await view(by_hand) == await view(source)
        assert await users(by_hand) == ["alice", "bob", "off"]
    finally:
        by_hand.close()


async def test_the_keys_of_remote_targets_are_sealed_with_their_buckets_settings(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source, remote = start_minio(), start_minio(password="the-remotes-password")
    await fill_otherwise(source)
    await add_remote_target(source, remote)
    app = MinioApp(source, tmp_path)

    sealed, clear = await app.export(), await app.export(secrets="clear")
    portable = await app.export("s3")
    before = await view(source)
    await app.import_file(sealed.file)

    assert b"the-remotes-password" not in sealed.file
    assert b"the-remotes-password" in clear.file
    assert clear.warnings[0].endswith("remote targets in the settings of replicated.")
    assert b"the-remotes-password" not in portable.file
    assert [warning for warning in portable.warnings if "Replication of replicated is" in warning]
    assert await view(source) == before
    async with client_of(source) as client:
        assert await buckets_with_remote_targets(client) == ["replicated"]
