"""Whether a server, as it is set up now, has what data needs: asked before it is given any, since some end when they
have not, or lose what they had.

It is asked when a file is staged, and again before a swap, since a server may have been set up anew in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from agent.engines.rdb.content import RdbContent
from agent.engines.redis.compatibility import require_readable
from agent.engines.redis.connection import Connection, ReplyError
from agent.engines.redis.facts import ServerFacts
from common.errors import AppUnavailableError, ArchiveIncompatibleError, NoSpaceError
from common.rdb import RdbHeader

_MOST_MEMORY_BYTES = 1 << 50
"""What a file says beyond that is not believed."""
_MEMORY_FOR_EACH_BYTE = 3
"""Of a file that does not say how much memory its data took; small keys take more, packed values less."""
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


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What data needs of a server, besides one that reads its version.

    Attributes:
        highest_database: the highest number that it selects.
        memory_bytes: what it takes in a server, about.
        expiring_keys: how many keys with a time to live there are then.
        types: of modules, with the number of their values.
        modules: by the names that MODULE LIST has for them.
        run_id, maximum_bytes, eviction: of the server that held it; empty: a file, or not noted.
    """

    highest_database: int
    memory_bytes: int
    expiring_keys: int
    types: dict[str, int] = {}
    modules: list[str] = []
    run_id: str = ""
    maximum_bytes: int = 0
    eviction: str = ""

    def were_met_by(self, server: ServerFacts) -> bool:
        """Whether the server held that data in this run of it, set up as it is now."""
        then = (self.run_id, self.maximum_bytes, self.eviction, self.modules)
        return then == (server.run_id, server.maximum_bytes, server.eviction, sorted(server.modules))

    @classmethod
    def of_file(cls, content: RdbContent) -> Needs:
        return cls(
            highest_database=content.highest_database,
            memory_bytes=memory_of(content),
            expiring_keys=expiring_keys(content),
            types={**dict.fromkeys(content.module_fields, 0), **content.module_types},
        )

    @classmethod
    def of_server(cls, server: ServerFacts, *, highest_database: int) -> Needs:
        """What it holds now.

        Args:
            highest_database: that it has used lately; it may be empty now.
        """
        return cls(
            highest_database=max(highest_database, *server.keys, 0),
            memory_bytes=server.data_bytes,
            expiring_keys=server.expiring_count,
            modules=sorted(server.modules),
            run_id=server.run_id,
            maximum_bytes=server.maximum_bytes,
            eviction=server.eviction,
        )


def memory_of(content: RdbContent) -> int:
    """What the data will take in a server, in bytes, about; what the file says of it counts where it says more than its
    own strings do."""
    said = content.fields.get("used-mem", "")
    if said.isdecimal() and (size_bytes := int(said)) <= _MOST_MEMORY_BYTES:
        return max(size_bytes, content.unpacked_bytes)
    return max(_MEMORY_FOR_EACH_BYTE * content.size_bytes, content.unpacked_bytes)


def expiring_keys(content: RdbContent) -> int:
    """How many keys with a time to live a server has when it has loaded the file."""
    return content.expiring - content.expired


async def require_fit(
    connection: Connection,
    server: ServerFacts,
    header: RdbHeader,
    needs: Needs,
    *,
    module_types: Mapping[str, str],
    subject: str = "The file",
    drops_data: bool = False,
) -> None:
    """See that a server can take data.

    Args:
        connection: to that server.
        header: of the data.
        module_types: types of other modules and the names of those; see RedisSettings.module_types.
        subject: begins what is said.
        drops_data: the server drops what it has before it loads.
    Raises:
        ArchiveIncompatibleError: it does not read it, or lacks a module or a database.
        NoSpaceError: old and new data together do not fit into the machine, or the new alone not into the server.
    """
    require_readable(header, server, subject=subject)
    _require_modules(needs, server, module_types, subject)
    await _require_databases(connection, needs, subject)
    _require_memory(needs, server, beside_bytes=0 if drops_data else server.used_bytes)


def _require_modules(needs: Needs, server: ServerFacts, known: Mapping[str, str], subject: str) -> None:
    loaded = {name.lower() for name in server.modules}
    types = [name for name in sorted(needs.types) if not _is_loaded(name, loaded, known)]
    modules = [name for name in needs.modules if name.lower() not in loaded]
    if types or modules:
        count = f" ({sum(needs.types[name] for name in types)} keys)" if types else ""
        there = ", ".join(sorted(server.modules)) or "none"
        raise ArchiveIncompatibleError(
            f"{subject} needs module data that is not loaded here: {', '.join([*map(_told, types), *modules])}{count}. "
            f"Modules of this server: {there}.",
            next_step="Load the module into the server first.",
        )


def _is_loaded(name: str, loaded: set[str], known: Mapping[str, str]) -> bool:
    names: Iterable[str] = [known[name]] if name in known else _MODULES_OF_TYPES.get(name, ())
    return any(one.lower() in loaded for one in names)


def _told(name: str) -> str:
    modules = _MODULES_OF_TYPES.get(name)
    return f"{name} of module {modules[0]}" if modules else f"{name} of a module that this program does not know"


async def _require_databases(connection: Connection, needs: Needs, subject: str) -> None:
    try:
        await connection.call("SELECT", needs.highest_database)
    except ReplyError as error:
        if error.kind != "ERR":
            raise AppUnavailableError(f"{connection.login.place} does not take SELECT: {error.text}.") from error
        raise ArchiveIncompatibleError(
            f"{subject} has keys in database {needs.highest_database}, which this server does not have: {error.text}.",
            next_step="Raise `databases` in the server's configuration and restart it.",
        ) from error
    await connection.call("SELECT", 0)


def _require_memory(needs: Needs, server: ServerFacts, *, beside_bytes: int) -> None:
    needed = needs.memory_bytes
    if server.maximum_bytes and needed > server.maximum_bytes and not _may_evict(needs, server):
        why = (
            f", since {server.eviction} evicts only keys with a time to live and the data has none"
            if server.evicts_only_expiring
            else ""
        )
        raise NoSpaceError(
            f"The data takes about {_mib(needed)} of memory, and the server may use {_mib(server.maximum_bytes)} "
            f"(maxmemory): it would refuse every write afterwards{why}.",
            next_step="Raise maxmemory, or choose an eviction policy that takes any key (allkeys-lru, for example).",
        )
    if server.system_bytes and beside_bytes + needed > server.system_bytes:
        raise NoSpaceError(
            f"Until the swap the new data, about {_mib(needed)}, is in memory beside the {_mib(beside_bytes)} of "
            f"now; the machine has {_mib(server.system_bytes)}.",
            next_step="Give the server more memory for the import.",
        )


def _may_evict(needs: Needs, server: ServerFacts) -> bool:
    return needs.expiring_keys > 0 if server.evicts_only_expiring else server.may_evict


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20:,} MiB"
