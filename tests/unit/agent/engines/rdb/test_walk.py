"""A file read from its first byte to its last: what is in it, and everything for which it is refused."""

from __future__ import annotations

import io
import math
import random
import struct
from collections.abc import Callable, Collection

import pytest

from agent.engines.rdb import source, values
from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.walk import Walk
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
)
from common.kinds import HEAD_BYTES
from common.rdb import crc64
from tests.fixtures.rdb_files import (
    GOOD,
    aux,
    database,
    expiring,
    function,
    key,
    length,
    listpack,
    lzf,
    module_field,
    module_key,
    rdb,
    repeated,
    size_hint,
    string,
    text_key,
)

STREAM_ID = bytes(8) + (1).to_bytes(8)
SLOT_INFO = b"\xf4" + length(1) + length(2) + length(0)
FAR_FUTURE_MS = 4_000_000_000_000


def walk(file: bytes, *, is_trusted: bool = False, piece_bytes: int = 1 << 20) -> RdbContent:
    opened = io.BytesIO(file)
    return Walk(lambda size: opened.read(min(size, piece_bytes)), is_trusted=is_trusted).run()


def double(number: float) -> bytes:
    return struct.pack("<d", number)


def members(*names: bytes, after: bytes = b"") -> bytes:
    return length(len(names)) + b"".join(string(name) + after for name in names)


def node(*entries: bytes | int, long: Collection[int] = ()) -> bytes:
    return length(1) + string(STREAM_ID) + string(listpack(entries, long=long))


NODE = (1, 0, 1, b"field", 0, 2, 0, 0, b"value", 4)
FLAGS = 5
"""The place of the entry's flags in it."""
STREAM_NODE = node(*NODE)
"""One entry with one field."""


def signed(moment_ms: int) -> bytes:
    return moment_ms.to_bytes(8, "little", signed=True)


def stream(nodes: bytes = STREAM_NODE, groups: bytes = length(0), entries: int = 1) -> bytes:
    return nodes + length(entries) + length(0) + length(1) + groups


def group(name: bytes, pending: list[bytes], consumers: list[tuple[bytes, list[bytes]]]) -> bytes:
    content = string(name) + length(0) + length(1) + length(len(pending))
    content += b"".join(one + bytes(8) + length(1) for one in pending) + length(len(consumers))
    return content + b"".join(
        string(consumer) + bytes(8) + length(len(owned)) + b"".join(owned) for consumer, owned in consumers
    )


VALUES = {
    "string": (0, string(b"value"), "string"),
    "string of 20,000 bytes": (0, string(b"x" * 20_000), "string"),
    "compressed string": (0, lzf(b"\x00a\xe0\x10\x00", 26), "string"),
    "string that is a number": (0, b"\xc1\x39\x30", "string"),
    "list": (1, members(b"a", b"a"), "list"),
    "set": (2, members(b"a", b"b"), "set"),
    "sorted set": (3, members(b"a", after=b"\x031.5") + b"", "zset"),
    "sorted set, infinite": (3, length(2) + string(b"a") + b"\xfe" + string(b"b") + b"\xff", "zset"),
    "sorted set 2": (5, members(b"a", b"b", after=double(-math.inf)), "zset"),
    "hash": (4, members(b"f", b"g", after=string(b"v")), "hash"),
    "zipmap": (9, string(b"\x01\x03foo\x03\x00bar\xff"), "hash"),
    "ziplist": (10, string(bytes.fromhex("0f0000000c000000020000f302f6ff")), "list"),
    "intset": (11, string(struct.pack("<IIhh", 2, 2, 5, 6)), "set"),
    "sorted set in a ziplist": (12, string(bytes.fromhex("0f0000000c000000020000f302f6ff")), "zset"),
    "zipmap of any number": (9, string(b"\xfe\x03foo\x03\x00bar\xff"), "hash"),
    "hash in a ziplist": (13, string(bytes.fromhex("0f0000000c000000020000f302f6ff")), "hash"),
    "quicklist": (14, length(1) + string(bytes.fromhex("0f0000000c000000020000f302f6ff")), "list"),
    "stream": (15, stream(), "stream"),
    "stream with an entry that was deleted": (15, stream(node(1, 1, *NODE[2:], 3, 0, 1, b"value", 4)), "stream"),
    "stream with a group": (
        15,
        stream(groups=length(1) + group(b"g", [STREAM_ID], [(b"c", [STREAM_ID]), (b"d", [])])),
        "stream",
    ),
    "hash in a listpack": (16, string(listpack([b"f", b"v"])), "hash"),
    "sorted set in a listpack": (17, string(listpack([b"a", b"1.5"])), "zset"),
    "quicklist 2": (18, length(2) + length(1) + string(b"plain") + length(2) + string(listpack([b"a"])), "list"),
}


