"""Any S3 server out as a portable archive: listed, read object by object, nothing asked of its drives."""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import tempfile
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from agent.archives import tarblocks as tar
from agent.archives.members import Kind, Member
from agent.engines.minio.drive.sums import Sums
from agent.engines.minio.portable.form import (
    BUCKETS,
    METADATA,
    NO_VERSION,
    SCHEME,
    SETTINGS,
    VERSIONS,
    Line,
    is_file_name,
    number_of_line,
)
from agent.engines.minio.portable.headers import in_words, keep, obstacle
from agent.engines.minio.portable.lines import fault_in
from agent.engines.minio.portable.listing import Listed, buckets_of, keys_of
from agent.engines.minio.portable.settings import settings_by_bucket, settings_of_other
from agent.engines.minio.portable.stored_metadata import StoredWords
from agent.engines.minio.server.client import Client, RefusedError, UnreadableAnswerError, parse_xml, text_of
from agent.engines.minio.server.slim_aiohttp import aiohttp
from agent.steps import Progress
from common.errors import AppBusyError, AppUnavailableError, SourceUnreadableError
from common.frames import LEAN_CHUNK_BYTES
from common.headers import ArchiveHeader
from common.seals import TarSealWriter

_TOGETHER = 12
_ATTEMPTS = 5
_LISTED_AGAIN = 100
"""Versions at once: of a key's own there are a few as a rule, and of keys that begin with it maybe a million."""
_SMALL_BYTES = 256 << 10
_FILE_MODE = 0o644


