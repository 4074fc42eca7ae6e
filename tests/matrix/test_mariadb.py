"""MariaDB releases, each into each: what the older has no words for is refused by name."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from common.errors import ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import ODD_VALUES, PROGRAMS, RICH, MariadbApp, StartMariadb
from tests.matrix.cells import Cell, Note
from tools.servers import MARIADB_NAMES
from tools.servers.mysql import MYSQL_NAMES

TITLE = "MariaDB and MySQL"
PLAIN = """
CREATE TABLE parent (id int PRIMARY KEY, n decimal(40,20), d datetime(6), e enum('a','it''s'), f double, x text,
  b longblob, j json);
INSERT INTO parent (id, n, d, e, f, x, b, j) VALUES (1, 1.5, '2026-11-23 08:30:46.366001', 'it''s', -0.5,
  'grün (東京), ''🐻'' \\\\ \n', x'00FF27225C0A0D1A', '[]'), (2, NULL, NULL, NULL, NULL, '', NULL, NULL);
CREATE TABLE child (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent(id)); INSERT INTO child VALUES (1, 2);
"""
"""What both have words for."""
GENERATED = """
CREATE TABLE made (id int PRIMARY KEY, n varchar(20), s varchar(20) AS (lower(n)) STORED, v int AS (id + 1) VIRTUAL,
  KEY (v)) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_general_ci;
INSERT INTO made (id, n) VALUES (1, 'ABC'), (2, NULL);
"""
"""In MariaDB's dumps are values of these columns, in MySQL's none, so their fingerprints are others."""
REFUSED = {pair for name in MYSQL_NAMES for pair in ((name, "mariadb-10.11"), ("mariadb-11.8", name))}
"""From, into: the target has not the collation that is the other's default."""


def of_others(mine: str) -> list[tuple[str, str]]:
    """Out of each other and into each."""
    return [pair for other in MARIADB_NAMES for pair in ((mine, other), (other, mine))]


@pytest.mark.parametrize("target_name", MARIADB_NAMES)
@pytest.mark.parametrize("source_name", MARIADB_NAMES)
async def test_content_is_equal_in_every_other_version(
    source_name: str, target_name: str, start_mariadb: StartMariadb, tmp_path: Path, note: Note
) -> None:
    source = MariadbApp(start_mariadb(source_name), tmp_path / "source")
    target = MariadbApp(start_mariadb(target_name), tmp_path / "target")
    source.sql(RICH + PROGRAMS)

    record = await target.import_((await source.export()).content)

    assert (await source.fingerprint()).differences(await target.fingerprint()) == []
    assert {"view a", "trigger audit", "function old", "event daily"} <= (await target.fingerprint()).parts.keys()
    assert target.sql("SELECT x FROM calls") == "2"
    await target.recipe.discard(record)
    assert target.leftovers(record) == []
    note(Cell(TITLE, source_name, target_name, "equal"))


@pytest.mark.parametrize(
    ("source_name", "target_name"),
    [*product(MYSQL_NAMES, repeat=2), *(pair for mine in MYSQL_NAMES for pair in of_others(mine))],
)
async def test_data_goes_between_mysql_and_mariadb_where_collations_permit_and_programs_between_mysql(
    source_name: str, target_name: str, start_mariadb: StartMariadb, tmp_path: Path, note: Note
) -> None:
    source = MariadbApp(start_mariadb(source_name), tmp_path / "source")
    target = MariadbApp(start_mariadb(target_name), tmp_path / "target")
    of_mysql = {source_name, target_name} <= set(MYSQL_NAMES)
    source.sql(PLAIN + (PROGRAMS if of_mysql else ""))
    target.sql("CREATE TABLE own (a int); INSERT INTO own VALUES (1); CREATE VIEW a AS SELECT a FROM own")
    before, exported, record = await target.fingerprint(), await source.export(), MemoryRecord()
    outcome = "equal"

    if (source_name, target_name) in REFUSED:
        with pytest.raises(ArchiveIncompatibleError, match="collation") as refusal:
            await target.stage(exported.content, record)
        outcome = refusal.value.reason
    else:
        await target.stage(exported.content, record)
        await target.recipe.restore(record, NotedProgress())
        imported = await target.fingerprint()
        assert (await source.fingerprint()).differences(imported) == []
        assert ({"view a", "trigger audit", "function old", "event daily"} <= imported.parts.keys()) is of_mysql
        await target.recipe.undo(record, NotedProgress())

    await target.recipe.discard(record)
    assert before.differences(await target.fingerprint()) == []
    note(Cell(TITLE, source_name, target_name, outcome))


