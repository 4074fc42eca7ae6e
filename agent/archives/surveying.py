"""What a directory holds, counted without reading it: for a header, an estimate, a preview.

Names and sizes only, and no longer than it may take: the count of a volume with many millions of files is left
unfinished and says so.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.archives.members import SQLITE_MAGIC
from agent.archives.walking import Found, Unreadable, walk

_OWNERS_LISTED = 32
_TOPS_COUNTED = 10_000
_SMALLEST_DATABASE = 512


@dataclass
class Top:
    """All that lies under one name of the directory, itself included: equal for what did not change.

    Attributes:
        bytes: of files, with their holes: how many of the zeros are holes differs between two copies of a file.
    """

    entries: int = 0
    bytes: int = 0
    newest_ns: int = 0


@dataclass
class Survey:
    """What was counted.

    Attributes:
        bytes: of files, without their holes: what they take on disk.
        length_bytes: of files, with their holes: the same in every copy.
        databases: SQLite databases; counted only when asked for.
        owners: numeric "uid:gid", the first of them only.
        tops: by name at the top of the directory, the first of them only.
        is_complete: False when the time was up.
    """

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    others: int = 0
    bytes: int = 0
    length_bytes: int = 0
    databases: int = 0
    owners: list[str] = field(default_factory=list)
    tops: dict[str, Top] = field(default_factory=dict)
    unreadable: Unreadable = field(default_factory=Unreadable)
    is_complete: bool = True

    def told(self, *names: str) -> dict[str, int]:
        """Its counts of these names; none when the time was up, since they would be too small."""
        return {name: getattr(self, name) for name in names} if self.is_complete else {}

    @property
    def has_all_tops(self) -> bool:
        """Whether `tops` names all that was met at the top, so that it can be compared with another's."""
        return len(self.tops) < _TOPS_COUNTED

    @property
    def entries(self) -> int:
        """Everything that an archive of the directory would have an entry for."""
        return self.files + self.directories + self.symlinks


def survey(
    directory: Path,
    *,
    seconds: float,
    is_left_out: Callable[[str, str], bool] = lambda path, name: False,
    find_databases: bool = False,
    on_found: Callable[[Found, bool], None] = lambda found, is_database: None,
) -> Survey:
    """Count what is below a directory.

    Args:
        seconds: most time to take.
        find_databases: open every file to see whether it is a SQLite database.
        on_found: called for each entry, and told whether it is such a database.
    Raises:
        SourceUnreadableError: too deep, or the storage fails.
    """
    counted = Survey()
    ends_at = time.monotonic() + seconds
    start = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for found in walk(start, is_left_out=is_left_out, on_unreadable=counted.unreadable.add):
            _count(counted, found)
            is_database = find_databases and _is_database(found)
            counted.databases += is_database
            on_found(found, is_database)
            if time.monotonic() > ends_at:
                counted.is_complete = False
                break
    finally:
        os.close(start)
    return counted


def _count(counted: Survey, found: Found) -> None:
    status = found.status
    size = 0
    if found.is_directory:
        counted.directories += 1
    elif stat.S_ISREG(status.st_mode):
        counted.files += 1
        size = min(status.st_size, status.st_blocks * 512)
        counted.length_bytes += status.st_size
        if not _is_readable(found):
            counted.unreadable.add(found.path)
    elif stat.S_ISLNK(status.st_mode):
        counted.symlinks += 1
    else:
        counted.others += 1
    counted.bytes += size
    owner = f"{status.st_uid}:{status.st_gid}"
    if len(counted.owners) < _OWNERS_LISTED and owner not in counted.owners:
        counted.owners.append(owner)
    name = found.path.partition("/")[0]
    if len(counted.tops) < _TOPS_COUNTED or name in counted.tops:
        top = counted.tops.setdefault(name, Top())
        top.entries += 1
        top.bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0
        top.newest_ns = max(top.newest_ns, status.st_mtime_ns)


def _is_readable(found: Found) -> bool:
    """Asked of the kernel only where the mode lets one doubt it."""
    uid, mode = os.geteuid(), found.status.st_mode
    if uid == 0 or (mode & stat.S_IRUSR if found.status.st_uid == uid else mode & stat.S_IROTH):
        return True
    return os.access(found.name, os.R_OK, dir_fd=found.parent, effective_ids=True)


def _is_database(found: Found) -> bool:
    status = found.status
    is_candidate = stat.S_ISREG(status.st_mode) and status.st_size >= _SMALLEST_DATABASE
    return is_candidate and begins_as_database(found.name, found.parent)


def begins_as_database(name: str, parent: int) -> bool:
    """Whether a file begins as SQLite databases do; False for what cannot be opened.

    Args:
        parent: descriptor of its directory.
    """
    with contextlib.suppress(OSError):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
        try:
            return os.pread(descriptor, len(SQLITE_MAGIC), 0) == SQLITE_MAGIC
        finally:
            os.close(descriptor)
    return False
