"""Room on the server's disk while an import is built there, where the agent can see that disk.

A database that fills its disk stops, and the app with it; so we stop before. In a pod the agent mounts the app's volume
at the same path; elsewhere the server's own error is what we have.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from agent.engines.pg.connection import Connection, Login
from common.errors import NoSpaceError

LOOK_EVERY_SECONDS = 0.5
T = TypeVar("T")


async def data_directories(connection: Connection, login: Login, database: str) -> list[Path]:
    """Where a database like `database` and its log are written, as far as the role may know and the agent can see."""
    if not _is_here(login.host):
        return []
    cursor = await connection.execute(
        "SELECT current_setting('data_directory'), pg_tablespace_location(dattablespace) FROM pg_database"
        " WHERE datname = %s AND pg_has_role('pg_read_all_settings', 'USAGE')",
        [database],
    )
    row = await cursor.fetchone()
    if row is None:
        return []
    data, tablespace = Path(row[0]), row[1]
    candidates = [data, data / "pg_wal", *([Path(tablespace)] if tablespace else [])]
    return [path for path in candidates if _free_bytes(path) is not None]


async def keep_room(work: Coroutine[Any, Any, T], directories: list[Path], *, free_bytes: int) -> T:
    """Do something as long as there is room.

    Args:
        free_bytes: what has to stay free in each directory.
    Raises:
        NoSpaceError: there was not; the work was cancelled.
    """
    worker = asyncio.create_task(work, name="build an import while there is room")
    try:
        while True:
            _require_room(directories, free_bytes)
            await asyncio.wait({worker}, timeout=LOOK_EVERY_SECONDS if directories else None)
            if worker.done():
                return worker.result()
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


def _require_room(directories: list[Path], free_bytes: int) -> None:
    for directory in directories:
        free = _free_bytes(directory)
        if free is not None and free < free_bytes:
            raise NoSpaceError(
                f"The server's disk has {free >> 20} MiB left at {directory}; an import stops at {free_bytes >> 20} "
                "MiB. Nothing was changed.",
                next_step="Make room for the new data beside the old, then import again.",
            )


def _free_bytes(directory: Path) -> int | None:
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _is_here(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
