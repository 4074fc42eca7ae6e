"""Definitions made under other character sets than UTF-8, and with bytes that are no text of theirs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.engines.mariadb.imports.switching import Switch
from agent.engines.mariadb.server import charsets, programs
from agent.recipes.base import Recovered
from common.errors import AppUnavailableError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp, StartMariadb
from tests.fixtures.variants import variants

pytestmark = variants("name", ["mariadb-10.11", "mariadb-11.8", "mysql-8.0", "mysql-9.7"])
TABLES = b"CREATE TABLE `orders` (`a` int, `b` text);\nCREATE TABLE `log` (`b` text);\n"
OTHERS = b"-- MySQL dump\n\n" + TABLES + b"\n-- Dump completed on 2026-11-23  8:35:57\n"
"""A file without definitions."""
ALL_BYTES = bytes(byte for byte in range(128, 256))
VALUES = b"SELECT f(), (SELECT GROUP_CONCAT(x, y) FROM v); INSERT INTO orders VALUES (1, ''); SELECT b FROM orders;"


@pytest.fixture
def shop(name: str, start_mariadb: StartMariadb, tmp_path: Path) -> MariadbApp:
    """An app with a database that has nothing in it."""
    return MariadbApp(start_mariadb(name), tmp_path / "work")


def sql(shop: MariadbApp, text: bytes) -> bytes:
    """Run SQL as the app, in bytes."""
    server = shop.server
    argv = [
        *(str(server.install.client), "--no-defaults", "--protocol=tcp", f"--host={server.host}"),
        *(f"--port={server.port}", f"--user={shop.user}", "--binary-mode", "--batch", "--skip-column-names"),
        *("--default-character-set=utf8mb4", *server.client_options, shop.database),
    ]
    environment = {"MYSQL_PWD": shop.password, "PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, env=environment, input=text, capture_output=True, check=True).stdout


def made_with(odd: bytes, charset: str) -> bytes:
    """One of each kind, with bytes in a string of the session's character set and in one that says its own."""
    text = b"""
SET NAMES %b;
DELIMITER ;;
CREATE FUNCTION f() RETURNS text DETERMINISTIC RETURN CONCAT(HEX('%b'), HEX(_binary'%b'), HEX(_latin1'%b'));;
CREATE PROCEDURE p() SELECT '%b', HEX(_binary'%b');;
CREATE TRIGGER g BEFORE INSERT ON orders FOR EACH ROW SET NEW.b = CONCAT(HEX('%b'), HEX(_binary'%b'));;
CREATE VIEW v AS SELECT HEX('%b') AS x, HEX(_binary'%b') AS y;;
CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO INSERT INTO log VALUES (HEX(_binary'%b'));;
DELIMITER ;
"""
    text = text.replace(b"SET NAMES %b", b"SET NAMES " + charset.encode())
    return text.replace(b"%b", odd)


async def programs_of(shop: MariadbApp) -> list[programs.Program]:
    return await programs.read(shop.recipe._settings.app_login(), shop.database)


def kept_of(shop: MariadbApp) -> bytes:
    """What the server keeps of all of them, without who owns them and when triggers were made."""
    shown = b"SET NAMES utf8mb4; SET character_set_results = binary; SHOW CREATE FUNCTION f; SHOW CREATE PROCEDURE p;"
    shown += b" SHOW CREATE VIEW v; SHOW CREATE EVENT e; SHOW CREATE TRIGGER g;"
    return sql(shop, shown).replace(shop.user.encode(), b"user").rpartition(b"\t")[0]


ODD = {
    "latin1, each of its bytes": (ALL_BYTES, "latin1"),
    "UTF-8 told as latin1": ("Árvíztűrő “ÝÏÐ”".encode(), "latin1"),
    "bytes that are no UTF-8": (b"\xff\xfe\xe9", "utf8mb4"),
    "the replacement character": ("\ufffd".encode(), "utf8mb4"),
    "bytes that are no ASCII": (b"\xc3\xa9\x80", "ascii"),
}


