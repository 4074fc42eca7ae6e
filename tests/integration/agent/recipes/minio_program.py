"""An exchange of a MinIO's data in a process that kills itself at a moment; for `forked.require_killed`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from agent.engines.minio.drive.snapshot import Snapshot
from agent.journal import Journal
from agent.recipes.base import ExportOptions
from agent.recipes.minio import TAR, MinioRecipe
from tests.fakes.imports import NotedProgress, surroundings
from tests.fixtures.minio_moments import MOMENTS, Moment


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(
    moment: str, action: str, settings: dict[str, object], work_directory: Path, journal_directory: Path
) -> None:
    """Export, or go on with the only import in the journal.

    Args:
        action: export, restore, undo or recover.
    """
    asyncio.run(_work(moment, action, settings, work_directory, journal_directory))


async def _work(
    moment: str, action: str, settings: dict[str, object], work_directory: Path, journal_directory: Path
) -> None:
    recipe = MinioRecipe(surroundings(work_directory, settings, app_id="shop.files"))
    if action == "export":
        Moment(Snapshot, "second_pass", is_after=True).hook(_die)
        options = ExportOptions(format=TAR, app_id="shop.files", file_name="files.tar")
        async with recipe.export_data(options, NotedProgress()):
            raise AssertionError("it should have died")
    MOMENTS[moment].hook(_die)
    [entry] = Journal(journal_directory, app_id="shop.files", recipe="minio").read()
    if action == "recover":
        await recipe.recover(entry)
    else:
        await (recipe.restore if action == "restore" else recipe.undo)(entry, NotedProgress())
