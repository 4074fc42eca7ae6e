"""One value after the other, each by its type: skipped as far as that is safe, or looked into to its last entry.

Looking into it finds what would end a server that loads it: members that stand twice, scores that are no numbers,
entries that point beyond their listpack, pending messages that belong to nobody.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Sequence

from agent.engines.rdb import lzf, packed
from agent.engines.rdb.layout import Type, first_version_of, module_type_name
from agent.engines.rdb.source import ENCODED_LZF, INTEGER_BYTES, MOST_IN_MEMORY_BYTES, Source
from agent.engines.rdb.streams import StreamReader
from common.errors import ArchiveError, ArchiveIncompatibleError
from common.rdb import RdbHeader

_SCORE = re.compile(rb"[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|inf)", re.IGNORECASE)
_MOST_OF_A_SCORE = 127
"""Servers read no more of one (zzlStrtod, t_zset.c)."""
MOST_COMPARED_AT_ONCE = 1024
"""Members of one value that are compared as a set; more go with the keys."""


_NEVER_IN_VALKEY = -1
_MOST_OF_A_NODE = (1 << 16) - 1
"""A server keeps their number in 16 bits (quicklist.h)."""
_LATEST_MS = (1 << 48) - 1
"""At which a field of a hash can expire in a Redis (EB_EXPIRE_TIME_MAX), which ends itself on what is later."""


class ValueReader:
    """Reads strings and values from a source.

    Attributes:
        hashes: of members that were too many to compare at once; see `agent.engines.rdb.distinct`.
        is_deep: values are looked into to their last entry.
        module_types: how many values there are of each module's type.
        empty: values without members, which servers leave out when they load them.
        packed_away_bytes: by how much strings are shorter in the file than in a server.
        too_large: bytes of the largest piece that was skipped and that could not be looked into.
    """

    def __init__(self, source: Source, header: RdbHeader, hashes: array[int], *, is_deep: bool) -> None:
        self.hashes = hashes
        self.module_types: Counter[str] = Counter()
        self.empty = 0
        self.packed_away_bytes = 0
        self.too_large = 0
        self._source = source
        self._header = header
        self.is_deep = is_deep
        self._scopes = 0
        self._readers: dict[Type, Callable[[], object]] = {
            Type.STRING: self.skip_string,
            Type.LIST: self._list,
            Type.SET: self._set,
            Type.ZSET: lambda: self._zset(self.text_score),
            Type.ZSET_2: lambda: self._zset(self.binary_score),
            Type.HASH: self._hash,
            Type.MODULE: self._module,
            Type.HASH_ZIPMAP: lambda: self._packed(packed.zipmap, of=2),
            Type.LIST_ZIPLIST: lambda: self._packed(packed.ziplist, of=1, is_unique=False),
            Type.SET_INTSET: lambda: self._packed(packed.intset, of=1),
            Type.ZSET_ZIPLIST: lambda: self._packed(packed.ziplist, of=2, has_scores=True),
            Type.HASH_ZIPLIST: lambda: self._packed(packed.ziplist, of=2),
            Type.LIST_QUICKLIST: self._quicklist,
            Type.STREAM: lambda: self._stream(1),
            Type.HASH_LISTPACK: lambda: self._packed(packed.listpack, of=2),
            Type.ZSET_LISTPACK: lambda: self._packed(packed.listpack, of=2, has_scores=True),
            Type.LIST_QUICKLIST_2: self._quicklist_2,
            Type.STREAM_2: lambda: self._stream(2),
            Type.SET_LISTPACK: lambda: self._packed(packed.listpack, of=1),
            Type.STREAM_3: lambda: self._stream(3),
            Type.HASH_METADATA_PRE_GA: lambda: self._expiring_hash(earliest_ms=1),
            Type.HASH_LISTPACK_EX_PRE_GA: self._expiring_listpack,
            Type.HASH_METADATA: lambda: self._expiring_hash(earliest_ms=self._earliest_ms()),
            Type.HASH_LISTPACK_EX: self._later_expiring_listpack,
            Type.VALKEY_HASH_2: self._valkey_hash,
        }

    def read(self, number: int) -> Type:
        """The value of a key.

        Args:
            number: the type as it stands in the file.
        Raises:
            ArchiveIncompatibleError: a type that this program does not know.
            ArchiveDamagedError: not what a server writes.
        """
        kind = self.kind(number)
        self._readers[kind]()
        return kind

    def kind(self, number: int) -> Type:
        """The type that a number in the file stands for; raises as `read` does."""
        is_valkeys = self._header.flavour == "valkey"
        try:
            kind = Type.VALKEY_HASH_2 if is_valkeys and number == 22 else Type(number)
        except ValueError:
            raise self._unknown(number) from None
        if kind not in self._readers or (is_valkeys and Type.STREAM_3 < number != 22):
            raise self._unknown(number)
        if first_version_of(kind) > self._header.version:
            raise self._source.damaged(
                f"a value of type {number}, which files of version {self._header.magic} have not"
            )
        return kind

    def _unknown(self, number: int) -> ArchiveError:
        return ArchiveIncompatibleError(
            f"The file holds something of type {number}, before byte {self._source.offset}, that this program does not "
            "know.",
            next_step="Update Mathison Data, or export with another version of the server.",
        )

    def string(self) -> bytes:
        """A string as a client would get it."""
        source = self._source
        first = source.byte()
        if first in INTEGER_BYTES:
            return b"%d" % int.from_bytes(source.take(INTEGER_BYTES[first]), "little", signed=True)
        if first == ENCODED_LZF:
            return self.decompressed(source.length(), source.length())
        source.position -= 1
        return source.take(source.length())

    def decompressed(self, packed_size: int, size: int) -> bytes:
        """The content of a compressed string, of which the two lengths were read."""
        self.packed_away_bytes += size - packed_size
        try:
            return lzf.decompress(self._source.take(packed_size), size)
        except lzf.LzfError:
            raise self._source.damaged("a compressed string cannot be unpacked") from None

    def skip_string(self, *, is_looked_into: bool = False) -> int:
        """A string whose content does not matter.

        Args:
            is_looked_into: it would, were this deep.
        Returns:
            How many bytes it has, or more than none where it is a number.
        """
        source = self._source
        first = source.byte()
        if first in INTEGER_BYTES:
            source.skip(INTEGER_BYTES[first])
            return INTEGER_BYTES[first]
        if first == ENCODED_LZF:
            packed_size, size = source.length(), source.length()
            self.packed_away_bytes += size - packed_size
            if not self.is_deep:
                self.note_size(max(packed_size, size if is_looked_into else 0))
                source.skip(packed_size)
                return size
            try:
                lzf.check(source.take(packed_size), size)
            except lzf.LzfError:
                raise source.damaged("a compressed string cannot be unpacked") from None
            return size
        source.position -= 1
        size = source.length()
        if is_looked_into:
            self.note_size(size)
        source.skip(size)
        return size

    def note_size(self, size: int) -> None:
        """Of a piece that has to be in memory all at once to be looked into."""
        if size > MOST_IN_MEMORY_BYTES:
            self.too_large = max(self.too_large, size)

    def _list(self) -> None:
        count = self._count()
        for _ in range(count):
            self.skip_string()

    def _set(self) -> None:
        self._members(self._count(), lambda: None)

    def _hash(self) -> None:
        self._members(self._count(), self.skip_string)

    def _valkey_hash(self) -> None:
        def value_and_expiry() -> None:
            self.skip_string()
            if self.moment_ms() < _NEVER_IN_VALKEY:
                raise self._source.damaged("a field expires at a moment that is none")

        self._members(self._count(), value_and_expiry)

    def _expiring_hash(self, *, earliest_ms: int) -> None:
        """Moments lie as how long they are after the earliest, counted from 1; 0 is never (rdb.c of Redis 7.4)."""

        def moment() -> None:
            if after := self._source.length():
                self._require_moment(earliest_ms + after - 1)

        self._members(self._count(), self.skip_string, before=moment)

    def _later_expiring_listpack(self) -> None:
        self._earliest_ms()
        self._expiring_listpack()

    def _expiring_listpack(self) -> None:
        """First those that expire first, last those that never do, and the moments as numbers: a server takes both for
        granted, and ends itself where that is not so (t_hash.c of Redis 7.4)."""
        if not self.is_deep:
            self.skip_string(is_looked_into=True)
            return
        data = self.string()
        entries = self._taken_apart(packed.listpack, data, of=3)
        self._require_unique(entries[::3])
        moments = []
        for entry, form in zip(entries[2::3], packed.listpack_forms(data)[2::3], strict=True):
            moment_ms = int(entry) if packed.is_number(form) else -1
            self._require_moment(moment_ms)
            moments.append(moment_ms or _LATEST_MS + 1)
        if moments != sorted(moments):
            raise self._source.damaged("fields that expire are not in that order")

    def _earliest_ms(self) -> int:
        """Of all fields of a hash; the first that is too late where none expires."""
        moment_ms = self.moment_ms()
        if moment_ms != _LATEST_MS + 1:
            self._require_moment(moment_ms)
        return moment_ms

    def _require_moment(self, moment_ms: int) -> None:
        if not 0 <= moment_ms <= _LATEST_MS:
            raise self._source.damaged("a field expires at a moment that a server cannot keep")

    def moment_ms(self) -> int:
        return int.from_bytes(self._source.take(8), "little", signed=True)

    def _zset(self, score: Callable[[], float]) -> None:
        def checked() -> None:
            if math.isnan(score()):
                raise self._source.damaged("a score that is no number")

        self._members(self._count(), checked)

    def binary_score(self) -> float:
        """As files since RDB version 8 have them."""
        score: float = struct.unpack("<d", self._source.take(8))[0]
        return score

    def text_score(self) -> float:
        """As older files have them."""
        size = self._source.byte()
        if size >= 253:
            return (math.nan, math.inf, -math.inf)[size - 253]
        return _to_score(self._source.take(size))

    def _count(self) -> int:
        count = self._source.length()
        self.empty += not count
        return count

    def _members(self, count: int, after: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> None:
        """Members that have to differ, each with what stands before and after it."""
        if not self.is_deep:
            for _ in range(count):
                before()
                self.skip_string(is_looked_into=True)
                after()
        elif count <= MOST_COMPARED_AT_ONCE:
            seen = set()
            for _ in range(count):
                before()
                seen.add(self.string())
                after()
            if len(seen) != count:
                raise self._source.damaged("the same member stands twice in one value")
        else:
            scope = self.new_scope()
            for _ in range(count):
                before()
                self.hashes.append(hash(self.string()) ^ scope)
                after()

    def new_scope(self) -> int:
        """What tells the members of one value from those of others among `hashes`."""
        self._scopes += 1
        return hash(b"value %d" % self._scopes)

    def _packed(
        self,
        unpack: packed.Unpack,
        *,
        of: int,
        is_unique: bool = True,
        has_scores: bool = False,
    ) -> None:
        """A collection in one string; an entry and what belongs to it are `of` strings."""
        if not self.is_deep:
            self.skip_string(is_looked_into=True)
            return
        entries = self._taken_apart(unpack, self.string(), of=of)
        members = entries[::of]
        if is_unique:
            self._require_unique(members)
        if has_scores and any(math.isnan(_to_score(score)) for score in entries[1::2]):
            raise self._source.damaged("a score that is no number")

    def _taken_apart(self, unpack: packed.Unpack, data: bytes, *, of: int) -> list[bytes]:
        entries = self._unpacked(unpack, data)
        if len(entries) % of:
            raise self._source.damaged("a packed value with half an entry")
        self.empty += not entries
        return entries

    def unpacked(self, unpack: packed.Unpack) -> list[bytes]:
        """The entries of a collection in one string."""
        return self._unpacked(unpack, self.string())

    def _unpacked(self, unpack: packed.Unpack, data: bytes) -> list[bytes]:
        try:
            return unpack(data)
        except packed.PackedError:
            raise self._source.damaged(f"a {unpack.__name__} points where nothing is") from None

    def _require_unique(self, members: Sequence[bytes]) -> None:
        if len(members) <= MOST_COMPARED_AT_ONCE:
            if len(set(members)) != len(members):
                raise self._source.damaged("the same member stands twice in one value")
        else:
            scope = self.new_scope()
            self.hashes.extend(hash(member) ^ scope for member in members)

    def _quicklist(self) -> None:
        self._nodes(lambda: self._list_node(packed.ziplist))

    def _quicklist_2(self) -> None:
        def node() -> None:
            match self._source.length():
                case 1:
                    if not self.skip_string():
                        raise self._source.damaged("an entry of a list that has a node of its own and no content")
                case 2:
                    self._list_node(packed.listpack)
                case _:
                    raise self._source.damaged("a list's node is of no known kind")

        self._nodes(node)

    def _list_node(self, unpack: packed.Unpack) -> None:
        if not self.is_deep:
            self.skip_string(is_looked_into=True)
        elif len(self._taken_apart(unpack, self.string(), of=1)) > _MOST_OF_A_NODE:
            raise self._source.damaged("a list's node has more entries than a server can count")

    def _nodes(self, read: Callable[[], None]) -> None:
        """Of a list, which is empty when all of them are."""
        before, count = self.empty, self._source.length()
        for _ in range(count):
            read()
        self.empty = before + (self.empty - before == count)

    def _stream(self, version: int) -> None:
        StreamReader(self._source, self).read(version)

    def stream_node(self) -> tuple[list[bytes], bytes] | None:
        """The entries of a stream's listpack, and their forms; None when it was only skipped."""
        if self.is_deep:
            data = self.string()
            return self._unpacked(packed.listpack, data), packed.listpack_forms(data)
        self.skip_string(is_looked_into=True)
        return None

    def _module(self) -> None:
        self.module_types[module_type_name(self._source.length())] += 1
        self.module_content()

    def module_content(self) -> None:
        """What a module wrote, to its end mark; only the module knows what it means."""
        source = self._source
        while kind := source.length():
            if kind in (1, 2):
                source.length()
            elif kind in (3, 4):
                source.skip(4 * (kind - 2))
            elif kind == 5:
                self.skip_string()
            else:
                raise source.damaged("a module's value is not written as one")


def _to_score(text: bytes) -> float:
    """NaN for what is no number, or none as servers write it: theirs read others otherwise than Python does."""
    return float(text) if len(text) <= _MOST_OF_A_SCORE and _SCORE.fullmatch(text) else math.nan
