"""Archives of pg_dump as SQL text: put on disk, their structure checked, turned to text by pg_restore; all in jails."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines.pg.clients import Clients
from agent.engines.pg.spool import Room, dump_directory, new_file, spooled, write_all
from agent.engines.pg.uploads import UploadForm
from agent.jail import PARSER, Jail
from agent.limits import Limits
from agent.processes import Child, Command, feed, start
from common.errors import (
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ToolFailedError,
    make_error,
)
from common.frames import CHUNK_BYTES
from common.pg_archives import DUMP_FILE, require_files

MODULE = "agent.engines.pg.archive_child"
_JAIL = Jail(address_space_bytes=1 << 30)
_OPTIONS = ("--no-owner", "--no-privileges", "--no-tablespaces", "--file=-")
_FORMATS = {
    UploadForm.CUSTOM: "custom",
    UploadForm.TAR: "tar",
    UploadForm.DIRECTORY: "directory",
    UploadForm.ZIP: "directory",
}


@asynccontextmanager
async def sql_of(
    chunks: AsyncIterable[bytes],
    form: UploadForm,
    *,
    clients: Clients,
    server_version_num: int,
    spool_directory: Path,
    limits: Limits,
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The SQL text of an archive; ends normally only when the archive was whole and pg_restore says so too.

    Raises:
        ArchiveError (its subclasses): on entering or from the chunks.
        NoSpaceError, LimitExceededError, ToolFailedError: the same.
    """
    room = Room(spool_directory, free_bytes=limits.free_bytes)
    choose = _Chooser(clients, server_version_num)
    if form in (UploadForm.DIRECTORY, UploadForm.ZIP):
        with dump_directory(spool_directory) as directory:
            if form is UploadForm.ZIP:
                async with spooled(chunks, room, spool_directory) as file:
                    await _unpack_zip(directory, file, room, limits)
            else:
                await _unpack_tar(directory, chunks, room, limits)
            minor_version = await _check_directory(directory, limits)
            restore = await choose.command(minor_version, form, [f"/proc/self/fd/{directory}"], pass_fds=[directory])
            async with aclosing(_run(restore)) as text:
                yield text
        return
    async with spooled(chunks, room, spool_directory) as file:
        contents = await _check(form.value, file, limits)
        restore = await choose.command(contents["version"][1], form, [], stdin=file)
        os.lseek(file, 0, os.SEEK_SET)
        async with aclosing(_run(restore)) as text:
            yield text


@dataclass(frozen=True)
class _Chooser:
    clients: Clients
    server_version_num: int

    async def command(
        self,
        minor_version: int,
        form: UploadForm,
        operands: list[str],
        *,
        stdin: int | None = None,
        pass_fds: list[int] | None = None,
    ) -> Command:
        """pg_restore, as old as can be: the newer it is, the more it may write that the server does not know."""
        client = await self.clients.for_archive(minor_version, server_version_num=self.server_version_num)
        argv = [client.program("pg_restore"), f"--format={_FORMATS[form]}", *_OPTIONS, *operands]
        return Command(argv, environment=client.environment(), jail=PARSER, stdin=stdin, pass_fds=pass_fds or ())


async def _run(restore: Command) -> AsyncGenerator[bytes, None]:
    try:
        async with start(restore) as child:
            if restore.stdin is None:
                await child.close_stdin()
            async for chunk in child.chunks():
                yield chunk
            await child.check()
    except ToolFailedError as failure:
        raise _meant(failure) from failure


def _meant(failure: ToolFailedError) -> Exception:
    """What pg_restore's last words mean; they are in English, since its locale is ours."""
    said = failure.text
    if (
        "was ended by SIG" in said
        or "could not be started" in said
        or "cannot start" in said
        or "shared libraries" in said
    ):
        return failure
    if (
        "does not support compression" in said
        or "unsupported version" in said
        or "compression is not supported" in said
    ):
        return ArchiveIncompatibleError(
            f"The agent's pg_restore cannot read the archive: {said}.",
            next_step="Make the dump with --compress=gzip, or as SQL text.",
        )
    return ArchiveDamagedError(f"The archive is damaged: {said}.", next_step="Send it again, or make the dump again.")


