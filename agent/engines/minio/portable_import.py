"""A portable archive into a server: into buckets that are not there yet, so that taking it back is deleting them.

Nothing is asked of the server's drives. The buckets fill while they are visible, and only when all of them are whole
are their settings applied, rules that delete and quotas among them.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import os
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from agent.archives.extractor_child import Report
from agent.archives.members import path_of, printable
from agent.engines.minio.client import Client, RefusedError
from agent.engines.minio.layout import is_bucket_name
from agent.engines.minio.listing import buckets_of
from agent.engines.minio.portable import (
    BUCKETS,
    KEPT_HEADERS,
    LEFT_OUT_SETTINGS,
    METADATA,
    METADATA_PREFIX,
    SCHEME,
    SETTINGS,
    Line,
    number_of_line,
    version_id,
)
from agent.engines.minio.portable_checks import BucketCheck, require_known_buckets
from agent.engines.minio.sums import Sums
from common.errors import (
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ServiceError,
    ToolFailedError,
)

_NAMED = 5
_TOGETHER = 8
_MAX_LINE_BYTES = 1 << 20
_MAX_SETTINGS_BYTES = 32 << 20
_PIECE_BYTES = 256 << 10
_ENCRYPTED = "x-amz-server-side-encryption"
_LOCK_FILE = "object-lock.xml"
_GIVEN_HEADERS = frozenset(name for name in KEPT_HEADERS if not name.startswith("x-amz-object-lock-"))
"""Locks are left out: what is locked cannot be deleted, and so not be taken back."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


def check(tree: Path, report: Report, *, only: str) -> dict[str, int]:
    """Look through an unpacked archive; its counts.

    Args:
        only: the bucket that is wanted; empty: all.
    Raises:
        ArchiveRefusedError, ArchiveDamagedError: it is not what an export makes.
        ArchiveIncompatibleError: it is, and a MinIO does not take some of it.
    """
    if report.extracted.symlinks or report.extracted.hard_links:
        raise ArchiveRefusedError("The archive holds links; an export of objects has none.")
    buckets = buckets_in(tree)
    require_known_buckets(tree, buckets)
    sums = Sums(SCHEME)
    found = counts(tree, buckets, sums, only=only)
    _add_settings(tree, buckets, sums)
    carried = report.fingerprint
    if carried is not None and carried.scheme == SCHEME and (differing := carried.differences(sums.fingerprint())):
        names = ", ".join(text.partition(":")[0] for text in differing[:_NAMED])
        raise ArchiveDamagedError(
            f"The archive does not hold what it held when it was exported: {names}; nothing was changed.",
            next_step="Take another copy of the file, or export again.",
        )
    for name, told in (report.header.counts if report.header else {}).items():
        if told != found.get(name, told):
            raise ArchiveDamagedError(
                f"The archive is damaged: its header counts {told} {name}, and there are {found[name]}; nothing was "
                "changed."
            )
    return found


def counts(tree: Path, buckets: Iterable[str], sums: Sums | None = None, *, only: str = "") -> dict[str, int]:
    """Of some buckets of an unpacked archive; raises as `check`.

    Args:
        sums: what is met is added to them.
        only: the one of them that is wanted; empty: all.
    """
    counts = dict.fromkeys(("buckets", "objects", "versions", "markers", "bytes"), 0)
    sums = sums or Sums(SCHEME)
    for bucket in buckets:
        counts["buckets"] += 1
        sums.bucket(bucket)
        last = ""
        checked = BucketCheck(tree, bucket, is_wanted=only in ("", bucket))
        for line in lines_of(tree, bucket):
            checked.meet(line)
            sums.add(bucket, number_of_line(bucket, line), line.size)
            counts["versions"] += 1
            counts["objects"] += line.key != last
            counts["markers"] += line.is_marker
            counts["bytes"] += line.size
            last = line.key
        checked.finish(functools.partial(lines_of, tree, bucket))
        if checked.has_versions and not _is_versioned(tree, bucket):
            raise ArchiveDamagedError(
                f"The archive is damaged: the bucket {bucket} has versions, and its settings say nothing of "
                "versioning, so they would be lost; nothing was changed.",
                next_step="Take another copy of the file, or export again.",
            )
    return counts


def buckets_in(tree: Path) -> list[str]:
    """The buckets of an unpacked archive; ArchiveRefusedError for a name that is none."""
    names = sorted(os.listdir(tree / BUCKETS)) if (tree / BUCKETS).is_dir() else []
    for name in names:
        if not is_bucket_name(name):
            raise ArchiveRefusedError(f"The archive holds {printable(name)}, which is no name of a bucket.")
    return names


def lines_of(tree: Path, bucket: str) -> Iterator[Line]:
    """The versions of a bucket; ArchiveDamagedError for a line that cannot be read, or none at all."""
    try:
        descriptor = os.open(tree / METADATA / f"{bucket}.jsonl", _FILE)
    except OSError as failure:
        raise ArchiveDamagedError(f"The archive is damaged: {METADATA}/{bucket}.jsonl is missing.") from failure
    with open(descriptor, "rb") as file:
        number = 0
        while text := file.readline(_MAX_LINE_BYTES):
            number += 1
            try:
                yield msgspec.json.decode(text, type=Line)
            except (msgspec.DecodeError, ValueError) as failure:
                raise ArchiveDamagedError(
                    f"The archive is damaged: line {number} of {METADATA}/{bucket}.jsonl cannot be read."
                ) from failure


