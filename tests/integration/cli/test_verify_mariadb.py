"""`mathison verify` on exports of a MariaDB database: proven by loading them into a server that is thrown away."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from agent.engines.replay.__main__ import replay
from agent.engines.replay.request import Request
from common.errors import ArchiveIncompatibleError
from tests.fixtures.mariadb_apps import ODD_VALUES, PROGRAMS, RICH, SEQUENCED, MariadbApp
from tests.fixtures.variants import variants
from tests.integration.cli.test_verify import verify
from tools.servers.mysql import MysqlServer, mysql


async def test_an_export_with_all_it_may_hold_is_proven_and_a_lost_trigger_is_named(
    shop: MariadbApp, tmp_path: Path
) -> None:
    shop.sql(RICH + PROGRAMS + SEQUENCED.replace("log", "notes"))
    exported = await shop.export("sql")
    good, lost = tmp_path / "good.sql.gz", tmp_path / "lost.sql"
    good.write_bytes(gzip.compress(exported.content))
    shop.sql("DROP TRIGGER audit")
    lost.write_bytes((await shop.export("sql")).content)
    told = tmp_path / "told.json"
    assert exported.fingerprint is not None
    told.write_bytes(exported.fingerprint.to_json())
    programs = shop.server.install.bin_directory

    proven = verify(good, mariadb_programs=programs, is_forked=False)
    differing = verify(lost, mariadb_programs=programs, told=told)

    assert (proven[0], proven[1].get("differences"), proven[1].get("engine")) == (0, [], "MariaDB 10.11"), proven
    assert differing[0] == 10, differing
    assert re.fullmatch(r"\['trigger audit: [^']*'\]", str(differing[1]["differences"])), differing


async def test_without_the_programs_of_a_server_an_export_cannot_be_verified_and_it_is_said_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engines.mariadb.own.mariadb._SHARES", ())
    request = Request(file=str(tmp_path / "never read"), scheme="mariadb/3", engine_version="10.11.14-MariaDB")

    with pytest.raises(ArchiveIncompatibleError, match=r"mariadbd .*, mariadb, mariadb-dump") as refusal:
        await replay(request)

    assert "mariadb-server-core" in refusal.value.next_step
    assert "MATHISON_MARIADB_BIN" in refusal.value.next_step


@variants("name", ["mysql-9.7", "mysql-8.0"])
@pytest.mark.variant
async def test_an_export_of_mysql_is_proven_by_one_and_a_lost_trigger_is_named(name: str, tmp_path: Path) -> None:
    with MysqlServer(mysql(name)) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql(
            PROGRAMS + "CREATE TABLE made (id int PRIMARY KEY, g int AS (id * 2) STORED, j json,"
            """ KEY ((cast(j->>'$.a' AS char(9))))); INSERT INTO made (id, j) VALUES (1, '{"a": "É"}'), (2, NULL);"""
        )
        exported = await shop.export("sql")
        shop.sql("DROP TRIGGER audit")
        lost = await shop.export("sql")
        programs = server.install.bin_directory
    good, other, told = tmp_path / "good.sql.gz", tmp_path / "lost.sql", tmp_path / "told.json"
    good.write_bytes(gzip.compress(exported.content))
    other.write_bytes(lost.content)
    assert exported.fingerprint is not None
    told.write_bytes(exported.fingerprint.to_json())

    proven = verify(good, mariadb_programs=programs)
    differing = verify(other, mariadb_programs=programs, told=told)

    assert (proven[0], proven[1].get("differences")) == (0, []), proven
    assert proven[1].get("engine") == name.replace("mysql-", "MySQL "), proven
    assert differing[0] == 10, differing
    assert re.fullmatch(r"\['trigger audit: [^']*'\]", str(differing[1]["differences"])), differing


async def test_an_export_of_mysql_is_not_replayed_into_mariadb(
    shop: MariadbApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATHISON_MARIADB_BIN", str(shop.server.install.bin_directory))
    monkeypatch.setattr("agent.engines.mariadb.own.mysql._SHARES", ())
    request = Request(file=str(tmp_path / "never read"), scheme="mariadb/3", engine_version="9.7.4")

    with pytest.raises(ArchiveIncompatibleError, match=r"MySQL .*mysqld, mysql, mysqldump") as refusal:
        await replay(request)

    assert "MATHISON_MARIADB_BIN" in refusal.value.next_step


async def test_an_export_of_tables_with_periods_and_unseen_columns_is_proven_and_its_rows_are_counted(
    shop: MariadbApp, tmp_path: Path
) -> None:
    shop.sql(
        ODD_VALUES + "CREATE TABLE unseen (id int PRIMARY KEY, path varchar(99), note text, n int INVISIBLE DEFAULT 7);"
        " INSERT INTO unseen (id, path, note) SELECT seq, IF(seq % 2, 'C:\\\\dir', '),('), REPEAT('x', 99)"
        " FROM seq_1_to_30000;"
    )
    exported = await shop.export("sql")
    file = tmp_path / "export.sql"
    file.write_bytes(exported.content)

    proven = verify(file, mariadb_programs=shop.server.install.bin_directory)

    assert (proven[0], proven[1].get("differences")) == (0, []), proven
    assert exported.counts["rows"] == 50_008
    assert exported.fingerprint is not None
    assert exported.fingerprint.parts["table unseen"].startswith("30000 rows, ")
    # However the dump is cut into pieces.
    assert (await shop.fingerprint()).differences(exported.fingerprint) == []
