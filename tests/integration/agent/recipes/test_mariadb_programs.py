"""Views, triggers, routines and events of a MariaDB database: out, in, undone, and harmless whatever they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.engines.mariadb.exports import dumping
from agent.engines.mariadb.imports import switching
from agent.engines.mariadb.imports.exchange import Exchange
from agent.engines.mariadb.server import programs
from agent.engines.mariadb.server.settings import Login
from agent.engines.swapping import Side
from agent.recipes.base import ItemChanges, Recovered
from agent.unsettled import UnsettledError
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ServiceError,
    ToolFailedError,
)
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import PROGRAMS, RICH, MariadbApp
from tests.fixtures.variants import variants
from tools.servers import MariadbServer, mariadb

CHANGES = """
DROP VIEW a, calls; DROP TRIGGER audit; CREATE VIEW since AS SELECT 1; DROP EVENT daily; DROP FUNCTION plus;
CREATE FUNCTION plus() RETURNS INT RETURN 7; INSERT INTO orders VALUES (5, 5);
CREATE TRIGGER other AFTER INSERT ON orders FOR EACH ROW SET @a = 1; DROP TABLE log; CREATE TABLE log (t text);
"""


async def programs_of(shop: MariadbApp) -> list[programs.Program]:
    return await programs.read(shop.recipe._settings.app_login(), shop.database)


async def test_programs_are_the_same_after_export_and_import_and_as_before_after_the_undo(shop: MariadbApp) -> None:
    shop.sql(RICH + PROGRAMS)
    exported, original = await shop.export("sql"), await programs_of(shop)
    shop.sql(CHANGES)
    before, rows = await programs_of(shop), await shop.fingerprint()
    record = MemoryRecord()

    preview = await shop.stage(exported.content, record)
    staged = await programs_of(shop)
    await shop.recipe.restore(record, NotedProgress())
    imported = await programs_of(shop)
    shop.sql("INSERT INTO orders VALUES (9, 9); CREATE VIEW later AS SELECT 3")
    written = shop.sql("SELECT * FROM log; SELECT x FROM calls; SELECT old(), (SELECT COUNT(*) FROM wide)")
    await shop.recipe.undo(record, NotedProgress())

    assert len(original) == 12
    assert preview.items == {
        "tables": ItemChanges(changed=1, same=7),
        "views": ItemChanges(added=2, removed=1, same=3),
        "triggers": ItemChanges(added=1, removed=1),
        "functions": ItemChanges(changed=1, same=2),
        "procedures": ItemChanges(same=1),
        "events": ItemChanges(added=1, same=1),
    }
    assert preview.room_bytes > 0
    assert preview.bridging == ""
    assert staged == before
    assert imported == original
    assert written == "it's \\\\\n2\n10\nÃ©\t28"
    assert await programs_of(shop) == before
    assert (await shop.fingerprint()).differences(rows) == []
    assert shop.leftovers(record) == []


TRIGGER_WORDS = {
    "in lower case": "create trigger t before insert on tag for each row set new.id = new.id + 1",
    "with its database's name": "CREATE TRIGGER {own}.t BEFORE DELETE ON {own}.tag FOR EACH ROW SET @a = 1",
    "with that name far off": "create trigger {own} . T AFTER UPDATE ON\n\t{own} . tag FOR EACH ROW SET @a = 1",
    "or replaced": "CREATE OR REPLACE TRIGGER t BEFORE INSERT ON tag FOR EACH ROW SET @a = 1",
    "if it is not there": "CREATE TRIGGER IF NOT EXISTS t BEFORE INSERT ON tag FOR EACH ROW SET @a = 1",
    "with comments": "create /* a */ trigger /* b */ t -- c\n before insert on tag for each row set @a = 1 /* d */",
}


@variants("words", TRIGGER_WORDS.values(), ids=TRIGGER_WORDS, kept=[TRIGGER_WORDS["with that name far off"]])
async def test_a_trigger_comes_back_in_the_words_of_who_made_it(shop: MariadbApp, words: str) -> None:
    shop.sql(f"CREATE TABLE tag (id int); {words.format(own=shop.database)}")
    exported, original, record = await shop.export("sql"), await programs_of(shop), MemoryRecord()

    preview = await shop.stage(exported.content, record)
    await shop.recipe.restore(record, NotedProgress())

    assert preview.items["triggers"] == ItemChanges(same=1)
    assert await programs_of(shop) == original
    assert await shop.fingerprint() == exported.fingerprint
    await shop.recipe.discard(record)


Content = tuple[list[programs.Program], str, str]
KEYS = """
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE pairs (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE named (id int PRIMARY KEY, p int, q int, r int, KEY own (p), KEY (q), KEY (r), KEY n (r, q),
  CONSTRAINT own FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE SET NULL,
  CONSTRAINT n FOREIGN KEY (r, q) REFERENCES pairs (a, b), FOREIGN KEY (q) REFERENCES named (id));
CREATE TABLE second (id int PRIMARY KEY, p int, KEY other (p), CONSTRAINT other FOREIGN KEY (p) REFERENCES named (id));
CREATE TRIGGER counted AFTER DELETE ON named FOR EACH ROW INSERT INTO log VALUES (OLD.id);
CREATE TRIGGER first_of BEFORE INSERT ON named FOR EACH ROW SET NEW.q = NEW.q;
CREATE TRIGGER before_that BEFORE INSERT ON named FOR EACH ROW PRECEDES first_of SET NEW.p = NEW.p;
"""
"""Keys whose names a schema may have but once, on tables with triggers and on others."""


async def content_of(shop: MariadbApp) -> Content:
    """What there is: programs, how tables are made, rows."""
    tables = shop.sql("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()").splitlines()
    made = shop.sql("".join(f"SHOW CREATE TABLE `{table}`;" for table in sorted(tables)))
    return await programs_of(shop), made, shop.sql("SELECT * FROM orders")


class KilledError(BaseException):
    """The agent is gone: nothing of it runs any more."""


def killed_at(moment: str, patch: pytest.MonkeyPatch) -> None:
    """Make the agent end at a point of its next exchange."""

    def after(target: object, name: str) -> None:
        real = getattr(target, name)

        async def ending(*arguments: object, **options: object) -> None:
            await real(*arguments, **options)
            raise KilledError

        patch.setattr(target, name, ending)

    async def at_once(*_: object, **__: object) -> None:
        raise KilledError

    match moment:
        case "written down":
            patch.setattr(switching.Switch, "_exchange", at_once)
        case "events dropped":
            patch.setattr(Exchange, "rename", at_once)
        case "stand-ins made" | "half made" | "made":
            real = programs.make

            async def made(login: Login, database: str, found: list[programs.Program], **options: Any) -> None:
                are_stand_ins = not options["dropping"]
                is_half = moment == "half made" and not are_stand_ins
                await real(login, database, found[: len(found) // 2] if is_half else found, **options)
                if are_stand_ins == (moment == "stand-ins made"):
                    raise KilledError

            patch.setattr(programs, "make", made)
        case _:
            after(Exchange, moment)


@dataclass(frozen=True)
class Staged:
    """An import that can be exchanged and taken back any number of times, and what each side has of programs."""

    shop: MariadbApp
    record: MemoryRecord
    previous: Content
    imported: Content


@pytest.fixture(scope="module")
def staged(mariadb_server: MariadbServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    """One for all moments: each test leaves it with the previous side in place."""

    async def stage() -> Staged:
        shop = MariadbApp(mariadb_server, tmp_path_factory.mktemp("staged") / "work")
        shop.sql(PROGRAMS + KEYS)
        exported, original = (await shop.export("sql")).content, await content_of(shop)
        shop.sql(CHANGES)
        record = MemoryRecord()
        await shop.stage(exported, record)
        return Staged(shop, record, await content_of(shop), original)

    async def discard(made: Staged) -> None:
        await made.shop.recipe.discard(made.record)
        assert made.shop.leftovers(made.record) == []

    made = asyncio.run(stage())
    yield made
    asyncio.run(discard(made))


BEFORE = ["written down", "give_way", "bring_near", "stand-ins made", "events dropped"]
AFTER = ["rename", "put_away", "half made", "made", "name_keys"]


@variants("moment", [*BEFORE, *AFTER], kept=["rename", "half made"])
async def test_an_exchange_that_was_killed_is_recovered_to_entirely_one_side_both_ways(
    moment: str, staged: Staged
) -> None:
    shop, record = staged.shop, staged.record
    goes_on = moment in AFTER

    with pytest.MonkeyPatch.context() as patch:
        killed_at(moment, patch)
        with pytest.raises(KilledError):
            await shop.recipe.restore(record, NotedProgress())
    side = await shop.recipe.recover(record)
    recovered = await content_of(shop)
    if side is Recovered.PREVIOUS:
        await shop.recipe.restore(record, NotedProgress())
    with pytest.MonkeyPatch.context() as patch:
        killed_at(moment, patch)
        with pytest.raises(KilledError):
            await shop.recipe.undo(record, NotedProgress())
    side_of_undo = await shop.recipe.recover(record)
    undone = await content_of(shop)
    # As an undo does, without what it drops after it.
    await shop.recipe._switch(record).bring(Side.PREVIOUS)

    assert (side is Recovered.IMPORTED) == goes_on
    assert recovered == (staged.imported if goes_on else staged.previous)
    assert (side_of_undo is Recovered.PREVIOUS) == goes_on
    assert undone == (staged.previous if goes_on else staged.imported)
    assert await content_of(shop) == staged.previous


LOST = [
    "DROP VIEW calls",
    "DROP VIEW a",
    "DROP TRIGGER audit",
    "DROP FUNCTION plus",
    "DROP PROCEDURE note",
    "DROP EVENT daily",
    "ALTER EVENT never ENABLE",
    "CREATE OR REPLACE VIEW b AS SELECT id FROM orders",
    "CREATE OR REPLACE FUNCTION old() RETURNS varchar(9) CHARSET latin1 RETURN 'e'",
]


async def test_a_fingerprint_tells_of_each_view_trigger_routine_and_event_that_is_gone_or_other(
    shop: MariadbApp,
) -> None:
    shop.sql(PROGRAMS)
    last, told = await shop.fingerprint(), []

    for change in LOST:
        shop.sql(change)
        now = await shop.fingerprint()
        told += [difference.partition(":")[0] for difference in last.differences(now)]
        last = now

    assert told == [
        *("view calls", "view a", "trigger audit", "function plus", "procedure note", "event daily"),
        *("event never", "view b", "function old"),
    ]


async def test_an_export_during_which_a_trigger_was_lost_has_no_fingerprint_and_says_so(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql(PROGRAMS)
    real = dumping.raw_dump

    async def losing(login: Login, database: str, **options: Any) -> AsyncGenerator[bytes, None]:
        async for piece in real(login, database, **options):
            yield piece
        shop.sql("DROP TRIGGER IF EXISTS audit")

    monkeypatch.setattr(dumping, "raw_dump", losing)

    exported = await shop.export("sql")

    assert exported.fingerprint is None
    assert "altered during the export" in exported.warnings[-1]
    shop.sql("CREATE TRIGGER audit AFTER INSERT ON orders FOR EACH ROW SET @a = 1")
    with pytest.raises(AppBusyError, match="altered while it was read"):
        await shop.fingerprint()


async def test_what_the_server_does_not_make_again_takes_the_whole_exchange_back(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql(PROGRAMS)
    exported = (await shop.export("sql")).content
    shop.sql(CHANGES)
    before, rows, record = await programs_of(shop), await shop.fingerprint(), MemoryRecord()
    await shop.stage(exported, record)
    real, calls = programs.make, []

    async def refused_once(login: Login, database: str, found: list[programs.Program], **options: Any) -> None:
        if not options["dropping"]:
            return
        calls.append(found)
        await real(login, database, found[:-1] if len(calls) == 1 else found, **options)
        if len(calls) == 1:
            raise ToolFailedError("The server refused a statement.")

    monkeypatch.setattr(programs, "make", refused_once)

    with pytest.raises(ToolFailedError, match="refused a statement"):
        await shop.recipe.restore(record, NotedProgress())

    assert record.facts["is_switching"] is False
    assert await programs_of(shop) == before
    assert (await shop.fingerprint()).differences(rows) == []
    await shop.recipe.discard(record)


async def test_a_locked_table_makes_a_swap_fail_in_time_with_triggers_and_events_in_place(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engines.mariadb.server.client.LOCK_SECONDS", 1)
    monkeypatch.setattr("agent.engines.mariadb.server.client.ATTEMPTS", 1)
    shop.sql(
        "CREATE TABLE tag (id int); CREATE TRIGGER t AFTER INSERT ON tag FOR EACH ROW SET @a = 1;"
        " CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SET @a = 1; CREATE VIEW v AS SELECT id FROM tag;"
    )
    exported, before, record = (await shop.export("sql")).content, await programs_of(shop), MemoryRecord()
    await shop.stage(exported, record)

    async with shop.lock_held():
        with pytest.raises(AppBusyError):
            await shop.recipe.restore(record, NotedProgress())
        locked = await programs_of(shop)
        still = shop.server.sql("SELECT INFO FROM information_schema.PROCESSLIST")

    assert locked == before
    assert "SLEEP(100)" in still, "it waited for the end of the lock"
    assert record.facts["is_switching"] is False
    await shop.recipe.restore(record, NotedProgress())
    assert await programs_of(shop) == before
    await shop.recipe.discard(record)


@pytest.mark.parametrize("lets_go", [True, False])
async def test_a_table_that_is_locked_right_after_the_rename_is_waited_for_and_not_for_ever(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch, *, lets_go: bool
) -> None:
    monkeypatch.setattr("agent.engines.mariadb.server.client.LOCK_SECONDS", 1)
    monkeypatch.setattr("agent.engines.mariadb.server.client.ATTEMPTS", 2 if lets_go else 1)
    monkeypatch.setattr("agent.engines.mariadb.server.client.PAUSE_SECONDS", 0)
    shop.sql("CREATE TABLE tag (id int); CREATE TRIGGER t AFTER INSERT ON tag FOR EACH ROW SET @a = 1")
    exported, imported, record = (await shop.export("sql")).content, await programs_of(shop), MemoryRecord()
    shop.sql("DROP TRIGGER t")
    await shop.stage(exported, record)
    bring, make = Exchange.bring, programs.make

    async with AsyncExitStack() as busy:

        async def locking(exchange: Exchange, target: Side, **options: Any) -> None:
            await bring(exchange, target, **options)
            if target is Side.IMPORTED:
                await busy.enter_async_context(shop.lock_held())

        async def refused(login: Login, database: str, found: list[programs.Program], **options: Any) -> None:
            try:
                await make(login, database, found, **options)
            except AppBusyError:
                if lets_go:
                    await busy.aclose()
                raise

        monkeypatch.setattr(Exchange, "bring", locking)
        monkeypatch.setattr(programs, "make", refused)
        if lets_go:
            await shop.recipe.restore(record, NotedProgress())
        else:
            with pytest.raises(UnsettledError, match=r"in time.*could not be taken back"):
                await shop.recipe.restore(record, NotedProgress())

    # As the agent does it by itself.
    assert await shop.recipe.recover(record) is Recovered.IMPORTED
    assert await programs_of(shop) == imported
    await shop.recipe.undo(record, NotedProgress())
    assert await programs_of(shop) == []
    assert shop.leftovers(record) == []


async def test_a_definition_that_the_server_is_not_done_with_in_time_is_left_with_what_to_look_at(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "STATEMENT_SECONDS", 1)
    shop.sql("CREATE TABLE tag (id int); CREATE TRIGGER t AFTER INSERT ON tag FOR EACH ROW SET @a = 1")
    login, present = shop.recipe._settings.app_login(), await programs_of(shop)

    async with shop.lock_held():
        with pytest.raises(ToolFailedError, match="told to leave it") as refused:
            await programs.make(login, shop.database, present, dropping={("trigger", "t")})

    assert "See that the disk of the server is not full" in (refused.value.next_step or "")
    assert await programs_of(shop) == present


async def test_grants_on_a_routine_stay_as_long_as_both_sides_have_it(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE x (id int); CREATE PROCEDURE same() SELECT 1; CREATE FUNCTION other() RETURNS int RETURN 1")
    exported, reporter = (await shop.export("sql")).content, f"{shop.user}_reporter"
    shop.sql("CREATE OR REPLACE FUNCTION other() RETURNS int RETURN 2; CREATE FUNCTION own() RETURNS int RETURN 3")
    shop.server.sql(f"CREATE USER {reporter}")
    for routine in ("PROCEDURE same", "FUNCTION other", "FUNCTION own"):
        kind, _, name = routine.partition(" ")
        shop.server.sql(f"GRANT EXECUTE ON {kind} {shop.database}.{name} TO {reporter}")
    before, record = await programs_of(shop), MemoryRecord()

    def granted() -> set[str]:
        rows = shop.server.sql(f"SHOW GRANTS FOR {reporter}").splitlines()
        return {name for name in ("same", "other", "own") if any(f"`{name}`" in row for row in rows)}

    assert granted() == {"same", "other", "own"}
    await shop.stage(exported, record)

    await shop.recipe.restore(record, NotedProgress())
    imported, called = granted(), shop.sql("SELECT other()")
    await shop.recipe.undo(record, NotedProgress())

    assert called == "1"
    assert imported == granted() == {"same", "other"}
    assert await programs_of(shop) == before
    shop.server.sql(f"DROP USER {reporter}")


async def test_a_table_and_a_view_of_one_name_take_each_others_place_both_ways(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE y (id int); CREATE VIEW x AS SELECT * FROM y; CREATE TABLE z (id int)")
    exported = (await shop.export("sql")).content
    shop.sql("DROP VIEW x; DROP TABLE y, z; CREATE TABLE x (id int); CREATE VIEW y AS SELECT id FROM x; ")
    shop.sql("CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @a = 1; CREATE VIEW z AS SELECT id FROM y")
    before, record = shop.dumped(), MemoryRecord()
    await shop.stage(exported, record)

    await shop.recipe.restore(record, NotedProgress())
    imported = shop.sql("SHOW FULL TABLES")
    await shop.recipe.undo(record, NotedProgress())

    assert imported == "x\tVIEW\ny\tBASE TABLE\nz\tBASE TABLE"
    assert shop.dumped() == before


async def test_merge_tables_with_triggers_change_places_both_ways(shop: MariadbApp) -> None:
    shop.sql(
        "CREATE TABLE one (a int) ENGINE=MyISAM; CREATE TABLE two (a int) ENGINE=MyISAM; INSERT INTO one VALUES (1);"
        " CREATE TABLE both_of_them (a int) ENGINE=MRG_MyISAM UNION=(one, two) INSERT_METHOD=LAST;"
        " CREATE TABLE log (a int);"
        " CREATE TRIGGER noted AFTER INSERT ON two FOR EACH ROW INSERT INTO log VALUES (NEW.a);"
        " CREATE TRIGGER merged AFTER INSERT ON both_of_them FOR EACH ROW INSERT INTO log VALUES (-NEW.a);"
    )
    before = await programs_of(shop)

    record = await shop.import_(dump_of("CREATE TRIGGER noted BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 7"))
    shop.sql("INSERT INTO t (a) VALUES (1)")
    imported = shop.sql("SELECT a FROM t; SHOW TABLES")
    await shop.recipe.undo(record, NotedProgress())
    shop.sql("INSERT INTO both_of_them VALUES (2)")

    assert imported == "7\nt"
    assert await programs_of(shop) == before
    assert shop.sql("SELECT a FROM both_of_them; SELECT a FROM log") == "1\n2\n-2"
    assert shop.leftovers(record) == []


async def test_what_is_refused_after_a_view_took_a_tables_name_is_taken_back(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql("CREATE TABLE y (id int); CREATE VIEW x AS SELECT * FROM y")
    exported = (await shop.export("sql")).content
    shop.sql("DROP VIEW x; DROP TABLE y; CREATE TABLE x (id int); CREATE VIEW y AS SELECT id FROM x")
    before, record = shop.dumped(), MemoryRecord()
    await shop.stage(exported, record)
    real, calls = programs.make, []

    async def refused_once(login: Login, database: str, found: list[programs.Program], **options: Any) -> None:
        if not found:
            return
        calls.append(found)
        await real(login, database, found, **options)
        if len(calls) == 1:
            shop.sql("CREATE EVENT other ON SCHEDULE EVERY 1 DAY DO SET @a = 1")
            raise ToolFailedError("The server refused a statement.")

    monkeypatch.setattr(programs, "make", refused_once)

    with pytest.raises(ToolFailedError, match="refused a statement"):
        await shop.recipe.restore(record, NotedProgress())

    assert shop.dumped() == before
    await shop.recipe.discard(record)


@variants("completion", ["NOT PRESERVE", "PRESERVE"], kept=["PRESERVE"])
@variants("schedule", ["AT '{}-01-01 00:00:00'", "EVERY 1 HOUR STARTS '1999-01-01 00:00:00' ENDS '{}-01-01 00:00:00'"])
async def test_an_event_whose_time_passed_meanwhile_is_there_and_disabled_after_import_and_undo(
    completion: str, schedule: str, shop: MariadbApp
) -> None:
    event = f"CREATE EVENT once ON SCHEDULE {schedule.format('2037')} ON COMPLETION {completion} DO SET @a = 1"
    shop.sql(f"CREATE TABLE x (id int); {event}; CREATE VIEW v AS SELECT id FROM x")
    record = MemoryRecord()
    await shop.stage((await shop.export("sql")).content, record)

    for fact, move in (("programs_imported", shop.recipe.restore), ("programs_previous", shop.recipe.undo)):
        written = record.facts[fact]
        assert isinstance(written, list)
        # As if years had gone by.
        record.save(**{fact: [line.replace("2037", "2001") for line in written]})
        await move(record, NotedProgress())

        [made] = [found.text for found in await programs_of(shop) if found.kind == "event"]
        assert "ON COMPLETION PRESERVE DISABLE DO SET @a = 1" in made
        assert schedule.format("2001") in made

    assert shop.sql("SELECT COUNT(*) FROM v") == "0"
    assert shop.leftovers(record) == []


def dump_of(*definitions: str) -> bytes:
    """A dump's beginning and end around definitions."""
    text = "".join(f"DELIMITER ;;\n{definition} ;;\nDELIMITER ;\n" for definition in definitions)
    return f"-- MariaDB dump 10.19\n\nCREATE TABLE `t` (`a` text);\n{text}\n-- Dump completed on 2026-11-23\n".encode()


HOSTILE: dict[str, str] = {
    "a view of another database": "CREATE DEFINER=`root`@`%` VIEW v AS SELECT * FROM mysql.global_priv",
    "a trigger on another database": "CREATE TRIGGER {shop}.x AFTER INSERT ON {shop}.own FOR EACH ROW SET @a = 1",
    "a function from a library": "CREATE FUNCTION sys_exec RETURNS int SONAME 'lib_mysqludf_sys.so'",
    "a function in another database": "CREATE FUNCTION mysql.f() RETURNS int RETURN 1",
    "two statements": "CREATE VIEW v AS SELECT 1; GRANT ALL ON *.* TO x",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_definition_that_reaches_out_of_its_database_is_refused(name: str, shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE own (a int)")
    before, record = shop.dumped(), MemoryRecord()

    with pytest.raises(ServiceError) as refusal:
        await shop.stage(dump_of(HOSTILE[name].format(shop=shop.database)), record)
    await shop.recipe.discard(record)

    assert refusal.value.reason in ("ARCHIVE_REFUSED", "ARCHIVE_DAMAGED")
    assert "mathison_load" not in refusal.value.text
    assert shop.dumped() == before
    assert shop.leftovers(record) == []


HIDDEN = {
    "where a table's file lies": "CREATE TABLE x (a int) DATA /*!99999 x */ DIRECTORY='{elsewhere}'",
    "another engine": "CREATE TABLE x (a int NOT NULL) ENGINE /*!99999 InnoDB */ =CSV",
    "a trigger": "CREATE /*!99999 SEQUENCE {long} */ TRIGGER x AFTER INSERT ON t FOR EACH ROW SET @a = 1",
    "an event": "CREATE /*!99999 SEQUENCE {long} */ EVENT x ON SCHEDULE EVERY 1 SECOND DO INSERT INTO t SET a = 1",
}


@pytest.mark.parametrize("name", HIDDEN)
async def test_what_the_server_takes_for_a_comment_hides_nothing_that_it_carries_out(
    name: str, shop: MariadbApp, tmp_path: Path
) -> None:
    shop.sql("CREATE TABLE own (a int)")
    before, record = shop.dumped(), MemoryRecord()
    statement = HIDDEN[name].format(elsewhere=tmp_path, long="a" * 2100)
    dump = f"-- MariaDB dump 10.19\n\nCREATE TABLE t (a int);\n{statement};\n-- Dump completed on 2026-11-23\n"

    with pytest.raises((ArchiveRefusedError, ArchiveIncompatibleError), match="Line 4: "):
        await shop.stage(dump.encode(), record)
    await shop.recipe.discard(record)

    assert shop.dumped() == before
    assert shop.leftovers(record) == []


async def test_what_a_file_brings_along_runs_with_the_rights_of_the_apps_account(shop: MariadbApp) -> None:
    shop.server.sql("CREATE DATABASE IF NOT EXISTS others; CREATE OR REPLACE TABLE others.secret (s text)")
    content = dump_of(
        "/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`%`*/ /*!50003 TRIGGER spy BEFORE INSERT ON t FOR EACH ROW"
        " SET NEW.a = (SELECT s FROM others.secret LIMIT 1) */",
        "CREATE DEFINER=`root`@`%` PROCEDURE late() BEGIN"
        " PREPARE s FROM 'GRANT ALL ON *.* TO CURRENT_USER'; EXECUTE s; END",
        "CREATE DEFINER=`root`@`%` PROCEDURE peek() SQL SECURITY DEFINER SELECT * FROM mysql.global_priv",
    )

    record = await shop.import_(content)

    definers = {found.definer for found in await programs.list_all(shop.recipe._admin(), shop.database)}
    assert definers == {f"{shop.user}@%"}
    for attempt in ("INSERT INTO t VALUES ('x')", "CALL late()", "CALL peek()"):
        with pytest.raises(Exception, match="returned non-zero"):
            shop.sql(attempt)
        with pytest.raises(Exception, match="returned non-zero"):
            shop.server.sql(attempt, database=shop.database)
    await shop.recipe.discard(record)


async def test_nothing_of_a_file_runs_while_it_is_loaded(shop: MariadbApp) -> None:
    """What is written before the rows, in words that an older and a newer client use, is made after them."""
    content = (
        b"-- MariaDB dump 10.19\n\nCREATE TABLE t (a int); CREATE TABLE log (b int);\nSET @old_sql_mode = @@sql_mode;\n"
        b"DELIMITER ;;\n/*!50003 SET sql_mode = 'STRICT_ALL_TABLES' */ ;;\n"
        b"CREATE TRIGGER fill BEFORE INSERT ON t FOR EACH ROW INSERT INTO log VALUES (1) ;;\nDELIMITER ;\n"
        b"SET sql_mode = @old_sql_mode;\n/*!50001 CREATE VIEW v AS SELECT a FROM t */;\nINSERT INTO t VALUES (1),(2);\n"
        b"\n-- Dump completed on 2026-11-23\n"
    )

    record = await shop.import_(content)

    made = {found.name: found.sql_mode for found in await programs_of(shop)}
    assert shop.sql("SELECT (SELECT COUNT(*) FROM log), (SELECT COUNT(*) FROM v)") == "0\t2"
    assert made == {"v": "", "fill": "STRICT_ALL_TABLES"}
    await shop.recipe.discard(record)


async def test_an_event_whose_time_has_passed_when_it_arrives_is_left_out_with_a_warning(shop: MariadbApp) -> None:
    event = "CREATE EVENT {} ON SCHEDULE AT '{}-01-01 00:00:00' ON COMPLETION NOT PRESERVE ENABLE DO SET @a = 1"
    record = MemoryRecord()

    preview = await shop.stage(dump_of(event.format("past", 2001), event.format("ahead", 2037)), record)

    assert preview.warnings == ("1 events are left out: their time has passed.",)
    assert preview.items["events"] == ItemChanges(added=1)
    await shop.recipe.discard(record)


OBSTACLES: dict[str, Callable[[MariadbApp], None]] = {
    "character set latin2; make it again after SET NAMES utf8mb4": lambda shop: void(
        shop.sql("SET NAMES latin2; CREATE VIEW v AS SELECT 'x' AS c")
    ),
    "The procedure p was made under the sql_mode ANSI_QUOTES": lambda shop: void(
        shop.sql("SET sql_mode = 'ANSI_QUOTES'; CREATE PROCEDURE p() SELECT 1")
    ),
    "The procedure p was made under the sql_mode NO_BACKSLASH_ESCAPES": lambda shop: void(
        shop.sql(r"SET sql_mode = 'NO_BACKSLASH_ESCAPES'; CREATE PROCEDURE p() COMMENT 'a\b' SELECT 1")
    ),
    "The event e was made under the sql_mode NO_BACKSLASH_ESCAPES": lambda shop: void(
        shop.sql(
            "SET sql_mode = 'NO_BACKSLASH_ESCAPES'; CREATE EVENT e ON SCHEDULE EVERY 1 DAY COMMENT 'a\nb' DO SET @a = 1"
        )
    ),
    "belongs to root@%": lambda shop: void(shop.server.sql("CREATE VIEW v AS SELECT 1", database=shop.database)),
    "does not work": lambda shop: void(
        shop.sql("CREATE TABLE x (a int); CREATE VIEW v AS SELECT a FROM x; DROP TABLE x")
    ),
    "lacks rights: GRANT TRIGGER ON": lambda shop: void(
        shop.sql("CREATE TABLE x (a int); CREATE TRIGGER y BEFORE INSERT ON x FOR EACH ROW SET @a = 1"),
        shop.server.sql(f"REVOKE TRIGGER ON {shop.database}.* FROM {shop.user}"),
    ),
}


def void(*_: object) -> None:
    """Nothing of it."""


@variants("words", OBSTACLES, every=3)
async def test_what_could_not_be_put_back_is_an_obstacle_with_its_reason(words: str, shop: MariadbApp) -> None:
    OBSTACLES[words](shop)

    described = await shop.recipe.describe()

    assert words in described.can_import.obstacle
    with pytest.raises(AppUnavailableError, match=words.partition(":")[0]):
        await shop.stage(dump_of(), MemoryRecord())


async def test_an_undo_that_something_stands_against_says_what_to_change_and_goes_then(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE own (a int)")
    record = await shop.import_(dump_of())
    shop.server.sql("CREATE VIEW v AS SELECT 1", database=shop.database)

    with pytest.raises(AppUnavailableError, match="Make it again as the app's account, or drop it") as refused:
        await shop.recipe.undo(record, NotedProgress())
    shop.server.sql("DROP VIEW v", database=shop.database)
    await shop.recipe.undo(record, NotedProgress())

    assert refused.value.next_step == "Change that in the app's database or its server, then try again."
    assert shop.sql("SHOW TABLES") == "own"


async def test_programs_go_into_a_server_whose_own_mode_writes_names_in_other_quotes(
    shop: MariadbApp, tmp_path: Path
) -> None:
    shop.sql(RICH + PROGRAMS)
    exported, original = await shop.export("sql"), await programs_of(shop)
    with MariadbServer(mariadb(), settings={"sql-mode": "ANSI"}) as server:
        other = MariadbApp(server, tmp_path / "other")
        other.sql("CREATE TABLE t (a int); CREATE VIEW was AS SELECT a FROM t")
        before, record = await programs_of(other), MemoryRecord()

        await other.stage(exported.content, record)
        await other.recipe.restore(record, NotedProgress())
        imported = await programs_of(other)
        await other.recipe.undo(record, NotedProgress())

        assert [one.key for one in imported] == [one.key for one in original]
        assert await programs_of(other) == before
