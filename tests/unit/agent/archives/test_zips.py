"""Zips as desktops make them, and those that are none."""

from __future__ import annotations

import collections
import gzip
import io
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.archives.members import Kind, Member
from agent.archives.zips import ZipReader
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
)
from tests.fixtures.archives import entry as tar_entry
from tests.fixtures.archives import tar_of, zip_of_raw_names


def zip_of(*entries: tuple[zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive:
        for info, content in entries:
            info.compress_type = method
            archive.writestr(info, content)
    return written.getvalue()


def entry(name: str, content: bytes = b"", *, mode: int = 0, system: int = 3) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name, (2020, 2, 3, 4, 5, 6))
    info.create_system = system
    info.external_attr = mode << 16 or 1 << 5
    return info, content


def commented(comment: bytes) -> bytes:
    written = io.BytesIO(zip_of(entry("a", b"1")))
    with zipfile.ZipFile(written, "a") as archive:
        archive.comment = comment
    return written.getvalue()


def read(content: bytes) -> list[tuple[Member, bytes]]:
    reader = ZipReader(io.BytesIO(content), size=len(content), expansion_ratio=200)
    return [(member, b"".join(piece for _, piece in reader.pieces(member))) for member in reader.members()]


def warnings(content: bytes) -> list[str]:
    reader = ZipReader(io.BytesIO(content), size=len(content), expansion_ratio=200)
    list(reader.members())
    return reader.warnings()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_directories_and_links_are_read(method: int) -> None:
    archive = zip_of(
        entry("d/", mode=stat.S_IFDIR | 0o750),
        entry("d/file", b"content" * 1000, mode=stat.S_IFREG | 0o640),
        entry("d/link", b"file", mode=stat.S_IFLNK | 0o777),
        entry("no mode", b"x", system=0),
        method=method,
    )

    found = read(archive)

    assert [(member.name, member.kind, member.mode) for member, _ in found] == [
        ("d/", Kind.DIRECTORY, 0o750),
        ("d/file", Kind.FILE, 0o640),
        ("d/link", Kind.SYMLINK, 0o777),
        ("no mode", Kind.FILE, 0o644),
    ]
    assert found[1][1] == b"content" * 1000
    assert found[1][0].mtime_ns == 1_580_702_706 * 10**9
    assert found[2][0].link_target == "file"


def test_the_time_of_info_zip_is_taken_where_it_stands() -> None:
    info, content = entry("a", b"1")
    info.extra = b"\x55\x54\x05\x00\x01" + (1_600_000_000).to_bytes(4, "little")

    ((member, _),) = read(zip_of((info, content)))

    assert member.mtime_ns == 1_600_000_000 * 10**9


def test_backslashes_of_windows_separate_directories() -> None:
    archive = zip_of(entry("d\\file", b"1", system=0), entry("odd\\name", b"2", system=3))

    assert [member.name for member, _ in read(archive)] == ["d/file", "odd\\name"]


def test_names_are_read_as_who_wrote_them_meant_and_what_remains_a_guess_is_told() -> None:
    names = ["Ü/ä.txt".encode(), b"n\xff\xfe"]
    unix = zip_of_raw_names(dict.fromkeys(names, b"1"), system=3)
    windows = zip_of_raw_names({"Ü/ä.txt".encode("cp437"): b"1", b"plain": b"2"}, system=0)

    assert [os.fsencode(member.name) for member, _ in read(unix)] == names
    assert [member.name for member, _ in read(windows)] == ["Ü/ä.txt", "plain"]
    assert warnings(unix) == []
    assert warnings(windows) == [
        "1 name in the zip is in an encoding that it does not tell, and was taken for one of DOS (cp437): 'Ü/ä.txt'."
    ]


def test_what_a_zip_program_makes_is_read(tmp_path: Path) -> None:
    (tmp_path / "src" / "d").mkdir(parents=True)
    (tmp_path / "src" / "d" / "größe").write_bytes(os.urandom(3000))
    made = shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "src")

    found = read(Path(made).read_bytes())

    assert [member.name for member, _ in found] == ["d/", "d/größe"]
    assert found[1][1] == (tmp_path / "src" / "d" / "größe").read_bytes()


GOOD = zip_of(entry("a", os.urandom(3000)), entry("b", b"x" * 3000))


@pytest.mark.parametrize("size", [0, 10, 100, 3000, len(GOOD) - 22, len(GOOD) - 1])
def test_a_zip_cut_anywhere_is_refused(size: int) -> None:
    with pytest.raises(ArchiveTruncatedError):
        read(GOOD[:size])


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def encrypted() -> bytes:
    archive = bytearray(GOOD)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        archive[archive.find(mark) + offset] |= 1
    return bytes(archive)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (flipped(GOOD, 1000), ArchiveDamagedError),
        (flipped(GOOD, GOOD.find(b"PK\x01\x02") + 16), ArchiveDamagedError),
        (encrypted(), ArchiveWrongKindError),
        (zip_of(entry("a", b"x" * 1000), method=zipfile.ZIP_BZIP2), ArchiveWrongKindError),
        (zip_of(entry("f", mode=stat.S_IFIFO | 0o644)), ArchiveRefusedError),
        (zip_of(entry("l", b"x" * 5000, mode=stat.S_IFLNK | 0o777)), ArchiveRefusedError),
        (GOOD + b"behind" * 100, ArchiveDamagedError),
    ],
    ids=["flipped-content", "flipped-crc", "encrypted", "bzip2", "fifo", "endless-link", "garbage-behind"],
)
def test_what_is_wrong_is_named(content: bytes, error: type[ArchiveError]) -> None:
    with pytest.raises(error):
        read(content)


@pytest.mark.parametrize("behind", [b"", bytes(18), bytes(18) + b"more", bytes(10)])
def test_a_comment_that_looks_like_another_end_is_the_reason(behind: bytes) -> None:
    with pytest.raises(ArchiveRefusedError, match="comment looks like the end of another zip"):
        read(commented(b"PK\5\6" + behind))


def test_any_other_comment_is_taken() -> None:
    assert [content for _, content in read(commented(b"PK\5\5 is no end, nor is PK\5"))] == [b"1"]


def test_a_bomb_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.archives.zips._RATIO_COUNTS_FROM_BYTES", 1 << 20)

    with pytest.raises(LimitExceededError, match="200 times"):
        read(zip_of(entry("zeros", bytes(64 << 20))))


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress], ids=["tar", "tar.gz"])
def test_a_bomb_in_the_tar_that_a_zip_holds_is_stopped(
    pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.archives.zips._RATIO_COUNTS_FROM_BYTES", 1 << 20)
    content = zip_of(entry("x", pack(tar_of(tar_entry("zeros", bytes(64 << 20))))))
    tar = ZipReader(io.BytesIO(content), size=len(content), expansion_ratio=200).lone_tar()
    assert tar is not None

    with pytest.raises(LimitExceededError, match="200 times"):
        collections.deque(iter(lambda: tar.read(1 << 20), b""), maxlen=0)
