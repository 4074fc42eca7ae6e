"""What the values of a file are, in whatever way they are packed: bytes for a hash, equal for equal content.

The same value is a listpack in one server, a hash table in another, and text, a number or compressed in a file; members
of a set have no order. So nothing here depends on how a value lies, only on what a client would get.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Protocol

from agent.engines.rdb import packed
from agent.engines.rdb.layout import Type, module_type_name
from agent.engines.rdb.source import ENCODED_LZF, MOST_IN_MEMORY_BYTES, Source
from agent.engines.rdb.streams import feed_stream
from agent.engines.rdb.values import ValueReader

DIGEST_BYTES = 64
"""Of BLAKE2b, all that it gives: a sum of digests is the harder to make on purpose the longer they are."""
MODULUS = 1 << 8 * DIGEST_BYTES
_NO_EXPIRY = b"-1"


class Hashed(Protocol):
    """A hash that goes on."""

    def update(self, content: bytes, /) -> None: ...


class ContentReader:
    """Reads values for their content.

    Attributes:
        is_complete: False: one value was too large to be unpacked, and is not in what was fed.
    """

    def __init__(self, source: Source, values: ValueReader) -> None:
        self.is_complete = True
        self._source = source
        self._values = values
        self._feeders: dict[Type, Callable[[Hashed], None]] = {
            Type.STRING: self._text,
            Type.LIST: self._list,
            Type.SET: lambda hashed: self._members(hashed, lambda: b""),
            Type.ZSET: lambda hashed: self._members(hashed, lambda: _score(values.text_score())),
            Type.ZSET_2: lambda hashed: self._members(hashed, lambda: _score(values.binary_score())),
            Type.HASH: self._hash,
            Type.MODULE: self._module,
            Type.HASH_ZIPMAP: lambda hashed: self._packed_hash(hashed, packed.zipmap),
            Type.LIST_ZIPLIST: lambda hashed: self._entries(hashed, packed.ziplist),
            Type.SET_INTSET: lambda hashed: self._packed_set(hashed, packed.intset),
            Type.ZSET_ZIPLIST: lambda hashed: self._packed_zset(hashed, packed.ziplist),
            Type.HASH_ZIPLIST: lambda hashed: self._packed_hash(hashed, packed.ziplist),
            Type.LIST_QUICKLIST: self._quicklist,
            Type.STREAM: lambda hashed: self._stream(hashed, 1),
            Type.HASH_LISTPACK: lambda hashed: self._packed_hash(hashed, packed.listpack),
            Type.ZSET_LISTPACK: lambda hashed: self._packed_zset(hashed, packed.listpack),
            Type.LIST_QUICKLIST_2: self._quicklist_2,
            Type.STREAM_2: lambda hashed: self._stream(hashed, 2),
            Type.SET_LISTPACK: lambda hashed: self._packed_set(hashed, packed.listpack),
            Type.STREAM_3: lambda hashed: self._stream(hashed, 3),
            Type.HASH_METADATA_PRE_GA: lambda hashed: self._expiring_hash(hashed, earliest_ms=1),
            Type.HASH_LISTPACK_EX_PRE_GA: self._expiring_listpack,
            Type.HASH_METADATA: lambda hashed: self._expiring_hash(hashed, earliest_ms=self._values.moment_ms()),
            Type.HASH_LISTPACK_EX: self._later_expiring_listpack,
            Type.VALKEY_HASH_2: self._valkey_hash,
        }

    def read(self, number: int, hashed: Hashed) -> Type:
        """As ValueReader.read, and what the value holds goes into a hash."""
        kind = self._values.kind(number)
        try:
            self._feeders[kind](hashed)
        except ValueError:
            raise self._source.damaged("a packed value with half an entry, or a score that is no number") from None
        return kind

    def _text(self, hashed: Hashed, *, has_size: bool = False) -> None:
        """A string of any size, piece by piece where it is long."""
        source = self._source
        first = source.byte()
        source.position -= 1
        if first < 0xC0:
            size = source.length()
            if has_size:
                hashed.update(b"%d:" % size)
            for piece in source.pieces(size):
                hashed.update(piece)
            return
        if first == ENCODED_LZF:
            source.byte()
            packed_size, size = source.length(), source.length()
            if size > MOST_IN_MEMORY_BYTES:
                self.is_complete = False
                self._values.note_size(packed_size)
                source.skip(packed_size)
                return
            text = self._values.decompressed(packed_size, size)
        else:
            text = self._values.string()
        hashed.update(b"%d:" % len(text) + text if has_size else text)

    def _list(self, hashed: Hashed) -> None:
        for _ in range(self._source.length()):
            self._text(hashed, has_size=True)

    def _entries(self, hashed: Hashed, unpack: packed.Unpack) -> None:
        hashed.update(b"".join(b"%d:" % len(entry) + entry for entry in self._values.unpacked(unpack)))

    def _quicklist(self, hashed: Hashed) -> None:
        for _ in range(self._source.length()):
            self._entries(hashed, packed.ziplist)

    def _quicklist_2(self, hashed: Hashed) -> None:
        for _ in range(self._source.length()):
            if self._source.length() == 1:
                self._text(hashed, has_size=True)
            else:
                self._entries(hashed, packed.listpack)

    def _members(self, hashed: Hashed, after: Callable[[], bytes]) -> None:
        string = self._values.string

        def members() -> Iterable[bytes]:
            for _ in range(self._source.length()):
                name = string()
                yield _named(name, after())

        hashed.update(_unordered(members()))

    def _packed_set(self, hashed: Hashed, unpack: packed.Unpack) -> None:
        hashed.update(_unordered(_named(name, b"") for name in self._values.unpacked(unpack)))

    def _packed_zset(self, hashed: Hashed, unpack: packed.Unpack) -> None:
        entries = iter(self._values.unpacked(unpack))
        hashed.update(
            _unordered(_named(name, _score(float(score))) for name, score in zip(entries, entries, strict=True))
        )

    def _packed_hash(self, hashed: Hashed, unpack: packed.Unpack) -> None:
        entries = iter(self._values.unpacked(unpack))
        hashed.update(
            _unordered(
                _named(name, b"%d:" % len(value) + value + _NO_EXPIRY)
                for name, value in zip(entries, entries, strict=True)
            )
        )

    def _hash(self, hashed: Hashed) -> None:
        self._fields(hashed, before=lambda: _NO_EXPIRY)

    def _expiring_hash(self, hashed: Hashed, *, earliest_ms: int) -> None:
        """Moments lie as how long they are after the earliest, counted from 1; 0 is never (rdb.c of Redis 7.4)."""

        def moment() -> bytes:
            after = self._source.length()
            return b"%d" % (earliest_ms + after - 1) if after else _NO_EXPIRY

        self._fields(hashed, before=moment)

    def _valkey_hash(self, hashed: Hashed) -> None:
        self._fields(hashed, after=lambda: b"%d" % self._values.moment_ms())

    def _later_expiring_listpack(self, hashed: Hashed) -> None:
        self._values.moment_ms()
        self._expiring_listpack(hashed)

    def _expiring_listpack(self, hashed: Hashed) -> None:
        entries = iter(self._values.unpacked(packed.listpack))
        hashed.update(
            _unordered(
                _named(name, b"%d:" % len(value) + value + (_NO_EXPIRY if moment == b"0" else moment))
                for name, value, moment in zip(entries, entries, entries, strict=True)
            )
        )

    def _fields(
        self, hashed: Hashed, *, before: Callable[[], bytes] = lambda: b"", after: Callable[[], bytes] = lambda: b""
    ) -> None:
        """Fields of any size; when each expires stands before it or after it."""
        total = 0
        for _ in range(self._source.length()):
            moment = before()
            field = hashlib.blake2b(_named(self._values.string(), b""))
            self._text(field, has_size=True)
            field.update(moment or after())
            total += int.from_bytes(field.digest())
        hashed.update((total % MODULUS).to_bytes(DIGEST_BYTES))

    def _stream(self, hashed: Hashed, version: int) -> None:
        feed_stream(hashed.update, self._source, self._values, version=version)

    def _module(self, hashed: Hashed) -> None:
        """What a module wrote, to its end mark: nobody but the module knows what of it is the content."""
        source = self._source
        name = module_type_name(source.length())
        self._values.module_types[name] += 1
        hashed.update(name.encode())
        while kind := source.length():
            if kind in (1, 2):
                hashed.update(b"%d %d " % (kind, source.length()))
            elif kind in (3, 4):
                hashed.update(b"%d " % kind + source.take(4 * (kind - 2)))
            elif kind == 5:
                self._text(hashed, has_size=True)
            else:
                raise source.damaged("a module's value is not written as one")


def _named(name: bytes, content: bytes) -> bytes:
    return b"%d:" % len(name) + name + content


def _score(score: float) -> bytes:
    """Releases write the same number in different ways; zero has two."""
    return struct.pack("<d", score + 0.0)


def _unordered(things: Iterable[bytes]) -> bytes:
    from_bytes, blake2b = int.from_bytes, hashlib.blake2b
    total = sum(from_bytes(blake2b(one).digest()) for one in things)
    return (total % MODULUS).to_bytes(DIGEST_BYTES)
