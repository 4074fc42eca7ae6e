"""What is a whole tar and what is not, and all the ways in which tars say what they hold."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Final, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archives import tarblocks
from agent.archives.members import Kind, Member
from agent.archives.reading import TarReader
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
)
from tests.fixtures.archives import DEVICE, DIRECTORY, FIFO, HARD_LINK, SYMLINK, Entry, entry, tar_of

PAX: Final = 2
GNU: Final = 1
USTAR: Final = 0
TWO_FILES = tar_of(entry("a", b"x" * 700), entry("b", b"y" * 700))


def read(content: bytes) -> list[tuple[Member, bytes]]:
    """All members with their data, holes filled."""
    reader = TarReader(io.BytesIO(content))
    found = []
    for member in reader.members():
        data = bytearray(member.size)
        if member.kind is Kind.FILE:
            for offset, piece in reader.pieces(member):
                data[offset : offset + len(piece)] = piece
        found.append((member, bytes(data)))
    return found


@pytest.mark.parametrize("format", [PAX, GNU, USTAR], ids=["pax", "gnu", "ustar"])
def test_all_formats_say_the_same(format: int) -> None:
    archive = tar_of(
        entry("d", type=DIRECTORY, mode=0o2750, uid=1000, gid=1001, mtime=1_600_000_000),
        entry("d/file", b"content", mode=0o640, uid=1000, gid=1001, uname="anna", gname="staff"),
        entry("d/link", type=SYMLINK, linkname="file"),
        entry("d/again", type=HARD_LINK, linkname="d/file"),
        format=format,
    )

    found = read(archive)

    assert [(member.name.rstrip("/"), member.kind) for member, _ in found] == [
        ("d", Kind.DIRECTORY),
        ("d/file", Kind.FILE),
        ("d/link", Kind.SYMLINK),
        ("d/again", Kind.HARD_LINK),
    ]
    (directory, _), (file, content), (link, _), (again, _) = found
    assert (directory.mode, directory.mtime_ns) == (0o2750, 1_600_000_000 * 10**9)
    assert (file.mode, file.uid, file.gid, file.user, file.group) == (0o640, 1000, 1001, "anna", "staff")
    assert content == b"content"
    assert (link.link_target, again.link_target) == ("file", "d/file")


@pytest.mark.parametrize("format", [PAX, GNU], ids=["pax", "gnu"])
@pytest.mark.parametrize(
    "name",
    ["n" * 300, "/".join(["deep" * 10] * 10), "größe ✓\nzwei", "\udcff\udcfe raw", "x" * 100, "x" * 101],
    ids=["long", "deep", "unicode", "not-utf-8", "exactly-100", "one-more"],
)
def test_names_come_through_unchanged(format: int, name: str) -> None:
    archive = tar_of(entry(name, b"1"), entry("link", type=SYMLINK, linkname=name), format=format)

    (file, _), (link, _) = read(archive)

    assert file.name == name
    assert link.link_target == name


def test_the_old_format_says_directory_with_a_slash() -> None:
    block = bytearray(entry("d/")[0].tobuf(USTAR))
    block[156:157] = b"\0"
    block[257:265] = bytes(8)
    checksum = sum(block) - sum(block[148:156]) + 256
    block[148:156] = b"%06o\0 " % checksum

    ((member, _),) = read(bytes(block) + bytes(1024))

    assert member.kind is Kind.DIRECTORY


def test_sizes_and_owners_above_the_fields_of_ustar_are_read() -> None:
    formats: tuple[Literal[1, 2], ...] = (PAX, GNU)
    for format in formats:
        info, _ = entry("big", uid=3_000_000, gid=3_000_001)
        info.size = 9 << 30
        reader = TarReader(io.BytesIO(info.tobuf(format)))

        member = next(reader.members())

        assert (member.size, member.uid, member.gid) == (9 << 30, 3_000_000, 3_000_001)


def test_times_keep_their_nanoseconds() -> None:
    for text, nanoseconds in {"1.5": 1_500_000_000, "-0.25": -250_000_000, "7.123456789123": 7_123_456_789}.items():
        archive = tar_of(entry("a", b"", pax_headers={"mtime": text}))

        ((member, _),) = read(archive)

        assert member.mtime_ns == nanoseconds


@pytest.mark.parametrize(
    ("records", "attributes"),
    [
        (
            {"SCHILY.xattr.user.a%3Db%25": b"1", "SCHILY.xattr.user.%41%3d": b"2"},
            {"user.a=b%": b"1", "user.%41%3d": b"2"},
        ),
        ({"LIBARCHIVE.xattr.user.%C3%B6%25": b"MQ", "SCHILY.xattr.user.%C3%B6%25": b"1"}, {"user.ö%": b"1"}),
        ({"SCHILY.xattr.user.a": b"b=1", "LIBARCHIVE.xattr.user.a%3Db": b"MQ"}, {"user.a=b": b"1"}),
        ({"SCHILY.xattr.user.%25": b"1", "LIBARCHIVE.xattr.user.%2525": b"MQ"}, {"user.%25": b"1"}),
        ({"SCHILY.xattr.user.a": b"1"}, {"user.a": b"1"}),
    ],
    ids=["gnu-tar", "bsdtar", "unencoded", "unencoded-percent", "plain"],
)
def test_names_of_attributes_are_read_as_their_writer_meant_them(
    records: dict[str, bytes], attributes: dict[str, bytes]
) -> None:
    archive = tarblocks.pax_blocks(records, about=b"a") + tar_of(entry("a", b""))

    ((member, _),) = read(archive)

    assert member.attributes == attributes


def test_a_global_header_holds_for_all_that_follow() -> None:
    plain = tar_of(entry("a", b"1"), entry("b", b"2"))
    with_global = tarblocks.pax_blocks({"gname": b"everyone", "comment": b"from git"}, about=b"x")
    block = bytearray(with_global[:512])
    block[156:157] = b"g"
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)

    found = read(bytes(block) + with_global[512:] + plain)

    assert [member.group for member, _ in found] == ["everyone", "everyone"]


def test_data_that_nobody_reads_is_skipped() -> None:
    reader = TarReader(io.BytesIO(TWO_FILES))

    assert [member.name for member in reader.members()] == ["a", "b"]


@pytest.mark.parametrize("size", [*range(512, len(TWO_FILES) - 512, 512), 1, 100, 511, 700, 1300])
def test_a_tar_cut_anywhere_is_refused(size: int) -> None:
    # Python pads a tar to 10 KiB; the two blocks of its end are the first of the zeros.
    end = 2 * (512 + 1024) + 1024

    if size >= end:
        assert len(read(TWO_FILES[:size])) == 2
        return
    with pytest.raises((ArchiveTruncatedError, ArchiveWrongKindError) if size < 512 else ArchiveTruncatedError):
        read(TWO_FILES[:size])


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda tar: tar[:3072] + b"\0" * 512 + b"x" * 512 + tar[4096:], ArchiveDamagedError),
        (lambda tar: tar + b"more", ArchiveDamagedError),
        (lambda tar: tar + tar, ArchiveDamagedError),
        (lambda tar: tar[:1536] + b"?" + tar[1537:], ArchiveDamagedError),
        (lambda tar: tar[:1536] + bytes(512) + tar[1536:], ArchiveDamagedError),
        (lambda tar: b"?" + tar[1:], ArchiveDamagedError),
        (lambda tar: b"?" + tar[1:300], ArchiveTruncatedError),
    ],
    ids=[
        "one-end-block",
        "garbage-behind",
        "two-archives",
        "broken-header",
        "lone-empty-block",
        "broken-first-header",
        "cut-header",
    ],
)
def test_damage_is_named(damage: Callable[[bytes], bytes], error: type[ArchiveError]) -> None:
    with pytest.raises(error):
        read(damage(TWO_FILES))


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([entry("f", type=FIFO)], "a fifo"),
        ([entry("c", type=DEVICE, devmajor=1, devminor=3)], "a device"),
        ([entry("q", type=b"Q")], "unknown type"),
    ],
    ids=["fifo", "device", "unknown"],
)
def test_special_files_are_refused_by_name(entries: list[Entry], what: str) -> None:
    with pytest.raises(ArchiveRefusedError, match=what):
        read(tar_of(*entries))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "is empty, not a tar or zip archive"),
        (b"-- MySQL dump 10.13  Distrib 9.7.4\n".ljust(1024), "is a MySQL dump, not a tar or zip archive"),
        (b"PK\3\4".ljust(1024), "is a zip archive, not a tar archive"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(file: bytes, said: str) -> None:
    with pytest.raises(ArchiveWrongKindError, match=said):
        read(file)


def test_a_header_that_would_fill_memory_is_refused() -> None:
    info, _ = entry("x")
    info.type = b"x"
    info.size = 1 << 30

    with pytest.raises(LimitExceededError):
        read(info.tobuf(USTAR) + bytes(1 << 20))


@pytest.mark.parametrize(
    "records",
    [
        {"size": b"-5"},
        {"size": b"99999999999999999999999"},
        {"mtime": b"yesterday"},
        {"uid": b"4294967295"},
        {"LIBARCHIVE.xattr.user.a": b"MQMQM"},
        {"GNU.sparse.map": b"0,9,5,9", "GNU.sparse.size": b"99"},
        {"GNU.sparse.map": b"0,1,2", "GNU.sparse.size": b"99"},
        {"GNU.sparse.map": b"0,5_12", "GNU.sparse.size": b"512"},
        {"GNU.sparse.map": b"0,512", "GNU.sparse.size": b"9999999999999999999"},
        {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"9"},
    ],
    ids=[
        "negative",
        "huge",
        "no-time",
        "no-owner",
        "no-base64",
        "overlapping-map",
        "odd-map",
        "no-number-map",
        "huge-sparse",
        "map-that-is-none",
    ],
)
def test_nonsense_in_an_extended_header_is_damage(records: dict[str, bytes]) -> None:
    member = entry("a", b"x" * 512)[0].tobuf(USTAR) + b"x" * 512

    with pytest.raises(ArchiveDamagedError):
        read(tarblocks.pax_blocks(records, about=b"a") + member + bytes(1024))


@pytest.mark.parametrize(
    ("place", "field"),
    [
        (slice(136, 148), b"\x80" + (1 << 80).to_bytes(11, "big")),
        (slice(136, 148), b"\xff" + (2**88 - 2**70).to_bytes(11, "big")),
        (slice(124, 136), b"\x80" + (1 << 70).to_bytes(11, "big")),
        (slice(124, 136), b"0000001_000\0"),
    ],
    ids=["late", "early", "large", "no-octal"],
)
def test_numbers_that_no_file_can_have_are_damage(place: slice, field: bytes) -> None:
    block = bytearray(entry("a", b"x" * 512)[0].tobuf(USTAR))
    block[place] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)

    with pytest.raises(ArchiveDamagedError):
        read(bytes(block) + b"x" * 512 + bytes(1024))


@pytest.mark.parametrize("content", [b"5 a=b\n", b"99 a=b\n", b"a=b\n", b"7 abcd\n", b" a=b\n", b"0 a=b\n"])
def test_an_extended_header_that_does_not_add_up_is_damage(content: bytes) -> None:
    with pytest.raises(ArchiveDamagedError):
        tarblocks.parse_pax(content)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flipped_bytes_lead_to_anything_but_our_own_errors(data: st.DataObject) -> None:
    archive = bytearray(tar_of(entry("d", type=DIRECTORY), entry("d/a" * 60, b"x" * 600, mtime=1.25), format=PAX))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(ArchiveError, LimitExceededError):
        read(bytes(archive))
