"""MariaDB: uploads and readers that stall for longer than the server waits for anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engines.mariadb.names import loader
from agent.recipes.base import ExportOptions
from agent.recipes.mariadb import SQL
from common.errors import AppUnavailableError
from tests.fakes.imports import MemoryRecord, NotedProgress, upload_of
from tests.fixtures.mariadb_apps import MariadbApp
from tests.fixtures.waiting import until
from tools.servers import MariadbServer, mariadb

BEGINNING = b"-- MariaDB dump 10.19\n--" + b" " * 900 + b"\n\nCREATE TABLE `t` (`v` int);\nINSERT INTO `t` VALUES (1);"
END = b"\n-- Dump completed on 2026-11-29  8:35:57\n"


async def test_a_server_that_ends_idle_sessions_soon_waits_for_the_rest_of_an_upload(tmp_path: Path) -> None:
    with MariadbServer(mariadb(), settings={"wait-timeout": "1", "interactive-timeout": "1"}) as server:
        shop, record = MariadbApp(server, tmp_path / "work"), MemoryRecord()
        idle = f"SELECT MAX(TIME) FROM information_schema.PROCESSLIST WHERE USER = '{loader(record.key)}'"

        async def stalling() -> AsyncIterator[bytes]:
            yield BEGINNING
            await until(lambda: server.sql(idle) != "NULL")
            # Its session has been ended, or has waited for longer than the server's own setting says.
            await until(lambda: server.sql(idle) not in ("0", "1"))
            yield END

        preview = await shop.recipe.stage(replace(upload_of(b""), chunks=stalling()), record, NotedProgress())

        assert preview.counts_after["rows"] == 1
        await shop.recipe.discard(record)


async def test_an_export_whose_reader_stalls_for_longer_than_the_server_waits_says_so(tmp_path: Path) -> None:
    with MariadbServer(mariadb(), settings={"net-write-timeout": "1"}) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql("CREATE TABLE t (i int PRIMARY KEY, t longtext); INSERT INTO t SELECT seq, repeat('x', 30000)"
                 " FROM seq_1_to_2000")  # fmt: skip
        at_work = f"SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{shop.user}'"
        options = ExportOptions(format=SQL, app_id="shop.db", file_name="shop.sql", options={})

        async def read_slowly() -> None:
            async with shop.recipe.export_data(options, NotedProgress()) as export:
                async for _ in export.chunks:
                    await until(lambda: server.sql(at_work) == "0")

        with pytest.raises(AppUnavailableError) as ended:
            await read_slowly()

        assert " ended the export, since nothing of it was taken for" in ended.value.text
        assert "net_write_timeout" in ended.value.next_step
        assert "gtid" not in ended.value.text
