"""What MinIO reads may lie in an xl.meta or in a part beside it: an archive is judged by what the server would read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio.drive.comparing import read_own
from agent.engines.minio.drive.configuration import DIRECTORY as CONFIGURATION
from agent.engines.minio.drive.layout import CONFIG
from agent.engines.minio.server.client import Client, RefusedError
from cli.exit_codes import ExitCode
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_archives import in_a_part, made_up, resealed, without
from tests.fixtures.minio_data import ENABLED, add_service_account, md5_of, put, view
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.verifying import verify
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

GOOD, OTHER = b"GOOD".ljust(64), b"OTHER".ljust(64)
SETTINGS = ".minio.sys/buckets/files/.metadata.bin"
LARGE = 300_000
"""Bytes that no xl.meta holds."""
SUSPENDED = ENABLED.replace(b"Enabled", b"Suspended")


@pytest.fixture
async def server(start_minio: StartMinio) -> MinioServer:
    server = start_minio()
    async with client_of(server) as client:
        await client.call("PUT", "files")
        await put(client, "files", "key", GOOD)
    return server


async def _export(server: MinioServer, directory: Path) -> bytes:
    return (await MinioApp(server, directory / "source").export(secrets="clear")).file


def _verify(archive: bytes, directory: Path) -> tuple[int, str]:
    file = directory / "archive.tar"
    file.write_bytes(archive)
    exit_code, said = verify(file)
    return exit_code, " ".join(said.split())


async def _put(client: Client, key: str, content: bytes) -> None:
    """An object of which a copy onto its own key takes no room, as without a checksum it would."""
    checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
    await put(client, "files", key, content, x_amz_checksum_sha256=checksum)


async def _copy(client: Client, key: str, version: str, number: int) -> None:
    """A version onto its own key, with other metadata."""
    headers = {
        "x-amz-copy-source": f"/files/{key}?versionId={version}",
        "x-amz-metadata-directive": "REPLACE",
        "x-amz-meta-number": str(number),
    }
    await client.call("PUT", "files", key, headers=headers)


async def test_an_object_with_another_content_in_its_xl_meta_is_said_to_be_damaged(
    server: MinioServer, tmp_path: Path
) -> None:
    archive = await _export(server, tmp_path)
    twofold = resealed(archive, without("files/key"), added=in_a_part("files/key", GOOD, inline=OTHER))
    app = MinioApp(server, tmp_path / "target")

    exit_code, said = _verify(twofold, tmp_path)
    whole = resealed(archive, without("files/key"), added=in_a_part("files/key", GOOD), keeps_fingerprint=False)
    record, preview = await app.stage(resealed(twofold, lambda _, content: content, keeps_fingerprint=False))
    await app.recipe.discard(record)

    assert (exit_code, "'files/key'" in said) == (ExitCode.ARCHIVE, True)
    assert [text for text in preview.warnings if "damaged" in text and "files/key" in text]
    assert "files/key" not in _verify(whole, tmp_path)[1]


async def test_an_object_of_several_parts_in_its_xl_meta_is_said_to_be_damaged(
    server: MinioServer, tmp_path: Path
) -> None:
    size = len(GOOD) // 2
    change = made_up("files/key/xl.meta", PartNums=[1, 2], PartSizes=[size, size], PartASizes=[size, size])
    archive = resealed(await _export(server, tmp_path), change)

    exit_code, said = _verify(archive, tmp_path)

    assert (exit_code, "'files/key'" in said) == (ExitCode.ARCHIVE, True)


async def test_an_object_that_is_said_to_be_purged_is_not_proven(server: MinioServer, tmp_path: Path) -> None:
    purged = {"x-minio-internal-inline-data": b"true", "x-minio-internal-purgestatus": b"arn=PENDING;"}
    change = made_up("files/key/xl.meta", MetaSys=purged)
    archive = resealed(await _export(server, tmp_path), change)

    exit_code, said = _verify(archive, tmp_path)

    assert (exit_code, "does not hold what its fingerprint says" in said) == (ExitCode.DIFFERS, True)


async def test_what_a_server_leaves_in_an_xl_meta_is_damage_where_it_cannot_read_past_it(
    server: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:

    async with client_of(server) as client:
        for key in ("deleted", "overwritten"):
            await _put(client, key, GOOD)
        await client.call("PUT", "files", query={"versioning": ""}, body=ENABLED)
        for key in ("deleted", "overwritten"):
            await _copy(client, key, "null", 1)
        await client.call("PUT", "files", query={"versioning": ""}, body=SUSPENDED)
        await client.call("DELETE", "files", "deleted", query={"versionId": "null"})
        await put(client, "files", "overwritten", os.urandom(LARGE))
        with pytest.raises(RefusedError, match="SlowDownRead"):
            await client.call("GET", "files", "overwritten")
    app = MinioApp(start_minio(), tmp_path / "target")

    exit_code, said = _verify(await _export(server, tmp_path), tmp_path)
    record, preview = await app.stage((tmp_path / "archive.tar").read_bytes())
    await app.recipe.restore(record, app.progress)

    assert exit_code == ExitCode.ARCHIVE
    assert "'files/overwritten'" in said
    assert "files/deleted" not in said
    [warning] = [text for text in preview.warnings if "damaged" in text]
    assert warning.startswith("1 versions were damaged")


async def test_versions_that_share_their_content_are_whole(server: MinioServer, tmp_path: Path) -> None:
    async with client_of(server) as client:
        await client.call("PUT", "files", query={"versioning": ""}, body=ENABLED)
        await _put(client, "large", os.urandom(LARGE))
        version = (await client.call("HEAD", "files", "large")).headers["x-amz-version-id"]
        for number in range(2):
            await _copy(client, "large", version, number)
        parts = list((server.drive / "files" / "large").rglob("part.1"))

    exit_code, said = _verify(await _export(server, tmp_path), tmp_path)

    assert len(parts) == 1
    assert (exit_code, "It holds what its fingerprint says" in said) == (ExitCode.OK, True)


async def test_an_object_whose_content_is_nowhere_is_not_proven(server: MinioServer, tmp_path: Path) -> None:
    async with client_of(server) as client:
        await put(client, "files", "large", os.urandom(LARGE))
    archive = resealed(await _export(server, tmp_path), made_up("files/large/xl.meta", DDir=bytes(16)))

    exit_code, said = _verify(archive, tmp_path)

    assert (exit_code, "'files/large'" in said) == (ExitCode.ARCHIVE, True)


@pytest.mark.parametrize("directory", [CONFIGURATION, SETTINGS], ids=["configuration", "settings"])
async def test_one_of_the_servers_own_files_with_two_contents_is_refused_by_name(
    directory: str, server: MinioServer, tmp_path: Path
) -> None:
    content = read_own(server.drive / directory)
    archive = await _export(server, tmp_path)
    archive = resealed(archive, without(directory), added=in_a_part(directory, content, inline=content[::-1]))
    app, record, before = MinioApp(server, tmp_path / "target"), MemoryRecord(), await view(server)
    name = directory if directory == CONFIGURATION else "the settings of bucket 'files'"

    with pytest.raises(ArchiveDamagedError, match=name) as refusal:
        await app.stage(archive, record)
    await app.recipe.discard(record)

    assert "Nothing was changed" in refusal.value.text
    assert name in _verify(archive, tmp_path)[1]
    assert (await view(server), app.leftovers()) == (before, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"ID": bytes(range(16))},
        {"MetaSys": {"X-Minio-Internal-compression": b"klauspost/compress/s2"}},
        {"MetaSys": {"purgestatus": b"arn=PENDING;"}},
        {
            "MetaSys": {
                "x-minio-internal-transition-status": b"complete",
                "x-minio-internal-transition-tier": b"COLD",
            }
        },
    ],
    ids=["with an id", "compressed", "to be purged", "in a tier"],
)
async def test_one_that_is_kept_otherwise_than_a_server_does_is_refused_by_name(
    fields: dict[str, Any], server: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    format_file = f"{CONFIG}/iam/format.json"
    added = in_a_part(format_file, read_own(server.drive / format_file), **fields)
    archive = resealed(await _export(server, tmp_path), without(format_file), added=added)
    app, record = MinioApp(start_minio(), tmp_path / "target"), MemoryRecord()

    with pytest.raises(ArchiveDamagedError, match=r"format\.json.* \(it is kept otherwise than MinIO keeps any\)"):
        await app.stage(archive, record)
    await app.recipe.discard(record)

    assert "kept otherwise" in _verify(archive, tmp_path)[1]
    assert app.leftovers() == []


async def test_a_configuration_in_a_part_is_read_like_any_other(
    server: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    told = [{"key": "enable", "value": "on"}, {"key": "endpoint", "value": "http://sömebody.example"}]
    sites = {"srState": {"peers": {"one": {"endpoint": "http://elsewhere.example"}}}}
    files = {
        CONFIGURATION: {"audit_webhook": {"one": told}, "region": {"_": [{"key": "comment", "value": "x" * LARGE}]}},
        f"{CONFIG}/site-replication/state.json": sites,
    }
    added = {
        name: file for path, one in files.items() for name, file in in_a_part(path, json.dumps(one).encode()).items()
    }
    archive = resealed(await _export(server, tmp_path), without(CONFIGURATION), added=added)
    app = MinioApp(start_minio(), tmp_path / "target")

    record, preview = await app.stage(archive)
    await app.recipe.discard(record)

    told_of = " ".join(preview.warnings)
    assert "tell 'audit_webhook http://sömebody.example' of what it does" in told_of
    assert "replicates all that it has with 'http://elsewhere.example'" in told_of


async def test_a_service_account_in_a_part_that_is_called_as_this_root_is_refused_by_name(
    server: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    account = f"{CONFIG}/iam/service-accounts/orphan/identity.json"
    other, target = start_minio(user="other"), start_minio(user=server.user)
    async with client_of(server) as client:
        await add_service_account(client, "orphan", "a-secret-of-12")
    async with client_of(other) as client:
        await client.call("PUT", "files")
    added = in_a_part(account, read_own(server.drive / account))
    archive = resealed(await _export(other, tmp_path), lambda _, content: content, added=added)
    app, record = MinioApp(target, tmp_path / "target"), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=rf"'orphan'.* '{server.user}', and so is root called"):
        await app.stage(archive, record)
    await app.recipe.discard(record)

    assert (await view(target), app.leftovers()) == ({}, [])


async def test_a_bucket_with_many_rules_is_said_to_delete_by_age(
    server: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    rules = "".join(
        f"<Rule><ID>r{number}</ID><Status>Enabled</Status><Filter><Prefix>{number}/{'x' * 200}</Prefix></Filter>"
        "<Expiration><Days>3</Days></Expiration></Rule>"
        for number in range(900)
    )
    body = f"<LifecycleConfiguration>{rules}</LifecycleConfiguration>".encode()
    async with client_of(server) as client:
        await client.call("PUT", "files", query={"lifecycle": ""}, body=body, headers={"Content-MD5": md5_of(body)})
    assert list((server.drive / SETTINGS).glob("*/part.1"))
    app = MinioApp(start_minio(), tmp_path / "target")

    record, preview = await app.stage(await _export(server, tmp_path))
    await app.recipe.discard(record)

    assert [text for text in preview.warnings if "buckets files delete objects by their age" in text]
