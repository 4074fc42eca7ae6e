"""What an exchange notes of itself beside an app's data: how far it is, and how much is kept.

A note's next form stands ready as a file of its own, so a disk without a free byte or inode has room for it. It is
written over and changes places with the note; nothing is given back to the disk in between that somebody could take. A
file system that puts changed bytes elsewhere, as btrfs does, needs a little room all the same.
"""

from __future__ import annotations

import contextlib
import os

from agent.engines.filesystem import exchange_names
from agent.engines.subtrees import count_entries
from common.errors import NoSpaceError
from common.writing import write_all

_OVER = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COUNT_SECONDS = 20.0
"""Some ten million files, or far fewer on a disk that has to seek for each directory."""


def write_note(name: str, content: bytes, *, room_bytes: int, area: int) -> None:
    """Write a note anew, entirely or not at all, and durably; its next form stands ready then.

    Args:
        content: JSON; blanks follow it in the file.
        room_bytes: of the next form, as far as the disk has it.
        area: descriptor of the directory in which it lies.
    Raises:
        OSError: as before is what was noted, unless the disk fails.
    """
    following = f"{name}.new"
    _write(following, content, room_bytes=room_bytes, area=area)
    if not exchange_names(following, name, parent=area):
        os.rename(following, name, src_dir_fd=area, dst_dir_fd=area)
    os.fsync(area)
    with contextlib.suppress(OSError):
        if not _has_room(following, room_bytes, area=area):
            _write(following, b"", room_bytes=room_bytes, area=area)


def count_kept(directory: int) -> int:
    """How many entries lie below a directory; 0: it takes too long, so only those at its top count."""
    return count_entries(directory, seconds=_COUNT_SECONDS) or 0


def has_as_many(directory: int, noted: int) -> bool:
    """Whether all that was counted is still there; True where it was not, or takes too long now."""
    found = count_entries(directory, seconds=_COUNT_SECONDS) if noted else None
    return found is None or found >= noted


def no_room(where: str) -> NoSpaceError:
    """The error of an exchange that could not be noted, and so was not begun, or was taken back.

    Args:
        where: for example "volume".
    """
    return NoSpaceError(
        f"The {where} has no room for what has to be noted of an exchange of its data; the data is as it was.",
        next_step="Free a little of it, 100 KB and ten files or directories, then try again.",
    )


def _write(name: str, content: bytes, *, room_bytes: int, area: int) -> None:
    descriptor = os.open(name, _OVER, 0o600, dir_fd=area)
    try:
        # Over all that stands ready, which is not cut off: that would give its room away.
        size = os.fstat(descriptor).st_size
        write_all(descriptor, content.ljust(size))
        with contextlib.suppress(OSError):
            write_all(descriptor, b" " * (room_bytes - max(len(content), size)))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _has_room(name: str, room_bytes: int, *, area: int) -> bool:
    try:
        return os.stat(name, dir_fd=area, follow_symlinks=False).st_size >= room_bytes
    except FileNotFoundError:
        return False
