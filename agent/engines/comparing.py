"""What becomes of each file when a staged tree takes the place of an app's, for a preview.

Told by name, size, time of change, permissions and owner, as rsync does; content is read only of what is small and
differs in its time. Databases are compared by what is in their tables: a snapshot never has the bytes of the file
that an app has open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.archives.members import SQLITE_SIDECARS
from agent.archives.opened_path import OpenedPath
from agent.archives.surveying import Survey, begins_as_database, survey
from agent.archives.walking import Found
from agent.engines.filesystem import FILE, opened_directory
from agent.engines.sqlite.questions import Questions
from agent.engines.sqlite.snapshots import ask_database
from agent.engines.sqlite.uploads import check_database
from agent.item_changes import ItemChanges
from common.errors import ArchiveRefusedError, ServiceError

_SECONDS = 5.0
"""For each of the two trees: a million files on a machine at rest."""
_SMALL_BYTES = 64 << 10
_READ_BYTES = 32 << 20
"""Of small files, all together."""
_SECOND_NS = 1_000_000_000
_DATABASES_READ = 8
_DATABASE_BYTES = 32 << 20
_DATABASES_SECONDS = 5.0
_LISTED = 1000
_CONTENT = Questions(with_content=True)


@dataclass
class Compared:
    """Two trees counted, and what becomes of the things in them: files, links, databases.

    Attributes:
        items: without what could not be compared in time.
    """

    now: Survey = field(default_factory=Survey)
    after: Survey = field(default_factory=Survey)
    items: dict[str, ItemChanges] = field(default_factory=dict)


async def compare_trees(
    now: Path, after: Path, *, is_left_out: Callable[[str, str], bool] = lambda path, name: False
) -> Compared:
    """Count and compare, within some seconds.

    Args:
        is_left_out: of both trees, as in `walking.walk`.
    Raises:
        OSError: one of them is not there. SourceUnreadableError: the storage fails.
    """
    with opened_directory(now.resolve()) as now_root, opened_directory(after.resolve()) as after_root:
        comparison = _Comparison(now_root, after_root)
        counted_now, counted_after = await asyncio.gather(
            asyncio.to_thread(
                survey,
                now,
                seconds=_SECONDS,
                is_left_out=is_left_out,
                find_databases=True,
                on_found=comparison.found_now,
            ),
            asyncio.to_thread(
                survey,
                after,
                seconds=_SECONDS,
                is_left_out=is_left_out,
                find_databases=True,
                on_found=comparison.found_after,
            ),
        )
        comparison.close()
    compared = Compared(counted_now, counted_after)
    if counted_now.is_complete and counted_after.is_complete:
        compared.items = comparison.items()
        if databases := await _compare_databases(now, after, comparison.databases_now, comparison.databases_after):
            compared.items["databases"] = databases
    return compared


class _Comparison:
    """Fed with the entries of both trees, in two threads: one counts what is removed, the other one all else."""

    def __init__(self, now: int, after: int) -> None:
        self.databases_now: set[str] = set()
        self.databases_after: set[str] = set()
        self._now = OpenedPath(now, _make_none)
        self._after = OpenedPath(after, _make_none)
        self._counted: dict[str, Counter[str]] = {"files": Counter(), "links": Counter()}
        self._budget = _READ_BYTES

    def close(self) -> None:
        self._now.close()
        self._after.close()

    def items(self) -> dict[str, ItemChanges]:
        """By kind; without kinds of which there is nothing."""
        return {kind: ItemChanges(**counted) for kind, counted in self._counted.items() if counted}

    def found_now(self, found: Found, is_database: bool) -> None:
        """An entry of the app's tree."""
        kind = self._kind(found, is_database, self.databases_now)
        if kind and _kind_of(_status(self._after, found.path)) != kind:
            self._counted[kind]["removed"] += 1

    def found_after(self, found: Found, is_database: bool) -> None:
        """An entry of the staged tree."""
        kind = self._kind(found, is_database, self.databases_after)
        if not kind:
            return
        counted = self._counted[kind]
        there = _status(self._now, found.path)
        if there is None or _kind_of(there) != kind:
            counted["added"] += 1
            return
        is_same = self._is_same(found, there) if kind == "files" else _has_same_target(found, self._now)
        if is_same is None:
            counted["not_compared"] += 1
        elif is_same:
            counted["same"] += 1
        else:
            counted["changed"] += 1

    def _kind(self, found: Found, is_database: bool, databases: set[str]) -> str:
        """Empty for what is not counted here: directories, databases and their side files."""
        if is_database:
            # One more than are looked at says that there are more.
            if len(databases) <= _LISTED:
                databases.add(found.path)
            return ""
        for ending in SQLITE_SIDECARS:
            if found.name.endswith(ending) and begins_as_database(found.name.removesuffix(ending), found.parent):
                return ""
        return _kind_of(found.status)

    def _is_same(self, found: Found, there: os.stat_result) -> bool | None:
        """None: that would take too long to find out."""
        size = found.status.st_size
        if size != there.st_size or _rights(found.status) != _rights(there):
            return False
        if _is_same_time(there.st_mtime_ns, found.status.st_mtime_ns) or not size:
            return True
        if size > _SMALL_BYTES or size > self._budget:
            return None
        self._budget -= size
        directory = self._now.directory(tuple(found.path.split("/")[:-1]), create=False)
        try:
            return _read(found.name, found.parent) == _read(found.name, directory)
        except OSError:
            return None


