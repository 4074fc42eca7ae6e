"""A MinIO server out and into another: everything arrives, and an undo brings everything back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio.directory import swap
from agent.engines.minio.portable import way as portable_way
from agent.recipes.base import ExportOptions, ItemChanges
from agent.recipes.minio import TAR
from common.errors import ArchiveWrongKindError, NothingToUndoError, TransferNotFoundError
from tests.fakes.imports import FullRecord, MemoryRecord
from tests.fixtures.minio_data import (
    ENABLED,
    EXPIRY,
    PASSWORDS,
    access,
    fill_otherwise,
    md5_of,
    put,
    users,
    view,
)
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.minio_apps import RESERVED, MinioApp
from tests.integration.agent.recipes.minio_shared import Source, Target, shared_target, source, target
from tools.servers import MinioServer

__all__ = ["shared_target", "source", "target"]

CHECKOUT = Path(__file__).parents[4]


async def test_everything_arrives_at_a_server_with_another_root_and_an_undo_takes_it_back(
    source: Source, target: Target
) -> None:
    app = target.app

    record, preview = await app.stage(source.drive.file)
    await app.recipe.restore(record, app.progress)

    assert await view(target.server) == source.seen
    assert await access(target.server) == source.rights
    assert await users(target.server) == ["alice", "bob", "off"]
    fingerprint = await app.recipe.fingerprint(app.progress)
    assert fingerprint == source.drive.fingerprint == await source.app.recipe.fingerprint(app.progress)
    await app.recipe.undo(record, app.progress)
    assert (await app.recipe.fingerprint(app.progress)).differences(fingerprint)
    # Two objects are below others, which a listing hides; markers are versions too.
    listed = [found for bucket in source.seen.values() if isinstance(bucket, dict) for found in bucket]
    versions = sum(isinstance(found, tuple) for found in listed)
    assert source.drive.counts["versions"] == preview.counts_after["versions"] == versions + 2
    assert source.drive.counts["buckets"] == 5
    assert preview.counts_now == {"buckets": 2, "objects": 2, "versions": 2, "markers": 0, "bytes": 32}
    assert "Bucket own goes, with 1 versions." in preview.changes
    assert any("below other objects" in warning for warning in source.drive.warnings)
    assert preview.items["buckets"] == ItemChanges(added=4, removed=1, changed=1)
    assert preview.items["objects"] == ItemChanges(added=source.drive.counts["objects"], removed=2)
    assert preview.items["users"] == ItemChanges(added=3, removed=1)
    assert preview.items["service_accounts"] == ItemChanges(added=3)
    assert preview.bridging == ""
    assert preview.room_bytes > source.drive.counts["bytes"]
    assert preview.swap_seconds > 1


async def test_a_preview_names_buckets_whose_settings_alone_change(start_minio: StartMinio, tmp_path: Path) -> None:
    app = MinioApp(start_minio(), tmp_path)
    async with client_of(app.server) as client:
        for bucket in ("changing", "staying"):
            await client.call("PUT", bucket)
            await put(client, bucket, "key", b"content")
        exported = await app.export()
        await client.call("PUT", "changing", query={"versioning": ""}, body=ENABLED)

    record, preview = await app.stage(exported.file)
    await app.recipe.discard(record)

    assert preview.changes[0] == "The settings of bucket changing change: versioning, locks, policy, rules or tags."
    assert not any("staying" in change for change in preview.changes)
    assert preview.items["buckets"] == ItemChanges(changed=1, same=1)


async def test_a_preview_tells_objects_that_change_from_those_that_stay(source: Source, target: Target) -> None:
    app = target.app
    own = await app.export(secrets="clear")
    async with client_of(target.server) as client:
        await put(client, "own", "new", b"new")
        await put(client, "plain", "old", b"changed")
    changed = await view(target.server)

    record, preview = await app.stage(own.file)
    await app.recipe.restore(record, app.progress)

    # "plain/old" has no versions, so another content is the same version changed.
    assert preview.items["buckets"] == ItemChanges(changed=2)
    assert preview.items["objects"] == ItemChanges(removed=1, changed=1, same=1)
    assert preview.items["versions"] == ItemChanges(removed=1, changed=1, same=1)
    assert preview.items["users"] == ItemChanges(same=1)
    assert await view(target.server) == target.before != changed
    await app.recipe.discard(record)


async def test_an_empty_server_goes_out_and_in(start_minio: StartMinio, target: Target, tmp_path: Path) -> None:
    app = target.app

    record = await app.import_file((await MinioApp(start_minio(), tmp_path).export(secrets="clear")).file)

    assert await view(target.server) == {}
    assert await users(target.server) == []
    await app.recipe.undo(record, app.progress)
    assert await users(target.server) == ["local"]


@variants("gone", ["new/own", "new/.minio.sys", "exchange.json", "all that new holds"])
async def test_previous_data_that_somebody_removed_some_of_is_not_brought_back(
    gone: str, source: Source, target: Target
) -> None:
    app = target.app
    record = await app.import_file(source.drive.file)
    area = target.server.drive / ".mathison-data" / record.key
    paths = list((area / "new").iterdir()) if gone == "all that new holds" else [area / gone]
    elsewhere = target.server.drive / "lost+found"
    elsewhere.mkdir()
    away = [(path.rename(elsewhere / path.name), path) for path in paths]

    with pytest.raises(NothingToUndoError, match="gone from the drive, or some of it"):
        await app.recipe.undo(record, app.progress)

    assert await view(target.server) == source.seen
    for moved, path in away:
        moved.rename(path)
    elsewhere.rmdir()
    await app.recipe.undo(record, app.progress)


async def test_secrets_go_sealed_or_in_clear_or_not_at_all(source: Source, target: Target) -> None:
    app = source.app

    found = {way: await app.export(secrets=way) for way in ("sealed", "left-out")} | {"clear": source.drive}
    record = await target.app.import_file(found["left-out"].file)

    shown = {way: PASSWORDS["alice"].encode() in exported.file for way, exported in found.items()}
    assert shown == {"sealed": False, "clear": True, "left-out": False}
    assert {way: exported.header.details["secrets"] for way, exported in found.items()} == {way: way for way in found}
    assert "in clear" in found["clear"].warnings[0]
    assert "not in the archive" in found["left-out"].warnings[0]
    assert await users(target.server) == ["local"]
    await target.app.recipe.undo(record, app.progress)


async def test_an_export_that_is_left_early_leaves_nothing(source: Source) -> None:
    app = source.app
    options = ExportOptions(format=TAR, app_id="shop.files", file_name="files.tar")

    async with app.recipe.export_data(options, app.progress) as export:
        await anext(export.chunks)

    assert app.leftovers() == []


async def test_a_staged_import_that_is_dropped_leaves_nothing(source: Source, target: Target) -> None:
    record, _ = await target.app.stage(source.drive.file)

    await target.app.recipe.discard(record)
    await target.app.recipe.discard(record)

    assert await view(target.server) == target.before


async def test_locked_objects_hinder_neither_an_import_nor_its_undo(target: Target, source: Source) -> None:
    app = source.app

    record = await app.import_file((await target.app.export(secrets="left-out")).file)

    assert await view(source.server) == target.before
    await app.recipe.undo(record, app.progress)
    assert await view(source.server) == source.seen


async def test_a_server_is_described(source: Source) -> None:
    found = await source.app.recipe.describe()

    assert found.engine == "minio"
    assert found.engine_version
    assert found.can_export.is_possible
    assert found.can_import.is_possible
    assert not found.import_needs_app_stop
    assert found.estimated_bytes > 8 << 20


async def _must_not_be(*_: object) -> None:
    raise AssertionError("the server is restarted")


async def test_one_bucket_alone_is_imported_without_a_restart_and_everything_else_stays(
    source: Source, start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "restart", _must_not_be)
    server = start_minio()
    await fill_otherwise(server)
    async with client_of(server) as client:
        await client.call("PUT", "plain", query={"versioning": ""}, body=ENABLED)
        await client.call("PUT", "plain", query={"lifecycle": ""}, headers={"content-md5": md5_of(EXPIRY)}, body=EXPIRY)
        before = await view(server)
        app = MinioApp(server, tmp_path)

        record, preview = await app.stage(source.drive.file, None, bucket="plain")
        await app.recipe.restore(record, app.progress)

        found = await view(server)
        assert found["plain"] == source.seen["plain"]
        assert found["own"] == before["own"]
        assert found.keys() == before.keys() | {"hidden"}
        assert await users(server) == ["local"]
        assert [" ".join(change.split(" ")[:4]) for change in preview.changes[:-1]] == [
            "Bucket plain changes: 1",
            "The settings of bucket",
        ]
        assert preview.items.keys() == {"buckets", "objects", "versions"}
        assert preview.swap_seconds < 1
        await put(client, "plain", "written since", b"since")
        await app.recipe.undo(record, app.progress)
        assert await view(server) == before
    assert app.leftovers() == []
    # What it told is what is on the drive.
    server.stop()
    server.start()
    assert await view(server) == before


@pytest.mark.parametrize("bucket", ["versions", "suspended", "locked"])
async def test_one_bucket_that_was_not_there_comes_and_goes_without_a_restart(
    bucket: str, source: Source, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "restart", _must_not_be)
    app = target.app

    record = await app.import_file(source.drive.file, bucket=bucket)

    assert (await view(target.server))[bucket] == source.seen[bucket]
    await app.recipe.undo(record, app.progress)


@pytest.mark.parametrize("format_name", ["tar", "s3"])
async def test_a_bucket_that_the_archive_does_not_hold_is_refused(
    format_name: str, source: Source, target: Target
) -> None:
    record = MemoryRecord()
    file = (source.drive if format_name == "tar" else source.objects).file

    with pytest.raises(ArchiveWrongKindError, match="no bucket 'other'"):
        await target.app.stage(file, record, bucket="other", locks="drop")

    await target.app.recipe.discard(record)


async def test_an_archive_opens_by_hand_as_its_page_says(source: Source) -> None:
    exported = await source.app.export()
    server = source.server
    by_hand = MinioServer(server.program, directory=Path(), user=server.user, password=server.password)
    by_hand.prepare()
    try:
        subprocess.run(["tar", "-xf", "-", "-C", by_hand.drive], input=exported.file, check=True)
        shutil.rmtree(by_hand.drive / ".mathison-data")
        page = (CHECKOUT / "docs/recipes/minio.md").read_text()
        lines = page.partition("```python\n")[2].partition("```")[0]
        subprocess.run([sys.executable, "-c", lines, by_hand.drive, server.password], check=True)

        by_hand.start()

        assert await view(by_hand) == source.seen
        assert await users(by_hand) == ["alice", "bob", "off"]
    finally:
        by_hand.close()


@pytest.mark.parametrize("way", ["drive", "objects"])
async def test_an_agent_whose_disk_is_full_once_the_data_is_in_place_has_imported_it(
    way: str, source: Source, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, record = target.app, FullRecord()
    module, name = (swap, "carry_out") if way == "drive" else (portable_way, "restore")
    await app.stage((source.drive if way == "drive" else source.objects).file, record, bucket="versions")
    step = getattr(module, name)

    async def step_and_fill(*arguments: Any, **options: Any) -> Any:
        found = await step(*arguments, **options)
        record.is_full = True
        return found

    with monkeypatch.context() as patch:
        patch.setattr(module, name, step_and_fill)
        await app.recipe.restore(record, app.progress)

    assert await view(target.server) != target.before
    record.is_full = False
    await app.recipe.undo(record, app.progress)


async def test_what_was_staged_and_removed_is_told(source: Source, target: Target) -> None:
    app = target.app
    record, _ = await app.stage(source.drive.file)
    shutil.rmtree(target.server.drive / RESERVED)

    with pytest.raises(TransferNotFoundError, match="What was staged is gone"):
        await app.recipe.restore(record, app.progress)

    await app.recipe.discard(record)
