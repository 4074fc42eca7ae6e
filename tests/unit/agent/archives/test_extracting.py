"""Entries become what they say, inside the directory and nowhere else."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.archives.extracting import Extracted, Extraction, ExtractionLimits
from agent.archives.reading import TarReader
from common.errors import ArchiveRefusedError, LimitExceededError, NoSpaceError, ServiceError
from tests.fixtures.archives import DIRECTORY, HARD_LINK, SYMLINK, Entry, entry, tar_of
from tests.fixtures.attacks import LIMIT_BYTES, TARS

LIMITS = ExtractionLimits(content_bytes=LIMIT_BYTES, entries=1000, free_bytes=1)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Deep enough for a few steps up to be seen."""
    directory = tmp_path / "outer" / "inner" / "target"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def extract(
    content: bytes, target: Path, *, limits: ExtractionLimits = LIMITS, owner: tuple[int, int] | None = None
) -> Extracted:
    root = os.open(target, os.O_RDONLY)
    try:
        with (target.parent.parent / "later").open("w+b") as later:
            extraction = Extraction(
                root,
                limits=limits,
                later=later,
                owner=owner,
                default_owner=(os.getuid(), os.getgid()),
                inside="/srv/data",
            )
            with contextlib.closing(extraction):
                reader = TarReader(io.BytesIO(content))
                for member in reader.members():
                    extraction.add(member, reader.pieces(member))
                extraction.finish()
            return extraction.result
    finally:
        os.close(root)


def mine(name: str, content: bytes | None = None, **attributes: object) -> Entry:
    """A member that belongs to us."""
    return entry(name, content, uid=os.getuid(), gid=os.getgid(), **attributes)


@pytest.mark.parametrize("name", TARS)
def test_an_attack_is_refused_and_nothing_gets_out(name: str, target: Path) -> None:
    content, error = TARS[name]

    with pytest.raises(error):
        extract(content, target)

    outside = [path for path in target.parents[1].rglob("*") if target not in (path, *path.parents)]
    assert sorted(path.name for path in outside) == ["inner", "later"]


def test_descriptors_are_closed_after_an_attack(target: Path) -> None:
    extract(tar_of(mine("a", b"1")), target)
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(ArchiveRefusedError):
        extract(tar_of(mine("d/e/f", b"1"), mine("d/e/f", b"2")), target)

    assert len(os.listdir("/proc/self/fd")) == before


def test_entries_become_what_they_say(target: Path) -> None:
    archive = tar_of(
        mine("d", type=DIRECTORY, mode=0o750, mtime=1_500_000_000.25),
        mine("d/file", b"content", mode=0o640, mtime=1_600_000_000.5),
        mine("d/link", type=SYMLINK, linkname="file", mtime=1_400_000_000),
        mine("d/again", type=HARD_LINK, linkname="d/file"),
        mine("d/link again", type=HARD_LINK, linkname="d/link"),
        mine("empty", b""),
    )

    result = extract(archive, target)

    assert (target / "d/file").read_bytes() == b"content"
    assert stat.filemode((target / "d/file").stat().st_mode) == "-rw-r-----"
    assert (target / "d/file").stat().st_mtime_ns == 1_600_000_000_500_000_000
    assert (target / "d").stat().st_mtime_ns == 1_500_000_000_250_000_000
    assert stat.filemode((target / "d").stat().st_mode) == "drwxr-x---"
    assert os.readlink(target / "d/link") == "file"
    assert (target / "d/link").lstat().st_mtime_ns == 1_400_000_000 * 10**9
    assert (target / "d/again").stat().st_ino == (target / "d/file").stat().st_ino
    assert (target / "d/link again").lstat().st_ino == (target / "d/link").lstat().st_ino
    assert (result.files, result.directories, result.symlinks, result.hard_links) == (2, 1, 1, 2)
    assert result.outside_links == 0


def test_a_read_only_directory_is_filled_before_it_is_closed(target: Path) -> None:
    archive = tar_of(
        mine("a", type=DIRECTORY, mode=0o500),
        mine("a/b", type=DIRECTORY, mode=0o555, mtime=7),
        mine("a/b/c", b"1", mode=0o400),
    )

    extract(archive, target)

    assert (target / "a/b/c").read_bytes() == b"1"
    assert stat.S_IMODE((target / "a/b").stat().st_mode) == 0o555
    assert (target / "a/b").stat().st_mtime == 7
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o500


