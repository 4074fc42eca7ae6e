"""What a server is and holds now, from its own INFO."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.engines.redis.connection import Connection, NotAllowedError, ReplyError
from common.errors import AppUnavailableError

_KEYS = re.compile(r"keys=(\d+)")
_EXPIRES = re.compile(r"expires=(\d+)")
_DATABASE = re.compile(r"db(\d+)")
_WITHOUT_TYPES = frozenset({"lua"})
"""Modules of which it is known: Valkey's own, for scripts."""
_MODULE = re.compile(r"^module:name=([^,\r\n]+)(?:.*\boptions=\[([^\]\r\n]*)\])?", re.MULTILINE)


@dataclass(frozen=True)
class ServerFacts:
    """One look at a server.

    Attributes:
        kind: "redis" or "valkey".
        run_id: new whenever the server starts.
        mode: "standalone", "cluster" or "sentinel".
        master: host and port of the server that this one copies; None for a master.
        keys: by database, only those that have any.
        is_loading: it does not answer commands on data yet.
        is_persistent: it writes files from which it comes back; None: not allowed to know.
        data_bytes: the part of the used memory that is data.
        changes: writes since its last own snapshot, or since it started.
        libraries: function libraries that it has; Redis 6.2 has none.
        evicted: keys that it has dropped for want of memory since it started.
        modules: by name, with the options that each declares.
    """

    kind: str
    version: str
    run_id: str
    mode: str
    master: tuple[str, int] | None
    link_is_up: bool
    replicas: int
    replication_id: str
    replication_offset: int
    keys: Mapping[int, int]
    is_loading: bool
    has_aof: bool
    changes: int
    libraries: int
    evicted: int
    used_bytes: int
    data_bytes: int
    maximum_bytes: int
    eviction: str
    system_bytes: int
    modules: Mapping[str, frozenset[str]]
    raw: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """For texts, for example "Valkey 9.1.2"."""
        return f"{self.kind.capitalize()} {self.version}"

    @property
    def major(self) -> tuple[int, int]:
        first, second = [*self.version.split("."), "0"][:2]
        return int(first), int(second)

    @property
    def clock_ms(self) -> int:
        """The server's clock at this look: milliseconds since 1970."""
        return int(self.raw.get("server_time_usec", time.time_ns() // 1000)) // 1000

    @property
    def key_count(self) -> int:
        return sum(self.keys.values())

    @property
    def expiring_count(self) -> int:
        """Keys with a time to live."""
        found = (_EXPIRES.search(value) for name, value in self.raw.items() if _DATABASE.fullmatch(name))
        return sum(int(one[1]) for one in found if one)

    @property
    def has_saved(self) -> bool:
        """Whether it has made a snapshot of its own since it started; `changes` count from there then."""
        saves = self.raw.get("rdb_saves", "0")
        return saves != "0" or self.raw.get("rdb_last_bgsave_time_sec", "-1") != "-1"

    @property
    def has_rewritten_aof(self) -> bool:
        """Whether the last rewrite of its append-only file succeeded, or there was none since it started."""
        return self.raw.get("aof_last_bgrewrite_status", "ok") == "ok"

    @property
    def may_evict(self) -> bool:
        """Whether it drops keys when its memory is full."""
        return self.maximum_bytes > 0 and self.eviction != "noeviction"

    @property
    def evicts_only_expiring(self) -> bool:
        """Whether that is true of keys with a time to live alone; where these are gone it refuses writes."""
        return self.eviction.startswith("volatile-")

    @property
    def will_evict_for_freed_data(self) -> bool:
        """Whether it is over its limit at least for what it has not freed yet."""
        is_freeing = self.raw.get("lazyfree_pending_objects", "0") != "0"
        return self.may_evict and is_freeing and self.used_bytes > self.maximum_bytes

    @property
    def is_copying(self) -> bool:
        """Whether it receives or loads another server's data."""
        return "1" in [self.raw.get(name) for name in ("loading", "async_loading", "master_sync_in_progress")]

    @property
    def serves_while_loading(self) -> bool:
        """Whether it answers reads from the old data while it loads new data beside it (since Redis 7.0)."""
        return self.kind == "valkey" or self.major >= (7, 0)

    @property
    def leaves_out_empty_keys(self) -> bool:
        """Whether it does so in a load. A 6.2.5 keeps an empty set, saves it, and ends itself when it loads that."""
        return self.kind == "valkey" or self.major >= (7, 0)

    @property
    def modules_against_swap(self) -> list[str]:
        """Modules for which it takes no notice of `repl-diskless-load` (useDisklessLoad in replication.c).

        It minds errors of reading only in those that have data types, which no server tells: here it is all that may.
        """
        beside = {"handle-repl-async-load"} if self.serves_while_loading else set()
        return sorted(
            name
            for name, options in self.modules.items()
            if not (beside if name in _WITHOUT_TYPES else {*beside, "handle-io-errors"}) <= options
        )


async def look(connection: Connection) -> ServerFacts:
    """Ask the server.

    Raises:
        AppUnavailableError: what answers is no Redis or Valkey, or it may not be asked.
    """
    try:
        text = await connection.text("INFO", "everything")
    except ReplyError as error:
        raise AppUnavailableError(f"{connection.login.place} does not say what it is: {error.text}.") from error
    raw = parse_info(text)
    if "redis_version" not in raw:
        raise AppUnavailableError(f"{connection.login.place} does not answer as Redis or Valkey does.")
    kind = "valkey" if "valkey_version" in raw else "redis"
    is_replica = raw.get("role") == "slave"
    return ServerFacts(
        kind=kind,
        version=raw.get("valkey_version", raw["redis_version"]),
        run_id=raw.get("run_id", ""),
        mode=raw.get("redis_mode", raw.get("server_mode", "standalone")),
        master=(raw.get("master_host", ""), int(raw.get("master_port", 0))) if is_replica else None,
        link_is_up=raw.get("master_link_status") == "up",
        replicas=int(raw.get("connected_slaves", 0)),
        replication_id=raw.get("master_replid", ""),
        replication_offset=int(raw.get("master_repl_offset", 0)),
        keys=_keys(raw),
        is_loading=raw.get("loading", "0") == "1" and raw.get("async_loading", "0") != "1",
        has_aof=raw.get("aof_enabled") == "1",
        changes=int(raw.get("rdb_changes_since_last_save", 0)),
        libraries=int(raw.get("number_of_libraries", 0)),
        evicted=int(raw.get("evicted_keys", 0)),
        used_bytes=int(raw.get("used_memory", 0)),
        data_bytes=_data_bytes(raw),
        maximum_bytes=int(raw.get("maxmemory", 0)),
        eviction=raw.get("maxmemory_policy", ""),
        system_bytes=int(raw.get("total_system_memory", 0)),
        modules={name: frozenset(options.split("|")) for name, options in _MODULE.findall(text)},
        raw=raw,
    )


def parse_info(text: str) -> dict[str, str]:
    """INFO's lines by name."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


def _data_bytes(raw: Mapping[str, str]) -> int:
    """What Redis 8.2 says right after its start, if it is empty, is some bytes below zero without a sign."""
    said = int(raw.get("used_memory_dataset", 0))
    return said if said <= int(raw.get("used_memory", 0)) else 0


def _keys(raw: Mapping[str, str]) -> dict[int, int]:
    keys = {}
    for name, value in raw.items():
        database, count = _DATABASE.fullmatch(name), _KEYS.search(value)
        if database and count:
            keys[int(database[1])] = int(count[1])
    return dict(sorted(keys.items()))


async def read_setting(connection: Connection, name: str) -> str | None:
    """A setting of the server; None when it has none of that name, or CONFIG was renamed away or is not allowed."""
    try:
        answer = await connection.call("CONFIG", "GET", name)
    except (ReplyError, NotAllowedError):
        return None
    if isinstance(answer, list) and len(answer) == 2 and isinstance(answer[1], bytes):
        return answer[1].decode("utf-8", "replace")
    return None