@dataclass
class Found:
    """What an export met; complete when its chunks have ended."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("buckets", "objects", "versions", "markers", "bytes"), 0)
    )
    warnings: list[str] = field(default_factory=list)
    sums: Sums = field(default_factory=lambda: Sums(SCHEME))


async def chunks_of(
    client: Client, header: ArchiveHeader, found: Found, progress: Progress, *, work_directory: Path, is_minio: bool
) -> AsyncGenerator[bytes, None]:
    """The archive in pieces of about a mebibyte.

    Args:
        is_minio: False: of another S3 server, which has no admin API.
    Raises:
        SourceUnreadableError: an object cannot be read.
        AppBusyError: one was replaced while it was read.
        AppUnavailableError: the server stopped answering.
    """
    seal = TarSealWriter()
    held = [seal.opening(header)]
    size = 0
    async with aclosing(_parts(client, found, progress, work_directory, is_minio=is_minio)) as parts:
        async for part in parts:
            seal.add(part)
            held.append(part)
            size += len(part)
            if size >= LEAN_CHUNK_BYTES:
                yield b"".join(held)
                held, size = [], 0
    held.append(seal.closing(found.sums.fingerprint()))
    yield b"".join(held)


async def _parts(
    client: Client, found: Found, progress: Progress, work_directory: Path, *, is_minio: bool
) -> AsyncGenerator[bytes, None]:
    settings, without = await settings_by_bucket(client) if is_minio else ({}, "")
    if without:
        found.warnings.append(without)
    for bucket in await buckets_of(client):
        if not is_minio:
            settings = {bucket: await settings_of_other(client, bucket)}
        found.counts["buckets"] += 1
        found.sums.bucket(bucket)
        yield _directory(f"{BUCKETS}/{bucket}")
        for name, content in settings.get(bucket, {}).items():
            found.sums.add_setting(bucket, name, hashlib.sha256(content).hexdigest())
            yield _file(f"{SETTINGS}/{bucket}/{name}", content)
        with tempfile.TemporaryFile(dir=work_directory) as lines:
            async with aclosing(_objects(client, bucket, lines, found, progress)) as parts:
                async for part in parts:
                    yield part
            size = lines.tell()
            lines.seek(0)
            yield tar.header_of(_member(f"{METADATA}/{bucket}.jsonl", size), stored_bytes=size)
            while piece := lines.read(_SMALL_BYTES):
                yield piece
            yield tar.padding(size)


async def _objects(
    client: Client, bucket: str, lines: IO[bytes], found: Found, progress: Progress
) -> AsyncGenerator[bytes, None]:
    reader = _Reader(client, bucket, found, progress)
    waiting: list[tuple[Listed, Line]] = []
    above: list[str] = []
    async with aclosing(keys_of(client, bucket)) as keys:
        async for versions in keys:
            found.counts["objects"] += 1
            for listed in versions:
                found.counts["versions"] += 1
                found.counts["markers"] += listed.is_marker
                line = Line(
                    key=listed.key,
                    version=listed.version,
                    is_latest=listed.is_latest,
                    is_marker=listed.is_marker,
                    modified=listed.modified,
                    etag=listed.etag,
                )
                if not listed.is_marker:
                    is_plain = listed.is_latest and is_file_name(listed.key) and not _is_below(listed.key, above)
                    number = found.counts["versions"]
                    line.file = f"{BUCKETS}/{bucket}/{listed.key}" if is_plain else f"{VERSIONS}/{bucket}/{number}"
                waiting.append((listed, line))
            if len(waiting) >= _TOGETHER:
                async for part in reader.read(waiting, lines):
                    yield part
                waiting = []
    async for part in reader.read(waiting, lines):
        yield part


def _is_below(key: str, above: list[str]) -> bool:
    """Whether another object's key is a directory of this one, so that both cannot be files. Keys come in order.

    Args:
        above: keys so far that this one may begin with; kept here from call to call.
    """
    while above and not key.startswith(above[-1]):
        above.pop()
    is_below = any(key.startswith(f"{found}/") for found in above)
    above.append(key)
    return is_below


class _Reader:
    """Reads versions of one bucket, small ones several at a time, in order."""

    def __init__(self, client: Client, bucket: str, found: Found, progress: Progress) -> None:
        self._client = client
        self._bucket = bucket
        self._found = found
        self._progress = progress
        self._words = StoredWords(client, bucket)

    async def read(self, waiting: list[tuple[Listed, Line]], lines: IO[bytes]) -> AsyncGenerator[bytes, None]:
        """Members with their content, and a line for each version."""
        tasks = {
            id(line): asyncio.create_task(self._small(listed, line), name="read an object")
            for listed, line in waiting
            if not listed.is_marker and listed.size <= _SMALL_BYTES
        }
        try:
            for listed, line in waiting:
                if id(line) in tasks and (member := await tasks[id(line)]):
                    yield member
                elif not listed.is_marker:
                    async with aclosing(self._entry(listed, line)) as parts:
                        async for part in parts:
                            yield part
                if fault := fault_in(line, self._bucket):
                    raise self._not_kept(listed, f"it has {fault}")
                self._found.counts["bytes"] += line.size
                self._found.sums.add(self._bucket, number_of_line(self._bucket, line), line.size)
                lines.write(msgspec.json.encode(line) + b"\n")
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _small(self, listed: Listed, line: Line) -> bytes:
        """A member; nothing of one that has become large."""
        held = []
        async with aclosing(self._entry(listed, line)) as parts:
            async for part in parts:
                if listed.size > _SMALL_BYTES:
                    return b""
                held.append(part)
        return b"".join(held)

    async def _entry(self, listed: Listed, line: Line) -> AsyncGenerator[bytes, None]:
        """Its header, content and padding; the line says the rest of it then."""
        digest = hashlib.sha256()
        line.size = 0
        try:
            async with self._opened(listed, line) as response:
                line.etag, line.modified = listed.etag, listed.modified
                is_tagged = response.headers.get("x-amz-tagging-count", "0") != "0"
                yield tar.header_of(_member(line.file, listed.size), stored_bytes=listed.size)
                async for piece in response.content.iter_chunked(_SMALL_BYTES):
                    digest.update(piece)
                    line.size += len(piece)
                    self._progress.read(len(piece))
                    yield piece
        except (aiohttp.ClientError, OSError) as failure:
            raise await self._broken_off(listed, line.size) from failure
        except UnreadableAnswerError as failure:
            raise self._not_kept(listed, failure.said) from failure
        except RefusedError as failure:
            if failure.status == 404:
                raise AppBusyError(
                    f"{self._bucket}/{listed.key} was deleted while the server was read.",
                    next_step="Try again when it is less busy, or use the default format, which is of one moment.",
                ) from failure
            raise SourceUnreadableError(
                f"{self._bucket}/{listed.key} cannot be read: {failure.text}",
                next_step="What is damaged, or encrypted with a key of its owner, goes in the default format only.",
            ) from failure
        if line.size != listed.size:
            raise self._changed(listed)
        line.sha256 = digest.hexdigest()
        if is_tagged and "x-amz-tagging" not in line.headers:
            line.headers["x-amz-tagging"] = await self._tags(listed)
        if reason := obstacle(line):
            raise self._not_kept(listed, f"it has {reason}")
        yield tar.padding(line.size)

    @asynccontextmanager
    async def _opened(self, listed: Listed, line: Line) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer with its content, listing and line made to say the same: an object may have been replaced since.

        Only a version without an id of its own can be. Times are taken from listings, which say milliseconds.
        """
        # Other servers than MinIO know no version of that name.
        query = {} if listed.version == NO_VERSION and listed.is_latest else {"versionId": listed.version}
        for _ in range(_ATTEMPTS):
            async with self._client.open(
                "GET", self._bucket, listed.key, query=query, headers={"x-amz-tagging-directive": "ACCESS"}
            ) as response:
                is_fixed = listed.version != NO_VERSION or _is_of(response, listed)
                is_listed = is_fixed or not await self._has_changed(listed)
                if is_listed and await self._keep(listed, line, response):
                    yield response
                    return
        raise self._changed(listed)

    async def _keep(self, listed: Listed, line: Line, response: aiohttp.ClientResponse) -> bool:
        """Note headers and metadata; False where the object was replaced meanwhile."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        texts = in_words(headers)
        if texts:
            stored = await self._words.stored(listed, {name: headers[name] for name in texts})
            if stored is None:
                return False
            texts = {name: text for name, text in texts.items() if name not in stored}
        keep(line, headers | texts)
        return True

    async def _has_changed(self, listed: Listed) -> bool:
        """List an object again; some are listed with another ETag than they are given out with."""
        found = None
        async with aclosing(keys_of(self._client, self._bucket, prefix=listed.key, page=_LISTED_AGAIN)) as keys:
            async for versions in keys:
                if versions[0].key == listed.key:
                    found = next((new for new in versions if new.version == listed.version), None)
                if versions[0].key.encode() >= listed.key.encode():
                    break
        if found is None or (found.is_marker, found.is_latest) != (listed.is_marker, listed.is_latest):
            raise self._changed(listed)
        if found == listed:
            return False
        listed.etag, listed.modified, listed.size = found.etag, found.modified, found.size
        return True

    def _changed(self, listed: Listed) -> AppBusyError:
        return AppBusyError(
            f"{self._bucket}/{listed.key} has changed while it was read.",
            next_step="Try again when it is less busy, or use the default format, which is of one moment.",
        )

    def _not_kept(self, listed: Listed, reason: str) -> SourceUnreadableError:
        return SourceUnreadableError(
            f"{self._bucket}/{listed.key} cannot be in a portable archive: {reason}.",
            next_step="Store it anew without, or use the default format, which takes objects as they are.",
        )

    async def _broken_off(self, listed: Listed, read_bytes: int) -> SourceUnreadableError | AppUnavailableError:
        """MinIO ends an answer without a word when it meets damage, and so does a server that goes away."""
        said = f"The server broke off {self._bucket}/{listed.key} after {read_bytes} of {listed.size} bytes"
        try:
            await buckets_of(self._client)
        except AppUnavailableError as failure:
            return AppUnavailableError(f"{said}, and does not answer any more: {failure.text}")
        return SourceUnreadableError(
            f"{said}.",
            next_step="If it does so again, the object is damaged and the server's log has why: heal or delete it. The "
            "default format takes objects as they are and names what is damaged.",
        )

    async def _tags(self, listed: Listed) -> str:
        """As a header has them; for servers that do not give them with the object."""
        query = {"tagging": ""} | ({} if listed.version == NO_VERSION else {"versionId": listed.version})
        answer = parse_xml((await self._client.call("GET", self._bucket, listed.key, query=query)).body)
        tags = [element for element in answer.iter() if element.tag.rpartition("}")[2] == "Tag"]
        return urllib.parse.urlencode([(text_of(tag, "Key"), text_of(tag, "Value")) for tag in tags])


def _is_of(response: aiohttp.ClientResponse, listed: Listed) -> bool:
    """Whether an answer is of what is listed, as far as it says so."""
    try:
        modified = email.utils.parsedate_to_datetime(response.headers["Last-Modified"])
    except (KeyError, ValueError):
        return False
    return (
        response.headers.get("ETag", "").strip('"') == listed.etag
        and response.content_length == listed.size
        and f"{modified:%Y-%m-%dT%H:%M:%S}" == listed.modified[:19]
    )


def _directory(name: str) -> bytes:
    return tar.header_of(Member(name=name, kind=Kind.DIRECTORY, mode=0o755))


def _file(name: str, content: bytes) -> bytes:
    return tar.header_of(_member(name, len(content)), stored_bytes=len(content)) + content + tar.padding(len(content))


def _member(name: str, size: int) -> Member:
    return Member(name=name, kind=Kind.FILE, size=size, mode=_FILE_MODE)
