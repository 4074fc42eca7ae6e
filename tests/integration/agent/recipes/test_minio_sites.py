"""Servers that replicate all that they have to each other: an import would reach others, and come back from there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.engines.minio.portable.listing import buckets_of
from agent.engines.minio.server import madmin
from common.errors import AppUnavailableError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_data import put, users
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer, minio


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[MinioServer, MinioServer]]:
    """Two, which the tests leave as they are."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(MinioServer(minio())) for _ in range(2))
        asyncio.run(_join(first, second))
        yield first, second


async def _join(*servers: MinioServer) -> None:
    async with client_of(servers[0]) as client:
        await client.call("PUT", "shared")
        await put(client, "shared", "key", b"x")
        order = [
            {"name": server.url, "endpoints": server.url, "accessKey": server.user, "secretKey": server.password}
            for server in servers
        ]
        body = madmin.encrypt(client.account.password, json.dumps(order).encode())
        await client.admin("PUT", "site-replication/add", query={"api-version": "1"}, body=body)


async def _buckets(server: MinioServer) -> list[str]:
    async with client_of(server) as client:
        return await buckets_of(client)


@pytest.mark.parametrize("format_name", ["tar", "s3"])
async def test_nothing_is_imported_into_one_of_them(
    format_name: str, sites: tuple[MinioServer, MinioServer], start_minio: StartMinio, tmp_path: Path
) -> None:
    first, _ = sites
    alone = start_minio()
    async with client_of(alone) as client:
        await client.call("PUT", "own")
        await put(client, "own", "key", b"x")
    exported = await MinioApp(alone, tmp_path / "alone").export(format_name)
    app, record = MinioApp(first, tmp_path / "first"), MemoryRecord()

    with pytest.raises(AppUnavailableError, match="replicates all that it has with") as failure:
        await app.stage(exported.file, record)

    await app.recipe.discard(record)
    described = await app.recipe.describe()
    assert "mc admin replicate rm" in failure.value.next_step
    assert "could not be taken back" in described.can_import.obstacle
    assert described.can_export.is_possible
    assert [await _buckets(server) for server in sites] == [["shared"], ["shared"]]
    assert app.leftovers() == []


@pytest.mark.parametrize("keeps_users", [False, True])
async def test_the_copy_of_one_of_them_does_to_the_others_what_is_done_on_it_as_its_preview_says(
    keeps_users: bool, sites: tuple[MinioServer, MinioServer], start_minio: StartMinio, tmp_path: Path
) -> None:
    first, second = sites
    exported = await MinioApp(first, tmp_path / "first").export(secrets="clear")
    copy = start_minio()
    app = MinioApp(copy, tmp_path / "copy")

    record, preview = await app.stage(exported.file, None, **({"users": "keep"} if keeps_users else {}))

    told = [warning for warning in preview.warnings if "replicates all that it has" in warning]
    assert len(told) == (0 if keeps_users else 1)
    assert all(first.url in warning and second.url in warning for warning in told)
    await app.recipe.restore(record, app.progress)
    assert await _buckets(copy) == ["shared"]
    assert await users(copy) == []
    await app.recipe.undo(record, app.progress)
    assert await _buckets(copy) == []
