"""Where an export is written: a file that gets its name only once it is proven whole, or standard output."""

from __future__ import annotations

import abc
import asyncio
import errno
import hashlib
import os
import stat
import sys
from functools import partial
from pathlib import Path

from cli.failures import LocalFileError, said_by
from cli.worker import Worker
from common.files import sync_directory
from common.writing import write_all

BATCH_BYTES = 1 << 20
"""Waiting to be written at most, beside what is being written."""
PART_SUFFIX = ".part"


class Target(abc.ABC):
    """Takes an export's bytes, hashes and writes them beside the event loop while the next ones arrive.

    After `finish` comes one of `keep` and `abandon`; `abandon` may come at any moment.

    Attributes:
        name: for sentences, where the export is going.
        size_bytes: of everything added.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.size_bytes = 0
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._worker = Worker("write the export")
        self._last: asyncio.Future[None] | None = None

    @property
    def sha256(self) -> str:
        """Of everything added, once `finish` has returned."""
        return self._hash.hexdigest()

    async def add(self, chunk: bytes) -> None:
        """The next bytes; returns while they are being written. What arrives meanwhile makes up the next batch.

        Raises:
            LocalFileError: what came before cannot be written.
        """
        self._batch.append(chunk)
        self._batch_bytes += len(chunk)
        self.size_bytes += len(chunk)
        if self._last is None or self._last.done() or self._batch_bytes >= BATCH_BYTES:
            await self._hand_over()

    async def finish(self) -> None:
        """Everything was added; returns once it is written, which is not yet durable. Raises as `add`."""
        await self._hand_over()
        await self._written()

    @abc.abstractmethod
    def keep(self) -> None:
        """The export is whole: make it durable and give it its name. Blocks, so that Ctrl-C comes before or after.

        Raises:
            LocalFileError: its text says what is left.
        """

    @abc.abstractmethod
    def abandon(self) -> None:
        """The export is not whole: leave nothing behind. Does nothing once it was kept."""

    async def _hand_over(self) -> None:
        await self._written()
        self._last = self._worker.run(partial(self._write, self._batch))
        self._batch, self._batch_bytes = [], 0

    async def _written(self) -> None:
        if self._last is not None:
            try:
                await self._last
            except OSError as failure:
                raise _write_error(failure, self.name) from failure

    def _write(self, batch: list[bytes]) -> None:
        for chunk in batch:
            self._hash.update(chunk)
            write_all(self._descriptor, chunk)

    def _stop(self, *, wait: bool) -> None:
        if self._last is not None and not self._last.cancel() and not self._last.cancelled():
            self._last.exception()
        self._worker.close(wait=wait)


class FileTarget(Target):
    """`<name>.part` beside the file, mode 0600, renamed by `keep`."""

    def __init__(self, path: Path, *, may_replace: bool) -> None:
        """
        Raises:
            LocalFileError: the file exists and may not be replaced, another export is writing it, or it cannot be
                written here.
        """
        check_target(path, may_replace=may_replace)
        self.path = path
        self.part = path.with_name(path.name + PART_SUFFIX)
        self._may_replace = may_replace
        self._is_closed = False
        try:
            descriptor = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as failure:
            raise LocalFileError(
                f"{self.part} exists already: another export is writing it, or one was killed.",
                next_step="If none is running, delete it and run the command again.",
            ) from failure
        except OSError as failure:
            raise _write_error(failure, str(self.part)) from failure
        super().__init__(descriptor, str(path))

    def keep(self) -> None:
        self._close(is_durable=True)
        try:
            if self._may_replace:
                self.part.rename(self.path)
            else:
                _rename_without_replacing(self.part, self.path)
            sync_directory(self.path.parent)
        except FileExistsError as failure:
            raise LocalFileError(
                f"{self.path} came into being meanwhile; the export is whole and lies in {self.part}.",
                next_step="Rename it.",
            ) from failure
        except OSError as failure:
            raise LocalFileError(
                f"{self.part} cannot be renamed: {said_by(failure)}. The export in it is whole.",
                next_step="Rename it.",
            ) from failure

    def keep_as_part(self) -> None:
        """Leave the part file for a person to look at: received in full as far as known, and not proven."""
        self._close(is_durable=False)

    def abandon(self) -> None:
        if not self._is_closed:
            self._close(is_durable=False)
            self.part.unlink(missing_ok=True)

    def _close(self, *, is_durable: bool) -> None:
        self._is_closed = True
        self._stop(wait=True)
        try:
            if is_durable:
                os.fsync(self._descriptor)
        except OSError as failure:
            self.part.unlink(missing_ok=True)
            raise _write_error(failure, self.name) from failure
        finally:
            os.close(self._descriptor)


class StandardOutput(Target):
    """For `-o -`. What was written cannot be taken back: the exit code alone says whether it was whole."""

    def __init__(self) -> None:
        super().__init__(sys.stdout.fileno(), "standard output")

    def keep(self) -> None:
        self._stop(wait=True)

    def abandon(self) -> None:
        self._stop(wait=False)


def check_target(path: Path, *, may_replace: bool) -> None:
    """LocalFileError where `path` cannot become an export's file."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as failure:
        raise _write_error(failure, str(path)) from failure
    else:
        if not stat.S_ISREG(mode):
            raise LocalFileError(
                f"{path} is there and is not an ordinary file.", next_step="Take another name, or -o - and redirect it."
            )
        if not may_replace:
            raise LocalFileError(
                f"{path} exists already.", next_step="Take another name by -o, or --force to replace it."
            )
    if not path.parent.is_dir():
        raise LocalFileError(f"There is no folder {path.parent}.", next_step="Make it, or take another name by -o.")


def safe_file_name(proposed: str, *, otherwise: str) -> str:
    """The last part of a name that a server proposed, without anything that could lead elsewhere or be hidden."""
    name = proposed.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(character for character in name if character.isprintable()).strip().lstrip(".-")
    return name[:200] or otherwise


def _rename_without_replacing(source: Path, target: Path) -> None:
    """rename() replaces; a hard link does not. Filesystems without hard links get a check just before instead."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        source.rename(target)
    else:
        source.unlink()


def _write_error(failure: OSError, name: str) -> LocalFileError:
    match failure.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return LocalFileError(
                f"No space is left for {name}. The export was cancelled and no file was kept.",
                next_step="Make room, or take another disk by -o.",
            )
        case errno.EPIPE:
            return LocalFileError("The program that standard output leads to ended before the export did.")
        case _:
            return LocalFileError(f"{name} cannot be written: {said_by(failure)}.")
