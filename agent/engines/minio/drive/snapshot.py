"""A drive's data as of one moment, as a tree beside it: hard links of parts, copies of what MinIO rewrites in place.

Two passes. The first goes through the drive while clients write, and may see anything. The second runs while the server
is frozen and looks only at what has changed since the first began, which two calls of stat tell for each object. So a
freeze lasts some microseconds for each object, whatever its size. On a busy server the first takes long and much has
changed by its end, so that is caught up with before the freeze.

What may be linked: `part.N` is never changed, only replaced. `xl.meta` is rewritten in place by deletes of many
objects. Uploads that had begun go on during the freeze, so a directory is looked at until its `xl.meta` holds still
meanwhile: data is in its place before the `xl.meta` that names it.

MinIO's names for files are names of directories too: each segment of a key is one, `xl.meta` and `part.1` among them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from agent.engines.filesystem import FILE, is_full, opened_directory, own_directory
from agent.engines.minio.drive.layout import META, SYSTEM, data_roots, is_data_directory_name, is_transient
from agent.engines.subtrees import remove_tree
from common.errors import NoSpaceError, SourceUnreadableError, ToolFailedError
from common.seals import RESERVED_DIRECTORY

PREFIX = "export-"
_MARGIN_NS = 2_000_000_000
"""File systems note times in ticks; what changed shortly before the first pass counts as changed since."""
_ATTEMPTS = 100
_PIECE_BYTES = 1 << 20
_ROOM_CHECKED_EVERY = 4096
_META = META.encode()
_TREE = "snapshot"
_THIS_PROCESS = re.compile(r"^/proc/self/fd/\d+")
_MAKE_ROOM = "Make room on the drive, or use the portable format, `?format=s3`, which needs none."


class _Opened(NamedTuple):
    """Descriptors of the drive and of the directories in it that a snapshot goes through, and its tree's own."""

    drive: int
    reserved: int
    area: int
    tree: int


