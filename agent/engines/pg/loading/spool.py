"""Uploads that have to lie on disk before they can be read: archives that pg_restore reads in its own order.

What lies here has no name in the file system where that is possible, so that a killed agent leaves nothing behind.
Parsers run as another user and cannot look into our directory: they inherit a descriptor.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from common.errors import NoSpaceError

PREFIX = "pg-load-"
LOOK_EVERY_BYTES = 32 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Room:
    """Free space of a directory's file system, looked at now and then while something is written there."""

    def __init__(self, directory: Path, *, free_bytes: int) -> None:
        """
        Args:
            free_bytes: what has to stay free.
        Raises:
            NoSpaceError: it is not.
        """
        self._directory = directory
        self._free_bytes = free_bytes
        self._unchecked_bytes = 0
        self._check()

    def take(self, size_bytes: int) -> None:
        """That much is about to be written; NoSpaceError when it would be too much."""
        self._unchecked_bytes += size_bytes
        if self._unchecked_bytes >= LOOK_EVERY_BYTES:
            self._check()

    def _check(self) -> None:
        status = os.statvfs(self._directory)
        if status.f_bavail * status.f_frsize - self._unchecked_bytes < self._free_bytes:
            raise self.error()
        self._unchecked_bytes = 0

    def error(self) -> NoSpaceError:
        return NoSpaceError(
            f"There is no room in the agent's work directory for the upload: {self._free_bytes >> 20} MiB have to stay "
            "free.",
            next_step="Make room, or upload the dump as SQL text or in custom format, which need none.",
        )


def sweep(directory: Path) -> None:
    """Remove what an agent that was killed has left."""
    for left in directory.glob(f"{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


@asynccontextmanager
async def spooled(chunks: AsyncIterable[bytes], room: Room, directory: Path) -> AsyncIterator[int]:
    """All chunks in a file without a name; the descriptor is read-only and stands at the beginning.

    Raises:
        NoSpaceError: before or while writing.
    """
    writing = _nameless_file(directory)
    try:
        async for chunk in chunks:
            await asyncio.to_thread(write_all, writing, chunk, room)
        # Opened anew, so that whoever inherits it cannot write.
        reading = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


@contextmanager
def dump_directory(directory: Path) -> Iterator[int]:
    """An empty directory that other users may read through its descriptor; gone afterwards, with what is in it."""
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
    try:
        path.chmod(0o755)
        descriptor = os.open(path, _DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def new_file(directory: int, name: str) -> int:
    """A new file in a directory for writing; FileExistsError."""
    descriptor = os.open(name, _NEW_FILE, 0o644, dir_fd=directory)
    os.fchmod(descriptor, 0o644)
    return descriptor


def write_all(descriptor: int, chunk: bytes, room: Room) -> None:
    """Blocking; NoSpaceError."""
    room.take(len(chunk))
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise room.error() from failure
        raise


def _nameless_file(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        # Not every file system has it (EOPNOTSUPP; EISDIR from old kernels).
        if failure.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
    descriptor, name = tempfile.mkstemp(prefix=PREFIX, dir=directory)
    os.unlink(name)
    return descriptor
