"""Definitions that an export holds and no import takes: whoever exports them is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.recipes.base import Record
from common.errors import ServiceError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.mariadb_apps import PROGRAMS, MariadbApp, StartMariadb

AT_MARIADB = """
CREATE TABLE c (id int PRIMARY KEY); SET sql_mode = 'ORACLE';
DELIMITER ;;
CREATE PACKAGE pack AS PROCEDURE p; END;;
DELIMITER ;
SET sql_mode = 'ANSI_QUOTES'; CREATE PROCEDURE quoting() SELECT 1;
"""
AT_MYSQL = """
CREATE TABLE c (id int PRIMARY KEY, card varchar(20));
CREATE LIBRARY lib1 LANGUAGE JAVASCRIPT AS 'export function f(n) { return n+1 }';
CREATE JSON RELATIONAL DUALITY VIEW dv AS SELECT JSON_DUALITY_OBJECT('_id': id, 'card': card) FROM c;
"""


async def refusal_of(shop: MariadbApp, content: bytes) -> str:
    """Of an import into the database that it comes from."""
    record: Record = MemoryRecord()
    with pytest.raises(ServiceError) as refusal:
        await shop.stage(content, record)
    await shop.recipe.discard(record)
    return refusal.value.text


@pytest.mark.parametrize(
    ("name", "made", "told"),
    [
        (
            "mariadb-10.11",
            AT_MARIADB,
            ["package pack is of a kind", "procedure quoting was made under the sql_mode ANSI"],
        ),
        pytest.param(
            "mysql-9.7", AT_MYSQL, ["view dv is of a kind", "library lib1 is of a kind"], marks=pytest.mark.variant
        ),
    ],
)
async def test_what_no_import_takes_is_named_by_the_export(
    name: str, made: str, told: list[str], start_mariadb: StartMariadb, tmp_path: Path
) -> None:
    shop = MariadbApp(start_mariadb(name), tmp_path / "work")
    shop.sql(made)

    exported = await shop.export("sql")

    (warning,) = exported.warnings
    assert warning.startswith("The export cannot be imported into a server as this one: The ")
    for part in told:
        assert part in warning
    assert await refusal_of(MariadbApp(shop.server, tmp_path / "other"), exported.content)


async def test_what_an_import_takes_is_no_news(shop: MariadbApp) -> None:
    shop.sql(PROGRAMS)

    assert (await shop.export("sql")).warnings == []
