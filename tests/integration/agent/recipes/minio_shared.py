"""Servers that the tests of a file share: a full one that nobody changes, and one that everybody leaves as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.minio_data import access, fill, fill_otherwise, fill_users, users, view
from tests.integration.agent.recipes.minio_apps import Exported, MinioApp
from tools.servers import MinioServer, minio, short_directory


@dataclass
class Source:
    """A server with everything in it, and what came out of it.

    Attributes:
        seen, rights: what root sees, and what each user may.
        drive, objects: its exports, of the drive with secrets in clear, and portable.
    """

    server: MinioServer
    directory: Path
    seen: dict[str, Any]
    rights: dict[str, str]
    drive: Exported
    objects: Exported

    @property
    def app(self) -> MinioApp:
        return MinioApp(self.server, self.directory)


@dataclass
class Target:
    """A server with other data; `before` is what root sees."""

    server: MinioServer
    directory: Path
    before: dict[str, Any]

    @property
    def app(self) -> MinioApp:
        return MinioApp(self.server, self.directory)


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with short_directory("minio-source") as folder, MinioServer(minio()) as server:

        async def make() -> Source:
            await fill(server)
            await fill_users(server)
            app = MinioApp(server, folder / "agent")
            drive, objects = await app.export(secrets="clear"), await app.export("s3")
            return Source(server, folder / "agent", await view(server), await access(server), drive, objects)

        yield asyncio.run(make())


@pytest.fixture(scope="module")
def shared_target() -> Iterator[Target]:
    with (
        short_directory("minio-target") as folder,
        MinioServer(minio(), user="otheradmin", password="otherpass456") as server,
    ):

        async def make() -> Target:
            await fill_otherwise(server)
            return Target(server, folder / "agent", await view(server))

        yield asyncio.run(make())


@pytest.fixture
async def target(shared_target: Target) -> AsyncIterator[Target]:
    """The shared one, which a test has to leave as it was."""
    yield shared_target
    assert await view(shared_target.server) == shared_target.before
    assert await users(shared_target.server) == ["local"]
    assert shared_target.app.leftovers() == []
