"""Views, triggers, routines and events of a MySQL database: its server takes most of them by no EXECUTE IMMEDIATE."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.engines.mariadb.server import programs
from agent.recipes.base import ItemChanges
from common.errors import AppUnavailableError, ArchiveIncompatibleError, ServiceError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import PROGRAMS, MariadbApp, StartMariadb
from tests.fixtures.variants import variants
from tools.servers.mysql import MysqlServer, mysql

pytestmark = variants("name", ["mysql-9.7", "mysql-8.0"])
CHANGES = """
DROP VIEW a, calls; DROP TRIGGER audit; CREATE VIEW since AS SELECT 1; DROP EVENT daily; DROP FUNCTION plus;
CREATE FUNCTION plus() RETURNS INT DETERMINISTIC RETURN 7; INSERT INTO orders VALUES (5, 5);
CREATE TRIGGER other AFTER INSERT ON orders FOR EACH ROW SET @a = 1; DROP TABLE log; CREATE TABLE log (t text);
"""
OPENING = (
    "-- MySQL dump 10.13  Distrib 8.0.33\n\nCREATE TABLE `t` (`a` int, `s` text);\nINSERT INTO `t` VALUES (1,'x');\n"
)
END = "\n-- Dump completed on 2026-11-23  8:35:57\n"


@pytest.fixture
def shop(name: str, start_mariadb: StartMariadb, tmp_path: Path) -> MariadbApp:
    """An app with a database that has nothing in it."""
    return MariadbApp(start_mariadb(name), tmp_path / "work")


async def programs_of(shop: MariadbApp) -> list[programs.Program]:
    return await programs.read(shop.recipe._settings.app_login(), shop.database)


def dump_of(definition: str) -> bytes:
    """A dump's beginning and end around one between DELIMITER lines."""
    return f"{OPENING}DELIMITER ;;\n{definition};;\nDELIMITER ;\n{END}".encode()


@pytest.mark.variant
async def test_programs_are_the_same_after_export_and_import_and_as_before_after_the_undo(shop: MariadbApp) -> None:
    shop.sql(PROGRAMS)
    exported, original = await shop.export("sql"), await programs_of(shop)
    shop.sql(CHANGES)
    before, rows, record = await programs_of(shop), await shop.fingerprint(), MemoryRecord()

    preview = await shop.stage(exported.content, record)
    await shop.recipe.restore(record, NotedProgress())
    imported, fingerprint = await programs_of(shop), await shop.fingerprint()
    shop.sql("INSERT INTO orders VALUES (9, 9); CREATE VIEW later AS SELECT 3")
    written = shop.sql("SELECT * FROM log; SELECT x FROM calls; SELECT `old`(), (SELECT COUNT(*) > 0 FROM wide)")
    await shop.recipe.undo(record, NotedProgress())

    assert {one.kind for one in original} == set(programs.KINDS)
    assert preview.items == {
        "tables": ItemChanges(changed=1, same=1),
        "views": ItemChanges(added=2, removed=1, same=3),
        "triggers": ItemChanges(added=1, removed=1),
        "functions": ItemChanges(changed=1, same=2),
        "procedures": ItemChanges(same=1),
        "events": ItemChanges(added=1, same=1),
    }
    assert imported == original
    assert exported.fingerprint == fingerprint
    assert written == "it's \\\\\n2\n10\nÃ©\t1"
    assert await programs_of(shop) == before
    assert (await shop.fingerprint()).differences(rows) == []
    assert shop.leftovers(record) == []


@pytest.mark.variant
async def test_tables_with_triggers_whose_checks_have_names_on_both_sides_change_places_both_ways(
    shop: MariadbApp,
) -> None:
    shop.sql(
        "CREATE TABLE log (id int); CREATE TABLE a (id int, CONSTRAINT Above CHECK (id > 0), CHECK (id < 9));"
        " CREATE TRIGGER noted AFTER INSERT ON a FOR EACH ROW INSERT INTO log VALUES (NEW.id);"
        " CREATE TABLE b (id int, CHECK (id < 9)); INSERT INTO a VALUES (1);"
        " CREATE TRIGGER beside BEFORE INSERT ON b FOR EACH ROW SET NEW.id = NEW.id + 1;"
    )
    exported = await shop.export("sql")
    shop.sql("ALTER TABLE a RENAME TO c; INSERT INTO c VALUES (2); DROP TRIGGER beside")
    before = await shop.fingerprint()

    record = await shop.import_(exported.content)
    imported = await shop.fingerprint()
    shop.sql("INSERT INTO a VALUES (5); INSERT INTO b VALUES (7)")
    noted = shop.sql("SELECT id FROM log UNION ALL SELECT id FROM b")
    await shop.recipe.undo(record, NotedProgress())

    assert imported == exported.fingerprint
    assert noted == "1\n5\n8"
    assert (await shop.fingerprint()).differences(before) == []
    assert shop.leftovers(record) == []


