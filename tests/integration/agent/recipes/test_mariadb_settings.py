"""MariaDB and MySQL: whatever a server sets for sessions, or its init_connect does, what goes out and in is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import AppBusyError, AppUnavailableError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp
from tests.fixtures.variants import variants
from tools.servers import MariadbServer, mariadb
from tools.servers.mysql import MysqlServer, mysql

UNTOUCHED = "SET NAMES utf8mb4, sql_select_limit = 18446744073709551615, sql_mode = '', sql_quote_show_create = 1;"
TABLES = """
CREATE TABLE `größe` (id int PRIMARY KEY, t text DEFAULT ('ü🐻'), n varchar(9) COMMENT '€🐻') DEFAULT CHARSET utf8mb4;
INSERT INTO `größe` VALUES (1, 'grün 東京 🐻', 'a'), (2, 'b', 'b'), (3, 'c', 'c'), (4, 'd', 'd'), (5, 'e', 'e');
CREATE TABLE times (id int PRIMARY KEY, at timestamp NOT NULL);
INSERT INTO times VALUES (1, '2026-11-23 08:30:46');
CREATE TABLE a1 (id int PRIMARY KEY); CREATE TABLE a2 (id int PRIMARY KEY); CREATE TABLE a3 (id int PRIMARY KEY);
INSERT INTO a1 VALUES (1), (2), (3), (4); INSERT INTO a3 VALUES (9);
"""
PROGRAMS = """
CREATE VIEW `vü` AS SELECT 'é🐻' AS x, t FROM `größe`; CREATE VIEW `select` AS SELECT id AS `order` FROM a1;
CREATE TRIGGER `trö` BEFORE INSERT ON `größe` FOR EACH ROW SET NEW.t = concat(NEW.t, '🐻é');
CREATE PROCEDURE `pü`() SELECT '🐻é';
CREATE EVENT `eü` ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO INSERT INTO a2 VALUES (length('🐻é'));
"""
OTHER = "DELETE FROM `größe` WHERE id < 3; INSERT INTO a2 VALUES (7); CREATE TABLE more (id int PRIMARY KEY);"
"""What an import takes back."""


@pytest.fixture(scope="module")
def mariadb_alone() -> Iterator[MariadbServer]:
    """Whose settings are nobody else's."""
    with MariadbServer(mariadb()) as server:
        yield server


@pytest.fixture(scope="module")
def mysql_alone() -> Iterator[MysqlServer]:
    """The same."""
    with MysqlServer(mysql()) as server:
        yield server


@pytest.fixture
def shop(mariadb_alone: MariadbServer, tmp_path: Path) -> MariadbApp:
    """An app with tables and programs."""
    app = MariadbApp(mariadb_alone, tmp_path / "work")
    app.sql(UNTOUCHED + TABLES + PROGRAMS)
    return app


@pytest.fixture
def mysql_shop(mysql_alone: MysqlServer, tmp_path: Path) -> MariadbApp:
    """An app with tables."""
    app = MariadbApp(mysql_alone, tmp_path / "work")
    app.sql(UNTOUCHED + TABLES)
    return app


@contextmanager
def settings(server: MariadbServer, **values: str) -> Iterator[None]:
    """A server's own for the time of the block."""
    server.sql(UNTOUCHED + "".join(f"SET GLOBAL {name} = {value};" for name, value in values.items()))
    try:
        yield
    finally:
        reset = "".join(f"SET GLOBAL {name} = DEFAULT;" for name in values)
        server.sql(f"{UNTOUCHED} {reset}")


def state(app: MariadbApp) -> list[str]:
    """All of an app's database, as the superuser sees it."""
    listed = app.server.sql(
        f"{UNTOUCHED} SELECT CONCAT(TABLE_TYPE, ' ', TABLE_NAME) FROM information_schema.TABLES"
        f" WHERE TABLE_SCHEMA = '{app.database}' ORDER BY 1;"
        f" SELECT CONCAT('TRIGGER ', TRIGGER_NAME) FROM information_schema.TRIGGERS"
        f" WHERE TRIGGER_SCHEMA = '{app.database}';"
        f" SELECT CONCAT('PROCEDURE ', ROUTINE_NAME) FROM information_schema.ROUTINES"
        f" WHERE ROUTINE_SCHEMA = '{app.database}';"
        f" SELECT CONCAT('EVENT ', EVENT_NAME) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = '{app.database}'"
    ).splitlines()
    found = []
    for line in listed:
        kind, _, name = line.removeprefix("BASE ").partition(" ")
        rows = f" SELECT * FROM `{name}` ORDER BY 1;" if kind in ("TABLE", "VIEW") else ""
        shown = app.server.sql(f"{UNTOUCHED} SHOW CREATE {kind} `{name}`;{rows}", database=app.database)
        # When a trigger was made is another time.
        found.append(shown.partition("\tutf8mb4\tutf8mb4")[0] if kind == "TRIGGER" else shown)
    return [*listed, *found]


