"""Buckets that replicate to another server hold its keys: they go out sealed, in clear, or not at all, as is said."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path

import pytest

from agent.engines.minio.drive.bucket_settings import holds_targets
from agent.engines.minio.server.client import Client
from common.errors import SourceUnreadableError
from tests.fixtures.minio_data import add_remote_target, put, view
from tests.fixtures.minio_servers import KMS_KEY, StartMinio, client_of
from tests.fixtures.verifying import verify
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

KEY = "the-remotes-password"
ENVIRONMENTS = {"without a KMS": {}, "with a KMS": {"MINIO_KMS_SECRET_KEY": KMS_KEY}}


async def _replicates(server: MinioServer) -> bool:
    """Whether an object that is put now is replicated; with the end of that."""
    async with client_of(server) as client:
        await put(client, "replicated", "new", b"new")
        async with asyncio.timeout(60):
            while (status := await _status(client)) == "PENDING":
                pass
    return status == "COMPLETED"


async def _status(client: Client) -> str:
    answer = await client.call("HEAD", "replicated", "new")
    return next((value for name, value in answer.headers.items() if name.lower() == "x-amz-replication-status"), "")


async def _with_targets(client: Client) -> list[str]:
    """Buckets with remote targets, by the server's own export: its list of them lacks those that it has not reached."""
    exported = await client.admin("GET", "export-bucket-metadata")
    with zipfile.ZipFile(io.BytesIO(exported.body)) as archive:
        files = [name for name in archive.namelist() if name.endswith("/bucket-targets.json")]
        return [name.partition("/")[0] for name in files if holds_targets(archive.read(name))]


@pytest.fixture(params=["without a KMS", pytest.param("with a KMS", marks=pytest.mark.variant)])
async def source(request: pytest.FixtureRequest, start_minio: StartMinio) -> MinioServer:
    server = start_minio(environment=ENVIRONMENTS[request.param])
    async with client_of(server) as client:
        await client.call("PUT", "plain")
    await add_remote_target(server, start_minio(password=KEY))
    assert await _replicates(server)
    return server


async def test_they_are_sealed_or_in_clear_and_come_back(source: MinioServer, tmp_path: Path) -> None:
    app = MinioApp(source, tmp_path)

    sealed, clear, portable = await app.export(), await app.export(secrets="clear"), await app.export("s3")
    before = await view(source)
    await app.import_file(sealed.file)

    # A KMS has them encrypted on the drive already.
    assert (KEY.encode() in clear.file) == (not source.environment)
    assert clear.warnings[0].endswith("remote targets in the settings of replicated.")
    assert KEY.encode() not in sealed.file + portable.file
    assert [warning for warning in portable.warnings if "Replication of replicated is" in warning]
    assert await view(source) == before
    async with client_of(source) as client:
        assert await _with_targets(client) == ["replicated"]


async def test_who_imports_them_elsewhere_is_told_where_that_server_is_going_to_replicate_to(
    source: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    target = start_minio(user="other", environment=source.environment)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    async with client_of(source) as client:
        query = {"bucket": "replicated", "type": "replication"}
        [told] = json.loads((await client.admin("GET", "list-remote-targets", query=query)).body)
    # A KMS has encrypted it on the drive.
    where = "another server" if source.environment else f"'{told['endpoint']}/replicated'"

    for server, expected in ((source, 0), (target, 1)):
        app = MinioApp(server, tmp_path / server.user)
        record, preview = await app.stage(exported.file)
        await app.recipe.discard(record)

        warnings = [text for text in preview.warnings if text.startswith(f"replicated is replicated to {where} ")]
        assert len(warnings) == expected
        assert all("secrets=left-out" in text for text in warnings)


async def test_they_are_left_out_with_what_needs_them_and_all_else_comes(source: MinioServer, tmp_path: Path) -> None:
    app = MinioApp(source, tmp_path)
    before = await view(source)

    exported = await app.export(secrets="left-out")
    record, preview = await app.stage(exported.file)
    await app.recipe.restore(record, app.progress)

    assert KEY.encode() not in exported.file
    assert exported.warnings[0].endswith("nor are the remote targets and replication rules of replicated.")
    assert [text for text in preview.warnings if text.startswith("The remote targets and replication rules of repl")]
    (tmp_path / "drive.tar").write_bytes(exported.file)
    assert verify(tmp_path / "drive.tar")[0] == 0
    source.stop()
    source.start()
    assert await view(source) == before
    assert not await _replicates(source)
    async with client_of(source) as client:
        assert await _status(client) == ""
        query = {"bucket": "replicated", "type": "replication"}
        assert not (await client.admin("GET", "list-remote-targets", query=query)).json()
        assert await _with_targets(client) == []
    # An empty list of targets is what an import has left.
    again, portable = await app.export(secrets="left-out"), await app.export("s3")
    second, preview = await app.stage(again.file)
    await app.recipe.discard(second)
    assert not [text for text in (*again.warnings, *portable.warnings, *preview.warnings) if "replication" in text]
    await app.recipe.undo(record, app.progress)
    assert await view(source) == before
    assert await _replicates(source)


async def test_settings_with_keys_that_cannot_be_read_are_sealed_and_not_left_out(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    server = start_minio()
    await add_remote_target(server, start_minio(password=KEY))
    meta = server.drive / ".minio.sys/buckets/replicated/.metadata.bin/xl.meta"
    content = meta.read_bytes()
    meta.write_bytes(content[:8] + b"X" + content[9:])
    # What lies beside the buckets hinders no export.
    (server.drive / ".minio.sys/buckets/stray").write_text("of somebody")
    app = MinioApp(server, tmp_path)

    sealed = await app.export()
    with pytest.raises(
        SourceUnreadableError, match=r"settings of bucket replicated hold the keys .* they cannot be read"
    ) as refusal:
        await app.export(secrets="left-out")

    assert KEY.encode() not in sealed.file
    assert "secrets=sealed" in refusal.value.next_step
    assert app.leftovers() == []
