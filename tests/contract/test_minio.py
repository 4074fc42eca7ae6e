"""The contract over MinIO."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from agent.recipes.minio import MinioRecipe
from tests.contract.app import Fill, ServerApp
from tests.contract.suite import ContractSuite
from tests.fixtures.minio_data import put, versions, view
from tests.fixtures.minio_servers import client_of
from tools.servers import MinioServer, minio

_RESERVED = ".mathison-data"
_VERSIONED = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


class Minio(ServerApp[MinioServer]):
    """A server with one drive, which the agent sees."""

    recipe = MinioRecipe
    kills_apart = 3
    new_counts: ClassVar[Mapping[str, int]] = {"buckets": 2, "objects": 2, "versions": 4}

    def __init__(self, server: MinioServer, directory: Path) -> None:
        (directory / "password").write_text(server.password + "\n")
        super().__init__(
            server,
            {
                "url": server.url,
                "user": server.user,
                "password_file": str(directory / "password"),
                "directory": str(server.drive),
            },
        )

    @property
    def formats(self) -> Sequence[str]:
        # A portable archive comes into new buckets only.
        return [found for found in super().formats if not found.startswith("s3")]

    async def fill(self, what: Fill) -> None:
        wanted = set() if what is Fill.EMPTY else {"both", f"only-{what.value}"}
        async with client_of(self.server) as client:
            for bucket in [name for name in await view(self.server) if name != "hidden"]:
                for key, version, _, _ in await versions(client, bucket):
                    await client.call("DELETE", bucket, key, query={"versionId": version})
                await client.call("DELETE", bucket)
            for bucket in sorted(wanted):
                await client.call("PUT", bucket)
                await client.call("PUT", bucket, query={"versioning": ""}, body=_VERSIONED)
                await put(client, bucket, "key", what.value.encode(), x_amz_meta_of=what.value)
                await put(client, bucket, "key", what.value.encode() * 2)
            if what is Fill.BIG:
                await put(client, "both", "big", random.Random(1).randbytes(self.big_bytes))

    async def write_more(self) -> None:
        async with client_of(self.server) as client:
            await put(client, "both", "key", b"more")
            await client.call("PUT", "more")

    async def contents(self) -> object:
        return await view(self.server)

    async def remove_kept(self, work_directory: Path) -> None:
        shutil.rmtree(self.server.drive / _RESERVED)

    def leftovers(self) -> list[str]:
        drive = self.server.drive
        reserved = sorted(os.listdir(drive / _RESERVED)) if (drive / _RESERVED).exists() else []
        return [*reserved, *(name for name in os.listdir(drive) if name.startswith("mathison-"))]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    with MinioServer(minio()) as server:
        yield Minio(server, tmp_path_factory.mktemp("app"))


class TestMinio(ContractSuite):
    """All of it."""
