"""A snapshot as a tar, laid out as a drive, counted and fingerprinted while it is read. Runs in a worker thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

from agent.archives import tarblocks as tar
from agent.archives.found_members import member_of
from agent.archives.members import Kind, Member
from agent.archives.walking import Found, storage_failed, walk
from agent.engines.minio.drive import tiers
from agent.engines.minio.drive.layout import SEALED_MAGIC
from agent.engines.minio.trees.census import Census, is_meta, read_meta
from agent.engines.minio.trees.tally import Tally
from common.wording import counted

PIECE_BYTES = 256 << 10
"""As in `agent.archives.writing`."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class DriveWriter:
    """Reads a snapshot into an archive.

    Attributes:
        files, read_bytes: so far.
    """

    def __init__(self, directory: Path) -> None:
        self.files = 0
        self.read_bytes = 0
        self._directory = directory
        self._tally: Tally | None = None

    @property
    def tally(self) -> Tally:
        """What the archive holds; when `blocks` has ended."""
        if self._tally is None:
            raise RuntimeError("the archive is not written yet")
        return self._tally

    def blocks(self) -> Generator[bytes, None, None]:
        """The archive in pieces of up to PIECE_BYTES, without its end; whole blocks in sum.

        Raises:
            SourceUnreadableError: something cannot be read.
        """
        held: list[bytes] = []
        size = 0
        for part in self._parts():
            if size + len(part) > PIECE_BYTES and held:
                yield b"".join(held)
                held, size = [], 0
            held.append(part)
            size += len(part)
        if held:
            yield b"".join(held)

    def _parts(self) -> Iterator[bytes]:
        root = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            census = Census(root)
            for found in walk(root):
                try:
                    yield from self._entry(found, census)
                except OSError as failure:
                    raise storage_failed(found.path, failure) from failure
            self._tally = census.finish()
        finally:
            os.close(root)

    def _entry(self, found: Found, census: Census) -> Iterator[bytes]:
        if found.is_directory:
            census.meet(found)
            yield tar.header_of(member_of(found, Kind.DIRECTORY))
            return
        if not stat.S_ISREG(found.status.st_mode):
            return
        self.files += 1
        member = member_of(found, Kind.FILE)
        if is_meta(found):
            content = read_meta(found)
            if content.startswith(SEALED_MAGIC):
                census.add_sealed(found.path)
            else:
                census.add(found, content)
        elif found.status.st_size <= PIECE_BYTES:
            content = _read(found)
        else:
            yield from self._large(found, member)
            return
        self.read_bytes += len(content)
        yield tar.header_of(member, stored_bytes=len(content))
        yield content
        yield tar.padding(len(content))

    def _large(self, found: Found, member: Member) -> Iterator[bytes]:
        size = found.status.st_size
        yield tar.header_of(member, stored_bytes=size)
        descriptor = os.open(found.name, _FILE, dir_fd=found.parent)
        try:
            left = size
            while left:
                piece = os.read(descriptor, min(left, PIECE_BYTES))
                if not piece:
                    raise OSError(0, "it has become shorter")
                left -= len(piece)
                self.read_bytes += len(piece)
                yield piece
        finally:
            os.close(descriptor)
        yield tar.padding(size)


def warnings_of(tally: Tally) -> list[str]:
    """What a person should know of an archive."""
    found = tiers.about(tally.tiered)
    if tally.damaged:
        names = ", ".join(tally.damaged_names)
        found.append(f"{tally.damaged} versions were damaged on the drive already and cannot be read: {names}.")
    if nested := tally.total("nested"):
        told = counted(nested, "objects lie", "object lies")
        found.append(f"{told} below other objects: they are in the archive, and no listing shows them.")
    if tally.customer_encrypted:
        found.append(f"{tally.customer_encrypted} versions are encrypted with keys that only their owners have.")
    return found


def about_own(tally: Tally) -> list[str]:
    """The same of the server's own files, from a count that proves them."""
    names = [*tally.damaged_config, *tally.damaged_settings]
    if not names:
        return []
    return [
        f"Damaged on the drive already: {', '.join(names)}. An import refuses them, and MinIO itself may not read them "
        "when it starts again. Set anew on the source what they hold, and export again."
    ]


def _read(found: Found) -> bytes:
    descriptor = os.open(found.name, _FILE, dir_fd=found.parent)
    with open(descriptor, "rb", buffering=0) as file:
        return file.readall()
