"""Whom buckets tell of their changes: a preview says so where a drive comes to a server that does not know them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aiohttp.test_utils
import pytest
from aiohttp import web

from agent.engines.minio.server import madmin
from tests.fixtures.minio_data import put
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

ARN = "arn:minio:sqs::one:webhook"
RULE = (
    "<NotificationConfiguration><QueueConfiguration><Id>1</Id><Queue>ARN</Queue><Event>s3:ObjectCreated:*</Event>"
    "</QueueConfiguration></NotificationConfiguration>"
).replace("ARN", ARN)


def _environment(queue: Path) -> Mapping[str, str]:
    names = {"ENABLE": "on", "ENDPOINT": "http://127.0.0.1:9/", "QUEUE_DIR": str(queue)}
    return {f"MINIO_NOTIFY_WEBHOOK_{name}_one": value for name, value in names.items()}


@pytest.fixture
def queue(start_minio: StartMinio) -> Path:
    """Events wait there until somebody answers, in a place of which the servers' user knows the way."""
    queue = start_minio().directory / "queue"
    queue.mkdir()
    queue.chmod(0o777)
    return queue


async def _answer(request: web.BaseRequest) -> web.Response:
    return web.Response()


async def _tell(source: MinioServer) -> None:
    async with client_of(source) as client:
        await client.call("PUT", "told")
        await put(client, "told", "key", b"x")
        await client.call("PUT", "told", query={"notification": ""}, body=RULE.encode())


async def _is_told(server: MinioServer) -> bool:
    async with client_of(server) as client:
        return ARN in (await client.call("GET", "told", query={"notification": ""})).body.decode()


@pytest.mark.parametrize("options", [{}, {"users": "keep"}, {"bucket": "told"}], ids=["all", "users=keep", "bucket="])
async def test_a_bucket_that_tells_somebody_whom_the_server_does_not_know_is_named(
    options: Mapping[str, str], queue: Path, start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio(environment=_environment(queue))
    await _tell(source)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    server = start_minio()
    target = MinioApp(server, tmp_path / "target")

    record, preview = await target.stage(exported.file, None, **options)
    await target.recipe.restore(record, target.progress)

    assert not await _is_told(server)
    _restart(server, source.environment)
    assert await _is_told(server)
    [warning] = [found for found in preview.warnings if "tells of its changes" in found]
    assert warning.startswith(f"The bucket told tells of its changes to '{ARN}', which this server does not know")


@pytest.mark.parametrize("knows_by_itself", [True, False])
async def test_nothing_is_said_of_one_that_the_server_knows_or_whom_the_archives_configuration_brings(
    knows_by_itself: bool, queue: Path, start_minio: StartMinio, tmp_path: Path
) -> None:
    environment = _environment(queue)
    source = start_minio(environment=environment if knows_by_itself else None)
    async with client_of(source) as client:
        if not knows_by_itself:
            # MinIO tries whether it answers.
            async with aiohttp.test_utils.RawTestServer(_answer) as there:
                order = f"notify_webhook:one endpoint={there.make_url('/')} queue_dir={queue}"
                body = madmin.encrypt(client.account.password, order.encode())
                await client.admin("PUT", "set-config-kv", body=body)
    if not knows_by_itself:
        _restart(source, {})
    await _tell(source)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    server = start_minio(environment=environment if knows_by_itself else None)
    target = MinioApp(server, tmp_path / "target")

    record, preview = await target.stage(exported.file)
    await target.recipe.restore(record, target.progress)

    assert await _is_told(server)
    assert not [found for found in preview.warnings if "tells of its changes" in found]


async def test_an_undo_of_one_bucket_brings_back_rules_for_somebody_whom_the_server_does_not_know(
    queue: Path, start_minio: StartMinio, tmp_path: Path
) -> None:
    source, server = start_minio(), start_minio(environment=_environment(queue))
    async with client_of(source) as client:
        await client.call("PUT", "told")
    await _tell(server)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    environment = server.environment
    _restart(server, {})
    target = MinioApp(server, tmp_path / "target")

    record = await target.import_file(exported.file, bucket="told")
    await target.recipe.undo(record, target.progress)

    _restart(server, environment)
    assert await _is_told(server)


@pytest.mark.parametrize("word", ["on", "true", "Enabled"])
async def test_who_is_told_of_each_call_by_the_archives_configuration_is_named(
    word: str, start_minio: StartMinio, tmp_path: Path
) -> None:
    source, server = start_minio(), start_minio()
    async with client_of(source) as client, aiohttp.test_utils.RawTestServer(_answer) as there:
        url = there.make_url("/").with_user("me").with_password("a-pass-word")
        order = f"audit_webhook:one enable={word} endpoint={url}"
        await client.admin("PUT", "set-config-kv", body=madmin.encrypt(client.account.password, order.encode()))
        exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    target = MinioApp(server, tmp_path / "target")

    found = {}
    for name, options in (("all", {}), ("kept", {"users": "keep"})):
        record, preview = await target.stage(exported.file, None, **options)
        await target.recipe.discard(record)
        found[name] = [text for text in preview.warnings if "audit_webhook" in text]

    [warning] = found["all"]
    assert "tell 'audit_webhook http://127.0.0.1' of what it does" in warning
    assert "a-pass-word" not in warning
    assert found["kept"] == []


def _restart(server: MinioServer, environment: Mapping[str, str]) -> None:
    server.stop()
    server.environment = dict(environment)
    server.start()
