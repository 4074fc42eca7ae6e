"""An exchange of a MinIO's data in a process that kills itself at a moment.

    python -m tests.integration.agent.recipes.minio_program ACTION MOMENT SETTINGS WORK_DIRECTORY JOURNAL_DIRECTORY

ACTION is export, restore, undo or recover, the latter three of the only import in the journal; SETTINGS is JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from agent.engines.minio.snapshot import Snapshot
from agent.journal import Journal
from agent.recipes.base import ExportOptions
from agent.recipes.minio import TAR, MinioRecipe
from tests.fakes.imports import NotedProgress, surroundings
from tests.fixtures.minio_moments import MOMENTS, Moment


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    action, moment, settings, work_directory, journal_directory = sys.argv[1:]
    recipe = MinioRecipe(surroundings(Path(work_directory), json.loads(settings), app_id="shop.files"))
    if action == "export":
        Moment(Snapshot, "second_pass", is_after=True).hook(_die)
        options = ExportOptions(format=TAR, app_id="shop.files", file_name="files.tar")
        async with recipe.export_data(options, NotedProgress()):
            raise AssertionError("it should have died")
    MOMENTS[moment].hook(_die)
    [entry] = Journal(Path(journal_directory), app_id="shop.files", recipe="minio").read()
    if action == "recover":
        await recipe.recover(entry)
    else:
        await (recipe.restore if action == "restore" else recipe.undo)(entry, NotedProgress())


if __name__ == "__main__":
    asyncio.run(main())
