"""An archive unpacked as a staged copy of a directory's content, on the same mount.

That is done in a jailed child, into `<volume>/.mathison-data/<key>/new`, where the app does not look; `swapping`
exchanges it for the app's data later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.archives.extractor_child import Assignment, Report, report_of
from agent.engines.areas import opened_area
from agent.engines.filesystem import DIRECTORY, free_bytes, opened_directory, own_directory
from agent.engines.subtrees import remove_tree
from agent.engines.swapping import Side
from agent.jail import Jail
from agent.limits import Limits
from agent.processes import Child, Command, feed, start
from common.errors import InternalError, NoSpaceError, ToolFailedError, make_error
from common.seals import RESERVED_DIRECTORY
from common.writing import write_all

_EXTRACTOR_MEMORY_BYTES = 1 << 30
_MAX_REPORT_BYTES = 32 << 20
_ZIP_NAME = "upload.zip"
_DEFAULT_ACL = "system.posix_acl_default"
_PASSABLE = 0o711


class StagingArea:
    """`<volume>/.mathison-data/<key>`: what an import keeps beside the data that it replaces, on the same mount.

    Attributes:
        new: where the upload is unpacked.
    """

    def __init__(self, volume: Path, key: str) -> None:
        self._volume = volume
        self._key = key
        self.new = volume / RESERVED_DIRECTORY / key / Side.IMPORTED.value

    @property
    def exists(self) -> bool:
        return os.path.lexists(self.new.parent)

    def create(self) -> None:
        """Make it, empty.

        Raises:
            ToolFailedError: the volume cannot be written to.
        """
        try:
            with opened_directory(self._volume.resolve()) as volume:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(RESERVED_DIRECTORY, 0o700, dir_fd=volume)
                with self._reserved(volume) as reserved:
                    _make_plain(self._key, reserved)
                    with opened_directory(self._key, reserved) as area:
                        for side in Side:
                            _make_plain(side.value, area)
        except OSError as failure:
            raise ToolFailedError(
                f"Nothing can be put beside the app's data on the volume: {failure.strerror}.",
                next_step=f"The agent (uid {os.geteuid()}) has to be allowed to write to {self._volume}.",
            ) from failure

    def remove(self) -> None:
        """Delete it and all that is in it; what is not there is fine.

        Raises:
            ToolFailedError: something could not be deleted.
        """
        try:
            with (
                opened_directory(self._volume.resolve()) as volume,
                own_directory(RESERVED_DIRECTORY, volume) as reserved,
            ):
                remove_tree(self._key, parent=reserved)
                # Not empty: another import has something in it.
                with contextlib.suppress(OSError):
                    os.rmdir(RESERVED_DIRECTORY, dir_fd=volume)
        except FileNotFoundError:
            return
        except OSError as failure:
            raise ToolFailedError(
                f"What import {self._key} kept on the volume could not be deleted: {failure.filename!r}: "
                f"{failure.strerror}."
            ) from failure

    def open_new(self) -> int:
        """A descriptor of `new`, on a path without links."""
        with self._area() as area:
            return os.open(Side.IMPORTED.value, DIRECTORY, dir_fd=area)

    @contextmanager
    def held_new(self) -> Iterator[Path]:
        """A path of `new` for this process alone, which leads there whatever somebody puts in the place of the
        directories above it."""
        descriptor = self.open_new()
        try:
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def let_others_through(self) -> None:
        """For a program of another user that is led into `new` by its path; it sees nothing on the way."""
        with opened_area(self._volume, self._key) as opened:
            new = self.open_new()
            try:
                for directory in (opened.reserved, opened.area, new):
                    os.fchmod(directory, _PASSABLE)
            finally:
                os.close(new)

    def create_file(self, name: str) -> int:
        """A new file beside `new`, opened for reading and writing; it goes with the area."""
        with self._area() as area:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, 0o600, dir_fd=area)

    def move_into_new(self, name: str) -> None:
        """Have what `create_file` made in `new`, in the place of what is called so there."""
        with self._area() as area:
            os.rename(name, f"{Side.IMPORTED.value}/{name}", src_dir_fd=area, dst_dir_fd=area)

    def delete_file(self, name: str) -> None:
        """Delete what `create_file` made."""
        with self._area() as area:
            os.unlink(name, dir_fd=area)

    @contextmanager
    def _reserved(self, volume: int) -> Iterator[int]:
        with contextlib.ExitStack() as stack:
            try:
                reserved = stack.enter_context(own_directory(RESERVED_DIRECTORY, volume))
            except OSError as failure:
                raise ToolFailedError(
                    "Nothing can be put beside the app's data on the volume: something else is where the agent has its "
                    f"own {RESERVED_DIRECTORY}: {failure.strerror}.",
                    next_step=f"See what {self._volume / RESERVED_DIRECTORY} is, and move it away.",
                ) from failure
            yield reserved

    @contextmanager
    def _area(self) -> Iterator[int]:
        with opened_area(self._volume, self._key) as opened:
            yield opened.area


@dataclass(frozen=True)
class Orders:
    """How an upload is to be unpacked.

    Attributes:
        recipe: whose exports are taken; archives of others that name no recipe are taken as well.
        owner: uid and gid for everything; None: as the archive says.
        default_owner: for what the archive names no owner for.
        inside: the volume's path as the app sees it: absolute links below it stay inside.
    """

    recipe: str
    limits: Limits
    owner: tuple[int, int] | None
    default_owner: tuple[int, int]
    inside: Path
    work_directory: Path


async def unpack(area: StagingArea, chunks: AsyncIterator[bytes], orders: Orders, *, is_zip: bool) -> Report:
    """Unpack a tar or zip into the area's `new`.

    Args:
        chunks: without compression around it; its end means that all arrived.
    Raises:
        ArchiveError: the archive's fault, by class.
        LimitExceededError, NoSpaceError: it is too much.
        ToolFailedError: the volume could not be written to, or the extractor was killed.
        Whatever `chunks` raises.
    """
    if not is_zip:
        return await _extract(area, chunks, orders)
    spooled = area.create_file(_ZIP_NAME)
    try:
        await spool(spooled, chunks, area, orders.limits)
        report = await _extract(area, None, orders, zip_file=spooled)
    finally:
        os.close(spooled)
    area.delete_file(_ZIP_NAME)
    return report


async def spool(descriptor: int, chunks: AsyncIterator[bytes], area: StagingArea, limits: Limits) -> None:
    """Write an upload to a file in an area; its descriptor is at the file's start afterwards.

    Raises:
        NoSpaceError: it does not fit.
        Whatever `chunks` raises.
    """
    async for chunk in chunks:
        require_room(area.new, len(chunk), limits)
        try:
            await asyncio.to_thread(write_all, descriptor, chunk)
        except OSError as failure:
            raise NoSpaceError(f"The upload could not be stored on the volume: {failure.strerror}.") from failure
    os.lseek(descriptor, 0, os.SEEK_SET)


def require_room(directory: Path, needed_bytes: int, limits: Limits) -> None:
    """NoSpaceError unless so much may be written and the limit's room is still left."""
    free = free_bytes(directory)
    if free - needed_bytes < limits.free_bytes:
        raise NoSpaceError(
            f"The volume has {free} bytes free; the import needs {needed_bytes} beside the present data and "
            f"{limits.free_bytes} are to stay free.",
            next_step="Make room on the volume or give it more, then send the file again.",
        )


