"""A drive's data exchanged for another's, entirely or not at all, whatever ends us in between.

A drive is a mount point, so its entries are exchanged one by one: each bucket's directory and two of `.minio.sys`. A
journal beside them says which; an entry is done when the inode at its place is the one that it should be, so finishing
an interrupted exchange is doing it again. The server is frozen meanwhile, since a client could see a mixture; what it
had begun before goes on, so a bucket is first taken away, and the other comes when all of that has ended.

As in `agent.engines.swapping` there are two sides; the one that is not in place lies in `<key>/new` of the staging
area.

The drive is its server's, which may put a link in the way of any path at any time; so what is exchanged is named within
directories that are held open from before the first step to after the last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from agent.engines.areas import Area, AreaGoneError, opened_area
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
from agent.engines.subtrees import remove_tree
from agent.engines.swapping import Side
from agent.unsettled import UnsettledError
from common.errors import AppBusyError, InternalError, ServiceError, ToolFailedError
from common.seals import RESERVED_DIRECTORY

_STRAYS = "strays"
_MORE_BUCKETS = 200
"""That clients may make until an undo."""
_MOST_LINKS = 30_000
"""Of a file; ext4 takes 65,000."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class _NotQuietError(Exception):
    pass


class _Place(NamedTuple):
    """An entry of a directory that is held open."""

    parent: int
    name: str

    def inode(self) -> int | None:
        """Of what lies there; None: nothing."""
        return _inode_of(self.name, self.parent)


