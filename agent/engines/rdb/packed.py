"""Small collections as servers pack them: taken apart with every check that a server makes only when asked to.

A listpack whose lengths lie is accepted by a server that loads it and read beyond its end later, so these checks are
what stands between a hostile file and the server's memory (listpack.c, ziplist.c, intset.c, zipmap.c of Redis 7.4).
Integers come as their text, since that is what a client would get.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Callable

_COUNT_UNKNOWN = 0xFFFF
_ZIPMAP_ANY_COUNT = 254
_SMALL = [b"%d" % number for number in range(128)]


class PackedError(ValueError):
    """Something in it points where nothing is."""


def listpack(data: bytes) -> list[bytes]:
    """The entries of a listpack."""
    end = len(data) - 1
    if end < 6 or data[end] != 0xFF or int.from_bytes(data[:4], "little") != len(data):
        raise PackedError
    entries: list[bytes] = []
    position = 6
    try:
        while position < end:
            first = data[position]
            if first < 0x80:
                entry, size = _SMALL[first], 1
            elif first < 0xC0:
                size = 1 + (first & 0x3F)
                entry = data[position + 1 : position + size]
            else:
                entry, size = _long_listpack_entry(data, position)
            position += size
            if size < 128:
                if data[position] != size:
                    raise PackedError
                position += 1
            else:
                position += _backward_length(data, position, size)
            entries.append(entry)
    except IndexError:
        raise PackedError from None
    count = int.from_bytes(data[4:6], "little")
    if position != end or count not in (len(entries), _COUNT_UNKNOWN):
        raise PackedError
    return entries


def listpack_forms(data: bytes) -> bytes:
    """The byte with which each entry of a listpack begins, which `listpack` has taken apart: how the entry lies.

    Below 128 it is the number itself.
    """
    found, position = bytearray(), 6
    while (first := data[position]) != 0xFF:
        if first < 0x80:
            size = 1
        elif first < 0xC0:
            size = 1 + (first & 0x3F)
        else:
            size = _long_listpack_entry(data, position)[1]
        position += size
        position += 1 if size < 128 else _backward_length(data, position, size)
        found.append(first)
    return bytes(found)


def is_number(form: int) -> bool:
    """Whether an entry of this form is a number; others are text."""
    return form < 0x80 or 0xC0 <= form < 0xE0 or form > 0xF0


def _long_listpack_entry(data: bytes, position: int) -> tuple[bytes, int]:
    first = data[position]
    if first < 0xE0:
        number = (first & 0x1F) << 8 | data[position + 1]
        return b"%d" % (number - 0x2000 if number >= 0x1000 else number), 2
    if first < 0xF0:
        size = 2 + ((first & 0x0F) << 8 | data[position + 1])
        return data[position + 2 : position + size], size
    if first == 0xF0:
        size = 5 + int.from_bytes(data[position + 1 : position + 5], "little")
        return data[position + 5 : position + size], size
    size = {0xF1: 3, 0xF2: 4, 0xF3: 5, 0xF4: 9}.get(first, 0)
    if not size:
        raise PackedError
    return b"%d" % int.from_bytes(data[position + 1 : position + size], "little", signed=True), size


def _backward_length(data: bytes, position: int, size: int) -> int:
    """Check the length that is written backwards after a long entry; how many bytes it has."""
    # The borders are the server's own: lpEncodeBacklen says "less than" where "at most" was meant.
    count = 2 if size < 16383 else 3 if size < 2097151 else 4 if size < 268435455 else 5
    found = 0
    for place in range(count):
        byte = data[position + place]
        if (byte >= 0x80) != (place > 0):
            raise PackedError
        found = found << 7 | byte & 0x7F
    if found != size:
        raise PackedError
    return count


def ziplist(data: bytes) -> list[bytes]:
    """The entries of a ziplist, in which servers before 7.0 packed what is in a listpack now."""
    end = len(data) - 1
    if end < 10 or data[end] != 0xFF or int.from_bytes(data[:4], "little") != len(data):
        raise PackedError
    entries: list[bytes] = []
    position, last, before = 10, 10, 0
    try:
        while position < end:
            last = position
            if data[position] < 254:
                previous = data[position]
                position += 1
            elif data[position] == 254:
                previous = int.from_bytes(data[position + 1 : position + 5], "little")
                position += 5
            else:
                raise PackedError
            if previous != before:
                raise PackedError
            first = data[position]
            if first < 0x40:
                start, size = position + 1, first
            elif first < 0x80:
                start, size = position + 2, (first & 0x3F) << 8 | data[position + 1]
            elif first < 0xC0:
                start, size = position + 5, int.from_bytes(data[position + 1 : position + 5])
            elif 0xF1 <= first <= 0xFD:
                start, size = position + 1, 0
                entries.append(_SMALL[first - 0xF1])
            else:
                start, size = position + 1, {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}.get(first, 0)
                if not size:
                    raise PackedError
                entries.append(b"%d" % int.from_bytes(data[start : start + size], "little", signed=True))
            position = start + size
            if first < 0xC0:
                entries.append(data[start:position])
            before = position - last
    except IndexError:
        raise PackedError from None
    count = int.from_bytes(data[8:10], "little")
    if position != end or count not in (len(entries), _COUNT_UNKNOWN):
        raise PackedError
    if entries and int.from_bytes(data[4:8], "little") != last:
        raise PackedError
    return entries


def intset(data: bytes) -> list[bytes]:
    """The members of an intset, which have to be sorted."""
    code = {2: "h", 4: "i", 8: "q"}.get(int.from_bytes(data[:4], "little"))
    if len(data) < 8 or code is None:
        raise PackedError
    numbers = array(code)
    content = data[8:]
    if len(content) != int.from_bytes(data[4:8], "little") * numbers.itemsize or not content:
        raise PackedError
    numbers.frombytes(content)
    if not all(map(operator.lt, numbers, numbers[1:])):
        raise PackedError
    return [b"%d" % number for number in numbers]


def zipmap(data: bytes) -> list[bytes]:
    """Names and values of a zipmap, in which servers before 2.6 packed hashes."""
    end = len(data) - 1
    if end < 1 or data[end] != 0xFF:
        raise PackedError
    entries: list[bytes] = []
    position = 1
    try:
        while position < end:
            for is_value in (False, True):
                first = data[position]
                if first == 255:
                    raise PackedError
                size = first if first < 254 else int.from_bytes(data[position + 1 : position + 5], "little")
                if first == 254 and size < 254:
                    raise PackedError
                position += 1 if first < 254 else 5
                unused = data[position] if is_value else 0
                position += is_value
                entries.append(data[position : position + size])
                position += size + unused
    except IndexError:
        raise PackedError from None
    if position != end or not entries or data[0] not in (_ZIPMAP_ANY_COUNT, len(entries) // 2):
        raise PackedError
    return entries


Unpack = Callable[[bytes], list[bytes]]
