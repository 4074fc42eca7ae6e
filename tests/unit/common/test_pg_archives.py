"""The structure of pg_dump's archives is read for every version, and every cut and most damage is found."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import (
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
    ServiceError,
)
from common.headers import ArchiveHeader
from common.pg_archives import (
    CUSTOM,
    DIRECTORY,
    TAR,
    check_custom,
    read_contents,
    require_files,
)
from common.seals import DumpSealWriter


@dataclass
class Writer:
    """Writes archives as pg_dump does (pg_backup_archiver.c, WriteHead and WriteToc)."""

    minor: int = 14
    form: int = CUSTOM
    integer_bytes: int = 4
    out: bytearray = field(default_factory=bytearray)

    def number(self, number: int) -> None:
        self.out += bytes([number < 0]) + abs(number).to_bytes(self.integer_bytes, "little")

    def text(self, text: str | None) -> None:
        if text is None:
            self.number(-1)
            return
        self.number(len(text.encode()))
        self.out += text.encode()

    def head(self, entries: int) -> None:
        self.out += b"PGDMP" + bytes([1, self.minor, 0, self.integer_bytes, 8, self.form])
        if self.minor >= 15:
            self.out.append(1)
        else:
            self.number(-1)
        for moment in (1, 2, 3, 4, 5, 126, 0):
            self.number(moment)
        for text in ("shop", "15.20 (Debian)", "17.10"):
            self.text(text)
        self.number(entries)

    def entry(self, number: int, kind: str, tag: str, *, has_data: bool, file_name: str = "") -> None:
        self.number(number)
        self.number(has_data)
        for text in ("1259", "16384", tag, kind):
            self.text(text)
        self.number(2)
        for statement in ("CREATE " + "x" * (3000 if number == 1 else 10), "DROP", "COPY", "public", ""):
            self.text(statement)
        if self.minor >= 14:
            self.text("heap")
        if self.minor >= 16:
            self.number(ord("r"))
        for text in ("owner", "false", "12", "13"):
            self.text(text)
        self.text(None)
        if self.form == CUSTOM:
            self.out += b"\x01" + bytes(8)
        else:
            self.text(file_name)

    def block(self, number: int, *chunks: bytes) -> None:
        self.out.append(1)
        self.number(number)
        self.chunks(*chunks)

    def chunks(self, *chunks: bytes) -> None:
        for chunk in filter(None, chunks):
            self.number(len(chunk))
            self.out += chunk
        self.number(0)

    def large_objects(self, number: int, *objects: tuple[int, bytes]) -> None:
        self.out.append(3)
        self.number(number)
        for oid, content in objects:
            self.number(oid)
            self.chunks(content)
        self.number(0)


def custom(minor: int = 14, integer_bytes: int = 4, *, has_contents_again: bool = False) -> bytes:
    writer = Writer(minor, integer_bytes=integer_bytes)
    writer.head(5)
    beginning = len(writer.out) - 1 - integer_bytes
    writer.entry(1, "EXTENSION", "citext", has_data=False)
    writer.entry(2, "TABLE", "orders", has_data=False)
    writer.entry(3, "TABLE DATA", "orders", has_data=True)
    writer.entry(4, "TABLE DATA", "lines", has_data=True)
    writer.entry(5, "BLOBS", "BLOBS", has_data=True)
    contents = bytes(writer.out[beginning:])
    writer.block(3, b"x" * 500, b"y" * 300)
    writer.block(4)
    writer.large_objects(5, (16401, b"z" * 200), (16402, b""))
    if has_contents_again:
        writer.out += contents
    return bytes(writer.out)


def contents_file(form: int) -> bytes:
    writer = Writer(16, form)
    writer.head(2)
    writer.entry(3, "TABLE DATA", "orders", has_data=True, file_name="3.dat")
    writer.entry(5, "BLOBS", "BLOBS", has_data=True, file_name="blobs_5.toc")
    return bytes(writer.out)


@pytest.mark.parametrize("integer_bytes", [4, 8])
@pytest.mark.parametrize("minor", [12, 13, 14, 15, 16])
def test_every_version_is_read(minor: int, integer_bytes: int) -> None:
    found = check_custom(io.BytesIO(custom(minor, integer_bytes)))

    assert (found.version, found.format, found.compression) == ((1, minor), CUSTOM, "gzip")
    assert (found.database, found.server_version, found.dumper_version) == ("shop", "15.20 (Debian)", "17.10")
    assert (found.tables, found.extensions, set(found.data)) == (1, ["citext"], {3, 4, 5})


@pytest.mark.parametrize("minor", [12, 14, 16])
def test_an_archive_cut_anywhere_is_truncated(minor: int) -> None:
    whole = custom(minor)

    for end in (*range(5, 300), *range(300, len(whole), 11), len(whole) - 1):
        with pytest.raises(ArchiveTruncatedError, match=rf"cut off at byte {end}\b"):
            check_custom(io.BytesIO(whole[:end]))


def test_a_cut_between_two_blocks_says_how_many_are_missing() -> None:
    whole = custom()
    end = whole.index(b"\x01\x00\x04\x00\x00\x00" + bytes(5), 3000)

    with pytest.raises(ArchiveTruncatedError, match="the data of 2 of 3 tables"):
        check_custom(io.BytesIO(whole[:end]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_never_ends_in_anything_but_our_errors(data: st.DataObject) -> None:
    damaged = bytearray(custom(data.draw(st.sampled_from([12, 14, 16]))))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    with suppress(ServiceError):
        assert check_custom(io.BytesIO(bytes(damaged))).format == CUSTOM


@pytest.mark.parametrize(
    ("place", "value", "error", "said"),
    [
        (0, 0, ArchiveWrongKindError, "not a dump in custom format"),
        (6, 17, ArchiveIncompatibleError, "version 1.17"),
        (6, 11, ArchiveIncompatibleError, "version 1.11"),
        (8, 3, ArchiveDamagedError, "sizes of numbers"),
        (10, 9, ArchiveDamagedError, "byte 10: there is no format 9"),
    ],
)
def test_a_head_that_cannot_be_is_refused(place: int, value: int, error: type[ServiceError], said: str) -> None:
    damaged = bytearray(custom())
    damaged[place] = value

    with pytest.raises(error, match=said):
        check_custom(io.BytesIO(bytes(damaged)))


@pytest.mark.parametrize(
    "behind",
    [b"\x07\x00\x00\x00\x00\x00", b"GARBAGE", custom(), bytes(600) + b"x", b"\nSELECT 1", b"\x00\x05" + b"x" * 90],
)
def test_an_archive_that_goes_on_behind_its_end_is_said_to_and_not_to_be_cut_off(behind: bytes) -> None:
    whole = custom()

    with pytest.raises(ArchiveDamagedError, match=f"ends at byte {len(whole)}, and the file goes on") as refused:
        check_custom(io.BytesIO(whole + behind))

    assert "without what was added" in refused.value.next_step


def test_a_block_of_an_unknown_kind_among_the_others_is_damage_with_its_byte() -> None:
    damaged = bytearray(custom())
    place = damaged.index(b"\x01\x00\x04\x00\x00\x00" + bytes(5), 3000)
    damaged[place] = 7

    with pytest.raises(ArchiveDamagedError, match=f"damaged at byte {place}: there is no block of the kind 7"):
        check_custom(io.BytesIO(bytes(damaged)))


@pytest.mark.parametrize("has_contents_again", [False, True])
@pytest.mark.parametrize("size", [1, 4, 512, 300_000])
def test_zero_bytes_behind_the_end_are_padding(size: int, has_contents_again: bool) -> None:
    whole = custom(has_contents_again=has_contents_again)

    assert check_custom(io.BytesIO(whole + bytes(size))) == check_custom(io.BytesIO(whole))


def test_what_its_reader_says_at_the_end_of_an_archive_is_not_taken_for_the_end() -> None:
    class CutBehindTheEnd(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            if not found:
                raise ArchiveTruncatedError("The file is cut off: its gzip data stops before its end.")
            return found

    with pytest.raises(ArchiveTruncatedError, match="its gzip data stops"):
        check_custom(CutBehindTheEnd(custom()))


@pytest.mark.parametrize("minor", [12, 16])
def test_the_table_of_contents_may_stand_once_more_behind_the_last_block(minor: int) -> None:
    found = check_custom(io.BytesIO(custom(minor, has_contents_again=True)))

    assert found == check_custom(io.BytesIO(custom(minor)))


def test_our_seal_may_stand_behind_the_last_block_and_is_whole_or_cut_off() -> None:
    seal, dump = DumpSealWriter(), custom()
    seal.add(dump)
    archive = dump + seal.closing(ArchiveHeader(recipe="postgresql"))

    assert check_custom(io.BytesIO(archive)) == check_custom(io.BytesIO(dump))
    for end in range(len(dump) + 1, len(archive)):
        with pytest.raises(ArchiveTruncatedError, match=rf"cut off at byte {end}\b"):
            check_custom(io.BytesIO(archive[:end]))


def test_what_only_begins_like_the_table_of_contents_is_more_than_the_archive_or_cut_off() -> None:
    once, twice = custom(), custom(has_contents_again=True)
    last_entry = twice.rindex(b"\x00\x05\x00\x00\x00\x00\x01\x00\x00\x00")
    other = twice[: last_entry + 1] + b"\x06" + twice[last_entry + 2 :]

    with pytest.raises(ArchiveTruncatedError, match=f"byte {len(twice) - 1}"):
        check_custom(io.BytesIO(twice[:-1]))
    for added_to in (other, twice + b"\x01"):
        with pytest.raises(ArchiveDamagedError, match=f"ends at byte {len(once)}, and the file goes on"):
            check_custom(io.BytesIO(added_to))


def test_more_entries_than_can_be_are_refused_at_once() -> None:
    writer = Writer()
    writer.head(2_000_000_000)

    with pytest.raises(LimitExceededError):
        check_custom(io.BytesIO(bytes(writer.out)))


@pytest.mark.parametrize(("form", "large_objects"), [(DIRECTORY, "blobs_5.toc"), (TAR, "")])
def test_a_table_of_contents_names_the_files_with_data(form: int, large_objects: str) -> None:
    found = read_contents(io.BytesIO(contents_file(form)))

    assert found.data == {3: "3.dat", 5: large_objects}


def test_a_table_of_contents_ends_where_it_says() -> None:
    whole = contents_file(DIRECTORY)

    with pytest.raises(ArchiveDamagedError, match="goes on behind its end"):
        read_contents(io.BytesIO(whole + b"\0"))
    with pytest.raises(ArchiveTruncatedError):
        read_contents(io.BytesIO(whole[:-1]))


@pytest.mark.parametrize("end", ["", ".gz", ".lz4", ".zst"])
def test_files_may_be_compressed_one_by_one(end: str) -> None:
    require_files(["3.dat", ""], {f"3.dat{end}"})


def test_missing_files_are_counted_and_one_is_named() -> None:
    with pytest.raises(ArchiveTruncatedError, match=r"lacks 2 of its files, for example '3\.dat'"):
        require_files(["3.dat", "4.dat", "5.dat"], {"5.dat", "3.dat.bz2"})
