"""A stream: its nodes, its consumer groups, and who has which message pending; checked, or read for its content."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Protocol

from agent.engines.rdb import packed
from agent.engines.rdb.source import Source

_DELETED = 1
"""A flag of an entry that is not there any more."""
_SAME_FIELDS = 2
"""A flag of an entry: its fields have the names of the node's first."""
_ONE_BYTE = 0x80
"""From here on a number takes more than one in a listpack."""
_ID_BYTES = 16
_TIME_BYTES = 8
_COUNT_BYTES = 8
_IDS = 1 << 64
"""Servers count ids in so many, and how far one is from its node's first as a number that may be below zero."""
_NUMBERS = 1 << 63
"""A number is below it, and not below its negative."""


class Strings(Protocol):
    """What a stream needs of the reader of values."""

    hashes: array[int]
    is_deep: bool

    def new_scope(self) -> int: ...
    def string(self) -> bytes: ...
    def skip_string(self) -> object: ...
    def stream_node(self) -> tuple[list[bytes], bytes] | None: ...


class StreamReader:
    """Reads one stream."""

    def __init__(self, source: Source, strings: Strings) -> None:
        self._source = source
        self._strings = strings

    def read(self, version: int) -> None:
        """
        Args:
            version: 1 to 3, of the layout.
        """
        length = self._source.length
        nodes = length()
        before = b""
        there = 0
        for _ in range(nodes):
            first_id = self._strings.string()
            if len(first_id) != _ID_BYTES or (before and first_id <= before):
                raise self._source.damaged("a stream's nodes are not in order")
            before = first_id
            node = self._strings.stream_node()
            if node is None:
                continue
            if (count := _count_in(*node)) is None:
                raise self._source.damaged("a stream's node does not hold what it says, or not as a server writes it")
            there += count
        # Length and last id; since version 2 first id, highest deleted id, entries ever added.
        numbers = [length() for _ in range(3 if version == 1 else 8)]
        if self._strings.is_deep and numbers[0] != there:
            raise self._source.damaged(f"a stream says that it has {numbers[0]} entries and has {there}")
        names = set()
        groups = length()
        for _ in range(groups):
            names.add(self._strings.string())
            self._group(version)
        if len(names) != groups:
            raise self._source.damaged("the same consumer group stands twice in one stream")

    def _group(self, version: int) -> None:
        source = self._source
        for _ in range(2 if version == 1 else 3):
            source.length()
        # Each pending message has to belong to one consumer: their hashes add up to nothing, and none stands twice.
        scope = self._strings.new_scope()
        balance = 0
        count = source.length()
        for _ in range(count):
            message = hash(source.take(_ID_BYTES))
            balance += message
            self._strings.hashes.append(message ^ scope)
            source.skip(_TIME_BYTES)
            source.length()
        names = set()
        consumers = source.length()
        owned = 0
        for _ in range(consumers):
            names.add(self._strings.string())
            source.skip(_TIME_BYTES if version < 3 else 2 * _TIME_BYTES)
            of_consumer = source.length()
            owned += of_consumer
            balance -= sum(hash(source.take(_ID_BYTES)) for _ in range(of_consumer))
        if balance or owned != count or len(names) != consumers:
            raise source.damaged("a stream's pending messages do not belong to its consumers")


class Unpacker(Protocol):
    """What reading a stream's content needs of the reader of values."""

    def string(self) -> bytes: ...
    def unpacked(self, unpack: packed.Unpack) -> list[bytes]: ...


def feed_stream(feed: Callable[[bytes], None], source: Source, strings: Unpacker, *, version: int) -> None:
    """Pass on what a stream holds, as bytes that are equal for equal content: entries, the last id given out, groups
    with who has which message pending since when.

    Left out is what older versions do not write, and when a consumer was last seen.
    """
    for _ in range(source.length()):
        first_id = strings.string()
        _feed_node(feed, first_id, strings.unpacked(packed.listpack), source)
    numbers = [source.length() for _ in range(3 if version == 1 else 8)]
    feed(b"last %d-%d" % (numbers[1], numbers[2]))
    for _ in range(source.length()):
        name = strings.string()
        numbers = [source.length() for _ in range(2 if version == 1 else 3)]
        pending = source.length()
        feed(b"group %d:" % len(name) + name + b"%d-%d with %d:" % (numbers[0], numbers[1], pending))
        for _ in range(pending):
            feed(source.take(_ID_BYTES + _TIME_BYTES) + source.length().to_bytes(_COUNT_BYTES))
        for _ in range(source.length()):
            name = strings.string()
            source.skip(_TIME_BYTES if version < 3 else 2 * _TIME_BYTES)
            owned = source.length()
            feed(b"consumer %d:" % len(name) + name + b" with %d:" % owned)
            for _ in range(owned):
                feed(source.take(_ID_BYTES))


def _feed_node(feed: Callable[[bytes], None], first_id: bytes, entries: list[bytes], source: Source) -> None:
    first = int.from_bytes(first_id[:8]), int.from_bytes(first_id[8:])
    rest = iter(entries)
    try:
        count, deleted, fields = _number(next(rest)), _number(next(rest)), _number(next(rest))
        names = [next(rest) for _ in range(fields)]
        next(rest)
        for _ in range(count + deleted):
            flags = _number(next(rest))
            moment = (first[0] + _number(next(rest))) % _IDS, (first[1] + _number(next(rest))) % _IDS
            if flags & _SAME_FIELDS:
                content = [part for name in names for part in (name, next(rest))]
            else:
                content = [next(rest) for _ in range(2 * _number(next(rest)))]
            next(rest)
            if not flags & _DELETED:
                feed(b"entry %d-%d " % moment + b"".join(b"%d:" % len(part) + part for part in content))
    except (StopIteration, ValueError):
        raise source.damaged("a stream's node does not hold what it says") from None


def _count_in(entries: list[bytes], forms: bytes) -> int | None:
    """How many entries a stream's listpack holds; None: not those that it says (streamValidateListpackIntegrity,
    t_stream.c, which does not see whether those are deleted that are said to be), or an entry's flags take more than
    the one byte in which servers write them.

    A server that trims writes the flags of each entry anew, in their shortest form, and goes on behind the entry by the
    length that it had before (streamTrim). Of all else that it replaces it asks where it lies now.
    """
    there = 0
    try:
        count, deleted, fields = (_amount(entry) for entry in entries[:3])
        at = 3 + fields
        if _number(entries[at]) != 0:
            return None
        at += 1
        for _ in range(count + deleted):
            flags = forms[at]
            if flags >= _ONE_BYTE:
                return None
            there += not flags & _DELETED
            _number(entries[at + 1]), _number(entries[at + 2])
            parts = 3 + fields if flags & _SAME_FIELDS else 4 + 2 * _amount(entries[at + 3])
            at += parts
            if _number(entries[at]) != parts:
                return None
            at += 1
    except (IndexError, ValueError):
        return None
    return there if there == count and at == len(entries) else None


def _number(text: bytes) -> int:
    """As servers read one that stands as text (string2ll); `int` alone takes more."""
    number = int(text)
    if b"%d" % number != text or not -_NUMBERS <= number < _NUMBERS:
        raise ValueError
    return number


def _amount(text: bytes) -> int:
    """A number of something; servers end themselves on one below zero."""
    number = _number(text)
    if number < 0:
        raise ValueError
    return number
