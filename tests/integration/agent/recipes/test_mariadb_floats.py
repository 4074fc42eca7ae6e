"""FLOAT columns, which a dump writes with six digits: what does not come back is told wherever an export is met."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.mariadb.exports import lost_values
from tests.fakes.imports import MemoryRecord
from tests.fixtures.mariadb_apps import MariadbApp
from tests.integration.cli.test_verify import verify

ROUNDED = """
CREATE TABLE measured (id int PRIMARY KEY, a float, b float unsigned, exact float(20,2), d double);
INSERT INTO measured VALUES (1, 123456789, 1.5, 123456.78, 123456789), (2, 0.1, 16777216, 0.1, 0.1),
  (3, 0.3333333333333333, NULL, 1, 1e-300);
CREATE TABLE kept (a float); INSERT INTO kept VALUES (0.25), (3e38), (-1.5), (NULL);
CREATE VIEW seen AS SELECT a FROM measured;
"""
TOLD = "measured.a (2 rows), measured.b (1 row)"


async def test_an_export_names_the_float_columns_that_it_rounds_and_so_do_its_verification_and_its_import(
    shop: MariadbApp, tmp_path: Path
) -> None:
    shop.sql(ROUNDED)
    exported = await shop.export("sql")
    file = tmp_path / "shop.sql"
    file.write_bytes(exported.content)

    verified = verify(file, mariadb_programs=shop.server.install.bin_directory)
    record = MemoryRecord()
    preview = await shop.stage(exported.content, record)
    await shop.recipe.discard(record)

    (warning,) = exported.warnings
    assert warning.startswith(f"mariadb-dump rounds FLOAT values with more than six digits: {TOLD}. ")
    assert "DOUBLE" in warning
    assert exported.header.details["rounded_floats"] == TOLD
    assert b'"rounded_floats":"' + TOLD.encode() in exported.content[:2000]
    told = f"FLOAT values with more than six digits, which the export holds rounded: {TOLD}."
    assert (verified[0], verified[1]["differences"], verified[1]["unproven"]) == (0, [], told), verified
    assert preview.warnings == (told,)


async def test_floats_that_six_digits_tell_are_no_news(shop: MariadbApp) -> None:
    shop.sql(ROUNDED + "DELETE FROM measured;")

    exported = await shop.export("sql")

    assert exported.warnings == []
    assert "rounded_floats" not in exported.header.details
    assert "rounded_floats" not in (await shop.export(history="no")).header.details


async def test_an_export_has_no_fingerprint_when_generated_columns_come_of_rounded_floats(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE m (id int, a float, twice double AS (a * 2) STORED); INSERT INTO m (id, a) VALUES (1, 0.5)")
    proven = await shop.export("sql")
    shop.sql("INSERT INTO m (id, a) VALUES (2, 16777216)")

    exported = await shop.export("sql")

    assert proven.fingerprint is not None
    assert proven.warnings == []
    assert exported.fingerprint is None
    assert exported.counts["rows"] == 2
    assert exported.warnings[1].startswith("The export has no fingerprint: generated columns in m "), exported.warnings


async def test_what_there_is_no_time_to_look_at_is_said_to_be_perhaps_rounded(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql(ROUNDED)
    monkeypatch.setattr(lost_values, "_TOGETHER_SECONDS", 0)
    monkeypatch.setattr(lost_values, "_SECONDS", 0)

    exported = await shop.export("sql")

    assert exported.warnings[0].startswith("mariadb-dump may round FLOAT values")
    assert exported.header.details["rounded_floats"].startswith("kept.a (not counted), measured.a (not counted), ")


async def test_earlier_rows_are_looked_at_when_they_are_exported(shop: MariadbApp) -> None:
    shop.sql(
        "CREATE TABLE v (id int PRIMARY KEY, a float) WITH SYSTEM VERSIONING; INSERT INTO v VALUES (1, 16777216);"
        "UPDATE v SET a = 1;"
    )

    assert "rounded_floats" not in (await shop.export("sql")).header.details
    assert (await shop.export("sql", history="yes")).header.details["rounded_floats"] == "v.a (1 row)"
