"""A swap in a process that kills itself at a moment.

    python -m tests.integration.agent.recipes.redis_program ACTION MOMENT PORT WORK_DIRECTORY JOURNAL_DIRECTORY

ACTION is restore or undo, of the only import in the journal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from agent.journal import Journal
from agent.recipes.redis import RedisRecipe
from tests.fakes.imports import NotedProgress, surroundings
from tests.fixtures.redis_moments import MOMENTS


async def main() -> None:
    action, moment, port, work_directory, journal_directory = sys.argv[1:]
    MOMENTS[moment].hook(lambda: os.kill(os.getpid(), signal.SIGKILL), setattr)
    [entry] = Journal(Path(journal_directory), app_id="shop.cache", recipe="redis").read()
    recipe = RedisRecipe(surroundings(Path(work_directory), {"port": int(port)}, app_id="shop.cache"))
    await (recipe.restore if action == "restore" else recipe.undo)(entry, NotedProgress())


if __name__ == "__main__":
    asyncio.run(main())
