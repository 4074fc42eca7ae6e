"""Sums of what a file's keys hold: equal for equal content in whatever way it lies, different for anything else."""

from __future__ import annotations

import io
import struct

import pytest

from agent.engines.rdb import contents
from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.summing import SummingWalk
from agent.engines.rdb.sums import pairs
from tests.fixtures.rdb_files import (
    database,
    expiring,
    key,
    length,
    listpack,
    lzf,
    module_key,
    rdb,
    string,
    text_key,
)

STREAM_ID = bytes(8) + (1).to_bytes(8)
MOMENT_MS = 4_000_000_000_000
TWO_IN_A_ZIPLIST = string(bytes.fromhex("0f0000000c000000020000f302f6ff"))


def walk(*parts: bytes, magic: str = "REDIS0012", piece_bytes: int = 1 << 20, has_keys: bool = False) -> RdbContent:
    opened = io.BytesIO(rdb(*parts, magic=magic))
    found = SummingWalk(lambda size: opened.read(min(size, piece_bytes)), has_keys=has_keys).run()
    assert found.doubt == ""
    return found


def sums(*parts: bytes, magic: str = "REDIS0012", piece_bytes: int = 1 << 20) -> dict[str, str]:
    found = walk(*parts, magic=magic, piece_bytes=piece_bytes).sums
    assert found
    return found


def members(*names: bytes) -> bytes:
    return length(len(names)) + b"".join(map(string, names))


def double(number: float) -> bytes:
    return struct.pack("<d", number)


def moment(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)


def stream(*entries: tuple[bytes, ...], node_of: int = 10, groups: bytes = length(0), version: int = 1) -> bytes:
    """Entries with one field each, some in a node; an entry of the one part "deleted" is one that was deleted."""
    nodes = [entries[start : start + node_of] for start in range(0, len(entries), node_of)]
    content = length(len(nodes))
    for number, node in enumerate(nodes):
        first = number * node_of
        gone = sum(entry == (b"deleted",) for entry in node)
        packed = [b"%d" % (len(node) - gone), b"%d" % gone, b"1", node[0][0], b"0"]
        for place, entry in enumerate(node):
            flags = b"1" if entry == (b"deleted",) else b"0"
            packed += [flags, b"0", b"%d" % place, b"1", entry[0], entry[-1], b"6"]
        content += string(bytes(8) + (first + 1).to_bytes(8)) + string(listpack(packed))
    counters = length(0) * 5 if version > 1 else b""
    return content + length(len(entries)) + length(0) + length(9) + counters + groups


def id_of(number: int) -> bytes:
    return bytes(8) + number.to_bytes(8)


def far_apart(*nodes: tuple[int, ...]) -> bytes:
    """A stream of entries without content, whose numbers lie after another in nodes."""
    content = length(len(nodes))
    for first, *others in nodes:
        apart = [(number - first + (1 << 63)) % (1 << 64) - (1 << 63) for number in (first, *others)]
        entries = [part for number in apart for part in (2, 0, number, 3)]
        content += string(id_of(first)) + string(listpack([len(apart), 0, 0, 0, *entries]))
    return content + length(sum(map(len, nodes))) + length(0) + length(9) + length(0)


def read_by_one(last: int, moment: bytes, deliveries: int) -> bytes:
    """A group with a message that one consumer has pending."""
    message = b"1" * 16
    pending = length(1) + message + moment + length(deliveries)
    return (
        length(1)
        + string(b"g")
        + length(1)
        + length(last)
        + pending
        + length(1)
        + string(b"c")
        + bytes(8)
        + length(1)
        + message
    )


