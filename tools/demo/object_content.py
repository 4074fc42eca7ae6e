"""Buckets as people have them: uploads of all sizes with their metadata, documents in several versions, some deleted.

What a server holds is read through S3 like a client's, apart from the agent's own reading of the drive on purpose.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.engines.minio.portable.listing import Listed, buckets_of, keys_of
from agent.engines.minio.server.client import Client, connected
from agent.engines.minio.server.signing import Account
from common.fingerprints import Fingerprint
from tools.servers import MinioServer

MEGABYTE = 1_000_000
UPLOADS, DOCUMENTS = "uploads", "documents"
_CALLS_AT_ONCE = 16
_SMALLEST_BYTES, _LARGEST_BYTES = 100, 20_000_000
_DOCUMENTS = 40
_VERSIONED = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


def load(server: MinioServer, *, size_megabytes: int, seed: int = 1) -> None:
    """Fill two buckets, one of them versioned; the same seed gives the same content."""
    asyncio.run(_load(server, size_megabytes, random.Random(seed)))  # noqa: S311  # nothing secret


def write_more(server: MinioServer) -> None:
    """Uploads added and deleted, documents written over."""
    asyncio.run(_write_more(server))


def wipe(server: MinioServer) -> None:
    """Delete every bucket with all that is in it."""
    asyncio.run(_wipe(server))


def look(server: MinioServer) -> Fingerprint:
    """Every version of every object: content, type, metadata, time."""
    return asyncio.run(_look(server))


async def _load(server: MinioServer, size_megabytes: int, choice: random.Random) -> None:
    sizes: list[int] = []
    while sum(sizes) < size_megabytes * MEGABYTE:
        sizes.append(min(_LARGEST_BYTES, int(_SMALLEST_BYTES * choice.paretovariate(0.35))))
    bodies = {f"{number % 12:02}/{number:05}.bin": choice.randbytes(size) for number, size in enumerate(sizes)}
    async with _client(server) as client:
        for bucket in (UPLOADS, DOCUMENTS):
            await client.call("PUT", bucket)
        await client.call("PUT", DOCUMENTS, query={"versioning": ""}, body=_VERSIONED)
        await _put_all(client, UPLOADS, bodies)
        for draft in range(3):
            await _put_all(client, DOCUMENTS, {f"größe {n}.txt": b"draft %d\n" % draft * n for n in range(_DOCUMENTS)})
        for number in range(0, _DOCUMENTS, 10):
            await client.call("DELETE", DOCUMENTS, f"größe {number}.txt")


async def _write_more(server: MinioServer) -> None:
    async with _client(server) as client:
        await _put_all(client, UPLOADS, {f"new/{number}.bin": bytes([number]) * 5000 for number in range(50)})
        await _put_all(client, DOCUMENTS, {f"größe {number}.txt": b"final\n" for number in range(5)})
        async for versions in keys_of(client, UPLOADS):
            if versions[0].key.startswith("03/"):
                await client.call("DELETE", UPLOADS, versions[0].key)


async def _wipe(server: MinioServer) -> None:
    async with _client(server) as client:
        for bucket in await buckets_of(client):
            await client.call("DELETE", bucket, headers={"x-minio-force-delete": "true"})


async def _look(server: MinioServer) -> Fingerprint:
    parts: dict[str, str] = {}
    async with _client(server) as client:
        for bucket in await buckets_of(client):
            parts[bucket] = "bucket"
            async for versions in keys_of(client, bucket):
                for version in versions:
                    parts[f"{bucket}/{version.key} {version.version}"] = await _described(client, bucket, version)
    return Fingerprint(scheme="demo-objects/1", parts=parts)


async def _described(client: Client, bucket: str, version: Listed) -> str:
    if version.is_marker:
        return f"deleted {version.modified}"
    answer = await client.call("GET", bucket, version.key, query={"versionId": version.version})
    kept = {name.lower(): value for name, value in answer.headers.items()}
    metadata = [kept.get(name, "") for name in ("content-type", "etag", "x-amz-meta-owner")]
    return f"{version.modified} {' '.join(metadata)} {len(answer.body)} {hashlib.sha256(answer.body).hexdigest()}"


async def _put_all(client: Client, bucket: str, bodies: dict[str, bytes]) -> None:
    slots = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def put(key: str, body: bytes) -> None:
        async with slots:
            headers = {"content-type": "application/x-demo", "x-amz-meta-owner": key[:2]}
            await client.call("PUT", bucket, key, body=body, headers=headers)

    await asyncio.gather(*(put(key, body) for key, body in bodies.items()))


@asynccontextmanager
async def _client(server: MinioServer) -> AsyncIterator[Client]:
    async with connected(Account(server.url, server.user, server.password), None) as client:
        yield client
