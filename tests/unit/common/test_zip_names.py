"""Names in zips, as the programs write them that there are."""

from __future__ import annotations

import io
import zipfile
import zlib

import pytest

from common.zip_names import ZipName, name_of

NAME = "Ü/ä.txt"
UNIX, DOS, NTFS, DARWIN = 3, 0, 10, 19


def unicode_path(raw: bytes, name: bytes) -> bytes:
    content = b"\1" + zlib.crc32(raw).to_bytes(4, "little") + name
    return (0x7075).to_bytes(2, "little") + len(content).to_bytes(2, "little") + content


def read(raw: bytes, system: int, *, extra: bytes = b"", flagged: bool = False) -> ZipName:
    """A zip whose one entry has this name, written without a UTF-8 flag or with it, read again."""
    stand_in = b"X" * len(raw)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        info = zipfile.ZipInfo(stand_in.decode())
        info.create_system, info.extra = system, extra
        info.flag_bits |= flagged << 11
        archive.writestr(info, b"content")
    content = bytearray(written.getvalue().replace(stand_in, raw))
    if flagged:
        for mark, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
            content[content.find(mark) + offset] |= 8
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        assert archive.read(entry) == b"content"
        return name_of(entry)


@pytest.mark.parametrize("system", [UNIX, DARWIN])
def test_a_name_from_unix_is_the_bytes_that_it_was(system: int) -> None:
    assert read(NAME.encode(), system) == ZipName(NAME)
    assert read(b"n\xff\xfe", system).text.encode(errors="surrogateescape") == b"n\xff\xfe"
    assert read(b"n\xff", system).shown == "n\\xff"


@pytest.mark.parametrize("system", [UNIX, DOS, NTFS, DARWIN])
def test_a_name_that_is_flagged_as_utf_8_or_of_ascii_is_no_guess(system: int) -> None:
    assert read(NAME.encode(), system, flagged=True) == ZipName(NAME)
    assert read(b"a/b", system) == ZipName("a/b")


@pytest.mark.parametrize("system", [DOS, NTFS])
def test_a_name_from_windows_is_cp437_unless_its_unicode_path_is_beside_it(system: int) -> None:
    raw = NAME.encode("cp437")

    assert read(raw, system) == ZipName(NAME, is_guess=True)
    assert read(b"?", system, extra=unicode_path(b"?", b"\xe6\x97\xa5")) == ZipName("?")
    assert read(b"\x9a", system, extra=unicode_path(b"\x9a", "日本".encode())) == ZipName("日本")
    assert read(b"\x9a", system, extra=unicode_path(b"other", "日本".encode())) == ZipName("Ü", is_guess=True)
    assert read(b"\x9a", system, extra=unicode_path(b"\x9a", b"\xff")) == ZipName("Ü", is_guess=True)


def test_backslashes_separate_directories_only_where_windows_wrote_them() -> None:
    assert read(b"d\\file", DOS).text == "d/file"
    assert read(b"d\\file", UNIX).text == "d\\file"


@pytest.mark.parametrize("extra", [b"\x75", b"\x75\x70\xff\x00\x01", b"\x75\x70\x00\x00"])
def test_extra_fields_that_do_not_hold_are_passed_over(extra: bytes) -> None:
    entry = zipfile.ZipInfo("Ü")
    entry.create_system, entry.extra, entry.flag_bits = DOS, extra, 0

    assert name_of(entry) == ZipName("Ü", is_guess=True)
