"""MariaDB: foreign keys that an exchange of tables would lead elsewhere stand against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.engines.mariadb.names import quoted
from common.errors import AppUnavailableError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp

TABLES = "CREATE TABLE `t x` (id int PRIMARY KEY); INSERT INTO `t x` VALUES (1); CREATE TABLE other (id int);"


@contextmanager
def other_app(shop: MariadbApp, name: str) -> Iterator[None]:
    """A database that neither the app's nor the admin account may see, with a foreign key into the app's."""
    shop.server.sql(
        f"CREATE DATABASE {quoted(name)}; CREATE TABLE {quoted(name)}.`réf` (id int PRIMARY KEY, p int,"
        f" FOREIGN KEY (p) REFERENCES {shop.database}.`t x` (id)); INSERT INTO {quoted(name)}.`réf` VALUES (1, 1);"
    )
    try:
        yield
    finally:
        shop.server.sql(f"DROP DATABASE {quoted(name)}")


@pytest.mark.parametrize("name", ["crm", "c - rm ü", "UPPER"])
async def test_a_foreign_key_of_another_app_is_seen_and_stays_as_it_is(shop: MariadbApp, name: str) -> None:
    shop.sql(TABLES)
    name = shop.database.upper() if name == "UPPER" else f"{name} {shop.database}"
    exported, staged = await shop.export(), MemoryRecord()
    await shop.stage(exported.content, staged)

    with other_app(shop, name):
        obstacle = (await shop.recipe.describe()).can_import.obstacle
        with pytest.raises(AppUnavailableError) as refused:
            await shop.stage(exported.content, MemoryRecord())
        with pytest.raises(AppUnavailableError):
            await shop.recipe.restore(staged, NotedProgress())
        shop.server.sql(f"INSERT INTO {quoted(name)}.`réf` VALUES (2, 1)")

    assert f"foreign keys into it: {name}.réf." in obstacle
    assert refused.value.text == obstacle
    await shop.recipe.restore(staged, NotedProgress())
    await shop.recipe.discard(staged)


async def test_an_admin_account_to_whom_they_are_not_told_is_refused_with_the_grant(shop: MariadbApp) -> None:
    shop.sql(TABLES)
    shop.server.sql(f"REVOKE PROCESS ON *.* FROM '{shop.admin}'@'%'")

    obstacle = (await shop.recipe.describe()).can_import.obstacle

    assert f"GRANT PROCESS ON *.* TO `{shop.admin}`@`%`" in obstacle
    with pytest.raises(AppUnavailableError, match="GRANT PROCESS"):
        await shop.stage((await shop.export()).content, MemoryRecord())


async def test_what_a_database_has_is_told_from_that_of_one_whose_name_differs_in_case(shop: MariadbApp) -> None:
    shop.sql(TABLES)
    other = shop.database.upper()
    shop.server.sql(
        f"CREATE DATABASE {other}; CREATE PROCEDURE {other}.p() SELECT 1;"
        f"CREATE EVENT {other}.e ON SCHEDULE EVERY 1 DAY DO SELECT 1;"
        f"GRANT ALL ON *.* TO '{shop.user}'@'%'; GRANT ALL ON *.* TO '{shop.admin}'@'%' WITH GRANT OPTION;"
    )
    try:
        exported = await shop.export()
        record = await shop.import_(exported.content)
    finally:
        shop.server.sql(f"DROP DATABASE {other}")

    assert set(exported.header.counts) == {"tables", "estimated_rows"}
    await shop.recipe.discard(record)