class Snapshot:
    """Calls in order: `first_pass`, `catch_up`, `second_pass`, `drop`, any reading of `directory`, `remove`. All block.

    Attributes:
        directory: holds the tree, laid out as a drive; from `first_pass` to `remove`, and for this process alone.
        files, bytes: what the tree has, about; growing.
        seen: directories that were looked at again in the second pass.
    """

    def __init__(self, drive: Path, key: str, *, work_directory: Path, free_bytes: int) -> None:
        """
        Args:
            free_bytes: room to leave on the drive, which MinIO needs too.
        """
        self._drive = drive
        self._name = f"{PREFIX}{key}"
        self._held = contextlib.ExitStack()
        self._opened: _Opened | None = None
        self.files = 0
        self.bytes = 0
        self.seen = 0
        self._free_bytes = free_bytes
        self._work_directory = work_directory
        self._listed: IO[bytes] | None = None
        self._since_ns = 0
        self._is_stopped = False

    @property
    def directory(self) -> Path:
        # The path on the drive may lead elsewhere at any time: its top is the server's.
        return Path(f"/proc/self/fd/{self._in_use.tree}")

    @property
    def _in_use(self) -> _Opened:
        if self._opened is None:
            raise RuntimeError("the first pass has not been")
        return self._opened

    def stop(self) -> None:
        """Have a pass in another thread end with an error."""
        self._is_stopped = True

    def first_pass(self) -> None:
        """Everything, while it changes.

        Raises:
            SourceUnreadableError: something may not be read, or the drive does not allow links.
            NoSpaceError: the copies would leave too little room.
        """
        with _explained_list():
            self._listed = tempfile.TemporaryFile(dir=self._work_directory)  # noqa: SIM115  # closed by `remove`
        with _explained():
            self._opened = self._make()
            # Times are the drive's own.
            self._since_ns = os.fstat(self._opened.area).st_mtime_ns - _MARGIN_NS
            with self._live(SYSTEM.encode()) as system:
                _made(self._copy_of(SYSTEM.encode()), like=system)
            for root in data_roots(self._drive):
                self._take_all(root.encode())

    def _make(self) -> _Opened:
        drive = self._held.enter_context(opened_directory(self._drive.resolve()))
        with contextlib.suppress(FileExistsError):
            os.mkdir(RESERVED_DIRECTORY, 0o700, dir_fd=drive)
        reserved = self._held.enter_context(own_directory(RESERVED_DIRECTORY, drive))
        os.mkdir(self._name, 0o700, dir_fd=reserved)
        area = self._held.enter_context(opened_directory(self._name, reserved))
        os.mkdir(_TREE, dir_fd=area)
        return _Opened(drive, reserved, area, self._held.enter_context(opened_directory(_TREE, area)))

    def catch_up(self) -> None:
        """What has changed since, while it changes; so that little is left for the second pass. Raises as that."""
        os.utime(self._in_use.area)
        since_ns = os.fstat(self._in_use.area).st_mtime_ns - _MARGIN_NS
        self.second_pass()
        self._since_ns = since_ns

    def second_pass(self) -> None:
        """What has changed since, while the server is frozen; raises as `first_pass`."""
        if self._listed is None:
            raise RuntimeError("the first pass has not been")
        with _explained():
            roots = data_roots(self._drive)
            for gone in set(data_roots(self.directory)) - set(roots):
                shutil.rmtree(self.directory / gone)
            for path in self._paths():
                self._look_again(path)
            for root in roots:
                if not (self.directory / root).is_dir():
                    self._take_all(root.encode())

    def drop(self, path: str) -> None:
        """Leave a directory out after all; one that is not there is fine."""
        if (self.directory / path).is_dir():
            shutil.rmtree(self.directory / path)

    def remove(self) -> None:
        """Delete the tree; what is not there is fine."""
        if self._listed is not None:
            self._listed.close()
            self._listed = None
        with self._held:
            if self._opened is not None:
                _remove([self._name], drive=self._opened.drive, reserved=self._opened.reserved)
        self._opened = None

    def _paths(self) -> Iterator[bytes]:
        """The directories of earlier passes; what this one adds is up to date."""
        listed = self._listed
        if listed is None:
            return
        with _explained_list():
            listed.flush()
        held = b""
        at, ends_at = 0, listed.tell()
        # By position: this pass writes to the end of it meanwhile.
        while at < ends_at and (piece := os.pread(listed.fileno(), min(_PIECE_BYTES, ends_at - at), at)):
            at += len(piece)
            *whole, held = (held + piece).split(b"\0")
            yield from whole

    def _look_again(self, path: bytes) -> None:
        live = os.path.join(os.fsencode(self._drive), path)
        try:
            if os.stat(live).st_mtime_ns < self._since_ns:
                try:
                    if os.stat(live + b"/xl.meta").st_mtime_ns < self._since_ns:
                        return
                except FileNotFoundError:
                    return
        except (FileNotFoundError, NotADirectoryError):
            # Its parent has changed too, and was or will be looked at.
            shutil.rmtree(self._copy_of(path), ignore_errors=True)
            return
        if not os.path.isdir(self._copy_of(path)):
            # Gone with a parent that was looked at already, or made again since: that one took it.
            return
        self.seen += 1
        for new in self._take(path):
            self._take_all(new)

    def _take_all(self, path: bytes) -> None:
        todo = [path]
        while todo:
            todo.extend(self._take(todo.pop()))

    def _take(self, path: bytes) -> list[bytes]:
        """Bring one directory of the tree up to date; the directories below it that are new in the tree."""
        for _ in range(_ATTEMPTS):
            if self._is_stopped:
                raise ToolFailedError("The snapshot was stopped.")
            try:
                if (new := self._take_once(path)) is not None:
                    return new
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                if not os.path.isdir(os.path.join(os.fsencode(self._drive), path)):
                    shutil.rmtree(self._copy_of(path), ignore_errors=True)
                    return []
        raise SourceUnreadableError(
            f"{os.fsdecode(path)!r} on the drive changes all the time, or lies behind a link.",
            next_step="Try again when it is less busy.",
        )

    def _take_once(self, path: bytes) -> list[bytes] | None:
        copy = self._copy_of(path)
        with self._live(path) as live:
            is_new = _made(copy, like=live)
            before = _identity(_META, live)
            directories, files = _entries(live, path)
            if not is_new:
                _remove_others(copy, directories=set(directories), files=set(files))
            for name in files:
                if name.startswith(_META):
                    self._copy(name, live, copy + b"/" + name)
                else:
                    self._link(name, live, copy + b"/" + name)
            if _identity(_META, live) != before:
                return None
        if not _is_data(path, directories, files):
            self._list(path)
        below = [path + b"/" + name for name in directories]
        return below if is_new else [found for found in below if not os.path.isdir(self._copy_of(found))]

    @contextlib.contextmanager
    def _live(self, path: bytes) -> Iterator[int]:
        """A descriptor of a directory of the drive.

        Raises:
            FileNotFoundError, NotADirectoryError: there is none; it is one behind a link, or was moved just now.
        """
        drive = self._in_use.drive
        with opened_directory(path, drive) as directory:
            if _path_of(directory) != _path_of(drive) + b"/" + path:
                raise FileNotFoundError(errno.ENOENT, "it lies behind a link", os.fsdecode(path))
            yield directory

    def _link(self, name: bytes, live: int, copy: bytes) -> None:
        try:
            os.link(name, copy, src_dir_fd=live, follow_symlinks=False)
        except FileExistsError:
            if os.path.samestat(os.stat(name, dir_fd=live, follow_symlinks=False), os.lstat(copy)):
                return
            os.unlink(copy)
            os.link(name, copy, src_dir_fd=live, follow_symlinks=False)
        self._count(os.lstat(copy).st_size)

    def _copy(self, name: bytes, live: int, copy: bytes) -> None:
        descriptor = os.open(name, FILE, dir_fd=live)
        with open(descriptor, "rb", buffering=0) as source, open(copy, "wb", buffering=0) as target:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(errno.ENOENT, "it is no regular file", os.fsdecode(name))
            while piece := source.read(1 << 20):
                target.write(piece)
            os.utime(target.fileno(), ns=(status.st_mtime_ns, status.st_mtime_ns))
            os.fchmod(target.fileno(), status.st_mode & 0o777)
            with contextlib.suppress(PermissionError):
                os.fchown(target.fileno(), status.st_uid, status.st_gid)
        self._count(status.st_size)

    def _count(self, size: int) -> None:
        self.files += 1
        self.bytes += size
        if self.files % _ROOM_CHECKED_EVERY == 0:
            status = os.statvfs(self._drive)
            if status.f_bavail * status.f_frsize < self._free_bytes:
                raise NoSpaceError(
                    f"The snapshot would leave less than {self._free_bytes} bytes on the drive.", next_step=_MAKE_ROOM
                )

    def _list(self, path: bytes) -> None:
        if self._listed is not None:
            with _explained_list():
                self._listed.write(path + b"\0")

    def _copy_of(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self.directory), path)


