"""Roots have other names on other servers: what is root's there is root's here, and nobody else becomes root."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from agent.engines.minio.server.client import RefusedError
from agent.journal import Journal
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from common.errors import AppUnavailableError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures import forked
from tests.fixtures.minio_accounts import add_limited, change, give_to, service_accounts
from tests.fixtures.minio_archives import by_hand
from tests.fixtures.minio_data import add_service_account, add_user, put, users, view
from tests.fixtures.minio_servers import KMS_KEY, StartMinio, client_of
from tests.fixtures.minio_sessions import session_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes import minio_program
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

SECRET = "a-secret-of-12"


async def _is_root(server: MinioServer, name: str) -> bool:
    async with client_of(server, user=name, password=SECRET) as client:
        try:
            await client.admin("GET", "export-iam")
        except (AppUnavailableError, RefusedError):
            return False
    return True


async def _fill(server: MinioServer) -> None:
    """A user `boss`, who may do nothing, with a service account; and one of root's."""
    async with client_of(server) as client:
        await client.call("PUT", "files")
        await put(client, "files", "key", b"content")
        await add_user(client, "boss", SECRET)
        await add_service_account(client, "boss-backup", SECRET, owner="boss")
        await add_service_account(client, "root-backup", SECRET)


@variants("way", ["exported", "by hand"])
@variants("root", ["boss", "boss-backup"], kept=["boss-backup"])
async def test_an_account_with_the_name_of_this_root_is_refused_by_name_unless_users_stay(
    root: str, way: str, start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(user="other"), start_minio(user=root)
    await _fill(source)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    file = exported.file if way == "exported" else by_hand(source)
    app, record = MinioApp(target, tmp_path / "target"), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=f"'{root}', and so is root called") as refusal:
        await app.stage(file, record)

    await app.recipe.discard(record)
    assert "Nothing was changed" in refusal.value.text
    assert "users=keep" in refusal.value.next_step
    assert (await view(target), await users(target), app.leftovers()) == ({}, [], [])
    kept = await app.import_file(file, users="keep")
    assert sorted(await view(target)) == ["files"]
    assert await users(target) == []
    await app.recipe.undo(kept, app.progress)


