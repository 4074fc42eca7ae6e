"""Whether a portable archive holds together and a MinIO can store what it names, found out before anything is changed.

An export names each version in one line and each file of content in one of the lines, so a file that no line names, and
what is named twice, are signs of damage. What S3 allows and MinIO does not store is incompatible instead.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from agent.archives.members import MAX_NAME_BYTES, path_of, printable
from agent.engines.minio.drive.layout import is_bucket_name
from agent.engines.minio.drive.sums import short_number_of
from agent.engines.minio.portable.current_versions import CurrentVersions, nanoseconds_of
from agent.engines.minio.portable.form import (
    BUCKETS,
    METADATA,
    SETTINGS,
    VERSIONS,
    Line,
    stored_key,
    version_id,
)
from agent.engines.minio.portable.headers import obstacle
from agent.engines.minio.portable.lines import SUFFIX, no_lines
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError, ArchiveRefusedError

_NAMED = 5
LINKS = "The archive holds links; an export of objects has none."


class BucketCheck:
    """Looks at the lines of one bucket as they come.

    Attributes:
        has_versions: some can be kept only where versioning has been turned on.
    """

    def __init__(self, tree: Path, bucket: str, *, is_wanted: bool) -> None:
        """
        Args:
            is_wanted: False: nothing of it is going to be stored.
        """
        self._is_wanted = is_wanted
        self.has_versions = False
        self._tree = tree
        self._bucket = bucket
        self._current = CurrentVersions(bucket)
        self._versions = array("Q")
        self._files = array("Q")

    def meet(self, line: Line) -> None:
        """One line.

        Raises:
            ArchiveDamagedError: the content is not there.
            ArchiveIncompatibleError: a MinIO does not take it.
        """
        if self._is_wanted:
            _require_storable(self._bucket, line)
            self._current.meet(line)
        self.has_versions = self.has_versions or line.is_marker or version_id(line.version) != "null"
        self._versions.append(_number_of_version(line))
        if not line.is_marker:
            self._require_content(line)
            self._files.append(short_number_of(line.file))

    def finish(self, lines: Callable[[], Iterator[Line]]) -> None:
        """All lines were met.

        Args:
            lines: gives them once more, to name what is wrong.
        Raises:
            ArchiveDamagedError: something is there twice, or a file is in no line.
            ArchiveIncompatibleError: a MinIO would show another version than the latest.
        """
        if (twice := _repeated(self._versions)) is not None:
            key = next(line.key for line in lines() if _number_of_version(line) == twice)
            raise self._damaged(f"a version of {printable(key)} is in it twice")
        if (twice := _repeated(self._files)) is not None:
            file = next(line.file for line in lines() if short_number_of(line.file) == twice)
            raise self._damaged(f"{printable(file)} is the content of two versions")
        if sum(1 for _ in self._files_there()) > len(self._files):
            named = set(self._files)
            strays = (path for path in self._files_there() if short_number_of(path) not in named)
            names = ", ".join(printable(path) for path, _ in zip(strays, range(_NAMED), strict=False))
            raise self._damaged(f"it does not name {names}")
        self._current.finish(lines)

    def _files_there(self) -> Iterator[str]:
        for top in (BUCKETS, VERSIONS):
            for directory, _, files in os.walk(self._tree / top / self._bucket):
                below = os.path.relpath(directory, self._tree)
                yield from (f"{below}/{file}" for file in files)

    def _require_content(self, line: Line) -> None:
        try:
            status = os.stat(self._tree.joinpath(*path_of(line.file)), follow_symlinks=False)
        except OSError as failure:
            raise ArchiveDamagedError(f"The archive is damaged: {printable(line.file)} is missing.") from failure
        if status.st_size != line.size:
            raise ArchiveDamagedError(
                f"The archive is damaged: {printable(line.file)} has not the size it should have."
            )

    def _damaged(self, what: str) -> ArchiveDamagedError:
        return ArchiveDamagedError(
            f"The archive is damaged: {METADATA}/{self._bucket}.jsonl does not fit it: {what}; nothing was changed.",
            next_step="Take another copy of the file, or export again.",
        )


def require_buckets(names: Collection[tuple[str, str]]) -> list[str]:
    """The buckets of an archive.

    Args:
        names: what its four directories hold: the directory's name, and that of what is in it.
    Raises:
        ArchiveRefusedError: a name that is none of a bucket's.
        ArchiveDamagedError: a bucket without lines, or content, lines or settings of one that is not below `buckets/`;
            nobody would see them go.
    """
    buckets = sorted(name for top, name in names if top == BUCKETS)
    for name in buckets:
        if not is_bucket_name(name):
            raise ArchiveRefusedError(f"The archive holds {printable(name)}, which is no name of a bucket.")
    known = {(top, name) for name in buckets for top in (BUCKETS, VERSIONS, SETTINGS)}
    lines = {(METADATA, f"{name}{SUFFIX}") for name in buckets}
    for top, name in sorted(set(names) - known - lines):
        raise ArchiveDamagedError(
            f"The archive is damaged: it holds {printable(f'{top}/{name}')}, and no such bucket below {BUCKETS}/."
        )
    for name in buckets:
        if (METADATA, f"{name}{SUFFIX}") not in names:
            raise no_lines(name)
    return buckets


def _require_storable(bucket: str, line: Line) -> None:
    parts = stored_key(line.key).removesuffix("/").split("/")
    faults = {
        "an empty name, `.` or `..` in its path": any(part in ("", ".", "..") for part in parts),
        f"a name of more than {MAX_NAME_BYTES} bytes in its path": any(
            len(part.encode()) > MAX_NAME_BYTES for part in parts
        ),
        "a time that is not after 1970-01-01T00:00:00Z": nanoseconds_of(line.modified) <= 0,
        (headers := obstacle(line)): bool(headers),
    }
    for fault, is_there in faults.items():
        if is_there:
            raise ArchiveIncompatibleError(
                f"The object {printable(f'{bucket}/{line.key}')} has {fault}, which no MinIO stores; nothing was "
                "changed.",
                next_step="Rename it or write it anew where it comes from and export again, or import other buckets "
                "with `bucket=`.",
            )


def _number_of_version(line: Line) -> int:
    return short_number_of(f"{version_id(line.version)} {line.key}")


def _repeated(numbers: array[int]) -> int | None:
    """One that is there twice. Eight bytes for each are held, and no names."""
    last = None
    for number in sorted(numbers):
        if number == last:
            return number
        last = number
    return None
