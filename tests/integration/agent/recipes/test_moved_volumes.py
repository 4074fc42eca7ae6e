"""An app whose data directory is another one since an import takes neither its restore nor its undo there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.recipes.base import Recovered
from common.errors import AppUnavailableError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.archives import described
from tests.fixtures.kuma_apps import KUMA_2, KumaApp
from tests.fixtures.n8n_data import NEW_KEY, N8n
from tests.integration.agent.recipes.conftest import NotedApp, Volume
from tests.integration.agent.recipes.n8n_apps import N8nApp, new_app

MovableApp = Volume | N8nApp | KumaApp


def not_ours(path: str) -> bool:
    return not path.startswith(".mathison-data")


def volume_at(directory: Path, *, is_new: bool) -> Volume:
    app = Volume(directory)
    if is_new:
        (directory / "file").write_bytes(b"content")
    return app


def n8n_at(directory: Path, *, is_new: bool) -> N8nApp:
    return new_app(directory) if is_new else N8nApp(N8n(directory, key=NEW_KEY))


def kuma_at(directory: Path, *, is_new: bool) -> KumaApp:
    return KumaApp(directory, NotedApp(), content=KUMA_2 if is_new else "")


async def imported_and_staged(app: MovableApp) -> tuple[MemoryRecord, MemoryRecord]:
    """Of the app's own data."""
    content = (await app.export()).content
    imported, staged = await app.import_(content), MemoryRecord()
    await app.stage(content, staged)
    return imported, staged


@pytest.mark.parametrize("app_at", [volume_at, n8n_at, kuma_at])
async def test_neither_is_done_anywhere_until_the_settings_are_back(
    app_at: Callable[..., MovableApp], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    app = app_at(here, is_new=True)
    imported, staged = await imported_and_staged(app)
    shutil.copytree(here, there, symlinks=True)
    moved = app_at(there, is_new=False)
    before = described(here), described(there)

    for step, record in ((moved.recipe.undo, imported), (moved.recipe.restore, staged)):
        with pytest.raises(AppUnavailableError) as refused:
            await step(record, NotedProgress())
        assert refused.value.text == (
            f"By the agent's settings the app keeps its data in {there} now; when the file was staged, it was {here}."
        )
        assert "Put the agent's settings back" in refused.value.next_step
        assert await moved.recipe.recover(record) in (Recovered.IMPORTED, Recovered.PREVIOUS)

    assert (described(here), described(there)) == before
    await app.recipe.discard(staged)
    await app.recipe.undo(imported, NotedProgress())


@pytest.mark.parametrize("app_at", [volume_at, n8n_at, kuma_at])
async def test_a_directory_that_was_moved_with_all_that_is_in_it_takes_them(
    app_at: Callable[..., MovableApp], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    app = app_at(here, is_new=True)
    before = described(here)
    imported, staged = await imported_and_staged(app)
    here.rename(there)
    moved = app_at(there, is_new=False)

    await moved.recipe.undo(imported, NotedProgress())
    assert described(there, is_wanted=not_ours) == before
    await moved.recipe.discard(staged)
    confirmed = await moved.import_((await moved.export()).content)
    there.rename(here)
    await app.recipe.discard(confirmed)

    assert not (here / ".mathison-data").exists()


async def test_a_directory_by_another_name_is_the_same(tmp_path: Path) -> None:
    app = volume_at(tmp_path / "here", is_new=True)
    imported = await app.import_((await app.export()).content)
    (tmp_path / "link").symlink_to("here")

    await volume_at(tmp_path / "link", is_new=False).recipe.undo(imported, NotedProgress())

    assert not app.has_leftovers


async def test_an_n8n_whose_file_is_called_otherwise_since_takes_neither(tmp_path: Path) -> None:
    app = new_app(tmp_path / "n8n")
    content = (await app.export(key="clear")).content
    imported = await app.import_(content)
    staged = MemoryRecord()
    await app.stage(content, staged)
    app.n8n.database.rename(app.n8n.folder / "main.sqlite")
    renamed = N8nApp(replace(app.n8n), settings={"database_file": "main.sqlite"})
    before = described(app.n8n.folder)

    for step, record in ((renamed.recipe.undo, imported), (renamed.recipe.restore, staged)):
        with pytest.raises(AppUnavailableError, match=r"in the file main\.sqlite now.*was the file database\.sqlite"):
            await step(record, NotedProgress())

    assert described(app.n8n.folder) == before
