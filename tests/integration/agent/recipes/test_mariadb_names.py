"""MariaDB: names that one server tells apart by their case and another takes for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.mariadb.server.client import query
from agent.engines.mariadb.server.settings import Login
from common.errors import ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp
from tests.fixtures.variants import variants
from tools.servers import MariadbServer, mariadb

PAIRS = {
    "tables": "CREATE TABLE Users (id int); INSERT INTO Users VALUES (1), (2); CREATE TABLE users (id int);",
    "of other letters": "CREATE TABLE `Äpfel` (id int); INSERT INTO `Äpfel` VALUES (1); CREATE TABLE `äpfel` (id int);",
    "views": "CREATE TABLE t (id int); CREATE VIEW V AS SELECT 1 FROM t; CREATE VIEW v AS SELECT 2 FROM t;",
    "a table and a view": "CREATE TABLE t (id int); INSERT INTO t VALUES (1); CREATE VIEW T AS SELECT 1;",
}


@pytest.fixture(scope="module")
def folding_server() -> Iterator[MariadbServer]:
    """One that tells no names of tables and databases apart by their case, as on Windows."""
    with MariadbServer(mariadb(), settings={"lower-case-table-names": "1"}) as server:
        yield server


@pytest.fixture
def folding_shop(folding_server: MariadbServer, tmp_path: Path) -> MariadbApp:
    """An app on it."""
    app = MariadbApp(folding_server, tmp_path / "folding")
    app.sql("CREATE TABLE own (id int PRIMARY KEY); INSERT INTO own VALUES (7)")
    return app


async def test_a_view_whose_table_is_called_as_the_database_goes_into_another_and_its_own(
    shop_of_either: MariadbApp, tmp_path: Path
) -> None:
    shop, name = shop_of_either, shop_of_either.database
    shop.sql(
        f"CREATE TABLE `{name}` (id int PRIMARY KEY); INSERT INTO `{name}` VALUES (1); CREATE TABLE o (id int);"
        f"INSERT INTO o VALUES (5); CREATE VIEW v AS SELECT `{name}`.id FROM `{name}` WHERE `{name}`.id > 0;"
        f"CREATE VIEW called AS SELECT `{name}`.id FROM o AS `{name}`;"
        f"CREATE VIEW wide AS SELECT `{name}`.id FROM `{name}` JOIN information_schema.SCHEMATA s"
        f" WHERE s.SCHEMA_NAME = 'information_schema';"
    )
    exported = await shop.export()

    for target in (MariadbApp(shop.server, tmp_path / "other"), shop):
        await target.import_(exported.content)

        assert target.sql("SELECT * FROM v; SELECT * FROM called; SELECT * FROM wide").split() == ["1", "5", "1"]
        assert await target.fingerprint() == exported.fingerprint


@variants("pair", PAIRS, kept=["of other letters", "a table and a view"])
async def test_what_a_server_would_take_for_one_is_refused_by_both_names(
    pair: str, shop: MariadbApp, folding_shop: MariadbApp
) -> None:
    shop.sql(PAIRS[pair])
    exported, record = await shop.export(), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="names differ in case alone"):
        await folding_shop.stage(exported.content, record)

    await folding_shop.recipe.discard(record)
    assert folding_shop.leftovers(record) == []
    assert folding_shop.sql("SHOW TABLES; SELECT * FROM own") == "own\n7"
    # Where it tells them apart, both come.
    await shop.import_(exported.content)
    assert exported.fingerprint is not None
    assert (await shop.fingerprint()).differences(exported.fingerprint) == []


async def test_less_than_a_file_makes_is_not_put_in_place_whatever_the_reason(
    folding_shop: MariadbApp, shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql(PAIRS["tables"])
    exported, record = await shop.export(), MemoryRecord()

    async def telling_of_no_folding(login: Login, sql: str) -> list[list[str]]:
        found = await query(login, sql)
        if "lower_case_table_names" in sql:
            found[0][2] = "0"
        return found

    monkeypatch.setattr("agent.engines.mariadb.imports.loading.query", telling_of_no_folding)
    with pytest.raises(ArchiveIncompatibleError, match="makes 2 tables, and the server has 1 of them"):
        await folding_shop.stage(exported.content, record)

    await folding_shop.recipe.discard(record)


async def test_other_names_come_in_lower_case_and_go_back(shop: MariadbApp, folding_shop: MariadbApp) -> None:
    shop.sql(
        "CREATE TABLE Mixed (Id int); INSERT INTO Mixed VALUES (3); CREATE VIEW Vw AS SELECT * FROM Mixed;"
        "CREATE TRIGGER Tg BEFORE INSERT ON Mixed FOR EACH ROW SET NEW.Id = NEW.Id + 1; CREATE SEQUENCE Sq;"
        "CREATE TABLE Sd (id int DEFAULT nextval(Sq));"
    )

    record = await folding_shop.import_((await shop.export()).content)

    folding_shop.sql("INSERT INTO Mixed VALUES (1); INSERT INTO Sd VALUES (DEFAULT)")
    assert folding_shop.sql("SELECT * FROM vw; SELECT * FROM sd") == "3\n2\n1"
    await folding_shop.recipe.discard(record)


async def test_a_trigger_whose_words_name_its_database_in_another_case_comes_and_goes_back(
    folding_shop: MariadbApp,
) -> None:
    told = folding_shop.database.upper()
    folding_shop.sql(f"CREATE TRIGGER {told}.t BEFORE INSERT ON {told}.OWN FOR EACH ROW SET NEW.id = NEW.id + 1")
    before = await folding_shop.fingerprint()

    record = await folding_shop.import_((await folding_shop.export()).content)

    imported = await folding_shop.fingerprint()
    folding_shop.sql("INSERT INTO own VALUES (1)")
    assert imported.differences(before) == []
    assert folding_shop.sql("SELECT * FROM own") == "2\n7"
    await folding_shop.recipe.undo(record, NotedProgress())
    assert (await folding_shop.fingerprint()).differences(before) == []
    assert folding_shop.leftovers(record) == []