async def _check(kind: str, file: int, limits: Limits) -> dict[str, Any]:
    """The contents of an archive on disk, read to its end in a jail."""
    os.lseek(file, 0, os.SEEK_SET)
    command = Command([MODULE, kind, str(limits.entries)], jail=_JAIL, stdin=file, is_module=True)
    async with start(command) as child:
        reader = _Output(child)
        found = _result(await reader.line())
        await child.check()
        return found


async def _unpack_zip(directory: int, file: int, room: Room, limits: Limits) -> None:
    """Put a dump in directory format from a zip into a directory."""
    operands = ["zip", str(limits.entries), str(limits.expansion_ratio)]
    async with start(Command([MODULE, *operands], jail=_JAIL, stdin=file, is_module=True)) as child:
        await _take_files(_Output(child), directory, room)
        await child.check()


async def _unpack_tar(directory: int, chunks: AsyncIterable[bytes], room: Room, limits: Limits) -> None:
    """The same from a tar."""
    async with start(Command([MODULE, "directory", str(limits.entries)], jail=_JAIL, is_module=True)) as child:
        feeding = asyncio.create_task(feed(child, chunks), name="feed a tar to its reader")
        taking = asyncio.create_task(_take_files(_Output(child), directory, room), name="take a dump's files")
        try:
            await asyncio.wait({feeding, taking}, return_when=asyncio.FIRST_EXCEPTION)
            if feeding.done():
                await feeding
            await taking
            await feeding
            await child.check()
        finally:
            for task in (feeding, taking):
                task.cancel()
            await asyncio.gather(feeding, taking, return_exceptions=True)


async def _check_directory(directory: int, limits: Limits) -> int:
    """That every file is there which its table of contents names; returns the archive's minor version."""
    file = os.open("toc.dat", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        contents = await _check("contents", file, limits)
    finally:
        os.close(file)
    require_files(contents["data"], set(os.listdir(directory)))
    return int(contents["version"][1])


async def _take_files(output: _Output, directory: int, room: Room) -> None:
    while True:
        line = await output.line()
        if "name" not in line:
            _result(line)
            return
        name = str(line["name"])
        # The child reads hostile bytes, so what it says is checked once more.
        if not DUMP_FILE.fullmatch(name):
            raise ArchiveRefusedError("The archive holds a file that is not pg_dump's.")
        try:
            file = new_file(directory, name)
        except FileExistsError as failure:
            raise ArchiveRefusedError(f"The archive holds {name} twice.") from failure
        try:
            await _take_file(output, file, int(line["size"]), room)
        finally:
            os.close(file)


async def _take_file(output: _Output, file: int, size: int, room: Room) -> None:
    while size > 0:
        line = await output.line()
        if "bytes" not in line:
            _result(line)
            raise ToolFailedError("The reader of the archive left out a part of a file.")
        size -= int(line["bytes"])
        left = int(line["bytes"])
        while left > 0:
            piece = await output.some(min(left, CHUNK_BYTES))
            await asyncio.to_thread(write_all, file, piece, room)
            left -= len(piece)


class _Output:
    """What the child writes: lines of JSON, and raw bytes between them."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._held = b""

    async def line(self) -> dict[str, Any]:
        while b"\n" not in self._held:
            if len(self._held) > CHUNK_BYTES or not (more := await self._child.read()):
                raise await self._ended()
            self._held += more
        line, _, self._held = self._held.partition(b"\n")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ToolFailedError("The reader of the archive said something that is no report.")
        return found

    async def some(self, most: int) -> bytes:
        piece = self._held or await self._child.read(most)
        if not piece:
            raise await self._ended()
        self._held = piece[most:]
        return piece[:most]

    async def _ended(self) -> ToolFailedError:
        await self._child.check()
        return ToolFailedError("The reader of the archive ended without saying what it found.")


def _result(line: dict[str, Any]) -> dict[str, Any]:
    match line:
        case {"done": dict() as found}:
            return found
        case {"failed": {"reason": str(reason), "text": str(text), "next_step": str(next_step)}}:
            raise make_error(reason, text, next_step=next_step)
    raise ToolFailedError("The reader of the archive said something that is no report.")
