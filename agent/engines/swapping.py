"""The content of a directory exchanged for another's, entirely or not at all, whatever ends us in between.

A volume is a mount point and cannot be renamed itself, so its entries move one by one: first all that is there goes
out, then the other side's comes in. A journal beside them says which, and `recover` finishes what a crash interrupted:
backwards while things were still going out, forwards once they were coming in. Only plain renames within one mount are
used, since exchanging two directories at once is not to be had on every filesystem.

The one fact to know: there are two sides, and each has a directory where its data is kept while the other's is in
place. So restoring and undoing are one operation, and one that was taken back is the other one finished.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent.archives.members import KEPT_NAMES, printable
from agent.engines.areas import AreaGoneError, opened_area, unusable
from agent.engines.filesystem import (
    DIRECTORY,
    immovable,
    is_full,
    opened_directory,
    own_directory,
    read_small_file,
    rename_without_replacing,
    sync_filesystem,
)
from agent.engines.noting import count_kept, has_as_many, no_room, write_note
from agent.versions import require_known
from common.errors import AppBusyError, InternalError, ToolFailedError
from common.seals import RESERVED_DIRECTORY

_JOURNAL, _VERSION = "swap.json", 1
_JOURNAL_BYTES = 256
"""More than it ever has."""
_MOST_JOURNAL_BYTES = 64 << 10
"""Blanks follow it in the file."""
_STRAYS = "strays"


def obstacle_to(volume: Path, names: Collection[str] | None = None) -> str:
    """What at a volume's top could not be exchanged, and why; empty when nothing is known to stand in the way.

    Args:
        names: as for `Swap`.
    """
    # What is gone meanwhile, or cannot be seen, is met by others.
    with contextlib.suppress(OSError), opened_directory(volume.resolve()) as directory:
        try:
            with own_directory(RESERVED_DIRECTORY, directory):
                pass
        except FileNotFoundError:
            pass
        except OSError as failure:
            return (
                f"{RESERVED_DIRECTORY} in {volume}, where the agent keeps what an import needs, is not its own: "
                f"{failure.strerror}. Move it away; an archive that was unpacked by hand leaves one."
            )
        for name in _taking_part(directory, names):
            if reason := immovable(name, directory):
                return f"{printable(name)} in {volume} cannot be moved: {reason}."
    return ""


class Side(enum.Enum):
    """Whose data is in place; the value is the directory where it is kept while it is not."""

    PREVIOUS = "old"
    IMPORTED = "new"

    @property
    def other(self) -> Side:
        return Side.IMPORTED if self is Side.PREVIOUS else Side.PREVIOUS


class _Phase(enum.Enum):
    OUT = "out"
    IN = "in"
    DONE = "done"


class _Journal(NamedTuple):
    """How far a swap came.

    Attributes:
        target: whose data comes, or is there.
        entries: of the other's data at the top, once it is done or staged; 0: not known.
        entries_below: of the same data, those at the top and all below; 0: not counted.
    """

    target: Side
    phase: _Phase
    entries: int
    entries_below: int


_NOTHING_SWAPPED = _Journal(Side.PREVIOUS, _Phase.DONE, entries=0, entries_below=0)


class Swap:
    """The swap of one import, in `<volume>/.mathison-data/<key>`."""

    def __init__(self, volume: Path, key: str, *, names: Collection[str] | None = None) -> None:
        """
        Args:
            names: the entries at the top that take part, the same each time; None: all.
        """
        self._volume = volume
        self._key = key
        self._names = None if names is None else frozenset(names)

    def kept(self) -> Side | None:
        """Whose data is kept beside what is in place; None: nobody's, or not all of it any more, or a swap is
        unfinished.
        """
        with contextlib.suppress(AreaGoneError), self._opened() as opened:
            journal = _read(opened.area)
            side = journal.target.other
            directory = opened.directory(side)
            has_all = len(opened.entries(directory)) >= journal.entries and has_as_many(
                directory, journal.entries_below
            )
            return side if journal.phase is _Phase.DONE and has_all else None
        return None

    def note_staged(self) -> None:
        """At the end of staging: the first that is noted, see `note_kept`."""
        self._note(_NOTHING_SWAPPED)

    def note_kept(self) -> None:
        """Note how much there is of what is staged or kept, so that `kept` tells when somebody removed some of it.

        Does nothing where that was noted, or some of it is gone already, as what was noted of the swap may be, or it is
        unfinished.

        Raises:
            ToolFailedError: the volume cannot be written to.
        """
        self._note(None)

    def _note(self, first: _Journal | None) -> None:
        with self._opened() as opened:
            journal = _noted(opened.area) or first
            if journal is None:
                return
            at_top = len(opened.entries(opened.directory(journal.target.other)))
            if journal.phase is not _Phase.DONE or journal.entries_below or at_top < journal.entries:
                return
            try:
                _settle(opened, journal.target, counts_below=True)
            except OSError as failure:
                raise ToolFailedError(
                    f"How much is kept beside the app's data could not be noted on the volume: {failure.strerror}."
                ) from failure

    def is_unfinished(self) -> bool:
        """Whether `recover` has something to do; False as well when nothing of the import is there."""
        journal = self._journal()
        return journal is not None and journal.phase is not _Phase.DONE

    def bring(self, target: Side) -> None:
        """Put a side's data in place and keep the other's; the app is stopped. Repeating it changes nothing.

        Raises:
            AppBusyError: something wrote to the volume meanwhile; the data is as it was.
            NoSpaceError: there is no room for the journal; the data is as it was.
            ToolFailedError: the filesystem refused; the data is as it was, or `recover` is needed when that failed too.
        """
        with self._opened() as opened:
            journal = _read(opened.area)
            if journal.target is target and journal.phase is _Phase.DONE:
                return
            if opened.entries(opened.directory(target.other)):
                raise InternalError(f"There is something in {target.other.value!r} of import {self._key} already.")
            try:
                sync_filesystem(opened.volume)
                self._run(opened, target)
            except OSError as failure:
                self._recover_backwards(opened, target)
                if isinstance(failure, FileExistsError):
                    raise AppBusyError(
                        f"Something wrote {failure.filename!r} to the volume while its data was exchanged; the data "
                        "is as it was.",
                        next_step="See that the app is stopped by its stop command, then try again.",
                    ) from failure
                if is_full(failure):
                    raise no_room("volume") from failure
                name = f"{printable(failure.filename)}: " if isinstance(failure.filename, str) else ""
                raise ToolFailedError(
                    "The data of the volume could not be exchanged; the data is as it was. "
                    + (obstacle_to(self._volume, self._names) or f"{name}{failure.strerror}."),
                    next_step="Correct that, then try again.",
                ) from failure

    def recover(self) -> Side | None:
        """Finish what was interrupted and say whose data is in place; None when nothing of the import is there that
        tells.

        Repeating it changes nothing. How much is there of what a finished swap keeps makes no difference.
        """
        journal = self._journal()
        if journal is None or journal.phase is _Phase.DONE:
            return journal and journal.target
        with self._opened() as opened:
            target = journal.target.other if journal.phase is _Phase.OUT else journal.target
            opened.move_all(opened.directory(target), opened.volume, with_strays=True)
            return _settle(opened, target)

    def _journal(self) -> _Journal | None:
        """None: nothing of the import is there, or nothing that tells."""
        with contextlib.suppress(AreaGoneError), opened_area(self._volume, self._key) as opened:
            return _noted(opened.area)
        return None

    def _run(self, opened: _Opened, target: Side) -> None:
        _write(opened, target, _Phase.OUT)
        opened.move_all(opened.volume, opened.directory(target.other))
        if appeared := opened.entries(opened.volume):
            raise FileExistsError(0, "appeared meanwhile", appeared[0])
        opened.sync()
        _write(opened, target, _Phase.IN)
        opened.move_all(opened.directory(target), opened.volume)
        _settle(opened, target)

    def _recover_backwards(self, opened: _Opened, target: Side) -> None:
        """After a failure, not a crash: back to the other side, from wherever it got to."""
        try:
            journal = _read(opened.area)
            if journal.phase is _Phase.DONE and journal.target is target.other:
                # It failed before its first step.
                return
            if journal.phase is not _Phase.OUT:
                _write(opened, target.other, _Phase.OUT)
                opened.move_all(opened.volume, opened.directory(target), with_strays=True)
                _write(opened, target.other, _Phase.IN)
            opened.move_all(opened.directory(target.other), opened.volume, with_strays=True)
            _settle(opened, target.other)
        except OSError as failure:
            raise ToolFailedError(
                f"The exchange of the volume's data failed half-way and could not be taken back: {failure.strerror}.",
                next_step="Correct the cause; the agent finishes the exchange by itself.",
            ) from failure

    @contextmanager
    def _opened(self) -> Iterator[_Opened]:
        with contextlib.ExitStack() as stack:
            volume, _, area = stack.enter_context(opened_area(self._volume, self._key))
            try:
                sides = {side: stack.enter_context(opened_directory(side.value, area)) for side in Side}
            except OSError as failure:
                raise unusable(failure, self._key) from failure
            yield _Opened(volume, area, sides, self._names)


@dataclass(frozen=True)
class _Opened:
    """Descriptors of the directories that take part."""

    volume: int
    area: int
    sides: dict[Side, int]
    names: frozenset[str] | None

    def directory(self, side: Side) -> int:
        return self.sides[side]

    def sync(self) -> None:
        for descriptor in (self.volume, *self.sides.values()):
            os.fsync(descriptor)

    def entries(self, directory: int) -> list[str]:
        """Of those that take part, what a directory holds."""
        return _taking_part(directory, self.names)

    def move_all(self, source: int, target: int, *, with_strays: bool = False) -> None:
        """Move all that takes part.

        Args:
            with_strays: put aside what has taken an entry's place meanwhile; otherwise that is a FileExistsError.
        """
        for name in self.entries(source):
            try:
                _move(name, source, target)
            except FileExistsError:
                if not with_strays:
                    raise
                _set_aside(name, target, self)
                _move(name, source, target)


def _taking_part(directory: int, names: Collection[str] | None) -> list[str]:
    found = set(os.listdir(directory)) - KEPT_NAMES
    return sorted(found if names is None else found.intersection(names))


def _move(name: str, source: int, target: int) -> None:
    try:
        rename_without_replacing(name, source=source, target=target)
    except PermissionError as refusal:
        try:
            # Not to be read, which may be what is forbidden.
            directory = os.open(name, os.O_PATH | DIRECTORY, dir_fd=source)
        except OSError:
            raise refusal from None
        try:
            _move_locked(name, f"/proc/self/fd/{directory}", source, target)
        except PermissionError:
            raise refusal from None
        finally:
            os.close(directory)


def _move_locked(name: str, directory: str, source: int, target: int) -> None:
    """A directory's own ".." changes, so it has to be writable itself; root needs no such help."""
    mode = stat.S_IMODE(os.stat(directory).st_mode)
    os.chmod(directory, mode | stat.S_IWUSR)
    try:
        rename_without_replacing(name, source=source, target=target)
    finally:
        os.chmod(directory, mode)


