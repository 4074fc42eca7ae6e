"""What is put on disk for a while leaves nothing behind, and stops before the disk is full."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.engines.pg.loading.spool import LOOK_EVERY_BYTES, Room, dump_directory, new_file, spooled, write_all
from common.errors import NoSpaceError

FREE = 1 << 20


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_a_spooled_stream_has_no_name_and_cannot_be_written(tmp_path: Path) -> None:
    async with spooled(stream(b"one ", b"two"), Room(tmp_path, free_bytes=FREE), tmp_path) as file:
        content = os.read(file, 100)

        assert content == b"one two"
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(file, b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


async def test_where_files_need_a_name_it_is_taken_away_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def old_file_system(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", old_file_system)

    async with spooled(stream(b"one"), Room(tmp_path, free_bytes=FREE), tmp_path) as file:
        assert os.read(file, 100) == b"one"
        assert list(tmp_path.iterdir()) == []


async def test_a_stream_that_breaks_leaves_no_descriptor(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise ConnectionError

    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(ConnectionError):
        async with spooled(broken(), Room(tmp_path, free_bytes=FREE), tmp_path):
            raise AssertionError

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_is_open_to_readers_and_gone_afterwards(tmp_path: Path) -> None:
    with dump_directory(tmp_path) as directory:
        file = new_file(directory, "toc.dat")
        write_all(file, b"x", Room(tmp_path, free_bytes=FREE))
        os.close(file)
        (path,) = tmp_path.iterdir()

        assert (path.stat().st_mode & 0o777, (path / "toc.dat").stat().st_mode & 0o777) == (0o755, 0o644)
        with pytest.raises(FileExistsError):
            new_file(directory, "toc.dat")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_a_link_already_is_not_followed(tmp_path: Path) -> None:
    with dump_directory(tmp_path) as directory:
        os.symlink("/tmp/elsewhere", "toc.dat", dir_fd=directory)

        with pytest.raises(FileExistsError):
            new_file(directory, "toc.dat")


def test_room_is_looked_at_before_and_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [FREE + LOOK_EVERY_BYTES]
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=left[0], f_frsize=1))
    room = Room(tmp_path, free_bytes=FREE)

    room.take(LOOK_EVERY_BYTES)
    left[0] = FREE
    room.take(LOOK_EVERY_BYTES - 1)
    with pytest.raises(NoSpaceError):
        room.take(1)
    left[0] = FREE - 1
    with pytest.raises(NoSpaceError):
        Room(tmp_path, free_bytes=FREE)


def test_a_full_disk_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _content: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    with pytest.raises(NoSpaceError, match="no room in the agent's work directory"):
        write_all(1, b"x", Room(tmp_path, free_bytes=FREE))
