"""Rows that are longer in a dump than the server takes in one statement."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.mariadb_apps import MariadbApp
from tests.integration.cli.test_verify import verify
from tools.servers import MariadbServer, mariadb


async def test_a_row_too_long_for_the_server_is_told_by_its_export_and_refused_by_an_import_and_proven_by_verify(
    shop: MariadbApp, tmp_path: Path
) -> None:
    shop.sql(
        "CREATE TABLE `large``one` (id int PRIMARY KEY, b longblob);"
        "INSERT INTO `large``one` VALUES (1, repeat('a', 9 << 20)), (2, 'b');"
    )
    exported = await shop.export("sql")
    file = tmp_path / "shop.sql"
    file.write_bytes(exported.content)
    record = MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError) as refusal:
        await shop.stage(exported.content, record)
    await shop.recipe.discard(record)
    verified = verify(file, mariadb_programs=shop.server.install.bin_directory)

    assert exported.warnings == [
        "A row of large`one is 18.0 MiB long in the export, and this server takes 16.0 MiB at once. Before an import: "
        "Set max_allowed_packet of the server to 20M or more, in its settings and by SET GLOBAL."
    ]
    assert "a statement of 18.0 MiB is longer than this server takes: its max_allowed_packet is 16.0 MiB" in (
        refusal.value.text
    )
    assert refusal.value.next_step.startswith("Set max_allowed_packet of the server to 20M or more")
    assert shop.sql("SELECT COUNT(*) FROM `large``one`") == "2"
    assert shop.leftovers(record) == []
    assert (verified[0], verified[1]["differences"]) == (0, []), verified


async def test_a_row_of_30_mib_comes_out_of_a_server_that_takes_it(tmp_path: Path) -> None:
    with MariadbServer(mariadb(), settings={"max-allowed-packet": "64M"}) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql(
            "CREATE TABLE large (id int PRIMARY KEY, b longblob); INSERT INTO large VALUES (1, repeat('a', 30 << 20))"
        )

        exported = await shop.export("sql")

    assert b"61" * (30 << 20) in exported.content
    assert exported.warnings == []