@pytest.mark.variant
async def test_merge_tables_with_triggers_change_places_both_ways(shop: MariadbApp) -> None:
    shop.sql(
        "CREATE TABLE one (a int) ENGINE=MyISAM; CREATE TABLE log (a int); INSERT INTO one VALUES (1);"
        " CREATE TABLE merged (a int) ENGINE=MRG_MyISAM UNION=(one) INSERT_METHOD=LAST;"
        " CREATE TRIGGER noted AFTER INSERT ON merged FOR EACH ROW INSERT INTO log VALUES (-NEW.a);"
    )
    before = await programs_of(shop)

    record = await shop.import_(dump_of("CREATE TRIGGER noted BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 7"))
    await shop.recipe.undo(record, NotedProgress())
    shop.sql("INSERT INTO merged VALUES (2)")

    assert await programs_of(shop) == before
    assert shop.sql("SELECT a FROM merged; SELECT a FROM log") == "1\n2\n-2"
    assert shop.leftovers(record) == []


@pytest.mark.variant
async def test_what_stands_in_a_routine_comes_word_for_word(shop: MariadbApp) -> None:
    body = "BEGIN /* it's ; */ SELECT /*+ NO_ICP(a) */ 5--1; -- it's\n # \"\n"
    body += " SELECT '\\\\', \"a'b\", `a`.b FROM (SELECT 1 AS b) a; END"
    content = dump_of(f"CREATE DEFINER=`root`@`localhost` PROCEDURE `p`()\n{body}")

    record = await shop.import_(content)

    [made] = await programs_of(shop)
    assert made.text == f"CREATE PROCEDURE `p`()\n{body}"
    definers = {found.definer for found in await programs.list_all(shop.recipe._admin(), shop.database)}
    assert definers == {f"{shop.user}@%"}
    await shop.recipe.discard(record)


FROM_MARIADB = """
CREATE TABLE orders (id int PRIMARY KEY, n int) CHARSET utf8mb4 COLLATE utf8mb4_general_ci;
INSERT INTO orders VALUES (1, 1);
SET NAMES utf8mb4 COLLATE utf8mb4_general_ci;
CREATE FUNCTION plus(a int) RETURNS int DETERMINISTIC RETURN a + 1;
CREATE PROCEDURE note() SELECT plus(1);
CREATE TRIGGER twice BEFORE INSERT ON orders FOR EACH ROW SET NEW.n = 2 * NEW.id;
CREATE EVENT daily ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO CALL note();
"""


