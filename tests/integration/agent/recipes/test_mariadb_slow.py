"""MariaDB: uploads and readers that stall for longer than the server waits for anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from agent.engines.mariadb.names import loader
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
