"""MariaDB servers whose own settings would change what a session gives or does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import AppUnavailableError
from tests.fakes.imports import NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp
from tools.servers import MariadbServer, mariadb

TABLES = """
CREATE TABLE a (i int PRIMARY KEY); CREATE TABLE b (i int PRIMARY KEY) WITH SYSTEM VERSIONING;
CREATE VIEW `select` AS SELECT i AS `order` FROM a;
INSERT INTO a SELECT seq FROM seq_1_to_15000; INSERT INTO b SELECT seq FROM seq_1_to_10;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[MariadbServer]:
    """One that is set up otherwise for each test, and as usual afterwards."""
    with MariadbServer(mariadb()) as server:
        yield server


@pytest.fixture
def own_shop(server: MariadbServer, tmp_path: Path) -> Iterator[MariadbApp]:
    shop = MariadbApp(server, tmp_path / "work")
    shop.sql(TABLES)
    yield shop
    server.sql(
        "SET GLOBAL init_connect = '', sql_select_limit = DEFAULT, system_versioning_asof = DEFAULT,"
        " completion_type = DEFAULT, sql_quote_show_create = DEFAULT;"
    )


@pytest.mark.parametrize(
    ("name", "set_up"),
    [
        ("sql_select_limit", "sql_select_limit = 3"),
        ("sql_select_limit", "init_connect = 'SET sql_select_limit = 2'"),
        ("system_versioning_asof", "system_versioning_asof = '2020-01-01'"),
    ],
)
async def test_a_server_that_gives_a_part_of_its_rows_is_not_exported_and_says_why(
    name: str, set_up: str, own_shop: MariadbApp
) -> None:
    own_shop.server.sql(f"SET GLOBAL {set_up}")

    described = await own_shop.recipe.describe()
    with pytest.raises(AppUnavailableError) as refused:
        await own_shop.export()

    assert "does not give all that its tables hold" in described.can_export.obstacle
    assert f"{name} is " in refused.value.text
    assert name in refused.value.next_step
    with pytest.raises(AppUnavailableError):
        await own_shop.fingerprint()


@pytest.mark.parametrize("set_up", ["completion_type = 2", "sql_quote_show_create = 0"])
async def test_what_a_server_sets_for_all_sessions_does_not_count_in_an_import(
    set_up: str, own_shop: MariadbApp
) -> None:
    exported = await own_shop.export()
    own_shop.server.sql(f"SET GLOBAL {set_up}")
    own_shop.sql("DELETE FROM a WHERE i > 3")
    before = await own_shop.fingerprint()

    record = await own_shop.import_(exported.content)

    assert exported.fingerprint is not None
    assert (await own_shop.fingerprint()).differences(exported.fingerprint) == []
    await own_shop.recipe.undo(record, NotedProgress())
    assert (await own_shop.fingerprint()).differences(before) == []