HARMFUL = [
    ("sql_select_limit", "3", "sql_select_limit = 3"),
    ("sql_select_limit", "0", "sql_select_limit = 0"),
    ("init_connect", "'SET sql_select_limit=2'", "sql_select_limit = 2"),
    ("init_connect", "'SET NAMES latin1'", "character_set_client = latin1"),
    ("system_versioning_asof", "'2020-01-01'", "system_versioning_asof = 2020-01-01"),
]


@pytest.mark.parametrize(("name", "value", "words"), HARMFUL)
async def test_no_export_is_made_that_a_setting_would_cut(shop: MariadbApp, name: str, value: str, words: str) -> None:
    with settings(shop.server, **{name: value}):
        with pytest.raises(AppUnavailableError, match=words) as refused:
            await shop.export()
        with pytest.raises(AppUnavailableError, match=words):
            await shop.fingerprint()
        described = await shop.recipe.describe()

    step = "Take SET NAMES out" if "latin1" in value else f"Set {words.partition(' ')[0]} of the server to"
    assert step in refused.value.next_step
    assert words in described.can_export.obstacle


HARMLESS = {
    "autocommit": "0",
    "completion_type": "2",
    "explicit_defaults_for_timestamp": "0",
    "sql_quote_show_create": "0",
}
"""For what the dump program reads."""


async def require_all(app: MariadbApp, values: Mapping[str, str]) -> None:
    """What comes out under settings is what comes out without, and goes in and back under them."""
    plain = await app.export()

    with settings(app.server, **values):
        exported = await app.export()

    assert (exported.fingerprint, exported.counts) == (plain.fingerprint, plain.counts)
    await import_and_undo(app, exported.content, **values)


async def test_what_is_exported_under_settings_is_all_there_is(shop: MariadbApp) -> None:
    harmless = {
        **HARMLESS,
        "tx_read_only": "1",
        "sql_if_exists": "1",
        "max_statement_time": "0.001",
        "init_connect": "'SET NAMES utf8'",
    }

    await require_all(shop, harmless)


@variants(
    "values",
    [
        {"sql_select_limit": "0", "autocommit": "0", "system_versioning_asof": "'2020-01-01'"},
        {"sql_select_limit": "3", "init_connect": "'SET NAMES latin1'", "old_mode": "''"},
        {"init_connect": "'SET sql_select_limit=2, autocommit=0, sql_if_exists=1, sql_mode=ORACLE'"},
    ],
)
async def test_what_is_imported_under_settings_is_all_there_is(shop: MariadbApp, values: dict[str, str]) -> None:
    await import_and_undo(shop, (await shop.export()).content, **values)


async def import_and_undo(app: MariadbApp, content: bytes, **values: str) -> None:
    """An export of what an app has goes into it again, and an undo takes it back, all of it, under settings."""
    before = state(app)
    app.sql(UNTOUCHED + OTHER)
    changed = state(app)

    with settings(app.server, **values):
        record = await app.import_(content)
    assert state(app) == before

    with settings(app.server, **values):
        await app.recipe.undo(record, NotedProgress())
    assert state(app) == changed


@variants(
    "values",
    [{"autocommit": "0"}, {"init_connect": "'SET autocommit=0'"}],
    kept=[{"init_connect": "'SET autocommit=0'"}],
)
async def test_the_rows_at_a_files_end_are_there_too(shop: MariadbApp, values: dict[str, str]) -> None:
    content = b"CREATE TABLE x (id int PRIMARY KEY);\nINSERT INTO x VALUES (1),(2),(3);\n-- Dump completed\n"

    with settings(shop.server, **values):
        record = await shop.import_(content)

    assert shop.sql("SELECT COUNT(*) FROM x") == "3"
    await shop.recipe.discard(record)


async def test_no_table_is_exchanged_when_not_all_were_told(shop: MariadbApp, tmp_path: Path) -> None:
    exported, before = await shop.export(), state(shop)
    clients = tmp_path / "clients"
    clients.mkdir()
    real = shop.server.install.bin_directory
    # A client whose sessions have the server's limit.
    (clients / "mariadb").write_text(
        f"#!/bin/sh\nsed --unbuffered 's/ sql_select_limit = [0-9]*,//' | {real}/mariadb \"$@\"\n"
    )
    (clients / "mariadb").chmod(0o755)
    (clients / "mariadb-dump").symlink_to(real / "mariadb-dump")
    record = MemoryRecord()
    await shop.stage(exported.content, record)
    recipe = shop.recipe_with(client_directory=str(clients))

    with settings(shop.server, sql_select_limit="3"), pytest.raises(AppBusyError, match="told 3 tables of"):
        await recipe.restore(record, NotedProgress())

    assert state(shop) == before
    await shop.recipe.discard(record)


