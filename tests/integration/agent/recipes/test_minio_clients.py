"""Clients go on while a MinIO is exported and imported: no wrong answer, nothing lost that was acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.engines.minio.server import quiet
from agent.engines.minio.server.client import Client, RefusedError
from common.errors import AppUnavailableError, ServiceError
from tests.fixtures.minio_data import ENABLED, MEBIBYTE, md5_of, put, versions
from tests.fixtures.minio_moments import MOMENTS
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

CLIENTS = 8
KEYS = [f"key{number}" for number in range(8)]
PAIRS = 24
_MANY = 20
_UNAVAILABLE = "unavailable"


@dataclass
class Seen:
    """What clients met.

    Attributes:
        acknowledged: keys that were stored, and when the call began.
        mixed: reads that saw the new data first and the old after that.
        failures: of reads, by what the server answered.
    """

    reads: int = 0
    mixed: int = 0
    acknowledged: dict[str, float] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)


def _kind_of(failure: ServiceError) -> str:
    """Whether the server was not there, or not well (5xx); otherwise what it refused the call with."""
    if isinstance(failure, AppUnavailableError) or (isinstance(failure, RefusedError) and failure.status >= 500):
        return _UNAVAILABLE
    return failure.text


@asynccontextmanager
async def busy(server: MinioServer, *works: Callable[[Client, int], Awaitable[None]]) -> AsyncIterator[None]:
    """Have CLIENTS clients repeat their work for the time of the block."""

    async def repeat(number: int) -> None:
        async with client_of(server) as client:
            turn = 0
            while True:
                await works[number % len(works)](client, number * 1_000_000 + turn)
                turn += 1
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(repeat(number), name=f"client {number}") for number in range(CLIENTS)]
    try:
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tagged(server: MinioServer, tag: bytes) -> None:
    async with client_of(server) as client:
        for bucket in ("both1", "both2"):
            await client.call("PUT", bucket)
            for number in range(20):
                await put(client, bucket, f"key{number}", tag * 200_000 if number == 0 else tag)


async def test_an_import_mixes_nothing_and_loses_no_acknowledged_write(
    start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = start_minio(), start_minio()
    await _tagged(source, b"NEW")
    await _tagged(target, b"OLD")
    app = MinioApp(target, tmp_path / "b")
    record, _ = await app.stage((await MinioApp(source, tmp_path / "a").export()).file)
    seen = Seen()
    exchanged_at = 0.0

    def note_exchange() -> None:
        nonlocal exchanged_at
        exchanged_at = time.monotonic()

    async def read(client: Client, turn: int) -> None:
        try:
            first = (await client.call("GET", "both1", "key1")).body
            second = (await client.call("GET", "both2", "key1")).body
        except ServiceError as failure:
            seen.failures[_kind_of(failure)] += 1
            return
        seen.reads += 1
        seen.mixed += (first, second) == (b"NEW", b"OLD")

    async def write(client: Client, turn: int) -> None:
        began_at = time.monotonic()
        try:
            await put(client, "both1", f"written{turn}", b"W" * 500)
        except ServiceError:
            return
        seen.acknowledged[f"written{turn}"] = began_at

    def later() -> set[str]:
        return {key for key, began_at in seen.acknowledged.items() if began_at > exchanged_at}

    MOMENTS["exchanged"].hook(note_exchange, monkeypatch.setattr)
    async with busy(target, read, write):
        await until(lambda: seen.reads >= _MANY and len(seen.acknowledged) >= _MANY)
        await app.recipe.restore(record, app.progress)
        reads = seen.reads
        await until(lambda: seen.reads >= reads + _MANY and len(later()) >= _MANY)

    async with client_of(target) as client:
        there = {key for key, *_ in await versions(client, "both1")}
    assert later() <= there
    assert seen.mixed == 0
    # Nobody was told that something is not there: connections were refused while MinIO restarted, and nothing else.
    assert set(seen.failures) <= {_UNAVAILABLE}


async def _versioned(server: MinioServer, body: bytes) -> set[str]:
    """A bucket of KEYS with some versions of each, and their ids."""
    async with client_of(server) as client:
        await client.call("PUT", "versioned")
        await client.call("PUT", "versioned", query={"versioning": ""}, body=ENABLED)
        for key in KEYS * 3:
            await put(client, "versioned", key, body)
        return {version for _, version, *_ in await versions(client, "versioned")}


@variants("body", [b"inline" * 700, b"in a file of its own" * 15_000], kept=[b"inline" * 700])
async def test_what_is_on_its_way_when_a_bucket_is_exchanged_brings_no_version_of_one_side_into_the_other(
    body: bytes, start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(), start_minio()
    archived, previous = await _versioned(source, body), await _versioned(target, body)
    archive = (await MinioApp(source, tmp_path / "a").export()).file
    source.close()
    app = MinioApp(target, tmp_path / "b")
    written: list[str] = []
    found = []

    async def write(client: Client, turn: int) -> None:
        answer = await client.call("PUT", "versioned", KEYS[turn % len(KEYS)], body=body)
        written.append(answer.headers["x-amz-version-id"])

    async def there() -> set[str]:
        async with client_of(target) as client:
            return {version for _, version, *_ in await versions(client, "versioned")}

    async def until_written() -> set[str]:
        """Those that were begun from here on."""
        began_at = len(written) + CLIENTS
        await until(lambda: len(written) > began_at + _MANY)
        return set(written[began_at : began_at + _MANY])

    async with busy(target, write):
        await until_written()
        for _ in range(3):
            record, _ = await app.stage(archive, bucket="versioned")
            await app.recipe.restore(record, app.progress)
            found.append((archived, previous, await until_written(), await there()))
            await app.recipe.undo(record, app.progress)
            found.append((previous, archived, await until_written(), await there()))

    for own, others, since, seen in found:
        assert (own - seen, others & seen, since - seen) == (set(), set(), set())


class Upload:
    """One of two halves, of which the second waits for a word; in a task of its own."""

    half = b"half" * MEBIBYTE

    def __init__(self, client: Client, key: str, **headers: str) -> None:
        self.may_end = asyncio.Event()
        self._has_begun = asyncio.Event()
        self.task = asyncio.create_task(self._put(client, key, headers), name="upload")

    async def begin(self) -> None:
        await self._has_begun.wait()

    async def _put(self, client: Client, key: str, headers: dict[str, str]) -> None:
        halves = {"body": self._halves(), "body_bytes": 2 * len(self.half), "body_sha256": "UNSIGNED-PAYLOAD"}
        async with client.open("PUT", "files", key, headers=headers, **halves):  # type: ignore[arg-type]  # passed on
            pass

    async def _halves(self) -> AsyncIterator[bytes]:
        yield self.half
        self._has_begun.set()
        await self.may_end.wait()
        yield self.half


async def _archive_with(app: MinioApp, client: Client, key: str) -> bytes:
    """Of a new bucket with one object."""
    await client.call("PUT", "files")
    await put(client, "files", key, b"archived")
    return (await app.export()).file


async def test_an_upload_that_waits_for_its_client_is_not_waited_for_and_ends_in_what_is_in_place_then(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    app = MinioApp(start_minio(), tmp_path)
    async with client_of(app.server) as client:
        archive = await _archive_with(app, client, "slow")
        await put(client, "files", "slow", b"previous")
        record, _ = await app.stage(archive, bucket="files")
        upload = Upload(client, "slow")
        await upload.begin()

        await app.recipe.restore(record, app.progress)
        restored = (await client.call("GET", "files", "slow")).body
        upload.may_end.set()
        await upload.task

        assert restored == b"archived"
        assert (await client.call("GET", "files", "slow")).body == 2 * upload.half
        await app.recipe.undo(record, app.progress)
        assert (await client.call("GET", "files", "slow")).body == b"previous"


async def test_an_import_waits_for_no_object_that_a_client_keeps_others_away_from(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    app = MinioApp(start_minio(), tmp_path)
    async with client_of(app.server) as client:
        archive = await _archive_with(app, client, "slow")
        await client.call("DELETE", "files", "slow")
        record, _ = await app.stage(archive, bucket="files")
        upload = Upload(client, "slow", **{"if-none-match": "*"})
        await upload.begin()

        async with asyncio.timeout(20):
            await app.recipe.restore(record, app.progress)
        assert not upload.task.done()
        upload.may_end.set()
        await upload.task
        await app.recipe.undo(record, app.progress)


async def test_an_upload_that_ends_while_its_bucket_is_away_is_refused_and_on_no_side(
    start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = MinioApp(start_minio(), tmp_path)
    async with client_of(app.server) as client:
        archive = await _archive_with(app, client, "both")
        await put(client, "files", "both", b"previous")
        record, _ = await app.stage(archive, bucket="files")
        uploads = [Upload(client, key) for key in ("both", "new", "folder/new")]
        refusals: list[object] = []

        async def end_them(client: Client) -> bool:
            for upload in uploads:
                upload.may_end.set()
            refusals.extend(await asyncio.gather(*(upload.task for upload in uploads), return_exceptions=True))
            return await until_nothing_is_written(client)

        until_nothing_is_written = quiet.until_nothing_is_written
        for upload in uploads:
            await upload.begin()
        monkeypatch.setattr(quiet, "until_nothing_is_written", end_them)
        await app.recipe.restore(record, app.progress)
        monkeypatch.undo()

        assert [getattr(refusal, "s3_code", refusal) for refusal in refusals] == ["NoSuchBucket"] * 3
        assert [key for key, *_ in await versions(client, "files")] == ["both"]
        assert (await client.call("GET", "files", "both")).body == b"archived"
        await app.recipe.undo(record, app.progress)
        assert [key for key, *_ in await versions(client, "files")] == ["both"]
        assert (await client.call("GET", "files", "both")).body == b"previous"


async def test_an_export_is_of_one_moment_while_clients_write(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), start_minio()
    async with client_of(source) as client:
        for bucket in ("plain", "versioned"):
            await client.call("PUT", bucket)
        await client.call("PUT", "versioned", query={"versioning": ""}, body=ENABLED)

    written: set[int] = set()
    deletions = 0

    async def write_pairs(client: Client, turn: int) -> None:
        # Each pair has one writer, which writes the first half first: so the second is never the newer one.
        pair = turn // 1_000_000 + CLIENTS * (turn % (PAIRS // CLIENTS))
        body = b"%012d" % turn * (20_000 if pair % 2 else 10)
        for bucket in ("plain", "versioned"):
            for half in ("a", "b"):
                await put(client, bucket, f"{half}{pair:02d}", body)
        written.add(pair)

    async def delete_old(client: Client, turn: int) -> None:
        nonlocal deletions
        # Many at once: MinIO rewrites their xl.meta in place then.
        await asyncio.sleep(0.1)
        old = [(key, version) for key, version, _, is_latest in await versions(client, "versioned") if not is_latest]
        listed = "".join(f"<Object><Key>{key}</Key><VersionId>{id}</VersionId></Object>" for key, id in old[:300])
        if listed:
            body = f"<Delete>{listed}</Delete>".encode()
            headers = {"content-md5": md5_of(body)}
            await client.call("POST", "versioned", query={"delete": ""}, headers=headers, body=body)
            deletions += 1

    async with busy(source, *[write_pairs] * (CLIENTS - 1), delete_old):
        await until(lambda: len(written) == PAIRS - PAIRS // CLIENTS and deletions > 0)
        exported = await MinioApp(source, tmp_path / "a").export()
    await MinioApp(target, tmp_path / "b").import_file(exported.file)

    found = await _read_all(target)
    assert len(found) > PAIRS
    for (_, key, _), body in found.items():
        assert body == body[:12] * (len(body) // 12), key
    latest = {(bucket, key): int(body[:12]) for (bucket, key, at), body in found.items() if at is True}
    for (bucket, key), number in latest.items():
        assert key[0] == "a" or number <= latest[bucket, f"a{key[1:]}"], bucket
    assert exported.warnings == []


async def _read_all(server: MinioServer) -> dict[tuple[str, str, object], bytes]:
    """Content by bucket, key, and True for the latest version or the id of another."""
    found: dict[tuple[str, str, object], bytes] = {}
    async with client_of(server) as client:
        for bucket in ("plain", "versioned"):
            for key, version, is_marker, is_latest in await versions(client, bucket):
                assert not is_marker
                try:
                    body = (await client.call("GET", bucket, key, query={"versionId": version})).body
                except RefusedError as refusal:
                    raise AssertionError(f"{bucket}/{key} of version {version} is lost") from refusal
                found[bucket, key, True if is_latest else version] = body
    return found