@variants("kind", ODD, kept=["latin1, each of its bytes", "bytes that are no UTF-8"])
async def test_each_byte_of_a_definition_comes_through_an_import_and_an_undo(
    kind: str, shop: MariadbApp, name: str, start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    other = MariadbApp(start_mariadb(name), tmp_path / "other")
    sql(shop, TABLES + made_with(*ODD[kind]))
    before, exported, kept = await shop.fingerprint(), await shop.export("sql"), kept_of(shop)
    values = sql(shop, VALUES)
    described = await shop.recipe.describe()

    record = await shop.import_(OTHERS)
    await shop.recipe.undo(record, NotedProgress())
    undone = kept_of(shop), sql(shop, b"DELETE FROM orders;" + VALUES)
    record = await other.import_(exported.content)
    imported = kept_of(other), sql(other, VALUES)

    assert described.can_import.obstacle == ""
    assert undone == imported == (kept, values)
    sql(other, b"DELETE FROM orders;")
    assert await other.fingerprint() == before == exported.fingerprint
    assert await other.recipe.recover(record) is Recovered.IMPORTED


async def test_what_differs_in_bytes_that_are_no_text_has_another_fingerprint(shop: MariadbApp) -> None:
    found = set()
    for odd in (b"\xff", b"\xfe", b"\xff\xfe", "\ufffd".encode(), b"?"):
        sql(shop, b"DROP FUNCTION IF EXISTS f; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN _binary'%b';" % odd)
        found.add((await shop.fingerprint()).parts["function f"])

    assert len(found) == 5


async def test_latin1_is_the_one_of_the_server(shop: MariadbApp) -> None:
    asked = "".join(f"SELECT HEX(CONVERT(CONVERT(0x{byte:02x} USING latin1) USING utf8mb4));" for byte in range(256))

    told = shop.sql(asked).split()

    assert [charsets.text_of(bytes([byte]), "latin1").encode().hex().upper() for byte in range(256)] == told
    assert all(charsets.bytes_of(charsets.text_of(bytes([byte]), "latin1"), "latin1")[0] == byte for byte in range(256))


MIXED = {
    "comment": b"CREATE FUNCTION f() RETURNS int DETERMINISTIC COMMENT '\xe9' RETURN 1;",
    "value": b"CREATE FUNCTION f() RETURNS enum('\xe9') DETERMINISTIC RETURN 1;",
    "event": b"CREATE EVENT `\xe9` ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO INSERT INTO log VALUES (1);",
}


@variants("kind", MIXED, every=4)
async def test_what_a_server_does_not_say_in_the_character_set_that_it_was_made_under_is_an_obstacle(
    kind: str, shop: MariadbApp
) -> None:
    sql(shop, TABLES + b"SET NAMES latin1;" + MIXED[kind])

    described = await shop.recipe.describe()

    assert (
        "was made under the character set latin1, in which the server does not say all" in described.can_import.obstacle
    )
    with pytest.raises(AppUnavailableError, match="make it again after SET NAMES utf8mb4"):
        await shop.stage(OTHERS, MemoryRecord())


async def test_a_name_of_a_routine_that_came_through_another_character_set_is_no_other_afterwards(
    name: str, shop: MariadbApp
) -> None:
    sql(shop, TABLES + b"SET NAMES latin1; CREATE PROCEDURE `\xe9`() SELECT 1;")
    before = await shop.fingerprint()

    if name.startswith("mysql"):
        with pytest.raises(AppUnavailableError, match="procedure é was made under the character set latin1"):
            await shop.stage(OTHERS, MemoryRecord())
    else:
        await shop.recipe.undo(await shop.import_(OTHERS), NotedProgress())

    assert (await shop.fingerprint()).differences(before) == []


async def test_a_file_with_a_definition_that_the_server_does_not_say_whole_is_refused(shop: MariadbApp) -> None:
    record = MemoryRecord()
    content = OTHERS.replace(b"\n-- Dump", b"SET NAMES latin1;\n" + MIXED["comment"] + b"\n\n-- Dump")

    with pytest.raises(ArchiveIncompatibleError, match="function f was made under the character set latin1"):
        await shop.stage(content, record)
    await shop.recipe.discard(record)

    assert shop.leftovers(record) == []


async def test_a_fault_of_ours_in_the_middle_of_an_exchange_is_taken_back(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(shop, TABLES + made_with(b"x", "utf8mb4"))
    before, record = await shop.fingerprint(), MemoryRecord()
    await shop.stage(OTHERS, record)
    settle, faults = Switch._settle, [UnicodeEncodeError("latin1", "x", 0, 1, "a fault")]

    async def failing(*arguments: object) -> None:
        if faults:
            raise faults.pop()
        await settle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Switch, "_settle", failing)
    with pytest.raises(UnicodeEncodeError):
        await shop.recipe.restore(record, NotedProgress())

    assert (await shop.fingerprint()).differences(before) == []
    assert await shop.recipe.recover(record) is Recovered.PREVIOUS
    await shop.recipe.discard(record)
    assert shop.leftovers(record) == []