def _make_none(name: str, parent: int) -> None:
    raise FileNotFoundError(name)


def _status(tree: OpenedPath, path: str) -> os.stat_result | None:
    """Of what lies under the same path; None where that is not there, or is reached by a link only."""
    *directories, name = path.split("/")
    with contextlib.suppress(OSError, ArchiveRefusedError):
        parent = tree.directory(tuple(directories), create=False)
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    return None


def _rights(status: os.stat_result) -> tuple[int, int, int]:
    """Staged files have those that the import gives them."""
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def _kind_of(status: os.stat_result | None) -> str:
    if status is None:
        return ""
    if stat.S_ISREG(status.st_mode):
        return "files"
    return "links" if stat.S_ISLNK(status.st_mode) else ""


def _is_same_time(now_ns: int, after_ns: int) -> bool:
    """Most archives know whole seconds only."""
    if now_ns == after_ns:
        return True
    return after_ns % _SECOND_NS == 0 and now_ns // _SECOND_NS == after_ns // _SECOND_NS


def _has_same_target(found: Found, tree: OpenedPath) -> bool | None:
    directory = tree.directory(tuple(found.path.split("/")[:-1]), create=False)
    try:
        return os.readlink(found.name, dir_fd=found.parent) == os.readlink(found.name, dir_fd=directory)
    except OSError:
        return None


def _read(name: str, parent: int) -> bytes:
    with open(os.open(name, FILE, dir_fd=parent), "rb") as file:
        return file.read(_SMALL_BYTES)


async def _compare_databases(now: Path, after: Path, there: set[str], staged: set[str]) -> ItemChanges | None:
    """None where there are none, or too many."""
    if max(len(there), len(staged)) > _LISTED or not (there or staged):
        return None
    told_now: dict[str, object] = dict.fromkeys(there)
    told_after: dict[str, object] = dict.fromkeys(staged)
    small = [path for path in sorted(there & staged) if _are_small(now / path, after / path)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DATABASES_SECONDS):
            for path in small[:_DATABASES_READ]:
                # An upload in its jail, the app's own as for an export.
                with contextlib.suppress(ServiceError):
                    told_after[path] = (await check_database(after / path, questions=_CONTENT)).answers.content
                    told_now[path] = (await ask_database(now, path, _CONTENT)).content
    return ItemChanges.between(told_now, told_after)


def _are_small(now: Path, after: Path) -> bool:
    try:
        sizes = [path.stat(follow_symlinks=False).st_size for path in (now, after)]
    except OSError:
        return False
    return max(sizes) <= _DATABASE_BYTES and not any(Path(f"{after}{ending}").exists() for ending in SQLITE_SIDECARS)
