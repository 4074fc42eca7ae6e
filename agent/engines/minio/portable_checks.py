"""Whether a portable archive holds together and a MinIO can store what it names, found out before anything is changed.

An export names each version in one line and each file of content in one of the lines, so a file that no line names, and
what is named twice, are signs of damage. What S3 allows and MinIO does not store is incompatible instead.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agent.archives.members import MAX_NAME_BYTES, path_of, printable
from agent.engines.minio.portable import (
    BUCKETS,
    KEPT_HEADERS,
    METADATA,
    METADATA_PREFIX,
    SETTINGS,
    VERSIONS,
    Line,
    version_id,
)
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError

_NAMED = 5
_MOST_KEY_BYTES = 1024
_MOST_METADATA_BYTES = 2048
"""S3's limits, and MinIO's."""
_YEARS = range(1970, 2262)
"""Times are nanoseconds in 64 bits."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_ETAG = re.compile(r"[\x21-\x7e]{0,128}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        self._versions = array("Q")
        self._files = array("Q")

    def meet(self, line: Line) -> None:
        """One line.

        Raises:
            ArchiveDamagedError: no server can have said so, or the content is not there.
            ArchiveIncompatibleError: a MinIO does not take it.
        """
        _require_sense(self._bucket, line)
        if self._is_wanted:
            _require_storable(self._bucket, line)
        self.has_versions = self.has_versions or line.is_marker or version_id(line.version) != "null"
        self._versions.append(_number_of_version(line))
        if not line.is_marker:
            self._require_content(line)
            self._files.append(_number(line.file))

    def finish(self, lines: Callable[[], Iterator[Line]]) -> None:
        """All lines were met.

        Args:
            lines: gives them once more, to name what is wrong.
        Raises:
            ArchiveDamagedError: something is there twice, or a file is in no line.
        """
        if (twice := _repeated(self._versions)) is not None:
            key = next(line.key for line in lines() if _number_of_version(line) == twice)
            raise self._damaged(f"a version of {printable(key)} is in it twice")
        if (twice := _repeated(self._files)) is not None:
            file = next(line.file for line in lines() if _number(line.file) == twice)
            raise self._damaged(f"{printable(file)} is the content of two versions")
        if sum(1 for _ in self._files_there()) > len(self._files):
            named = set(self._files)
            strays = (path for path in self._files_there() if _number(path) not in named)
            names = ", ".join(printable(path) for path, _ in zip(strays, range(_NAMED), strict=False))
            raise self._damaged(f"it does not name {names}")

    def _files_there(self) -> Iterator[str]:
        for top in (BUCKETS, VERSIONS):
            for directory, _, files in os.walk(self._tree / top / self._bucket):
                below = os.path.relpath(directory, self._tree)
                yield from (f"{below}/{file}" for file in files)

    def _require_content(self, line: Line) -> None:
        parts = path_of(line.file)
        if (
            len(parts) < 3
            or parts[0] not in (BUCKETS, VERSIONS)
            or parts[1] != self._bucket
            or "/".join(parts) != line.file
            or not _SHA256.fullmatch(line.sha256)
        ):
            raise ArchiveDamagedError(f"The archive is damaged: it does not say where {printable(line.key)} is.")
        try:
            status = os.stat(self._tree.joinpath(*parts), follow_symlinks=False)
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


def require_known_buckets(tree: Path, buckets: Sequence[str]) -> None:
    """Refuse content, lines and settings of a bucket that is not below `buckets`; nobody would see them go.

    Raises:
        ArchiveDamagedError: naming it.
    """
    for top in (METADATA, VERSIONS, SETTINGS):
        names = os.listdir(tree / top) if (tree / top).is_dir() else []
        for name in sorted(names):
            if (name.removesuffix(".jsonl") if top == METADATA else name) not in buckets:
                raise ArchiveDamagedError(
                    f"The archive is damaged: it holds {printable(f'{top}/{name}')}, and no such bucket below "
                    f"{BUCKETS}/; nothing was changed."
                )


def _require_sense(bucket: str, line: Line) -> None:
    moment = _MOMENT.fullmatch(line.modified)
    try:
        is_moment = moment is not None and dt.datetime.fromisoformat(line.modified).year in _YEARS
    except ValueError:
        is_moment = False
    faults = {
        "no key": not line.key,
        "a key with a NUL byte": "\0" in line.key,
        f"a key of more than {_MOST_KEY_BYTES} bytes": len(line.key.encode()) > _MOST_KEY_BYTES,
        "no version": not line.version,
        "a time that is none": not is_moment,
        "an ETag that is none": not _ETAG.fullmatch(line.etag),
        "a size below zero": line.size < 0,
        "content of a delete marker": line.is_marker and bool(line.size or line.file),
        "a header that is none": not all(_is_header(name, value) for name, value in line.headers.items()),
    }
    for fault, is_there in faults.items():
        if is_there:
            raise ArchiveDamagedError(
                f"The archive is damaged: a line of {METADATA}/{bucket}.jsonl, of key {printable(line.key)}, has "
                f"{fault}; nothing was changed.",
                next_step="Take another copy of the file, or export again.",
            )


def _require_storable(bucket: str, line: Line) -> None:
    parts = line.key.removesuffix("/").split("/")
    metadata = [(name, value) for name, value in line.headers.items() if name.lower().startswith(METADATA_PREFIX)]
    faults = {
        "an empty name, `.` or `..` in its path": any(part in ("", ".", "..") for part in parts),
        f"a name of more than {MAX_NAME_BYTES} bytes in its path": any(
            len(part.encode()) > MAX_NAME_BYTES for part in parts
        ),
        f"metadata of more than {_MOST_METADATA_BYTES} bytes": sum(
            len(name.encode()) + len(value.encode()) for name, value in metadata
        )
        > _MOST_METADATA_BYTES,
    }
    for fault, is_there in faults.items():
        if is_there:
            raise ArchiveIncompatibleError(
                f"The object {printable(f'{bucket}/{line.key}')} has {fault}, which no MinIO stores; nothing was "
                "changed.",
                next_step="Rename it where it comes from and export again, or import other buckets with `bucket=`.",
            )


def _is_header(name: str, value: str) -> bool:
    is_used = name.lower() in KEPT_HEADERS or name.lower().startswith(METADATA_PREFIX)
    return not is_used or (
        bool(_HEADER_NAME.fullmatch(name)) and not any(ord(char) < 32 or ord(char) == 127 for char in value)
    )


def _number_of_version(line: Line) -> int:
    return _number(f"{version_id(line.version)} {line.key}")


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _repeated(numbers: array[int]) -> int | None:
    """One that is there twice. Eight bytes for each are held, and no names."""
    last = None
    for number in sorted(numbers):
        if number == last:
            return number
        last = number
    return None
