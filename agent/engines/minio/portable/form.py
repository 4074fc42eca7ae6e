"""The portable archive's form: what every S3 server can hold, as files that a person can open.

    buckets/<bucket>/<key>          the latest version of an object, where its key can be a file's name
    versions/<bucket>/<number>      content of all other versions
    metadata/<bucket>.jsonl         a line for each version: what it is called, what belongs to it, where its content is
    settings/<bucket>/<file>        the bucket's settings, as MinIO's admin API gives them

Not in it: users and keys, remote targets and replication, and the instant: objects are read one after the other.

The fingerprint is of what is in there, so it can be compared with another such archive's, and with that of a server
which is read through S3 as an export reads it.
"""

from __future__ import annotations

import uuid

import msgspec

from agent.archives.members import MAX_DEPTH, MAX_NAME_BYTES
from agent.engines.minio.drive.layout import DIRECTORY_MARK, TARGETS_FILE
from agent.engines.minio.drive.sums import number_of

FORMAT = "s3"
SCHEME = "minio-s3/3"
BUCKETS, VERSIONS, METADATA, SETTINGS = DIRECTORIES = ("buckets", "versions", "metadata", "settings")
LEFT_OUT_SETTINGS = (TARGETS_FILE, "replication.xml")
"""They hold another server's keys, or mean nothing without them."""
ENCRYPTED = "x-amz-server-side-encryption"
STORAGE_CLASS = "x-amz-storage-class"
KEPT_HEADERS = (
    "content-type",
    "content-encoding",
    "cache-control",
    "content-disposition",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-tagging",
    STORAGE_CLASS,
    ENCRYPTED,
)
METADATA_PREFIXES = ("x-amz-meta-", "x-minio-meta-")
NO_VERSION = "null"
_FOREIGN_VERSIONS = uuid.UUID("b0d7d0f4-3f0c-5f6b-9b57-6d1a3a0c6f2e")


class Line(msgspec.Struct, omit_defaults=True):
    """One version.

    Attributes:
        version: its id; "null" in buckets without versions.
        modified: with microseconds, in the order of the versions of a key.
        file: the member with its content; empty for delete markers.
        sha256: of the content, lower-case hex.
        headers: as they were given when it was stored, tags among them.
        raw_headers: those of them that are no text of one line, as Base64.
    """

    key: str
    version: str = NO_VERSION
    is_latest: bool = False
    is_marker: bool = False
    modified: str = ""
    etag: str = ""
    size: int = 0
    sha256: str = ""
    file: str = ""
    headers: dict[str, str] = {}
    raw_headers: dict[str, bytes] = {}

    def all_headers(self) -> dict[str, str]:
        """Both kinds; bytes that are no UTF-8 are surrogates."""
        raw = {name: value.decode(errors="surrogateescape") for name, value in self.raw_headers.items()}
        return self.headers | raw


def is_text(value: str) -> bool:
    """Whether a header's value is text that a request's header can hold; a tab can be in it."""
    return not any(
        (ord(char) < 32 and char != "\t") or ord(char) == 127 or "\ud800" <= char <= "\udfff" for char in value
    )


def is_file_name(key: str) -> bool:
    """Whether a key can be a path below a directory, on any system that is likely to unpack it."""
    parts = key.split("/")
    return (
        all(part not in ("", ".", "..") and len(part.encode()) <= MAX_NAME_BYTES for part in parts)
        # Below a directory for all and one for its bucket.
        and len(parts) + 2 <= MAX_DEPTH
        and key.isprintable()
        and "\\" not in key
    )


def stored_key(key: str) -> str:
    """What a MinIO has to be told to store: the object that it lists as `//` is one that was put as `__XLDIR__`."""
    return DIRECTORY_MARK if key == "//" else key


def version_id(version: str) -> str:
    """What a version is called in MinIO, which takes UUIDs only; the same every time for another server's id.

    The UUID of zeros is MinIO's own for the version without a number.
    """
    if version == NO_VERSION:
        return version
    try:
        number = uuid.UUID(version)
    except ValueError:
        number = uuid.UUID(int=0)
    return str(number if number.int else uuid.uuid5(_FOREIGN_VERSIONS, version))


def number_of_line(bucket: str, line: Line) -> int:
    """What a version adds to its bucket's fingerprint."""
    return number_of(
        (
            bucket,
            line.key,
            version_id(line.version),
            "marker" if line.is_marker else "object",
            line.modified,
            str(line.size),
            line.sha256,
            *(part for pair in sorted(line.all_headers().items()) for part in pair),
        )
    )


def number_of_content(path: str, size: int, sha256: str) -> int:
    """What a file adds to the sum that has to be the lines'."""
    return number_of((path, str(size), sha256))