@pytest.mark.variant
async def require_nothing_is_written(app: MariadbApp) -> None:
    """On a server that takes no changes, and that all can be done when it does again."""
    exported = await app.export()
    record = await app.import_(exported.content)
    before = state(app)

    with settings(app.server, read_only="ON"):
        described, again = await app.recipe.describe(), MemoryRecord()
        with pytest.raises(AppUnavailableError) as refusal:
            await app.stage(exported.content, again)
        with pytest.raises(AppUnavailableError):
            await app.recipe.undo(record, NotedProgress())
        whole = await app.export()

    assert "takes no changes (read_only)" in described.can_import.obstacle
    assert described.can_import.obstacle == refusal.value.text
    assert described.can_export.obstacle == ""
    assert whole.fingerprint == exported.fingerprint
    assert again.facts == {}
    assert state(app) == before
    await app.recipe.undo(record, NotedProgress())
    assert app.leftovers(record) == []


async def test_a_server_that_takes_no_changes_is_an_obstacle_to_imports_alone(shop: MariadbApp) -> None:
    await require_nothing_is_written(shop)


@pytest.mark.variant
async def test_a_mysql_server_that_takes_no_changes_is_an_obstacle_to_imports_alone(mysql_shop: MariadbApp) -> None:
    await require_nothing_is_written(mysql_shop)


@pytest.mark.variant
async def test_mysql_gives_and_takes_all_under_settings(mysql_shop: MariadbApp) -> None:
    harmful = {
        **HARMLESS,
        "transaction_read_only": "1",
        "sql_select_limit": "3",
        "max_execution_time": "1",
        "init_connect": "'SET NAMES latin1'",
    }

    await require_all(mysql_shop, harmful)


@pytest.mark.variant
async def test_mysql_makes_no_columns_that_a_file_does_not_have(mysql_shop: MariadbApp) -> None:
    mysql_shop.sql("CREATE TABLE keyless (id int); INSERT INTO keyless VALUES (1)")
    exported, before = await mysql_shop.export(), state(mysql_shop)
    record = await mysql_shop.import_(exported.content)

    with settings(mysql_shop.server, sql_generate_invisible_primary_key="ON"):
        described = await mysql_shop.recipe.describe()
        with pytest.raises(AppUnavailableError, match="sql_generate_invisible_primary_key") as refused:
            await mysql_shop.import_(exported.content)
        await mysql_shop.recipe.undo(record, NotedProgress())

        assert state(mysql_shop) == before
        assert refused.value.text == described.can_import.obstacle
        assert "SET GLOBAL sql_generate_invisible_primary_key = OFF" in refused.value.next_step

        _, told = refused.value.text.split(": ")
        mysql_shop.server.sql(told.rstrip("."))

        assert (await mysql_shop.recipe.describe()).can_import.is_possible
        record = await mysql_shop.import_(exported.content)
        assert state(mysql_shop) == before
        await mysql_shop.recipe.discard(record)


@variants(("kind", "name"), [("shop", "innodb_force_primary_key"), ("mysql_shop", "sql_require_primary_key")])
async def test_a_table_without_a_key_is_refused_by_a_server_that_takes_none(
    request: pytest.FixtureRequest, kind: str, name: str
) -> None:
    app: MariadbApp = request.getfixturevalue(kind)
    before = state(app)
    content = b"CREATE TABLE keyless (id int);\n-- Dump completed\n"

    with (
        settings(app.server, **{name: "ON"}),
        pytest.raises(ArchiveIncompatibleError, match="without a primary key") as refused,
    ):
        await app.import_(content)

    assert name in refused.value.next_step
    assert state(app) == before


@pytest.mark.variant
async def test_an_import_goes_where_the_server_asks_much_of_passwords(mysql_shop: MariadbApp) -> None:
    content, server, record = (await mysql_shop.export("sql")).content, mysql_shop.server, MemoryRecord()
    server.sql("INSTALL COMPONENT 'file://component_validate_password'")
    try:
        server.sql("SET GLOBAL validate_password.policy = STRONG, GLOBAL validate_password.number_count = 4")
        await mysql_shop.stage(content, record)
        await mysql_shop.recipe.restore(record, NotedProgress())
        await mysql_shop.recipe.undo(record, NotedProgress())
        stopped = MemoryRecord()
        await mysql_shop.stage(content, stopped)
        await mysql_shop.recipe.discard(stopped)
    finally:
        server.sql("UNINSTALL COMPONENT 'file://component_validate_password'")

    assert mysql_shop.leftovers(record) == mysql_shop.leftovers(stopped) == []
