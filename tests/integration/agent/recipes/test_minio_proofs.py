"""An archive of a MinIO carries its fingerprint, and is proven by going through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.replay.minio import replay
from agent.engines.replay.request import Request
from common.errors import ArchiveDamagedError
from common.fingerprints import Fingerprint
from common.seals import FingerprintFinder
from tests.fixtures.minio_archives import resealed
from tests.integration.agent.recipes.minio_apps import Exported
from tests.integration.agent.recipes.minio_shared import Source, source

__all__ = ["source"]


def _carried(archive: bytes) -> Fingerprint:
    finder = FingerprintFinder()
    finder.add(archive)
    found = finder.fingerprint()
    assert found is not None
    return found


async def _found(archive: bytes, scheme: str, directory: Path) -> Fingerprint:
    (directory / "archive.tar").write_bytes(archive)
    return (await replay(Request(file=str(directory / "archive.tar"), scheme=scheme))).fingerprint


@pytest.mark.parametrize("format_name", ["drive", "objects"])
async def test_an_archive_is_proven_by_going_through_it(format_name: str, source: Source, tmp_path: Path) -> None:
    exported: Exported = getattr(source, format_name)

    carried = _carried(exported.file)
    found = await _found(exported.file, carried.scheme, tmp_path)

    assert carried == exported.fingerprint
    assert carried.differences(found) == []
    assert carried.parts.keys() == {f"bucket {name}" for name in ("plain", "empty", "versions", "suspended", "locked")}


async def test_an_archive_of_a_drive_without_a_part_of_an_object_is_not_proven(source: Source, tmp_path: Path) -> None:
    file = resealed(
        source.drive.file,
        lambda name, content: None if name.startswith("plain/size/3145728/") and "part." in name else content,
    )

    with pytest.raises(ArchiveDamagedError, match="plain/size/3145728"):
        await _found(file, "minio/1", tmp_path)


async def test_an_archive_with_other_content_than_its_lines_say_is_not_proven(source: Source, tmp_path: Path) -> None:
    file = resealed(
        source.objects.file, lambda name, content: content[::-1] if name == "buckets/plain/a/b" else content
    )

    with pytest.raises(ArchiveDamagedError, match="not what its metadata says"):
        await _found(file, "minio-s3/1", tmp_path)


async def test_an_archive_without_an_object_differs(source: Source, tmp_path: Path) -> None:
    file = resealed(source.drive.file, lambda name, content: None if name == "plain/metadata/xl.meta" else content)

    found = await _found(file, "minio/1", tmp_path)

    assert [text.partition(":")[0] for text in _carried(source.drive.file).differences(found)] == ["bucket plain"]
