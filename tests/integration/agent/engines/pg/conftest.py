"""Apps with a PostgreSQL database, made for one test each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.engines.pg.apps import PostgresApp
from tools.servers import PostgresServer

MakeApp = Callable[..., PostgresApp]


@pytest.fixture
async def make_app(postgres_servers: Callable[[int], PostgresServer], tmp_path: Path) -> AsyncIterator[MakeApp]:
    """`make_app(major=15, rights="CREATEDB")`; see PostgresApp. All are dropped afterwards."""
    made: list[PostgresApp] = []

    def make(major: int = 17, **options: Any) -> PostgresApp:
        made.append(PostgresApp(postgres_servers(major), tmp_path, **options))
        return made[-1]

    yield make
    for app in made:
        await app.close()


@pytest.fixture
def app(make_app: MakeApp) -> PostgresApp:
    """A database owned by an ordinary role, on the main version, with a superuser that the agent knows."""
    return make_app()
