"""MariaDB and MySQL: small files that would take much of the server's disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engines.mariadb.imports import loading
from common.errors import ArchiveIncompatibleError, LimitExceededError, NoSpaceError
from tests.fakes.imports import MemoryRecord, NotedProgress, upload_of
from tests.fixtures.mariadb_apps import PROGRAMS, MariadbApp
from tests.fixtures.small_disks import NEEDS_A_SMALL_DISK, fill, tmpfs
from tools.servers import MariadbServer, mariadb
from tools.servers.mysql import MysqlServer, mysql
from tools.servers.processes import give, server_user

OPENING = "-- MariaDB dump 10.19\n\n"
END = "-- Dump completed\n"


@pytest.fixture(scope="module")
def mysql_alone() -> Iterator[MysqlServer]:
    """Of these tests."""
    with MysqlServer(mysql()) as server:
        yield server


@pytest.fixture(params=["mariadb", pytest.param("mysql", marks=pytest.mark.variant)])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> MariadbApp:
    """One on each."""
    server = request.getfixturevalue("mariadb_server" if request.param == "mariadb" else "mysql_alone")
    return MariadbApp(server, tmp_path / "work")


async def test_what_fulltext_keys_take_beside_their_tables_counts(
    app: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "RATIO_COUNTS_FROM_BYTES", 4 << 20)
    monkeypatch.setattr(loading, "_SIZE_SECONDS", 0.05)
    columns = ", ".join(f"`c{number}` text" for number in range(20))
    keys = ", ".join(f"FULLTEXT KEY (`c{number}`)" for number in range(20))
    sent = 0

    async def upload() -> AsyncIterator[bytes]:
        nonlocal sent
        yield f"{OPENING}CREATE TABLE `t` (`id` int PRIMARY KEY, {columns}, {keys}) ENGINE=InnoDB;\n".encode()
        while sent < 1000:
            sent += 1
            yield b"-- \n"
            await asyncio.sleep(0.02)
        yield END.encode()

    record = MemoryRecord()
    with pytest.raises(LimitExceededError, match="200 times its size"):
        await app.recipe.stage(replace(upload_of(b""), chunks=upload()), record, NotedProgress())

    assert sent < 1000
    await app.recipe.discard(record)


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        (
            "`t` text, " + ", ".join(["FULLTEXT KEY (`t`)"] * 5) + ") ENGINE=InnoDB",
            LimitExceededError,
            "column t is in more than 4 FULLTEXT keys",
        ),
        (
            "`a` int, " + ", ".join(["KEY (`a`)"] * 30) + ") ENGINE=InnoDB PARTITION BY HASH (`id`) PARTITIONS 1000",
            LimitExceededError,
            "more than 30,000 keys in their partitions",
        ),
        ("`a` int) /*! AUTOEXTEND_SIZE=268435456 */ ENGINE=InnoDB", ArchiveIncompatibleError, "AUTOEXTEND_SIZE"),
    ],
    ids=["fulltext", "partitions", "autoextend"],
)
async def test_tables_that_take_room_for_nothing_are_refused_before_they_are_made(
    app: MariadbApp, table: str, error: type[Exception], words: str
) -> None:
    record = MemoryRecord()

    with pytest.raises(error, match=words):
        await app.stage(f"{OPENING}CREATE TABLE `t` (`id` int PRIMARY KEY, {table};\n{END}".encode(), record)

    await app.recipe.discard(record)


class OnADisk(MariadbServer):
    """One whose data is on a disk of its own."""

    disk = Path()

    @property
    def data_directory(self) -> Path:
        return self.disk / "data"


@NEEDS_A_SMALL_DISK
async def test_a_restore_and_an_undo_on_a_full_disk_say_so_and_change_nothing(short_path: Path) -> None:
    disk, others = short_path / "disk", short_path / "tmp"
    others.mkdir()
    give(others, server_user())
    with tmpfs(disk, "-o", "size=300m,mode=755"):
        give(disk, server_user())
        server = OnADisk(mariadb(), settings={"tmpdir": str(others)})
        server.disk = disk
        with server:
            shop = MariadbApp(server, short_path / "work")
            shop.sql(PROGRAMS)
            exported, record = (await shop.export("sql")).content, MemoryRecord()
            shop.sql("DROP TABLE log; CREATE TABLE log (t longtext); DROP PROCEDURE note")
            before, places = shop.dumped(), []
            await shop.stage(exported, record)

            for move in (shop.recipe.restore, shop.recipe.undo):
                now = await shop.fingerprint()
                fill(disk, of_files=False)
                with pytest.raises(NoSpaceError, match="has no room"):
                    await move(record, NotedProgress())
                for file in disk.glob("fill *"):
                    file.unlink()
                places.append((await shop.fingerprint()).differences(now))
                await move(record, NotedProgress())

            assert places == [[], []]
            assert shop.dumped() == before
            assert shop.leftovers(record) == []
