"""The contract over MariaDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from agent.recipes.mariadb import MariadbRecipe
from tests.contract.app import Fill, ServerApp
from tests.contract.suite import ContractSuite
from tests.fixtures.mariadb_apps import MariadbApp
from tools.servers import MariadbServer, mariadb

_SCHEMA = """
    CREATE TABLE `both` (id int PRIMARY KEY, text varchar(100) NOT NULL);
    CREATE TABLE `only {what}` (id int AUTO_INCREMENT PRIMARY KEY, both_id int REFERENCES `both` (id));
    INSERT INTO `both` VALUES {rows};
    INSERT INTO `only {what}` (both_id) SELECT id FROM `both`;
"""
_PROGRAMS = """
    CREATE VIEW seen AS SELECT text FROM `both` WHERE text <> '{what}';
    CREATE TRIGGER noted BEFORE INSERT ON `both` FOR EACH ROW SET NEW.text = concat(NEW.text, ' {what}');
    CREATE EVENT yearly ON SCHEDULE EVERY 1 YEAR STARTS '2037-01-01' DO DELETE FROM `both` WHERE text = '{what}';
"""
_SEEN = """
    SELECT TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS WHERE TABLE_SCHEMA = database();
    SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_STATEMENT FROM information_schema.TRIGGERS
        WHERE TRIGGER_SCHEMA = database();
    SELECT EVENT_NAME, STATUS, EVENT_DEFINITION FROM information_schema.EVENTS WHERE EVENT_SCHEMA = database();
"""
_BIG = """
    CREATE TABLE big (id int PRIMARY KEY, bytes mediumblob);
    INSERT INTO big SELECT thousands.id * 1000 + others.id, random_bytes(1024) FROM `both` thousands, `both` others
        LIMIT {rows};
"""


class Mariadb(ServerApp[MariadbServer]):
    """A database of its own."""

    recipe = MariadbRecipe
    kills_apart = 3
    new_counts: ClassVar[Mapping[str, int]] = {"tables": 2, "rows": 400}
    wrong_files: ClassVar[Mapping[str, bytes]] = {"other SQL": b"--\n-- PostgreSQL database dump\n--\n"}

    def __init__(self, shop: MariadbApp) -> None:
        self._shop = shop
        super().__init__(shop.server, shop.settings)

    async def fill(self, what: Fill) -> None:
        name = self._shop.database
        self.server.sql(f"DROP DATABASE {name}; CREATE DATABASE {name} CHARACTER SET utf8mb4")
        if what is not Fill.EMPTY:
            rows = ", ".join(f"({number}, '{what.value} {number}')" for number in range(1, 201))
            self._shop.sql(_SCHEMA.format(what=what.value, rows=rows))
            self._shop.sql(_PROGRAMS.format(what=what.value))
        if what is Fill.BIG:
            self._shop.sql(_BIG.format(rows=self.big_bytes // 1024 + 1))

    async def write_more(self) -> None:
        self._shop.sql("UPDATE `both` SET text = 'more'; CREATE TABLE more (id int)")

    async def contents(self) -> object:
        tables = self._shop.sql("SHOW TABLES").split("\n")
        # One statement for all of them: each start of a client costs as much as many tables.
        named = ", ".join(f"`{table}`" for table in tables if table)
        rows = self._shop.sql(f"CHECKSUM TABLE {named}") if named else ""
        return tables, rows, self._shop.sql(_SEEN)

    async def remove_kept(self, work_directory: Path) -> None:
        for name in self.leftovers():
            if name.startswith("mathison_old_"):
                self.server.sql(f"DROP DATABASE {name}")

    def leftovers(self) -> list[str]:
        return self.server.sql(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'mathison%';"
            " SELECT User FROM mysql.user WHERE User LIKE 'mathison%';"
        ).splitlines()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mariadb]:
    # One of its own, since whatever an import leaves in it counts.
    with MariadbServer(mariadb()) as server:
        yield Mariadb(MariadbApp(server, tmp_path_factory.mktemp("app") / "work"))


class TestMariadb(ContractSuite):
    """All of it."""
