"""Entries of an untrusted archive put into an empty directory, and nowhere else.

Every directory on the way is opened below the one before without following links, every file is created new, and links
are data that is never followed. So names decide nothing about where bytes go, whatever the archive holds.

Ownership, modes and times of directories come last: what is put into a directory later would change its time, and a
directory that may not be written could not be filled.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from agent.archives.links import leads_out
from agent.archives.members import (
    KEPT_NAMES,
    RESTORED_ATTRIBUTES,
    SQLITE_MAGIC,
    Kind,
    Member,
    is_of_macos,
    path_of,
    printable,
)
from agent.archives.opened_path import OpenedPath
from agent.archives.tallies import Tally
from common.errors import (
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    LimitExceededError,
    NoSpaceError,
    ServiceError,
    ToolFailedError,
)
from common.writing import write_all_at

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_MODE = 0o777
_DIRECTORY_MODE = 0o3777
"""setgid of a directory hands its group on to new files, which Kubernetes relies on (fsGroup); setuid never."""
_ROOM_CHECKED_EVERY_BYTES = 1 << 20
_ROOM_CHECKED_EVERY_ENTRIES = 1000
_ZEROS = bytes(1 << 20)
_LISTED = 200
_LISTED_PATH_CHARACTERS = 4096
_OWNERS_LISTED = 32


@dataclass(frozen=True)
class ExtractionLimits:
    """What extraction may take; see `agent.recipes.base.Limits`."""

    content_bytes: int
    entries: int
    free_bytes: int


@dataclass
class Extracted:
    """What an archive turned out to hold.

    Attributes:
        databases: paths of SQLite databases, the first of them only.
        outside_links: (path, target) of symbolic links whose target is not below the directory, the first only. Of a
            link that is moved afterwards that says nothing.
        owners: numeric "uid:gid" met, the first only.
        of_macos: what macOS adds to archives for itself.
    """

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    hard_links: int = 0
    bytes: int = 0
    databases: int = 0
    database_paths: list[str] = field(default_factory=list)
    outside_links: int = 0
    outside_link_paths: list[tuple[str, str]] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    owner_differs: int = 0
    rights_dropped: int = 0
    attributes_dropped: int = 0
    left_out: int = 0
    of_macos: Tally = field(default_factory=Tally)

    @property
    def entries(self) -> int:
        """All that was put into the directory."""
        return self.files + self.directories + self.symlinks + self.hard_links


class Extraction:
    """Fills one directory. Calls in order: any number of `add`, one `finish`; `close` whatever happened.

    Attributes:
        result: what was added so far.
    """

    def __init__(
        self,
        root: int,
        *,
        limits: ExtractionLimits,
        later: BinaryIO,
        owner: tuple[int, int] | None,
        default_owner: tuple[int, int],
        inside: str,
    ) -> None:
        """
        Args:
            root: descriptor of an empty directory.
            later: an empty file for what is to be done to directories at the end.
            owner: uid and gid for everything; None: as the archive says.
            default_owner: for directories that the archive has no entry for.
            inside: absolute path under which the app sees the directory: absolute links below it are inside.
        """
        self.result = Extracted()
        self._limits = limits
        self._later = later
        self._owner = owner
        self._default_owner = default_owner
        self._inside = inside
        self._opened = OpenedPath(root, self._make_directory)
        self._root = root
        self._seen = 0
        self._unchecked_bytes = _ROOM_CHECKED_EVERY_BYTES
        self._redefined: list[tuple[int, bytes]] = []

    def add(self, member: Member, pieces: Iterable[tuple[int, bytes]]) -> bool:
        """Create an entry; False for one that is left out, since it is not the app's.

        Raises:
            ArchiveRefusedError: its name or link leads where it must not, or was there before.
            LimitExceededError, NoSpaceError: it would be too much.
        """
        self._seen += 1
        if self._seen > self._limits.entries:
            raise LimitExceededError(f"The archive holds more than the limit of {self._limits.entries} entries.")
        if self._seen % _ROOM_CHECKED_EVERY_ENTRIES == 0:
            self.require_room(0)
        path = path_of(member.name)
        if not path and member.kind is Kind.DIRECTORY:
            # The volume's own directory belongs to the platform.
            return False
        if not path:
            raise ArchiveRefusedError(f"The archive has the volume itself as a {member.kind.value}.")
        if path[0] in KEPT_NAMES:
            self.result.left_out += 1
            return False
        self._note_owner(member)
        if any(map(is_of_macos, path)):
            self.result.of_macos.add(member.name)
        try:
            parent = self._opened.directory(path[:-1])
            match member.kind:
                case Kind.DIRECTORY:
                    self._add_directory(member, path, parent)
                case Kind.FILE:
                    self._add_file(member, path[-1], parent, pieces)
                case Kind.SYMLINK:
                    self._add_symlink(member, path, parent)
                case Kind.HARD_LINK:
                    self._add_hard_link(member, path, parent)
        except FileExistsError as failure:
            raise ArchiveRefusedError(f"The archive holds {printable(member.name)} twice.") from failure
        except OSError as failure:
            raise _explained(failure, member.name) from failure
        return True

    def finish(self) -> None:
        """Give directories their modes and times, the deepest first."""
        for record in self._backwards():
            self._finish_directory(record)
        for _, record in sorted(self._redefined, key=lambda entry: -entry[0]):
            self._finish_directory(record)

    def close(self) -> None:
        """Close what is open of the directory."""
        self._opened.close()

    def _add_directory(self, member: Member, path: tuple[str, ...], parent: int) -> None:
        is_new = True
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            # Made for what is in it, or named before: the last entry about a directory holds.
            is_new = False
        self._opened.directory(path)
        if is_new:
            self.result.directories += 1
        record = _to_record(member, path)
        if is_new:
            self._later.write(record + len(record).to_bytes(4, "little"))
        else:
            self._redefined.append((len(path), record))

    def _make_directory(self, name: str, parent: int) -> None:
        """A directory that something lies in before, or without, an entry of its own."""
        os.mkdir(name, 0o755, dir_fd=parent)
        self.result.directories += 1
        self._chown(name, self._owner or self._default_owner, parent)

    def _add_file(self, member: Member, name: str, parent: int, pieces: Iterable[tuple[int, bytes]]) -> None:
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            is_first = True
            written_to = 0
            for offset, piece in pieces:
                if is_first and offset == 0 and piece.startswith(SQLITE_MAGIC):
                    self._note_database(member.name)
                is_first = False
                self._count(len(piece))
                if piece[0] or piece[-1] or piece != _ZEROS[: len(piece)]:
                    write_all_at(descriptor, piece, offset)
                    written_to = offset + len(piece)
            if written_to < member.size:
                # Zeros became a hole.
                os.ftruncate(descriptor, member.size)
            self._settle(descriptor, member, mode=member.mode & _FILE_MODE)
        finally:
            os.close(descriptor)
        self.result.files += 1
        self.result.rights_dropped += bool(member.mode & (stat.S_ISUID | stat.S_ISGID))

    def _add_symlink(self, member: Member, path: tuple[str, ...], parent: int) -> None:
        target = member.link_target
        if not target or "\0" in target:
            raise ArchiveRefusedError(f"The symbolic link {printable(member.name)} has no usable target.")
        self._note_target(path, target)
        os.symlink(target, path[-1], dir_fd=parent)
        self._chown(path[-1], self._owner_of(member), parent)
        os.utime(path[-1], ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent, follow_symlinks=False)
        self.result.symlinks += 1

    def _add_hard_link(self, member: Member, path: tuple[str, ...], parent: int) -> None:
        target = path_of(member.link_target)
        if not target:
            raise ArchiveRefusedError(f"The hard link {printable(member.name)} has no usable target.")
        # Opening the target's directory may close the parent, so a copy of it is used.
        own_parent = os.dup(parent)
        try:
            target_parent = self._opened.directory(target[:-1], create=False)
            status = os.stat(target[-1], dir_fd=target_parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                raise ArchiveRefusedError(f"The hard link {printable(member.name)} is of a directory.")
            if stat.S_ISLNK(status.st_mode):
                # The same link in another place points somewhere else.
                self._note_target(path, os.readlink(target[-1], dir_fd=target_parent))
            os.link(target[-1], path[-1], src_dir_fd=target_parent, dst_dir_fd=own_parent, follow_symlinks=False)
        except FileNotFoundError as failure:
            raise ArchiveRefusedError(
                f"The hard link {printable(member.name)} is of {printable(member.link_target)}, "
                "which is not before it in the archive."
            ) from failure
        finally:
            os.close(own_parent)
        self.result.hard_links += 1

    def _note_target(self, path: tuple[str, ...], target: str) -> None:
        if leads_out(path, target, inside=self._inside):
            self.result.outside_links += 1
            name = "/".join(path)
            if len(self.result.outside_link_paths) < _LISTED and len(name) <= _LISTED_PATH_CHARACTERS:
                self.result.outside_link_paths.append((name, target))

    def _settle(self, descriptor: int, member: Member, *, mode: int) -> None:
        """Owner, attributes, mode, time; in this order, since each of them may undo a later one."""
        self._chown(descriptor, self._owner_of(member))
        for name, value in member.attributes.items():
            self._set_attribute(descriptor, name, value)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))

    def _set_attribute(self, descriptor: int, name: str, value: bytes) -> None:
        if not name.startswith(RESTORED_ATTRIBUTES) or "\0" in name:
            self.result.attributes_dropped += 1
            return
        try:
            os.setxattr(descriptor, name, value)
        except OSError as failure:
            if failure.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.E2BIG, errno.ERANGE):
                raise
            self.result.attributes_dropped += 1

    def _owner_of(self, member: Member) -> tuple[int, int]:
        return self._owner or (member.uid, member.gid)

    def _chown(self, what: int | str, owner: tuple[int, int], parent: int | None = None) -> None:
        for uid, gid in (owner, (-1, owner[1])):
            try:
                if isinstance(what, int):
                    os.chown(what, uid, gid)
                else:
                    os.chown(what, uid, gid, dir_fd=parent, follow_symlinks=False)
            except OSError as failure:
                # EINVAL: a user namespace without that id.
                if failure.errno not in (errno.EPERM, errno.EINVAL):
                    raise
            else:
                self.result.owner_differs += uid == -1
                return
        self.result.owner_differs += 1

    def _note_owner(self, member: Member) -> None:
        owner = f"{member.uid}:{member.gid}"
        if len(self.result.owners) < _OWNERS_LISTED and owner not in self.result.owners:
            self.result.owners.append(owner)

    def _note_database(self, name: str) -> None:
        self.result.databases += 1
        path = "/".join(path_of(name))
        if len(self.result.database_paths) < _LISTED and len(path) <= _LISTED_PATH_CHARACTERS:
            self.result.database_paths.append(path)

    def _count(self, size: int) -> None:
        self.result.bytes += size
        if self.result.bytes > self._limits.content_bytes:
            raise LimitExceededError(f"The archive holds more than the limit of {self._limits.content_bytes} bytes.")
        self._unchecked_bytes += size
        if self._unchecked_bytes >= _ROOM_CHECKED_EVERY_BYTES:
            self.require_room(0)

    def require_room(self, needed_bytes: int) -> None:
        """NoSpaceError unless so much can be written and the limit's room is still left."""
        self._unchecked_bytes = 0
        status = os.fstatvfs(self._root)
        room = status.f_bavail * status.f_frsize - self._limits.free_bytes
        if room < needed_bytes or (status.f_files and not status.f_favail):
            raise NoSpaceError(
                f"The volume has no room for the archive beside the present data: less than "
                f"{self._limits.free_bytes} bytes would be left.",
                next_step="Make room on the volume or give it more, then send the file again.",
            )

    def _finish_directory(self, record: bytes) -> None:
        member, path = _from_record(record)
        try:
            descriptor = self._opened.directory(path, create=False)
            self._settle(descriptor, member, mode=member.mode & _DIRECTORY_MODE)
            self.result.rights_dropped += bool(member.mode & stat.S_ISUID)
        except OSError as failure:
            raise _explained(failure, member.name) from failure

    def _backwards(self) -> Iterator[bytes]:
        """The records in reverse: a directory is announced before those in it, so the deepest come first."""
        end = self._later.tell()
        while end:
            self._later.seek(end - 4)
            start = end - 4 - int.from_bytes(self._later.read(4), "little")
            self._later.seek(start)
            yield self._later.read(end - 4 - start)
            end = start


