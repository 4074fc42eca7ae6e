"""What of a dump's views, triggers, routines and events is sent, and that nothing else is taken for one."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.definitions import Schemas, UnreadableError, to_run
from agent.engines.mariadb.dumps.releases import Release
from agent.engines.mariadb.dumps.sqltext import Statement
from agent.engines.mariadb.dumps.statements import RefusedError, Way, decide_all

SCHEMAS = Schemas("shop", "mathison_new_0")
MARIADB = Release.of("10.11.19-MariaDB")


def sent(text: bytes) -> bytes:
    """The statement that the server would carry out."""
    found = to_run(text, SCHEMAS)
    assert found is not None
    assert found.startswith(b"EXECUTE IMMEDIATE 0x")
    return bytes.fromhex(found.removeprefix(b"EXECUTE IMMEDIATE 0x").decode())


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (
            b"/*!50003 CREATE*/ /*!50017 DEFINER=`ro``ot`@`%`*/ /*!50003 TRIGGER t BEFORE INSERT ON x FOR EACH ROW "
            b"BEGIN /* it's */ SET @a = '*/'; END \n*/",
            b"CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN /* it's */ SET @a = '*/'; END",
        ),
        (
            b"CREATE DEFINER=`root`@`localhost` FUNCTION `f`() RETURNS int RETURN 1",
            b"CREATE FUNCTION `f`() RETURNS int RETURN 1",
        ),
        (
            b"/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`%`*/ /*!50003 trigger shop.`t` before insert on `shop` . x "
            b"for each row set @a = 'trigger shop.t' */",
            b"CREATE trigger `t` before insert on x for each row set @a = 'trigger shop.t'",
        ),
        (
            b"CREATE TRIGGER /* b */ t BEFORE INSERT ON x FOR EACH ROW "
            b"SET @a = 'trigger shop.t before insert on shop.x'",
            b"CREATE TRIGGER /* b */ t BEFORE INSERT ON x FOR EACH ROW "
            b"SET @a = 'trigger shop.t before insert on shop.x'",
        ),
        (b"create definer = CURRENT_USER() procedure p() SELECT 1", b"CREATE PROCEDURE p() SELECT 1"),
        (b"CREATE PROCEDURE IF NOT EXISTS `shop` . `p` () SELECT 1", b"CREATE PROCEDURE IF NOT EXISTS `p` () SELECT 1"),
        (
            b"CREATE TRIGGER`t`BEFORE INSERT ON`shop`.`x`FOR EACH ROW SET @a = 1",
            b"CREATE TRIGGER`t`BEFORE INSERT ON`x`FOR EACH ROW SET @a = 1",
        ),
        (
            b"CREATE TRIGGER shop/* x */./* y */t AFTER UPDATE ON shop -- z\n . --\nx FOR EACH ROW SET @a = 1",
            b"CREATE TRIGGER t AFTER UPDATE ON x FOR EACH ROW SET @a = 1",
        ),
        (b"CREATE VIEW Shop.v(a) AS SELECT 1", b"CREATE VIEW v(a) AS SELECT 1"),
        (b"CREATE DEFINER='a'@'b' AGGREGATE FUNCTION f() RETURN 1", b"CREATE AGGREGATE FUNCTION f() RETURN 1"),
        (b"/*!50001 CREATE VIEW `*/ v` AS SELECT '*/' */", b"CREATE VIEW `*/ v` AS SELECT '*/'"),
        (b"/*!50001 CREATE VIEW `v` AS SELECT\n NULL AS `id` */", b"CREATE VIEW `v` AS SELECT\n NULL AS `id`"),
        (
            b"/*!50001 CREATE ALGORITHM=MERGE */\n/*!50013 DEFINER=`a`@`%` SQL SECURITY INVOKER */\n"
            b"/*!50001 VIEW `v` AS select `shop`.`f`(1) AS `x` from `shop`.`t` */",
            b"CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW `v` AS "
            b"select `mathison_new_0`.`f`(1) AS `x` from `mathison_new_0`.`t`",
        ),
        (
            b"/*!50001 CREATE VIEW `v` AS select 'in \\'`shop`.`t`' AS `a``\xfc`,`shop`.`t`.`b` AS `b` "
            b"from `shop`.`t` */",
            b"CREATE VIEW `v` AS select 'in \\'`shop`.`t`' AS `a``\xfc`,`mathison_new_0`.`t`.`b` AS `b` "
            b"from `mathison_new_0`.`t`",
        ),
        (
            b"/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`a`@`%` SQL SECURITY DEFINER */\n"
            b"/*!50001 VIEW `v` AS select `t`.`id` AS `id` from `t` where `t`.`id` > 2 */\n"
            b"/*!50002 WITH CASCADED CHECK OPTION */",
            b"CREATE ALGORITHM=UNDEFINED SQL SECURITY DEFINER VIEW `v` AS select `t`.`id` AS `id` from `t` "
            b"where `t`.`id` > 2 WITH CASCADED CHECK OPTION",
        ),
        (
            b"/*!50106 CREATE*/ /*!50117 DEFINER=`a`@`%`*/ /*!50106 EVENT `e` ON SCHEDULE AT '2037-01-01 00:00:00' "
            b"ON COMPLETION NOT PRESERVE ENABLE DO SET @enable = 1 */",
            b"CREATE EVENT `e` ON SCHEDULE AT '2037-01-01 00:00:00' ON COMPLETION NOT PRESERVE DISABLE "
            b"DO SET @enable = 1",
        ),
        (
            b"CREATE EVENT e ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DISABLE DO SET @a = 1",
            b"CREATE EVENT e ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DISABLE ON SLAVE DO SET @a = 1",
        ),
    ],
)
def test_a_definition_is_sent_without_its_definer_and_its_comments_of_versions(text: bytes, made: bytes) -> None:
    assert sent(text) == made


@pytest.mark.parametrize(
    "text",
    [
        b"GRANT ALL ON *.* TO x",
        b"CREATE USER x",
        b"CREATE DATABASE x",
        b"CREATE TABLE t (a int)",
        b"CREATE DEFINER=`a`@`b` USER x",
        b"/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 USER x */",
        b"ALTER EVENT e ENABLE",
        b"DROP VIEW v; DROP USER root",
        b"/*!50001 DROP VIEW IF EXISTS v",
        b"DROP VIEW IF EXISTS v */",
        # Of these and the next, a client program would see another end.
        b"DROP VIEW IF EXISTS 'a\\'",
        b"DROP VIEW IF EXISTS `a\\\0`",
        b"DROP VIEW IF EXISTS $$",
        b"SELECT 1 /*!50001 CREATE VIEW v AS SELECT 1 */",
    ],
)
def test_nothing_else_is_taken_for_a_definition(text: bytes) -> None:
    assert to_run(text, SCHEMAS) is None


@pytest.mark.parametrize(
    "words",
    [
        "e ON SCHEDULE EVERY 1 DAY",
        "e ON SCHEDULE EVERY 1 DAY STARTS (SELECT ' ON COMPLETION PRESERVE ENABLE ') ON COMPLETION PRESERVE ENABLE",
        "-- ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE ENABLE\ne ON SCHEDULE EVERY 1 SECOND",
    ],
)
def test_an_event_in_other_words_is_refused_since_it_might_run_while_it_is_staged(words: str) -> None:
    text = f"CREATE EVENT {words} DO SET @a = 1".encode()

    with pytest.raises(UnreadableError):
        to_run(text, SCHEMAS)
    with pytest.raises(RefusedError, match="event"):
        decide_all(Statement(text, 1), SCHEMAS, MARIADB)


@pytest.mark.parametrize(
    "text",
    [
        b"DROP VIEW IF EXISTS `other`.`v`",
        b"/*!50003 DROP PROCEDURE IF EXISTS other.p */",
        b"CREATE VIEW `other`.`v` AS SELECT 1",
        b"CREATE VIEW other/**/.v AS SELECT 1",
        b"CREATE PROCEDURE other.p() SELECT 1",
        b"CREATE PROCEDURE other -- as ()\n.p() SELECT 1",
        b"CREATE FUNCTION `other`/* */./* */`f`() RETURNS int RETURN 1",
        b"CREATE FUNCTION f RETURNS STRING SONAME 'udf.so'",
        b"CREATE EVENT other.e ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE ENABLE DO SET @a = 1",
        b"CREATE TRIGGER other.t AFTER INSERT ON x FOR EACH ROW SET @a = 1",
        b"CREATE TRIGGER t AFTER INSERT ON `other`.x FOR EACH ROW SET @a = 1",
        b"CREATE TRIGGER t AFTER INSERT ON other/* */.x FOR EACH ROW SET @a = 1",
        b"CREATE TRIGGER other /* before insert on x */ . t AFTER INSERT ON x FOR EACH ROW SET @a = 1",
    ],
)
def test_what_another_database_has_is_neither_made_nor_dropped(text: bytes) -> None:
    with pytest.raises(RefusedError, match=r"of another database|in other words") as refused:
        decide_all(Statement(text, 1, is_raw=True), SCHEMAS, MARIADB)

    assert refused.value.reason == "ARCHIVE_REFUSED"


@pytest.mark.parametrize("is_raw", [False, True])
def test_a_default_from_another_databases_sequence_is_refused_wherever_it_stands(*, is_raw: bool) -> None:
    text = b"CREATE TABLE t (a int DEFAULT nextval(other.s))"

    with pytest.raises(RefusedError, match="a sequence of the database other"):
        decide_all(Statement(text, 1, is_raw=is_raw), SCHEMAS, MARIADB)


def test_without_a_database_in_a_dumps_head_no_name_with_one_is_its_own() -> None:
    with pytest.raises(UnreadableError):
        to_run(b"DROP VIEW IF EXISTS shop.v", Schemas("", "mathison_new_0"))


def test_what_stands_between_definitions_is_judged_statement_by_statement() -> None:
    both = Statement(b"/*!50003 SET sql_mode = '' */ ;\n SET time_zone = 'SYSTEM'", 7, is_raw=True)
    hostile = Statement(b"SET sql_mode = '';\nDROP USER root", 7, is_raw=True)

    assert [way for way, _ in decide_all(both, SCHEMAS, MARIADB)] == [Way.SET, Way.SET]
    with pytest.raises(RefusedError, match="Line 8"):
        decide_all(hostile, SCHEMAS, MARIADB)


def test_a_drop_and_a_change_of_what_is_called_like_the_end_of_a_comment_are_told_from_others() -> None:
    drop, keys = b"/*!50106 DROP EVENT IF EXISTS `a */ b` */", b"/*!40000 ALTER TABLE `a */ b` DISABLE KEYS */"

    assert decide_all(Statement(drop, 1), SCHEMAS, MARIADB) == [(Way.LATER, b"DROP EVENT IF EXISTS `a */ b`")]
    assert decide_all(Statement(keys, 1), SCHEMAS, MARIADB) == [(Way.RUN, b"ALTER TABLE `a */ b` DISABLE KEYS")]
    with pytest.raises(RefusedError):
        decide_all(Statement(b"/*!50106 DROP EVENT IF EXISTS `a` */ DROP USER `*/`", 1), SCHEMAS, MARIADB)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (
            b"/*!99999 DROP VIEW IF EXISTS `a*/ CREATE TABLE t AS SELECT 1 -- `*/",
            b"DROP VIEW IF EXISTS `a*/ CREATE TABLE t AS SELECT 1 -- `",
        ),
        (b"/*!50032 drop trigger if exists shop.tg */", b"DROP TRIGGER IF EXISTS `tg`"),
        (b"DROP FUNCTION IF EXISTS `a``b`", b"DROP FUNCTION IF EXISTS `a``b`"),
    ],
)
def test_a_drop_is_sent_in_words_of_our_own_so_no_name_ends_its_comment(text: bytes, made: bytes) -> None:
    assert decide_all(Statement(text, 1, is_raw=True), SCHEMAS, MARIADB) == [(Way.LATER, made)]


def test_definitions_are_refused_where_the_caller_does_not_take_them() -> None:
    for text in (b"CREATE VIEW v AS SELECT 1", b"/*!50003 CREATE*/ /*!50003 TRIGGER t AFTER INSERT ON x SET @a = 1 */"):
        with pytest.raises(RefusedError) as refusal:
            decide_all(Statement(text, 1, is_raw=True), None, MARIADB)
        assert refusal.value.reason == "ARCHIVE_INCOMPATIBLE"
