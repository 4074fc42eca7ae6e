"""MariaDB: foreign keys that an exchange of tables would lead elsewhere stand against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.engines.mariadb.names import quoted
from common.errors import AppUnavailableError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp
from tests.fixtures.variants import variants
from tools.servers import MariadbServer

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


@variants("name", ["crm", "c - rm ü", "UPPER"], kept=["c - rm ü"])
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


CHILD = (
    "SET foreign_key_checks = 0; CREATE TABLE child (id int PRIMARY KEY, p int,"
    " CONSTRAINT lost FOREIGN KEY (p) REFERENCES `pär - ent` (id)); INSERT INTO child VALUES (1, NULL), (2, 77);"
)


async def test_a_foreign_key_to_a_table_that_is_not_there_is_told_by_the_export_and_refused_by_an_import(
    shop: MariadbApp, mariadb_server: MariadbServer, tmp_path: Path
) -> None:
    other = MariadbApp(mariadb_server, tmp_path / "other")
    other.sql(TABLES)
    shop.sql(CHILD)
    exported, record = await shop.export(), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="not in it: child to pär - ent"):
        await other.stage(exported.content, record)

    assert any("cannot be imported: it has foreign keys" in text for text in exported.warnings), exported.warnings
    await other.recipe.discard(record)
    assert other.leftovers(record) == []


async def test_previous_tables_are_not_kept_with_keys_that_lead_to_what_comes_in_place(shop: MariadbApp) -> None:
    shop.sql(TABLES)
    shop.sql("CREATE TABLE `pär - ent` (id int PRIMARY KEY); INSERT INTO `pär - ent` VALUES (5)")
    exported, staged = await shop.export(), MemoryRecord()
    await shop.stage(exported.content, staged)
    shop.sql(f"DROP TABLE `pär - ent`; {CHILD}")

    obstacle = (await shop.recipe.describe()).can_import.obstacle
    with pytest.raises(AppUnavailableError) as refused:
        await shop.stage(exported.content, MemoryRecord())
    with pytest.raises(AppUnavailableError):
        await shop.recipe.restore(staged, NotedProgress())

    assert "tables that are not there: child to pär - ent. They" in obstacle
    assert refused.value.text == obstacle
    shop.sql("ALTER TABLE child DROP FOREIGN KEY lost")
    await shop.recipe.restore(staged, NotedProgress())
    await shop.recipe.undo(staged, NotedProgress())
    assert shop.sql("SELECT * FROM child") == "1\tNULL\n2\t77"
