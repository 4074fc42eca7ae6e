"""MariaDB and MySQL: a client that is kept for an operation answers as one does that is started for a question."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.engines.mariadb.server.client import query
from agent.engines.mariadb.server.kept_clients import KeptClients, keeping_clients
from agent.engines.mariadb.server.settings import Login
from agent.processes import Command
from common.errors import AppUnavailableError, ToolFailedError
from tests.fakes.imports import NotedProgress
from tests.fixtures.mariadb_apps import SEQUENCED, MariadbApp
from tests.fixtures.waiting import until

SESSION = "SELECT CONNECTION_ID();"
ODD = (
    r"SELECT 'a\tb\nc\\d\0', NULL, 'NULL', '', '\\n', 'ü🐻'; SELECT x'ff00'; SELECT ''; SELECT 1 FROM DUAL WHERE FALSE;"
)
PASSING = (
    "error_count",
    "identity",
    "insert_id",
    "last_insert_id",
    "pseudo_",
    "rand_seed",
    "statement_id",
    "timestamp",
    "warning_count",
)
"""Beginnings of variables that tell of statements, not of what was set."""
SMALL = """
CREATE TABLE orders (id int PRIMARY KEY, n int); INSERT INTO orders VALUES (1, 1);
CREATE VIEW v AS SELECT id FROM orders; CREATE PROCEDURE p() SELECT 1;
SET time_zone = '+03:00'; CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO SELECT 1;
CREATE TABLE child (id int PRIMARY KEY, p int, CONSTRAINT k FOREIGN KEY (p) REFERENCES orders(id));
CREATE TRIGGER t BEFORE INSERT ON child FOR EACH ROW SET NEW.p = 1;
"""


@pytest.fixture
def login(shop_of_either: MariadbApp) -> Login:
    """The app's, with a table."""
    shop_of_either.server.sql("SET GLOBAL log_bin_trust_function_creators = 1")
    shop_of_either.sql("CREATE TABLE t (id int PRIMARY KEY)")
    return login_of(shop_of_either)


def login_of(shop: MariadbApp) -> Login:
    return Login(shop.server.host, shop.server.port, shop.user, shop.password, shop.server.install.bin_directory)


def sessions_of(shop: MariadbApp) -> str:
    return shop.server.sql(f"SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{shop.user}'")


async def test_questions_of_an_operation_are_asked_in_one_session_that_ends_with_it(
    shop_of_either: MariadbApp, login: Login
) -> None:
    async with keeping_clients():
        [[first]] = await query(login, SESSION)
        async with keeping_clients():
            [[within]] = await query(login, SESSION, database=shop_of_either.database)
        [[again]] = await query(login, SESSION)
        assert sessions_of(shop_of_either) == "1"

    assert first == within == again
    await until(lambda: sessions_of(shop_of_either) == "0")
    assert await query(login, SESSION) != await query(login, SESSION)


@pytest.mark.parametrize("account", ["user", "admin"])
async def test_an_account_with_room_for_one_session_is_enough(shop_of_either: MariadbApp, account: str) -> None:
    shop = shop_of_either
    shop.server.sql("SET GLOBAL log_bin_trust_function_creators = 1")
    shop.sql(SMALL)
    shop.server.sql(f"ALTER USER '{getattr(shop, account)}'@'%' WITH MAX_USER_CONNECTIONS 1")

    described, exported, before = await shop.recipe.describe(), await shop.export("sql"), shop.dumped()
    shop.sql("INSERT INTO orders VALUES (2, 2)")
    changed = shop.dumped()
    record = await shop.import_(exported.content)

    assert (described.can_export.obstacle, described.can_import.obstacle) == ("", "")
    assert shop.dumped() == before
    await shop.recipe.undo(record, NotedProgress())
    assert shop.dumped() == changed


async def test_sessions_that_have_to_be_gone_end_with_a_block_of_their_own(
    shop_of_either: MariadbApp, login: Login
) -> None:
    async with keeping_clients():
        async with keeping_clients(are_own=True):
            await query(login, SESSION)

        await until(lambda: sessions_of(shop_of_either) == "0")


async def test_what_a_kept_client_tells_is_what_any_tells(login: Login) -> None:
    alone = await query(login, ODD)

    async with keeping_clients():
        kept = [await query(login, ODD) for _ in range(2)]

    assert kept == [alone, alone]
    assert alone[0] == ["a\tb\nc\\d\0", "NULL", "NULL", "", "\\n", "ü🐻"]


async def test_long_questions_and_long_answers_go_through(login: Login) -> None:
    text = "x" * 3_000_000

    async with keeping_clients():
        for _ in range(2):
            assert await query(login, f"SELECT '{text}';") == [[text]]
        with pytest.raises(ToolFailedError, match="printed more than 16777216 bytes"):
            await query(login, "SELECT REPEAT('x', 9000000); SELECT REPEAT('x', 9000000);")
        assert await query(login, "SELECT 1;") == [["1"]]


