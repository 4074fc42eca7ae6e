"""A MinIO of many small objects and some large ones out, against `mc mirror`; and how long its clients wait for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.app_control import NoAppControl
from agent.engines.minio.client import Client, connected
from agent.engines.minio.signing import Account
from agent.limits import Limits
from agent.recipes.base import ExportOptions, Step, Surroundings
from agent.recipes.minio import TAR, MinioRecipe
from benchmarks.programs import shell
from benchmarks.rows import Row, less_than, medians, ratio_at_least, seconds_of
from tools.servers import MinioServer, minio
from tools.servers.minio import minio_client

SMALL_BYTES = 4096
LARGE_BYTES = 64 << 20
_AT_ONCE = 16


class _Silent:
    """Progress that nobody follows."""

    def step(self, step: Step, note: str = "") -> None:
        pass

    def read(self, size_bytes: int) -> None:
        pass

    def expect(self, total_bytes: int) -> None:
        pass


def export_rows(
    folder: Path, *, objects: int, large_objects: int, rounds: int, say: Callable[[str], None]
) -> list[Row]:
    """Objects a second, and the freeze.

    Args:
        folder: for archives; emptied afterwards.
    """
    frozen_milliseconds: list[float] = []
    with MinioServer(minio()) as server:
        say(f"making {objects} objects of 4 KiB and {large_objects} of 64 MiB in a MinIO")
        asyncio.run(_fill(server, objects, large_objects))
        recipe = _recipe(server, folder)
        alias = {"MC_HOST_bench": f"http://{server.user}:{server.password}@{server.host}:{server.port}"}
        mirror = f"{minio_client()} --quiet --config-dir {folder}/mc mirror bench/bench {folder}/theirs"

        def ours() -> None:
            frozen_milliseconds.append(asyncio.run(_export(recipe, folder / "ours.tar")))

        def theirs() -> None:
            shutil.rmtree(folder / "theirs", ignore_errors=True)
            shell(mirror, environment=alias)

        found = medians(
            {"ours": lambda: seconds_of(ours), "mc mirror": lambda: seconds_of(theirs)}, rounds=rounds, say=say
        )
    shutil.rmtree(folder / "theirs", ignore_errors=True)
    count = objects + large_objects
    frozen = statistics.median(frozen_milliseconds)
    our_rate, their_rate = (count / seconds for seconds in found.values())
    return [
        Row("minio export against mc mirror", our_rate, "objects/s", ratio_at_least(1), their_rate),
        Row("minio frozen for an export, each object", frozen * 1000 / count, "µs", less_than(50)),
        Row(f"minio frozen for an export of {count} objects", frozen, "ms", less_than(1000)),
    ]


def _recipe(server: MinioServer, folder: Path) -> MinioRecipe:
    folder.mkdir(parents=True, exist_ok=True)
    password_file = folder / "password"
    password_file.write_text(server.password)
    return MinioRecipe(
        Surroundings(
            app_id="bench.minio",
            work_directory=folder,
            limits=Limits(),
            app_control=NoAppControl(),
            settings={
                "url": server.url,
                "user": server.user,
                "password_file": str(password_file),
                "directory": str(server.drive),
            },
        )
    )


async def _export(recipe: MinioRecipe, path: Path) -> float:
    """Write an export to a file; for how many milliseconds the server was frozen."""
    options = ExportOptions(format=TAR, app_id="bench.minio", file_name="minio.tar")
    async with recipe.export_data(options, _Silent()) as export:
        with path.open("wb") as file:
            async for chunk in export.chunks:
                file.write(chunk)
    return float(export.header.details["frozen_milliseconds"])


async def _fill(server: MinioServer, objects: int, large_objects: int) -> None:
    async with connected(Account(server.url, server.user, server.password), None) as client:
        await client.call("PUT", "bench")
        keys = iter([f"small/{number % 100}/{number}" for number in range(objects)])
        await asyncio.gather(*(_put_all(client, keys) for _ in range(_AT_ONCE)))
        for number in range(large_objects):
            await client.call("PUT", "bench", f"large/{number}", body=os.urandom(LARGE_BYTES), seconds=600)


async def _put_all(client: Client, keys: Iterator[str]) -> None:
    for key in keys:
        await client.call("PUT", "bench", key, body=os.urandom(SMALL_BYTES))
