"""What an import would change, told from the server as it is and from the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.engines.rdb.content import RdbContent
from agent.engines.redis.durable import Keeping
from agent.engines.redis.facts import ServerFacts
from agent.engines.redis.fitting import expiring_keys, memory_of
from common.wording import counted

_KEYS_PER_SECOND = 700_000
_BYTES_PER_SECOND = 120_000_000
"""How fast a server loads, on a machine that is not the fastest."""
_PLURALS = {
    "string": "strings",
    "list": "lists",
    "set": "sets",
    "zset": "sorted sets",
    "hash": "hashes",
    "stream": "streams",
    "module": "module values",
}


@dataclass(frozen=True)
class Comparison:
    """See recipes.base.Preview."""

    changes: tuple[str, ...]
    counts_now: Mapping[str, int]
    counts_after: Mapping[str, int]
    bridging: str
    room_bytes: int
    swap_seconds: float
    warnings: tuple[str, ...]


def compare(server: ServerFacts, content: RdbContent, *, keeping: Keeping, by_file: str) -> Comparison:
    """
    Args:
        by_file: see durable.why_by_file.
    """
    return Comparison(
        changes=(*_databases(server, content), *_functions(server, content), *_effort(server, content)),
        counts_now=counts_of_keys(server.keys),
        counts_after=counts_of(content),
        bridging=_bridging(server, content),
        room_bytes=memory_of(content),
        swap_seconds=_load_seconds(content),
        warnings=tuple(_warnings(server, content, keeping=keeping, by_file=by_file)),
    )


def counts_of_keys(keys: Mapping[int, int]) -> dict[str, int]:
    """In all, and by database."""
    return {"keys": sum(keys.values()), **{f"database {number}": count for number, count in sorted(keys.items())}}


def counts_of(content: RdbContent) -> dict[str, int]:
    """What a server has when it has loaded a file."""
    counts = counts_of_keys(content.staying)
    counts |= {_PLURALS.get(kind, kind): count for kind, count in sorted(content.staying_kinds.items())}
    for name, count in (("with expiry", expiring_keys(content)), ("functions", content.functions)):
        if count:
            counts[name] = count
    return counts


def _databases(server: ServerFacts, content: RdbContent) -> list[str]:
    now, after = server.keys, content.staying
    numbers = sorted({*now, *after})
    if not numbers:
        return ["There are no keys now, and none in the file."]
    return [
        f"Database {number}: {counted(now.get(number, 0), 'keys')} now, {after.get(number, 0):,} after the import."
        for number in numbers
    ]


def _functions(server: ServerFacts, content: RdbContent) -> list[str]:
    if content.functions:
        return [f"Function libraries will be the {content.functions} of the file."]
    if not server.libraries:
        return []
    return [f"{counted(server.libraries, 'function libraries')} of the server will be gone; the file has none."]


def _bridging(server: ServerFacts, content: RdbContent) -> str:
    """A server reads older snapshots as they are; those that it does not were refused before."""
    written_by = content.header.writer
    kind, _, version = written_by.partition(" ")
    if not version or (kind.lower(), version.split(".")[:2]) == (server.kind, server.version.split(".")[:2]):
        return ""
    return (
        f"Written by {written_by}, goes into {server.name}, which reads that version of the format "
        f"({content.header.magic})."
    )


def _load_seconds(content: RdbContent) -> float:
    return max(content.key_count / _KEYS_PER_SECOND, content.size_bytes / _BYTES_PER_SECOND)


def _effort(server: ServerFacts, content: RdbContent) -> list[str]:
    seconds = _load_seconds(content)
    return [
        f"Until the swap the new data takes about {memory_of(content) >> 20:,} MiB of memory beside the "
        f"{server.used_bytes >> 20:,} MiB in use.",
        f"Clients that write will wait about {max(1, round(seconds)):,} s, once.",
    ]


def _warnings(server: ServerFacts, content: RdbContent, *, keeping: Keeping, by_file: str) -> list[str]:
    warnings = []
    if not content.has_checksum:
        warnings.append("The file carries no checksum, so a byte that was changed on its way need not show.")
    if content.expired:
        warnings.append(f"{counted(content.expired, 'keys')} of the file will vanish: the time to live is over.")
    if content.empty:
        warnings.append(f"The server leaves out {counted(content.empty, 'empty keys')} of the file.")
    if content.scripts:
        warnings.append(
            f"{counted(content.scripts, 'Lua scripts')} that the file's server had cached will be left out: they are "
            "no data, and a Redis 6.2 would run them in a load. EVALSHA answers NOSCRIPT until a client loads them."
        )
    if keeping is Keeping.NOTHING:
        warnings.append("This server saves nothing: like all its data, the imported will be gone when it restarts.")
    if by_file:
        warnings.append(f"{by_file}, so it will drop its data first and answer nothing until the new data is loaded.")
    elif not server.serves_while_loading:
        warnings.append(f"{server.name} answers -LOADING to clients while it loads; newer servers read on.")
    if content.module_types or content.module_fields:
        warnings.append(_of_modules(content, by_file))
    needed = memory_of(content)
    if server.maximum_bytes and needed > server.maximum_bytes:
        only = (
            f"keys with a time to live ({expiring_keys(content):,} of {sum(content.staying.values()):,}), and "
            "refuse every write if the others do not fit"
            if server.evicts_only_expiring
            else "a part of it"
        )
        warnings.append(f"The data is larger than maxmemory; the server will evict {only} ({server.eviction}).")
    return warnings


def _of_modules(content: RdbContent, by_file: str) -> str:
    names = ", ".join(sorted({*content.module_types, *content.module_fields}))
    text = (
        f"What modules wrote ({names}) is not looked into: whether the server's modules take it shows only when it is "
        "loaded; older releases of them, for example, may not. "
    )
    if by_file:
        return (
            f"{text}Then the server ends after it has dropped its data, and cannot start again, for its snapshot file "
            "(`dbfilename`) is the imported one: with that moved away it starts empty, and the agent puts the previous "
            "data back."
        )
    return f"{text}Then the server may end; it comes back with what its own files hold."
