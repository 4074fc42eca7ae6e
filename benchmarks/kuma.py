"""An Uptime Kuma on SQLite out, against what a person does, and what its fingerprint adds."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from agent.recipes.uptime_kuma import TAR_ZST, UptimeKumaRecipe
from benchmarks.exporting import export, make_recipe
from benchmarks.programs import require, shell
from benchmarks.rows import Row, medians, ratio_at_least, seconds_of

MEGABYTE = 1_000_000
_BEATS_OF_A_MEGABYTE = 12_000
_SCHEMA = """
CREATE TABLE monitor (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE heartbeat
  (id INTEGER PRIMARY KEY, important INT, monitor_id INT, status INT, msg TEXT, time DATETIME, ping INT);
CREATE TABLE notification (id INTEGER PRIMARY KEY); CREATE TABLE user (id INTEGER PRIMARY KEY);
CREATE TABLE setting (id INTEGER PRIMARY KEY, key TEXT, value TEXT);
CREATE TABLE knex_migrations (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO knex_migrations (name) VALUES ('2023-08-16-0000-create-uptime.js');
"""
"""As much of the app's schema as the recipe looks at; nearly all rows of a real one are heartbeats as well."""
_BEATS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO heartbeat SELECT i, 0, i % 50, 1, '200 - OK ' || hex(randomblob(10)),
       datetime('2026-01-01', '+' || i || ' seconds'), abs(random() % 900) FROM n
"""


def export_rows(folder: Path, *, size_megabytes: int, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Throughput in MB of the database a second.

    Args:
        folder: for data and archives.
    """
    require("sqlite3")
    data = folder / "kuma"
    (data / "upload").mkdir(parents=True)
    say(f"making an Uptime Kuma of {size_megabytes} MB")
    with closing(sqlite3.connect(data / "kuma.db")) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(_SCHEMA)
        database.execute(_BEATS, (size_megabytes * _BEATS_OF_A_MEGABYTE,))
    size = (data / "kuma.db").stat().st_size / MEGABYTE
    recipe = make_recipe(UptimeKumaRecipe, folder / "work", {"directory": str(data)})
    theirs = folder / "theirs"

    def by_hand() -> None:
        shutil.rmtree(theirs, ignore_errors=True)
        shutil.copytree(data / "upload", theirs / "upload")
        shell(f"sqlite3 {data}/kuma.db '.backup {theirs}/kuma.db'")
        shell(f"tar -C {theirs} -cf - . | zstd -1 -q > {folder}/theirs.tar.zst")

    path = folder / "ours.tar.zst"

    def ours_with(fingerprint: str) -> float:
        options = {"fingerprint": fingerprint}
        return seconds_of(lambda: export(recipe, path, format_name=TAR_ZST.name, options=options))

    found = medians(
        {
            "ours": lambda: ours_with("yes"),
            "without fingerprint": lambda: ours_with("no"),
            "sqlite3 .backup, tar | zstd -1": lambda: seconds_of(by_hand),
        },
        rounds=rounds,
        say=say,
    )
    shutil.rmtree(data)
    shutil.rmtree(theirs, ignore_errors=True)
    ours, without, reference = (size / seconds for seconds in found.values())
    return [
        Row("uptime-kuma export against sqlite3 .backup, tar | zstd -1", ours, "MB/s", ratio_at_least(0.8), reference),
        Row("uptime-kuma export with against without fingerprint", ours, "MB/s", ratio_at_least(0.87), without),
    ]
