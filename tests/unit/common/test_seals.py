"""Our header and closing digest: found in our archives, absent from others, and not fooled."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ArchiveDamagedError, ArchiveTruncatedError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.seals import DumpSealWriter, FingerprintFinder, SealReader, SqlSealWriter, TarSealWriter

Make = Callable[[bytes], bytes]
HEADER = ArchiveHeader(recipe="postgresql", format="sql", created_at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))


def sql_archive(content: bytes) -> bytes:
    seal = SqlSealWriter()
    opening = seal.opening(HEADER)
    seal.add(content)
    return opening + content + seal.closing()


def tar_archive(content: bytes) -> bytes:
    seal = TarSealWriter()
    opening = seal.opening(HEADER)
    member = tarfile.TarInfo("a")
    member.size = len(content)
    body = member.tobuf() + content + bytes(-len(content) % 512)
    seal.add(body)
    return opening + body + seal.closing()


def dump_archive(content: bytes) -> bytes:
    seal = DumpSealWriter()
    dump = b"PGDMP" + content
    seal.add(dump)
    return dump + seal.closing(HEADER)


def read(archive: bytes, piece_bytes: int = 1 << 16) -> SealReader:
    reader = SealReader()
    for start in range(0, len(archive), piece_bytes):
        reader.add(archive[start : start + piece_bytes])
    reader.finish()
    return reader


@pytest.mark.parametrize("make", [sql_archive, tar_archive, dump_archive])
@given(content=st.binary(max_size=3000), piece_bytes=st.integers(1, 4000))
def test_an_archive_of_ours_checks_out_however_it_is_cut_into_pieces(
    make: Make, content: bytes, piece_bytes: int
) -> None:
    reader = read(make(content), piece_bytes)

    assert reader.is_sealed
    assert reader.header == HEADER


@pytest.mark.parametrize(("make", "recognisable_bytes"), [(sql_archive, 26), (tar_archive, 512)])
def test_an_archive_cut_anywhere_is_refused(make: Make, recognisable_bytes: int) -> None:
    archive = make(b"select 1;\n" * 100)

    for cut in range(recognisable_bytes, len(archive)):
        with pytest.raises((ArchiveTruncatedError, ArchiveDamagedError)):
            read(archive[:cut])


@pytest.mark.parametrize("make", [sql_archive, tar_archive])
def test_a_flipped_bit_anywhere_in_the_content_is_noticed(make: Make) -> None:
    content = b"select 1;\n" * 100
    archive = make(content)
    begin = archive.index(content)

    for position in range(begin, begin + len(content), 7):
        damaged = bytearray(archive)
        damaged[position] ^= 1
        with pytest.raises(ArchiveDamagedError):
            read(bytes(damaged))


@pytest.mark.parametrize("make", [sql_archive, tar_archive])
def test_something_added_after_the_closing_is_noticed(make: Make) -> None:
    with pytest.raises(ArchiveTruncatedError):
        read(make(b"x") + b"drop table a;\n")


@given(content=st.binary(max_size=3000), zeros=st.integers(0, 300_000), piece_bytes=st.integers(200, 1 << 19))
def test_zeros_behind_a_tar_are_nothing_added_and_those_in_it_count(
    content: bytes, zeros: int, piece_bytes: int
) -> None:
    archive = tar_archive(content + bytes(2048) + content) + bytes(zeros)

    assert read(archive, piece_bytes).is_sealed
    with pytest.raises(ArchiveTruncatedError):
        read(archive + b"x", piece_bytes)
    missing = bytearray(archive)
    del missing[-zeros - 2048 - 512 : -zeros - 2048]
    with pytest.raises((ArchiveTruncatedError, ArchiveDamagedError)):
        read(bytes(missing), piece_bytes)


@pytest.mark.parametrize("zeros", [1, 512, 10_240, 1 << 20])
def test_the_fingerprint_of_a_tar_is_found_before_zeros(zeros: int) -> None:
    fingerprint, seal, finder = Fingerprint(scheme="shop/1", parts={"a": "1"}), TarSealWriter(), FingerprintFinder()
    archive = seal.opening(HEADER) + seal.closing(fingerprint) + bytes(zeros)
    for start in range(0, len(archive), 1 << 18):
        finder.add(archive[start : start + (1 << 18)])

    assert finder.fingerprint() == fingerprint


@pytest.mark.parametrize("content", [b"", b"-", b"-- PostgreSQL database dump\n" * 300, b"\0" * 4096, b"PGDMP" * 999])
def test_archives_of_others_have_no_seal_and_pass(content: bytes) -> None:
    reader = read(content)

    assert not reader.is_sealed
    assert reader.header is None


def test_python_and_its_tar_open_a_sealed_tar() -> None:
    archive = tar_archive(b"hello")

    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        names = opened.getnames()

    assert names == [".mathison-data/archive.json", "a", ".mathison-data/digest.json"]


@pytest.mark.parametrize("kind", [SqlSealWriter, TarSealWriter])
@pytest.mark.parametrize("piece_bytes", [1, 700, 1 << 20])
def test_a_fingerprint_closes_an_archive_and_is_found_there(
    kind: type[SqlSealWriter] | type[TarSealWriter], piece_bytes: int
) -> None:
    fingerprint = Fingerprint(scheme="shop/1", parts={f"table {number}": "1 rows, 0a" for number in range(100)})
    seal = kind()
    opening = seal.opening(HEADER)
    body = b"select 1;\n" * 512
    seal.add(body)
    archive = opening + body + seal.closing(fingerprint)

    finder = FingerprintFinder()
    for start in range(0, len(archive), piece_bytes):
        finder.add(archive[start : start + piece_bytes])

    assert read(archive).is_sealed
    assert finder.fingerprint() == fingerprint


@pytest.mark.parametrize("make", [sql_archive, tar_archive])
def test_an_archive_without_a_fingerprint_has_none(make: Make) -> None:
    finder = FingerprintFinder()
    finder.add(make(b"-- mathison-data fingerprint: {}\nselect 1;\n"))

    assert finder.fingerprint() is None


def test_a_dump_in_custom_format_has_its_seal_behind_it() -> None:
    seal, dump = DumpSealWriter(), b"PGDMP" + bytes(range(256)) * 40
    seal.add(dump)
    expected = Fingerprint(scheme="postgresql/2", parts={"table t": "3 rows, 77"})
    archive = dump + seal.closing(HEADER, expected)
    finder = FingerprintFinder()
    finder.add(archive)

    assert archive.startswith(dump)
    assert read(archive).is_sealed
    assert finder.fingerprint() == expected
    assert not read(dump).is_sealed
    for place in range(0, len(archive), 97):
        damaged = bytearray(archive)
        damaged[place] ^= 4
        with contextlib.suppress(ArchiveDamagedError):
            assert not read(bytes(damaged)).is_sealed