class _Held(NamedTuple):
    """The directories, held open, whose entries are exchanged, by their paths below either side."""

    top: int
    live: dict[str, int]
    other: dict[str, int]

    def live_at(self, path: str) -> _Place:
        """An entry of the data in place."""
        return _Place(self.live[_parent_of(path)], PurePosixPath(path).name)

    def other_at(self, path: str) -> _Place:
        """An entry of the data that is not."""
        return _Place(self.other[_parent_of(path)], PurePosixPath(path).name)

    def require_in_place(self) -> None:
        """OSError where the path of one leads elsewhere by now: what is exchanged in it is not what a server finds."""
        for path, descriptor in self.live.items():
            with contextlib.ExitStack() as stack:
                found = _opened_below(self.top, path, stack)
                if not os.path.samestat(os.fstat(found), os.fstat(descriptor)):
                    raise OSError(errno.ESTALE, "the server has put something else in the place of a directory", path)


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
        self._opened: Area | None = None

    @contextmanager
    def in_area(self) -> Iterator[int]:
        """Have the area, whose descriptor this is, opened for the time of the block; raises as `opened_area`."""
        if self._opened is not None:
            yield self._opened.area
            return
        with opened_area(self.drive, self.key) as opened:
            self._opened = opened
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
    def _descriptors(self) -> Area:
        if self._opened is None:
            raise RuntimeError("the area is not opened")
        return self._opened

    @property
    def _area(self) -> Path:
        # The path on the drive may lead elsewhere at any time: its top is the server's.
        return Path(f"/proc/self/fd/{self._descriptors.area}")

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
        if not all(_inode_of(self._other / entry.path) == entry.before for entry in kept):
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
            self._make_system()
            (self._area / _STRAYS).mkdir(exist_ok=True)
            with opened_directory(self._other) as other:
                journal.kept_below = count_kept(other)
            with self._planned() as (_, entries):
                self._write(journal, coming=begun(Side(journal.target).other, entries))
                if not journal.entries:
                    self._make_room_aside(len(entries))
        except OSError as failure:
            raise ToolFailedError(
                f"How much is kept beside the app's data could not be noted on the drive: {failure.strerror}."
            ) from failure

    def _make_room_aside(self, entries: int) -> None:
        """Have the area's directory grow by now to hold what is laid aside, in either direction: one of ext4 keeps its
        size, and none grows on a full drive. Others may know no links, or count each as a file; theirs do not grow so.
        """
        area = self._descriptors.area
        # Twice as many, since names do not spread evenly, each as long as the longest of an inode.
        names = [f"{number:020}.spare" for number in range(2 * (entries + _MORE_BUCKETS))]
        try:
            with contextlib.suppress(OSError):
                for number, name in enumerate(names):
                    if number % _MOST_LINKS:
                        os.link(names[number - number % _MOST_LINKS], name, src_dir_fd=area, dst_dir_fd=area)
                    else:
                        os.close(os.open(name, _NEW, 0o600, dir_fd=area))
        finally:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=area)

    @_within(in_area)
    def prepare(self) -> None:
        """Make what was staged durable; before the freeze, since it may take long.

        Raises:
            ToolFailedError: the storage fails.
        """
        try:
            sync_filesystem(self._descriptors.volume)
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
            with self._planned() as (held, entries):
                journal = begun(target, entries)
                _sync(held)

                def is_quiet() -> bool:
                    found = until_quiet()
                    held.require_in_place()
                    return found

                try:
                    self._write(journal)
                    self._apply(journal, held, is_quiet)
                except (OSError, _NotQuietError):
                    self._take_back(journal, held, until_quiet)
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
                with self._holding(entry.path for entry in journal.entries) as held:
                    self._apply(journal, held, lambda: until_quiet() or True)
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
        gone = [entry.path for entry in journal.entries if entry.after is None]
        with contextlib.suppress(OSError), self._holding([*gone, f"{BUCKETS}/x"]) as held:
            settings = held.live[BUCKETS]
            for path in gone:
                place = held.live_at(path)
                if self.only or _Place(settings, place.name).inode() is None:
                    with contextlib.suppress(OSError):
                        os.rmdir(place.name, dir_fd=place.parent)
            if self.only and _Place(held.top, self.only).inode() is None:
                remove_tree(self.only, parent=settings)

    def _make_other(self) -> None:
        """Where entries of the side that is in place may have to go."""
        (self._other / (BUCKETS if self.only else SYSTEM)).mkdir(parents=True, exist_ok=True)

    def _make_system(self) -> None:
        """Where entries may have to go; MinIO has no directory for settings while there are no buckets."""
        self._make_other()
        if not self.only:
            return
        with opened_directory(SYSTEM, self._descriptors.volume) as system:
            settings = _Place(system, PurePosixPath(BUCKETS).name)
            if settings.inode() is None:
                os.mkdir(settings.name, dir_fd=system)
                if os.geteuid() == 0:
                    owner = os.fstat(system)
                    os.chown(settings.name, owner.st_uid, owner.st_gid, dir_fd=system, follow_symlinks=False)

    @contextmanager
    def _planned(self) -> Iterator[tuple[_Held, list[Entry]]]:
        """What is to be exchanged by now, its directories held open; OSError where one of them is a link."""
        if self.only:
            paths = [self.only, f"{BUCKETS}/{self.only}"]
        else:
            found = dict.fromkeys([*data_roots(self.drive), *data_roots(self._other)])
            if not (self._other / CONFIG).is_dir():
                # The import keeps the server's users and configuration.
                found.pop(CONFIG, None)
            paths = list(found)
        with self._holding(paths) as held:
            yield held, [Entry(path, held.live_at(path).inode(), held.other_at(path).inode()) for path in paths]

    @contextmanager
    def _holding(self, paths: Iterable[str]) -> Iterator[_Held]:
        """The directories of entries held open, on both sides; OSError where one is not there, or is a link."""
        parents = dict.fromkeys(map(_parent_of, paths))
        with contextlib.ExitStack() as stack:
            top = self._descriptors.volume
            other = stack.enter_context(opened_directory(self._other))
            live = {parent: _opened_below(top, parent, stack) for parent in parents}
            yield _Held(top, live, {parent: _opened_below(other, parent, stack) for parent in parents})

    def _apply(self, journal: Journal, held: _Held, until_quiet: Callable[[], bool]) -> None:
        _sync(held)
        if journal.version == 1:
            self._part_names(journal, held)
        if self._take_away(journal, held) and not until_quiet():
            raise _NotQuietError
        for entry in journal.entries:
            self._exchange(entry, held)
        _sync(held)
        journal.is_done = True
        self._write(journal)

    def _aside(self, inode: int | None) -> _Place:
        """A third place, which no bucket has; the journal tells whose it is."""
        return _Place(self._descriptors.area, f"{inode}.aside")

    def _take_away(self, journal: Journal, held: _Held) -> bool:
        """Take the buckets away that go, or that others replace, and say whether there are any.

        A server that has read an object's `xl.meta` by then finds no directory to put the next one into, or has put
        it; whoever comes now fails. So none writes what it read on one side into the other.
        """
        going = [
            entry for entry in journal.entries if entry.before is not None and not entry.path.startswith(f"{SYSTEM}/")
        ]
        for entry in going:
            live = held.live_at(entry.path)
            if live.inode() == entry.before:
                _move(live, self._aside(entry.before))
        return any(self._laid_aside(entry.before, entry, held).inode() is not None for entry in going)

    def _exchange(self, entry: Entry, held: _Held) -> None:
        """From wherever it got to, in either direction."""
        live, other = held.live_at(entry.path), held.other_at(entry.path)
        after, before = (self._laid_aside(inode, entry, held) for inode in (entry.after, entry.before))
        if live.inode() not in (entry.before, entry.after, None):
            self._clear(live, home=next((place for place in (before, after) if place.inode() is not None), None))
        if entry.before is not None and live.inode() == entry.before:
            if entry.after is None:
                _move(live, other)
                return
            if after.inode() is None and _renamed(live, other, Renaming.EXCHANGE):
                return
            before = self._aside(entry.before)
            _move(live, before)
        if entry.after is not None and live.inode() is None:
            _move(after if after.inode() is not None else other, live)
        if before.inode() is not None:
            _move(before, other)

    def _laid_aside(self, inode: int | None, entry: Entry, held: _Held) -> _Place:
        """Where one of an entry's two is while it is at neither place."""
        # Where journals of the first version have it, which may be another bucket.
        earlier = held.other_at(f"{entry.path}.aside")
        return earlier if inode is not None and earlier.inode() == inode else self._aside(inode)

    def _part_names(self, journal: Journal, held: _Held) -> None:
        """Lay aside what an agent took for one bucket's that was another's, with `.aside` at the end of its name."""
        inodes = {inode for entry in journal.entries for inode in (entry.before, entry.after)} - {None}
        for entry in journal.entries:
            other = held.other_at(entry.path)
            inode = other.inode()
            if inode is not None and inode in inodes and inode not in (entry.before, entry.after):
                _rename(other, self._aside(inode))

    def _clear(self, live: _Place, *, home: _Place | None) -> None:
        """What a server made anew that started on a half exchanged drive, or that ended a write of a new object while
        the bucket was away; what clients put into it goes to where it belongs, or is kept.

        Args:
            home: the bucket, while it is away.
        """
        try:
            os.rmdir(live.name, dir_fd=live.parent)
        except OSError:
            if home is not None:
                _move_missing(live, home)
            with contextlib.suppress(FileExistsError):
                os.mkdir(_STRAYS, dir_fd=self._descriptors.area)
            with opened_directory(_STRAYS, self._descriptors.area) as strays:
                _rename(live, _Place(strays, f"{live.inode()}"))

    def _take_back(self, journal: Journal, held: _Held, until_quiet: Callable[[], bool]) -> None:
        noted = self._read()
        if noted.is_done and noted.target != journal.target:
            # It failed before its first step.
            return
        back = reversed_of(journal)
        try:
            self._write(back)
            self._apply(back, held, lambda: until_quiet() or True)
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


