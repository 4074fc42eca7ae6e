"""The portable format: out of any server, into buckets that are not there yet, and taken back by deleting them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio import portable_import
from agent.recipes.base import Recovered
from common.errors import (
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ServiceError,
    ToolFailedError,
)
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_archives import Change, resealed
from tests.fixtures.minio_data import HIDDEN, fill, fill_otherwise, put, view
from tests.fixtures.minio_servers import KMS_KEY, StartMinio, client_of
from tests.integration.agent.recipes.minio_apps import MinioApp

LOCKED = "locked"


def _without_date(found: dict[str, Any]) -> dict[str, Any]:
    """All but when buckets were made; and locks, which such an import leaves out."""
    kept = {name: bucket for name, bucket in found.items() if name not in ("hidden", LOCKED)}
    return {name: {key: value for key, value in bucket.items() if key != "created"} for name, bucket in kept.items()}


@pytest.mark.parametrize("drives", [1, 4])
async def test_all_versions_arrive_at_a_server_of_another_kind_and_an_undo_takes_them_away(
    drives: int, start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio()
    target = start_minio(user="otheradmin", password="otherpass456", drives=drives)
    await fill(source)
    async with client_of(target) as client:
        await client.call("PUT", "own")
        await put(client, "own", "old", b"old data")
    before = await view(target)
    app = MinioApp(target, tmp_path / "b")

    exported = await MinioApp(source, tmp_path / "a").export("s3")
    record, preview = await app.stage(exported.file, None, locks="drop")
    await app.recipe.restore(record, app.progress)

    found = await view(target)
    assert found.pop("own") == before["own"]
    assert _without_date(found) == _without_date(await view(source))
    assert "Bucket plain comes." in preview.changes
    assert preview.counts_after == exported.counts
    await app.recipe.undo(record, app.progress)
    assert await view(target) == before
    assert app.leftovers() == []


async def test_a_person_finds_objects_by_their_names(start_minio: StartMinio, tmp_path: Path) -> None:
    source = start_minio()
    await fill(source)

    exported = await MinioApp(source, tmp_path).export("s3")

    with tarfile.open(fileobj=io.BytesIO(exported.file)) as archive:
        names = archive.getnames()
        content = archive.extractfile("buckets/plain/a/b")
        lines = archive.extractfile("metadata/versions.jsonl")
        assert content is not None
        assert lines is not None
        assert content.read() == b"body of a/b"
        found = [json.loads(line) for line in lines]
    assert "buckets/plain/日本語/キー" in names
    assert "buckets/empty" in names
    assert "settings/plain/policy.json" in names
    assert {line["key"] for line in found} == {"from before", "many", "deleted"}
    assert sum(line.get("is_marker", False) for line in found) == 1
    assert exported.counts["markers"] == 2
    assert any("2 objects lie below other objects" in warning for warning in exported.warnings)
    assert not any(name.endswith("/".join(HIDDEN)) for name in names)


async def test_encrypted_objects_go_out_in_clear_and_are_encrypted_again(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio(environment={"MINIO_KMS_SECRET_KEY": KMS_KEY})
    target = start_minio(environment={"MINIO_KMS_SECRET_KEY": KMS_KEY.replace("a2tr", "bW1t")})
    async with client_of(source) as client:
        await client.call("PUT", "sse")
        await put(client, "sse", "key", b"secret" * 100_000, x_amz_server_side_encryption="AES256")

    exported = await MinioApp(source, tmp_path / "a").export("s3")
    await MinioApp(target, tmp_path / "b").import_file(exported.file)

    async with client_of(target) as client:
        answer = await client.call("GET", "sse", "key")
    assert answer.body == b"secret" * 100_000
    assert {name.lower(): value for name, value in answer.headers.items()}["x-amz-server-side-encryption"] == "AES256"


async def test_an_agent_that_does_not_see_the_drive_exports_in_the_portable_format_only(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio()
    await fill(source)
    app = MinioApp(source, tmp_path, {"directory": ""})

    exported = await app.export("s3")
    with pytest.raises(AppUnavailableError, match="does not see") as refusal:
        await app.export("tar")

    assert exported.counts["buckets"] == 5
    assert "?format=s3" in refusal.value.next_step
    assert any("cannot be seen" in warning for warning in exported.warnings)
    assert any("portable" in warning for warning in (await app.recipe.describe()).warnings)


async def test_a_bucket_that_is_there_already_is_not_touched(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    await fill_otherwise(source)
    await fill_otherwise(target)
    before = await view(target)
    app, record = MinioApp(target, tmp_path / "b"), MemoryRecord()
    file = (await MinioApp(source, tmp_path / "a").export("s3")).file

    with pytest.raises(ArchiveIncompatibleError, match="bucket own is there already"):
        await app.stage(file, record)

    await app.recipe.discard(record)
    assert await view(target) == before
    assert app.leftovers() == []


async def test_object_lock_is_refused_unless_locks_are_left_out(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    await fill(source)
    app = MinioApp(target, tmp_path / "b")
    file = (await MinioApp(source, tmp_path / "a").export("s3")).file

    with pytest.raises(ArchiveIncompatibleError, match="object lock") as refusal:
        await app.stage(file)

    assert "locks=drop" in refusal.value.next_step
    assert await view(target) == {}


def _without_a_file(name: str, content: bytes) -> bytes | None:
    return None if name == "buckets/own/old" else content


def _with_a_longer_file(name: str, content: bytes) -> bytes:
    return content + b"x" if name == "buckets/own/old" else content


def _without_lines(name: str, content: bytes) -> bytes | None:
    return None if name == "metadata/own.jsonl" else content


def _with_a_broken_line(name: str, content: bytes) -> bytes:
    return content[:20] if name == "metadata/own.jsonl" else content


def _with_a_file_elsewhere(name: str, content: bytes) -> bytes:
    return content.replace(b"buckets/own/old", b"settings/own/x") if name == "metadata/own.jsonl" else content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_a_file, "is missing"),
        (_with_a_longer_file, "size"),
        (_without_lines, "own.jsonl is missing"),
        (_with_a_broken_line, "line 1"),
        (_with_a_file_elsewhere, "does not say where"),
    ],
)
async def test_an_archive_that_does_not_hold_together_is_refused(
    change: Change, words: str, start_minio: StartMinio, tmp_path: Path
) -> None:
    server = start_minio()
    await fill_otherwise(server)
    app, record = MinioApp(server, tmp_path), MemoryRecord()
    before = await view(server)
    file = resealed((await app.export("s3")).file, change)

    with pytest.raises(ArchiveDamagedError, match=words):
        await app.stage(file, record)

    await app.recipe.discard(record)
    assert await view(server) == before
    assert app.leftovers() == []


def _with_other_content(name: str, content: bytes) -> bytes:
    return content[::-1] if name == "buckets/own/old" else content


async def test_what_the_server_refuses_half_way_leaves_nothing(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    await fill_otherwise(source)
    app = MinioApp(target, tmp_path / "b")
    file = resealed((await MinioApp(source, tmp_path / "a").export("s3")).file, _with_other_content)
    record, _ = await app.stage(file)

    with pytest.raises(ToolFailedError, match="own/old could not be stored"):
        await app.recipe.restore(record, app.progress)

    assert await view(target) == {}


async def test_a_bucket_that_a_client_makes_in_between_is_the_clients(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    await fill_otherwise(source)
    app = MinioApp(target, tmp_path / "b")
    record, _ = await app.stage((await MinioApp(source, tmp_path / "a").export("s3")).file)
    async with client_of(target) as client:
        await client.call("PUT", "plain")
        await put(client, "plain", "a client's", b"x")
    before = await view(target)

    with pytest.raises(ServiceError, match="plain is there already"):
        await app.recipe.restore(record, app.progress)

    assert await view(target) == before


async def test_what_a_killed_agent_made_is_deleted_by_the_next(
    start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = start_minio(), start_minio()
    await fill_otherwise(source)
    app = MinioApp(target, tmp_path / "b")
    record, _ = await app.stage((await MinioApp(source, tmp_path / "a").export("s3")).file)

    class KilledError(BaseException):
        """The process is gone."""

    async def killed(*arguments: object) -> None:
        raise KilledError

    with monkeypatch.context() as patches:
        patches.setattr(portable_import, "apply_settings", killed)
        with pytest.raises(KilledError):
            await app.recipe.restore(record, app.progress)
    assert await view(target) != {}

    assert await app.recover(record) is Recovered.PREVIOUS
    await app.recipe.discard(record)

    assert await view(target) == {}
    assert app.leftovers() == []
