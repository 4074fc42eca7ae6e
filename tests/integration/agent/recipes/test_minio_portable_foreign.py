"""Portable archives that no MinIO wrote: what a MinIO would show in another way is told before anything is imported."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping

import pytest

from common.errors import ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_archives import resealed
from tests.fixtures.minio_data import ENABLED, versions
from tests.fixtures.minio_servers import client_of
from tests.integration.agent.recipes.minio_shared import Source, Target, shared_target, source, target

__all__ = ["shared_target", "source", "target"]

OLDER, NEWER = "2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"


def _archive(source: Source, lines: list[Mapping[str, object]]) -> bytes:
    """The bucket `empty` with these lines; the content of a version is its file's name."""
    files = {}
    for number, line in enumerate(lines):
        if not line.get("is_marker"):
            files[f"versions/empty/{number}"] = (body := f"body {number}".encode())
            sums = {"sha256": hashlib.sha256(body).hexdigest(), "etag": "a", "size": len(body)}
            lines[number] = sums | {"modified": OLDER, "file": f"versions/empty/{number}"} | dict(line)
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return resealed(
        source.objects.file,
        lambda name, content: text if name == "metadata/empty.jsonl" else content,
        keeps_fingerprint=False,
        added=files | {"settings/empty/versioning.xml": ENABLED},
    )


async def test_a_preview_names_objects_that_no_listing_will_show(source: Source, target: Target) -> None:
    app = target.app
    keys = ["docs", "docs/deep/er", "docs/readme", "folder/", "folder/seen", "gone/below"]
    gone: Mapping[str, object] = {"key": "gone", "is_marker": True, "is_latest": True, "modified": NEWER}

    record, preview = await app.stage(_archive(source, [*({"key": key} for key in keys), gone]), None, bucket="empty")
    await app.recipe.restore(record, app.progress)

    async with client_of(target.server) as client:
        listed = {key for key, *_ in await versions(client, "empty")}
        read = [(await client.call("GET", "empty", key)).body for key in keys]
    await app.recipe.undo(record, app.progress)
    assert {*keys, "gone"} - listed == {"docs/deep/er", "docs/readme", "gone/below"}
    assert read == [f"body {number}".encode() for number in range(len(keys))]
    [warning] = preview.warnings
    assert warning.startswith(
        "3 objects lie below other objects: 'empty/docs/deep/er', 'empty/docs/readme', 'empty/gone/below'."
    )
    assert "no listing shows them" in warning


async def test_objects_below_others_in_a_bucket_that_is_not_wanted_are_not_named(
    source: Source, target: Target
) -> None:
    file = _archive(source, [{"key": "docs"}, {"key": "docs/readme"}])

    record, preview = await target.app.stage(file, None, bucket="versions")
    await target.app.recipe.discard(record)

    assert preview.warnings == ()


_V1, _V2 = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
_OTHER: Mapping[str, object] = {"key": "other", "is_latest": True}


def _line(version: str, modified: str, **fields: object) -> Mapping[str, object]:
    return {"key": "key", "version": version, "modified": modified, **fields}


@pytest.mark.parametrize(
    "lines",
    [
        [_line(_V1, OLDER, is_latest=True), _line(_V2, OLDER)],
        [_line(_V1, OLDER, is_latest=True, is_marker=True), _line(_V2, "2024-01-01T01:00:00+01:00")],
        [_line(_V1, OLDER, is_latest=True), _line(_V2, NEWER)],
        [_line(_V1, NEWER, is_latest=True), _line(_V2, OLDER, is_latest=True)],
        [_line(_V1, OLDER, is_latest=True), _OTHER, _line(_V2, OLDER)],
    ],
    ids=["equal times", "a delete marker", "an older one", "two", "apart"],
)
async def test_a_current_version_that_times_do_not_tell_is_refused_before_anything_is_changed(
    lines: list[Mapping[str, object]], source: Source, target: Target
) -> None:
    record = MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="'empty/key'"):
        await target.app.stage(_archive(source, list(lines)), record, bucket="empty")

    await target.app.recipe.discard(record)


@pytest.mark.parametrize(
    ("lines", "current"),
    [
        ([_line(_V1, "2024-01-01T00:00:00.000001Z", is_latest=True), _line(_V2, OLDER)], "body 0"),
        ([_line(_V2, OLDER), _OTHER, _line(_V1, "2024-01-01T00:00:00.000000001Z", is_latest=True)], "body 2"),
        ([_line(_V1, OLDER), _line(_V2, NEWER)], "body 1"),
    ],
    ids=["a microsecond", "a nanosecond, and apart", "not told"],
)
async def test_the_current_version_is_the_one_with_the_latest_time(
    lines: list[Mapping[str, object]], current: str, source: Source, target: Target
) -> None:
    app = target.app

    record = await app.import_file(_archive(source, list(lines)), bucket="empty")

    async with client_of(target.server) as client:
        assert (await client.call("GET", "empty", "key")).body == current.encode()
    await app.recipe.undo(record, app.progress)


async def test_a_version_whose_id_is_minios_own_for_none_stays_beside_the_one_without(
    source: Source, target: Target
) -> None:
    app = target.app
    lines = [_line(str(uuid.UUID(int=0)), NEWER, is_latest=True), _line("null", OLDER)]

    record = await app.import_file(_archive(source, lines), bucket="empty")

    async with client_of(target.server) as client:
        bodies = {
            version: (await client.call("GET", "empty", "key", query={"versionId": version})).body
            for _, version, *_ in await versions(client, "empty")
        }
    await app.recipe.undo(record, app.progress)
    assert sorted(bodies.values()) == [b"body 0", b"body 1"]
    assert bodies["null"] == b"body 1"