EQUAL = {
    "text": (key(b"k", string(b"x" * 26)), key(b"k", lzf(b"\x00x\xe0\x10\x00", 26))),
    "number": (key(b"k", string(b"12345")), key(b"k", b"\xc1\x39\x30")),
    "key that is a number": (text_key("12"), b"\x00\xc0\x0c" + string(b"value")),
    "list": (
        key(b"k", members(b"2", b"5"), kind=1),
        key(b"k", TWO_IN_A_ZIPLIST, kind=10),
        key(b"k", length(1) + TWO_IN_A_ZIPLIST, kind=14),
        key(b"k", length(2) + length(1) + string(b"2") + length(2) + string(listpack([b"5"])), kind=18),
    ),
    "set": (
        key(b"k", members(b"5", b"6"), kind=2),
        key(b"k", members(b"6", b"5"), kind=2),
        key(b"k", string(struct.pack("<IIhh", 2, 2, 5, 6)), kind=11),
        key(b"k", string(listpack([b"6", b"5"])), kind=20),
    ),
    "sorted set": (
        key(b"k", length(2) + string(b"a") + b"\x031.5" + string(b"b") + b"\xfe", kind=3),
        key(b"k", length(2) + string(b"b") + double(float("inf")) + string(b"a") + double(1.5), kind=5),
        key(b"k", string(listpack([b"a", b"1.5", b"b", b"inf"])), kind=17),
    ),
    "sorted set with zeros": (
        key(b"k", length(1) + string(b"a") + double(-0.0), kind=5),
        key(b"k", string(listpack([b"a", b"0"])), kind=17),
    ),
    "hash": (
        key(b"k", length(1) + members(b"2", b"5")[1:], kind=4),
        key(b"k", string(b"\x01\x012\x01\x005\xff"), kind=9),
        key(b"k", TWO_IN_A_ZIPLIST, kind=13),
        key(b"k", string(listpack([b"2", b"5"])), kind=16),
        key(b"k", moment(0) + length(1) + length(0) + string(b"2") + string(b"5"), kind=24),
        key(b"k", moment(0) + string(listpack([b"2", b"5", 0])), kind=25),
    ),
    "hash with a field that expires": (
        key(b"k", moment(MOMENT_MS - 7) + length(1) + length(8) + string(b"f") + string(b"v"), kind=24),
        key(b"k", length(1) + length(MOMENT_MS) + string(b"f") + string(b"v"), kind=22),
        key(b"k", moment(5) + string(listpack([b"f", b"v", MOMENT_MS])), kind=25),
    ),
    "stream": (
        key(b"k", stream((b"a", b"1"), (b"b", b"2"), (b"c", b"3")), kind=15),
        key(b"k", stream((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), node_of=1), kind=15),
        key(b"k", stream((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"deleted",), version=2), kind=19),
    ),
    "stream whose ids are far apart": (
        key(b"k", far_apart((1, (1 << 63) + 5)), kind=15),
        key(b"k", far_apart((1,), ((1 << 63) + 5,)), kind=15),
    ),
}


@pytest.mark.parametrize("keys", EQUAL.values(), ids=EQUAL)
def test_equal_content_has_equal_sums_however_it_lies(keys: tuple[bytes, ...]) -> None:
    found = [sums(one, piece_bytes=piece_bytes) for one in keys for piece_bytes in (7, 1 << 20)]

    assert all(one == found[0] for one in found)


def test_valkeys_hash_with_fields_that_expire_has_the_sum_of_rediss() -> None:
    of_valkey = key(b"k", length(1) + string(b"f") + string(b"v") + moment(MOMENT_MS), kind=22)

    assert sums(of_valkey, magic="VALKEY080") == sums(EQUAL["hash with a field that expires"][0])