async def _extract(
    area: StagingArea, chunks: AsyncIterator[bytes] | None, orders: Orders, *, zip_file: int | None = None
) -> Report:
    limits = orders.limits
    root = area.open_new()
    try:
        with tempfile.TemporaryFile(dir=orders.work_directory) as later:
            assignment = Assignment(
                root=root,
                later=later.fileno(),
                is_zip=zip_file is not None,
                recipe=orders.recipe,
                owner=orders.owner,
                default_owner=orders.default_owner,
                inside=str(orders.inside),
                content_bytes=limits.content_bytes,
                entries=limits.entries,
                free_bytes=limits.free_bytes,
                expansion_ratio=limits.expansion_ratio,
            )
            command = Command(
                ["agent.archives.extractor_child", msgspec.json.encode(assignment).decode()],
                jail=Jail(file_size_bytes=limits.content_bytes, address_space_bytes=_EXTRACTOR_MEMORY_BYTES),
                pass_fds=(root, later.fileno()),
                stdin=zip_file,
                is_module=True,
            )
            async with start(command) as child:
                if chunks is not None:
                    await feed(child, chunks)
                return await _report(child)
    finally:
        os.close(root)


async def _report(child: Child) -> Report:
    output = bytearray()
    async for piece in child.chunks():
        output += piece
        if len(output) > _MAX_REPORT_BYTES:
            raise InternalError("The extractor's report is too long.")
    await child.check()
    try:
        report = report_of(bytes(output))
    except ValueError as failure:
        raise InternalError("The extractor's report cannot be read.") from failure
    if report.reason:
        raise make_error(report.reason, report.text, next_step=report.next_step)
    return report


def _make_plain(name: str, parent: int) -> None:
    """A directory that hands nothing on to what is put into it, whatever it inherited itself."""
    os.mkdir(name, 0o700, dir_fd=parent)
    with opened_directory(name, parent) as made:
        with contextlib.suppress(OSError):
            os.removexattr(made, _DEFAULT_ACL)
        os.fchmod(made, 0o700)
