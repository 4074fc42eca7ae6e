"""A portable archive that was unpacked: its buckets, lines and settings, and whether it is what an export makes.

`look_through` reads all that an upload says, in a jail (child.py); what it let pass is read again, line by
line, when buckets are filled.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from agent.engines.minio.drive.bucket_settings import holds_targets
from agent.engines.minio.drive.layout import TARGETS_FILE
from agent.engines.minio.drive.sums import Sums
from agent.engines.minio.portable.checks import BucketCheck, require_buckets
from agent.engines.minio.portable.form import (
    DIRECTORIES,
    ENCRYPTED,
    LEFT_OUT_SETTINGS,
    METADATA,
    SCHEME,
    SETTINGS,
    Line,
    number_of_line,
)
from agent.engines.minio.portable.lines import PIECE_BYTES, SUFFIX, no_lines, read_lines
from agent.engines.minio.trees.hidden_keys import HiddenKeys
from common.errors import ArchiveDamagedError, ArchiveRefusedError
from common.fingerprints import Fingerprint

OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_SETTINGS_BYTES = 32 << 20
"""Of all buckets together: they travel to the server in one call. S3 allows 20 kB for a policy."""
_LOCK_FILE = "object-lock.xml"
_SETTINGS_FILE = re.compile(r"[a-z0-9-]{1,64}\.(?:xml|json)")
"""What MinIO calls one."""


class Inventory(msgspec.Struct, kw_only=True):
    """What an archive holds.

    Attributes:
        counts: of buckets, objects, versions, markers and bytes in all of it.
        wanted_counts: the same of the wanted buckets only.
        wanted: the wanted buckets.
        encrypted: those of them with objects that a KMS encrypted on the server that they are of.
        expiring: those of them with rules that delete objects by their age.
        hidden, hidden_names: how many of their objects a listing will not show, and some of them with their buckets.
    """

    counts: dict[str, int]
    wanted_counts: dict[str, int]
    wanted: list[str]
    encrypted: list[str]
    expiring: list[str]
    hidden: int
    hidden_names: list[str]
    fingerprint: Fingerprint


def look_through(tree: Path, *, only: str) -> Inventory:
    """Everything that can be known without a server.

    Args:
        only: the bucket that is wanted; empty: all.
    Raises:
        ArchiveRefusedError, ArchiveDamagedError: it is not what an export makes.
        ArchiveIncompatibleError: it is, and a MinIO does not take some of what is wanted.
    """
    buckets = require_buckets(
        {(top, name) for top in DIRECTORIES if (tree / top).is_dir() for name in os.listdir(tree / top)}
    )
    inventory = Inventory(
        counts=_nothing(),
        wanted_counts=_nothing(),
        wanted=[name for name in buckets if only in ("", name)],
        encrypted=[],
        expiring=[],
        hidden=0,
        hidden_names=[],
        fingerprint=Fingerprint(scheme=SCHEME),
    )
    sums = Sums(SCHEME)
    room_bytes = MOST_SETTINGS_BYTES
    for bucket in buckets:
        settings = _all_settings(tree, bucket, most_bytes=room_bytes)
        room_bytes -= sum(map(len, settings.values()))
        for name, content in settings.items():
            sums.add_setting(bucket, name, hashlib.sha256(content).hexdigest())
        is_wanted = bucket in inventory.wanted
        hidden = HiddenKeys()
        counts, is_encrypted = _look_at(tree, bucket, settings, sums, hidden, is_wanted=is_wanted)
        for name, number in counts.items():
            inventory.counts[name] += number
            inventory.wanted_counts[name] += number * is_wanted
        if is_wanted:
            number, keys = hidden.finish(functools.partial(_keys_of, tree, bucket))
            inventory.hidden += number
            inventory.hidden_names += (f"{bucket}/{key}" for key in keys)
        if is_wanted and is_encrypted:
            inventory.encrypted.append(bucket)
        if is_wanted and b"<Expiration>" in settings.get("lifecycle.xml", b""):
            inventory.expiring.append(bucket)
    inventory.fingerprint = sums.fingerprint()
    return inventory


def lines_of(tree: Path, bucket: str) -> Iterator[Line]:
    """The versions of a bucket; ArchiveDamagedError as `lines.read_lines`, or when there is no such file."""
    path = tree / METADATA / f"{bucket}{SUFFIX}"
    if path.is_symlink() or not path.is_file():
        raise no_lines(bucket)
    with open(os.open(path, OPEN_FLAGS), "rb") as file:
        yield from read_lines(iter(lambda: file.read(PIECE_BYTES), b""), bucket)


def locked_buckets(tree: Path, names: Sequence[str]) -> list[str]:
    """Those of them with object lock."""
    return [name for name in names if (tree / SETTINGS / name / _LOCK_FILE).is_file()]


def is_versioned(settings: Mapping[str, bytes]) -> bool:
    """Whether a bucket's settings say anything of versions."""
    return b"<Status>" in settings.get("versioning.xml", b"")


