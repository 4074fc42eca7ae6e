"""Which statements of a dump are carried out; everything that is not a dump's own is refused."""

from __future__ import annotations

import gzip

import pytest

from agent.engines.mariadb.dumps.releases import Release
from agent.engines.mariadb.dumps.sqltext import Splitter, Statement
from agent.engines.mariadb.dumps.statements import RefusedError, Way, decide
from tests.fixtures.kuma_apps import DATA

MARIADB, MYSQL = Release.of("10.11.19-MariaDB-deb12"), Release.of("9.7.0")
RUN = [
    b"SET NAMES utf8mb4",
    b"SET TIME_ZONE='+00:00'",
    b"SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT",
    b"SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0",
    b"SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO'",
    b"SET character_set_client = utf8mb4",
    b"ALTER TABLE `t` DISABLE KEYS",
    b"DROP TABLE IF EXISTS `t`",
    b"CREATE TABLE `t` (`id` int, `union` varchar(9) DEFAULT 'ENGINE=CONNECT') ENGINE=InnoDB COMMENT='select'",
    b"CREATE SEQUENCE `s` start with 1 minvalue 1 maxvalue 99 increment by 1 cache 1000 nocycle ENGINE=InnoDB",
    b"CREATE SEQUENCE s",
    b"DROP SEQUENCE IF EXISTS `s`",
    b"DROP TABLE IF EXISTS `t`, `u``.v` RESTRICT",
    b"CREATE TABLE `t` (`a` int CHECK (`a` in (1,2))) ENGINE=InnoDB AUTO_INCREMENT=3 DEFAULT CHARSET=utf8mb4 "
    b"COLLATE=utf8mb4_uca1400_ai_ci PACK_KEYS=1 COMMENT='values (1)' `PAGE_COMPRESSED`='ON' WITH SYSTEM VERSIONING\n "
    b"PARTITION BY SYSTEM_TIME INTERVAL 1 MONTH STARTS TIMESTAMP'2026-01-01 00:00:00'\n(PARTITION `p0` HISTORY "
    b"ENGINE = InnoDB,\n PARTITION `pn` CURRENT ENGINE = InnoDB)",
    b"CREATE TABLE `t` (`a` int) PARTITION BY RANGE (`a`)\nSUBPARTITION BY HASH (to_days(`b`))\nSUBPARTITIONS 2\n"
    b"(PARTITION p0 VALUES LESS THAN (10) COMMENT = 'x' ENGINE = InnoDB,\n PARTITION p1 VALUES LESS THAN MAXVALUE)",
    b"CREATE TABLE `t` (`a` int) PARTITION BY LIST  COLUMNS(a,b) (PARTITION p VALUES IN ((1,'x'),(2,'y')))",
    b"CREATE TABLE `references` (`\xc3\xa0` int COMMENT 'references other.t (a), next value for other.s \xc3\xa0', "
    b"KEY `references a.b` (`\xc3\xa0`))",
    b"DO SETVAL(`s`, 1, 0)",
    b"CREATE TABLE `t` (`id` int) TABLESPACE `innodb_file_per_table` ENGINE=InnoDB",
    b"ANALYZE TABLE `t` UPDATE HISTOGRAM ON `b``c` WITH 100 BUCKETS",
    b"INSERT INTO `t` VALUES (1,-2.5e-3,NULL,'it''s; \\' \\\\',0xFF,_binary 'x\\0',b'01'),\n(2,.5,TRUE,'','','','')",
    b'INSERT INTO `t` VALUES ("q")',
    b"INSERT INTO `t` VALUES (1.,-.5,+1E+30,0b101,default,Null,true,FALSE,x'',-1e-300)",
    b"INSERT INTO `t` (`a`, `b`) VALUES (1,2)",
    b"REPLACE INTO t VALUES (1)",
    b"INSERT INTO `t` VALUES ()",
]
SKIP = [
    b"/*M!100616 SET @OLD_NOTE_VERBOSITY=@@NOTE_VERBOSITY, NOTE_VERBOSITY=0 */",
    b"/*M!100616 SET NOTE_VERBOSITY=@OLD_NOTE_VERBOSITY */",
    b"LOCK TABLES `t` WRITE",
    b"UNLOCK TABLES",
    b"START TRANSACTION",
    b"COMMIT",
    b"SET @@SESSION.SQL_LOG_BIN= 0",
    b"SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3e11fa47:1-5'",
    b"SET autocommit=0",
    b"SET @MYSQLDUMP_TEMP_LOG_BIN = @@SESSION.SQL_LOG_BIN",
]
HOSTILE = [
    b"INSERT INTO t VALUES (1), ('a\\\0')",
    b"INSERT INTO $$ VALUES ('$$; DROP TABLE t; -- ')",
    b"INSERT INTO a$$ VALUES ('$$; DROP TABLE t; -- ')",
    b"GRANT ALL ON *.* TO x",
    b"CREATE USER x",
    b"ALTER USER root IDENTIFIED BY 'x'",
    b"DROP USER root",
    b"SET PASSWORD = PASSWORD('x')",
    b"SET PASSWORD FOR root = 'x'",
    b"SET ROLE admin",
    b"SET GLOBAL general_log_file='/tmp/x.php'",
    b"SET @@GLOBAL.general_log=1",
    b"SET @@global.local_infile=1",
    b"SET SESSION max_statement_time=0",
    b"SET sql_notes = 1, note_verbosity = 0",
    b"SET max_error_count = 0",
    b"ANALYZE TABLE `mysql`.`user` UPDATE HISTOGRAM ON `user` WITH 100 BUCKETS",
    b"ANALYZE TABLE t UPDATE HISTOGRAM ON a USING DATA (SELECT 1)",
    b"ANALYZE TABLE t",
    b"CREATE TEMPORARY TABLE t (a int)",
    b"CREATE OR REPLACE TEMPORARY TABLE t (a int)",
    b"CREATE OR REPLACE /*!50000 TEMPORARY */ TABLE t (a int)",
    b"/*!40000 CREATE OR REPLACE TEMPORARY TABLE t (a int) */",
    b"SET @x = LOAD_FILE('/etc/passwd')",
    b"SET @x = (SELECT user FROM mysql.user)",
    b"SET @x = 'gbk', character_set_client = @x",
    b"SET NAMES gbk",
    b"SET character_set_client = sjis",
    b"SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
    b"SET sql_mode = 'ansi_quotes'",
    b"SET sql_mode = 1048576",
    b"SET sql_mode = '1048576'",
    b"SET sql_mode = 0x100000",
    b"SET sql_mode = DEFAULT",
    b"SET sql_mode = @@GLOBAL.sql_mode",
    b"SET sql_mode = @@time_zone",
    b"SET @old_sql_mode = @@unique_checks",
    b"SET sql_mode = @old_unique_checks",
    b"SET @saved_cs_client = @@unique_checks",
    b"SET character_set_client = @old_unique_checks",
    b"SET @x = @@sql_mode",
    b"SET character_set_client = DEFAULT",
    b"SET STATEMENT max_statement_time=0 FOR SELECT 1",
    b"SET DEFAULT ROLE x",
    b"LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
    b"LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t",
    b"SELECT 1 INTO OUTFILE '/tmp/x'",
    b"SELECT SLEEP(1000000)",
    b"SELECT SETVAL(`s`, (SELECT 1))",
    b"INSERT INTO t SELECT * FROM mysql.user",
    b"INSERT INTO t VALUES ((SELECT 1))",
    b"INSERT INTO t VALUES (LOAD_FILE('/etc/passwd'))",
    b"INSERT INTO t VALUES (SLEEP (9))",
    b"INSERT INTO t VALUES (REPEAT('x',1000000000))",
    b"INSERT INTO t VALUES (@@datadir)",
    b"INSERT INTO t VALUES ('a',a)",
    b"INSERT INTO t VALUES ('a',`a`)",
    b"INSERT INTO t VALUES ('a',1a)",
    b"INSERT INTO t VALUES ('a',0xg)",
    b"INSERT INTO t VALUES ('a',t.a)",
    b"INSERT INTO t VALUES ('a',NULLS)",
    b"INSERT INTO t VALUES ('a',1+1)",
    b"INSERT INTO t VALUES ('a'/*!50000 ,SLEEP(9) */)",
    b"INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = SLEEP(9)",
    b"INSERT INTO t VALUES (1) RETURNING (SELECT 1)",
    b"INSERT INTO other.t VALUES (1)",
    b"INSERT INTO `other`.`t` VALUES (1)",
    b"/*!50000 INSERT INTO t VALUES (*/ SELECT 1 INTO OUTFILE '/tmp/x'",
    b"/*!99999 SET */ GRANT ALL ON *.* TO x",
    b"/*!50000 GRANT ALL ON *.* TO x */",
    b"CREATE TABLE t AS SELECT * FROM mysql.user",
    b"CREATE TABLE t SELECT * FROM seq_1_to_1000000000000",
    b"CREATE TABLE t (a int) /*!50000 SELECT 1 AS a */",
    b"CREATE TABLE t (a int) ENGINE=InnoDB DATA DIRECTORY='/var/www'",
    b"CREATE TABLE t (a int) TABLESPACE `innodb_system`",
    b"CREATE TABLE t (a int) TABLESPACE TABLESPACE `innodb_file_per_table` `x`",
    b"CREATE TABLE t (a int) COMMENT='TABLESPACE `innodb_file_per_table`' TABLESPACE x",
    b"CREATE TABLE t (a int) CONNECTION='mysql://root@127.0.0.1/mysql/user'",
    b"CREATE TABLE t (a int) ENGINE=MyISAM UNION=(mysql.user)",
    b"CREATE OR REPLACE USER x",
    b"CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST '127.0.0.1')",
    b"CREATE ROLE r",
    b"DROP TABLE IF EXISTS `other`.`t`",
    b"DROP TABLE IF EXISTS `t`, other.t",
    b"DROP TABLE other . t",
    b"DROP SEQUENCE other.s",
    b"CREATE TABLE `other`.`t` (a int)",
    b"CREATE OR REPLACE TABLE other.t (a int)",
    b"CREATE SEQUENCE other.s",
    b"CREATE SEQUENCE s start with 1 increment by (SELECT 1)",
    b"CREATE TABLE t (a text) VALUES ('a'), (user())",
    b"CREATE TABLE t (a text) ENGINE=InnoDB VALUE (user())",
    b"CREATE TABLE t (a text) VALUES ROW(user())",
    b"CREATE TABLE t (a text) (VALUES (user()))",
    b"CREATE TABLE t (a int) TABLE u",
    b"CREATE TABLE t (a int) IGNORE AS TABLE u",
    b"CREATE TABLE t (a int) PARTITION BY HASH (a) PARTITIONS 2 TABLE u",
    b"CREATE TABLE t (a int) PARTITION BY LIST (a) (PARTITION p VALUES IN (1)) VALUES (2)",
    b"CREATE TABLE t (a int) WITH u AS (TABLE u) TABLE u",
    b"CREATE TABLE t LIKE other.t",
    b"CREATE TABLE t (a int, FOREIGN KEY (a) REFERENCES `other`.`t` (a))",
    b"CREATE TABLE t (a int REFERENCES other . t (a))",
    b"CREATE TABLE t (a int, FOREIGN KEY (a) REFERENCES 1other.t (a))",
    b"CREATE TABLE t (a int, FOREIGN KEY (a) REFERENCES `other`\xa0.t (a))",
    b"CREATE TABLE t (a int) PARTITION BY HASH (a) (PARTITION p DATA\xa0DIRECTORY='/var/www')",
    b"CREATE TABLE t\xa0VALUES\xa0(a varchar(99)) PARTITION BY HASH (a)",
    b"CREATE TABLE t (a text) PARTITION BY HASH (a) PARTITIONS\xa02\xa0VALUES\xa0ROW(user())",
    b"CREATE TABLE t (a int DEFAULT (NEXT VALUE FOR other.s))",
    b"ALTER TABLE t RENAME TO other.t",
    b"ALTER TABLE t DISCARD TABLESPACE",
    b"DROP SERVER s",
    b"RENAME TABLE shop.a TO shop.b",
    b"RENAME USER root TO toor",
    b"PREPARE p FROM 'GRANT ALL ON *.* TO x'",
    b"EXECUTE IMMEDIATE 'DROP DATABASE shop'",
    b"CALL mysql.AddGeometryColumn('', '', '', '', 1)",
    b"INSTALL SONAME 'ha_connect'",
    b"CHANGE MASTER TO MASTER_HOST='x'",
    b"FLUSH PRIVILEGES",
    b"SHUTDOWN",
    b"KILL 1",
    b"TRUNCATE TABLE shop.t",
    b"DELETE FROM shop.t",
    b"UPDATE shop.t SET a = 1",
    b"HANDLER shop.t OPEN",
    b"DO SLEEP(100)",
    b"WITH x AS (SELECT 1) SELECT * FROM x",
    b"source /etc/passwd",
    b"system id",
    b"tee /tmp/x",
    b"VALUES (1)",
    b"123",
]
PROGRAMS = [
    b"/*!50001 CREATE VIEW `v` AS SELECT 1 AS `a` */",
    b"/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`%`*/ /*!50003 TRIGGER t1 AFTER INSERT ON t FOR EACH ROW SET @a=1 */",
    b"CREATE DEFINER=`root`@`%` PROCEDURE `p`() SELECT 1",
    b"/*!50106 CREATE*/ /*!50117 DEFINER=`root`@`%`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY DO DELETE FROM t */",
    b"CREATE FUNCTION f RETURNS STRING SONAME 'udf.so'",
    b"DELIMITER ;;",
]


