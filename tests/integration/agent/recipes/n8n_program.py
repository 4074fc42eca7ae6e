"""The staging of an import of n8n in a process that kills itself at a moment; for `forked.require_killed`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from agent.engines.n8n import importing
from agent.journal import Journal
from agent.recipes import n8n
from tests.fakes.imports import NotedProgress, upload_of
from tests.fixtures.n8n_data import NEW_KEY, OLD_KEY, N8n
from tests.integration.agent.recipes.n8n_apps import N8nApp

MOMENTS: dict[str, tuple[Any, str]] = {
    "unpacked": (importing, "take_key"),
    "checked": (importing, "prepare_file"),
    "encrypted again": (n8n, "write_config"),
}
"""Before which call."""


def die_at(moment: str, folder: Path, journal_directory: Path, archive: bytes) -> None:
    """Receive an archive into the only import in the journal."""

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(*MOMENTS[moment], die)
    [entry] = Journal(journal_directory, app_id="shop.n8n", recipe="n8n").read()
    upload = upload_of(archive, {"encryption_key": OLD_KEY})
    asyncio.run(N8nApp(N8n(folder, key=NEW_KEY)).recipe.stage(upload, entry, NotedProgress()))
