"""A drive's data exchanged for another's, entirely or not at all, whatever ends us in between.

A drive is a mount point, so its entries are exchanged one by one: each bucket's directory and two of `.minio.sys`. A
journal beside them says which; an entry is done when the inode at its place is the one that it should be, so finishing
an interrupted exchange is doing it again. The server is frozen meanwhile, since a client could see a mixture; what it
had begun before goes on, so a bucket is first taken away, and the other comes when all of that has ended.

As in `agent.engines.swapping` there are two sides; the one that is not in place lies in `<key>/new` of the staging
area.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from agent.engines.areas import AreaGoneError, opened_area
from agent.engines.filesystem import (
    Renaming,
    is_full,
    opened_directory,
    rename_without_replacing,
    renamed,
    sync_filesystem,
)
from agent.engines.minio.drive.exchange_journal import (
    Entry,
    Journal,
    begun,
    nothing_yet,
    read_journal,
    reversed_of,
    write_journal,
)
from agent.engines.minio.drive.layout import BUCKETS, CONFIG, SYSTEM, data_roots
from agent.engines.noting import count_kept, has_as_many, no_room
from agent.engines.swapping import Side
from agent.unsettled import UnsettledError
from common.errors import AppBusyError, InternalError, ServiceError, ToolFailedError
from common.seals import RESERVED_DIRECTORY

_STRAYS = "strays"


class _NotQuietError(Exception):
    pass


_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def _within(
    opening: Callable[[Exchange], AbstractContextManager[object]],
) -> Callable[[Callable[Concatenate[Exchange, _Given], _Found]], Callable[Concatenate[Exchange, _Given], _Found]]:
    """Have a method called within what one of these opens, `in_area` or `held`."""

    def decorate(
        method: Callable[Concatenate[Exchange, _Given], _Found],
    ) -> Callable[Concatenate[Exchange, _Given], _Found]:
        @wraps(method)
        def call(self: Exchange, /, *given: _Given.args, **named: _Given.kwargs) -> _Found:
            with opening(self):
                return method(self, *given, **named)

        return call

    return decorate


def has_unfinished(drive: Path) -> bool:
    """Whether buckets of a drive may be away, since an exchange was begun and is not finished."""
    try:
        keys = os.listdir(drive / RESERVED_DIRECTORY)
    except OSError:
        return False
    for key in keys:
        # What is no import's, or tells nothing any more, is none that anybody could finish.
        with contextlib.suppress(ServiceError):
            if Exchange(drive, key).is_unfinished():
                return True
    return False


class Exchange:
    """The exchange of one import, in `<drive>/.mathison-data/<key>`. All calls block."""

    def __init__(self, drive: Path, key: str, *, only: str = "") -> None:
        """
        Args:
            only: the one bucket that is exchanged, with its settings; empty: everything.
        """
        self.only = only
        self.drive = drive
        self.key = key
        self._opened: int | None = None

    @contextmanager
    def in_area(self) -> Iterator[int]:
        """Have the area, whose descriptor this is, opened for the time of the block; raises as `opened_area`."""
        if self._opened is not None:
            yield self._opened
            return
        with opened_area(self.drive, self.key) as opened:
            self._opened = opened.area
            try:
                yield opened.area
            finally:
                self._opened = None

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Be the only one who exchanges for the time of the block; waits for whoever does, and raises as `in_area`.

        The agent and the watchdog of its freeze are two that may, also one that outlived its agent. The system ends
        it for one that dies.

        Yields:
            False: the file system knows no locks, so there may be another.
        """
        with self.in_area() as area:
            try:
                # Given back when the area is closed, so within another block of this it changes nothing.
                fcntl.flock(area, fcntl.LOCK_EX)
            except OSError:
                yield False
            else:
                yield True

    @property
    def _area(self) -> Path:
        # The path on the drive may lead elsewhere at any time: its top is the server's.
        return Path(f"/proc/self/fd/{self._opened}")

    @property
    def _other(self) -> Path:
        """The data that is not in place."""
        return self._area / Side.IMPORTED.value

    def has_bucket(self) -> bool:
        """Whether the one bucket is in place."""
        return (self.drive / self.only).is_dir()

    def tells(self) -> bool:
        """Whether it is noted whose data is in place; False when it was never staged, or dropped, were it in part."""
        return self._noted() is not None

    def is_unfinished(self) -> bool:
        """Whether `recover` has something to do."""
        return not self._read().is_done

    def side(self) -> Side:
        """Whose data is in place; while it is unfinished, whose is coming."""
        return Side(self._read().target)

    @_within(in_area)
    def has_all(self) -> bool:
        """Whether all is there that is staged or kept, as far as it was noted; True where there was nothing.

        A bucket that is not kept counts as one that the previous data never had, so bringing that back without some of
        it would take more away.
        """
        journal = self._read()
        kept = (entry for entry in journal.entries if entry.before is not None)
        if not all(_inode(self._other / entry.path) == entry.before for entry in kept):
            return False
        if not journal.kept_below:
            return True
        try:
            with opened_directory(self._other) as other:
                return has_as_many(other, journal.kept_below)
        except FileNotFoundError:
            return False

    def keeps_previous(self) -> bool:
        """Whether imported data is in place and all that it replaced is kept, as `has_all`."""
        return self.side() is Side.IMPORTED and self.has_all()

    @_within(in_area)
    def note_kept(self) -> None:
        """Note how much there is of what is staged or kept, so that it is missed when somebody removes some of it; and
        have room on the drive for what an exchange is going to note, should it be full by then.

        Does nothing where that was noted, or some of it is gone already, or an exchange is unfinished.

        Raises:
            ToolFailedError: the drive cannot be written to.
        """
        journal = self._read()
        if not journal.is_done or journal.kept_below or not self.has_all():
            return
        try:
            self._make_other()
            (self._area / _STRAYS).mkdir(exist_ok=True)
            with opened_directory(self._other) as other:
                journal.kept_below = count_kept(other)
            self._write(journal, coming=begun(Side(journal.target).other, self._plan()))
        except OSError as failure:
            raise ToolFailedError(
                f"How much is kept beside the app's data could not be noted on the drive: {failure.strerror}."
            ) from failure

    @_within(in_area)
    def prepare(self) -> None:
        """Make what was staged durable; before the freeze, since it may take long.

        Raises:
            ToolFailedError: the storage fails.
        """
        try:
            with opened_directory(self.drive) as drive:
                sync_filesystem(drive)
            self._make_system()
        except OSError as failure:
            raise ToolFailedError(f"What was staged could not be made durable: {failure.strerror}.") from failure

    @_within(held)
    def bring(
        self,
        target: Side,
        *,
        until_quiet: Callable[[], bool] = lambda: True,
        is_frozen: Callable[[], bool] = lambda: True,
    ) -> int:
        """Put a side's data in place, the server frozen; how many entries were exchanged. Repeating changes nothing.

        Args:
            until_quiet: called while buckets are away; returns when the server does nothing any more that it began
                before, or False: it does not come to that.
            is_frozen: whether the server still is, asked before anything is done.
        Raises:
            AppBusyError: it does not, or is not; the data is as it was.
            NoSpaceError: there is no room for the journal; the data is as it was.
            ToolFailedError: the file system refused; the data is as it was.
            UnsettledError: that too could not be brought about.
        """
        journal = self._read()
        if not journal.is_done:
            raise InternalError("An earlier exchange of this import was interrupted and not finished yet.")
        if Side(journal.target) is target:
            return 0
        if not is_frozen():
            raise AppBusyError(
                "The server was held still for too short; the data is as it was.",
                next_step="Try again when it is less busy.",
            )
        try:
            self._make_system()
            journal = begun(target, self._plan())
            self._sync(journal)
            try:
                self._write(journal)
                self._apply(journal, until_quiet)
            except (OSError, _NotQuietError):
                self._take_back(journal, until_quiet)
                raise
        except _NotQuietError as failure:
            raise AppBusyError(
                "MinIO did not stop writing to its drive, or did not tell, while it was held still for the exchange; "
                "the data is as it was.",
                next_step="Try again when it is less busy; where it does not answer, see its log.",
            ) from failure
        except OSError as failure:
            if is_full(failure):
                raise no_room("drive") from failure
            raise ToolFailedError(
                f"The data on the drive could not be exchanged: {failure.strerror}; it is as it was."
            ) from failure
        return len(journal.entries)

    @_within(held)
    def recover(self, *, side: Side | None = None, until_quiet: Callable[[], bool] = lambda: True) -> Side:
        """Finish what was interrupted and say whose data is in place. Repeating it changes nothing.

        Args:
            side: the one to bring in place where it was interrupted; None: the one that was coming.
            until_quiet: as of `bring`; what it returns changes nothing, as nobody is served until this is done.
        Raises:
            ToolFailedError: the file system refuses; to be tried again.
        """
        journal = self._read()
        if not journal.is_done:
            try:
                if side not in (None, Side(journal.target)):
                    journal = reversed_of(journal)
                    self._write(journal)
                self._apply(journal, lambda: until_quiet() or True)
            except OSError as failure:
                raise ToolFailedError(
                    f"An interrupted exchange on the drive could not be finished: {failure.strerror}."
                ) from failure
        return Side(journal.target)

    @_within(in_area)
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
            if entry.after is None and (self.only or not (self.drive / BUCKETS / entry.path).exists()):
                with contextlib.suppress(OSError):
                    (self.drive / entry.path).rmdir()
        if self.only and not self.has_bucket():
            shutil.rmtree(self.drive / BUCKETS / self.only, ignore_errors=True)

    def _make_other(self) -> None:
        """Where entries of the side that is in place may have to go."""
        (self._other / (BUCKETS if self.only else SYSTEM)).mkdir(parents=True, exist_ok=True)

    def _make_system(self) -> None:
        """Where entries may have to go; MinIO has no directory for settings while there are no buckets."""
        self._make_other()
        settings = self.drive / BUCKETS
        if self.only and not settings.is_dir():
            settings.mkdir()
            if os.geteuid() == 0:
                owner = (self.drive / SYSTEM).stat()
                os.chown(settings, owner.st_uid, owner.st_gid)

    def _plan(self) -> list[Entry]:
        if self.only:
            return [self._entry(path) for path in (self.only, f"{BUCKETS}/{self.only}")]
        paths = dict.fromkeys([*data_roots(self.drive), *data_roots(self._other)])
        if not (self._other / CONFIG).is_dir():
            # The import keeps the server's users and configuration.
            paths.pop(CONFIG, None)
        return [self._entry(path) for path in paths]

    def _entry(self, path: str) -> Entry:
        return Entry(path, _inode(self.drive / path), _inode(self._other / path))

    def _sync(self, journal: Journal) -> None:
        """Make what was renamed durable; OSError where a directory has become a link, which leads elsewhere."""
        parents = dict.fromkeys(Path(entry.path).parent for entry in journal.entries)
        for directory in [side / parent for parent in parents for side in (self.drive, self._other)]:
            with opened_directory(directory) as opened:
                os.fsync(opened)

    def _apply(self, journal: Journal, until_quiet: Callable[[], bool]) -> None:
        self._sync(journal)
        if journal.version == 1:
            self._part_names(journal)
        if self._take_away(journal) and not until_quiet():
            raise _NotQuietError
        for entry in journal.entries:
            self._exchange(entry)
        self._sync(journal)
        journal.is_done = True
        self._write(journal)

    def _aside(self, inode: int | None) -> Path:
        """A third place, which no bucket has; the journal tells whose it is."""
        return self._area / f"{inode}.aside"

    def _take_away(self, journal: Journal) -> bool:
        """Take the buckets away that go, or that others replace, and say whether there are any.

        A server that has read an object's `xl.meta` by then finds no directory to put the next one into, or has put
        it; whoever comes now fails. So none writes what it read on one side into the other.
        """
        going = [
            entry for entry in journal.entries if entry.before is not None and not entry.path.startswith(f"{SYSTEM}/")
        ]
        for entry in going:
            live = self.drive / entry.path
            if _inode(live) == entry.before:
                _move(live, self._aside(entry.before))
        return any(self._laid_aside(entry.before, entry).exists() for entry in going)

    def _exchange(self, entry: Entry) -> None:
        """From wherever it got to, in either direction."""
        live, other = self.drive / entry.path, self._other / entry.path
        after, before = self._laid_aside(entry.after, entry), self._laid_aside(entry.before, entry)
        if _inode(live) not in (entry.before, entry.after, None):
            self._clear(live, home=next((path for path in (before, after) if path.exists()), None))
        if entry.before is not None and _inode(live) == entry.before:
            if entry.after is None:
                _move(live, other)
                return
            if not after.exists() and renamed(live, other, Renaming.EXCHANGE):
                return
            before = self._aside(entry.before)
            _move(live, before)
        if entry.after is not None and _inode(live) is None:
            _move(after if after.exists() else other, live)
        if before.exists():
            _move(before, other)

    def _laid_aside(self, inode: int | None, entry: Entry) -> Path:
        """Where one of an entry's two is while it is at neither place."""
        # Where journals of the first version have it, which may be another bucket.
        earlier = self._other / f"{entry.path}.aside"
        return earlier if inode is not None and _inode(earlier) == inode else self._aside(inode)

    def _part_names(self, journal: Journal) -> None:
        """Lay aside what an agent took for one bucket's that was another's, with `.aside` at the end of its name."""
        inodes = {inode for entry in journal.entries for inode in (entry.before, entry.after)} - {None}
        for entry in journal.entries:
            other = self._other / entry.path
            inode = _inode(other)
            if inode is not None and inode in inodes and inode not in (entry.before, entry.after):
                other.rename(self._aside(inode))

    def _clear(self, live: Path, *, home: Path | None) -> None:
        """What a server made anew that started on a half exchanged drive, or that ended a write of a new object while
        the bucket was away; what clients put into it goes to where it belongs, or is kept.

        Args:
            home: the bucket, while it is away.
        """
        try:
            live.rmdir()
        except OSError:
            if home is not None:
                _move_missing(live, home)
            strays = self._area / _STRAYS
            strays.mkdir(exist_ok=True)
            live.rename(strays / f"{_inode(live)}")

    def _take_back(self, journal: Journal, until_quiet: Callable[[], bool]) -> None:
        noted = self._read()
        if noted.is_done and noted.target != journal.target:
            # It failed before its first step.
            return
        back = reversed_of(journal)
        try:
            self._write(back)
            self._apply(back, lambda: until_quiet() or True)
        except OSError as failure:
            raise UnsettledError from failure

    def _read(self) -> Journal:
        # Without one, nothing was exchanged yet.
        return self._noted() or nothing_yet()

    def _noted(self) -> Journal | None:
        try:
            with self.in_area() as area:
                return read_journal(area)
        except AreaGoneError:
            return None

    def _write(self, journal: Journal, *, coming: Journal | None = None) -> None:
        with self.in_area() as area:
            write_journal(journal, area, coming=coming)


def _move_missing(
    source: str | Path, target: str | Path, *, parents: tuple[int | None, int | None] = (None, None)
) -> None:
    """What is in a directory and not in another, into that; an object's files are all there, or none."""
    with (
        # Its server's, which may have put something else there.
        contextlib.suppress(NotADirectoryError),
        opened_directory(source, parents[0]) as below,
        opened_directory(target, parents[1]) as there,
    ):
        for name in os.listdir(below):
            try:
                rename_without_replacing(name, source=below, target=there)
            except FileExistsError:
                _move_missing(name, name, parents=(below, there))


def _move(source: Path, target: Path) -> None:
    if renamed(source, target, Renaming.NO_REPLACE):
        return
    if _inode(target) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(source))
    source.rename(target)


def _inode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None
