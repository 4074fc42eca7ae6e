"""All that lies below a directory, however deep, counted or deleted. Links are not followed.

Synchronous; callers run it in a thread.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Generator

from agent.engines.filesystem import DIRECTORY

_LISTED_AT_ONCE = 10_000


def count_entries(directory: int, *, seconds: float) -> int | None:
    """How many entries lie below a directory, those of its directories too. A link is one, as is what cannot be opened.

    Names alone are read: two seconds for a million files, where each one's status would take fifteen.

    Args:
        seconds: most time to take, but for a single directory; None when that is not enough.
    """
    ends_at = time.monotonic() + seconds
    count = 0
    levels = [_Level(os.dup(directory))]
    try:
        while levels:
            if time.monotonic() > ends_at:
                return None
            level = levels[-1]
            below = None
            for name, is_directory in level.entries:
                count += 1
                if is_directory and (below := _level_below(name, level.descriptor)):
                    break
            if below:
                levels.append(below)
            else:
                levels.pop().close()
    finally:
        for level in levels:
            level.close()
    return count


def remove_tree(name: str, *, parent: int) -> None:
    """Delete an entry with all that is in it; what is not there is fine.

    Follows no links and stays on the device. Directories that may not be written are made writable, since they are
    about to go.

    Raises:
        OSError: something could not be deleted; what was deleted until then is gone.
    """
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    levels = [_Doomed(name, parent, status.st_dev)]
    try:
        while levels:
            level = levels[-1]
            child = level.next_directory()
            if child is None:
                levels.pop().remove()
            else:
                levels.append(_Doomed(child, level.descriptor, status.st_dev))
    finally:
        for level in levels:
            level.close()


class _Level:
    """A directory on the way down."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.entries = _listed(descriptor)

    def close(self) -> None:
        self.entries.close()
        os.close(self.descriptor)


def _level_below(name: str, parent: int) -> _Level | None:
    try:
        return _Level(os.open(name, DIRECTORY, dir_fd=parent))
    except OSError:
        return None


class _Doomed(_Level):
    """A directory that is being emptied."""

    def __init__(self, name: str, parent: int, device: int) -> None:
        self._name = name
        self._parent = parent
        super().__init__(_opened_writable(name, parent))
        if os.fstat(self.descriptor).st_dev != device:
            self.close()
            raise OSError(errno.EXDEV, "another filesystem is mounted here", name)

    def next_directory(self) -> str | None:
        """Delete files until a directory comes; None when there are no more entries."""
        for name, is_directory in self.entries:
            if is_directory:
                return name
            os.unlink(name, dir_fd=self.descriptor)
        return None

    def remove(self) -> None:
        """Delete the directory itself."""
        self.close()
        os.rmdir(self._name, dir_fd=self._parent)


def _listed(descriptor: int) -> Generator[tuple[str, bool], None, None]:
    """In lots; where it all goes into one, nothing stays open."""
    with os.scandir(descriptor) as entries:
        while lot := [
            (entry.name, entry.is_dir(follow_symlinks=False)) for entry in itertools.islice(entries, _LISTED_AT_ONCE)
        ]:
            yield from lot


def _opened_writable(name: str, parent: int) -> int:
    try:
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        # Not root, so the worst that a link put here meanwhile could lead to is a directory of our own.
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    status = os.fstat(descriptor)
    if status.st_mode & stat.S_IRWXU != stat.S_IRWXU and status.st_uid == os.geteuid():
        os.fchmod(descriptor, stat.S_IRWXU)
    return descriptor
