"""Compression: told by content, whole or an error, bounded however far it expands."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import sys
import zipfile
from collections.abc import Callable

import pytest

from common.codecs import UnpackedFile, gzip_compressor, zstd_compressor
from common.errors import ArchiveDamagedError, ArchiveError, ArchiveTruncatedError, ArchiveWrongKindError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CONTENT = os.urandom(300_000) + b"select 1;\n" * 20_000


def zipped(content: bytes, *, streamed: bool = False, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    target = _Unseekable(sink) if streamed else sink
    with zipfile.ZipFile(target, "w", method) as archive:  # type: ignore[call-overload]
        archive.writestr("dump.sql", content)
    return sink.getvalue()


def zipped_for_more_than_4_gib(content: bytes) -> bytes:
    sink = io.BytesIO()
    entry = zipfile.ZipInfo("dump.sql")
    # Not the first of its kind: when it was changed.
    entry.extra = b"UT\x05\x00\x01" + bytes(4)
    with zipfile.ZipFile(sink, "w") as archive, archive.open(entry, "w", force_zip64=True) as member:
        member.write(content)
    return sink.getvalue()


class _Unseekable:
    """What makes `zipfile` write data descriptors."""

    def __init__(self, sink: io.BytesIO) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        return self._sink.write(data)

    def flush(self) -> None:
        pass


def ours(compressor: Callable[[], object]) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        made = compressor()
        return made.compress(content) + made.flush()  # type: ignore[attr-defined, no-any-return]

    return compress


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip-ours": ours(gzip_compressor),
    "gzip-members": lambda content: gzip.compress(content[:1000]) + gzip.compress(content[1000:]),
    "zstd": zstd.compress,
    "zstd-ours": ours(zstd_compressor),
    "xz": lzma.compress,
    "zip": zipped,
    "zip-streamed": lambda content: zipped(content, streamed=True),
    "zip-stored": lambda content: zipped(content, method=zipfile.ZIP_STORED),
    "zip-stored-64": zipped_for_more_than_4_gib,
}


def unpack(archive: bytes, piece_bytes: int = 65536) -> bytes:
    content = UnpackedFile(io.BytesIO(archive))
    found = b""
    while piece := content.read(piece_bytes):
        assert len(piece) <= piece_bytes
        found += piece
    return found


@pytest.mark.parametrize("name", CODECS)
def test_content_comes_back_as_it_went_in(name: str) -> None:
    assert unpack(CODECS[name](CONTENT)) == CONTENT


@pytest.mark.parametrize("name", CODECS)
def test_a_cut_file_is_an_error_wherever_it_is_cut(name: str) -> None:
    archive = CODECS[name](CONTENT)

    for share in (0.1, 0.5, 0.9, 0.999):
        with pytest.raises(ArchiveError):
            unpack(archive[: int(len(archive) * share)])
    with pytest.raises((ArchiveTruncatedError, ArchiveDamagedError)):
        unpack(archive[:-1])


@pytest.mark.parametrize("name", sorted(set(CODECS) - {"zstd"}))
def test_a_flipped_bit_is_an_error(name: str) -> None:
    # Plain `zstd.compress` writes no checksum, so nothing could be noticed there; the zstd program does, as we do.
    archive = bytearray(CODECS[name](CONTENT))
    archive[len(archive) // 2] ^= 16

    with pytest.raises(ArchiveError):
        unpack(bytes(archive))


@pytest.mark.parametrize("name", CODECS)
def test_what_stands_behind_the_end_is_named_with_its_byte_and_not_called_cut_off(name: str) -> None:
    archive = CODECS[name](CONTENT)

    for behind in (b"\n", b"GARBAGE", bytes(70_000) + b"x", b"PK"):
        with pytest.raises(
            ArchiveDamagedError, match=rf"goes on behind the end of its \w+ data, at byte {len(archive)}\."
        ):
            unpack(archive + behind)


@pytest.mark.parametrize("name", CODECS)
def test_zero_bytes_behind_the_end_are_padding(name: str) -> None:
    archive = CODECS[name](CONTENT)

    for size in (1, 4, 512, 600_000):
        assert unpack(archive + bytes(size)) == CONTENT


@pytest.mark.parametrize("name", [name for name in CODECS if not name.startswith("zip")])
def test_what_was_compressed_in_parts_is_one_content_and_cut_off_in_any_of_them(name: str) -> None:
    first, second = CODECS[name](CONTENT[:1000]), CODECS[name](CONTENT[1000:])

    assert unpack(first + second) == CONTENT
    for end in (1, 3, len(second) // 2, len(second) - 1):
        with pytest.raises(ArchiveTruncatedError):
            unpack(first + second[:end])


def test_frames_without_content_around_those_of_zstd_are_passed_over() -> None:
    empty_frame = b"\x5a\x2a\x4d\x18\x04\x00\x00\x00abcd"
    first, second = zstd.compress(CONTENT[:1000]), zstd.compress(CONTENT[1000:])

    assert unpack(empty_frame + first + empty_frame + second + empty_frame) == CONTENT


@pytest.mark.parametrize("size", [4, 70_000])
def test_padding_between_streams_of_xz_is_passed_over(size: int) -> None:
    first, second = lzma.compress(CONTENT[:1000]), lzma.compress(CONTENT[1000:])

    assert unpack(first + bytes(size) + second + bytes(size)) == CONTENT
    with pytest.raises(ArchiveTruncatedError):
        unpack(first + bytes(size) + second[:-1])
    with pytest.raises(ArchiveTruncatedError):
        unpack(first + bytes(size) + second[:3])


def test_a_zip_ends_behind_its_comment_whatever_records_and_marks_stand_before() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("dump.sql", CONTENT)
        archive.comment = b"PK\x05\x06 is how its end begins"
    at = sink.getvalue().rindex(b"PK\x05\x06", 0, -30)
    records = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(44) + b"PK\x06\x07" + bytes(16)

    assert unpack(sink.getvalue()[:at] + records + sink.getvalue()[at:]) == CONTENT


def test_two_layers_come_off_and_a_third_is_refused() -> None:
    twice = gzip.compress(lzma.compress(CONTENT))
    content = UnpackedFile(io.BytesIO(twice))

    assert content.layers == ["gzip", "xz"]
    with pytest.raises(ArchiveWrongKindError):
        UnpackedFile(io.BytesIO(gzip.compress(twice)))


@pytest.mark.parametrize("folders", [("d/",), ("a/", "d/", "d/e/")])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_one_file_in_a_zip_of_folders_is_read(folders: tuple[str, ...], method: int) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name in (*folders, f"{folders[-1]}dump.sql", "z/"):
            archive.writestr(name, b"" if name.endswith("/") else CONTENT)

    assert unpack(sink.getvalue()) == CONTENT


def test_a_zip_of_folders_only_is_refused_by_name() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("d/", b"")

    with pytest.raises(ArchiveWrongKindError, match="holds no file"):
        UnpackedFile(io.BytesIO(sink.getvalue()))


def test_a_zip_of_two_files_is_refused_by_name() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.sql", b"one")
        archive.writestr("b.sql", b"two")

    with pytest.raises(ArchiveWrongKindError, match="more than one file"):
        unpack(sink.getvalue())


def test_a_zip_that_breaks_off_in_its_first_header_is_cut_off() -> None:
    for end in range(4, 30):
        with pytest.raises(ArchiveTruncatedError):
            unpack(zipped(CONTENT)[:end])


def test_what_is_not_compressed_passes() -> None:
    assert unpack(b"select 1;") == b"select 1;"
    assert unpack(b"") == b""
