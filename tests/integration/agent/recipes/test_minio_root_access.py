"""A configuration that keeps root out, and so the agent, is refused; what cannot be read before is put back."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from agent.engines.minio.directory import swap
from agent.engines.minio.drive import root_access
from agent.engines.minio.server import madmin, restarting
from agent.engines.minio.server.client import RootDeniedError
from agent.recipes.base import Recovered
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_archives import by_hand
from tests.fixtures.minio_data import add_user, put, users, view
from tests.fixtures.minio_servers import KMS_KEY, StartMinio, client_of
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

OFF = "api root_access=off"


class CrashError(BaseException):
    """The agent is gone."""


async def _configure(server: MinioServer, order: str) -> None:
    async with client_of(server) as client:
        body = madmin.encrypt(server.password, order.encode())
        await client.admin("PUT", "set-config-kv", body=body)


async def _source(start_minio: StartMinio, order: str, environment: dict[str, str] | None = None) -> bytes:
    server = start_minio(environment=environment)
    async with client_of(server) as client:
        await client.call("PUT", "both")
        await put(client, "both", "key", b"archived")
    await _configure(server, order)
    return by_hand(server)


async def _target(start_minio: StartMinio, environment: dict[str, str] | None = None) -> MinioServer:
    server = start_minio(environment=environment)
    async with client_of(server) as client:
        await client.call("PUT", "both")
        await put(client, "both", "key", b"previous")
        await add_user(client, "local", "local-secret-1")
    return server


async def _judges(request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({"result": True})


async def test_a_configuration_that_turns_off_roots_access_is_refused_and_there_is_a_way_without_it(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    archive, server = await _source(start_minio, OFF), await _target(start_minio)
    before = await view(server)
    app, record = MinioApp(server, tmp_path), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=r"turns off root's access .*api root_access.* changed") as why:
        await app.stage(archive, record)
    await app.recipe.discard(record)

    assert "`users=keep`" in why.value.next_step
    assert await view(server) == before
    kept = await app.import_file(archive, users="keep")
    await app.recipe.undo(kept, app.progress)
    assert (await view(server), await users(server)) == (before, ["local"])
    assert app.leftovers() == []


async def test_a_service_that_judges_each_call_is_refused_where_this_server_has_another(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    server = await _target(start_minio)
    app, record = MinioApp(server, tmp_path), MemoryRecord()
    async with RawTestServer(_judges) as judge:
        order = f"policy_plugin url={judge.make_url('/')}"
        archive = await _source(start_minio, order)

        with pytest.raises(ArchiveIncompatibleError, match=r"judge each call, root's too .*policy_plugin"):
            await app.stage(archive, record)
        await app.recipe.discard(record)

        await _configure(server, order)
        await app.import_file(archive)


async def test_an_encrypted_configuration_that_turns_off_roots_access_comes_with_it_on(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    environment = {"MINIO_KMS_SECRET_KEY": KMS_KEY}
    archive = await _source(start_minio, f"{OFF} requests_deadline=77s", environment)
    server = await _target(start_minio, environment)
    before = await view(server)
    app = MinioApp(server, tmp_path)

    record, preview = await app.stage(archive)
    await app.recipe.restore(record, app.progress)

    assert [text for text in preview.warnings if "`api root_access` is set to `on`" in text]
    async with client_of(server) as client:
        assert (await client.call("GET", "both", "key")).body == b"archived"
    await app.recipe.undo(record, app.progress)
    assert (await view(server), await users(server)) == (before, ["local"])


async def test_where_root_is_kept_out_all_the_same_the_server_has_to_be_started_again_by_hand(
    start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarting, "_DENIED_SECONDS", 0.5)
    archive, server = await _source(start_minio, OFF), await _target(start_minio)
    before = await view(server)
    app = MinioApp(server, tmp_path)
    # As of one that nobody could read.
    monkeypatch.setattr(root_access, "require_kept", lambda *_: None)
    record, _ = await app.stage(archive)

    with pytest.raises(UnsettledError) as failure:
        await app.recipe.restore(record, app.progress)
    with pytest.raises(AppUnavailableError, match="start MinIO again by hand, and all is as before") as still:
        await app.recover(record)

    assert isinstance(failure.value.__cause__, AppUnavailableError)
    assert failure.value.__cause__.text == still.value.text
    server.kill()
    server.start()
    assert await app.recover(record) is Recovered.PREVIOUS
    assert (await view(server), await users(server)) == (before, ["local"])
    await app.recipe.discard(record)
    assert app.leftovers() == []


async def test_a_server_that_came_up_on_such_a_configuration_after_a_crash_is_told_of(
    start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, server = await _source(start_minio, OFF), await _target(start_minio)
    before = await view(server)
    app = MinioApp(server, tmp_path)
    monkeypatch.setattr(root_access, "require_kept", lambda *_: None)
    record, _ = await app.stage(archive)

    async def crash(*_: object, **__: object) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(swap, "settle", crash)
        with pytest.raises(CrashError):
            await app.recipe.restore(record, app.progress)
    server.kill()
    server.start()

    async with client_of(server) as client:
        with pytest.raises(RootDeniedError):
            await client.admin("GET", "info")
    with pytest.raises(AppUnavailableError, match="start MinIO again by hand"):
        await app.recover(record)
    server.kill()
    server.start()
    assert await app.recover(record) is Recovered.PREVIOUS
    assert await view(server) == before
