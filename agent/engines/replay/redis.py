"""A snapshot: checked to its last byte as an import is, then loaded by a server of this machine, where there is one.

What the server saves again is compared, so the file is proven to be what a server makes of it. The server is a replica
of nobody: a master would drop the keys that have expired since the export. It listens on a socket in a folder of its
own and is gone with it. Without a fitting server the file's own content is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.confining import may_become_nobody
from agent.engines.rdb.child import Look
from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.examination import examining
from agent.engines.rdb.stripping import without_scripts
from agent.engines.rdb.sums import SCHEME
from agent.engines.redis.compatibility import require_readable
from agent.engines.redis.connection import Login, connect
from agent.engines.replay.programs import named_directories
from agent.engines.replay.request import Replayed, Request, chunks_of
from agent.jail import NOBODY, Jail
from agent.limits import Limits
from agent.processes import Child, Command, run, start
from agent.unpacking import unpacked
from common.errors import ArchiveIncompatibleError, ServiceError, ToolFailedError
from common.fingerprints import Fingerprint
from common.frames import CHUNK_BYTES
from common.rdb import RdbHeader
from common.writing import write_all

PROGRAMS_VARIABLE = "MATHISON_REDIS_BIN"
"""Directories with redis-server or valkey-server, besides those on PATH, separated by colons."""
START_SECONDS = 600.0
"""For the loading, too."""
_LOOK_EVERY_SECONDS = 0.05
_PROGRAMS = ("redis-server", "valkey-server")
_VERSION = re.compile(r"^(Redis|Valkey)\b.*\bv=((\d+)\.(\d+)\.\d+)", re.IGNORECASE)
_NOBODYS_PORT = "1"
_DATABASES = "1000000"


@dataclass(frozen=True)
class Program:
    """A server's program; the names are those of `ServerFacts`, by which it is told what a server reads."""

    path: Path
    kind: str
    version: str
    major: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.kind.capitalize()} {self.version}"


async def replay(request: Request) -> Replayed:
    """The fingerprint of a server that loads this file.

    Raises:
        ServiceError: it is damaged, or would harm a server.
        ToolFailedError: a server that should be able to does not load it.
    """
    with tempfile.TemporaryDirectory(prefix="mathison-verify-") as name:
        folder = Path(name)
        snapshot = folder / "dump.rdb"
        async with unpacked(chunks_of(request.file), limits=Limits()) as upload:
            with snapshot.open("wb", buffering=0) as file:
                async with examining(folder, Look.CHECK) as examination:
                    async for chunk in upload.chunks:
                        await examination.add(chunk)
                        await asyncio.to_thread(write_all, file.fileno(), chunk)
                    content = await examination.finish()
        await asyncio.to_thread(without_scripts, snapshot, content)
        program = await _fitting_program(content)
        if program is not None:
            await _load_and_save(program, folder)
        return Replayed(await _sum(snapshot, folder), program.name if program else "")


async def _sum(snapshot: Path, folder: Path) -> Fingerprint:
    async with examining(folder, Look.SUM) as examination:
        with snapshot.open("rb", buffering=0) as file:
            while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await examination.add(piece)
        content = await examination.finish()
    if content.sums is None:
        raise ArchiveIncompatibleError(f"Something in it cannot be read: {content.doubt or 'one value is too large'}")
    return Fingerprint.of(SCHEME, content.sums)


async def _fitting_program(content: RdbContent) -> Program | None:
    """One that reads the file's version; none for data of modules, which only they can load, nor where a server that
    loads the file would run more of a library than what registers its functions: nothing would end that.
    """
    if content.module_types or content.module_fields or any(library.beyond for library in content.libraries):
        return None
    there = [
        path
        for folder in named_directories(PROGRAMS_VARIABLE)
        for name in _PROGRAMS
        if (path := Path(folder, name)).exists()
    ]
    there += [Path(found) for name in _PROGRAMS if (found := shutil.which(name))]
    for path in dict.fromkeys(there):
        program = await _program_at(path)
        if program is not None and _reads(program, content.header):
            return program
    return None


async def _program_at(path: Path) -> Program | None:
    try:
        said = await run(Command([str(path), "--version"]))
    except ToolFailedError:
        return None
    found = _VERSION.match(said.decode(errors="replace"))
    return Program(path, found[1].lower(), found[2], (int(found[3]), int(found[4]))) if found else None


def _reads(program: Program, header: RdbHeader) -> bool:
    try:
        require_readable(header, program)
    except ArchiveIncompatibleError:
        return False
    return True


async def _load_and_save(program: Program, folder: Path) -> None:
    """The server replaces `dump.rdb` in the folder by its own."""
    socket = folder / "server.sock"
    log = folder / "server.log"
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "dbfilename": "dump.rdb",
        "logfile": str(log),
        "save": "",
        "appendonly": "no",
        "databases": _DATABASES,
    }
    if may_become_nobody():
        os.chown(folder, NOBODY, NOBODY)
        os.chown(folder / "dump.rdb", NOBODY, NOBODY)
    jail = Jail(file_size_bytes=None, may_fork=True)
    argv = [str(program.path), *(word for name, value in settings.items() for word in (f"--{name}", value))]
    # As words of their own: a Redis 6.2 takes no other.
    argv += ["--replicaof", "127.0.0.1", _NOBODYS_PORT]
    async with start(Command(argv, jail=jail)) as server:
        login = Login(str(socket), 0)
        if not await _has_loaded(login, server):
            last = log.read_text(errors="replace").strip().rpartition("\n")[2] if log.exists() else "none"
            raise ToolFailedError(f"{program.name} does not load it. Its last words: {last[-200:]}")
        async with connect(login) as connection:
            await connection.call("SAVE", timeout_seconds=START_SECONDS)


async def _has_loaded(login: Login, server: Child) -> bool:
    """False: it has ended, or takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while server.is_running:
                with contextlib.suppress(ServiceError):
                    async with connect(login) as connection:
                        # Below it is "async_loading:0", which is so all the time.
                        if "\nloading:0" in await connection.text("INFO", "persistence"):
                            return True
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return False