OTHERS = {
    "text": key(b"k", string(b"v")),
    "other text": key(b"k", string(b"w")),
    "other name": key(b"l", string(b"v")),
    "more of the name, less of the text": key(b"kv", string(b"")),
    "expires": expiring(MOMENT_MS) + key(b"k", string(b"v")),
    "expires later": expiring(MOMENT_MS + 1) + key(b"k", string(b"v")),
    "other database": database(1) + key(b"k", string(b"v")),
    "twice as many": key(b"k", string(b"v")) + key(b"l", string(b"v")),
    "list": key(b"k", members(b"a", b"b"), kind=1),
    "list in another order": key(b"k", members(b"b", b"a"), kind=1),
    "list of one": key(b"k", members(b"ab"), kind=1),
    "set": key(b"k", members(b"a", b"b"), kind=2),
    "score": key(b"k", length(1) + string(b"a") + double(1), kind=5),
    "other score": key(b"k", length(1) + string(b"a") + double(2), kind=5),
    "hash": key(b"k", length(1) + members(b"f", b"v")[1:], kind=4),
    "hash the other way round": key(b"k", length(1) + members(b"v", b"f")[1:], kind=4),
    "field expires": key(b"k", moment(1) + length(1) + length(1) + string(b"f") + string(b"v"), kind=24),
    "field expires later": key(b"k", moment(1) + length(1) + length(2) + string(b"f") + string(b"v"), kind=24),
    "stream": key(b"k", stream((b"a", b"1")), kind=15),
    "other entry": key(b"k", stream((b"a", b"2")), kind=15),
    "group": key(b"k", stream((b"a", b"1"), groups=length(1) + string(b"g") + length(0) * 4), kind=15),
    "consumer": key(
        b"k",
        stream(
            (b"a", b"1"), groups=length(1) + string(b"g") + length(0) * 3 + length(1) + string(b"c") + bytes(8) + b"\0"
        ),
        kind=15,
    ),
    "group that has read to 1": key(b"k", stream((b"a", b"1"), groups=read_by_one(1, b"1234567x", 12)), kind=15),
    "group that has read to 11": key(b"k", stream((b"a", b"1"), groups=read_by_one(11, b"234567x1", 2)), kind=15),
    "module": module_key(b"k", "graphdata"),
    "other module": module_key(b"k", "ReJSON-RL"),
    "function": b"\xf5" + string(b"#!lua name=a"),
    "other function": b"\xf5" + string(b"#!lua name=b"),
}


def test_any_other_content_has_other_sums() -> None:
    found = {name: tuple(sums(one).items()) for name, one in OTHERS.items()}

    assert len(set(found.values())) == len(OTHERS)


def test_many_short_strings_have_the_same_sums_wherever_the_pieces_end() -> None:
    keys = [text_key(f"key {number}", "x" * (number % 300)) for number in range(2000)]
    keys[5] = expiring(1) + keys[5]
    keys[6] = expiring(MOMENT_MS) + keys[6]

    found = walk(*keys)

    assert found.sums == sums(*reversed(keys), piece_bytes=19) == walk(*keys, has_keys=True).sums
    assert (found.key_count, found.expiring, found.expired) == (2000, 2, 1)


@pytest.mark.parametrize("beside", [b"\xf8\x07", b"\xf9\x05"], ids=["how long idle", "how often used"])
def test_what_servers_with_an_eviction_policy_write_beside_a_key_does_not_matter(beside: bytes) -> None:
    one, other = text_key("a"), key(b"s", members(b"x"), kind=2)

    assert sums(expiring(MOMENT_MS) + beside + one, beside + other) == sums(other, expiring(MOMENT_MS) + one)


def test_digests_of_keys_tell_which_changed() -> None:
    before = walk(text_key("a"), text_key("b"), text_key("c"), has_keys=True).key_digests
    after = walk(text_key("b"), text_key("c", "other"), text_key("d"), database(3), text_key("e"), has_keys=True)

    now, then = pairs(before[0]), pairs(after.key_digests[0])

    assert (len(now), len(then), len(now.keys() & then.keys())) == (3, 3, 2)
    assert sum(now[name] == then[name] for name in now.keys() & then.keys()) == 1
    assert len(pairs(after.key_digests[3])) == 1


def test_keys_that_have_expired_are_in_the_sums_and_have_no_digest() -> None:
    found = walk(text_key("a"), expiring(1000) + text_key("b"), has_keys=True)

    assert len(pairs(found.key_digests[0])) == 1
    assert found.sums == sums(expiring(1000) + text_key("b"), text_key("a")) != sums(text_key("a"))


def test_a_value_too_large_to_be_unpacked_leaves_no_sums_and_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MOST_IN_MEMORY_BYTES", 25)

    found = walk(key(b"k", lzf(b"\x00x\xe0\x10\x00", 26)), text_key("after"))

    assert found.sums is None
    assert found.keys == {0: 2}


def test_what_cannot_be_read_is_a_doubt_and_leaves_no_sums() -> None:
    opened = io.BytesIO(rdb(key(b"k", string(listpack([b"a", b"b", b"c"])), kind=16)))

    found = SummingWalk(opened.read).run()

    assert "half an entry" in found.doubt
    assert found.sums is None
