"""PostgreSQL's own client programs: which there are, and which one fits a server or an archive.

A pg_dump must not be older than the server it reads, and its output loads best into its own major; so an agent has one
directory per major, and the server decides.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.processes import Command, run
from common.errors import ToolFailedError

DEFAULT_DIRECTORIES = "/usr/lib/postgresql/*/bin"
"""Where Debian's packages and the official images have them, one directory per major."""
OLDEST_SAFE_MINOR = {14: 23, 15: 18, 16: 14, 17: 10, 18: 4}
"""A pg_dump before these can be made to overwrite its own memory by a hostile server (CVE-2026-6477)."""
ARCHIVE_READERS = {16: 17, 15: 16}
"""The oldest major whose pg_restore reads archives of version 1.x (pg_backup_archiver.h); all read 1.14 and below."""
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Client:
    """The client programs of one directory."""

    directory: Path
    major: int
    minor: int

    @property
    def version(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def is_safe(self) -> bool:
        """False: too old to be let near a server or file that is not trusted."""
        return self.minor >= OLDEST_SAFE_MINOR.get(self.major, 0 if self.major > max(OLDEST_SAFE_MINOR) else 1 << 30)

    def program(self, name: str) -> str:
        """The path of one of them, "pg_dump" or "pg_restore"."""
        return str(self.directory / name)

    def environment(self) -> Mapping[str, str]:
        """What they have to be started with."""
        return environment_beside(self.directory)


def environment_beside(programs: Path) -> Mapping[str, str]:
    """What programs need to find the libpq that lies beside them, where one does (a relocated installation)."""
    libraries = programs.parent / "lib"
    return {"LD_LIBRARY_PATH": str(libraries)} if (libraries / "libpq.so.5").exists() else {}


class Clients:
    """All client programs that an agent may use; looked at once, when first asked for."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """
        Args:
            directories: each holds pg_dump and pg_restore; those that do not are left out.
        """
        self._directories = directories
        self._found: list[Client] | None = None
        self._lock = asyncio.Lock()

    async def all(self) -> Sequence[Client]:
        """By version, oldest first; one that does not start is left out."""
        async with self._lock:
            if self._found is None:
                found = await asyncio.gather(*(_look(directory) for directory in self._directories))
                self._found = sorted((one for one in found if one), key=lambda client: (client.major, client.minor))
            return self._found

    async def for_server(self, version_num: int) -> Client:
        """The programs for a server: its own major's, else the lowest newer one's.

        Args:
            version_num: as the server's setting `server_version_num` has it, for example 170010.
        Raises:
            ToolFailedError: there are none, or only older ones, which pg_dump itself would refuse.
        """
        major = version_num // 10_000
        return await self._lowest(major, f"a server of version {major}")

    async def for_archive(self, minor_version: int, *, server_version_num: int) -> Client:
        """The programs whose pg_restore reads an archive and suits the server as well as possible.

        Args:
            minor_version: the archive's, for example 16 for version 1.16.
        """
        needed = ARCHIVE_READERS.get(minor_version, 0)
        return await self._lowest(
            max(needed, server_version_num // 10_000), f"an archive of version 1.{minor_version} and this server"
        )

    async def _lowest(self, major: int, purpose: str) -> Client:
        found = await self.all()
        fitting = [client for client in found if client.major >= major]
        if not fitting:
            there = ", ".join(client.version for client in found) or "none"
            raise ToolFailedError(
                f"There are no PostgreSQL client programs for {purpose}: version {major} or newer is needed, found: "
                f"{there}.",
                next_step=f"Install postgresql-client-{major} beside the agent, or set client_directories.",
            )
        nearest = fitting[0].major
        return max((client for client in fitting if client.major == nearest), key=lambda client: client.minor)


async def _look(directory: Path) -> Client | None:
    if not (directory / "pg_dump").exists() or not (directory / "pg_restore").exists():
        return None
    unread = Client(directory, 0, 0)
    try:
        said = await run(Command([unread.program("pg_dump"), "--version"], environment=unread.environment()))
    except ToolFailedError:
        return None
    version = _VERSION.search(said.decode(errors="replace"))
    return Client(directory, int(version[1]), int(version[2] or 0)) if version else None
