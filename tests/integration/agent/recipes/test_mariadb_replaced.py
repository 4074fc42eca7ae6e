"""Tables that take each other's places while a MariaDB database is read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agent.engines.mariadb.exports import dumping, table_watch
from agent.engines.mariadb.server.settings import Login
from common.errors import AppBusyError
from tests.fixtures.mariadb_apps import MariadbApp
from tests.fixtures.waiting import until

PADDING = f"""
CREATE TABLE aaa (id int PRIMARY KEY, b mediumtext);
INSERT INTO aaa VALUES {", ".join(f"({number}, REPEAT('{number}', 500000))" for number in range(1, 7))};
"""
"""More than the dump program and what reads it take at a time, so that later tables are not read yet."""
PARTS = """
CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one VALUES (1);
CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (9));
INSERT INTO parted VALUES (7);
"""


@pytest.fixture
def shop(shop_of_either: MariadbApp) -> MariadbApp:
    return shop_of_either


@pytest.fixture
def meanwhile(shop: MariadbApp, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Statements that the app runs when a dump has given its first piece, and reads on afterwards."""
    statements: list[str] = []
    real = dumping.raw_dump

    async def disturbed(login: Login, database: str, **options: Any) -> AsyncGenerator[bytes, None]:
        is_first = True
        async for piece in real(login, database, **options):
            if is_first:
                is_first = False
                for statement in statements:
                    shop.sql(statement)
            yield piece

    monkeypatch.setattr(dumping, "raw_dump", disturbed)
    return statements


async def a_second_later(shop: MariadbApp) -> None:
    """The server's times of tables are of whole seconds."""
    now = shop.sql("SELECT UNIX_TIMESTAMP()")
    await until(lambda: shop.sql("SELECT UNIX_TIMESTAMP()") != now)


async def test_an_export_under_which_a_table_took_anothers_place_fails(shop: MariadbApp, meanwhile: list[str]) -> None:
    shop.sql(PADDING + "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2), (3);")
    await a_second_later(shop)
    shop.sql("CREATE TABLE _orders_gho (id int PRIMARY KEY); INSERT INTO _orders_gho VALUES (1);")
    await a_second_later(shop)
    meanwhile += [
        "INSERT INTO _orders_gho VALUES (2), (3)",
        "RENAME TABLE orders TO _orders_del, _orders_gho TO orders",
    ]

    with pytest.raises(AppBusyError, match=r"were altered or replaced .*: orders\. Rows may be missing"):
        await shop.export("sql")

    await a_second_later(shop)
    meanwhile[:] = ["RENAME TABLE orders TO _orders_gho, _orders_del TO orders"]
    with pytest.raises(AppBusyError, match="orders"):
        await shop.fingerprint()
    meanwhile.clear()
    assert (await shop.export("sql")).fingerprint is not None


async def test_an_export_under_which_partitions_may_have_been_exchanged_says_so_and_has_no_fingerprint(
    shop: MariadbApp, meanwhile: list[str]
) -> None:
    shop.sql(PADDING + PARTS)
    meanwhile.append("ALTER TABLE parted EXCHANGE PARTITION p WITH TABLE one")

    exported = await shop.export("sql")
    without = await shop.export("sql", fingerprint="no")

    assert exported.fingerprint is None
    assert "exchanged partitions of parted" in exported.warnings[-1]
    assert "no fingerprint" in exported.warnings[-1]
    assert "exchanged partitions of parted" in without.warnings[-1]
    with pytest.raises(AppBusyError, match="exchanged partitions of parted"):
        await shop.fingerprint()


async def test_what_else_is_altered_meanwhile_does_not_count(
    shop: MariadbApp, meanwhile: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_watch, "_APART_SECONDS", 0)
    other = MariadbApp(shop.server, shop.work_directory.parent / "other")
    other.sql("CREATE TABLE theirs (id int PRIMARY KEY)")
    shop.sql(PADDING + "CREATE TABLE first (id int PRIMARY KEY)")
    meanwhile += ["CREATE TABLE made (id int)", "ANALYZE TABLE first", "INSERT INTO first VALUES (1)"]
    real = table_watch.TableWatch.finish

    async def altering(watch: table_watch.TableWatch, read_at: dict[str, float]) -> None:
        await a_second_later(shop)
        await a_second_later(shop)
        shop.sql("ALTER TABLE first ADD COLUMN n int; DROP TABLE aaa")
        other.sql("ALTER TABLE theirs ADD COLUMN n int")
        await real(watch, read_at)

    monkeypatch.setattr(table_watch.TableWatch, "finish", altering)

    exported = await shop.export("sql")

    assert exported.fingerprint is not None
    assert exported.warnings == []
