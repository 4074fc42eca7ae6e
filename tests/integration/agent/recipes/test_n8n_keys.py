"""n8n gets another encryption key between the steps of an import: nobody is left with data that it cannot open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import AppUnavailableError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.n8n_data import NEW_KEY, N8n
from tests.integration.agent.recipes.n8n_apps import MakePair, N8nApp, make_pair, new_app

__all__ = ["make_pair"]
LATER_KEY = "the key that n8n got afterwards"


@pytest.fixture
async def archive(tmp_path: Path) -> bytes:
    return (await N8nApp(N8n(tmp_path / "source").make()).export(key="clear")).content


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(NEW_KEY)
    return file


@pytest.fixture
def target(tmp_path: Path, key_file: Path) -> N8nApp:
    """Its key is in a file."""
    return N8nApp(new_app(tmp_path / "target").n8n, {"encryption_key_file": str(key_file)})


async def test_an_undo_under_another_key_is_refused_until_n8n_has_the_one_of_before(
    target: N8nApp, key_file: Path, archive: bytes
) -> None:
    record = await target.import_(archive)
    key_file.write_text(LATER_KEY)

    with pytest.raises(AppUnavailableError, match="another encryption key now than the one that the previous data is"):
        await target.recipe.undo(record, NotedProgress())

    assert target.app.calls == ["stop", "start"]
    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    key_file.write_text(NEW_KEY)
    assert await target.recipe.undo(record, NotedProgress()) is None
    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_an_undo_in_postgresql_under_another_key_is_refused(make_pair: MakePair, tmp_path: Path) -> None:
    source, target = make_pair("source"), make_pair("target", key=NEW_KEY)
    record = await target.app.import_((await source.app.export(key="clear")).content)
    (tmp_path / "key of target").write_text(LATER_KEY)

    with pytest.raises(AppUnavailableError, match="another encryption key now than the one that the previous data is"):
        await target.app.recipe.undo(record, NotedProgress())

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_what_was_staged_for_another_key_is_not_put_in_place(
    target: N8nApp, key_file: Path, archive: bytes
) -> None:
    record = MemoryRecord()
    await target.stage(archive, record)
    key_file.write_text(LATER_KEY)

    with pytest.raises(AppUnavailableError, match="another encryption key now than when the file was staged"):
        await target.recipe.restore(record, NotedProgress())

    assert target.app.calls == []
    assert target.n8n.workflow_names() == ["present 0"]


@pytest.mark.parametrize("config", [json.dumps({"encryptionKey": LATER_KEY}), "{}", "no JSON"])
async def test_a_key_in_config_goes_back_with_an_undo_which_says_so(
    config: str, tmp_path: Path, archive: bytes
) -> None:
    target = new_app(tmp_path / "target")
    record = await target.import_(archive)
    (target.n8n.folder / "config").write_text(config)

    told = await target.recipe.undo(record, NotedProgress())

    assert told is not None
    assert "encryption key is again the one of before the import" in told
    assert json.loads((target.n8n.folder / "config").read_text())["encryptionKey"] == NEW_KEY


async def test_previous_data_that_its_own_key_did_not_open_goes_back_under_any(tmp_path: Path, archive: bytes) -> None:
    target = new_app(tmp_path / "target")
    config = target.n8n.folder / "config"
    config.write_text(json.dumps({"encryptionKey": LATER_KEY}))
    record = await target.import_(archive)
    assert target.n8n.secrets(LATER_KEY)["ldap"] == "ldap!"
    config.write_text(json.dumps({"encryptionKey": NEW_KEY}))

    assert await target.recipe.undo(record, NotedProgress()) is None

    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"


async def test_an_import_is_not_encrypted_for_a_key_that_does_not_open_what_n8n_has(
    target: N8nApp, key_file: Path, archive: bytes
) -> None:
    key_file.write_text(LATER_KEY)
    (target.n8n.folder / "config").unlink()

    with pytest.raises(AppUnavailableError, match="does not open what n8n has now: deployment key signing") as refused:
        await target.stage(archive, MemoryRecord())

    assert "encryption_key_file" in refused.value.next_step
    key_file.write_text(NEW_KEY)
    await target.stage(archive, MemoryRecord())


async def test_an_import_is_not_encrypted_for_another_key_than_n8n_has_in_its_config(
    tmp_path: Path, key_file: Path, archive: bytes
) -> None:
    empty = N8n(tmp_path / "target", key=LATER_KEY, is_version_2=False, credentials=0).make()
    target = N8nApp(empty, {"encryption_key_file": str(key_file)})

    with pytest.raises(AppUnavailableError, match=r"another encryption key than n8n's file config in .*/target has\."):
        await target.stage(archive, MemoryRecord())