def locked_buckets(tree: Path, names: Iterable[str]) -> list[str]:
    """Those of them with object lock."""
    return [name for name in names if (tree / SETTINGS / name / _LOCK_FILE).is_file()]


def encrypted_buckets(tree: Path, names: Iterable[str]) -> list[str]:
    """Those of them with objects that a KMS encrypted on the server that they are of."""
    return [name for name in names if any(_ENCRYPTED in line.headers for line in lines_of(tree, name))]


async def require_absent(client: Client, names: Sequence[str]) -> None:
    """Refuse buckets that are there already and hold something.

    Raises:
        ArchiveIncompatibleError: naming the first.
    """
    for name in sorted(set(names) & set(await buckets_of(client))):
        raise ArchiveIncompatibleError(
            f"The bucket {name} is there already; a portable archive comes into new buckets only, so that it can be "
            "taken back.",
            next_step="Delete or rename that bucket, or import an archive in the default format, which replaces all.",
        )


async def fill(client: Client, tree: Path, bucket: str) -> None:
    """Put all versions into a bucket that was just made.

    Raises:
        ToolFailedError, AppUnavailableError: the server did not take something.
    """
    is_versioned = _is_versioned(tree, bucket)
    if is_versioned:
        await client.call("PUT", bucket, query={"versioning": ""}, body=_VERSIONING)
    running: set[asyncio.Task[None]] = set()
    try:
        for line in lines_of(tree, bucket):
            if len(running) >= _TOGETHER:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            put = _put(client, tree, bucket, line, is_versioned=is_versioned)
            running.add(asyncio.create_task(put, name="put an object"))
        for task in running:
            await task
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def apply_settings(client: Client, tree: Path, names: Sequence[str]) -> None:
    """Give buckets the settings of the archive, where there is an admin API to do it with.

    Raises:
        ToolFailedError: the server refused one.
    """
    file = io.BytesIO()
    is_empty = True
    with zipfile.ZipFile(file, "w") as archive:
        for bucket in names:
            for name, content in _settings(tree, bucket).items():
                archive.writestr(f"{bucket}/{name}", content)
                is_empty = False
    if is_empty:
        return
    report = (await client.admin("PUT", "import-bucket-metadata", body=file.getvalue())).json()
    buckets = report.get("buckets", {}) if isinstance(report, dict) else {}
    for bucket, found in buckets.items():
        for name, outcome in found.items() if isinstance(found, dict) else ():
            said = outcome.get("error") if isinstance(outcome, dict) else outcome if name == "error" else ""
            if said:
                raise ToolFailedError(f"MinIO refused the settings {name!r} of bucket {bucket}: {said}")


async def remove(client: Client, names: Sequence[str]) -> None:
    """Delete buckets with all that is in them; one that is not there is fine."""
    for name in names:
        try:
            await client.call("DELETE", name, headers={"x-minio-force-delete": "true"}, seconds=600)
        except RefusedError as failure:
            if failure.s3_code != "NoSuchBucket":
                raise


def _add_settings(tree: Path, buckets: Iterable[str], sums: Sums) -> None:
    for bucket in buckets:
        directory = tree / SETTINGS / bucket
        for name in os.listdir(directory) if directory.is_dir() else ():
            if (directory / name).is_file():
                with open(os.open(directory / name, _FILE), "rb") as file:
                    sums.add_setting(bucket, name, hashlib.file_digest(file, "sha256").hexdigest())


def _is_versioned(tree: Path, bucket: str) -> bool:
    return b"<Status>" in _settings(tree, bucket).get("versioning.xml", b"")


async def _put(client: Client, tree: Path, bucket: str, line: Line, *, is_versioned: bool) -> None:
    source = {"x-minio-source-mtime": line.modified}
    query = {"versionId": version_id(line.version)} if is_versioned else {}
    try:
        if line.is_marker:
            marks = {"x-minio-source-deletemarker": "true", "x-minio-source-replication-request": "true"}
            await client.call("DELETE", bucket, line.key, query=query, headers=source | marks)
            return
        headers = source | {
            name.lower(): value
            for name, value in line.headers.items()
            if name.lower() in _GIVEN_HEADERS or name.lower().startswith(METADATA_PREFIX)
        }
        if _ENCRYPTED not in headers:
            headers["x-minio-source-etag"] = line.etag
        path = tree.joinpath(*path_of(line.file))
        async with client.open(
            "PUT",
            bucket,
            line.key,
            query=query,
            headers=headers,
            body=_pieces(path) if line.size else b"",
            body_bytes=line.size,
            body_sha256=line.sha256,
        ) as response:
            await response.read()
    except ServiceError as failure:
        raise ToolFailedError(f"{bucket}/{line.key} could not be stored: {failure.text}") from failure


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    descriptor = os.open(path, _FILE)
    try:
        while piece := await asyncio.to_thread(os.read, descriptor, _PIECE_BYTES):
            yield piece
    finally:
        os.close(descriptor)


def _settings(tree: Path, bucket: str) -> dict[str, bytes]:
    directory = tree / SETTINGS / bucket
    if not directory.is_dir():
        return {}
    found = {}
    for entry in sorted(os.listdir(directory)):
        path = directory / entry
        if (
            entry not in (*LEFT_OUT_SETTINGS, _LOCK_FILE)
            and path.is_file()
            and path.stat().st_size <= _MAX_SETTINGS_BYTES
        ):
            found[entry] = path.read_bytes()
    return found
