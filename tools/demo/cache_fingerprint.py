"""Whether two servers hold the same: number of keys and an order-free hash for each database and type, functions.

Read by ordinary commands, so it does not depend on how a server packs what it holds, nor on how the product reads a
snapshot. For a server that nobody writes to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from agent.engines.redis.connection import Connection, Reply, ReplyError

_KEYS_AT_ONCE = 500
_ENTRIES_AT_ONCE = 10_000
_MODULUS = 1 << 128


class Keys(msgspec.Struct, frozen=True):
    """Keys of one type in one database.

    Attributes:
        hash: of names, content and whether they expire.
        expiry_hash: of names and the moments when they, or their fields, expire; empty: the server does not tell
            (before Redis 7.0).
    """

    count: int
    hash: str
    expiry_hash: str


class Fingerprint(msgspec.Struct, frozen=True):
    """Content of a server: keys by database and type, function libraries by name."""

    databases: dict[int, dict[str, Keys]]
    functions: dict[str, str]

    @property
    def sha256(self) -> str:
        """Of all of it, in lower-case hex."""
        content = [sorted(self._flat().items()), sorted(self.functions.items())]
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()

    def differences(self, other: Fingerprint) -> list[str]:
        """One sentence for each thing that differs; empty when both are the same, as far as both tell."""
        mine, theirs = self._flat(), other._flat()
        found = []
        for place in sorted({*mine, *theirs}):
            one, two = mine.get(place), theirs.get(place)
            if one is None or two is None or not _is_same(one, two):
                found.append(f"{place}: {_told(one)} here, {_told(two)} there")
        if self.functions != other.functions:
            found.append(f"functions: {sorted(self.functions)} here, {sorted(other.functions)} there, or other code")
        return found

    def _flat(self) -> dict[str, Keys]:
        return {
            f"{kind} keys of database {number}": keys
            for number, kinds in self.databases.items()
            for kind, keys in kinds.items()
        }


def _is_same(one: Keys, two: Keys) -> bool:
    is_expiry_known = bool(one.expiry_hash and two.expiry_hash)
    return (one.count, one.hash) == (two.count, two.hash) and (
        not is_expiry_known or one.expiry_hash == two.expiry_hash
    )


def _told(keys: Keys | None) -> str:
    return "none" if keys is None else f"{keys.count} of hash {keys.hash[:8]} expiring {keys.expiry_hash[:8]}"


async def fingerprint(connection: Connection) -> Fingerprint:
    """Everything that the server holds. Reads every key."""
    databases = {}
    knows_moments = not isinstance((await connection.calls([("PEXPIRETIME", "-")]))[0], ReplyError)
    for number in await _used_databases(connection):
        await connection.call("SELECT", number)
        if kinds := await _database(connection, knows_moments=knows_moments):
            databases[number] = kinds
    await connection.call("SELECT", 0)
    return Fingerprint(databases=databases, functions=await _functions(connection))


async def _used_databases(connection: Connection) -> list[int]:
    info = await connection.text("INFO", "keyspace")
    return sorted(int(line[2:].partition(":")[0]) for line in info.splitlines() if line.startswith("db"))


async def _database(connection: Connection, *, knows_moments: bool) -> dict[str, Keys]:
    counts: dict[str, list[int]] = {}
    cursor = b"0"
    seen: set[bytes] = set()
    while True:
        scanned = cast(list[Reply], await connection.call("SCAN", cursor, "COUNT", _KEYS_AT_ONCE))
        cursor = cast(bytes, scanned[0])
        # SCAN may return a key twice.
        names = [name for name in dict.fromkeys(cast(list[bytes], scanned[1])) if name not in seen]
        seen.update(names)
        expiry = "PEXPIRETIME" if knows_moments else "PTTL"
        answers = await connection.calls([words for name in names for words in (("TYPE", name), (expiry, name))])
        texts = [name for name, kind in zip(names, answers[::2], strict=True) if kind == b"string"]
        strings = dict(zip(texts, await connection.calls([("GET", name) for name in texts]), strict=True))
        for name, kind, moment in zip(names, answers[::2], answers[1::2], strict=True):
            if kind == b"none" or moment == -2:
                continue
            sums = counts.setdefault(cast(bytes, kind).decode(), [0, 0, 0])
            if name in strings:
                content, moments = cast(bytes, strings[name]), b""
            else:
                content, moments = await _content(connection, cast(bytes, kind), name)
            sums[0] += 1
            sums[1] += _hash(name, cast(bytes, kind), b"expires" if moment != -1 else b"stays", content)
            if moment != -1 or moments:
                sums[2] += _hash(name, b"%d" % cast(int, moment), moments)
        if cursor == b"0":
            break
    return {
        kind: Keys(count, f"{one % _MODULUS:032x}", f"{two % _MODULUS:032x}" if knows_moments else "")
        for kind, (count, one, two) in counts.items()
    }


async def _content(connection: Connection, kind: bytes, name: bytes) -> tuple[bytes, bytes]:
    """What a key holds, and when its fields expire; as bytes that are equal for equal content."""
    match kind:
        case b"list":
            return await _list(connection, name), b""
        case b"set":
            return _unordered((one,) for one in cast(list[bytes], await connection.call("SMEMBERS", name))), b""
        case b"zset":
            return _unordered(
                _scored(cast(list[bytes], await connection.call("ZRANGE", name, 0, -1, "WITHSCORES")))
            ), b""
        case b"hash":
            return await _hash_of_fields(connection, name)
        case b"stream":
            return await _stream(connection, name), b""
    # A module's value; its own serialization, without the version and checksum after it.
    return cast(bytes, await connection.call("DUMP", name))[:-10], b""


async def _list(connection: Connection, name: bytes) -> bytes:
    hashed = hashlib.blake2b(digest_size=16)
    start = 0
    while entries := cast(list[bytes], await connection.call("LRANGE", name, start, start + _ENTRIES_AT_ONCE - 1)):
        for entry in entries:
            hashed.update(b"%d:" % len(entry) + entry)
        start += len(entries)
    return hashed.digest()


def _scored(answer: Sequence[bytes]) -> Iterable[tuple[bytes, ...]]:
    """Members with their scores; releases write the same score in different ways."""
    return ((member, repr(float(score)).encode()) for member, score in zip(answer[::2], answer[1::2], strict=True))


async def _hash_of_fields(connection: Connection, name: bytes) -> tuple[bytes, bytes]:
    answer = cast(list[bytes], await connection.call("HGETALL", name))
    fields = answer[::2]
    moments = b""
    if fields:
        asked: list[bytes | str | int] = ["HPEXPIRETIME", name, "FIELDS", len(fields), *fields]
        [told] = await connection.calls([asked])
        if isinstance(told, list) and any(moment != -1 for moment in told):
            moments = _unordered((one, b"%d" % cast(int, two)) for one, two in zip(fields, told, strict=True))
    return _unordered(zip(fields, answer[1::2], strict=True)), moments


async def _stream(connection: Connection, name: bytes) -> bytes:
    """Entries in their order, the last id given out, groups with who has which message pending."""
    parts: list[object] = []
    start = b"-"
    while entries := cast(
        list[list[Reply]], await connection.call("XRANGE", name, start, "+", "COUNT", _ENTRIES_AT_ONCE)
    ):
        parts += entries
        start = b"(" + cast(bytes, entries[-1][0])
    about = _named(cast(list[Reply], await connection.call("XINFO", "STREAM", name)))
    parts.append(about[b"last-generated-id"])
    groups = [_named(one) for one in cast(list[list[Reply]], await connection.call("XINFO", "GROUPS", name))]
    for group in sorted(groups, key=lambda one: cast(bytes, one[b"name"])):
        title = cast(bytes, group[b"name"])
        parts += [title, group[b"last-delivered-id"]]
        pending = await connection.call("XPENDING", name, title, "-", "+", max(1, cast(int, group[b"pending"])))
        # The third tells how long ago that was.
        parts += [(one[0], one[1], one[3]) for one in cast(list[list[Reply]], pending)]
        consumers = cast(list[list[Reply]], await connection.call("XINFO", "CONSUMERS", name, title))
        parts += sorted(cast(bytes, _named(one)[b"name"]) for one in consumers)
    return repr(parts).encode()


def _named(answer: list[Reply]) -> dict[bytes, Reply]:
    return dict(zip(cast(list[bytes], answer[::2]), answer[1::2], strict=True))


async def _functions(connection: Connection) -> dict[str, str]:
    [answer] = await connection.calls([("FUNCTION", "LIST", "WITHCODE")])
    if not isinstance(answer, list):
        return {}
    libraries = [_named(cast(list[Reply], one)) for one in answer]
    return {
        cast(bytes, library[b"library_name"]).decode(): hashlib.sha256(
            cast(bytes, library[b"library_code"])
        ).hexdigest()
        for library in libraries
    }


def _unordered(things: Iterable[tuple[bytes, ...]]) -> bytes:
    return (sum(_hash(*thing) for thing in things) % _MODULUS).to_bytes(16)


def _hash(*parts: bytes) -> int:
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(b"%d:" % len(part) + part)
    return int.from_bytes(hashed.digest())
