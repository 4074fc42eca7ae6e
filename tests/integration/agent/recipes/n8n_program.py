"""A step of an import of n8n in a process that kills itself at a moment.

    python -m tests.integration.agent.recipes.n8n_program ACTION MOMENT FOLDER JOURNAL_DIRECTORY [ARCHIVE]

ACTION is stage, restore or undo, of the only import in the journal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines import swapping
from agent.engines.n8n import importing
from agent.journal import Journal
from agent.recipes import n8n
from tests.fakes.imports import NotedProgress, upload_of
from tests.fixtures.n8n_data import NEW_KEY, OLD_KEY, N8n
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.n8n_apps import N8nApp

OF_A_STAGE = ["unpacked", "checked", "encrypted again"]
OF_A_SWAP = ["stopping", "stopped", "moving out", "moving in", "exchanged", "starting"]
_FUNCTIONS: dict[str, tuple[Any, str]] = {
    "unpacked": (importing, "take_key"),
    "checked": (importing, "prepare_file"),
    "encrypted again": (n8n, "write_config"),
    "stopped": (swapping.Swap, "bring"),
}
_WRITES = ["moving out", "moving in", "exchanged"]
"""What the swap's journal says, in this order."""


@dataclass
class KilledApp(NotedApp):
    """An app whose agent dies while it tells it something."""

    dies_at: str = ""

    async def stop(self) -> None:
        if self.dies_at == "stopping":
            die()
        await super().stop()

    async def start(self) -> None:
        if self.dies_at == "starting":
            die()
        await super().start()


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hook(moment: str) -> None:
    """Have this process die then."""
    if moment in _FUNCTIONS:
        owner, name = _FUNCTIONS[moment]
        setattr(owner, name, die)
    elif moment in _WRITES:
        name = "_write"
        setattr(swapping, name, _dying_after(swapping._write, _WRITES.index(moment)))


def _dying_after(write: Callable[..., None], calls: int) -> Callable[..., None]:
    left = [calls]

    def dying(*arguments: Any) -> None:
        write(*arguments)
        if not left[0]:
            die()
        left[0] -= 1

    return dying


async def main() -> None:
    action, moment, folder, journal_directory, *archive = sys.argv[1:]
    hook(moment)
    [entry] = Journal(Path(journal_directory), app_id="shop.n8n", recipe="n8n").read()
    recipe = N8nApp(N8n(Path(folder), key=NEW_KEY), app=KilledApp(dies_at=moment)).recipe
    if action == "stage":
        upload = upload_of(Path(archive[0]).read_bytes(), {"encryption_key": OLD_KEY})
        await recipe.stage(upload, entry, NotedProgress())
    else:
        await (recipe.restore if action == "restore" else recipe.undo)(entry, NotedProgress())


if __name__ == "__main__":
    asyncio.run(main())
