"""A server that is busy, and says so, is asked again for as long as clients of S3 do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio.portable import importing
from agent.engines.minio.portable.form import Line
from agent.engines.minio.server import madmin
from agent.engines.minio.server.client import NotReadyError
from common.errors import ToolFailedError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_data import put, view
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.integration.agent.recipes.minio_apps import MinioApp
from tests.integration.agent.recipes.minio_shared import Source, source
from tools.servers import MinioServer

__all__ = ["source"]

_BUSY = NotReadyError("a call", lacks="", said="RequestTimeout A timeout occurred")


async def _seen(server: MinioServer) -> dict[str, Any]:
    """All but when buckets were made."""
    found = await view(server)
    for bucket in found.values():
        if isinstance(bucket, dict):
            bucket.pop("created")
    return found


async def test_an_object_that_is_put_twice_is_as_if_it_had_been_put_once(
    source: Source, start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, twice = start_minio(), start_minio()
    await MinioApp(once, tmp_path / "once").import_file(source.objects.file, locks="drop")
    put_once = importing._put_once
    met: set[str] = set()

    async def put_and_say_busy(*arguments: Any, **options: Any) -> None:
        await put_once(*arguments, **options)
        [line] = [one for one in arguments if isinstance(one, Line)]
        if not line.is_marker and (name := f"{arguments[2]}/{line.key} {line.version}") not in met:
            met.add(name)
            raise _BUSY

    monkeypatch.setattr(importing, "_put_once", put_and_say_busy)
    monkeypatch.setattr(importing, "_PAUSES_SECONDS", (0.0,))

    await MinioApp(twice, tmp_path / "twice").import_file(source.objects.file, locks="drop")

    assert len(met) == source.objects.counts["versions"] - source.objects.counts["markers"]
    assert await _seen(twice) == await _seen(once)


async def test_a_server_that_takes_fewer_calls_at_once_than_an_import_makes_gets_all_of_it(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    filled, few = start_minio(), start_minio()
    async with client_of(filled) as client:
        await client.call("PUT", "files")
        for number in range(24):
            await put(client, "files", f"{number}", os.urandom(1 << 20))
    exported = await MinioApp(filled, tmp_path / "filled").export("s3")
    async with client_of(few) as client:
        await client.admin("PUT", "set-config-kv", body=madmin.encrypt(few.password, b"api requests_max=4"))

    await MinioApp(few, tmp_path / "few").import_file(exported.file)

    assert await _seen(few) == await _seen(filled)


async def test_a_server_that_stays_busy_fails_an_import_which_leaves_nothing(
    source: Source, start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_minio()
    app, record = MinioApp(server, tmp_path), MemoryRecord()
    tries: list[Line] = []

    async def say_busy(*arguments: Any, **_: Any) -> None:
        tries.extend(one for one in arguments if isinstance(one, Line))
        raise _BUSY

    monkeypatch.setattr(importing, "_put_once", say_busy)
    monkeypatch.setattr(importing, "_PAUSES_SECONDS", (0.0, 0.0))
    await app.stage(source.objects.file, record, locks="drop")

    with pytest.raises(ToolFailedError, match=r"could not be stored: MinIO is not ready .* RequestTimeout"):
        await app.recipe.restore(record, app.progress)
    await app.recipe.discard(record)

    assert tries.count(tries[0]) == 3
    assert (await view(server), app.leftovers()) == ({}, [])
