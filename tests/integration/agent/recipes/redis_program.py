"""A swap in a process that kills itself at a moment; for `forked.require_killed`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from agent.journal import Journal
from agent.recipes.redis import RedisRecipe
from tests.fakes.imports import NotedProgress, surroundings
from tests.fixtures.redis_moments import MOMENTS


def journal_in(directory: Path) -> Journal:
    """As the agent has it."""
    return Journal(directory, app_id="shop.cache", recipe="redis", versions=RedisRecipe.journal_versions)


def die_at(moment: str, action: str, port: int, work_directory: Path, journal_directory: Path) -> None:
    """Go on with the only import in the journal.

    Args:
        action: restore, undo or recover.
    """
    MOMENTS[moment].hook(lambda: os.kill(os.getpid(), signal.SIGKILL), setattr)
    [entry] = journal_in(journal_directory).read()
    recipe = RedisRecipe(surroundings(work_directory, {"port": port}, app_id="shop.cache"))
    match action:
        case "restore":
            asyncio.run(recipe.restore(entry, NotedProgress()))
        case "undo":
            asyncio.run(recipe.undo(entry, NotedProgress()))
        case "recover":
            asyncio.run(recipe.recover(entry))
