"""Sources and targets of loads, dropped after the test; a rich source of each major is kept for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.integration.agent.engines.pg.loading.targets import MAJORS_WITHOUT_CONTRIB, Source, Target
from tools.servers import PostgresServer

MakeTarget = Callable[..., Target]
MakeSource = Callable[..., Source]
RichSource = Callable[[int], Source]


@pytest.fixture
def make_target(postgres_servers: Callable[[int], PostgresServer], tmp_path: Path) -> Iterator[MakeTarget]:
    """`make_target(15, options="ENCODING LATIN1")`."""
    with ExitStack() as stack:

        def make(major: int = 17, *, options: str = "") -> Target:
            return stack.enter_context(closing(Target(postgres_servers(major), tmp_path, options=options)))

        yield make


@pytest.fixture
def target(make_target: MakeTarget) -> Target:
    """An empty database of the main version."""
    return make_target()


@pytest.fixture
def make_source(postgres_servers: Callable[[int], PostgresServer], tmp_path: Path) -> Iterator[MakeSource]:
    """`make_source(17, "rich.sql")`."""
    with ExitStack() as stack:

        def make(major: int, *files: str, options: str = "") -> Source:
            return stack.enter_context(closing(Source(postgres_servers(major), tmp_path, *files, options=options)))

        yield make


@pytest.fixture(scope="session")
def rich_source(
    postgres_servers: Callable[[int], PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RichSource]:
    """`rich_source(17)`: a database with everything; nobody changes it."""
    made: dict[int, Source] = {}
    with ExitStack() as stack:

        def get(major: int) -> Source:
            if major not in made:
                files = ["rich.sql"] if major in MAJORS_WITHOUT_CONTRIB else ["rich.sql", "rich_extensions.sql"]
                source = Source(postgres_servers(major), tmp_path_factory.mktemp("rich"), *files)
                made[major] = stack.enter_context(closing(source))
            return made[major]

        yield get
