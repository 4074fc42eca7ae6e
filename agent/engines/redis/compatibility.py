"""Which server can load which file: asked before the server is, since some of them end when they cannot.

Versions of the format only go up: a server reads its own and older ones (rdb.h of each release; all of it was tried).
Valkey 9 has a format of its own and reads those of Redis up to 7.2, from which it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from agent.engines.rdb.content import RdbContent
from agent.engines.redis.connection import Connection, ReplyError
from agent.engines.redis.facts import ServerFacts
from common.errors import ArchiveIncompatibleError
from common.rdb import RdbHeader

_REDIS_RELEASES = (((7, 4), 12), ((7, 2), 11), ((7, 0), 10), ((5, 0), 9), ((4, 0), 8), ((3, 2), 7), ((2, 6), 6))
"""The first release that wrote a version."""
_LAST_SHARED_VERSION = 11
_VALKEY_FORMAT = ((9, 0), 80)
_MODULES_OF_TYPES = {
    "vectorset": ("vectorset",),
    "ReJSON-RL": ("ReJSON", "json"),
    "MBbloom--": ("bf",),
    "MBbloomCF": ("bf",),
    "CMSk-TYPE": ("bf",),
    "TopK-TYPE": ("bf",),
    "TDIS-TYPE": ("bf",),
    "TSDB-TYPE": ("timeseries",),
    "ft_index0": ("search", "ft", "searchlight"),
    "ft_invidx": ("search", "ft", "searchlight"),
    "numericdx": ("search", "ft", "searchlight"),
    "ft_tagidx": ("search", "ft", "searchlight"),
    "scdtype00": ("search", "ft", "searchlight"),
    "trietype0": ("search", "ft", "searchlight"),
    "graphdata": ("graph",),
    "graphmeta": ("graph",),
    "bloomfltr": ("bf",),
    "SchAuX": ("search",),
}
"""A module's types have names of nine characters, which no server tells; the names in MODULE LIST are others."""


class Release(Protocol):
    """What of a server decides which files it reads; see ServerFacts."""

    @property
    def kind(self) -> str: ...

    @property
    def major(self) -> tuple[int, int]: ...

    @property
    def name(self) -> str: ...


def require_readable(header: RdbHeader, server: Release) -> None:
    """
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
            f"The file{by} has the format of Valkey 9 ({header.magic}), which {why}.",
            next_step=f"Import it into {needs}, or export with another program.",
        )
    most = newest_readable(server)
    if header.version <= most:
        return
    release = next((first for first, version in _REDIS_RELEASES if version <= header.version), None)
    needs = f"Redis {release[0]}.{release[1]} or newer" if release else "another server"
    raise ArchiveIncompatibleError(
        f"The file{by} is of RDB version {header.version} and needs {needs}; this is {server.name}, which reads RDB up "
        f"to version {most}.",
        next_step=f"Import it into {needs}, or export from an older server.",
    )


def newest_readable(server: Release) -> int:
    """The newest version with the magic REDIS that a server reads."""
    if server.kind == "valkey":
        return _LAST_SHARED_VERSION
    return next((version for release, version in _REDIS_RELEASES if server.major >= release), 5)


def require_modules(content: RdbContent, server: ServerFacts, known: Mapping[str, str]) -> None:
    """
    Args:
        known: types of other modules and the names of those; see RedisSettings.module_types.
    Raises:
        ArchiveIncompatibleError: a value belongs to a module that the server has not loaded.
    """
    lacking = [
        name
        for name in sorted({*content.module_types, *content.module_fields})
        if not _is_loaded(name, server.modules, known)
    ]
    if lacking:
        count = sum(content.module_types.get(name, 0) for name in lacking)
        there = ", ".join(sorted(server.modules)) or "none"
        raise ArchiveIncompatibleError(
            f"The file needs module data that is not loaded here: {', '.join(map(_told, lacking))} ({count} keys). "
            f"Modules of this server: {there}.",
            next_step="Load the module into the server first.",
        )


def _is_loaded(name: str, modules: frozenset[str], known: Mapping[str, str]) -> bool:
    names: Iterable[str] = [known[name]] if name in known else _MODULES_OF_TYPES.get(name, ())
    return any(module.lower() == one.lower() for module in modules for one in names)


def _told(name: str) -> str:
    modules = _MODULES_OF_TYPES.get(name)
    return f"{name} of module {modules[0]}" if modules else f"{name} of a module that this program does not know"


async def require_databases(connection: Connection, content: RdbContent) -> None:
    """
    Raises:
        ArchiveIncompatibleError: the file selects a database of a number that the server does not have.
    """
    highest = content.highest_database
    try:
        await connection.call("SELECT", highest)
    except ReplyError as error:
        raise ArchiveIncompatibleError(
            f"The file has keys in database {highest}, which this server does not have: {error.text}.",
            next_step="Raise `databases` in the server's configuration and restart it.",
        ) from error
    await connection.call("SELECT", 0)