@pytest.mark.parametrize(("kind", "content", "name"), VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("is_trusted", [False, True], ids=["looked into", "skipped"])
@pytest.mark.parametrize("piece_bytes", [1, 1 << 20], ids=["byte by byte", "at once"])
def test_every_type_is_read(kind: int, content: bytes, name: str, *, is_trusted: bool, piece_bytes: int) -> None:
    file = rdb(database(0), text_key("before"), key(b"k", content, kind=kind), text_key("after"))

    found = walk(file, is_trusted=is_trusted, piece_bytes=piece_bytes)

    kinds = {"string": 2}
    kinds[name] = kinds.get(name, 0) + 1
    assert (found.keys, found.kinds, found.size_bytes) == ({0: 3}, kinds, len(file))


NEWER = {
    "set in a listpack": ("REDIS0011", 20, string(listpack([b"a", b"b"])), "set"),
    "hash whose fields expire": (
        "REDIS0012",
        24,
        bytes(8) + length(2) + length(0) + string(b"f") + string(b"v") + length(5) + string(b"g") + string(b"v"),
        "hash",
    ),
    "hash in a listpack whose fields expire": (
        "REDIS0012",
        25,
        bytes(8) + string(listpack([b"f", b"v", 5, b"g", b"v", 7, b"h", b"v", 0])),
        "hash",
    ),
    "hash of Valkey 9 whose fields expire": (
        "VALKEY080",
        22,
        members(b"f", b"g", after=string(b"v") + (-1).to_bytes(8, "little", signed=True)),
        "hash",
    ),
}


@pytest.mark.parametrize(("magic", "kind", "content", "name"), NEWER.values(), ids=NEWER)
def test_types_of_newer_versions_are_read_in_files_of_those(magic: str, kind: int, content: bytes, name: str) -> None:
    assert walk(rdb(key(b"k", content, kind=kind), magic=magic)).kinds == {name: 1}

    with pytest.raises(ArchiveError):
        walk(rdb(key(b"k", content, kind=kind), magic="REDIS0010"))


def test_everything_that_can_be_counted_is() -> None:
    file = rdb(
        aux("valkey-ver", "8.1.8"),
        aux("used-mem", "4711"),
        aux("lua", "a script"),
        b"\xf5" + string(b"#!lua name=lib"),
        module_field("ft_index0"),
        database(0),
        size_hint(4, 2),
        expiring(FAR_FUTURE_MS) + text_key("stays"),
        expiring(1000) + text_key("gone"),
        b"\xfd" + (5).to_bytes(4, "little") + text_key("gone too"),
        b"\xf9\x05" + b"\xf8" + length(7) + key(b"h", members(b"f", after=string(b"v")), kind=4),
        database(7),
        module_key(b"m", "graphdata"),
        key(b"nothing", length(0), kind=2),
        magic="REDIS0011",
    )

    found = walk(file)

    assert found.header.writer == "Valkey 8.1.8"
    assert found.fields == {"valkey-ver": "8.1.8", "used-mem": "4711"}
    assert found.keys == {0: 4, 7: 2}
    assert found.highest_database == 7
    assert (found.expiring, found.expired, found.empty) == (3, 2, 1)
    assert found.kinds == {"string": 3, "hash": 1, "module": 1, "set": 1}
    assert (found.module_types, found.module_fields, found.functions) == ({"graphdata": 1}, {"ft_index0": 1}, 1)
    assert (found.staying, found.staying_kinds) == ({0: 2, 7: 1}, {"string": 1, "hash": 1, "module": 1})
    assert found.has_checksum
    assert not found.doubt


@pytest.mark.parametrize("name", [b"k", b"k" * 0x4000], ids=["common", "long"])
def test_compressed_strings_count_in_their_real_length(name: bytes) -> None:
    packed = repeated(2641)
    file = rdb(aux("redis-ver", "7"), key(name, packed), key(name + b"l", length(1) + packed, kind=1))

    assert walk(file).unpacked_bytes - len(file) == 2 * (2641 - 32)
    assert walk(rdb(text_key("a"))).unpacked_bytes == len(rdb(text_key("a")))


@pytest.mark.parametrize("nodes", [[], [[]], [[], []], [[b"a"]], [[], [b"a"], []]], ids=repr)
def test_a_list_is_empty_when_none_of_its_nodes_holds_anything(nodes: list[list[bytes]]) -> None:
    packed = b"".join(length(2) + string(listpack(node)) for node in nodes)

    found = walk(rdb(key(b"l", length(len(nodes)) + packed, kind=18)))

    assert (found.empty, found.staying) == ((0, {0: 1}) if any(nodes) else (1, {}))


def test_an_empty_file_of_a_server_is_a_good_one() -> None:
    found = walk(rdb())

    assert (found.keys, found.key_count, found.highest_database) == ({}, 0, 0)


def test_what_stands_before_the_end_mark_can_be_continued() -> None:
    found = walk(GOOD)

    body = GOOD[: found.body_bytes]
    assert GOOD[found.body_bytes] == 0xFF
    assert found.body_crc == crc64(body)
    longer = body + text_key("c") + b"\xff"
    assert walk(longer + crc64(longer).to_bytes(8, "little")).keys == {0: 3}


@pytest.mark.parametrize("is_trusted", [False, True], ids=["looked into", "skipped"])
def test_a_key_that_expires_never_is_said_to_stay(*, is_trusted: bool) -> None:
    never, gone = b"\xfc" + signed(-1), expiring(1000)
    hash_key = key(b"k", members(b"f", after=string(b"v")), kind=4)

    found = walk(rdb(never, text_key("a"), gone, never, text_key("b"), never, hash_key), is_trusted=is_trusted)
    last = walk(rdb(never, gone, text_key("a"), text_key("b")), is_trusted=is_trusted)

    assert (found.expiring, found.expired, found.staying) == (0, 0, {0: 3})
    assert (last.expiring, last.expired, last.staying) == (1, 1, {0: 1})


@pytest.mark.parametrize("part", [SLOT_INFO, aux("slot-info", "1,2,0")], ids=["opcode", "field"])
def test_what_a_node_of_a_cluster_writes_of_its_slots_is_read(part: bytes) -> None:
    assert walk(rdb(database(0), part, text_key("a"), magic="REDIS0012")).keys == {0: 1}


def test_a_file_without_checksum_is_read_and_said_to_have_none() -> None:
    assert not walk(rdb(text_key("a"), crc=0)).has_checksum


def test_a_file_of_a_version_before_checksums_is_read() -> None:
    file = b"REDIS0004" + database(0) + text_key("a") + b"\xff"

    found = walk(file)

    assert (found.keys, found.has_checksum, found.body_bytes) == ({0: 1}, False, len(file) - 1)


@pytest.mark.parametrize("cut", range(9, len(GOOD)))
@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_file_that_is_cut_anywhere_is_said_to_be(cut: int, *, is_trusted: bool) -> None:
    with pytest.raises(ArchiveTruncatedError, match=f"cut off at byte {cut}"):
        walk(GOOD[:cut], is_trusted=is_trusted)


@pytest.mark.parametrize("place", range(9, len(GOOD)))
@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_bit_that_flipped_anywhere_is_found(place: int, *, is_trusted: bool) -> None:
    file = bytearray(GOOD)
    file[place] ^= 0x04

    with pytest.raises((ArchiveDamagedError, ArchiveTruncatedError)) as failure:
        walk(bytes(file), is_trusted=is_trusted)

    assert "checksum" in failure.value.text or "cut off" in failure.value.text


FOREIGN = {
    "nothing": (b"", "it is empty"),
    "AOF": (b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n", r"it is an append-only file of Redis \(AOF\)"),
    "commands": (b"SET a 1\r\nSET b 2\r\n", "it is a list of commands"),
    "tar": (b"a".ljust(257, b"\0") + b"ustar\x0000", "it is a tar archive"),
    "magic without version": (b"REDISXXXX", "begins like a Redis snapshot and has no version"),
    "anything": (b"\x01\x02\x03" * 10, "This is not an RDB file, it is of an unknown kind"),
}


@pytest.mark.parametrize(("file", "said"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_kind_is_refused_by_name(file: bytes, said: str) -> None:
    with pytest.raises(ArchiveWrongKindError, match=said):
        walk(file)


def test_an_append_only_file_that_begins_with_a_snapshot_is_refused_by_name() -> None:
    with pytest.raises(ArchiveWrongKindError, match=r"append-only file.*23 bytes of commands"):
        walk(GOOD + b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n")


MOST_MS = (1 << 63) - 1
LATEST_MS = {"REDIS0012": (1 << 48) - 1, "VALKEY080": MOST_MS}
EXPIRING_FIELDS: dict[str, tuple[int, str, Callable[[int], bytes]]] = {
    "hash of the first 7.4": (
        22,
        "REDIS0012",
        lambda moment: length(1) + length(moment % (1 << 64)) + string(b"f") + string(b"v"),
    ),
    "hash": (24, "REDIS0012", lambda moment: signed(moment) + length(1) + length(1) + string(b"f") + string(b"v")),
    "hash, later than its earliest": (
        24,
        "REDIS0012",
        lambda moment: signed(min(moment, 5)) + length(1) + length(max(moment - 4, 1)) + string(b"f") + string(b"v"),
    ),
    "hash in a listpack": (25, "REDIS0012", lambda moment: signed(0) + string(listpack([b"f", b"v", moment]))),
    "hash of Valkey": (22, "VALKEY080", lambda moment: length(1) + string(b"f") + string(b"v") + signed(moment)),
}
"""With one field that expires at a moment."""


@pytest.mark.parametrize("name", EXPIRING_FIELDS)
def test_fields_may_expire_as_late_as_a_server_can_keep(name: str) -> None:
    kind, magic, content = EXPIRING_FIELDS[name]

    for moment in (0, 1_800_000_000_000, LATEST_MS[magic]):
        assert walk(rdb(key(b"k", content(moment), kind=kind), magic=magic)).kinds == {"hash": 1}


def test_a_hash_of_which_no_field_expires_has_an_earliest_moment_beyond_any() -> None:
    content = signed(1 << 48) + length(1) + length(0) + string(b"f") + string(b"v")

    assert walk(rdb(key(b"k", content, kind=24), magic="REDIS0012")).kinds == {"hash": 1}


REFUSED: dict[str, tuple[bytes, type[Exception], str]] = {
    "bytes after the end": (rdb(text_key("a"), after=b"more"), ArchiveDamagedError, "4 bytes after its end at byte"),
    "newer Redis": (rdb(magic="REDIS0099"), ArchiveIncompatibleError, "REDIS0099, which is newer"),
    "newer Valkey": (rdb(magic="VALKEY081"), ArchiveIncompatibleError, "VALKEY081, which is newer"),
    "unknown type": (rdb(key(b"k", string(b"abc"), kind=99)), ArchiveIncompatibleError, "type 99"),
    "type of a newer version": (
        rdb(key(b"k", string(listpack([b"a"])), kind=20)),
        ArchiveDamagedError,
        "type 20, which files of version REDIS0010 have not",
    ),
    "unfinished function format": (rdb(b"\xf6" + string(b"x")), ArchiveIncompatibleError, "type 246"),
    "unfinished module format": (rdb(key(b"k", length(1), kind=6)), ArchiveIncompatibleError, "type 6"),
    "absurd length": (rdb(key(b"k", b"\x80\x7f\xff\xff\xffabc")), ArchiveTruncatedError, "cut off"),
    "absurd length of 64 bits": (rdb(key(b"k", b"\x81" + b"\xff" * 8)), ArchiveTruncatedError, "cut off"),
    "absurd key": (rdb(b"\x00\x80\x7f\xff\xff\xffabc"), LimitExceededError, "more than 64 MiB"),
    "absurd count": (
        rdb(key(b"k", b"\x81" + b"\xff" * 8 + string(b"a") * 5000, kind=2)),
        ArchiveDamagedError,
        "a length is not written as one",
    ),
    "length that is none": (rdb(key(b"k", b"\x82abc")), ArchiveDamagedError, "a length is not written as one"),
    "unknown encoding of a string": (rdb(key(b"k", b"\xc4abc")), ArchiveDamagedError, "a length is not written"),
    "size hint that reserves all memory": (
        rdb(database(0), size_hint(1 << 40), text_key("a")),
        ArchiveDamagedError,
        "announces 1099511627776 keys in database 0, where 1 are",
    ),
    "expiry hint that reserves all memory": (
        rdb(database(3), size_hint(1, 1 << 40), text_key("a")),
        ArchiveDamagedError,
        "in database 3",
    ),
    "compressed string that reads before itself": (
        rdb(key(b"k", lzf(b"\x00a\x20\x05", 4))),
        ArchiveDamagedError,
        "cannot be unpacked",
    ),
    "compressed key that reads before itself": (
        rdb(b"\x00" + lzf(b"\x00a\x20\x05", 4) + string(b"v")),
        ArchiveDamagedError,
        "cannot be unpacked",
    ),
    "listpack with an absurd length": (
        rdb(key(b"k", string(struct.pack("<IH", 16, 2) + b"\xf0\xff\xff\xff\x7f\x01\x02\x03\x04\xff"), kind=16)),
        ArchiveDamagedError,
        "a listpack points where nothing is",
    ),
    "ziplist with an absurd length": (
        rdb(key(b"k", string(struct.pack("<IIH", 19, 10, 1) + b"\x00\x80\x7f\xff\xff\xffab\xff"), kind=13)),
        ArchiveDamagedError,
        "a ziplist points",
    ),
    "intset with an absurd length": (
        rdb(key(b"k", string(struct.pack("<IIh", 2, 1 << 30, 1)), kind=11)),
        ArchiveDamagedError,
        "an? intset points",
    ),
    "hash with half a field": (
        rdb(key(b"k", string(listpack([b"f"])), kind=16)),
        ArchiveDamagedError,
        "half an entry",
    ),
    "list node of no kind": (
        rdb(key(b"k", length(1) + length(3) + string(b"x"), kind=18)),
        ArchiveDamagedError,
        "of no known kind",
    ),
    "score that is no number": (
        rdb(key(b"k", members(b"a", after=double(math.nan)), kind=5)),
        ArchiveDamagedError,
        "score",
    ),
    "text score that is no number": (
        rdb(key(b"k", members(b"a", after=b"\xfd"), kind=3)),
        ArchiveDamagedError,
        "score",
    ),
    "packed score that is no number": (
        rdb(key(b"k", string(listpack([b"a", b"nan"])), kind=17)),
        ArchiveDamagedError,
        "score",
    ),
    "module's value that is none": (
        rdb(key(b"k", b"\x81" + bytes(8) + length(9), kind=7)),
        ArchiveDamagedError,
        "a module's value",
    ),
    **{
        f"{what} that expires {moment}": (rdb(before, after), ArchiveDamagedError, "a key expires before 1970")
        for what, after in (("string", text_key("a")), ("hash", key(b"k", members(b"f", after=string(b"v")), kind=4)))
        for moment, before in (
            ("2 ms before never", b"\xfc" + signed(-2)),
            ("as early as can be", b"\xfc" + signed(-(2**63))),
            ("a second before 1970", b"\xfd" + b"\xff" * 4),
        )
    },
    "module's field that is none": (
        rdb(b"\xf7\x81" + bytes(8) + length(1) + length(1) + length(0)),
        ArchiveDamagedError,
        "a module's field",
    ),
    **{
        f"numbers of a slot in a file of version {version}": (
            rdb(SLOT_INFO, text_key("a"), magic=f"REDIS{version:04}"),
            ArchiveDamagedError,
            f"numbers of a slot, which files of version REDIS{version:04} have not",
        )
        for version in (9, 10, 11)
    },
    **{
        f"field with numbers of a slot: {numbers}": (
            rdb(aux("Slot-Info", numbers), text_key("a")),
            ArchiveDamagedError,
            "numbers of a slot that are none",
        )
        for numbers in ("x", "1,2", "1,2,-")
    },
    "scripts in many places": (
        rdb(*[aux("lua", "return 1") + text_key(f"k{number}") for number in range(4097)]),
        LimitExceededError,
        "in more than 4,096 places",
    ),
    "stream node that lies": (
        rdb(key(b"k", stream(node(5, 0, 1, b"field", 0)), kind=15)),
        ArchiveDamagedError,
        "does not hold what it says",
    ),
    "stream without nodes": (
        rdb(key(b"k", stream(length(0)), kind=15)),
        ArchiveDamagedError,
        "has 1 entries and has 0",
    ),
    "stream that says less than it has": (
        rdb(key(b"k", stream(entries=0), kind=15)),
        ArchiveDamagedError,
        "has 0 entries and has 1",
    ),
    "stream that says more than there can be": (
        rdb(key(b"k", STREAM_NODE + b"\x81" + b"\xff" * 8 + length(0) * 3, kind=15)),
        ArchiveDamagedError,
        "has 18446744073709551615 entries and has 1",
    ),
    "stream whose entries are deleted and counted": (
        rdb(key(b"k", stream(node(1, 0, 1, b"field", 0, 3, 0, 0, b"value", 4)), kind=15)),
        ArchiveDamagedError,
        "does not hold what it says",
    ),
    **{
        f"{name}, {moment}": (
            rdb(key(b"k", content(moment), kind=kind), magic=magic),
            ArchiveDamagedError,
            "a field expires at a moment that",
        )
        for name, (kind, magic, content) in EXPIRING_FIELDS.items()
        for moment in (LATEST_MS[magic] + 1, -2)
        if moment <= MOST_MS
    },
    "earliest moment beyond any": (
        rdb(key(b"k", signed((1 << 48) + 1) + members(b"f", after=string(b"v")), kind=24), magic="REDIS0012"),
        ArchiveDamagedError,
        "a field expires at a moment that",
    ),
    **{
        f"moment that is the text {moment!r}": (
            rdb(key(b"k", string(listpack([b"f", b"v", moment])), kind=23), magic="REDIS0012"),
            ArchiveDamagedError,
            "a field expires at a moment that",
        )
        for moment in (b"soon", b"1800000000000")
    },
    **{
        f"fields that expire at {moments}": (
            rdb(
                key(b"k", signed(5) + string(listpack([b"f", b"v", moments[0], b"g", b"v", moments[1]])), kind=25),
                magic="REDIS0012",
            ),
            ArchiveDamagedError,
            "fields that expire are not in that order",
        )
        for moments in ((7, 5), (0, 5))
    },
    **{
        f"number {place} of a stream's node as the text {text!r}": (
            rdb(key(b"k", stream(node(*NODE[:place], text % int(NODE[place]), *NODE[place + 1 :])), kind=15)),
            ArchiveDamagedError,
            "does not hold what it says",
        )
        for place in (0, 1, 2, 4, 5, 6, 7, 9)
        for text in (b"+%d", b"0%d", b" %d", b"1_0%d")
    },
    **{
        f"flags of a stream's entry {what}": (
            rdb(key(b"k", stream(content), kind=15)),
            ArchiveDamagedError,
            "not as a server writes it",
        )
        for what, content in {
            "in 64 bits": node(*NODE, long={FLAGS}),
            "as text": node(*NODE[:FLAGS], b"2", *NODE[FLAGS + 1 :]),
            "of an entry that is deleted, in 64 bits": node(1, 1, *NODE[2:], 3, 0, 1, b"value", 4, long={10}),
        }.items()
    },
    "number of a stream's node beyond any": (
        rdb(key(b"k", stream(node(*NODE[:6], b"%d" % 2**63, *NODE[7:])), kind=15)),
        ArchiveDamagedError,
        "does not hold what it says",
    ),
    **{
        f"stream node with {what} below zero": (
            rdb(key(b"k", stream(node(*entries)), kind=15)),
            ArchiveDamagedError,
            "does not hold what it says",
        )
        for what, entries in {
            "fields of an entry": (1, 0, 1, b"f", 0, 0, 0, 0, -1, 2),
            "fields of its own": (1, 0, -1, 0, 2, 0, 0, 2),
            "deleted entries": (1, -1, 1, b"f", 0),
        }.items()
    },
    "list node of more entries than 16 bits count": (
        rdb(key(b"k", length(1) + length(2) + string(listpack([1] * 65536)), kind=18)),
        ArchiveDamagedError,
        "more entries than a server can count",
    ),
    **{
        f"version {magic}": (
            rdb(text_key("a"), magic=magic),
            ArchiveDamagedError,
            f"version {magic}, which there is none",
        )
        for magic in ("REDIS0000", "VALKEY000", "VALKEY012", "VALKEY079")
    },
    **{
        f"list node of its own with {what}": (
            rdb(key(b"k", length(1) + length(1) + content, kind=18)),
            ArchiveDamagedError,
            "a node of its own and no content",
        )
        for what, content in {"nothing": string(b""), "nothing, compressed": lzf(b"", 0)}.items()
    },
    "number of a slot that is no length": (
        rdb(b"\xf4" + length(1) + b"\x81" + b"\xff" * 8 + length(1), text_key("a"), magic="REDIS0012"),
        ArchiveDamagedError,
        "numbers of a slot that are none",
    ),
    **{
        f"score {score!r}": (
            rdb(key(b"k", string(listpack([b"member", score])), kind=17)),
            ArchiveDamagedError,
            "a score that is no number",
        )
        for score in (b"1_0", b" 1", b"1 ", b"0x10", b"nan", b"infinity", b"")
    },
    "score longer than servers read": (
        rdb(key(b"k", length(1) + string(b"m") + b"\x80" + b"0" * 127 + b"7", kind=3)),
        ArchiveDamagedError,
        "a score that is no number",
    ),
    "idle time that is no length": (
        rdb(b"\xf8\x81" + b"\xff" * 8 + text_key("a")),
        ArchiveDamagedError,
        "not used for longer than",
    ),
    "zipmap with a short length in the long form": (
        rdb(key(b"k", string(b"\x01\xfe\x01\x00\x00\x00a\x01\x00b\xff"), kind=9)),
        ArchiveDamagedError,
        "a zipmap points where nothing is",
    ),
    "zipmap that says that it has 255": (
        rdb(key(b"k", string(b"\xff\x03foo\x03\x00bar\xff"), kind=9)),
        ArchiveDamagedError,
        "a zipmap points where nothing is",
    ),
    "stream node with a short id": (
        rdb(key(b"k", stream(length(1) + string(b"short") + string(listpack([b"1"]))), kind=15)),
        ArchiveDamagedError,
        "not in order",
    ),
    "the same group twice": (
        rdb(key(b"k", stream(groups=length(2) + group(b"g", [], []) * 2), kind=15)),
        ArchiveDamagedError,
        "group stands twice",
    ),
    "pending message of nobody": (
        rdb(key(b"k", stream(groups=length(1) + group(b"g", [STREAM_ID], [])), kind=15)),
        ArchiveDamagedError,
        "pending messages",
    ),
    "pending message of a consumer alone": (
        rdb(key(b"k", stream(groups=length(1) + group(b"g", [], [(b"c", [STREAM_ID])])), kind=15)),
        ArchiveDamagedError,
        "pending messages",
    ),
    "the same consumer twice": (
        rdb(key(b"k", stream(groups=length(1) + group(b"g", [], [(b"c", []), (b"c", [])])), kind=15)),
        ArchiveDamagedError,
        "pending messages",
    ),
    "the same pending message twice": (
        rdb(key(b"k", stream(groups=length(1) + group(b"g", [STREAM_ID] * 2, [(b"c", [STREAM_ID] * 2)])), kind=15)),
        ArchiveDamagedError,
        "twice",
    ),
}


@pytest.mark.parametrize(("file", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_what_would_end_a_server_is_refused(file: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        walk(file)


TWICE: dict[str, bytes] = {
    "key": rdb(database(0), text_key("k"), text_key("other"), text_key("k", "2")),
    "key, once compressed": rdb(
        database(0), text_key("a" * 26), b"\x00" + lzf(b"\x00a\xe0\x10\x00", 26) + string(b"v")
    ),
    "key, once as a number": rdb(database(0), text_key("12345"), b"\x00\xc1\x39\x30" + string(b"v")),
    "key of another type": rdb(database(0), text_key("k"), key(b"k", members(b"a"), kind=2)),
    "key, in a database that is selected twice": rdb(
        database(0), text_key("k"), database(1), database(0), text_key("k")
    ),
    "member of a set": rdb(key(b"k", members(b"a", b"b", b"a"), kind=2)),
    "member of a set, once as a number": rdb(key(b"k", length(2) + string(b"12345") + b"\xc1\x39\x30", kind=2)),
    "member of a large set": rdb(key(b"k", members(*(b"%d" % n for n in range(3000)), b"77"), kind=2)),
    "member of a sorted set": rdb(key(b"k", members(b"a", b"a", after=double(1)), kind=5)),
    "field of a hash": rdb(key(b"k", members(b"f", b"f", after=string(b"v")), kind=4)),
    "field of a packed hash": rdb(key(b"k", string(listpack([b"f", b"1", b"f", b"2"])), kind=16)),
    "field of a packed hash, once as a number": rdb(
        key(b"k", string(struct.pack("<IH", 17, 4) + b"\x815\x02\x01\x01\x05\x01\x81x\x02\xff"), kind=16)
    ),
}


@pytest.mark.parametrize("file", TWICE.values(), ids=TWICE)
def test_what_stands_twice_is_found(file: bytes) -> None:
    with pytest.raises(ArchiveDamagedError, match="twice"):
        walk(file)


def test_a_key_expires_whatever_stands_between_it_and_its_moment() -> None:
    file = rdb(database(0), expiring(1000), aux("a", "b"), text_key("gone"), text_key("stays"))

    content = walk(file)

    assert (content.expiring, content.expired) == (1, 1)
    assert content.vanishing == {0: 1}


def test_equal_keys_in_different_databases_are_no_duplicates() -> None:
    file = rdb(database(0), text_key("k"), database(1), text_key("k"), key(b"s", members(b"k"), kind=2))

    assert walk(file).keys == {0: 1, 1: 2}


LARGE = b"a" * 63
TOO_LARGE: dict[str, tuple[int, bytes]] = {
    "member": (2, members(LARGE)),
    "field": (4, members(LARGE, after=string(b"value"))),
    "listpack": (16, string(listpack([b"f", LARGE]))),
    "listpack with moments": (25, struct.pack("<q", 1 << 48) + string(listpack([b"f", LARGE, 0]))),
    "node of a list": (18, length(1) + length(2) + string(listpack([LARGE]))),
    "compressed text": (0, lzf(b"\x1f" + bytes(32) + b"\x1f" + bytes(32), 64)),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_an_import_would_refuse_for_its_size_is_told_of_a_file_that_a_server_writes(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, content = TOO_LARGE[what]
    for module in (source, values):
        monkeypatch.setattr(module, "MOST_IN_MEMORY_BYTES", 60)
    # What the buffer holds anyway is looked into.
    before = [text_key(f"filler{number}", "x" * 50) for number in range(HEAD_BYTES // 50)]
    file = rdb(*before, key(b"k", content, kind=kind), magic="REDIS0012")

    with pytest.raises(LimitExceededError, match="cannot be checked") as refused:
        walk(file, piece_bytes=1)
    told = walk(file, is_trusted=True, piece_bytes=1)

    [obstacle] = told.obstacles
    assert obstacle.startswith("the key 'k' has ")
    assert obstacle.endswith(refused.value.next_step)
    assert (told.key_count, told.doubt) == (len(before) + 1, "")


def test_what_a_long_text_that_is_not_compressed_has_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (source, values):
        monkeypatch.setattr(module, "MOST_IN_MEMORY_BYTES", 60)

    told = walk(rdb(key(b"k", string(b"a" * 1000))), is_trusted=True, piece_bytes=1)

    assert told.obstacles == []


def test_libraries_that_an_import_would_refuse_are_told_of_a_file_that_a_server_writes() -> None:
    sound, loops = "redis.register_function('f', function() end)", "while true do end"

    told = walk(rdb(function(f"#!lua name=x\n{sound}"), function(f"#!lua name=y\n{loops}")), is_trusted=True)
    large = walk(rdb(function(f"#!lua name=x\n--{'x' * (1 << 20)}\n{sound}")), is_trusted=True)

    assert [text.partition(".")[0] for text in told.obstacles] == [
        "the function library 'y' has a loop at its top level"
    ]
    assert [text.partition(".")[0] for text in large.obstacles] == [
        "its function libraries have more than 1 MiB of code"
    ]
    assert told.functions == 2


def test_a_large_value_is_passed_by_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", 4096)
    monkeypatch.setattr(source, "MOST_IN_MEMORY_BYTES", 8192)

    assert walk(rdb(key(b"k", string(b"x" * 1_000_000)), text_key("after"))).keys == {0: 2}


DOUBTED: dict[str, tuple[bytes, str]] = {
    "newer version": (rdb(text_key("a"), magic="REDIS0099"), "newer"),
    "unknown type": (rdb(text_key("a"), key(b"k", string(b"abc"), kind=99)), "type 99"),
    "unknown type without checksum": (rdb(text_key("a"), key(b"k", string(b"abc"), kind=99), crc=0), "type 99"),
}


@pytest.mark.parametrize(("file", "said"), DOUBTED.values(), ids=DOUBTED)
def test_a_servers_own_snapshot_that_we_do_not_understand_is_doubted_not_refused(file: bytes, said: str) -> None:
    found = walk(file, is_trusted=True)

    assert said in found.doubt
    assert found.keys == {0: 1}


def _random_file(generator: random.Random) -> tuple[bytes, dict[int, int]]:
    parts, keys = [], {}
    for number in range(generator.randint(1, 3)):
        parts.append(database(number))
        count = generator.randint(0, 3000)
        keys[number] = count
        for place in range(count):
            name = b"%d:" % place + b"x" * generator.choice((0, 5, 60, 70, 300))
            if generator.random() < 0.2:
                parts.append(expiring(FAR_FUTURE_MS))
            kind, content, _ = (
                generator.choice(tuple(VALUES.values())) if generator.random() < 0.1 else VALUES["string"]
            )
            parts.append(key(name, content, kind=kind))
    return rdb(*parts), {number: count for number, count in keys.items() if count}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "pieces", [lambda generator: 1 << 20, lambda generator: generator.randint(1, 5000)], ids=["large", "any"]
)
def test_keys_are_counted_wherever_the_pieces_end(seed: int, pieces: Callable[[random.Random], int]) -> None:
    generator = random.Random(seed)
    file, keys = _random_file(generator)
    opened = io.BytesIO(file)
    told: list[tuple[int, int]] = []

    found = Walk(
        lambda size: opened.read(min(size, pieces(generator))),
        is_trusted=False,
        on_progress=lambda count, size_bytes: told.append((count, size_bytes)),
    ).run()

    assert found.keys == keys
    assert told[-1] == (sum(keys.values()), len(file))


def test_no_changed_byte_does_more_than_be_refused() -> None:
    values = [(kind, content) for kind, content, _ in VALUES.values() if len(content) < 1000]
    parts = [key(b"%d" % number, content, kind=kind) for number, (kind, content) in enumerate(values)]
    good = rdb(aux("redis-ver", "7"), database(0), size_hint(len(parts)), *parts)
    generator = random.Random(11)
    refused = 0
    for _ in range(800):
        file = bytearray(good[:-8])
        for _ in range(generator.randint(1, 3)):
            file[generator.randrange(9, len(file))] = generator.randrange(256)
        try:
            walk(bytes(file) + crc64(file).to_bytes(8, "little"))
        except (ArchiveError, LimitExceededError):
            refused += 1

    assert refused > 200
