"""A directory becomes a tar that says all of it, whatever happens to the directory meanwhile."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.archives.members import MAX_DEPTH
from agent.archives.reading import TarReader
from agent.archives.sparse import segments_of
from agent.archives.walking import left_out_by
from agent.archives.writing import PIECE_BYTES, Substitute, TreeWriter
from common.errors import SourceUnreadableError
from tests.fixtures.archives import described, descriptors_left, digest_of, make_nasty

DATABASE = b"SQLite format 3\0" + bytes(1008)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    directory = tmp_path / "volume"
    directory.mkdir()
    return directory


def copied_as_it_is(path: str, status: os.stat_result) -> Substitute | None:
    return None


def writer_of(
    volume: Path,
    *,
    substitute: Callable[[str, os.stat_result], Substitute | None] = copied_as_it_is,
    exclude: tuple[str, ...] = (),
) -> TreeWriter:
    return TreeWriter(volume, work_directory=volume.parent, substitute=substitute, is_left_out=left_out_by(exclude))


def archive_of(volume: Path, **options: object) -> tuple[bytes, TreeWriter]:
    writer = writer_of(volume, **options)  # type: ignore[arg-type]
    return b"".join(writer.blocks()) + bytes(1024), writer


def names_in(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return opened.getnames()


def test_gnu_tar_unpacks_everything_as_it_was(volume: Path, tmp_path: Path) -> None:
    make_nasty(volume)
    (volume / "all a hole").unlink()
    archive, _ = archive_of(volume)
    target = tmp_path / "target"
    target.mkdir()

    done = subprocess.run(
        ["tar", "-x", "-p", "--warning=no-timestamp", "--xattrs", "--xattrs-include=user.*", "-C", target],
        input=archive,
        capture_output=True,
        check=True,
    )

    assert done.stderr == b""
    assert described(target) == described(volume)
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20


def test_attributes_with_odd_names_come_back_as_they_were(volume: Path) -> None:
    attributes = {"user.a=b": b"=\0\n", "user.100%25=": b"", "user.%3D": b"x" * 100, "user.ü%": b"c", "user.p": b"=="}
    (volume / "a").touch()
    for name, value in attributes.items():
        os.setxattr(volume / "a", name, value)

    archive, _ = archive_of(volume)

    (member,) = TarReader(io.BytesIO(archive)).members()
    assert member.attributes == attributes


def test_gnu_tar_leaves_out_attributes_that_it_could_only_take_for_others_and_names_them(
    volume: Path, tmp_path: Path
) -> None:
    (volume / "a").touch()
    for name in ("user.a=b", "user.100%25", "user.half%"):
        os.setxattr(volume / "a", name, b"value")
    archive, _ = archive_of(volume)
    target = tmp_path / "target"
    target.mkdir()

    done = subprocess.run(["tar", "-x", "--xattrs", "-C", target], input=archive, capture_output=True, check=True)

    assert os.listxattr(target / "a") == ["user.half%"]
    assert b"LIBARCHIVE.xattr.user.a%3Db" in done.stderr


def test_python_reads_the_same(volume: Path) -> None:
    make_nasty(volume)
    archive, writer = archive_of(volume)

    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        members = {member.name: member for member in opened}

    assert members["all a hole"].size == 1 << 40
    assert members["sparse"].issparse()
    assert members["d/a third name"].linkname == "a second name"
    assert members["second name of the link"].islnk()
    assert writer.counts["files"] + writer.counts["directories"] + writer.counts["symlinks"] + writer.counts[
        "hard_links"
    ] == len(members)


def test_a_file_with_the_inode_number_of_a_deleted_one_is_no_other_name_of_it(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("old", b"old"), ("reused", b"new content")):
        (volume / name).write_bytes(content)
        (tmp_path / f"another name of {name}").hardlink_to(volume / name)
    monkeypatch.setattr("agent.archives.hard_links._inode", lambda found: b"one and the same")

    archive, _ = archive_of(volume)

    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = {member.name.removeprefix("./"): opened.extractfile(member) for member in opened if not member.isdir()}
        assert {name: content and content.read() for name, content in found.items()} == {
            "old": b"old",
            "reused": b"new content",
        }


def test_names_of_a_file_stay_together_when_it_is_written_to_or_its_first_name_is_gone(
    volume: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (volume / name).write_bytes(b"x" * PIECE_BYTES)
        (volume / f"{name}, linked").hardlink_to(volume / name)
        (volume / f"{name}, again").hardlink_to(volume / name)
    writer = writer_of(volume)
    blocks = writer.blocks()
    archive = b""
    while writer.counts["files"] < 2:
        archive += next(blocks)
        os.utime(volume / "a")
    # Which comes first is the directory's order.
    [first] = [name for name in ("b", "b, linked", "b, again") if name.encode() + b"\0" in archive]
    (volume / first).unlink()

    archive += b"".join(blocks) + bytes(1024)

    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert sum(member.islnk() for member in opened) == 4


def test_a_terabyte_of_holes_costs_nothing(volume: Path) -> None:
    with (volume / "disk.img").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"x" * 5000)

    archive, writer = archive_of(volume)

    assert len(archive) < 20_000
    assert writer.read_bytes < 20_000


def test_many_holes_are_written_as_fewer(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.archives.sparse._WRITTEN_SEGMENTS", 16)
    with (volume / "holes").open("wb") as file:
        for number in range(200):
            file.seek(number * (64 << 10))
            file.write(b"x" * 4096)
        file.truncate(200 * (64 << 10))

    with (volume / "holes").open("rb") as file:
        segments = segments_of(file.fileno(), 200 * (64 << 10))

    assert len(segments) <= 16
    assert segments[0][0] == 0
    assert sum(segments[-1]) >= 199 * (64 << 10) + 4096


def test_the_order_is_the_same_every_time(volume: Path) -> None:
    for number in range(50):
        (volume / f"{number * 7919 % 50}").mkdir()
        (volume / f"{number * 7919 % 50}" / "f").touch()

    first, _ = archive_of(volume)

    assert names_in(first) == sorted(names_in(first))
    assert archive_of(volume)[0] == first


def test_nothing_of_ours_and_nothing_excluded_is_in_it(volume: Path) -> None:
    for name in (".mathison-data", "lost+found", ".snapshot", "cache", "d/cache", "logs/old", "d/logs/old", "tmp.x"):
        (volume / name).mkdir(parents=True)
        (volume / name / "inside").touch()

    archive, _ = archive_of(volume, exclude=("cache", "logs/*", "*.x/"))

    assert names_in(archive) == ["d", "d/logs", "d/logs/old", "d/logs/old/inside", "logs"]


def test_sockets_fifos_and_devices_are_left_out_and_told(volume: Path) -> None:
    os.mkfifo(volume / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(volume / "socket"))

        archive, writer = archive_of(volume)

    assert names_in(archive) == []
    assert writer.warnings() == ["2 sockets, fifos and devices are not in the archive: 'fifo', 'socket'."]


class Interfering:
    """Lets something happen to a volume when the archive has come so far."""

    def __init__(self, volume: Path, *, after_blocks: int, action: Callable[[], object]) -> None:
        self.writer = writer_of(volume)
        self._after_blocks = after_blocks
        self._action = action

    def archive(self) -> bytes:
        return b"".join(self._pieces()) + bytes(1024)

    def _pieces(self) -> Iterator[bytes]:
        for number, piece in enumerate(self.writer.blocks(), 1):
            yield piece
            if number == self._after_blocks:
                self._action()


def test_a_file_that_shrinks_is_filled_up_and_told(volume: Path) -> None:
    (volume / "a").write_bytes(b"x" * (4 * PIECE_BYTES))
    (volume / "b").write_bytes(b"after it")
    interfering = Interfering(volume, after_blocks=2, action=lambda: os.truncate(volume / "a", 2 * PIECE_BYTES + 10))

    archive = interfering.archive()

    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = opened.extractfile("a")
        assert found is not None
        assert found.read() == (b"x" * (2 * PIECE_BYTES + 10)).ljust(4 * PIECE_BYTES, b"\0")
        assert opened.getmember("b").size == 8
    assert interfering.writer.warnings() == ["1 file changed while it was read: 'a'."]


def test_a_file_that_grows_or_changes_ends_where_it_was_and_is_told(volume: Path) -> None:
    (volume / "a").write_bytes(b"x" * (4 * PIECE_BYTES))

    def grow() -> None:
        with (volume / "a").open("ab") as file:
            file.write(b"more")

    interfering = Interfering(volume, after_blocks=2, action=grow)

    archive = interfering.archive()

    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert opened.getmember("a").size == 4 * PIECE_BYTES
    assert interfering.writer.warnings() == ["1 file changed while it was read: 'a'."]


def test_what_is_deleted_meanwhile_is_told(volume: Path) -> None:
    (volume / "a").write_bytes(b"x" * (3 * PIECE_BYTES))
    (volume / "b").mkdir()
    (volume / "b" / "inside").write_bytes(b"1")
    (volume / "c").write_bytes(b"1")

    def delete() -> None:
        shutil.rmtree(volume / "b")
        (volume / "c").unlink()

    interfering = Interfering(volume, after_blocks=2, action=delete)

    assert names_in(interfering.archive()) == ["a"]
    assert interfering.writer.warnings() == ["2 entries were deleted meanwhile: 'b', 'c'."]


def test_a_file_that_becomes_a_link_is_not_followed(volume: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (volume / "a").write_bytes(b"x" * (3 * PIECE_BYTES))
    (volume / "b").mkdir()
    (volume / "b" / "secret").write_bytes(b"1")

    def exchange() -> None:
        shutil.rmtree(volume / "b")
        (volume / "b").symlink_to(tmp_path)

    interfering = Interfering(volume, after_blocks=2, action=exchange)

    archive = interfering.archive()

    assert b"secret" not in archive.replace(b"b/secret", b"")


def test_deeper_than_an_archive_may_be_is_an_error(volume: Path) -> None:
    deepest = volume.joinpath(*["d"] * MAX_DEPTH)
    deepest.mkdir(parents=True)
    assert len(names_in(archive_of(volume)[0])) == MAX_DEPTH
    (deepest / "one more").mkdir()
    (deepest / "one more" / "file").touch()

    with pytest.raises(SourceUnreadableError, match="deep"):
        archive_of(volume)


def test_the_deepest_tree_is_walked_with_a_descriptor_a_level(volume: Path) -> None:
    volume.joinpath(*["d"] * MAX_DEPTH).mkdir(parents=True)

    with descriptors_left(MAX_DEPTH + 10):
        archive, _ = archive_of(volume)

    assert len(names_in(archive)) == MAX_DEPTH


def test_a_database_is_replaced_by_its_snapshot_and_its_side_files_are_left_out(volume: Path) -> None:
    for name in ("app.db", "app.db-wal", "app.db-shm", "app.db-journal", "notes-wal"):
        (volume / name).write_bytes(DATABASE if name == "app.db" else b"")
    (volume / "notes").write_bytes(b"no database")
    (volume / "app.db-wal").write_bytes(b"changes")
    snapshot = volume.parent / "snapshot"
    snapshot.write_bytes(b"S" * 3000)
    asked = []

    def substitute(path: str, status: os.stat_result) -> Substitute:
        asked.append((path, status.st_size))
        descriptor = os.open(snapshot, os.O_RDONLY)
        return Substitute(descriptor, 3000, lambda: os.close(descriptor))

    archive, writer = archive_of(volume, substitute=substitute)

    assert asked == [("app.db", len(DATABASE))]
    assert names_in(archive) == ["app.db", "notes", "notes-wal"]
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = opened.extractfile("app.db")
        assert found is not None
        assert found.read() == b"S" * 3000
    assert writer.counts["databases"] == 1


def test_a_database_that_is_archived_as_it_is_keeps_its_side_files(volume: Path) -> None:
    (volume / "app.db").write_bytes(DATABASE)
    (volume / "app.db-wal").write_bytes(b"changes")

    archive, _ = archive_of(volume)

    assert names_in(archive) == ["app.db", "app.db-wal"]


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_a_file_that_is_only_named_like_one_of_sqlite_s_is_archived(ending: str, volume: Path) -> None:
    (volume / "daily").touch()
    (volume / f"daily{ending}").write_bytes(b"somebody's own")

    assert names_in(archive_of(volume)[0]) == ["daily", f"daily{ending}"]


def test_the_side_files_of_a_database_s_second_name_are_archived_since_its_snapshot_was_taken_without_them(
    volume: Path,
) -> None:
    (volume / "a.db").write_bytes(DATABASE)
    (volume / "b.db").hardlink_to(volume / "a.db")
    for name in ("a.db-wal", "b.db-wal"):
        (volume / name).write_bytes(b"changes")

    def substitute(path: str, status: os.stat_result) -> Substitute:
        descriptor = os.open(volume / path, os.O_RDONLY)
        return Substitute(descriptor, status.st_size, lambda: os.close(descriptor))

    assert names_in(archive_of(volume, substitute=substitute)[0]) == ["a.db", "b.db", "b.db-wal"]


def test_leaving_early_closes_everything(volume: Path) -> None:
    for number in range(3):
        (volume / f"d{number}").mkdir()
        (volume / f"d{number}" / "file").write_bytes(os.urandom(2 * PIECE_BYTES))
    before = sorted(os.listdir("/proc/self/fd"))
    blocks = writer_of(volume).blocks()
    next(blocks)
    next(blocks)

    blocks.close()

    assert sorted(os.listdir("/proc/self/fd")) == before
    assert sorted(os.listdir(volume.parent)) == ["volume"]


def test_large_files_come_in_pieces_of_a_mebibyte(volume: Path) -> None:
    (volume / "a").write_bytes(os.urandom(5 * PIECE_BYTES + 100))
    for number in range(300):
        (volume / f"small {number}").write_bytes(b"x" * 100)

    sizes = [len(piece) for piece in writer_of(volume).blocks()]

    assert max(sizes) <= PIECE_BYTES
    assert len(sizes) < sum(sizes) / PIECE_BYTES + 4


def test_digests_of_large_files_agree(volume: Path, tmp_path: Path) -> None:
    (volume / "a").write_bytes(os.urandom(5 * PIECE_BYTES + 1))
    archive, _ = archive_of(volume)
    target = tmp_path / "target"
    target.mkdir()

    subprocess.run(["tar", "-x", "-C", target], input=archive, check=True)

    assert digest_of(target / "a") == digest_of(volume / "a")
