"""One entry of an archive, whatever the archive's format, and the rules for its name."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.errors import ArchiveRefusedError
from common.seals import RESERVED_DIRECTORY

MAX_DEPTH = 520
"""Most names in a path, written and accepted: a walk holds a descriptor a level, and the usual limit is 1024. A key in
S3 has up to 512."""
MAX_NAME_BYTES = 255
"""Of one component; what Linux filesystems take."""
KEPT_NAMES = frozenset({RESERVED_DIRECTORY, "lost+found", ".snapshot"})
"""At the top of a volume, what belongs to us or to the filesystem: neither exported nor imported nor swapped."""

RESTORED_ATTRIBUTES = ("user.", "system.posix_acl_access", "system.posix_acl_default")
"""Prefixes of the extended attributes that travel; the others are rights (security.) or belong to the machine."""
SQLITE_MAGIC = b"SQLite format 3\0"
SQLITE_SIDECARS = ("-wal", "-shm", "-journal")
"""Ends of the names that lie beside a database and are part of it."""


class Kind(enum.Enum):
    """What an entry becomes in a directory."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"


@dataclass(slots=True)
class Member:
    """An entry.

    Attributes:
        name: path as in the archive, undecodable bytes as surrogates.
        size: of a file, holes included.
        mode: permission bits, with setuid and the like as they stand in the archive.
        link_target: where a symbolic link points, or the earlier entry that a hard link is the same file as.
        segments: (offset, length) of a sparse file's data; None: all of it.
    """

    name: str
    kind: Kind
    size: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    user: str = ""
    group: str = ""
    link_target: str = ""
    attributes: dict[str, bytes] = field(default_factory=dict)
    segments: Sequence[tuple[int, int]] | None = None


def is_of_macos(name: str) -> bool:
    """Whether tar or the Finder of macOS put an entry of this name, without its path, into an archive for itself."""
    return name.startswith("._") or name in (".DS_Store", "__MACOSX")


def path_of(name: str) -> tuple[str, ...]:
    """An entry's name as components below the volume; empty for the volume itself.

    Raises:
        ArchiveRefusedError: absolute, with `..`, with a NUL, too long or too deep.
    """
    if "\0" in name:
        raise ArchiveRefusedError(f"The archive has a NUL byte in the name {printable(name)}.")
    if name.startswith("/"):
        raise ArchiveRefusedError(f"The archive leaves the volume: {printable(name)} is an absolute path.")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ArchiveRefusedError(f"The archive leaves the volume: {printable(name)} has '..' in its path.")
    if len(parts) > MAX_DEPTH:
        raise ArchiveRefusedError(f"{printable(name)} lies more than {MAX_DEPTH} names deep.")
    if any(len(part.encode(errors="surrogateescape")) > MAX_NAME_BYTES for part in parts):
        raise ArchiveRefusedError(f"{printable(name)} has a name of more than {MAX_NAME_BYTES} bytes.")
    return parts


def printable(name: str) -> str:
    """A name as it may stand in a text for a person: quoted, control and undecodable characters escaped, cut."""
    shown = repr(name.encode(errors="surrogateescape").decode(errors="backslashreplace"))
    return shown if len(shown) <= 160 else f"{shown[:100]}…{shown[-50:]}"
