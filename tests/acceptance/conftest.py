"""One deployment for all tests of a module, which `make test` keeps in one process.

Not for all of a process: its busy app would go on writing while the rest of the suite runs, for a tenth of the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.world import DATABASE_ID, VOLUME_ID, World
from tools.demo import database_content, volume_content
from tools.deployment import DatabaseApp, Deployment, VolumeApp
from tools.servers import short_directory

DATABASE_MEGABYTES = 20
"""Twice what all buffers between pg_dump and a client that does not read hold, and a little more.

A module that says HOLDS_NOTHING_UP has a fifth of it, and of the volume.
"""
VOLUME_MEGABYTES = 30
SERVER_SETTINGS = {"log_statement": "all"}
"""So that a secret in a statement shows in the server's log."""


@pytest.fixture(scope="module")
def deployed_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Everything, running, both apps filled."""
    parts = 5 if getattr(request.module, "HOLDS_NOTHING_UP", False) else 1
    with short_directory("acceptance") as folder:
        database = DatabaseApp(DATABASE_ID, server_settings=SERVER_SETTINGS)
        volume = VolumeApp(VOLUME_ID)
        with Deployment(folder / "run", [database, volume]) as deployment:
            database_content.load(database.dsn, size_megabytes=DATABASE_MEGABYTES // parts)
            volume_content.fill(volume.directory, size_megabytes=VOLUME_MEGABYTES // parts, files=300)
            archives = folder / "archives"
            archives.mkdir()
            yield World(deployment, database, volume, archives)


@pytest.fixture
def world(deployed_world: World) -> World:
    """The same for all tests, whatever the one before broke; each leaves the apps' content as it found it."""
    for app_id in deployed_world.deployment.sites:
        deployed_world.repair(app_id)
    return deployed_world
