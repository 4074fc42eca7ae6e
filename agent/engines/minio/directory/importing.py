"""An upload unpacked beside a drive's data and looked through: it has to be a drive's that this server can read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from agent.archives.extractor_child import Report
from agent.archives.members import printable
from agent.engines import tree
from agent.engines.filesystem import read_small_file, usual_owner
from agent.engines.minio.directory.exporting import kms_fingerprint
from agent.engines.minio.drive import bucket_settings, tiers, xlmeta
from agent.engines.minio.drive.layout import (
    BUCKETS,
    CONFIG,
    FORMAT,
    META,
    SEALED_MAGIC,
    SESSIONS,
    SINGLE_DRIVE,
    SYSTEM,
    is_bucket_name,
    other_drive,
)
from agent.engines.minio.drive.sums import require_as_exported
from agent.engines.minio.server.canary import try_reading
from agent.engines.minio.server.client import Client
from agent.engines.minio.server.facts import PORTABLE_HINT, Facts
from agent.engines.minio.server.settings import MinioSettings
from agent.engines.minio.trees.counting import count_in_jail
from agent.engines.minio.trees.sealing_below import open_below
from agent.engines.minio.trees.tally import Tally
from agent.limits import Limits
from common.errors import (
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveWrongKindError,
)
from common.headers import ArchiveHeader

SPARE_ROOM = 0.1
"""Of an archive's size, kept free beside it: MinIO itself stops when its drive is full."""
HOW_TO_PACK = (
    "A drive that is packed by hand is one of a stopped server, with `.minio.sys` and the buckets at the archive's "
    "top: `tar -C /data -czf drive.tar.gz .`; on macOS with COPYFILE_DISABLE=1 before it, or files `._…` come in."
)
_MOST_META_BYTES = 64 << 20
_RELEASE = re.compile(r"\d{4}-\d\d-\d\dT")


async def unpack(
    chunks: AsyncIterator[bytes],
    area: tree.StagingArea,
    settings: MinioSettings,
    *,
    limits: Limits,
    work_directory: Path,
    keep_users: bool,
    shares_tiers: bool,
    only: str,
) -> tuple[Report, Tally]:
    """Unpack an archive into a staging area, open what is sealed in it, and count it.

    Args:
        shares_tiers: content that lies in a tier is no obstacle.
        only: the bucket that is wanted; empty: everything.

    Raises:
        ArchiveError: the archive's fault, by class.
        LimitExceededError, NoSpaceError, ToolFailedError: as `tree.unpack`.
    """
    drive = Path(settings.directory)
    owner = await asyncio.to_thread(usual_owner, drive)
    orders = tree.Orders(
        recipe="minio",
        limits=limits,
        owner=owner,
        default_owner=owner,
        inside=drive,
        work_directory=work_directory,
    )
    report = await tree.unpack(area, chunks, orders, is_zip=False)
    if report.extracted.symlinks or report.extracted.hard_links:
        raise ArchiveRefusedError("The archive holds links; a drive of MinIO has none.")
    with area.held_new() as new:
        await asyncio.to_thread(_leave_out, new, keep_users or bool(only))
        if only:
            await asyncio.to_thread(_keep_only, new, only)
        sealed = await asyncio.to_thread(_sealed_buckets, new)
        await open_below(new, settings.open_passphrases())
        tally = await count_in_jail(new, proves=True)
        for name in sealed & tally.buckets.keys():
            # As the export told it.
            tally.buckets[name].settings = bucket_settings.WITH_KEYS
        await asyncio.to_thread(_require_at_top, new)
    _require_drive(report, tally)
    if not shares_tiers:
        tiers.require_none(tally.tiered)
    _require_same(report, tally, only=only)
    return report, tally


async def require_readable(
    client: Client,
    header: ArchiveHeader | None,
    tally: Tally,
    facts: Facts,
    settings: MinioSettings,
    *,
    staged: Path,
    canary: str,
) -> None:
    """Refuse what this server could not read, by what it says of itself, and then by letting it try.

    Args:
        canary: the bucket to try it in.
    Raises:
        ArchiveIncompatibleError: naming what is in the way; nothing was changed.
    """
    drive = Path(settings.directory)
    newest_header = await asyncio.to_thread(written_header_version, drive)
    require_compatible(header, tally, facts, settings, newest_header=newest_header)
    made_by = release_of(header)
    await try_reading(client, drive, staged, tally.samples, bucket=canary, made_by=made_by)


def require_compatible(
    header: ArchiveHeader | None, tally: Tally, facts: Facts, settings: MinioSettings, *, newest_header: int
) -> None:
    """Refuse what this server could not read, by what archive and server say of themselves.

    Args:
        newest_header: version of the xl.meta that this server writes.
    Raises:
        ArchiveIncompatibleError: naming what is in the way; nothing was changed.
    """
    if tally.header_version > newest_header:
        raise ArchiveIncompatibleError(
            f"The archive is of a newer MinIO{release_of(header)}; this server ({facts.version}) cannot read it: "
            f"its objects are of header version {tally.header_version}, this server's of {newest_header}.",
            next_step=f"Upgrade this server first. {PORTABLE_HINT}",
        )
    kms = header.details.get("kms", "") if header else ""
    if not kms and not tally.encrypted:
        return
    if not facts.kms:
        raise ArchiveIncompatibleError(
            "The archive is encrypted with a KMS key, and this server has no KMS; nothing was changed.",
            next_step=f"Start this server with the other's MINIO_KMS_SECRET_KEY. {PORTABLE_HINT}",
        )
    theirs = header.details.get("kms_fingerprint", "") if header else ""
    ours = kms_fingerprint(settings.kms_key())
    if (theirs and ours and theirs != ours) or (kms and kms != facts.kms):
        raise ArchiveIncompatibleError(
            "The archive is encrypted with another KMS key; nothing was changed.",
            next_step=f"Start this server with the other's MINIO_KMS_SECRET_KEY. {PORTABLE_HINT}",
        )


