"""Texts with characters that the server does not lead to UTF-8, in which dumps are: what is changed is told by name."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.exports import lost_values
from tests.fakes.imports import MemoryRecord
from tests.fixtures.mariadb_apps import MariadbApp

TEXTS = """
CREATE TABLE firms (id int PRIMARY KEY, name varchar(20) CHARACTER SET sjis, kind enum('a','b') CHARACTER SET greek,
  note text CHARACTER SET euckr, `old ``one` char(3) CHARACTER SET hebrew, kept varchar(9) CHARACTER SET sjis,
  odd varchar(9) CHARACTER SET latin1);
INSERT INTO firms VALUES (1, _sjis x'878A8740', 'a', _euckr x'A2E8', _hebrew x'C0', _sjis x'955C', x'8190'),
  (2, _sjis x'8740', 'b', NULL, 'x', NULL, NULL), (3, _sjis x'835C', NULL, 'x', _hebrew x'E0', 'x', 'x');
"""
CHANGED = "firms.name (2 rows), firms.note (1 row), firms.old `one (1 row)"


async def test_an_export_names_the_texts_that_it_changes_and_so_does_its_import(shop_of_either: MariadbApp) -> None:
    shop = shop_of_either
    shop.sql(TEXTS)

    exported = await shop.export("sql")
    record = MemoryRecord()
    preview = await shop.stage(exported.content, record)
    await shop.recipe.discard(record)

    (warning,) = exported.warnings
    assert warning.startswith(
        f"mariadb-dump changes texts with characters for which the server has none in UTF-8: {CHANGED}. "
    )
    assert exported.header.details["changed_texts"] == CHANGED
    (told,) = preview.warnings
    assert told.endswith(f"which the export holds as `?` or others: {CHANGED}.")


async def test_texts_that_come_back_as_they_were_are_no_news(shop_of_either: MariadbApp) -> None:
    shop = shop_of_either
    shop.sql(TEXTS + "DELETE FROM firms WHERE id < 3")

    exported = await shop.export("sql")

    assert exported.warnings == []
    assert "changed_texts" not in exported.header.details


@pytest.mark.parametrize(
    "made",
    [
        "enum('a', x'8740') CHARACTER SET sjis",
        "enum('a', x'8740', '?') CHARACTER SET sjis",
        "char(9) CHARACTER SET sjis DEFAULT _sjis x'8740'",
    ],
)
async def test_a_list_or_default_with_such_a_character_is_told_too(made: str, shop: MariadbApp) -> None:
    shop.sql(f"CREATE TABLE t (id int PRIMARY KEY, v {made})")

    (warning,) = (await shop.export("sql")).warnings

    assert "t.v (0 rows, ? in its definition)" in warning


async def test_what_there_is_no_time_to_look_at_is_said_to_be_perhaps_changed(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql(TEXTS)
    monkeypatch.setattr(lost_values, "_TOGETHER_SECONDS", 0)
    monkeypatch.setattr(lost_values, "_SECONDS", 0)

    (warning,) = (await shop.export("sql")).warnings

    assert warning.startswith("mariadb-dump may change texts with characters for which the server has none in UTF-8: ")
    assert "firms.name (not counted)" in warning
