"""A MinIO of many small objects and some large ones out, against `rclone copy`; and what its clients meet meanwhile."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

from structlog.testing import capture_logs

from agent.engines.minio.drive.exchange import Exchange
from agent.engines.minio.portable.listing import keys_of
from agent.engines.minio.server.client import Client, connected
from agent.engines.minio.server.signing import Account
from agent.journal import Journal
from agent.recipes.base import Recipe, Upload
from agent.recipes.minio import MinioRecipe
from agent.states import Kind, TransferState
from agent.steps import Unwatched
from benchmarks.exporting import export, make_recipe, write_export
from benchmarks.minio_clients import CLIENTS, FIRST, NEW, OLD, SECOND, hammering, mark
from benchmarks.programs import shell
from benchmarks.rows import Row, less_than, medians, ratio_at_least, seconds_of
from common.headers import ArchiveHeader
from tools.servers import MinioServer, minio, rclone

SMALL_BYTES = 4096
LARGE_BYTES = 64 << 20
_AT_ONCE = 16
_PIECE_BYTES = 1 << 20


def export_rows(
    folder: Path, *, objects: int, large_objects: int, rounds: int, say: Callable[[str], None]
) -> list[Row]:
    """Objects a second, the freeze, and what eight clients see of an export and an import.

    Args:
        folder: for archives; emptied afterwards.
    """
    frozen_milliseconds: list[float] = []
    count = objects + large_objects
    with MinioServer(minio()) as server:
        say(f"making {objects} objects of 4 KiB and {large_objects} of 64 MiB in a MinIO")
        asyncio.run(_fill(server, objects, large_objects))
        recipe = _recipe(server, folder)
        copy = f"{rclone()} copy --config= --transfers={_AT_ONCE} :s3:bench {folder}/theirs"
        account = {
            "RCLONE_S3_PROVIDER": "Minio",
            "RCLONE_S3_ENDPOINT": server.url,
            "RCLONE_S3_ACCESS_KEY_ID": server.user,
            "RCLONE_S3_SECRET_ACCESS_KEY": server.password,
        }

        def ours() -> None:
            frozen_milliseconds.append(_frozen_milliseconds(export(recipe, folder / "ours.tar", format_name="tar")))

        def theirs() -> None:
            shutil.rmtree(folder / "theirs", ignore_errors=True)
            shell(copy, environment=account)

        found = medians(
            {"ours": lambda: seconds_of(ours), "rclone copy": lambda: seconds_of(theirs)}, rounds=rounds, say=say
        )
        shutil.rmtree(folder / "theirs", ignore_errors=True)
        say(f"an export and an import under {CLIENTS} clients that never rest")
        rows_under_load = asyncio.run(_under_load(_account(server), recipe, folder))
    frozen = statistics.median(frozen_milliseconds)
    our_rate, their_rate = (count / seconds for seconds in found.values())
    return [
        Row("minio export against rclone copy", our_rate, "objects/s", ratio_at_least(1), their_rate),
        Row("minio frozen for an export, each object", frozen * 1000 / count, "µs", less_than(50)),
        Row(f"minio frozen for an export, {count} objects", frozen, "ms", less_than(1000)),
        *rows_under_load,
    ]


async def _under_load(account: Account, recipe: Recipe, folder: Path) -> list[Row]:
    """The freezes under clients, and whether any of them was told something that is not true."""
    archive = folder / "ours.tar"
    exchanged_at = 0.0
    bring = Exchange.bring

    @wraps(bring)
    def noted(*arguments: Any, **named: Any) -> int:
        nonlocal exchanged_at
        entries = bring(*arguments, **named)
        exchanged_at = time.monotonic()
        return entries

    async with connected(account, None) as client:
        for bucket in (FIRST, SECOND):
            await client.call("PUT", bucket)
        await mark(client, NEW)
        with hammering(account):
            header = await write_export(recipe, archive, format_name="tar", options={})
        await mark(client, OLD)
        state = TransferState(transfer_id="bench", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
        record = Journal(folder / "journal", app_id="bench.app", recipe="minio").open(state)
        await recipe.stage(Upload(ArchiveHeader(), _pieces(archive)), record, Unwatched())
        with mock.patch.object(Exchange, "bring", noted), capture_logs() as logs, hammering(account) as told:
            await recipe.restore(record, Unwatched())
            await asyncio.sleep(1)
        there = {versions[0].key async for versions in keys_of(client, FIRST)}
    later = {key for key, began_at in told.acknowledged.items() if began_at > exchanged_at}
    frozen = next(entry["frozen_seconds"] for entry in logs if entry.get("action") == "exchange") * 1000
    return [
        Row(f"minio frozen, export, {CLIENTS} clients", _frozen_milliseconds(header), "ms", less_than(1000)),
        Row(f"minio frozen, import, {CLIENTS} clients", frozen, "ms", less_than(1000)),
        Row(f"minio import: of {len(later)} writes lost", len(later - there), "writes", less_than(1)),
        Row(f"minio import: of {told.reads} reads mixed", told.mixed, "reads", less_than(1)),
    ]


def _frozen_milliseconds(header: ArchiveHeader) -> float:
    return float(header.details["frozen_milliseconds"])


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _account(server: MinioServer) -> Account:
    return Account(server.url, server.user, server.password)


def _recipe(server: MinioServer, folder: Path) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    password_file = folder / "password"
    password_file.write_text(server.password)
    settings = {
        "url": server.url,
        "user": server.user,
        "password_file": str(password_file),
        "directory": str(server.drive),
    }
    return make_recipe(MinioRecipe, folder, settings)


async def _fill(server: MinioServer, objects: int, large_objects: int) -> None:
    async with connected(_account(server), None) as client:
        await client.call("PUT", "bench")
        keys = iter([f"small/{number % 100}/{number}" for number in range(objects)])
        await asyncio.gather(*(_put_all(client, keys) for _ in range(_AT_ONCE)))
        for number in range(large_objects):
            await client.call("PUT", "bench", f"large/{number}", body=os.urandom(LARGE_BYTES), seconds=600)


async def _put_all(client: Client, keys: Iterator[str]) -> None:
    for key in keys:
        await client.call("PUT", "bench", key, body=os.urandom(SMALL_BYTES))
