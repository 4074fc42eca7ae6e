"""Archives of pg_dump as SQL text: their structure checked, turned to text by pg_restore; all in jails.

The custom format is read as it arrives; the others have to lie on disk first. The text goes from pg_restore to its
reader and not through here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines.pg.loading.spool import Room, dump_directory, new_file, spooled, write_all
from agent.engines.pg.loading.uploads import HEAD_BYTES, UploadForm
from agent.engines.pg.server.clients import Clients
from agent.jail import PARSER, Jail
from agent.limits import Limits
from agent.processes import Child, Command, Pipe, feed, has_reader, start
from agent.unpacking import peeked
from common.errors import (
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ServiceError,
    ToolFailedError,
    make_error,
)
from common.frames import CHUNK_BYTES
from common.pg_archives import DUMP_FILE, MINOR_VERSION_AT, require_files

MODULE = "agent.engines.pg.loading.archive_child"
_JAIL = Jail(address_space_bytes=1 << 30)
_OPTIONS = ("--no-owner", "--no-privileges", "--no-tablespaces", "--file=-")
_FORMATS = {
    UploadForm.CUSTOM: "custom",
    UploadForm.TAR: "tar",
    UploadForm.DIRECTORY: "directory",
    UploadForm.ZIP: "directory",
}


async def write_sql(
    chunks: AsyncIterator[bytes],
    form: UploadForm,
    output: int,
    *,
    clients: Clients,
    server_version_num: int,
    spool_directory: Path,
    limits: Limits,
) -> None:
    """Write the SQL text of an archive into a pipe; returns when the archive was whole and pg_restore says so too.

    Returns as well when nobody reads the pipe any more; whoever did has the reason.

    Raises:
        ArchiveError (its subclasses), NoSpaceError, LimitExceededError, ToolFailedError: what was written is not all.
    """
    choose = _Chooser(clients, server_version_num, output)
    if form is UploadForm.CUSTOM:
        await _pass_on(chunks, choose, limits)
        return
    room = Room(spool_directory, free_bytes=limits.free_bytes)
    if form is UploadForm.TAR:
        async with spooled(chunks, room, spool_directory) as file:
            contents = await _check(form.value, file, limits)
            os.lseek(file, 0, os.SEEK_SET)
            await _run(await choose.command(contents["version"][1], form, [], stdin=file), output)
    else:
        with dump_directory(spool_directory) as directory:
            if form is UploadForm.ZIP:
                async with spooled(chunks, room, spool_directory) as file:
                    await _unpack_zip(directory, file, room, limits)
            else:
                await _unpack_tar(directory, chunks, room, limits)
            minor_version = await _check_directory(directory, limits)
            operands = [f"/proc/self/fd/{directory}"]
            await _run(await choose.command(minor_version, form, operands, pass_fds=[directory]), output)


@dataclass(frozen=True)
class _Chooser:
    clients: Clients
    server_version_num: int
    output: int

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
        return Command(
            [client.program("pg_restore"), f"--format={_FORMATS[form]}", *_OPTIONS, *operands],
            environment=client.environment(),
            jail=PARSER,
            stdin=stdin,
            stdout=self.output,
            pass_fds=pass_fds or (),
        )


async def _pass_on(chunks: AsyncIterator[bytes], choose: _Chooser, limits: Limits) -> None:
    """An archive in custom format, while it arrives: through its reader to pg_restore."""
    head, whole = await peeked(chunks, head_bytes=HEAD_BYTES)
    has_arrived = asyncio.Event()

    async def noted() -> AsyncGenerator[bytes, None]:
        async for chunk in whole:
            yield chunk
            del chunk
        has_arrived.set()

    with Pipe() as between:
        argv = [MODULE, UploadForm.CUSTOM.value, str(limits.entries)]
        read = Command(argv, jail=_JAIL, stdout=between.writing, is_module=True)
        # Of a version that is not known the reader passes nothing on.
        minor_version = head[MINOR_VERSION_AT] if len(head) > MINOR_VERSION_AT else 0
        restore = await choose.command(minor_version, UploadForm.CUSTOM, [], stdin=between.reading)
        async with aclosing(whole), aclosing(noted()) as arriving, start(read) as reader, start(restore) as restorer:
            between.close(between.reading, between.writing)
            feeding = asyncio.create_task(feed(reader, arriving), name="feed an archive to its reader")
            reading = asyncio.create_task(_verdict(reader), name="wait for an archive's reader")
            restoring = asyncio.create_task(_ended(restorer), name="wait for pg_restore")
            tasks = (feeding, reading, restoring)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                # In this order, since what comes later may only follow from what comes first.
                if feeding.done():
                    await feeding
                if restoring.done() and restoring.exception() is not None:
                    if not has_reader(choose.output):
                        return
                    # The reader passes damage not on but ends, so perhaps it is what pg_restore has met.
                    if has_arrived.is_set():
                        await feeding
                        await reading
                    else:
                        await _cut_short(reader, feeding, reading)
                    await restoring
                await reading
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _cut_short(reader: Child, feeding: asyncio.Task[None], reading: asyncio.Task[None]) -> None:
    """End the reader of an archive that is still arriving; raises what it has found besides that end."""
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    reader.abort_stdin()
    with suppress(ArchiveTruncatedError):
        await reading


async def _verdict(child: Child) -> None:
    """What the reader of a stream found in it."""
    status = await child.wait()
    try:
        _result(json.loads(child.stderr_tail.rpartition("\n")[2]))
    except ValueError:
        status = status or 1
    if status:
        await child.check()
        raise ToolFailedError("The reader of the archive ended without saying what it found.")


async def _run(restore: Command, output: int) -> None:
    async with start(restore) as child:
        if restore.stdin is None:
            await child.close_stdin()
        try:
            await _ended(child)
        except ServiceError:
            if has_reader(output):
                raise


async def _ended(child: Child) -> None:
    try:
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
