"""An archive of a MinIO carries its fingerprint, and is proven by going through it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.engines.minio.drive.contents import BLOCK_BYTES
from agent.engines.replay.minio import replay
from agent.engines.replay.request import Request
from cli.exit_codes import ExitCode
from common.errors import ArchiveDamagedError
from common.fingerprints import Fingerprint
from common.seals import FingerprintFinder
from tests.fixtures.minio_archives import IN_CHECKSUM_ONLY, Change, made_up, resealed, reworded, rotted, rotted_sum
from tests.fixtures.minio_data import put
from tests.fixtures.minio_servers import KMS_KEY, StartMinio, client_of
from tests.fixtures.variants import variants
from tests.fixtures.verifying import verify
from tests.integration.agent.recipes.minio_apps import Exported, MinioApp
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
    buckets = {f"bucket {name}" for name in ("plain", "empty", "versions", "suspended", "locked")}
    assert {name for name in carried.parts if not name.startswith("settings of ")} == buckets


async def test_an_archive_of_a_drive_without_a_part_of_an_object_is_not_proven(source: Source, tmp_path: Path) -> None:
    file = resealed(
        source.drive.file,
        lambda name, content: None if name.startswith("plain/size/3145728/") and "part." in name else content,
    )

    with pytest.raises(ArchiveDamagedError, match="plain/size/3145728"):
        await _found(file, "minio/2", tmp_path)


@variants(
    ("key", "file", "at"),
    [
        ("a/b", "xl.meta", -1),
        ("size/131073", "xl.meta", IN_CHECKSUM_ONLY),
        ("size/131073", "part.1", -1),
        ("size/3145728", "part.1", BLOCK_BYTES + 100),
        ("parts", "part.2", -1),
        ("replica", "part.1", 1000),
    ],
    kept=[("a/b", "xl.meta", -1), ("parts", "part.2", -1)],
)
async def test_an_object_whose_content_rotted_on_the_drive_is_not_proven(
    key: str, file: str, at: int, source: Source, tmp_path: Path
) -> None:
    archive = resealed(source.drive.file, rotted(f"plain/{key}/", file, at))

    with pytest.raises(ArchiveDamagedError, match=f"plain/{key}"):
        await _found(archive, _carried(source.drive.file).scheme, tmp_path)
    exit_code, said = verify(tmp_path / "archive.tar")

    assert exit_code == ExitCode.ARCHIVE
    assert f"plain/{key}" in said


@variants(
    "change",
    [
        made_up("plain/parts/xl.meta", EcBSize=0),
        made_up("plain/parts/xl.meta", header={0: bytes(range(16))}),
        made_up("plain/parts/xl.meta", header={1: 1}),
    ],
    ids=["on which a server ends", "another id in its header", "another time in its header"],
)
async def test_an_object_that_no_server_wrote_so_is_not_proven(change: Change, source: Source, tmp_path: Path) -> None:
    (tmp_path / "archive.tar").write_bytes(resealed(source.drive.file, change))

    exit_code, said = verify(tmp_path / "archive.tar")

    assert exit_code == ExitCode.ARCHIVE
    assert "plain/parts" in said


_SETTINGS = ".minio.sys/buckets/versions/.metadata.bin/"
_ALICE = ".minio.sys/config/iam/users/alice/identity.json"


@variants(
    ("change", "name"),
    [
        (rotted(_SETTINGS, "xl.meta", IN_CHECKSUM_ONLY), "the settings of bucket 'versions'"),
        (rotted(_SETTINGS, "xl.meta", -1), "the settings of bucket 'versions'"),
        (rotted_sum(_SETTINGS), "the settings of bucket 'versions'"),
        (rotted(f"{_ALICE}/", "xl.meta", IN_CHECKSUM_ONLY), _ALICE),
        (rotted_sum(f"{_ALICE}/"), _ALICE),
        (lambda name, content: content[:50] if name == f"{_ALICE}/xl.meta" else content, _ALICE),
    ],
    ids=["settings", "content of settings", "sum of settings", "user", "sum of a user", "cut user"],
)
async def test_rotted_settings_and_users_are_not_proven(
    change: Change, name: str, source: Source, tmp_path: Path
) -> None:
    (tmp_path / "archive.tar").write_bytes(resealed(source.drive.file, change))

    exit_code, said = verify(tmp_path / "archive.tar")

    assert exit_code == ExitCode.ARCHIVE
    assert name in " ".join(said.split())


@variants("name", ["UPPER/x/xl.meta", "stray", ".minio.sys/evil"], kept=[".minio.sys/evil"])
async def test_what_belongs_on_no_drive_is_not_proven(name: str, source: Source, tmp_path: Path) -> None:
    file = tmp_path / "archive.tar"
    file.write_bytes(resealed(source.drive.file, lambda name, content: content, added={name: b"1"}))

    exit_code, said = verify(file)

    assert exit_code == ExitCode.ARCHIVE
    assert f"'{name}' does not belong there" in " ".join(said.split())


async def test_what_no_fingerprint_of_a_portable_archive_tells_is_said_not_to_be_proven(
    source: Source, tmp_path: Path
) -> None:
    (tmp_path / "archive.tar").write_bytes(source.objects.file)

    exit_code, said = verify(tmp_path / "archive.tar")

    assert exit_code == ExitCode.OK
    assert "Not proven: The ETags of objects, and which version of a key is its latest" in " ".join(said.split())


async def test_files_that_are_sealed_are_said_not_to_be_proven(source: Source, tmp_path: Path) -> None:
    (tmp_path / "archive.tar").write_bytes((await source.app.export()).file)

    exit_code, said = verify(tmp_path / "archive.tar")

    assert exit_code == ExitCode.OK
    assert re.search(r"Not proven: \d+ sealed files with users", " ".join(said.split()))


async def test_users_that_no_fingerprint_counts_are_said_not_to_be_proven(source: Source, tmp_path: Path) -> None:
    def without_bob(name: str, content: bytes) -> bytes | None:
        return None if name.startswith(".minio.sys/config/iam/users/bob/") else content

    whole, short = tmp_path / "whole.tar", tmp_path / "short.tar"
    whole.write_bytes(source.drive.file)
    short.write_bytes(resealed(source.drive.file, without_bob))

    for file, users in ((whole, 3), (short, 2)):
        exit_code, said = verify(file)
        told = " ".join(said.split())

        assert exit_code == ExitCode.OK
        assert "exactly what its app held" not in told
        assert "Not proven: Whether all users, policies and the configuration are in it" in told
        assert f"There are {users} users, 3 service accounts, " in told


async def test_what_no_sum_was_compared_with_is_counted(
    source: Source, tmp_path: Path, start_minio: StartMinio
) -> None:
    server = start_minio(environment={"MINIO_KMS_SECRET_KEY": KMS_KEY})
    async with client_of(server) as client:
        await client.call("PUT", "sse")
        for key, size in (("small", 100_000), ("large", 17 << 20)):
            await put(client, "sse", key, bytes(size), x_amz_server_side_encryption="AES256")
    exported = await MinioApp(server, tmp_path).export()
    (tmp_path / "archive.tar").write_bytes(exported.file)

    scheme = _carried(exported.file).scheme
    replayed = await replay(Request(file=str(tmp_path / "archive.tar"), scheme=scheme))

    assert replayed.unproven.startswith("The content of 1 version could not")
    exit_code, said = verify(tmp_path / "archive.tar")
    assert exit_code == ExitCode.OK
    assert "Not proven: The content of 1 version could not" in " ".join(said.split())


async def test_an_archive_with_other_content_than_its_lines_say_is_not_proven(source: Source, tmp_path: Path) -> None:
    file = resealed(
        source.objects.file, lambda name, content: content[::-1] if name == "buckets/plain/a/b" else content
    )

    with pytest.raises(ArchiveDamagedError, match="not what its metadata says"):
        await _found(file, "minio-s3/3", tmp_path)


async def test_an_archive_without_the_settings_of_a_bucket_differs(source: Source, tmp_path: Path) -> None:
    settings = ".minio.sys/buckets/versions/.metadata.bin/xl.meta"
    file = resealed(source.drive.file, lambda name, content: None if name == settings else content)

    found = await _found(file, "minio/2", tmp_path)

    assert [text.partition(":")[0] for text in _carried(source.drive.file).differences(found)] == ["bucket versions"]


async def test_a_portable_archive_without_settings_differs(source: Source, tmp_path: Path) -> None:
    settings = "settings/plain/policy.json"
    file = resealed(source.objects.file, lambda name, content: None if name == settings else content)

    found = await _found(file, "minio-s3/3", tmp_path)

    differing = _carried(source.objects.file).differences(found)
    assert [text.partition(":")[0] for text in differing] == ["settings of bucket plain"]


async def test_an_archive_whose_bucket_has_another_policy_differs(source: Source, tmp_path: Path) -> None:
    settings = ".minio.sys/buckets/plain/.metadata.bin/"
    file = resealed(source.drive.file, reworded(settings, b"s3:GetObject", b"s3:PutObject"))

    found = await _found(file, "minio/2", tmp_path)

    assert [text.partition(":")[0] for text in _carried(source.drive.file).differences(found)] == ["bucket plain"]


async def test_an_archive_without_an_object_differs(source: Source, tmp_path: Path) -> None:
    file = resealed(source.drive.file, lambda name, content: None if name == "plain/metadata/xl.meta" else content)

    found = await _found(file, "minio/2", tmp_path)

    assert [text.partition(":")[0] for text in _carried(source.drive.file).differences(found)] == ["bucket plain"]