@pytest.mark.parametrize(
    ("source_name", "target_name"),
    [
        ("mariadb-10.11", "mysql-8.0"),
        ("mariadb-11.8", "mysql-9.7"),
        ("mysql-8.0", "mariadb-10.11"),
        ("mysql-9.7", "mariadb-11.8"),
    ],
)
async def test_generated_columns_go_between_mysql_and_mariadb(
    source_name: str, target_name: str, start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    source = MariadbApp(start_mariadb(source_name), tmp_path / "source")
    target = MariadbApp(start_mariadb(target_name), tmp_path / "target")
    source.sql(GENERATED)

    record = await target.import_((await source.export()).content)

    assert target.sql("SELECT * FROM made") == "1\tABC\tabc\t2\n2\tNULL\tNULL\t3"
    await target.recipe.discard(record)


async def test_what_only_the_newer_knows_is_refused_by_the_older_before_anything_changed(
    start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    source = MariadbApp(start_mariadb("mariadb-11.8"), tmp_path / "source")
    target = MariadbApp(start_mariadb("mariadb-10.11"), tmp_path / "target")
    source.sql("CREATE TABLE x (v VECTOR(3) NOT NULL)")
    target.sql("CREATE TABLE own (a int); INSERT INTO own VALUES (1)")
    before, record = await target.fingerprint(), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="vector"):
        await target.stage((await source.export()).content, record)
    await target.recipe.discard(record)

    assert before.differences(await target.fingerprint()) == []
    assert target.leftovers(record) == []


@pytest.mark.parametrize("name", MARIADB_NAMES)
async def test_what_no_strict_server_would_take_is_equal_in_the_same_version(
    name: str, start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    source = MariadbApp(start_mariadb(name), tmp_path / "source")
    target = MariadbApp(start_mariadb(name), tmp_path / "target")
    source.sql(ODD_VALUES)
    checksums = "CHECKSUM TABLE odd EXTENDED; CHECKSUM TABLE `enum``s` EXTENDED; CHECKSUM TABLE loose EXTENDED"

    record = await target.import_((await source.export()).content)

    expected = source.sql(checksums).replace(source.database, target.database)
    assert target.sql(checksums) == expected
    await target.recipe.discard(record)


async def test_a_time_that_only_the_newer_can_hold_is_refused_by_the_older_before_anything_changed(
    start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    source = MariadbApp(start_mariadb("mariadb-11.8"), tmp_path / "source")
    target = MariadbApp(start_mariadb("mariadb-10.11"), tmp_path / "target")
    source.sql(
        "CREATE TABLE licences (id int PRIMARY KEY, expires timestamp NULL) COLLATE utf8mb4_general_ci;"
        " INSERT INTO licences VALUES (1, '2037-01-01'), (2, '2050-01-01')"
    )
    target.sql("CREATE TABLE own (a int); INSERT INTO own VALUES (1)")
    before, record = await target.fingerprint(), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=r"rows of licences: .*'2050-01-01 00:00:00'.*`expires`"):
        await target.stage((await source.export()).content, record)
    await target.recipe.discard(record)

    assert before.differences(await target.fingerprint()) == []
    assert target.leftovers(record) == []
