"""The lines of a bucket in a portable archive, read in one way by `verify` and by an import.

What is refused here is what no export writes, whatever its fingerprint says.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator

import msgspec

from agent.archives.members import path_of, printable
from agent.engines.minio.portable.form import (
    BUCKETS,
    KEPT_HEADERS,
    METADATA,
    METADATA_PREFIXES,
    VERSIONS,
    Line,
    is_text,
)
from common.errors import ArchiveDamagedError, ArchiveRefusedError

SUFFIX = ".jsonl"
PIECE_BYTES = 256 << 10
_MOST_LINE_BYTES = 1 << 20
_MOST_KEY_BYTES = 1024
"""S3's limit, and MinIO's."""
_YEARS = range(1970, 2262)
"""Times are nanoseconds in 64 bits."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_ETAG = re.compile(r"[\x21-\x7e]{0,128}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_HEADERS = re.compile(rb"[\r\n\0]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT_STEP = "Take another copy of the file, or export again."


def read_lines(pieces: Iterable[bytes], bucket: str) -> Iterator[Line]:
    """The versions of a bucket, of which each makes sense by itself.

    Args:
        pieces: of the file's content. Its last line may lack its end.
    Raises:
        ArchiveDamagedError: naming the file and the line.
    """
    for number, text in enumerate(_split(pieces), 1):
        where = f"line {number} of {METADATA}/{bucket}{SUFFIX}"
        try:
            if len(text) > _MOST_LINE_BYTES:
                raise ValueError("it is too long")
            line = msgspec.json.decode(text, type=Line)
        except (msgspec.DecodeError, ValueError, RecursionError) as failure:
            raise ArchiveDamagedError(
                f"The archive is damaged: {where} cannot be read.", next_step=_NEXT_STEP
            ) from failure
        if fault := fault_in(line, bucket):
            raise ArchiveDamagedError(
                f"The archive is damaged: {where}, of key {printable(line.key)}, has {fault}.", next_step=_NEXT_STEP
            )
        yield line


def no_lines(bucket: str) -> ArchiveDamagedError:
    """There is no such file."""
    return ArchiveDamagedError(f"The archive is damaged: {METADATA}/{bucket}{SUFFIX} is missing.", next_step=_NEXT_STEP)


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends; of one that is too long no more than what shows it."""
    held = b""
    for piece in pieces:
        *whole, held = (held + piece).split(b"\n")
        yield from whole
        if len(held) > _MOST_LINE_BYTES:
            break
    if held:
        yield held


def fault_in(line: Line, bucket: str) -> str:
    """What no line of a bucket has; empty: nothing."""
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
        "a header that is none": not (
            all(not _is_used(name) or (_is_name(name) and is_text(value)) for name, value in line.headers.items())
            and all(
                _is_name(name) and (_is_metadata(name) or not _NOT_IN_HEADERS.search(value))
                for name, value in line.raw_headers.items()
            )
        ),
        "a header twice": bool(line.headers.keys() & line.raw_headers.keys()),
        "no place of its content": not line.is_marker and not _is_place(bucket, line.file),
        "a SHA-256 that is none": not line.is_marker and not _SHA256.fullmatch(line.sha256),
    }
    return next((fault for fault, is_there in faults.items() if is_there), "")


def _is_used(name: str) -> bool:
    return name.lower() in KEPT_HEADERS or _is_metadata(name)


def _is_metadata(name: str) -> bool:
    """It may hold any byte: a server that has to say one that no header holds puts it into other words."""
    return name.lower().startswith(METADATA_PREFIXES)


def _is_name(name: str) -> bool:
    return bool(_HEADER_NAME.fullmatch(name))


def _is_place(bucket: str, file: str) -> bool:
    try:
        parts = path_of(file)
    except ArchiveRefusedError:
        return False
    return len(parts) >= 3 and parts[0] in (BUCKETS, VERSIONS) and parts[1] == bucket and "/".join(parts) == file