def settings_of(tree: Path, bucket: str) -> dict[str, bytes]:
    """What a server is given, by the name of the file."""
    found = _all_settings(tree, bucket, most_bytes=MOST_SETTINGS_BYTES)
    return {name: content for name, content in found.items() if _is_given(name) and name != _LOCK_FILE}


def settings_left_out(tree: Path, bucket: str) -> list[str]:
    """Names of what lies below a bucket's settings and is given to no server, but for locks and what says nothing."""
    directory = tree / SETTINGS / bucket
    found = []
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        is_empty = path.name == TARGETS_FILE and path.is_file() and not holds_targets(path.read_bytes())
        if (path.is_dir() or not _is_given(path.name)) and not is_empty:
            found.append(path.name)
    return found


def _is_given(name: str) -> bool:
    return bool(_SETTINGS_FILE.fullmatch(name)) and name not in LEFT_OUT_SETTINGS


def _look_at(
    tree: Path, bucket: str, settings: Mapping[str, bytes], sums: Sums, hidden: HiddenKeys, *, is_wanted: bool
) -> tuple[dict[str, int], bool]:
    """Counts of a bucket, and whether some of it is encrypted."""
    counts = _nothing() | {"buckets": 1}
    is_encrypted = False
    last = ""
    sums.bucket(bucket)
    checked = BucketCheck(tree, bucket, is_wanted=is_wanted)
    for line in lines_of(tree, bucket):
        checked.meet(line)
        hidden.meet(line.key)
        sums.add(bucket, number_of_line(bucket, line), line.size)
        counts["versions"] += 1
        counts["objects"] += line.key != last
        counts["markers"] += line.is_marker
        counts["bytes"] += line.size
        is_encrypted = is_encrypted or ENCRYPTED in line.headers
        last = line.key
    checked.finish(functools.partial(lines_of, tree, bucket))
    if checked.has_versions and not is_versioned(settings):
        raise ArchiveDamagedError(
            f"The archive is damaged: the bucket {bucket} has versions, and its settings say nothing of "
            "versioning, so they would be lost; nothing was changed.",
            next_step="Take another copy of the file, or export again.",
        )
    return counts, is_encrypted


def _keys_of(tree: Path, bucket: str) -> Iterator[str]:
    return (line.key for line in lines_of(tree, bucket))


def _nothing() -> dict[str, int]:
    return dict.fromkeys(("buckets", "objects", "versions", "markers", "bytes"), 0)


def _all_settings(tree: Path, bucket: str, *, most_bytes: int) -> dict[str, bytes]:
    """By the name of the file; ArchiveRefusedError for more than an export can have."""
    found: dict[str, bytes] = {}
    directory = tree / SETTINGS / bucket
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_symlink() or not path.is_file():
            continue
        with open(os.open(path, OPEN_FLAGS), "rb") as file:
            found[path.name] = file.read(most_bytes + 1)
        most_bytes -= len(found[path.name])
        if most_bytes < 0:
            raise ArchiveRefusedError(
                f"The settings of the archive's buckets have more than {MOST_SETTINGS_BYTES >> 20} MiB; those of an "
                "export have some kilobytes each. Nothing was changed."
            )
    return found