@pytest.mark.parametrize("text", RUN)
def test_what_dumps_of_tables_hold_is_carried_out(text: bytes) -> None:
    assert decide(Statement(text, 1), MARIADB) in ((Way.RUN, text), (Way.SET, text))


@pytest.mark.parametrize("text", SKIP)
def test_what_belongs_to_the_source_server_is_left_out(text: bytes) -> None:
    assert decide(Statement(text, 1), MARIADB)[0] is Way.SKIP


@pytest.mark.parametrize("text", HOSTILE)
def test_what_no_dump_of_tables_has_is_refused(text: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        decide(Statement(text, 7), MARIADB)

    assert refused.value.text.startswith("Line 7: ")
    assert refused.value.reason in ("ARCHIVE_REFUSED", "ARCHIVE_INCOMPATIBLE")


@pytest.mark.parametrize("text", PROGRAMS)
def test_views_and_programs_are_refused_by_what_they_are(text: bytes) -> None:
    with pytest.raises(RefusedError, match="the dump holds a") as refused:
        decide(Statement(text, 1), MARIADB)

    assert refused.value.reason == "ARCHIVE_INCOMPATIBLE"


@pytest.mark.parametrize(
    "text", [b"USE `shop`", b"CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop`", b"DROP DATABASE x"]
)
def test_a_dump_that_names_its_database_is_of_the_wrong_kind(text: bytes) -> None:
    with pytest.raises(RefusedError, match="--databases") as refused:
        decide(Statement(text, 1), MARIADB)

    assert refused.value.reason == "ARCHIVE_WRONG_KIND"


def test_an_unusual_storage_engine_is_refused_by_name() -> None:
    with pytest.raises(RefusedError, match="federated"):
        decide(Statement(b"CREATE TABLE t (a int) ENGINE=FEDERATED", 1), MARIADB)


@pytest.mark.parametrize(
    "text",
    [
        b"CREATE TABLE $$ (a varchar(99) DEFAULT ' $$; DROP TABLE t; -- ')",
        b"CREATE TABLE t (a int, $b$ int)",
        b"DROP TABLE IF EXISTS `a`, $$",
        b"CREATE TABLE t (a int DEFAULT (0 +\ndelimiter_a -\n- 1 + ' \n); DROP TABLE t; -- '))",
        b"CREATE TABLE t (a varchar(99) DEFAULT '\ndelimiter' -\n- 1 + ' \n); DROP TABLE t; -- ')",
    ],
)
def test_what_a_client_program_may_read_as_other_statements_is_refused(text: bytes) -> None:
    with pytest.raises(RefusedError) as refusal:
        decide(Statement(text, 5), MARIADB)

    assert refusal.value.reason == "ARCHIVE_INCOMPATIBLE"
    assert refusal.value.text.startswith("Line 5: ")


def test_a_real_dump_is_carried_out_but_for_its_locks() -> None:
    splitter = Splitter()
    dump = gzip.decompress((DATA / "kuma-2.5.3-mariadb.sql.gz").read_bytes())

    statements = [*splitter.add(dump), *splitter.finish()]

    skipped = [found.text for found in statements if decide(found, MARIADB)[0] is Way.SKIP]
    assert len(statements) - len(skipped) == 240
    assert all(text.startswith((b"LOCK TABLES", b"UNLOCK TABLES")) for text in skipped)


def test_room_taken_for_nothing_is_refused_and_none_is_taken() -> None:
    table = "CREATE TABLE `t` (`autoextend_size` int) /*!80023 AUTOEXTEND_SIZE={} */ ENGINE=InnoDB"

    assert decide(Statement(table.format(0).encode(), 1), MYSQL)[0] is Way.RUN
    for size in ("1", "4M", "0x100000", "268435456"):
        with pytest.raises(RefusedError, match="AUTOEXTEND_SIZE"):
            decide(Statement(table.format(size).encode(), 1), MYSQL)