@pytest.mark.variant
async def test_what_was_made_under_the_usual_sql_mode_of_mariadb_comes_into_mysql(
    shop: MariadbApp, start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    source = MariadbApp(start_mariadb("mariadb-10.11"), tmp_path / "source")
    source.sql(FROM_MARIADB)
    exported, record = await source.export("sql"), MemoryRecord()

    preview = await shop.stage(exported.content, record)
    await shop.recipe.restore(record, NotedProgress())
    shop.sql("INSERT INTO orders (id) VALUES (7)")

    assert b"NO_AUTO_CREATE_USER" in exported.content
    assert [warning for warning in preview.warnings if "without the sql_mode NO_AUTO_CREATE_USER" in warning]
    assert shop.sql("SELECT n FROM orders; CALL note()") == "1\n14\n2"
    assert {one.kind for one in await programs_of(shop)} == {"function", "procedure", "trigger", "event"}
    modes = {one.sql_mode for one in await programs_of(shop)}
    assert modes == {"STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"}


@pytest.mark.variant
async def test_an_sql_mode_by_which_mysql_does_not_go_is_refused_by_its_name(
    shop: MariadbApp, start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    source = MariadbApp(start_mariadb("mariadb-10.11"), tmp_path / "source")
    source.sql("SET sql_mode = 'EMPTY_STRING_IS_NULL'; CREATE FUNCTION f() RETURNS int RETURN '' IS NULL;")
    exported, record = await source.export("sql"), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="EMPTY_STRING_IS_NULL"):
        await shop.stage(exported.content, record)
    await shop.recipe.discard(record)

    assert shop.leftovers(record) == []


HOSTILE = {
    "two statements": "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1; DROP TABLE t",
    "a second one in a comment": "CREATE PROCEDURE p() SELECT 1 */; DROP TABLE t; /* ",
    "a string that ends elsewhere": "CREATE PROCEDURE p() SELECT 'x\\\\'; DROP TABLE t; -- ' ",
    "a version of a server": "CREATE PROCEDURE p() SELECT 1 /*!99999 ; */ ; DROP TABLE t",
    "an event that runs more": "CREATE EVENT e ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE ENABLE DO SET @a = 1; "
    "DROP TABLE t",
    "a view and more": "CREATE VIEW v AS SELECT 1; DROP TABLE t",
    "another delimiter": "CREATE PROCEDURE p() BEGIN SELECT 1 AS delimiter $\n FROM t$; END",
    "another delimiter in a line": "CREATE PROCEDURE p() BEGIN SELECT 1;\nDELIMITER\n;\nDROP TABLE t; END",
    "a character set of the client": "CREATE PROCEDURE p() SELECT 1 \\C gbk\n",
    "a command of the client": "CREATE PROCEDURE p() SELECT 1;\n\\! touch {marker}\n",
    "a file": "CREATE PROCEDURE p() BEGIN SELECT 1;\nsource {marker}\n; END",
    "a view of another database": "CREATE DEFINER=`root`@`%` VIEW v AS SELECT * FROM mysql.user",
    "a trigger on another database": "CREATE TRIGGER {shop}.x AFTER INSERT ON {shop}.own FOR EACH ROW SET @a = 1",
    "a function in another database": "CREATE FUNCTION {shop}.f() RETURNS int DETERMINISTIC RETURN 1",
    "a function from a library": "CREATE FUNCTION sys_exec RETURNS int SONAME 'lib_mysqludf_sys.so'",
}


@variants("kind", HOSTILE, every=8)
async def test_a_definition_that_is_more_than_one_or_reaches_out_is_refused(
    kind: str, shop: MariadbApp, tmp_path: Path
) -> None:
    shop.sql("CREATE TABLE own (a int)")
    before, record, marker = shop.dumped(), MemoryRecord(), tmp_path / "marker"

    with pytest.raises(ServiceError) as refusal:
        await shop.stage(dump_of(HOSTILE[kind].format(shop=shop.database, marker=marker)), record)
    await shop.recipe.discard(record)

    assert refusal.value.reason in ("ARCHIVE_REFUSED", "ARCHIVE_DAMAGED", "ARCHIVE_INCOMPATIBLE")
    assert not marker.exists()
    assert shop.dumped() == before
    assert shop.leftovers(record) == []


async def test_a_drop_whose_name_ends_its_comment_makes_nothing(shop: MariadbApp) -> None:
    record = MemoryRecord()
    content = dump_of("/*!99999 DROP VIEW IF EXISTS `a*/ CREATE TABLE pwned AS SELECT 1 AS x -- y`*/ ")

    preview = await shop.stage(content, record)
    await shop.recipe.discard(record)

    assert preview.items["tables"] == ItemChanges(added=1)
    assert shop.leftovers(record) == []


LOSING_ITS_END = (
    "CREATE PROCEDURE p() BEGIN SET @x = 1 +\ndelimiter_a -\n- 1 + ' \n; END; CREATE TABLE stolen (a int); -- '; END"
)
"""A client program makes `--` of the two lines' minus."""
SETTING_A_CHARACTER_SET = """CREATE TRIGGER one BEFORE INSERT ON t FOR EACH ROW
BEGIN SELECT /*+ \\C gbk */ 1 INTO @x; END;;
DELIMITER ;
SET NAMES utf8mb4;
DROP TRIGGER IF EXISTS one;
DELIMITER ;;
CREATE TRIGGER two BEFORE INSERT ON t FOR EACH ROW BEGIN SET @y = '東\\' '; SELECT /*+ \\C gbk */ 1 INTO @x;
SET @z = '; END; CREATE TABLE stolen (a int); -- '; END"""
"""In gbk, the second byte of the character and the backslash are another one: so the first string ends before the next
quote, and what is in the second is another statement. Without the first trigger, the server would keep gbk of it."""


@variants("definitions", [LOSING_ITS_END, SETTING_A_CHARACTER_SET], ids=["line", "character set"])
async def test_a_definition_that_is_one_for_the_server_and_several_for_its_client_is_refused(
    definitions: str, shop: MariadbApp
) -> None:
    shop.sql("CREATE TABLE t (a int, s text)")
    record = MemoryRecord()

    with pytest.raises(ServiceError) as refusal:
        await shop.stage(dump_of(definitions), record)
    await shop.recipe.discard(record)

    assert refusal.value.reason == "ARCHIVE_INCOMPATIBLE"
    assert "MySQL's client program" in refusal.value.text
    assert shop.leftovers(record) == []


@pytest.mark.variant
async def test_what_was_made_before_a_file_was_refused_keeps_nobody_from_dropping_its_account(shop: MariadbApp) -> None:
    record = MemoryRecord()
    content = dump_of("CREATE PROCEDURE p() SELECT 1;;\nCREATE FUNCTION mysql.f() RETURNS int RETURN 1")

    with pytest.raises(ServiceError):
        await shop.stage(content, record)
    # With the same account, of the same name.
    preview = await shop.stage(dump_of("CREATE PROCEDURE p() SELECT 1"), record)
    await shop.recipe.discard(record)

    assert preview.items["procedures"] == ItemChanges(added=1)
    assert shop.leftovers(record) == []


@variants(
    ("made", "words"),
    [
        ("CREATE PROCEDURE p() SELECT '\nDELIMITER ' AS a", "The procedure p has the word DELIMITER at the beginning"),
        (
            r"SET sql_mode = 'NO_BACKSLASH_ESCAPES';;CREATE PROCEDURE p() COMMENT 'a\b' SELECT 1",
            "The procedure p was made under the sql_mode NO_BACKSLASH_ESCAPES",
        ),
    ],
    ids=["word", "comment"],
)
async def test_what_no_client_of_mysql_could_make_again_is_an_obstacle_by_its_name(
    made: str, words: str, shop: MariadbApp
) -> None:
    shop.sql(f"DELIMITER ;;\n{made};;\nDELIMITER ;\n")

    described = await shop.recipe.describe()

    assert words in described.can_import.obstacle
    with pytest.raises(AppUnavailableError, match="procedure p"):
        await shop.stage(dump_of("CREATE VIEW v AS SELECT 1"), MemoryRecord())


@pytest.mark.variant
async def test_a_routine_with_no_blank_behind_a_comment_is_made_again_by_a_client_that_sends_one(
    shop: MariadbApp,
) -> None:
    text = "BEGIN /* a */SELECT 1/* b */; END"
    # What is in this option a client passes on unread.
    command = [str(shop.server.install.client), "--no-defaults", "--protocol=tcp", "--host=127.0.0.1"]
    command += [f"--port={shop.server.port}", f"--user={shop.user}", *shop.server.client_options]
    command += [f"--init-command=CREATE PROCEDURE p() {text}", f"--database={shop.database}", "--execute=DO 1"]
    subprocess.run(command, env={"MYSQL_PWD": shop.password}, check=True)
    told = "SELECT ROUTINE_DEFINITION FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()"
    before = shop.sql(told)

    record = await shop.import_(dump_of("CREATE PROCEDURE p() SELECT 2"))
    await shop.recipe.undo(record, NotedProgress())

    assert before == text
    assert shop.sql(told) == text.replace("*/", "*/ ")
    assert shop.leftovers(record) == []


@pytest.mark.variant
async def test_the_word_delimiter_within_a_line_is_no_command_of_a_client(shop: MariadbApp) -> None:
    shop.sql(
        "CREATE TABLE t (a int);\nDELIMITER zz\nCREATE FUNCTION f(s text,\n  delimiter varchar(3)) RETURNS "
        "text DETERMINISTIC RETURN s zz\n"
        "CREATE PROCEDURE p() BEGIN -- the delimiter to use\n SELECT 'No delimiter found' AS delimiter ; END zz\n"
        "DELIMITER ;\n"
    )
    exported, before = await shop.export("sql"), await programs_of(shop)
    shop.sql("DROP FUNCTION f")

    record = await shop.import_(exported.content)
    imported = await programs_of(shop)
    await shop.recipe.undo(record, NotedProgress())

    assert [one.name for one in before] == ["f", "p"]
    assert imported == before
    assert await programs_of(shop) == before[1:]


@pytest.mark.variant
async def test_triggers_that_a_server_takes_from_superusers_alone_are_an_obstacle_before_anything_is_dropped(
    name: str, tmp_path: Path
) -> None:
    with MysqlServer(mysql(name), settings={"log-bin": "log", "server-id": "1"}) as server:
        shop = MariadbApp(server, tmp_path / "work")
        server.sql("SET GLOBAL log_bin_trust_function_creators = 1")
        shop.sql("CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1")
        exported = await shop.export("sql")
        record = await shop.import_(exported.content)
        await shop.recipe.undo(record, NotedProgress())
        server.sql("SET GLOBAL log_bin_trust_function_creators = 0")

        described = await shop.recipe.describe()

        assert server.sql("SELECT @@log_bin") == "1"
        assert "log_bin_trust_function_creators=1" in described.can_import.obstacle
        with pytest.raises(AppUnavailableError, match="binary log"):
            await shop.stage(dump_of("CREATE VIEW v AS SELECT 1"), MemoryRecord())
        server.sql(f"GRANT SUPER ON *.* TO '{shop.user}'@'%'")
        assert (await shop.recipe.describe()).can_import.obstacle == ""
