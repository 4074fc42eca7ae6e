"""Packed collections: every encoding is read, and nothing that points elsewhere."""

from __future__ import annotations

import random
import struct
from array import array

import pytest

from agent.engines.rdb import packed
from tests.fixtures.rdb_files import listpack


def _with_backward_length(entry: bytes) -> bytes:
    size = len(entry)
    digits = [size & 0x7F]
    while size := size >> 7:
        digits.append(size & 0x7F)
    return entry + bytes([digits[-1], *(digit | 0x80 for digit in reversed(digits[:-1]))])


def _listpack_of(*entries: bytes, count: int | None = None) -> bytes:
    body = b"".join(_with_backward_length(entry) for entry in entries)
    number = len(entries) if count is None else count
    return struct.pack("<IH", len(body) + 7, number) + body + b"\xff"


LISTPACK_ENTRIES = {
    "small number": (b"\x7f", b"127"),
    "short string": (b"\x83abc", b"abc"),
    "empty string": (b"\x80", b""),
    "13 bits": (b"\xcf\xff", b"4095"),
    "13 bits, negative": (b"\xdf\xff", b"-1"),
    "16 bits": (b"\xf1\x00\x80", b"-32768"),
    "24 bits": (b"\xf2\xff\xff\x7f", b"8388607"),
    "32 bits": (b"\xf3\x00\x00\x00\x80", b"-2147483648"),
    "64 bits": (b"\xf4" + (2**63 - 1).to_bytes(8, "little"), b"9223372036854775807"),
    "string of 200 bytes": (b"\xe0\xc8" + b"x" * 200, b"x" * 200),
    "string of 5,000 bytes": (b"\xf0" + (5000).to_bytes(4, "little") + b"y" * 5000, b"y" * 5000),
    "string of 20,000 bytes": (b"\xf0" + (20000).to_bytes(4, "little") + b"z" * 20000, b"z" * 20000),
}


@pytest.mark.parametrize(("entry", "expected"), LISTPACK_ENTRIES.values(), ids=LISTPACK_ENTRIES)
def test_every_entry_of_a_listpack_is_read(entry: bytes, expected: bytes) -> None:
    assert packed.listpack(_listpack_of(b"\x81a", entry, b"\x81b")) == [b"a", expected, b"b"]


def test_a_listpack_may_leave_its_count_open() -> None:
    assert packed.listpack(_listpack_of(b"\x81a", b"\x81b", count=0xFFFF)) == [b"a", b"b"]


BAD_LISTPACKS = {
    "empty": b"",
    "header alone": b"\x06\x00\x00\x00\x00\x00",
    "other size": _listpack_of(b"\x81a")[:-1] + b"\x00\xff",
    "no end": _listpack_of(b"\x81a")[:-1] + b"\x00",
    "other count": _listpack_of(b"\x81a", count=2),
    "string that is longer than the whole": struct.pack("<IH", 16, 2) + b"\xf0\xff\xff\xff\x7f\x01\x02\x03\x04\xff",
    "entry that ends beyond the end": struct.pack("<IH", 10, 1) + b"\x85a\x06\xff",
    "wrong backward length": struct.pack("<IH", 10, 1) + b"\x81a\x03\xff",
    "unknown encoding": struct.pack("<IH", 9, 1) + b"\xf5\x01\xff",
    "end in the middle": struct.pack("<IH", 10, 1) + b"\xff\x01\x01\xff",
    "wrong long backward length": _listpack_of(b"\xe0\xc8" + b"x" * 200).replace(b"\x01\xca\xff", b"\x01\xcb\xff"),
}


@pytest.mark.parametrize("data", BAD_LISTPACKS.values(), ids=BAD_LISTPACKS)
def test_a_listpack_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(packed.PackedError):
        packed.listpack(data)


def _ziplist_of(*entries: bytes, count: int | None = None, tail: int | None = None) -> bytes:
    body, before, last = b"", 0, 10
    for entry in entries:
        last = 10 + len(body)
        whole = (bytes([before]) if before < 254 else b"\xfe" + before.to_bytes(4, "little")) + entry
        body += whole
        before = len(whole)
    number = len(entries) if count is None else count
    return struct.pack("<IIH", len(body) + 11, last if tail is None else tail, number) + body + b"\xff"


def test_the_ziplist_of_the_servers_own_documentation_is_read() -> None:
    assert packed.ziplist(bytes.fromhex("0f0000000c000000020000f302f6ff")) == [b"2", b"5"]


ZIPLIST_ENTRIES = {
    "short string": (b"\x03abc", b"abc"),
    "string of 14 bits": (b"\x41\x2c" + b"x" * 300, b"x" * 300),
    "string of 32 bits": (b"\x80" + (20000).to_bytes(4) + b"y" * 20000, b"y" * 20000),
    "8 bits": (b"\xfe\x80", b"-128"),
    "16 bits": (b"\xc0\xff\x7f", b"32767"),
    "24 bits": (b"\xf0\x00\x00\x80", b"-8388608"),
    "32 bits": (b"\xd0\xff\xff\xff\x7f", b"2147483647"),
    "64 bits": (b"\xe0" + (-(2**63)).to_bytes(8, "little", signed=True), b"-9223372036854775808"),
    "number in itself": (b"\xfd", b"12"),
}