def _to_record(member: Member, path: tuple[str, ...]) -> bytes:
    attributes = {name: value.decode("latin-1") for name, value in member.attributes.items()}
    return json.dumps([path, member.mode, member.uid, member.gid, member.mtime_ns, attributes]).encode()


def _from_record(record: bytes) -> tuple[Member, tuple[str, ...]]:
    path, mode, uid, gid, mtime_ns, attributes = json.loads(record)
    member = Member("/".join(path), Kind.DIRECTORY, mode=mode, uid=uid, gid=gid, mtime_ns=mtime_ns)
    member.attributes = {name: value.encode("latin-1") for name, value in attributes.items()}
    return member, tuple(path)


def _explained(failure: OSError, name: str) -> ServiceError:
    match failure.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return NoSpaceError(
                "The volume has no room for the archive beside the present data.",
                next_step="Make room on the volume or give it more, then send the file again.",
            )
        case errno.EFBIG:
            return LimitExceededError(f"The archive holds a file larger than an import may write: {printable(name)}.")
        case errno.ENAMETOOLONG | errno.EILSEQ | errno.EINVAL:
            return ArchiveIncompatibleError(f"The volume's filesystem does not take {printable(name)}.")
        case _:
            return ToolFailedError(f"{printable(name)} could not be written: {failure.strerror or failure}.")
