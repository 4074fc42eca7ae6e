"""Room on the server's disk while an import is built there, where the agent can see that disk.

A server whose disk is full may stop altogether, with all of its databases, since it can write neither its log nor a
checkpoint any more; so an import stops before.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from agent.engines.pg.server.connection import Connection, Login
from agent.engines.pg.server.data_directories import Cluster, belongs, find_directory
from agent.engines.pg.server.settings import PostgresSettings
from common.errors import NoSpaceError

LOOK_EVERY_SECONDS = 0.1
"""Rows that three sessions loaded, and the server's log of them, took up to 0.3 GB a second of a disk in memory: 31 MiB
between two looks."""
DROP_BYTES = 64 << 20
"""What a server has to have left before it is asked to drop a database, which begins with a checkpoint: four pieces of
its log. Without room for a file of a few bytes it stops."""
T = TypeVar("T")


@dataclass(frozen=True)
class Disk:
    """Where a server writes, as the agent sees it.

    Attributes:
        place: the server, for texts.
        directories: of a database and of the server's log; empty where none is seen.
        reason: why none is seen, as a part of a sentence.
    """

    place: str = ""
    directories: tuple[Path, ...] = ()
    reason: str = ""

    @property
    def warning(self) -> str:
        """What a person should know before an import; empty where the disk is seen."""
        if self.directories:
            return ""
        return (
            f"The agent cannot see the disk of {self.place} ({self.reason}), so nothing stops an import before that is "
            "full, and a full disk stops the whole server, with all of its databases. See that there is room for the "
            "new data beside the old, and for the server's log of it; or mount the server's data directory for the "
            "agent and name it in the setting data_directory."
        )

    def require_room(self, free_bytes: int) -> None:
        """NoSpaceError: one of the directories has less."""
        for directory in self.directories:
            free = _free_bytes(directory)
            if free is not None and free < free_bytes:
                raise NoSpaceError(
                    f"The disk of {self.place} has {free >> 20} MiB left at {directory}; an import stops at "
                    f"{free_bytes >> 20} MiB, since a full disk stops the whole server. Nothing was changed.",
                    next_step="Make room for the new data beside the old, then import again.",
                )

    def require_room_to_drop(self, names: Sequence[str]) -> None:
        """NoSpaceError: to drop these databases could stop the server."""
        found = self.least_room()
        if found is not None and found[1] < DROP_BYTES:
            directory, free = found
            raise NoSpaceError(
                f"The disk of {self.place} has {free >> 20} MiB left at {directory}. Before the server drops "
                f"{' and '.join(names)} it makes a checkpoint, and without room for that it stops, with all of its "
                "databases; so it was not asked to.",
                next_step=f"Make room until {DROP_BYTES >> 20} MiB are free; what is left is then dropped by itself.",
            )

    def least_room(self) -> tuple[Path, int] | None:
        """The directory with the fewest free bytes, and their number; None where none is seen."""
        found = [(directory, _free_bytes(directory)) for directory in self.directories]
        return min(((directory, free) for directory, free in found if free is not None), key=_second, default=None)


def _second(pair: tuple[Path, int]) -> int:
    return pair[1]


async def look_at_disk(connection: Connection, login: Login, settings: PostgresSettings, database: str) -> Disk:
    """Where a database like `database` and the server's log are written.

    The setting says it, or the server, or what lies in the directories that the agent sees.
    """
    try:
        cursor = await connection.execute(
            """
            SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('data_directory') END,
                   (SELECT pg_tablespace_location(dattablespace) FROM pg_database WHERE datname = %s),
                   system_identifier, current_setting('port')::int
              FROM pg_control_system()
            """,
            [database],
        )
    except psycopg.errors.InsufficientPrivilege as failure:
        return Disk(login.place, reason=f"role {login.user} may not ask for it: {failure.diag.message_primary}")
    told, tablespace, number, port = await cursor.fetchone() or (None, None, 0, 0)
    # A number without a sign in the file.
    cluster = Cluster(number % (1 << 64), port)
    data: Path | None
    if settings.data_directory:
        data = Path(settings.data_directory)
        reason = f"the setting data_directory is {data}, where no data of the server is seen"
        if await asyncio.to_thread(belongs, data, cluster) is False or _free_bytes(data) is None:
            data = None
    else:
        data = await _directory_of(Path(told) if told else None, cluster, is_here=_is_here(login.host))
        reason = f"its directory is {told}" if told else f"role {login.user} may not ask for its directory"
    if data is None:
        return Disk(login.place, reason=reason)
    places = [data, data / "pg_wal", *([Path(tablespace)] if tablespace else [])]
    return Disk(login.place, tuple(path for path in places if _free_bytes(path) is not None))


async def _directory_of(told: Path | None, cluster: Cluster, *, is_here: bool) -> Path | None:
    if told is not None and _free_bytes(told) is not None:
        is_its = await asyncio.to_thread(belongs, told, cluster)
        if is_its or (is_its is None and is_here):
            return told
    return await asyncio.to_thread(find_directory, cluster)


async def keep_room(work: Coroutine[Any, Any, T], disk: Disk, *, free_bytes: int) -> T:
    """Do something as long as there is room.

    Args:
        free_bytes: what has to stay free in each directory.
    Raises:
        NoSpaceError: there was not; the work was cancelled.
    """
    worker = asyncio.create_task(work, name="build an import while there is room")
    try:
        while True:
            disk.require_room(free_bytes)
            await asyncio.wait({worker}, timeout=LOOK_EVERY_SECONDS if disk.directories else None)
            if worker.done():
                return worker.result()
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


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
