"""A SQLite database exchanged for a staged one while an app has it open.

For recipes of apps that can go on with it. None of ours uses it: what n8n and Uptime Kuma hold in memory would mix
with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.archives.members import printable
from agent.engines import sqlite_snapshots
from agent.engines.sqlite_snapshots import ask, started
from agent.engines.sqlite_uploads import ask_jailed
from common.errors import AppBusyError, NoSpaceError, ServiceError, ToolFailedError


async def import_live(staged: Path, live: Path) -> None:
    """Make the content of a database that an app has open that of a staged one, which is changed to fit it.

    One transaction of SQLite's: the app sees all of the old or all of the new content, and a kill leaves the old. The
    app may hold rows in memory, so it has to be restarted afterwards.

    Raises:
        AppBusyError: the live database was locked all the time; nothing was changed.
        NoSpaceError, ToolFailedError: it could not be written; nothing was changed.
    """
    busy_seconds = sqlite_snapshots.BUSY_SECONDS
    async with started("import") as child:
        form = _written(live, await ask(child, live=str(live), busy_seconds=busy_seconds))
        size = {"page_size": form["page_size"], "is_wal": form["is_wal"]}
        _written(staged, await ask_jailed("match", staged, jail_writes_bytes=None, **size))
        _written(live, await ask(child, live=str(live), staged=str(staged), busy_seconds=busy_seconds))


def _written(path: Path, answer: dict[str, Any]) -> dict[str, Any]:
    failures: dict[str, type[ServiceError]] = {"busy": AppBusyError, "no_space": NoSpaceError}
    if "failed" in answer:
        error = failures.get(answer["failed"], ToolFailedError)
        raise error(
            f"The database {printable(path.name)} could not be imported: {answer['text']}; nothing was changed."
        )
    return answer