def release_of(header: ArchiveHeader | None) -> str:
    """ " (2025-04-22T22:12:26Z)", or nothing where the archive does not say."""
    version = header.engine_version if header else ""
    return f" ({version})" if _RELEASE.match(version) else ""


def written_header_version(drive: Path) -> int:
    """The version of the xl.meta that a server writes: of the configuration that it wrote when it started."""
    newest = 0
    for path in (drive / CONFIG).rglob(META):
        try:
            newest = max(newest, xlmeta.header_version(read_small_file(path, most_bytes=_MOST_META_BYTES)))
        except (OSError, ValueError):
            continue
    return newest


def needed_bytes(stored_bytes: int) -> int:
    """Room that an archive takes beside what is there."""
    return int(stored_bytes * (1 + SPARE_ROOM))


def _require_at_top(new: Path) -> None:
    """Refuse a drive in a folder, whose name might be a bucket's."""
    for name in sorted(os.listdir(new)):
        if (new / name / FORMAT).is_file():
            raise ArchiveWrongKindError(
                f"The drive lies in a folder {printable(name)} of the archive, not at its top; nothing was changed.",
                next_step=HOW_TO_PACK,
            )


def _require_drive(report: Report, tally: Tally) -> None:
    """Whether what was unpacked is a drive's data, and whole."""
    if tally.strange:
        raise ArchiveWrongKindError(
            f"The archive is not one of a MinIO drive: {', '.join(tally.strange)} does not belong there.",
            next_step=f"Import an export of a MinIO app. {HOW_TO_PACK}",
        )
    if other := other_drive(tally.drive or SINGLE_DRIVE):
        raise ArchiveIncompatibleError(
            f"The archive is of {other}; a server with a single drive of today's kind reads nothing of it. Nothing was "
            "changed.",
            next_step="Export from its own server, with `?format=s3`, which goes between all kinds of drives.",
        )
    if not tally.buckets and not tally.has_config and report.header is None:
        raise ArchiveWrongKindError("The archive holds no buckets; an import would leave the app without data.")
    if tally.made_up:
        raise ArchiveDamagedError(
            f"The archive holds objects whose xl.meta no MinIO with a single drive writes: {', '.join(tally.made_up)}; "
            "a server that reads one may end. Nothing was changed.",
            next_step="Delete them on the source, and export again; or export with `?format=s3`, if it can read them.",
        )
    if tally.damaged_config:
        raise ArchiveDamagedError(
            f"Users, policies or configuration in the archive are damaged: {', '.join(tally.damaged_config)}; a MinIO "
            "that meets them loads no users at all. Nothing was changed.",
            next_step="Import with `users=keep`, which leaves this server's users, policies and configuration as they "
            "are; or set anew on the source what is damaged, and export again.",
        )
    if tally.damaged_settings:
        raise ArchiveDamagedError(
            f"Damaged in the archive: {', '.join(tally.damaged_settings)}. Nothing was changed.",
            next_step="Import other buckets one by one, with `bucket=`; or set anew on the source what is damaged, as "
            "by any change of that bucket's settings, and export again.",
        )
    if tally.damaged and report.header is None:
        raise ArchiveDamagedError(
            f"{tally.damaged} versions in the archive are damaged: {', '.join(tally.damaged_names)}.",
            next_step="Copies of a running drive come out so. Export with this program, or stop MinIO for the copy.",
        )


def _require_same(report: Report, tally: Tally, *, only: str) -> None:
    """Whether it is what was exported, or where nothing tells, whether something is seen to be missing."""
    if report.fingerprint is None and tally.orphans:
        raise ArchiveDamagedError(
            f"The archive holds data of {', '.join(tally.orphans)}, and not the xl.meta that makes it an object; "
            "nothing was changed.",
            next_step="Export again. If an upload was cut off there on the source, or MinIO did not put it there, pack "
            f"the drive without it. {HOW_TO_PACK}",
        )
    damaged = f" (damaged in it: {', '.join(tally.damaged_names)})" if tally.damaged else ""
    require_as_exported(report.fingerprint, tally.fingerprint(), only=only, beside=damaged)


def _sealed_buckets(new: Path) -> set[str]:
    """Those whose settings are closed with a passphrase."""
    found = set()
    for name in os.listdir(new / BUCKETS) if (new / BUCKETS).is_dir() else ():
        try:
            with open(new / BUCKETS / name / ".metadata.bin" / META, "rb", buffering=0) as file:
                if file.read(len(SEALED_MAGIC)) == SEALED_MAGIC:
                    found.add(name)
        except OSError:
            continue
    return found


def _keep_only(new: Path, bucket: str) -> None:
    """Drop all other buckets, and their settings."""
    if not is_bucket_name(bucket) or not (new / bucket).is_dir():
        raise ArchiveWrongKindError(f"The archive holds no bucket {printable(bucket)}.")
    for directory, kept in ((new, {SYSTEM, bucket}), (new / BUCKETS, {bucket})):
        for name in set(os.listdir(directory) if directory.is_dir() else ()) - kept:
            path = directory / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _leave_out(new: Path, keep_users: bool) -> None:
    """Drop what is the target's own, in archives that were made by hand, sessions, and users where they are to stay.

    What the drive said of itself stays for who counts, and is exchanged with nothing.
    """
    system = new / SYSTEM
    if system.is_symlink() or not system.is_dir():
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        shutil.rmtree(new / SESSIONS)
    for name in os.listdir(system):
        if name not in ("buckets", "config", Path(FORMAT).name) or (name == "config" and keep_users):
            path = system / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