def test_a_directory_may_come_after_what_is_in_it_and_twice(target: Path) -> None:
    archive = tar_of(
        mine("a/b/c", b"1"),
        mine("a/b", type=DIRECTORY, mode=0o700, mtime=5),
        mine("a", type=DIRECTORY, mode=0o711),
        mine("a", type=DIRECTORY, mode=0o701, mtime=6),
    )

    result = extract(archive, target)

    assert result.directories == 2
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o701
    assert (target / "a").stat().st_mtime == 6
    assert (target / "a/b").stat().st_mtime == 5


def test_rights_to_become_someone_else_are_dropped_and_counted(target: Path) -> None:
    archive = tar_of(
        mine("program", b"x", mode=0o6755), mine("d", type=DIRECTORY, mode=0o7777), mine("plain", b"x", mode=0o755)
    )

    result = extract(archive, target)

    assert stat.S_IMODE((target / "program").stat().st_mode) == 0o755
    # A directory's setgid hands its group on and gives no right to anyone.
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o3777
    assert result.rights_dropped == 2


def test_what_belongs_to_us_and_to_the_filesystem_is_left_out(target: Path) -> None:
    archive = tar_of(
        mine("./", type=DIRECTORY),
        mine("./.mathison-data", type=DIRECTORY),
        mine("./.mathison-data/aa/new/x", b"1"),
        mine("lost+found/#1", b"1"),
        mine("d/.mathison-data/x", b"kept: not at the top"),
        mine("a", b"1"),
    )

    result = extract(archive, target)

    assert sorted(os.listdir(target)) == ["a", "d"]
    assert (result.left_out, result.files) == (3, 2)


@pytest.mark.parametrize(
    ("path", "linked_to", "is_outside"),
    [
        ("l", "a", False),
        ("d/e/l", "../../a", False),
        ("d/l", "./x/../y", True),
        ("d/l", "../../a", True),
        ("l", "..", True),
        ("l", "/etc/passwd", True),
        ("l", "/srv/data/a", False),
        ("l", "/srv/database", True),
        ("l", "/srv/data/../x", True),
        ("l", "/", True),
        ("l", ".", False),
    ],
)
def test_links_that_lead_out_are_noticed(target: Path, path: str, linked_to: str, is_outside: bool) -> None:
    result = extract(tar_of(mine(path, type=SYMLINK, linkname=linked_to)), target)

    assert result.outside_links == is_outside
    assert result.outside_link_paths == ([(path, linked_to)] if is_outside else [])
    assert os.readlink(target / path) == linked_to


def test_a_link_that_leads_out_from_its_second_place_is_noticed(target: Path) -> None:
    archive = tar_of(mine("a/b/l", type=SYMLINK, linkname="../../x"), mine("l", type=HARD_LINK, linkname="a/b/l"))

    result = extract(archive, target)

    assert result.outside_link_paths == [("l", "../../x")]


def test_databases_are_noticed_however_small_the_pieces_are(target: Path) -> None:
    database = b"SQLite format 3\0" + bytes(496)

    result = extract(tar_of(mine("d/app.db", database), mine("SQLite format 3", b"x" * 600)), target)

    assert result.database_paths == ["d/app.db"]


def test_zeros_become_holes(target: Path) -> None:
    archive = tar_of(mine("a", b"x" * (1 << 20) + bytes(32 << 20)), mine("b", bytes(4 << 20)))

    extract(archive, target)

    for name, size in {"a": 33 << 20, "b": 4 << 20}.items():
        status = (target / name).stat()
        assert status.st_size == size
        assert status.st_blocks * 512 < size / 4
    assert (target / "a").read_bytes()[: 1 << 20] == b"x" * (1 << 20)


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (ExtractionLimits(content_bytes=999, entries=1000, free_bytes=1), LimitExceededError),
        (ExtractionLimits(content_bytes=LIMIT_BYTES, entries=2, free_bytes=1), LimitExceededError),
        (ExtractionLimits(content_bytes=LIMIT_BYTES, entries=1000, free_bytes=1 << 62), NoSpaceError),
    ],
    ids=["content", "entries", "room"],
)
def test_limits_hold(target: Path, limits: ExtractionLimits, error: type[ServiceError]) -> None:
    with pytest.raises(error):
        extract(tar_of(*[mine(str(number), b"x" * 400) for number in range(3)]), target, limits=limits)


def test_unknown_attributes_are_counted_and_not_set(target: Path) -> None:
    records = {
        "SCHILY.xattr.security.capability": "x",
        "SCHILY.xattr.trusted.x": "y",
        "LIBARCHIVE.xattr.user.%00": "",
        "SCHILY.xattr.user.z": "zz",
    }

    result = extract(tar_of(mine("a", b"1", pax_headers=records)), target)

    assert result.attributes_dropped == 3
    assert os.listxattr(target / "a") == ["user.z"]
    assert os.getxattr(target / "a", "user.z") == b"zz"
