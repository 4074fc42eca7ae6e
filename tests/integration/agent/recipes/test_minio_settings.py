"""Settings of buckets that are another bucket's, or that a server cannot read, change nothing that stays."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio.drive import bucket_settings
from agent.engines.minio.server import madmin
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_archives import Change, rebuilt, resealed, reworded
from tests.fixtures.minio_data import ENABLED, put, view
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.variants import variants
from tests.fixtures.verifying import verify
from tests.integration.agent.recipes.minio_apps import RESERVED, MinioApp
from tools.servers import MinioServer, minio, short_directory

BUCKET, OTHER = "mine00", "others"
"""Names of the same length."""
SETTINGS = f".minio.sys/buckets/{BUCKET}/"
NO_XML = reworded(SETTINGS, b"<VersioningConfiguration", b"<VersioningConfiguratiox")
NO_POLICY = reworded(SETTINGS, b'"Version":"2012-10-17"', b'"Version":"2012-10-1X"')
OTHERS_POLICY = reworded(SETTINGS, f"arn:aws:s3:::{BUCKET}/*".encode(), f"arn:aws:s3:::{OTHER}/*".encode())


@dataclass
class Target:
    """A server with two buckets, and an archive of another server that has the first of them."""

    server: MinioServer
    directory: Path
    archive: bytes
    before: dict[str, Any]

    @property
    def app(self) -> MinioApp:
        return MinioApp(self.server, self.directory)

    async def require_unchanged(self) -> None:
        assert await view(self.server) == self.before
        # What it has in memory is what is on its drive.
        self.server.stop()
        self.server.start()
        assert await view(self.server) == self.before
        assert self.app.leftovers() == []


async def _fill(server: MinioServer, bucket: str, tag: str) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["*"]},
                "Action": ["s3:GetObject"],
                "Resource": [f"arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
    tags = f"<Tagging><TagSet><Tag><Key>of</Key><Value>{tag}</Value></Tag></TagSet></Tagging>"
    async with client_of(server) as client:
        await client.call("PUT", bucket)
        await client.call("PUT", bucket, query={"versioning": ""}, body=ENABLED)
        await client.call("PUT", bucket, query={"policy": ""}, body=json.dumps(policy).encode())
        await client.call("PUT", bucket, query={"tagging": ""}, body=tags.encode())


@pytest.fixture(scope="module")
def archive() -> Iterator[Callable[[], Awaitable[bytes]]]:
    with short_directory("minio-archive") as folder, MinioServer(minio()) as server:
        made: list[bytes] = []

        async def make() -> bytes:
            if not made:
                # Nothing in it, so that there is nothing to read of it but its settings.
                await _fill(server, BUCKET, "archive")
                made.append((await MinioApp(server, folder).export(secrets="clear")).file)
            return made[0]

        yield make


@pytest.fixture
async def target(archive: Callable[[], Awaitable[bytes]], start_minio: StartMinio, tmp_path: Path) -> Target:
    server = start_minio()
    await _fill(server, OTHER, "others")
    await _fill(server, BUCKET, "previous")
    async with client_of(server) as client:
        for bucket in (OTHER, BUCKET):
            await put(client, bucket, "key", b"previous")
    return Target(server, tmp_path / "agent", await archive(), await view(server))


def _misnamed(archive: bytes) -> bytes:
    return rebuilt(archive, reworded(SETTINGS, b"Name\xa6" + BUCKET.encode(), b"Name\xa6" + OTHER.encode()))


@pytest.mark.parametrize("options", [{}, {"bucket": BUCKET}], ids=["everything", "one bucket"])
async def test_settings_that_are_another_buckets_are_refused_by_name(options: dict[str, str], target: Target) -> None:
    app, record = target.app, MemoryRecord()

    with pytest.raises(ArchiveDamagedError, match=f"settings of bucket '{BUCKET}' .* of bucket '{OTHER}'"):
        await app.stage(_misnamed(target.archive), record, **options)

    await app.recipe.discard(record)
    await target.require_unchanged()


async def test_verify_names_them_too(target: Target, tmp_path: Path) -> None:
    file = resealed(target.archive, reworded(SETTINGS, b"Name\xa6" + BUCKET.encode(), b"Name\xa6" + OTHER.encode()))
    (tmp_path / "archive.tar").write_bytes(file)

    exit_code, said = verify(tmp_path / "archive.tar")

    assert exit_code != 0
    assert f"those of bucket '{OTHER}'" in " ".join(said.split())


async def test_a_server_that_meets_another_name_in_them_changes_no_other_bucket(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = target.app
    record, _ = await app.stage(target.archive, None, bucket=BUCKET)
    [staged] = (target.server.drive / RESERVED).glob(f"*/new/{SETTINGS}.metadata.bin/xl.meta")
    change = reworded("", b"Name\xa6" + BUCKET.encode(), b"Name\xa6" + OTHER.encode())
    staged.write_bytes(change(str(staged), staged.read_bytes()) or b"")
    # As of an agent that sees nothing wrong with it.
    monkeypatch.setattr(bucket_settings, "on_drive", lambda *_: bucket_settings.Settings())

    await app.recipe.restore(record, app.progress)

    found = await view(target.server)
    assert found[OTHER] == target.before[OTHER]
    assert found[BUCKET]["settings"] != target.before[BUCKET]["settings"]
    await app.recipe.undo(record, app.progress)
    await target.require_unchanged()


@pytest.mark.parametrize("options", [{}, {"bucket": BUCKET}], ids=["everything", "one bucket"])
@variants("change", [NO_XML, NO_POLICY, OTHERS_POLICY], ids=["no XML", "no policy", "another's policy"], kept=[NO_XML])
async def test_settings_that_the_server_cannot_read_are_taken_back_by_name(
    change: Change, options: dict[str, str], target: Target
) -> None:
    app = target.app
    record, _ = await app.stage(rebuilt(target.archive, change), None, **options)

    with pytest.raises(
        ArchiveIncompatibleError, match=f"previous data is back .* settings of bucket '{BUCKET}'"
    ) as why:
        await app.recipe.restore(record, app.progress)

    assert "`bucket=`" in why.value.next_step
    await app.recipe.discard(record)
    await target.require_unchanged()


async def test_an_undo_needs_no_settings_that_the_server_can_read(target: Target) -> None:
    app = target.app
    record, _ = await app.stage(target.archive, None, bucket=BUCKET)
    await app.recipe.restore(record, app.progress)
    file = target.server.drive / SETTINGS / ".metadata.bin/xl.meta"
    file.write_bytes(NO_XML(f"{SETTINGS}.metadata.bin/xl.meta", file.read_bytes()) or b"")
    target.server.stop()
    target.server.start()

    await app.recipe.undo(record, app.progress)

    await target.require_unchanged()


async def test_another_region_than_the_agents_is_said(target: Target, start_minio: StartMinio, tmp_path: Path) -> None:
    source = start_minio()
    async with client_of(source) as client:
        await client.call("PUT", "abroad")
        await client.admin("PUT", "set-config-kv", body=madmin.encrypt(source.password, b"site region=eu-west-1"))
    app = target.app
    record, _ = await app.stage((await MinioApp(source, tmp_path / "source").export(secrets="clear")).file)

    with pytest.raises(ArchiveIncompatibleError, match="another region than us-east-1") as why:
        await app.recipe.restore(record, app.progress)

    assert "`users=keep`" in why.value.next_step
    await app.recipe.discard(record)
    await target.require_unchanged()
