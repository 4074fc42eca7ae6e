"""All that a directory holds, depth first, without following a link and without holding a list of it.

Each directory is opened below the one that was opened before, so nothing that happens to names meanwhile leads out.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from agent.archives.members import KEPT_NAMES, MAX_DEPTH, printable
from agent.archives.tallies import Tally
from common.errors import SourceUnreadableError

_SORTED_AT_ONCE = 10_000
"""Names of a directory are sorted in lots of this many: the same order every time for all but huge directories."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Found:
    """An entry of a directory.

    Attributes:
        path: below the start, without a leading slash.
        parent: descriptor of the directory that holds it; valid until the next entry is asked for, as is `descriptor`.
        status: of the entry itself, links not followed.
        descriptor: of a directory, opened; -1 for everything else.
    """

    path: str
    name: str
    parent: int
    status: os.stat_result
    descriptor: int = -1

    @property
    def is_directory(self) -> bool:
        return self.descriptor >= 0


class Unreadable(Tally):
    """What may not be read."""

    most_named = 20

    def raise_if_any(self) -> None:
        """SourceUnreadableError with what was added."""
        if self.count:
            names = ", ".join(printable(path) for path in self.paths)
            more = f" and {self.count - len(self.paths)} more" if self.count > len(self.paths) else ""
            raise SourceUnreadableError(
                f"The agent (uid {os.geteuid()}) may not read {names}{more}; without them an export is not whole.",
                next_step="Run the agent under the app's uid, correct the permissions, or exclude these paths.",
            )


def walk(
    start: int,
    *,
    is_left_out: Callable[[str, str], bool] = lambda path, name: False,
    on_vanished: Callable[[str], None] = lambda path: None,
    on_unreadable: Callable[[str], None] = lambda path: None,
) -> Iterator[Found]:
    """The entries below a directory, a directory before what it holds.

    Args:
        start: descriptor of the directory; stays open.
        is_left_out: by path and name; what a directory so left out holds is left out too.
        on_vanished: called for what was deleted between its listing and its turn.
        on_unreadable: called for directories that may not be opened.
    Raises:
        SourceUnreadableError: deeper than MAX_DEPTH, or the storage fails.
    """
    levels = [_Level(os.dup(start), "")]
    try:
        while levels:
            level = levels[-1]
            try:
                name = next(level.names, None)
            except OSError as failure:
                raise storage_failed(level.prefix or ".", failure) from failure
            if name is None:
                levels.pop().close()
                continue
            path = level.prefix + name
            if (len(levels) == 1 and name in KEPT_NAMES) or is_left_out(path, name):
                continue
            if len(levels) > MAX_DEPTH:
                raise SourceUnreadableError(
                    f"{printable(path)} lies more than {MAX_DEPTH} names deep, deeper than an archive may be."
                )
            try:
                found = Found(
                    path, name, level.descriptor, os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
                )
                if stat.S_ISDIR(found.status.st_mode):
                    found.descriptor = os.open(name, _DIRECTORY, dir_fd=level.descriptor)
            except PermissionError:
                on_unreadable(path)
                continue
            except (FileNotFoundError, NotADirectoryError):
                on_vanished(path)
                continue
            except OSError as failure:
                raise storage_failed(path, failure) from failure
            if found.is_directory:
                levels.append(_Level(found.descriptor, f"{path}/"))
            yield found
    finally:
        for level in levels:
            level.close()


def left_out_by(patterns: Sequence[str]) -> Callable[[str, str], bool]:
    """A test of paths against shell patterns: one with a slash is of the whole path, one without of any name."""
    of_paths = _either([pattern.strip("/") for pattern in patterns if "/" in pattern.rstrip("/")])
    of_names = _either([pattern.rstrip("/") for pattern in patterns if "/" not in pattern.rstrip("/")])
    return lambda path, name: bool(of_names.fullmatch(name) or of_paths.fullmatch(path))


def storage_failed(path: str, failure: OSError) -> SourceUnreadableError:
    """The error for a path that the storage does not give out, for another reason than permissions."""
    return SourceUnreadableError(
        f"{printable(path)} cannot be read: {failure.strerror or failure}.", next_step="See whether the volume is well."
    )


class _Level:
    """A directory on the way down."""

    def __init__(self, descriptor: int, prefix: str) -> None:
        self.descriptor = descriptor
        self.prefix = prefix
        self.names = _names(descriptor)

    def close(self) -> None:
        self.names.close()
        os.close(self.descriptor)


def _names(descriptor: int) -> Generator[str, None, None]:
    """What it holds, in lots; where it all goes into one, nothing stays open."""
    with os.scandir(descriptor) as entries:
        while lot := sorted(entry.name for entry in itertools.islice(entries, _SORTED_AT_ONCE)):
            yield from lot


def _either(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)")
