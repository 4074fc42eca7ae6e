"""A portable import takes away the buckets that it made, and none that a client made under the same name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio.portable import importing as portable_import
from agent.engines.minio.portable import way as portable_way
from agent.engines.minio.portable.listing import buckets_of
from agent.engines.minio.server import canary
from agent.engines.minio.server.client import Client
from agent.recipes.base import Record, Recovered
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, ServiceError, ToolFailedError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_data import put
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.minio_apps import MinioApp
from tests.integration.agent.recipes.minio_shared import Source, Target, shared_target, source, target

__all__ = ["shared_target", "source", "target"]


class KilledError(BaseException):
    """The process is gone."""


def _fail_at_make(patches: pytest.MonkeyPatch, failure: BaseException, *, is_made: bool) -> None:
    """Have the request that makes the bucket fail, before or after the server has got it."""
    call = Client.call

    async def failing(self: Client, method: str, *path: str, **options: Any) -> object:
        is_make = (method, path) == ("PUT", ("versions",)) and not options.get("query")
        if is_make and not is_made:
            raise failure
        answer = await call(self, method, *path, **options)
        if is_make:
            raise failure
        return answer

    patches.setattr(Client, "call", failing)


@pytest.fixture
async def staged(source: Source, target: Target) -> AsyncIterator[Record]:
    """An import of the bucket `versions`, dropped at the end; and so is what a client made of that name."""
    record, _ = await target.app.stage(source.objects.file, None, bucket="versions")
    yield record
    await target.app.recipe.discard(record)
    async with client_of(target.server) as client:
        if "versions" in await buckets_of(client):
            await _delete(client)


async def _make_and_fill(client: Client) -> None:
    await client.call("PUT", "versions")
    await put(client, "versions", "a client's", b"x")


async def _delete(client: Client) -> None:
    await client.call("DELETE", "versions", headers={"x-minio-force-delete": "true"})


async def _require_the_clients(target: Target) -> None:
    async with client_of(target.server) as client:
        assert (await client.call("GET", "versions", "a client's")).body == b"x"


async def test_a_bucket_that_a_client_makes_when_the_agent_died_before_making_it_is_the_clients(
    staged: Record, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = target.app

    with monkeypatch.context() as patches:
        _fail_at_make(patches, KilledError(), is_made=False)
        with pytest.raises(KilledError):
            await app.recipe.restore(staged, app.progress)
    async with client_of(target.server) as client:
        await _make_and_fill(client)

    assert [await app.recover(staged) for _ in range(2)] == [Recovered.PREVIOUS] * 2

    await _require_the_clients(target)
    told = await app.recipe.put_right(staged)
    assert told is not None
    assert told.says_what_changed
    assert "the bucket versions" in told.text


async def test_a_bucket_that_was_made_when_the_agent_died_before_noting_it_is_left_and_named(
    staged: Record, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = target.app

    with monkeypatch.context() as patches:
        _fail_at_make(patches, KilledError(), is_made=True)
        with pytest.raises(KilledError):
            await app.recipe.restore(staged, app.progress)

    assert await app.recover(staged) is Recovered.PREVIOUS

    async with client_of(target.server) as client:
        assert "versions" in await buckets_of(client)
    told = await app.recipe.put_right(staged)
    assert told is not None
    assert "the bucket versions" in told.text


async def test_a_bucket_whose_making_was_not_answered_is_left_and_named(
    staged: Record, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = target.app

    with monkeypatch.context() as patches:
        _fail_at_make(patches, AppUnavailableError("It did not answer."), is_made=True)
        with pytest.raises(AppUnavailableError, match="the bucket versions") as failure:
            await app.recipe.restore(staged, app.progress)

    assert failure.value.says_what_changed
    async with client_of(target.server) as client:
        assert "versions" in await buckets_of(client)


async def test_a_bucket_that_was_noted_as_made_goes_and_there_is_nothing_to_tell(
    staged: Record, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = target.app

    async def killed(*arguments: object, **options: object) -> None:
        raise KilledError

    with monkeypatch.context() as patches:
        patches.setattr(portable_import, "fill", killed)
        with pytest.raises(KilledError):
            await app.recipe.restore(staged, app.progress)

    assert await app.recover(staged) is Recovered.PREVIOUS

    assert await app.recipe.put_right(staged) is None
    async with client_of(target.server) as client:
        assert "versions" not in await buckets_of(client)


async def test_an_undo_leaves_a_bucket_that_a_client_made_in_place_of_the_imported_one(
    staged: Record, target: Target
) -> None:
    app = target.app
    await app.recipe.restore(staged, app.progress)
    async with client_of(target.server) as client:
        await _delete(client)
        await _make_and_fill(client)

    await app.recipe.undo(staged, app.progress)

    await _require_the_clients(target)
    assert await app.recipe.put_right(staged) is None


async def test_an_import_fails_when_a_client_makes_a_bucket_in_place_of_one_that_fills(
    staged: Record, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = target.app
    fill = portable_import.fill

    async def replaced(client: Client, *arguments: Any) -> None:
        await fill(client, *arguments)
        await _delete(client)
        await _make_and_fill(client)

    with monkeypatch.context() as patches:
        patches.setattr(portable_import, "fill", replaced)
        with pytest.raises(ToolFailedError, match="versions was deleted or made anew"):
            await app.recipe.restore(staged, app.progress)

    await _require_the_clients(target)
    async with client_of(target.server) as client:
        settings = (await client.call("GET", "versions", query={"versioning": ""})).body
    assert b"Enabled" not in settings


async def test_a_bucket_that_cannot_be_taken_back_is_unsettled_until_the_server_answers(
    source: Source, start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_minio()
    app = MinioApp(server, tmp_path)
    record, _ = await app.stage(source.objects.file, None, bucket="versions")

    async def dies(*arguments: object, **options: object) -> None:
        server.kill()
        raise AppUnavailableError("It is gone.")

    with monkeypatch.context() as patches:
        patches.setattr(portable_import, "apply_settings", dies)
        with pytest.raises(UnsettledError):
            await app.recipe.restore(record, app.progress)
    with pytest.raises(ServiceError, match="does not answer"):
        await app.recover(record)
    server.start()

    assert await app.recover(record) is Recovered.PREVIOUS

    async with client_of(server) as client:
        assert await buckets_of(client) == []
    await app.recipe.discard(record)


@variants("format", ["tar", "s3"])
async def test_a_bucket_of_a_trial_that_a_client_puts_something_into_is_left_to_it(
    source: Source, start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    server, record = start_minio(), MemoryRecord()
    app, bucket = MinioApp(server, tmp_path), canary.bucket_of(record.key)

    async def killed(*arguments: object, **options: object) -> None:
        raise KilledError

    with monkeypatch.context() as patches:
        patches.setattr(portable_way, "delete_if_empty", killed)
        patches.setattr(canary, "remove", killed)
        with pytest.raises(KilledError):
            await app.stage((source.drive if format == "tar" else source.objects).file, record, bucket="versions")
    async with client_of(server) as client:
        await put(client, bucket, "a client's", b"x")

        await app.recipe.discard(record)

        assert (await client.call("GET", bucket, "a client's")).body == b"x"
    assert app.leftovers() == [bucket]


@variants("number", [1, 2], kept=[2])
async def test_an_undo_that_has_begun_to_delete_is_finished_when_the_server_answers_again(
    source: Source, start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    server = start_minio()
    app = MinioApp(server, tmp_path)
    record = await app.import_file(source.objects.file, locks="drop")
    call = Client.call
    deletes = 0

    async def dying(self: Client, method: str, *path: str, **options: Any) -> object:
        nonlocal deletes
        deletes += method == "DELETE"
        if deletes == number:
            server.kill()
        return await call(self, method, *path, **options)

    with monkeypatch.context() as patches:
        patches.setattr(Client, "call", dying)
        with pytest.raises(UnsettledError):
            await app.recipe.undo(record, app.progress)
    server.start()

    assert await app.recover(record) is Recovered.PREVIOUS

    assert await app.recipe.put_right(record) is None
    async with client_of(server) as client:
        assert await buckets_of(client) == []
    await app.recipe.discard(record)


async def test_an_undo_that_cannot_begin_fails_with_the_imported_data_in_place(
    source: Source, start_minio: StartMinio, tmp_path: Path
) -> None:
    server = start_minio()
    app = MinioApp(server, tmp_path)
    record = await app.import_file(source.objects.file, bucket="versions")
    server.kill()

    with pytest.raises(AppUnavailableError, match="does not answer"):
        await app.recipe.undo(record, app.progress)

    server.start()
    async with client_of(server) as client:
        assert await buckets_of(client) == ["versions"]
    await app.recipe.undo(record, app.progress)
