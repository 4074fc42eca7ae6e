"""A volume of a million small files, out and in: `make test-scale`, some minutes and 5 GB of disk.

FILES=50000 makes it smaller.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.recipes.base import ExportOptions, ItemChanges, Upload
from agent.recipes.volume import VolumeRecipe
from common.frames import CHUNK_BYTES
from common.headers import ArchiveHeader
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.integration.agent.recipes.conftest import Volume

FILES = int(os.environ.get("FILES", "1000000"))
IN_ONE_DIRECTORY = 1000
MOST_GROWTH_KIB = 64 << 10


@contextmanager
def timed(what: str) -> Iterator[None]:
    began_at = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began_at:.1f} s", file=sys.stderr, flush=True)


def fill(directory: Path) -> None:
    for number in range(FILES):
        if number % IN_ONE_DIRECTORY == 0:
            parent = directory / str(number // IN_ONE_DIRECTORY)
            parent.mkdir()
        (parent / f"{number}.txt").write_bytes(b"%d\n" % number)


@pytest.mark.timeout(3600)
async def test_a_million_small_files_go_out_and_in_with_flat_memory(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    with timed(f"making {FILES} files"):
        fill(volume.directory)
    archive = tmp_path / "archive.tar.zst"
    options = ExportOptions(format=VolumeRecipe.export_formats[0], app_id="a", file_name="f")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with timed("export"):
        async with volume.recipe.export_data(options, NotedProgress()) as export:
            with archive.open("wb") as file:
                async for chunk in export.chunks:
                    file.write(chunk)
    record = MemoryRecord()
    with timed("stage"), archive.open("rb") as upload:

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := upload.read(CHUNK_BYTES):
                yield chunk

        preview = await volume.recipe.stage(Upload(ArchiveHeader(), chunks()), record, NotedProgress())

    with timed("restore"):
        await volume.recipe.restore(record, NotedProgress())

    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    print(f"memory grew by {grown_kib >> 10} MiB; preview {preview.items}", file=sys.stderr)
    assert export.counts["files"] == preview.counts_after["files"] == FILES
    assert preview.items.get("files", ItemChanges(same=FILES)) == ItemChanges(same=FILES)
    assert grown_kib < MOST_GROWTH_KIB
    with timed("fingerprint"):
        assert await volume.recipe.fingerprint(NotedProgress()) == export.fingerprint
    with timed("undo"):
        await volume.recipe.undo(record, NotedProgress())
    assert not volume.has_leftovers
