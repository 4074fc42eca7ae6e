"""A directory as a stream of tar blocks, while whoever owns it goes on writing to it.

Runs in a worker thread. The one fact to know: a file's size stands in the header before its first byte, so a file that
shrinks while it is read is filled up with zeros and counted as changed, and one that grows ends where it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.archives import tarblocks as tar
from agent.archives.contents import ContentSum
from agent.archives.found_members import member_of
from agent.archives.hard_links import HardLinks
from agent.archives.members import (
    RESTORED_ATTRIBUTES,
    SQLITE_MAGIC,
    SQLITE_SIDECARS,
    Kind,
    Member,
)
from agent.archives.sparse import map_text, segments_of
from agent.archives.tallies import Tally
from agent.archives.walking import Found, Unreadable, storage_failed, walk

PIECE_BYTES = 256 << 10
"""Read, hashed and compressed at a time: as fast as a mebibyte, and a compressor's own buffers grow with it."""
_MAX_ATTRIBUTE_BYTES = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NONE: Mapping[str, bytes] = {}


@dataclass(frozen=True)
class Substitute:
    """What is archived in place of a file.

    Attributes:
        descriptor: to read from; its file has `size` bytes.
        close: called when it was read.
    """

    descriptor: int
    size: int
    close: Callable[[], None]


Substitution = Callable[[str, os.stat_result], Substitute | None]
"""Asked about every SQLite database, with its path below the directory; None: archive the file itself. May block."""


