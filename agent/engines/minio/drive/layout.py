"""What lies where on a drive, and what of it is the app's data."""

from __future__ import annotations

import os
import re
from pathlib import Path

from agent.archives.members import KEPT_NAMES, printable

SYSTEM = ".minio.sys"
SYSTEM_DATA = ("buckets", "config")
"""Of `.minio.sys`: bucket metadata; users, policies and the server's configuration. The rest is the drive's identity
(format.json, pool.bin) and what is on its way (tmp, multipart)."""
CONFIG = f"{SYSTEM}/config"
SESSIONS = f"{CONFIG}/iam/sts"
"""Temporary keys of users; with the same root password they would go on being valid on another server."""
BUCKETS = f"{SYSTEM}/buckets"
FORMAT = f"{SYSTEM}/format.json"
SINGLE_DRIVE = "xl-single"
"""What it says of a drive that holds all that its server has; "xl" of one of several."""
FILES = "fs"
"""What it says where objects are plain files, as single servers kept them until 2022; none of today reads them."""
META = "xl.meta"
TARGETS_FILE = "bucket-targets.json"
"""In a bucket's settings: the keys of other servers."""
SEALED_MAGIC = b"mathison-sealed1"
"""How a file begins that is closed with a passphrase, in archives only."""
_TRANSIENT = frozenset(
    {
        ".metacache",
        ".heal",
        ".healing.bin",
        ".bloomcycle.bin",
        ".usage.json",
        ".usage.json.bkp",
        ".usage-cache.bin",
        ".usage-cache.bin.bkp",
        ".background-heal.json",
        ".tracker.bin",
    }
)
"""Names that MinIO makes again by itself, below BUCKETS; elsewhere they may be a user's or a policy's."""
DIRECTORY_MARK = "__XLDIR__"
"""At the end of a directory's name: of an object whose key ends with a slash."""
_BUCKET = re.compile(r"(?=.{3,63}$)[a-z0-9](?:-*[a-z0-9])*(?:\.[a-z0-9](?:-*[a-z0-9])*)*")
_ADDRESS = re.compile(r"(?:[0-9]+\.){3}[0-9]+")
_RESERVED = ("minio",)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_bucket_name(name: str) -> bool:
    """Whether MinIO takes it: a directory of another name at the top of a drive is invisible to it."""
    return bool(_BUCKET.fullmatch(name)) and not _ADDRESS.fullmatch(name) and name not in _RESERVED


def is_data_directory_name(name: str) -> bool:
    """Whether it may hold an object's parts: a UUID."""
    return bool(_UUID.fullmatch(name))


def is_transient(directory: str, name: str) -> bool:
    """Whether MinIO makes an entry of a directory again by itself.

    Args:
        directory: its path below the drive.
    """
    return name in _TRANSIENT and f"{directory}/".startswith(f"{BUCKETS}/")


def own_name(path: str) -> str:
    """What a person calls one of the server's own files, by the path of its directory below a drive."""
    parts = path.split("/")
    is_settings = len(parts) == 4 and parts[:2] == [SYSTEM, "buckets"] and parts[3] == ".metadata.bin"
    return f"the settings of bucket {printable(parts[2])}" if is_settings else printable(path)


def key_of(path: str) -> str:
    """An object's key, from its directory below its bucket's."""
    return f"{path.removesuffix(DIRECTORY_MARK)}/" if path.endswith(DIRECTORY_MARK) else path


def is_listed(path: str) -> bool:
    """Whether MinIO lists what has its directory there, below its bucket's: not with that mark within the path."""
    *above, name = path.split("/")
    return not any(part.endswith(DIRECTORY_MARK) for part in above) and (not above or name != DIRECTORY_MARK)


def data_roots(drive: Path) -> list[str]:
    """Paths below a drive that are the app's data: its buckets, and two directories of `.minio.sys`."""
    names = [entry.name for entry in os.scandir(drive) if entry.is_dir(follow_symlinks=False)]
    buckets = sorted(name for name in names if name not in KEPT_NAMES and is_bucket_name(name))
    return [*buckets, *(path for path in system_roots() if (drive / path).is_dir())]


def system_roots() -> list[str]:
    """The part of `.minio.sys` that is data."""
    return [f"{SYSTEM}/{name}" for name in SYSTEM_DATA]


def is_in_place(path: str, *, is_directory: bool) -> bool:
    """Whether a drive's data has something at a path: a bucket, what is in one, or in the data of `.minio.sys`."""
    top, _, rest = path.partition("/")
    if not rest:
        return is_directory and (top == SYSTEM or is_bucket_name(top))
    return is_bucket_name(top) or f"{path}/".startswith(tuple(f"{root}/" for root in system_roots()))


def other_drive(kind: str) -> str:
    """What a drive is that cannot be exported or imported as it is, by its format; empty for a single one."""
    if kind == FILES:
        return "a drive of MinIO's old kind, which kept objects as plain files"
    return "" if kind == SINGLE_DRIVE else "one of several drives, which holds a share of each object"
