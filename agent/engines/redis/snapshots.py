"""Snapshots in files of the agent's own: an upload that waits for its swap, and what the server held before."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from common.errors import NoSpaceError, ToolFailedError
from common.rdb import CRC_BYTES, END_BYTES, EOF_OPCODE, crc64, read_magic
from common.writing import write_all

_LOOK_EVERY_BYTES = 32 << 20


@dataclass(frozen=True)
class Snapshot:
    """A whole RDB in a file.

    Attributes:
        body_bytes, body_crc: of everything before the end mark.
        has_crc: whether a checksum follows the end mark in a file of this version.
    """

    path: Path
    body_bytes: int
    body_crc: int
    has_crc: bool = True

    def ending(self, more: bytes) -> bytes:
        """What has to follow the body, with more of it in between, so that it is a whole RDB again."""
        end = more + bytes([EOF_OPCODE])
        return end + crc64(end, self.body_crc).to_bytes(CRC_BYTES, "little") if self.has_crc else end

    def to_fact(self) -> str:
        """For a record."""
        return f"{self.body_bytes} {self.body_crc} {int(self.has_crc)}"

    @classmethod
    def from_fact(cls, path: Path, fact: object) -> Self | None:
        """None: the record has none, or the file is gone."""
        if not isinstance(fact, str) or not fact or not path.exists():
            return None
        body_bytes, body_crc, has_crc = (int(word) for word in fact.split())
        return cls(path, body_bytes, body_crc, bool(has_crc))


class Spool:
    """A new file that is being written, as long as there is room."""

    def __init__(self, path: Path, *, free_bytes: int) -> None:
        """
        Args:
            free_bytes: what has to stay free on its disk.
        """
        self.path = path
        self.size_bytes = 0
        self._free_bytes = free_bytes
        self._looked_at_bytes = -_LOOK_EVERY_BYTES
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    async def add(self, chunk: bytes) -> None:
        """
        Raises:
            NoSpaceError: the disk is too full; the file stays as far as it is.
        """
        if self.size_bytes - self._looked_at_bytes >= _LOOK_EVERY_BYTES:
            self._looked_at_bytes = self.size_bytes
            self._require_room()
        try:
            await asyncio.to_thread(write_all, self._file.fileno(), chunk)
        except OSError as failure:
            if failure.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise self._full() from failure
        self.size_bytes += len(chunk)

    async def sync(self) -> None:
        """Make it durable."""
        await asyncio.to_thread(os.fsync, self._file.fileno())

    def _require_room(self) -> None:
        found = os.statvfs(self.path)
        if found.f_bavail * found.f_frsize < self._free_bytes:
            raise self._full()

    def _full(self) -> NoSpaceError:
        return NoSpaceError(
            f"There is no room on the agent's disk: {self.path.parent} has to keep {self._free_bytes >> 20} MiB free. "
            "Nothing was changed.",
            next_step="Make room there, then try again.",
        )


class BodyReader:
    """Notes what `Snapshot` has to know of an RDB while it passes by, and whether its checksum holds."""

    def __init__(self) -> None:
        self._held = b""
        self._crc = 0
        self._size_bytes = 0
        self._has_crc: bool | None = None

    def add(self, chunk: bytes) -> None:
        """The next bytes; the first ones have to hold the magic."""
        if self._has_crc is None:
            header = read_magic(self._held + chunk)
            if header is None:
                raise ToolFailedError("The server sent something else than a snapshot.")
            self._has_crc = header.has_crc
        together = self._held + chunk
        done = max(0, len(together) - END_BYTES)
        self._crc = crc64(memoryview(together)[:done], self._crc)
        self._size_bytes += done
        self._held = together[done:]

    def finish(self, path: Path) -> Snapshot:
        """All of it was there.

        Raises:
            ToolFailedError: it does not end as an RDB does.
        """
        expected = int.from_bytes(self._held[1:], "little")
        is_whole = len(self._held) == END_BYTES and self._held[0] == EOF_OPCODE
        if not is_whole or not self._has_crc or expected not in (0, crc64(self._held[:1], self._crc)):
            raise ToolFailedError("The server's snapshot does not end as one: its checksum is wrong.")
        return Snapshot(path, self._size_bytes, self._crc)
