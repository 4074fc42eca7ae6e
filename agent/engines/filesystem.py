"""What Linux does with files and directories that the standard library does not: renames that replace nothing, for one.

All of it is synchronous; callers run it in a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import secrets
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.archives.members import KEPT_NAMES

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""To read one that somebody may have exchanged for a link, or for a fifo that would be waited for."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HERE = -100
"""AT_FDCWD."""
_NOT_FOLLOWED = 0x100
"""AT_SYMLINK_NOFOLLOW."""
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
"""Of statx's attributes, its second eight bytes."""
_libc = ctypes.CDLL(None, use_errno=True)


class Renaming(enum.IntEnum):
    """What a rename does beside giving a name: replace nothing, or give the other name to what has this one."""

    NO_REPLACE = 1
    EXCHANGE = 2


@contextmanager
def opened_directory(directory: str | bytes | Path, parent: int | None = None) -> Iterator[int]:
    """A descriptor of a directory that is no link, for the time of the block."""
    descriptor = os.open(directory, DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def own_directory(directory: str | Path, parent: int) -> Iterator[int]:
    """As `opened_directory`, of one that the agent made: an app that may write to the one above can have put its own in
    its place, where nothing is what the agent left there, nor stays what the agent puts there.

    Raises:
        PermissionError: it is another user's; `strerror` says whose.
    """
    with opened_directory(directory, parent) as descriptor:
        owner = os.fstat(descriptor).st_uid
        # Storage may say something else of us, as a server of NFS that squashes root.
        if owner != os.geteuid() and owner != _owner_of_new(descriptor):
            reason = f"it belongs to uid {owner}, not to the agent (uid {os.geteuid()})"
            raise PermissionError(errno.EPERM, reason, str(directory))
        yield descriptor


def renamed(
    source: str | Path,
    target: str | Path,
    renaming: Renaming,
    *,
    source_parent: int = _HERE,
    target_parent: int = _HERE,
) -> bool:
    """Rename at once; False: the system or the file system, as NFS, knows no such thing, and nothing was done.

    Raises:
        OSError: FileNotFoundError for either of two to be exchanged, EBUSY for a mount point, EXDEV across mounts.
    """
    if not hasattr(_libc, "renameat2"):
        return False
    if _libc.renameat2(source_parent, os.fsencode(source), target_parent, os.fsencode(target), renaming) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), str(source))


def rename_without_replacing(name: str, *, source: int, target: int) -> None:
    """Move an entry from one directory to another of the same mount.

    Raises:
        FileExistsError: the name is taken there.
        OSError: as `renamed`.
    """
    if renamed(name, name, Renaming.NO_REPLACE, source_parent=source, target_parent=target):
        return
    # Between the look and the rename only a running app could take the name.
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=target, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def exchange_names(one: str, other: str, *, parent: int) -> bool:
    """Have two entries of a directory change places, at once; False: one of them is not there, or the file system
    knows no such thing, and nothing was done.

    Raises:
        OSError: it is not allowed, or the storage fails.
    """
    try:
        return renamed(one, other, Renaming.EXCHANGE, source_parent=parent, target_parent=parent)
    except FileNotFoundError:
        return False


def _owner_of_new(directory: int) -> int | None:
    """Whose a file is said to be that is made there; None: none can be."""
    name = f".owner-{secrets.token_hex(6)}"
    try:
        descriptor = os.open(name, _NEW, 0o600, dir_fd=directory)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        os.unlink(name, dir_fd=directory)


def immovable(name: str, parent: int) -> str:
    """Why an entry cannot be moved out of its directory, as the end of a sentence; empty when nothing is known of it.

    Raises:
        OSError: it is not there, or the storage fails.
    """
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    attributes = (ctypes.c_uint64 * 32)()
    if (
        hasattr(_libc, "statx")
        and _libc.statx(parent, os.fsencode(name), _NOT_FOLLOWED, 0, attributes) == 0
        and attributes[1] & _IMMUTABLE_OR_APPEND
    ):
        return "it may not be changed by anybody (`lsattr` shows i or a; `chattr -i -a` takes that away)"
    is_ours = status.st_uid == os.geteuid()
    if stat.S_ISDIR(status.st_mode) and not is_ours and not os.access(name, os.W_OK, dir_fd=parent, effective_ids=True):
        return f"it is a directory of uid {status.st_uid} that the agent (uid {os.geteuid()}) may not write to"
    return ""


def read_small_file(
    name: str | Path, *, parent: int | None = None, most_bytes: int, follow_links: bool = False
) -> bytes:
    """A file's content. Waits for nobody: what is no regular file is not read.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, is something else than a file, or is larger; `strerror` says which.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(name, flags, dir_fd=parent)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(name))
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it has more than {most_bytes} bytes", str(name))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most_bytes)
    finally:
        os.close(descriptor)


def replace_file(name: str, content: bytes, *, parent: int) -> None:
    """Put another file in the place of one, with its mode and time, and its owner where root does it. What it was a
    link of stays as it is."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    temporary = f"{name}.replacing"
    with contextlib.suppress(FileNotFoundError):
        # Of one that was killed.
        os.unlink(temporary, dir_fd=parent)
    with open(os.open(temporary, _NEW, 0o600, dir_fd=parent), "wb") as file:
        file.write(content)
        if os.geteuid() == 0:
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
    os.utime(temporary, ns=(status.st_mtime_ns,) * 2, dir_fd=parent)
    os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)


def is_full(failure: OSError) -> bool:
    """Whether a disk has no room, or not for us."""
    return failure.errno in (errno.ENOSPC, errno.EDQUOT)


def sync_filesystem(descriptor: int) -> None:
    """Make all that was written to the descriptor's filesystem durable."""
    if _libc.syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def free_bytes(directory: Path | int) -> int:
    """Room for an ordinary user."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def usual_owner(directory: Path) -> tuple[int, int]:
    """uid and gid to which most of the entries right below a directory belong; its own when it is empty."""
    owners: Counter[tuple[int, int]] = Counter()
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name not in KEPT_NAMES:
                status = entry.stat(follow_symlinks=False)
                owners[status.st_uid, status.st_gid] += 1
    own = directory.stat()
    return max(owners, key=owners.__getitem__, default=(own.st_uid, own.st_gid))
