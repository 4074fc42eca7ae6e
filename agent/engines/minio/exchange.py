"""A drive's data exchanged for another's, entirely or not at all, whatever ends us in between.

A drive is a mount point, so its entries are exchanged one by one: each bucket's directory and two of `.minio.sys`. A
journal beside them says which; an entry is done when the inode at its place is the one that it should be, so finishing
an interrupted exchange is doing it again. The server is frozen meanwhile, since a client could see a mixture.

As in `agent.engines.swapping` there are two sides; the one that is not in place lies in `<key>/new` of the staging
area.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
from pathlib import Path

import msgspec

from agent.engines.filesystem import opened_directory, sync_filesystem
from agent.engines.minio.layout import BUCKETS, CONFIG, SYSTEM, data_roots
from agent.engines.swapping import Side
from agent.unsettled import UnsettledError
from agent.versions import require_known
from common.errors import InternalError, ToolFailedError
from common.seals import RESERVED_DIRECTORY

_JOURNAL, _VERSION = "exchange.json", 1
_STRAYS = "strays"
_EXCHANGE, _NO_REPLACE = 2, 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Entry(msgspec.Struct):
    """A path below the drive, the inode that lies there before, and the one after; None: nothing."""

    path: str
    before: int | None
    after: int | None


class _Journal(msgspec.Struct):
    target: str
    is_done: bool
    entries: list[_Entry]
    version: int = _VERSION


class Exchange:
    """The exchange of one import, in `<drive>/.mathison-data/<key>`. All calls block."""

    def __init__(self, drive: Path, key: str, *, only: str = "") -> None:
        """
        Args:
            only: the one bucket that is exchanged, with its settings; empty: everything.
        """
        self.only = only
        self._drive = drive
        self._area = drive / RESERVED_DIRECTORY / key
        self._other = self._area / Side.IMPORTED.value

    @property
    def other(self) -> Path:
        """The data that is not in place."""
        return self._other

    def has_bucket(self) -> bool:
        """Whether the one bucket is in place."""
        return (self._drive / self.only).is_dir()

    def is_prepared(self) -> bool:
        """Whether there is anything to exchange; False when it was never staged, or dropped."""
        return self._area.is_dir()

    def is_unfinished(self) -> bool:
        """Whether `recover` has something to do."""
        return self.is_prepared() and not self._read().is_done

    def side(self) -> Side:
        """Whose data is in place; while it is unfinished, whose is coming."""
        return Side(self._read().target) if self.is_prepared() else Side.PREVIOUS

    def keeps_previous(self) -> bool:
        """Whether imported data is in place and all that it replaced is kept; True where there was nothing.

        A bucket that is not kept counts as one that the previous data never had, so bringing that back without some of
        it would take more away.
        """
        if self.side() is not Side.IMPORTED:
            return False
        replaced = (entry for entry in self._read().entries if entry.before is not None)
        return all(_inode(self._other / entry.path) == entry.before for entry in replaced)

    def prepare(self) -> None:
        """Make what was staged durable; before the freeze, since it may take long.

        Raises:
            ToolFailedError: the storage fails.
        """
        try:
            with opened_directory(self._drive) as drive:
                sync_filesystem(drive)
            self._make_system()
        except OSError as failure:
            raise ToolFailedError(f"What was staged could not be made durable: {failure.strerror}.") from failure

    def bring(self, target: Side) -> int:
        """Put a side's data in place, the server frozen; how many entries were exchanged. Repeating changes nothing.

        Raises:
            ToolFailedError: the file system refused; the data is as it was.
            UnsettledError: that too could not be brought about.
        """
        journal = self._read()
        if not journal.is_done:
            raise InternalError("An earlier exchange of this import was interrupted and not finished yet.")
        if Side(journal.target) is target:
            return 0
        try:
            self._make_system()
            journal = _Journal(target=target.value, is_done=False, entries=self._plan())
            self._write(journal)
            self._apply(journal)
        except OSError as failure:
            self._take_back(journal)
            raise ToolFailedError(
                f"The data on the drive could not be exchanged: {failure.strerror}; it is as it was."
            ) from failure
        return len(journal.entries)

    def recover(self) -> Side:
        """Finish what was interrupted and say whose data is in place. Repeating it changes nothing.

        Raises:
            ToolFailedError: the file system refuses; to be tried again.
        """
        journal = self._read()
        if not journal.is_done:
            try:
                self._apply(journal)
            except OSError as failure:
                raise ToolFailedError(
                    f"An interrupted exchange on the drive could not be finished: {failure.strerror}."
                ) from failure
        return Side(journal.target)

    def sweep(self) -> None:
        """Remove empty directories of buckets that only the other side has, and the settings of the one.

        A server that starts makes the directory of a bucket anew that it has listed, or whose settings it finds on a
        drive that is half exchanged; what it made is listed by the next. One that is made to forget a bucket
        (`reloading`) makes both for a moment. To be called once the server has been restarted on what is in place,
        and has loaded that.

        A bucket that a client has made since has settings, so it stays.
        """
        journal = self._read()
        if not journal.is_done:
            return
        for entry in journal.entries:
            if entry.after is None and (self.only or not (self._drive / BUCKETS / entry.path).exists()):
                with contextlib.suppress(OSError):
                    (self._drive / entry.path).rmdir()
        if self.only and not self.has_bucket():
            shutil.rmtree(self._drive / BUCKETS / self.only, ignore_errors=True)

    def _make_system(self) -> None:
        """Where entries may have to go; MinIO has no directory for settings while there are no buckets."""
        (self._other / (BUCKETS if self.only else SYSTEM)).mkdir(parents=True, exist_ok=True)
        settings = self._drive / BUCKETS
        if self.only and not settings.is_dir():
            settings.mkdir()
            if os.geteuid() == 0:
                owner = (self._drive / SYSTEM).stat()
                os.chown(settings, owner.st_uid, owner.st_gid)

    def _plan(self) -> list[_Entry]:
        if self.only:
            return [self._entry(path) for path in (self.only, f"{BUCKETS}/{self.only}")]
        paths = dict.fromkeys([*data_roots(self._drive), *data_roots(self._other)])
        if not (self._other / CONFIG).is_dir():
            # The import keeps the server's users and configuration.
            paths.pop(CONFIG, None)
        return [self._entry(path) for path in paths]

    def _entry(self, path: str) -> _Entry:
        return _Entry(path, _inode(self._drive / path), _inode(self._other / path))

    def _apply(self, journal: _Journal) -> None:
        for entry in journal.entries:
            live, other = self._drive / entry.path, self._other / entry.path
            if _inode(live) not in (entry.before, entry.after, None):
                self._clear(live)
            if _aside(other).exists():
                _finish_by_three(live, other, wanted=entry.after)
            if _inode(live) == entry.after:
                continue
            if entry.after is None:
                _rename(live, other, _NO_REPLACE)
            elif _inode(live) is None:
                _rename(other, live, _NO_REPLACE)
            else:
                _exchange(live, other)
        parents = dict.fromkeys(Path(entry.path).parent for entry in journal.entries)
        for directory in [side / parent for parent in parents for side in (self._drive, self._other)]:
            with opened_directory(directory) as opened:
                os.fsync(opened)
        journal.is_done = True
        self._write(journal)

    def _clear(self, live: Path) -> None:
        """What a server made that started on a half exchanged drive; with what clients put into it, it is kept."""
        try:
            live.rmdir()
        except OSError:
            strays = self._area / _STRAYS
            strays.mkdir(exist_ok=True)
            live.rename(strays / f"{_inode(live)}")

    def _take_back(self, journal: _Journal) -> None:
        back = _Journal(
            target=Side(journal.target).other.value,
            is_done=False,
            entries=[_Entry(entry.path, entry.after, entry.before) for entry in journal.entries],
        )
        try:
            self._write(back)
            self._apply(back)
        except OSError as failure:
            raise UnsettledError from failure

    def _read(self) -> _Journal:
        try:
            content = (self._area / _JOURNAL).read_bytes()
            require_known(content, [_VERSION], "An exchange on the drive")
            return msgspec.json.decode(content, type=_Journal)
        except FileNotFoundError:
            # Nothing was exchanged yet.
            return _Journal(target=Side.PREVIOUS.value, is_done=True, entries=[])
        except (OSError, ValueError) as failure:
            raise InternalError(f"The journal {_JOURNAL!r} of an exchange cannot be read.") from failure

    def _write(self, journal: _Journal) -> None:
        temporary = self._area / f"{_JOURNAL}.new"
        with temporary.open("wb") as file:
            file.write(json.dumps(msgspec.to_builtins(journal)).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._area / _JOURNAL)
        with opened_directory(self._area) as area:
            os.fsync(area)


def _exchange(live: Path, other: Path) -> None:
    try:
        _rename(live, other, _EXCHANGE)
    except OSError as failure:
        if failure.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # Through a third name.
        other.rename(_aside(other))
        _finish_by_three(live, other, wanted=_inode(_aside(other)))


def _finish_by_three(live: Path, other: Path, *, wanted: int | None) -> None:
    """Go on where a file system knows no exchange, from wherever it got to, in either direction."""
    aside = _aside(other)
    if _inode(aside) == wanted:
        if _inode(live) is not None:
            live.rename(other)
        aside.rename(live)
    else:
        if _inode(live) is None:
            other.rename(live)
        aside.rename(other)


def _aside(other: Path) -> Path:
    return other.with_name(f"{other.name}.aside")


def _rename(source: Path, target: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
        number = ctypes.get_errno()
        if flags == _NO_REPLACE and number in (errno.EINVAL, errno.ENOSYS) and _inode(target) is None:
            source.rename(target)
            return
        raise OSError(number, os.strerror(number), str(source))


def _inode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None
