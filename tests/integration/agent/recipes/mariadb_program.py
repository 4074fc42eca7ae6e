"""A stage or restore of the recipe mariadb in a process that can be killed.

    python -m tests.integration.agent.recipes.mariadb_program ACTION JOURNAL WORK SETTINGS

`stage` says "loading" and then waits with half of a dump sent, for ever.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from agent.journal import Journal
from agent.recipes.base import Upload
from agent.recipes.mariadb import MariadbRecipe
from common.headers import ArchiveHeader
from tests.fakes.imports import NotedProgress, surroundings
from tests.fixtures.mariadb_apps import KUMA_DUMP


async def half() -> AsyncIterator[bytes]:
    """Half of a dump, and nothing more."""
    dump = gzip.decompress(KUMA_DUMP.read_bytes())
    yield dump[: len(dump) // 2]
    print("loading", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    action, journal, work, settings = sys.argv[1:]
    recipe = MariadbRecipe(surroundings(Path(work), json.loads(settings)))
    [entry] = Journal(Path(journal), app_id="shop.db", recipe="mariadb").read()
    if action == "stage":
        asyncio.run(recipe.stage(Upload(header=ArchiveHeader(), chunks=half()), entry, NotedProgress()))
    else:
        asyncio.run(recipe.restore(entry, NotedProgress()))


if __name__ == "__main__":
    main()