@pytest.mark.parametrize(("entry", "expected"), ZIPLIST_ENTRIES.values(), ids=ZIPLIST_ENTRIES)
def test_every_entry_of_a_ziplist_is_read(entry: bytes, expected: bytes) -> None:
    assert packed.ziplist(_ziplist_of(b"\x01a", entry, b"\x01b")) == [b"a", expected, b"b"]


BAD_ZIPLISTS = {
    "empty": b"",
    "other size": _ziplist_of(b"\x01a") + b"\xff",
    "no end": _ziplist_of(b"\x01a")[:-1] + b"\x00",
    "other count": _ziplist_of(b"\x01a", count=3),
    "other tail": _ziplist_of(b"\x01a", b"\x01b", tail=10),
    "string that is longer than the whole": _ziplist_of(b"\x80\x7f\xff\xff\xffabc"),
    "wrong length of the entry before": _ziplist_of(b"\x01a", b"\x01b").replace(b"\x03\x01b", b"\x02\x01b"),
    "unknown encoding": _ziplist_of(b"\xc1\x00"),
    "end in the middle": _ziplist_of(b"\x01a").replace(b"\x00\x01a", b"\xff\x01a"),
}


@pytest.mark.parametrize("data", BAD_ZIPLISTS.values(), ids=BAD_ZIPLISTS)
def test_a_ziplist_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(packed.PackedError):
        packed.ziplist(data)


@pytest.mark.parametrize(("code", "numbers"), [("h", [-5, 0, 7]), ("i", [-70000, 1]), ("q", [-(2**40), 2**40])])
def test_an_intset_of_any_width_is_read(code: str, numbers: list[int]) -> None:
    data = struct.pack("<II", array(code).itemsize, len(numbers)) + array(code, numbers).tobytes()

    assert packed.intset(data) == [b"%d" % number for number in numbers]


BAD_INTSETS = {
    "empty file": b"",
    "no members": struct.pack("<II", 2, 0),
    "unknown width": struct.pack("<IIh", 3, 1, 5),
    "more members than bytes": struct.pack("<IIh", 2, 100, 5),
    "unsorted": struct.pack("<IIhh", 2, 2, 7, 5),
    "the same twice": struct.pack("<IIhh", 2, 2, 5, 5),
}


@pytest.mark.parametrize("data", BAD_INTSETS.values(), ids=BAD_INTSETS)
def test_an_intset_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(packed.PackedError):
        packed.intset(data)


def test_a_zipmap_with_unused_bytes_is_read() -> None:
    assert packed.zipmap(b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world..\xff") == [b"foo", b"bar", b"hello", b"world"]
    assert packed.zipmap(b"\x01\xfe\xfe\x00\x00\x00" + b"f" * 254 + b"\x03\x00bar\xff") == [b"f" * 254, b"bar"]


BAD_ZIPMAPS = {
    "empty file": b"",
    "no entries": b"\x00\xff",
    "other count": b"\x02\x03foo\x03\x00bar\xff",
    "no end": b"\x01\x03foo\x03\x00bar",
    "name beyond the end": b"\x01\x7ffoo\x03\x00bar\xff",
    "value beyond the end": b"\x01\x03foo\xfe\xff\xff\xff\x7f\x00bar\xff",
    "half an entry": b"\x01\x03foo\xff",
}


@pytest.mark.parametrize("data", BAD_ZIPMAPS.values(), ids=BAD_ZIPMAPS)
def test_a_zipmap_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(packed.PackedError):
        packed.zipmap(data)


GOOD: tuple[tuple[packed.Unpack, bytes], ...] = (
    (packed.listpack, listpack([b"a", b"bb", b"x" * 60])),
    (packed.ziplist, _ziplist_of(b"\x01a", b"\xfd", b"\x41\x2c" + b"x" * 300, b"\xc0\x01\x02")),
    (packed.intset, struct.pack("<IIhhh", 2, 3, 1, 2, 3)),
    (packed.zipmap, b"\x01\x03foo\x03\x00bar\xff"),
)


@pytest.mark.parametrize(("unpack", "good"), GOOD, ids=[unpack.__name__ for unpack, _ in GOOD])
def test_no_changed_byte_does_more_than_be_refused(unpack: packed.Unpack, good: bytes) -> None:
    generator = random.Random(7)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        del data[generator.randint(1, len(data)) if generator.random() < 0.2 else len(data) :]

        try:
            entries = unpack(bytes(data))
        except packed.PackedError:
            continue

        assert sum(map(len, entries)) <= 20 * len(data)