async def test_an_account_that_is_roots_on_its_own_server_too_is_no_more_here(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio(user="other")
    await _fill(source)
    source.stop()
    source.user = "boss"
    source.start()
    target = start_minio(user="boss")
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app = MinioApp(target, tmp_path / "target")

    await app.import_file(exported.file)

    assert await _is_root(source, "boss-backup")
    assert await _is_root(target, "boss-backup")


async def test_a_drive_by_hand_of_another_root_is_said_to_be_one_and_its_root_may_be_named(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(user="other"), start_minio()
    await _fill(source)
    file = by_hand(source)
    app = MinioApp(target, tmp_path)

    unnamed, preview = await app.stage(file)
    await app.recipe.restore(unnamed, app.progress)

    assert [warning for warning in preview.warnings if "have no rights after the import" in warning]
    assert not await _is_root(target, "root-backup")
    await app.recipe.undo(unnamed, app.progress)
    named, preview = await app.stage(file, root="other")
    await app.recipe.restore(named, app.progress)
    assert not [warning for warning in preview.warnings if "have no rights after the import" in warning]
    assert [warning for warning in preview.warnings if "become this root's" in warning]
    assert await _is_root(target, "root-backup")
    assert not await _is_root(target, "boss-backup")


@pytest.mark.parametrize(
    ("way", "words"), [("exported", "says itself that root was 'other'"), ("by hand", "has a user of that name")]
)
async def test_somebody_who_was_not_root_is_not_taken_for_it(
    way: str, words: str, start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(user="other"), start_minio()
    await _fill(source)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app, record = MinioApp(target, tmp_path / "target"), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=words):
        await app.stage(exported.file if way == "exported" else by_hand(source), record, root="boss")

    await app.recipe.discard(record)
    assert (await view(target), app.leftovers()) == ({}, [])


@variants("way", ["exported", "by hand"])
async def test_sessions_of_users_do_not_come(way: str, start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(user="other"), start_minio()
    await _fill(source)
    async with client_of(source) as client:
        query = {"policyName": "readonly", "userOrGroup": "boss", "isGroup": "false"}
        await client.admin("PUT", "set-user-or-group-policy", query=query)
    session = await session_of(source, "boss", SECRET)
    assert await session.may_read(source, "files", "key")
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")

    await MinioApp(target, tmp_path / "target").import_file(exported.file if way == "exported" else by_hand(source))

    assert session.name.encode() not in exported.file
    assert await users(target) == ["boss"]
    assert not await session.may_read(target, "files", "key")


async def test_a_user_with_the_name_of_the_archives_root_does_not_matter(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(user="boss"), start_minio()
    await _fill(target)
    async with client_of(source) as client:
        await client.call("PUT", "files")
        await add_service_account(client, "kept", SECRET)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app = MinioApp(target, tmp_path / "target")

    record = await app.import_file(exported.file)

    assert await users(target) == []
    assert await _is_root(target, "kept")
    assert not await _is_root(target, "boss-backup")
    await app.recipe.undo(record, app.progress)
    assert await users(target) == ["boss"]
    assert not await _is_root(target, "boss-backup")
    assert not await _is_root(target, "kept")


@variants("environment", [{}, {"MINIO_KMS_SECRET_KEY": KMS_KEY}], ids=["without a KMS", "with a KMS"])
async def test_a_service_account_of_nobodys_who_is_called_as_this_root_is_refused_by_name(
    environment: dict[str, str], start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio(user="other", environment=environment)
    target = start_minio(user="admin", environment=environment)
    async with client_of(source) as client:
        await client.call("PUT", "files")
        await add_service_account(client, "orphan", SECRET)
        await give_to(client, "orphan", "admin")
    assert not await _is_root(source, "orphan")
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app, record = MinioApp(target, tmp_path / "target"), MemoryRecord()

    async def imported() -> None:
        await app.stage(exported.file, record)
        # A KMS has encrypted whose they are, until the server tells it.
        assert environment
        await app.recipe.restore(record, app.progress)

    with pytest.raises(ArchiveIncompatibleError, match=r"'orphan'.* 'admin', and so is root called") as refusal:
        await imported()

    await app.recipe.discard(record)
    assert "users=keep" in refusal.value.next_step
    assert not await _is_root(target, "orphan")
    assert (await view(target), app.leftovers()) == ({}, [])


LIMITED: dict[str, object] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::files/key"]}],
}


async def _fill_disabled(server: MinioServer) -> None:
    """Root's own, disabled and not, with a policy and without."""
    async with client_of(server) as client:
        await client.call("PUT", "files")
        for number in range(5):
            await add_service_account(client, f"off{number}", SECRET)
            await change(client, f"off{number}", newStatus="off")
            await add_limited(client, f"limited{number}", SECRET, LIMITED)
            await change(client, f"limited{number}", newStatus="off", newPolicy=LIMITED)
        await add_service_account(client, "enabled", SECRET)
        await add_limited(client, "limited-on", SECRET, LIMITED)


async def _rights(server: MinioServer) -> dict[str, tuple[object, object]]:
    """Of each service account, whether it is enabled, and its policy."""
    async with client_of(server) as client:
        accounts = await service_accounts(client)
        assert {account["parent"] for account in accounts.values()} == {server.user}
    return {name: (account["status"], account["sessionPolicy"]) for name, account in accounts.items()}


async def test_disabled_service_accounts_of_another_root_keep_their_policies(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(user="other"), start_minio()
    await _fill_disabled(source)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")

    await MinioApp(target, tmp_path / "target").import_file(exported.file)

    assert await _rights(target) == await _rights(source)
    async with client_of(target) as client:
        await change(client, "limited0", newStatus="on", newPolicy=(await _rights(target))["limited0"][1])
    assert not await _is_root(target, "limited0")


async def test_an_agent_killed_while_service_accounts_become_this_roots_enables_none_that_was_disabled(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(user="other"), start_minio()
    await _fill_disabled(source)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app = MinioApp(target, tmp_path / "target")
    journal = Journal(tmp_path / "journal", app_id="shop.files", recipe="minio")
    state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
    await app.stage(exported.file, journal.open(state))
    settings = {
        "url": target.url,
        "user": target.user,
        "password_file": str(app.directory / "password"),
        "directory": str(target.drive),
    }

    forked.require_killed(
        minio_program.die_at,
        "service accounts taken over",
        "restore",
        settings,
        app.work_directory,
        tmp_path / "journal",
    )

    assert not any([await _is_root(target, f"{kind}{number}") for number in range(5) for kind in ("off", "limited")])
    [entry] = journal.read()
    assert await app.recover(entry) is Recovered.IMPORTED
    assert await _rights(target) == await _rights(source)
    assert await _is_root(target, "enabled")
