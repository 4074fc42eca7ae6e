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


def test_two_layers_come_off_and_a_third_is_refused() -> None:
    twice = gzip.compress(lzma.compress(CONTENT))
    content = UnpackedFile(io.BytesIO(twice))

    assert content.layers == ["gzip", "xz"]
    with pytest.raises(ArchiveWrongKindError):
        UnpackedFile(io.BytesIO(gzip.compress(twice)))


def test_a_zip_of_two_files_is_refused_by_name() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.sql", b"one")
        archive.writestr("b.sql", b"two")

    with pytest.raises(ArchiveWrongKindError, match="more than one file"):
        unpack(sink.getvalue())


def test_what_is_not_compressed_passes() -> None:
    assert unpack(b"select 1;") == b"select 1;"
    assert unpack(b"") == b""