async def test_a_statement_that_fails_is_told_and_is_the_last_that_is_carried_out(
    shop_of_either: MariadbApp, login: Login
) -> None:
    failing = "INSERT INTO t VALUES ({0}); INSERT INTO missing VALUES (1); INSERT INTO t VALUES ({0} + 1);"
    name = shop_of_either.database
    with pytest.raises(ToolFailedError) as alone:
        await query(login, failing.format(1), database=name)

    async with keeping_clients():
        await query(login, "SELECT 1;")
        with pytest.raises(ToolFailedError) as kept:
            await query(login, failing.format(11), database=name)
        rows = await query(login, "SELECT id FROM t ORDER BY id;", database=name)
        with pytest.raises(AppUnavailableError) as nowhere:
            await query(login, "SELECT 1;", database="missing")

    assert kept.value.text == alone.value.text
    assert rows == [["1"], ["11"]]
    assert "missing" in nowhere.value.text


async def test_a_session_that_was_ended_meanwhile_is_followed_by_another(
    shop_of_either: MariadbApp, login: Login
) -> None:
    async with keeping_clients():
        [[first]] = await query(login, SESSION)
        shop_of_either.server.sql(f"KILL {first}")
        [[second]] = await query(login, SESSION)

    assert first != second


async def test_a_question_that_is_given_up_ends_its_client_and_no_other(
    shop_of_either: MariadbApp, login: Login
) -> None:
    asleep = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP(%'"
    async with keeping_clients():
        [[first]] = await query(login, SESSION)
        sleeping = asyncio.create_task(query(login, "SELECT SLEEP(1000);"))
        await until(lambda: shop_of_either.server.sql(asleep) == "1")

        [[beside]] = await query(login, SESSION)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping

        [[after]] = await query(login, SESSION)
        shop_of_either.server.sql(f"KILL {first}")
    assert first != beside == after


async def test_nothing_that_a_question_sets_is_there_for_the_next(shop_of_either: MariadbApp, login: Login) -> None:
    setting = "SET lock_wait_timeout = 77, foreign_key_checks = 0, sql_mode = 'ANSI_QUOTES', sql_select_limit = 1;"
    reading = (
        "SELECT @@lock_wait_timeout, @@foreign_key_checks, @@sql_mode, @@sql_select_limit, DATABASE(); SELECT 'é';"
    )
    alone = await query(login, reading)

    async with keeping_clients():
        await query(login, f"{setting} SET NAMES latin1;", database=shop_of_either.database)
        kept = await query(login, reading)

    assert alone[0][-1] == "NULL"
    assert kept == [[*alone[0][:-1], "information_schema"], alone[1]]


async def test_sessions_are_as_new_ones_for_each_question(
    shop_of_either: MariadbApp, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_of_either
    is_mysql = shop.server.install.client.name == "mysql"
    shop.sql(SMALL if is_mysql else SMALL + SEQUENCED)
    seen: dict[str, list[set[str]]] = {}
    ask = KeptClients.ask

    async def looking_after(
        kept: KeptClients, login: Login, command: Command, *, beginning: str, **asked: Any
    ) -> bytes:
        output = await ask(kept, login, command, beginning=beginning, **asked)
        # Behind the last semicolon but one is the question's database.
        settings = ";".join([*beginning.split(";")[:-2], " USE information_schema;"])
        told = await ask(kept, login, command, beginning=settings, **asked | {"question": b"SHOW SESSION VARIABLES;"})
        lines = told.decode(errors="surrogateescape").splitlines()
        seen.setdefault(login.user, []).append({line for line in lines if not line.startswith(PASSING)})
        return output

    with monkeypatch.context() as patch:
        patch.setattr(KeptClients, "ask", looking_after)
        record = await shop.import_((await shop.export()).content)
        await shop.recipe.undo(record, NotedProgress())

    first = {user: told[0] for user, told in seen.items()}
    assert {user: [now ^ first[user] for now in told if now != first[user]] for user, told in seen.items()} == {
        user: [] for user in seen
    }
    assert len(seen[shop.admin]) > 10
    assert all(len(variables) > 100 for variables in first.values())


async def test_a_round_trip_starts_few_clients(
    shop_of_either: MariadbApp, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_of_either
    shop.sql(SMALL)
    started = []
    start = asyncio.create_subprocess_exec

    async def noting(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(argv)
        return await start(*argv, **options)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "create_subprocess_exec", noting)
        record = await shop.import_((await shop.export()).content)
        await shop.recipe.undo(record, NotedProgress())

    assert 10 < len([argv for argv in started if str(login.client) in argv]) < 40
    assert not [argv for argv in started if shop.password in " ".join(argv)]
