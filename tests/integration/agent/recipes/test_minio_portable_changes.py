"""Objects that clients replace while a portable export reads the server: each goes out whole, old or new."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from agent.engines.minio.portable.exporting import _Reader
from agent.engines.minio.portable.form import Line
from agent.engines.minio.portable.listing import Listed
from agent.engines.minio.portable.stored_metadata import StoredWords
from agent.engines.minio.server.client import Client
from common.errors import AppBusyError
from tests.fixtures.minio_data import ENABLED, put, view
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.variants import variants
from tests.fixtures.verifying import verify
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

SMALL, LARGE = 20, 300_000


@pytest.fixture
async def server(start_minio: StartMinio) -> MinioServer:
    found = start_minio()
    async with client_of(found) as client:
        await client.call("PUT", "files")
        await put(client, "files", "before", b"stays")
    return found


def _before_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[Client], Awaitable[None]]) -> None:
    """Do something between the listing of a bucket and the reading of its objects."""
    read = _Reader.read

    async def later(self: _Reader, waiting: list[tuple[Listed, Line]], lines: IO[bytes]) -> AsyncGenerator[bytes, None]:
        await act(self._client)
        async for part in read(self, waiting, lines):
            yield part

    monkeypatch.setattr(_Reader, "read", later)


@variants("after", [SMALL, SMALL + 1, LARGE, LARGE + 1], kept=[LARGE + 1])
@variants("before", [SMALL, LARGE])
async def test_an_object_that_was_replaced_since_it_was_listed_goes_out_with_all_that_is_the_new_ones(
    before: int,
    after: int,
    server: MinioServer,
    start_minio: StartMinio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, target = MinioApp(server, tmp_path / "source"), start_minio()

    async def replace(client: Client) -> None:
        await put(client, "files", "key", os.urandom(after), content_type="text/new", x_amz_tagging="k=new")

    async with client_of(server) as client:
        await put(client, "files", "key", os.urandom(before), content_type="text/old", x_amz_tagging="k=old")

    with monkeypatch.context() as patches:
        _before_reading(patches, replace)
        exported = await app.export("s3")

    (tmp_path / "objects.tar").write_bytes(exported.file)
    assert verify(tmp_path / "objects.tar")[0] == 0
    await MinioApp(target, tmp_path / "target").import_file(exported.file)
    seen, wanted = await view(target), await view(server)
    assert seen["files"]["key", "null"] == wanted["files"]["key", "null"]
    assert exported.fingerprint == await _portable_fingerprint(target, tmp_path)
    assert exported.fingerprint == await _portable_fingerprint(server, tmp_path)


@pytest.mark.parametrize("new", ["grün", "=?UTF-8?q?gr=C3=BCn?=", "green"])
async def test_metadata_that_may_be_in_other_words_is_of_the_content_that_goes_out(
    new: str, server: MinioServer, start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = StoredWords.stored

    async def replaced(self: StoredWords, listed: Listed, said: Mapping[str, str]) -> set[str] | None:
        if listed.size != SMALL + 1:
            await put(self._client, "files", "key", os.urandom(SMALL + 1), x_amz_meta_colour=new)
        return await stored(self, listed, said)

    app, target = MinioApp(server, tmp_path / "source"), MinioApp(start_minio(), tmp_path / "target")
    async with client_of(server) as client:
        await put(client, "files", "key", os.urandom(SMALL), x_amz_meta_colour="grün")
    with monkeypatch.context() as patches:
        patches.setattr(StoredWords, "stored", replaced)
        exported = await app.export("s3")

    await target.import_file(exported.file)

    assert await _drive(app) == await _drive(target)


async def test_metadata_in_other_words_is_each_versions_own_whatever_versions_come_meanwhile(
    server: MinioServer, start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, target = MinioApp(server, tmp_path / "source"), MinioApp(start_minio(), tmp_path / "target")
    async with client_of(server) as client:
        await client.call("PUT", "files", query={"versioning": ""}, body=ENABLED)
        for number in range(30):
            colour = "=?UTF-8?q?gr=C3=BCn?=" if number % 3 else "grün"
            await put(client, "files", "key", b"x", x_amz_meta_colour=colour, x_amz_meta_n=str(number))
            if number % 7 == 0:
                await client.call("DELETE", "files", "key")
    before = await _drive(app)

    async def add(client: Client) -> None:
        for _ in range(25):
            await put(client, "files", "key", b"newer", x_amz_meta_colour="blau")

    with monkeypatch.context() as patches:
        _before_reading(patches, add)
        exported = await app.export("s3")

    await target.import_file(exported.file)
    assert await _drive(target) == before


async def _drive(app: MinioApp) -> str:
    """The fingerprint of what lies in the bucket on the drive, without its settings."""
    return (await app.recipe.fingerprint(app.progress)).parts["bucket files"].partition(", settings")[0]


async def _portable_fingerprint(server: MinioServer, directory: Path) -> object:
    return (await MinioApp(server, directory / "again").export("s3")).fingerprint


async def test_an_object_that_changes_all_the_time_fails_the_export_by_its_name(
    server: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_changed = _Reader._has_changed

    async def replace(client: Client) -> None:
        await put(client, "files", "key", os.urandom(SMALL))

    async def changing(self: _Reader, listed: Listed) -> bool:
        is_other = await has_changed(self, listed)
        await replace(self._client)
        return is_other

    async with client_of(server) as client:
        await replace(client)
    _before_reading(monkeypatch, replace)
    monkeypatch.setattr(_Reader, "_has_changed", changing)

    with pytest.raises(AppBusyError, match="files/key has changed while it was read"):
        await MinioApp(server, tmp_path).export("s3")


async def test_an_object_that_is_listed_again_is_not_looked_for_among_all_whose_keys_begin_with_its(
    server: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    call = Client.call

    async def noted(self: Client, method: str, *arguments: Any, **options: Any) -> Any:
        if "prefix" in (query := options.get("query") or {}):
            asked.append(query.get("max-keys", "all"))
        return await call(self, method, *arguments, **options)

    async def replace(client: Client) -> None:
        await put(client, "files", "key", b"new content")

    async with client_of(server) as client:
        for key in ("key", *(f"key-{number}" for number in range(150))):
            await put(client, "files", key, b"content")
    _before_reading(monkeypatch, replace)
    monkeypatch.setattr(Client, "call", noted)

    await MinioApp(server, tmp_path).export("s3")

    assert asked == ["100"]