def _set_aside(name: str, directory: int, opened: _Opened) -> None:
    """Keep what an app started too early has written, until the import is forgotten."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(_STRAYS, 0o700, dir_fd=opened.area)
    lot = f"{_STRAYS}/{secrets.token_hex(6)}"
    os.mkdir(lot, 0o700, dir_fd=opened.area)
    descriptor = os.open(lot, DIRECTORY, dir_fd=opened.area)
    try:
        _move(name, directory, descriptor)
    finally:
        os.close(descriptor)


def _settle(opened: _Opened, side: Side, *, counts_below: bool = False) -> Side:
    opened.sync()
    kept = opened.directory(side.other)
    below = count_kept(kept) if counts_below else 0
    _write(opened, side, _Phase.DONE, entries=len(opened.entries(kept)), entries_below=below)
    return side


def _write(opened: _Opened, target: Side, phase: _Phase, *, entries: int = 0, entries_below: int = 0) -> None:
    noted = {
        "version": _VERSION,
        "target": target.value,
        "phase": phase.value,
        "kept": entries,
        "kept_below": entries_below,
    }
    write_note(_JOURNAL, json.dumps(noted).encode(), room_bytes=_JOURNAL_BYTES, area=opened.area)


def _read(area: int) -> _Journal:
    return _noted(area) or _NOTHING_SWAPPED


def _noted(area: int) -> _Journal | None:
    try:
        content = read_small_file(_JOURNAL, parent=area, most_bytes=_MOST_JOURNAL_BYTES)
        require_known(content, [_VERSION], "An exchange of the volume's data")
        written = json.loads(content)
        # An older agent wrote no numbers.
        entries, below = (int(written.get(name, 0)) for name in ("kept", "kept_below"))
        return _Journal(Side(written["target"]), _Phase(written["phase"]), entries, below)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is damaged"
        raise InternalError(f"The journal {_JOURNAL!r} of a swap cannot be read: {reason}.") from failure
