"""The command line: `python -m benchmarks [--quick] [--rounds N] [--only PART]`, which `make bench` calls."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks import kuma as kuma_benchmark
from benchmarks import mariadb as mariadb_benchmark
from benchmarks import minio as minio_benchmark
from benchmarks import volume as volume_benchmark
from benchmarks.database import DatabaseBenchmark
from benchmarks.fake_agent import RelayedApp
from benchmarks.memory import memory_rows, pids, resident
from benchmarks.programs import BenchmarkError, require
from benchmarks.redis import RedisBenchmark
from benchmarks.relay import first_byte_row, relay_rows
from benchmarks.report import print_table, write_json
from benchmarks.rows import Row
from tools.demo import database_content, volume_content
from tools.deployment import CacheApp, DatabaseApp, Deployment, DeploymentError, VolumeApp
from tools.deployment.memory import PeakMemory
from tools.servers import ServerStartError, ServerUnavailableError

BUILD = Path(__file__).resolve().parents[1] / "build"
MAJOR = 18
PARTS = ("database", "volume", "relay", "minio", "mariadb", "kuma", "redis")
SERVER_SETTINGS = {
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
}
"""As a server with this much data has them; ours and theirs load into the same."""
CACHE = "redis-7.0"
"""With jemalloc, as servers have as a rule. The Valkey for tests has libc's malloc, which stalls after freeing much."""
ROUNDS = 3
WIDTH = 130


@dataclass(frozen=True)
class Sizes:
    """How much is moved."""

    database_megabytes: int
    volume_megabytes: int
    relay_bytes: int
    objects: int
    large_objects: int
    mariadb_megabytes: int
    kuma_megabytes: int
    redis_keys: int


FULL = Sizes(
    database_megabytes=1500,
    volume_megabytes=2000,
    relay_bytes=4 << 30,
    objects=20_000,
    large_objects=20,
    mariadb_megabytes=300,
    kuma_megabytes=300,
    redis_keys=5_000_000,
)
QUICK = Sizes(
    database_megabytes=30,
    volume_megabytes=50,
    relay_bytes=128 << 20,
    objects=500,
    large_objects=1,
    mariadb_megabytes=10,
    kuma_megabytes=10,
    redis_keys=100_000,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: all was measured, whether targets were met or not; 1: not all, and what was is shown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: only shows that it works")
    parser.add_argument("--rounds", type=int, help=f"of each measurement; {ROUNDS}, or 1 with --quick")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given more than once")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    # Wide enough for a row on one line, also where the output is no terminal.
    console.width = max(console.width, WIDTH)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = BUILD / "bench-state"
    shutil.rmtree(state, ignore_errors=True)
    rows: list[Row] = []
    failed = ""
    try:
        require("bash", "curl", "gzip", "tar", "zstd")
        _measure(
            rows,
            console,
            state,
            sizes=QUICK if options.quick else FULL,
            rounds=options.rounds or (1 if options.quick else ROUNDS),
            parts=options.only or PARTS,
        )
    except (BenchmarkError, DeploymentError, ServerStartError, ServerUnavailableError) as failure:
        failed = f"The benchmarks failed: {failure}\nLogs are in {state}."
    else:
        shutil.rmtree(state, ignore_errors=True)
    write_json(BUILD / "bench.json", rows)
    print_table(console, rows)
    if failed:
        console.print(failed, style="red", markup=False)
    return 1 if failed else 0


def _measure(
    rows: list[Row], console: Console, state: Path, *, sizes: Sizes, rounds: int, parts: Sequence[str]
) -> None:
    """Add a row for each thing that could be measured."""
    began_at = time.monotonic()

    def say(sentence: str) -> None:
        console.print(f"{time.monotonic() - began_at:7.1f} s  {sentence}", markup=False)

    database = DatabaseApp("bench.db", major=MAJOR, server_settings=SERVER_SETTINGS, fsync=True)
    volume = VolumeApp("bench.files", runs=False)
    cache = CacheApp("bench.cache", release=CACHE)
    relayed = RelayedApp("bench.relay", size_bytes=sizes.relay_bytes)
    archives = state / "archives"
    with Deployment(state / "run", [database, volume, cache, relayed], say=say) as deployment:
        idle_bytes = resident(deployment)
        archives.mkdir()
        children_bytes: dict[str, int] = {}
        if "relay" in parts:
            rows += relay_rows(deployment, relayed, archives, rounds=rounds, say=say)
        if "volume" in parts:
            say(f"making a volume of {sizes.volume_megabytes} MB")
            volume_content.fill_incompressible(volume.directory, size_megabytes=sizes.volume_megabytes)
            rows += volume_benchmark.export_rows(deployment, volume, archives, rounds=rounds, say=say)
            rows.append(first_byte_row(deployment, volume.app_id, "volume"))
        if "minio" in parts:
            rows += minio_benchmark.export_rows(
                archives, objects=sizes.objects, large_objects=sizes.large_objects, rounds=rounds, say=say
            )
        if "mariadb" in parts:
            rows += mariadb_benchmark.export_rows(
                archives, size_megabytes=sizes.mariadb_megabytes, rounds=rounds, say=say
            )
        if "kuma" in parts:
            rows += kuma_benchmark.export_rows(archives, size_megabytes=sizes.kuma_megabytes, rounds=rounds, say=say)
        if "redis" in parts:
            say(f"making a Redis of {sizes.redis_keys} keys")
            of_cache = RedisBenchmark(deployment, cache, archives, keys=sizes.redis_keys)
            of_cache.fill()
            rows += of_cache.export_rows(rounds=rounds, say=say)
            rows += of_cache.import_rows(rounds=rounds, say=say)
        if "database" in parts:
            say(f"making a database of {sizes.database_megabytes} MB")
            database_content.load(database.dsn, size_megabytes=sizes.database_megabytes)
            benchmark = DatabaseBenchmark(deployment, database, archives)
            rows += benchmark.export_rows(rounds=rounds, say=say)
            rows += benchmark.import_rows(rounds=rounds, say=say)
            rows.append(first_byte_row(deployment, database.app_id, "database"))
            say("watching the memory of an export and an import")
            with PeakMemory(pids(deployment)) as memory:
                benchmark.export("sql.gz", "ours.sql.gz")
                benchmark.import_("ours.sql.gz")
                benchmark.import_("ours.custom")
            children_bytes = {name: peak for name, peak in memory.peaks_bytes.items() if ": " in name}
        rows += memory_rows(deployment, idle_bytes, children_bytes)


if __name__ == "__main__":
    sys.exit(main())
