"""A stream: its nodes, its consumer groups, and who has which message pending; checked, or read for its content."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Protocol

from agent.engines.rdb import packed
from agent.engines.rdb.source import Source

_DELETED = 1
"""A flag of an entry that is not there any more."""
_SAME_FIELDS = 2
"""A flag of an entry: its fields have the names of the node's first."""
_ID_BYTES = 16
_TIME_BYTES = 8
_NUMBERS = 1 << 63
"""A number is below it, and not below its negative."""


class Strings(Protocol):
    """What a stream needs of the reader of values."""

    hashes: array[int]
    is_deep: bool

    def new_scope(self) -> int: ...
    def string(self) -> bytes: ...
    def skip_string(self) -> object: ...
    def stream_node(self) -> list[bytes] | None: ...


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
            entries = self._strings.stream_node()
            if entries is None:
                continue
            if (count := _count_in(entries)) is None:
                raise self._source.damaged("a stream's node does not hold what it says")
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
        feed(b"group %d:" % len(name) + name + b"%d-%d" % (numbers[0], numbers[1]))
        for _ in range(source.length()):
            feed(source.take(_ID_BYTES + _TIME_BYTES) + b"%d" % source.length())
        for _ in range(source.length()):
            name = strings.string()
            source.skip(_TIME_BYTES if version < 3 else 2 * _TIME_BYTES)
            feed(b"consumer %d:" % len(name) + name)
            for _ in range(source.length()):
                feed(source.take(_ID_BYTES))


def _feed_node(feed: Callable[[bytes], None], first_id: bytes, entries: list[bytes], source: Source) -> None:
    first = int.from_bytes(first_id[:8]), int.from_bytes(first_id[8:])
    rest = iter(entries)
    try:
        count, deleted, fields = _number(rest), _number(rest), _number(rest)
        names = [next(rest) for _ in range(fields)]
        next(rest)
        for _ in range(count + deleted):
            flags = _number(rest)
            moment = first[0] + _number(rest), first[1] + _number(rest)
            if flags & _SAME_FIELDS:
                content = [part for name in names for part in (name, next(rest))]
            else:
                content = [next(rest) for _ in range(2 * _number(rest))]
            next(rest)
            if not flags & _DELETED:
                feed(b"entry %d-%d " % moment + b"".join(b"%d:" % len(part) + part for part in content))
    except (StopIteration, ValueError):
        raise source.damaged("a stream's node does not hold what it says") from None


def _count_in(entries: list[bytes]) -> int | None:
    """How many entries a stream's listpack holds; None: not those that it says (streamValidateListpackIntegrity,
    t_stream.c, which does not see whether those are deleted that are said to be)."""
    rest = iter(entries)
    there = 0
    try:
        count, deleted, fields = _amount(rest), _amount(rest), _amount(rest)
        _skip(rest, fields)
        if _number(rest) != 0:
            return None
        for _ in range(count + deleted):
            flags = _number(rest)
            there += not flags & _DELETED
            _number(rest), _number(rest)
            if flags & _SAME_FIELDS:
                values, parts = fields, fields + 3
            else:
                values = _amount(rest)
                _skip(rest, values)
                parts = 2 * values + 4
            _skip(rest, values)
            if _number(rest) != parts:
                return None
    except (StopIteration, ValueError):
        return None
    return there if there == count and next(rest, None) is None else None


def _number(entries: Iterator[bytes]) -> int:
    """As servers read one that stands as text (string2ll); `int` alone takes more."""
    text = next(entries)
    number = int(text)
    if b"%d" % number != text or not -_NUMBERS <= number < _NUMBERS:
        raise ValueError
    return number


def _amount(entries: Iterator[bytes]) -> int:
    """A number of something; servers end themselves on one below zero."""
    number = _number(entries)
    if number < 0:
        raise ValueError
    return number


def _skip(entries: Iterator[bytes], count: int) -> None:
    for _ in range(count):
        next(entries)