def _parent_of(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _opened_below(top: int, path: str, stack: contextlib.ExitStack) -> int:
    """A descriptor of a directory that no link leads to."""
    for name in PurePosixPath(path).parts:
        top = stack.enter_context(opened_directory(name, top))
    return top


def _sync(held: _Held) -> None:
    """Make what was renamed durable."""
    for descriptor in (*held.live.values(), *held.other.values()):
        os.fsync(descriptor)


def _move_missing(source: _Place, target: _Place) -> None:
    """What is in a directory and not in another, into that; an object's files are all there, or none."""
    with (
        # Its server's, which may have put something else there.
        contextlib.suppress(NotADirectoryError),
        opened_directory(source.name, source.parent) as below,
        opened_directory(target.name, target.parent) as there,
    ):
        for name in os.listdir(below):
            try:
                rename_without_replacing(name, source=below, target=there)
            except FileExistsError:
                _move_missing(_Place(below, name), _Place(there, name))


def _move(source: _Place, target: _Place) -> None:
    if _renamed(source, target, Renaming.NO_REPLACE):
        return
    if target.inode() is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source.name)
    _rename(source, target)


def _renamed(source: _Place, target: _Place, renaming: Renaming) -> bool:
    return renamed(source.name, target.name, renaming, source_parent=source.parent, target_parent=target.parent)


def _rename(source: _Place, target: _Place) -> None:
    os.rename(source.name, target.name, src_dir_fd=source.parent, dst_dir_fd=target.parent)


def _inode_of(path: str | Path, parent: int | None = None) -> int | None:
    try:
        return os.stat(path, dir_fd=parent, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None