class TreeWriter:
    """Reads a directory into an archive.

    Attributes:
        counts: entries and bytes so far, by name.
        read_bytes: bytes of content so far, holes not counted.
    """

    def __init__(
        self,
        directory: Path,
        *,
        work_directory: Path,
        substitute: Substitution,
        is_left_out: Callable[[str, str], bool],
        content: ContentSum | None = None,
        warns_of_link: Callable[[str, str], bool] = lambda path, target: False,
    ) -> None:
        """
        Args:
            content: told everything that goes into the archive.
            warns_of_link: whether an import may refuse a symbolic link, by its path and target.
        """
        self.counts = dict.fromkeys(("files", "directories", "symlinks", "hard_links", "databases", "bytes"), 0)
        self.read_bytes = 0
        self._directory = directory
        self._substitute = substitute
        self._is_left_out = is_left_out
        self._content_sum = content
        self._links = HardLinks(directory, work_directory)
        self._changed, self._vanished, self._special = Tally(), Tally(), Tally()
        self._attributes_left_out, self._outside_links = Tally(), Tally()
        self._warns_of_link = warns_of_link
        self._copied_databases: set[str] = set()
        self._snapshots: set[str] = set()

    def warnings(self) -> list[str]:
        """What a person should know of the archive; complete once `blocks` has ended."""
        return [
            *self._changed.sentence("{} file changed while it was read", "{} files changed while they were read"),
            *self._vanished.sentence("{} entry was deleted meanwhile", "{} entries were deleted meanwhile"),
            *self._special.sentence(
                "{} socket, fifo or device is not in the archive",
                "{} sockets, fifos and devices are not in the archive",
            ),
            *self._attributes_left_out.sentence(
                "{} file has more extended attributes than are archived",
                "{} files have more extended attributes than are archived",
            ),
            *self._outside_links.sentence(
                "{} symbolic link leads out; only an app that has the same one takes the archive",
                "{} symbolic links lead out; only an app that has the same ones takes the archive",
            ),
        ]

    def blocks(self) -> Generator[bytes, None, None]:
        """The archive in pieces of up to PIECE_BYTES, without its end; whole blocks in sum.

        Raises:
            SourceUnreadableError: something may not or cannot be read.
        """
        held: list[bytes] = []
        size = 0
        with contextlib.closing(self._links):
            for part in self._parts():
                if size + len(part) > PIECE_BYTES and held:
                    yield b"".join(held)
                    held, size = [], 0
                held.append(part)
                size += len(part)
        if self._content_sum is not None:
            self._content_sum.end()
        if held:
            yield b"".join(held)

    def _parts(self) -> Iterator[bytes]:
        unreadable = Unreadable()
        start = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            entries = walk(
                start,
                is_left_out=self._is_left_out,
                on_vanished=self._note_vanished,
                on_unreadable=unreadable.add,
            )
            for found in entries:
                try:
                    yield from self._entry(found)
                except FileNotFoundError:
                    self._note_vanished(found.path)
                except PermissionError:
                    unreadable.add(found.path)
                except OSError as failure:
                    raise storage_failed(found.path, failure) from failure
                unreadable.raise_if_any()
            unreadable.raise_if_any()
        finally:
            os.close(start)

    def _note_vanished(self, path: str) -> None:
        # SQLite itself removes what an app that was killed has left beside a database, when a snapshot is taken.
        if not (path.endswith(SQLITE_SIDECARS) and path.rpartition("-")[0] in self._snapshots):
            self._vanished.add(path)

    def _entry(self, found: Found) -> Iterator[bytes]:
        mode = found.status.st_mode
        if found.is_directory:
            self.counts["directories"] += 1
            member = member_of(found, Kind.DIRECTORY)
            member.attributes = self._attributes(found.descriptor, found.path)
            yield self._header_of(member)
        elif stat.S_ISREG(mode):
            if found.name.endswith(SQLITE_SIDECARS) and self._is_sidecar(found):
                return
            yield from self._linked(found, Kind.FILE)
        elif stat.S_ISLNK(mode):
            yield from self._linked(found, Kind.SYMLINK)
        else:
            self._special.add(found.path)

    def _linked(self, found: Found, kind: Kind) -> Iterator[bytes]:
        first = self._links.first_path(found) if found.status.st_nlink > 1 else None
        if first is not None:
            self.counts["hard_links"] += 1
            member = member_of(found, Kind.HARD_LINK)
            member.link_target = first
            yield self._header_of(member)
        elif kind is Kind.SYMLINK:
            self.counts["symlinks"] += 1
            member = member_of(found, kind)
            member.link_target = os.readlink(found.name, dir_fd=found.parent)
            if self._warns_of_link(found.path, member.link_target):
                self._outside_links.add(found.path)
            yield self._header_of(member)
        else:
            yield from self._file(found)
        if found.status.st_nlink > 1 and first is None:
            self._links.remember(found)

    def _file(self, found: Found) -> Iterator[bytes]:
        try:
            descriptor = os.open(found.name, _FILE, dir_fd=found.parent)
        except OSError as failure:
            if failure.errno in (errno.ELOOP, errno.ENXIO):
                # It became a link or a socket since it was listed.
                raise FileNotFoundError from failure
            raise
        try:
            found.status = os.fstat(descriptor)
            if not stat.S_ISREG(found.status.st_mode):
                raise FileNotFoundError
            member = member_of(found, Kind.FILE)
            member.attributes = self._attributes(descriptor, found.path)
            member.size = found.status.st_size
            head = os.read(descriptor, min(member.size, PIECE_BYTES)) if member.size else b""
            self.counts["files"] += 1
            if head.startswith(SQLITE_MAGIC):
                yield from self._database(found, member, descriptor, head)
            elif found.status.st_blocks * 512 < member.size:
                yield from self._sparse(found, member, descriptor, head)
            else:
                yield self._header_of(member, stored_bytes=member.size)
                yield from self._content(found, member, descriptor, head)
        finally:
            os.close(descriptor)

    def _database(self, found: Found, member: Member, descriptor: int, head: bytes) -> Iterator[bytes]:
        substitute = self._substitute(found.path, found.status)
        if substitute is None:
            self._copied_databases.add(found.path)
            yield self._header_of(member, stored_bytes=member.size)
            yield from self._content(found, member, descriptor, head)
            return
        try:
            self.counts["databases"] += 1
            self._snapshots.add(found.path)
            member.size = substitute.size
            yield self._header_of(member, stored_bytes=member.size)
            yield from self._padded(substitute.descriptor, offset=0, size=member.size)
            yield tar.padding(member.size)
        finally:
            substitute.close()

    def _sparse(self, found: Found, member: Member, descriptor: int, head: bytes) -> Iterator[bytes]:
        segments = segments_of(descriptor, member.size)
        if segments == [(0, member.size)]:
            # Fewer blocks than bytes, and no hole: a filesystem that compresses.
            yield self._header_of(member, stored_bytes=member.size)
            os.lseek(descriptor, len(head), os.SEEK_SET)
            yield from self._content(found, member, descriptor, head)
            return
        start = map_text(segments, member.size)
        stored_bytes = len(start) + sum(length for _, length in segments)
        records = {
            "GNU.sparse.major": b"1",
            "GNU.sparse.minor": b"0",
            "GNU.sparse.name": member.name.encode(errors="surrogateescape"),
            "GNU.sparse.realsize": b"%d" % member.size,
        }
        directory, _, name = member.name.rpartition("/")
        stored_name = f"{directory}/GNUSparseFile.0/{name}" if directory else f"GNUSparseFile.0/{name}"
        yield self._header_of(member, name=stored_name, stored_bytes=stored_bytes, extra=records)
        yield start
        for offset, length in segments:
            yield from self._padded(descriptor, offset=offset, size=length)
        yield tar.padding(stored_bytes)
        self._note_change(found, descriptor)

    def _content(self, found: Found, member: Member, descriptor: int, head: bytes) -> Iterator[bytes]:
        """All of a file whose beginning was read already."""
        self._count(len(head))
        self._sum(0, head)
        yield head
        if len(head) < member.size:
            yield from self._padded(descriptor, offset=len(head), size=member.size - len(head))
            self._note_change(found, descriptor)
        yield tar.padding(member.size)

    def _padded(self, descriptor: int, *, offset: int, size: int) -> Iterator[bytes]:
        """`size` bytes from `offset` on, zeros where the file has no more."""
        end = offset + size
        while offset < end and (piece := os.pread(descriptor, min(end - offset, PIECE_BYTES), offset)):
            self._count(len(piece))
            self._sum(offset, piece)
            yield piece
            offset += len(piece)
        while offset < end:
            piece = bytes(min(end - offset, PIECE_BYTES))
            yield piece
            offset += len(piece)

    def _note_change(self, found: Found, descriptor: int) -> None:
        now, before = os.fstat(descriptor), found.status
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            self._changed.add(found.path)

    def _header_of(
        self,
        member: Member,
        *,
        name: str | None = None,
        stored_bytes: int = 0,
        extra: Mapping[str, bytes] = _NONE,
    ) -> bytes:
        if self._content_sum is not None:
            self._content_sum.end()
            self._content_sum.begin(member)
        return tar.header_of(member, name=name, stored_bytes=stored_bytes, extra=extra)

    def _sum(self, offset: int, piece: bytes) -> None:
        if self._content_sum is not None:
            self._content_sum.add(offset, piece)

    def _count(self, size: int) -> None:
        self.counts["bytes"] += size
        self.read_bytes += size

    def _attributes(self, descriptor: int, path: str) -> dict[str, bytes]:
        try:
            names = os.listxattr(descriptor)
        except OSError:
            return {}
        attributes: dict[str, bytes] = {}
        size = 0
        for name in names:
            if name.startswith(RESTORED_ATTRIBUTES):
                with contextlib.suppress(OSError):
                    value = os.getxattr(descriptor, name)
                    size += len(name) + len(value)
                    if size > _MAX_ATTRIBUTE_BYTES:
                        self._attributes_left_out.add(path)
                        break
                    attributes[name] = value
        return attributes

    def _is_sidecar(self, found: Found) -> bool:
        """Whether it belongs to a SQLite database whose snapshot holds what it says."""
        name, path = found.name.rpartition("-")[0], found.path.rpartition("-")[0]
        if path in self._snapshots or path in self._copied_databases:
            return path in self._snapshots
        # Its turn is yet to come, in a huge directory; or it is in the archive under another name, read without this.
        try:
            descriptor = os.open(name, _FILE, dir_fd=found.parent)
        except OSError:
            return False
        try:
            status = os.fstat(descriptor)
            is_database = stat.S_ISREG(status.st_mode) and os.pread(descriptor, len(SQLITE_MAGIC), 0) == SQLITE_MAGIC
            return is_database and status.st_nlink == 1
        finally:
            os.close(descriptor)