def remove_snapshots(drive: Path) -> None:
    """Delete what exports left on a drive; what is not there is fine.

    Raises:
        ToolFailedError: something could not be deleted.
    """
    with contextlib.ExitStack() as stack:
        try:
            top = stack.enter_context(opened_directory(drive.resolve()))
            reserved = stack.enter_context(own_directory(RESERVED_DIRECTORY, top))
        except FileNotFoundError:
            return
        except OSError as failure:
            raise ToolFailedError(f"{drive / RESERVED_DIRECTORY} cannot be opened: {failure.strerror}.") from failure
        _remove([entry for entry in os.listdir(reserved) if entry.startswith(PREFIX)], drive=top, reserved=reserved)


def _remove(names: list[str], *, drive: int, reserved: int) -> None:
    try:
        for name in names:
            remove_tree(name, parent=reserved)
        # Not empty: an import has something in it.
        with contextlib.suppress(OSError):
            os.rmdir(RESERVED_DIRECTORY, dir_fd=drive)
    except OSError as failure:
        raise ToolFailedError(f"A snapshot on the drive could not be deleted: {failure.strerror}.") from failure


def _path_of(descriptor: int) -> bytes:
    """Where it is now, without links."""
    return os.readlink(f"/proc/self/fd/{descriptor}".encode())


def _entries(live: int, path: bytes) -> tuple[list[bytes], list[bytes]]:
    directories, files = [], []
    directory = os.fsdecode(path)
    with os.scandir(live) as entries:
        for entry in entries:
            if is_transient(directory, entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                directories.append(os.fsencode(entry.name))
            elif entry.is_file(follow_symlinks=False):
                files.append(os.fsencode(entry.name))
    return directories, files


def _is_data(path: bytes, directories: list[bytes], files: list[bytes]) -> bool:
    """Whether it holds the parts of one version: nothing in it ever changes."""
    name = os.path.basename(path).decode(errors="replace")
    is_full = bool(files) and not directories and all(file.startswith(b"part.") for file in files)
    return is_full and is_data_directory_name(name)


def _made(directory: bytes, *, like: int) -> bool:
    """Make a directory with the owner and mode of an opened one; False when it is there."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return False
    status = os.fstat(like)
    with contextlib.suppress(PermissionError):
        os.chown(directory, status.st_uid, status.st_gid)
    os.chmod(directory, status.st_mode & 0o777 | 0o700)
    return True


def _identity(name: bytes, parent: int) -> tuple[int, int, int] | None:
    """Of a file; None where there is none."""
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _remove_others(directory: bytes, *, directories: set[bytes], files: set[bytes]) -> None:
    """What is not there any more, or is of the other kind now."""
    with os.scandir(directory) as entries:
        found = [(entry.path, entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for path, name, is_directory in found:
        if name not in (directories if is_directory else files):
            shutil.rmtree(path) if is_directory else os.unlink(path)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        if is_full(failure):
            raise NoSpaceError("The drive is full; a snapshot needs room on it.", next_step=_MAKE_ROOM) from failure
        name = os.fsdecode(failure.filename) if failure.filename else "the drive"
        name = _THIS_PROCESS.sub("the snapshot", name)
        raise SourceUnreadableError(
            f"A snapshot of the drive could not be taken: {name!r}: {failure.strerror}.",
            next_step="The agent has to run under MinIO's uid or as root, and the drive has to allow hard links; "
            "otherwise use the portable format, `?format=s3`.",
        ) from failure


@contextlib.contextmanager
def _explained_list() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise (NoSpaceError if is_full(failure) else ToolFailedError)(
            f"What the drive holds could not be noted in the agent's state directory: {failure.strerror}."
        ) from failure
