"""An export of Uptime Kuma, unpacked and checked as an import is, and read as its app would be."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from agent.engines import tree
from agent.engines.kuma.data import Place
from agent.engines.kuma.mariadb_data import chunks_of_dump, fingerprint_with_files, opened_dump
from agent.engines.kuma.sqlite_data import SqliteData, fingerprint_of_staged
from agent.engines.mariadb.exports.content import TableHasher
from agent.engines.mariadb.exports.dumping import raw_dump
from agent.engines.replay.mariadb_server import loaded
from agent.engines.replay.request import Replayed, Request, chunks_of
from agent.limits import Limits
from agent.unpacking import peeked, unpacked
from common.codecs import codec_of

_RECIPE = "uptime-kuma"
_KEY = "0" * 12


async def replay_sqlite(request: Request) -> Replayed:
    """The fingerprint of the data directory that this archive would make; ServiceError when it makes none."""
    with _staging(request) as (place, area):
        data = SqliteData(place)
        await data.stage(area, chunks_of(request.file), _KEY)
        await data.verify(area, _KEY, None)
        return Replayed(await fingerprint_of_staged(area.new, work_directory=place.work_directory))


async def replay_mariadb(request: Request) -> Replayed:
    """The same of one whose app is on MariaDB."""
    content = TableHasher()
    with _staging(request) as (place, area):
        async with unpacked(chunks_of(request.file), limits=place.limits, unpack_zip=False) as archive:
            head, chunks = await peeked(archive.chunks)
            async with aclosing(chunks):
                await tree.unpack(area, chunks, place.orders(), is_zip=codec_of(head) == "zip")
        server_folder = place.work_directory / "server"
        server_folder.mkdir()
        with opened_dump(area) as dump:
            async with (
                loaded(chunks_of_dump(dump), server_folder) as found,
                aclosing(raw_dump(found.login, found.schema)) as pieces,
            ):
                async for piece in pieces:
                    await asyncio.to_thread(content.add, piece)
        proven = await fingerprint_with_files(content, area.new, work_directory=place.work_directory)
        return Replayed(proven, found.engine)


@contextmanager
def _staging(request: Request) -> Iterator[tuple[Place, tree.StagingArea]]:
    """A directory as the app would have, with nothing in it, and room to unpack beside that."""
    with tempfile.TemporaryDirectory(prefix="mathison-verify-") as name:
        folder, work = Path(name), Path(name) / "work"
        (folder / "data").mkdir()
        work.mkdir()
        if os.geteuid() == 0:
            for directory in (folder, work):
                # A server of another user passes through.
                directory.chmod(0o711)
        area = tree.StagingArea(folder / "data", _KEY)
        area.create()
        yield Place(folder / "data", work, Limits(), _RECIPE), area
