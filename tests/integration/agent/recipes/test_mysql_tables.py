"""What MySQL's tables have that MariaDB's have not, or in other words: it goes out and comes in as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp, StartMariadb
from tests.fixtures.variants import variants
from tools.servers.mysql import MysqlServer, mysql

pytestmark = pytest.mark.variant
TABLES = r"""
CREATE TABLE instant (id int PRIMARY KEY, a int); INSERT INTO instant VALUES (1, 1);
ALTER TABLE instant ADD COLUMN b varchar(20) DEFAULT 'x', ALGORITHM=INSTANT; INSERT INTO instant VALUES (2, 2, 'y');
CREATE TABLE hidden (a int INVISIBLE, b int, KEY k (b) INVISIBLE); INSERT INTO hidden (a, b) VALUES (1, 2), (3, 4);
CREATE TABLE formulas (id int PRIMARY KEY, n varchar(50), j json, KEY f ((lower(n))), KEY g (n, (json_length(j)) DESC),
  KEY i ((cast(j->>'$.b' AS char(9)) COLLATE utf8mb4_bin)));
INSERT INTO formulas VALUES (1, 'ABC', '{"a": [1, 12345678901234567890], "b": "\\"é🐻"}'), (2, 'x', '{"c": null}');
CREATE TABLE lists (id int PRIMARY KEY, j json,
  KEY ((cast(j->'$.a' AS unsigned array))), KEY ((cast(j->>'$.b' AS char(9)))));
INSERT INTO lists VALUES (1, '{"a": [1, 2, 3], "b": "é🐻"}'), (2, '{"a": [4]}');
CREATE TABLE checked (id int PRIMARY KEY, a int, CONSTRAINT loose CHECK (a > 5) NOT ENFORCED, CHECK (a < 100));
INSERT INTO checked VALUES (1, 1);
CREATE TABLE downwards (id int, a int, PRIMARY KEY (id DESC), KEY k (a DESC, id));
INSERT INTO downwards VALUES (1, 2), (3, 4);
CREATE TABLE parted (id int, d date, PRIMARY KEY (id, d))
  PARTITION BY RANGE (year(d)) SUBPARTITION BY HASH (to_days(d)) SUBPARTITIONS 2
  (PARTITION p0 VALUES LESS THAN (1990), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parted VALUES (1, '1980-01-01'), (2, '2020-01-01');
CREATE TABLE computed (id int PRIMARY KEY, a int, b int AS (a * 2) STORED, c int AS (a + 1) VIRTUAL,
  d varchar(99) AS (concat('x', a)), at datetime DEFAULT (now()), e json DEFAULT (json_array(1, 2)),
  KEY (c), UNIQUE (b));
INSERT INTO computed (id, a) VALUES (1, 1), (2, 5);
CREATE TABLE places (id int PRIMARY KEY, g geometry NOT NULL SRID 4326, p point NOT NULL SRID 0, SPATIAL INDEX (g));
INSERT INTO places VALUES (1, st_geomfromtext('POINT(10 20)', 4326), point(1, 2));
CREATE TABLE guessed (id int PRIMARY KEY, a int, `b``c` int); INSERT INTO guessed VALUES (1, 1, 1), (2, 2, 3);
CREATE TABLE narrow (id int PRIMARY KEY, b text) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8;
INSERT INTO narrow VALUES (1, 'a');
"""
COLUMN_STATISTICS = "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMN_STATISTICS WHERE SCHEMA_NAME = '{}'"


@pytest.fixture
def shop(name: str, start_mariadb: StartMariadb, tmp_path: Path) -> MariadbApp:
    """An app with a database that has nothing in it."""
    return MariadbApp(start_mariadb(name), tmp_path / "work")


@variants("name", ["mysql-9.7", "mysql-8.0"])
async def test_what_only_mysql_has_comes_as_it_was(shop: MariadbApp) -> None:
    shop.sql(TABLES)
    shop.sql("ANALYZE TABLE guessed UPDATE HISTOGRAM ON a, `b``c` WITH 4 BUCKETS")
    tables = shop.sql("SHOW TABLES").splitlines()
    # A checksum of a table with a key of lists is another each time.
    look = "SELECT * FROM lists;" + "".join(
        f"SHOW CREATE TABLE {table}; CHECKSUM TABLE {'instant' if table == 'lists' else table} EXTENDED;"
        for table in tables
    )
    before, guesses = shop.sql(look), shop.server.sql(COLUMN_STATISTICS.format(shop.database))
    exported = await shop.export("sql")
    told = b" UPDATE HISTOGRAM " in exported.content

    record = await shop.import_(exported.content)

    assert len(tables) == 11
    assert shop.sql(look) == before
    assert await shop.fingerprint() == exported.fingerprint
    # Newer dump programs do not write them.
    assert shop.server.sql(COLUMN_STATISTICS.format(shop.database)) == (guesses if told else "")
    await shop.recipe.undo(record, NotedProgress())
    assert shop.sql(look) == before
    assert shop.server.sql(COLUMN_STATISTICS.format(shop.database)) == guesses


@variants("name", ["mysql-9.7", "mysql-8.0"])
async def test_a_server_without_tls_on_this_machine_is_reached_with_a_password_that_it_has_forgotten(
    name: str, tmp_path: Path
) -> None:
    with MysqlServer(mysql(name), settings={"auto-generate-certs": "OFF"}) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql("CREATE TABLE own (a int); INSERT INTO own VALUES (1)")
        # After that, a hash of it is not enough.
        server.sql("FLUSH PRIVILEGES")

        exported = await shop.export("sql")
        server.sql("FLUSH PRIVILEGES")
        record = await shop.import_(exported.content)

        assert server.sql("SHOW STATUS LIKE 'Ssl_server_not_after'").split() == ["Ssl_server_not_after"]
        assert await shop.fingerprint() == exported.fingerprint
        await shop.recipe.discard(record)


@variants("name", ["mysql-9.7", "mysql-8.0"])
async def test_an_import_goes_where_rights_may_be_taken_back_in_parts_and_names_in_grants_are_literal(
    name: str, tmp_path: Path
) -> None:
    with MysqlServer(mysql(name), settings={"partial-revokes": "ON"}) as server:
        shop = MariadbApp(server, tmp_path / "work")
        server.sql(
            f"CREATE DATABASE others; GRANT ALL ON *.* TO '{shop.admin}'@'%' WITH GRANT OPTION;"
            f" REVOKE ALL ON others.* FROM '{shop.admin}'@'%'; REVOKE ALL ON mysql.* FROM '{shop.admin}'@'%';"
        )
        shop.sql("CREATE TABLE own (a int); INSERT INTO own VALUES (1); CREATE VIEW seen AS SELECT a FROM own")
        exported = await shop.export("sql")

        record = await shop.import_(exported.content)

        assert await shop.fingerprint() == exported.fingerprint
        await shop.recipe.undo(record, NotedProgress())
        assert shop.leftovers(record) == []


@variants("name", ["mysql-9.7", "mysql-8.0"])
async def test_a_default_that_the_dump_of_mysql_does_not_hold_is_refused_by_its_column(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE t (id int PRIMARY KEY, mood enum('a', '🐻') DEFAULT '🐻') CHARACTER SET utf8mb4")
    exported, record = await shop.export(), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=r"default this server does not take: .*'mood'") as refusal:
        await shop.stage(exported.content, record)

    await shop.recipe.discard(record)
    assert "a character of four bytes" in refusal.value.next_step
