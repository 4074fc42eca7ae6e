"""MariaDB: what everybody may do in other databases, an upload does not do there."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.recipes.base import Record
from common.errors import ArchiveRefusedError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.mariadb_apps import MariadbApp, StartMariadb

NEIGHBOUR = """
CREATE DATABASE neighbour; CREATE TABLE neighbour.orders (a int); INSERT INTO neighbour.orders VALUES (1), (2);
CREATE VIEW neighbour.seen AS SELECT a FROM neighbour.orders; CREATE PROCEDURE neighbour.p() SELECT 1;
"""
REACHING = [
    "DROP TABLE IF EXISTS `neighbour`.`orders`;",
    "DROP TABLE IF EXISTS `t`, neighbour.orders;",
    "/*!50001 DROP VIEW IF EXISTS `neighbour`.`seen` */;",
    "/*!50003 DROP PROCEDURE IF EXISTS `neighbour`.`p` */;",
    "CREATE TABLE `neighbour`.`planted` (a int);",
    "CREATE VIEW `neighbour`.`planted` AS SELECT 1 AS `a`;",
    "DELIMITER ;;\nCREATE PROCEDURE neighbour/* */.planted() SELECT 1 ;;\nDELIMITER ;",
    "DELIMITER ;;\nCREATE TRIGGER neighbour.t AFTER INSERT ON neighbour.orders FOR EACH ROW SET @a = 1 ;;\nDELIMITER ;",
]


@pytest.mark.parametrize("name", ["mariadb-10.11", pytest.param("mysql-9.7", marks=pytest.mark.variant)])
async def test_an_upload_makes_and_drops_nothing_where_everybody_may(
    name: str, start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    shop = MariadbApp(start_mariadb(name), tmp_path / "work")
    everybody = "PUBLIC" if name.startswith("mariadb") else "''@'%'"
    shop.server.sql(NEIGHBOUR + ("" if everybody == "PUBLIC" else f"CREATE USER {everybody};"))
    shop.server.sql(f"GRANT ALL ON neighbour.* TO {everybody}")
    before = content_of(shop, "neighbour")

    for reaching in REACHING:
        record: Record = MemoryRecord()
        dump = f"-- Host: localhost    Database: shop\nCREATE TABLE `t` (a int);\n{reaching}\n-- Dump completed\n"
        with pytest.raises(ArchiveRefusedError, match=r"another database|plain name|in words in which"):
            await shop.stage(dump.encode(), record)
        await shop.recipe.discard(record)

        assert content_of(shop, "neighbour") == before, reaching


def content_of(shop: MariadbApp, schema: str) -> str:
    """What a database has, by the server's catalog."""
    return shop.server.sql(
        "SELECT GROUP_CONCAT(name ORDER BY name) FROM (SELECT TABLE_NAME AS name FROM information_schema.TABLES "
        f"WHERE TABLE_SCHEMA = '{schema}' UNION ALL SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE "
        f"ROUTINE_SCHEMA = '{schema}' UNION ALL SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE "
        f"TRIGGER_SCHEMA = '{schema}') AS everything"
    )
