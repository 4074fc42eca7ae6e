"""Which server can load which file: asked before the server is, since some of them end when they cannot.

Versions of the format only go up: a server reads its own and older ones (rdb.h of each release; all of it was tried).
Valkey 9 has a format of its own and reads those of Redis up to 7.2, from which it comes.
"""

from __future__ import annotations

from typing import Protocol

from common.errors import ArchiveIncompatibleError
from common.rdb import RdbHeader

_REDIS_RELEASES = (((7, 4), 12), ((7, 2), 11), ((7, 0), 10), ((5, 0), 9), ((4, 0), 8), ((3, 2), 7), ((2, 6), 6))
"""The first release that wrote a version."""
_LAST_SHARED_VERSION = 11
_VALKEY_FORMAT = ((9, 0), 80)


class Release(Protocol):
    """What of a server decides which files it reads; see ServerFacts."""

    @property
    def kind(self) -> str: ...

    @property
    def major(self) -> tuple[int, int]: ...

    @property
    def name(self) -> str: ...


def require_readable(header: RdbHeader, server: Release, *, subject: str = "The file") -> None:
    """
    Args:
        subject: begins what is said.
    Raises:
        ArchiveIncompatibleError: the server's release does not read the file's version; says which does.
    """
    by = f", written by {header.writer}," if header.writer else ""
    if header.flavour == "valkey":
        if server.kind == "valkey" and server.major >= _VALKEY_FORMAT[0]:
            return
        needs = "Valkey 9.0 or newer"
        why = "no Redis reads" if server.kind == "redis" else f"{server.name} does not read"
        raise ArchiveIncompatibleError(
            f"{subject}{by} has the format of Valkey 9 ({header.magic}), which {why}.",
            next_step=f"Import it into {needs}, or export with another program.",
        )
    most = newest_readable(server)
    if header.version <= most:
        return
    release = next((first for first, version in _REDIS_RELEASES if version <= header.version), None)
    needs = f"Redis {release[0]}.{release[1]} or newer" if release else "another server"
    raise ArchiveIncompatibleError(
        f"{subject}{by} is of RDB version {header.version} and needs {needs}; this is {server.name}, which reads RDB "
        f"up to version {most}.",
        next_step=f"Import it into {needs}, or export from an older server.",
    )


def newest_readable(server: Release) -> int:
    """The newest version with the magic REDIS that a server reads."""
    if server.kind == "valkey":
        return _LAST_SHARED_VERSION
    return next((version for release, version in _REDIS_RELEASES if server.major >= release), 5)
