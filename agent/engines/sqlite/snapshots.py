"""SQLite databases that an app is using: asked, and copied as they are at one moment.

Nothing of this opens a database in the agent's own process; see `child` for why. Copying the files of a
database is no backup: under a writer every raw copy of 78 MB was torn, some of them passing quick_check (SQLite 3.40).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from agent.archives.members import printable
from agent.archives.writing import Substitute
from agent.engines.filesystem import DIRECTORY, free_bytes
from agent.engines.sqlite.answers import answer_of, answers_of, worded
from agent.engines.sqlite.bounds import size_of
from agent.engines.sqlite.questions import NOTHING, Answers, Questions
from agent.engines.subtrees import remove_tree
from agent.jail import TOOL
from agent.limits import Limits
from agent.processes import Child, Command, start
from common.errors import NoSpaceError, SourceUnreadableError
from common.seals import RESERVED_DIRECTORY

BUSY_SECONDS = 60.0
"""How long a locked database is waited for; apps hold their locks for milliseconds."""
_SNAPSHOTS = "snapshots"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
T = TypeVar("T")


@dataclass(frozen=True)
class _EmptyFile:
    """For a copy.

    Attributes:
        place: a descriptor of its directory, by which nobody can put another one in its place.
        is_aside: whether that is not on the volume.
    """

    name: str
    place: int
    descriptor: int
    is_aside: bool

    @property
    def file(self) -> tuple[int, int]:
        """Its device and inode."""
        status = os.fstat(self.descriptor)
        return status.st_dev, status.st_ino

    def remove(self) -> None:
        """Take its name away, if it still has it."""
        with contextlib.suppress(OSError):
            os.unlink(self.name, dir_fd=self.place)


class Snapshots:
    """Consistent copies of the databases below a directory, made while the app writes to them.

    A context manager. Each copy is a file without a name, so a kill leaves nothing behind but an empty directory, which
    the next one removes. Copies are made on the volume itself, or in the work directory where it has no room.

    Attributes:
        warnings: sentences about databases whose copy is not as it should be.
        answers: to the questions, from the very copies, by path; nothing of a damaged one. Content: see `content`.
    """

    def __init__(self, directory: Path, *, work_directory: Path, limits: Limits) -> None:
        self.warnings: list[str] = []
        self.answers: dict[str, Answers] = {}
        self._directory = directory.resolve()
        self._work_directory = work_directory
        self._limits = limits
        self._is_on_volume = False
        self._places: dict[bool, int] = {}
        self._opened = AsyncExitStack()
        self._taking = asyncio.Lock()
        self._descriptors: set[int] = set()
        self._child: Child | None = None
        self._reading: dict[str, Child] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waited_for: asyncio.Task[Any] | None = None
        self._is_interrupted = False

    async def __aenter__(self) -> Snapshots:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # One that was interrupted may still be ending its child.
        async with self._taking:
            await self._opened.aclose()
            for descriptor in list(self._descriptors):
                self._close(descriptor)
            await asyncio.to_thread(self._clean_up)

    def substitute(self, path: str, status: os.stat_result) -> Substitute | None:
        """`take` for the thread that writes the archive."""
        return self._in_loop(lambda: self.take(path, status))

    def content(self, path: str) -> Mapping[str, str]:
        """What was asked for `with_content`; waits for it, so for the thread that writes the archive, and once.

        Raises:
            SourceUnreadableError: the copy cannot be read to its end.
            ToolFailedError: what reads it was killed.
        """
        return self._in_loop(lambda: self._content(path))

    def interrupt(self) -> None:
        """Let the thread go that waits in `substitute` or `content`, or comes to them from now on."""
        self._is_interrupted = True
        if self._waited_for is not None:
            self._waited_for.cancel()

    def _in_loop(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._loop is None:
            raise RuntimeError("the snapshots are not open")

        async def done() -> T:
            if self._is_interrupted:
                raise asyncio.CancelledError
            self._waited_for = asyncio.current_task()
            return await work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result()

    async def take(self, path: str, status: os.stat_result, questions: Questions = NOTHING) -> Substitute | None:
        """A copy of a database; None when it is none for SQLite, or cut off, so that the file itself has to do.

        Args:
            path: below the directory.
            status: of the file that was found there; another file is not copied.
            questions: about the copy. Its content is read from now on, while the copy is.
        Raises:
            SourceUnreadableError: it may not be opened, or was locked all the time.
            NoSpaceError: there is no room for the copy.
        """
        async with self._taking:
            return await self._take(path, status, questions)

    async def _take(self, path: str, status: os.stat_result, questions: Questions) -> Substitute | None:
        needed = status.st_size + size_of(self._directory / f"{path}-wal")
        substitute = None
        async with AsyncExitStack() as opened:
            target = self._empty_file(needed)
            try:
                if target.is_aside:
                    aside = self._work_directory / target.name
                    child = await opened.enter_async_context(started("snapshot", self._directory, aside=aside))
                else:
                    child = await self._shared_child()
                answer = await ask(
                    child,
                    source=path,
                    source_file=(status.st_dev, status.st_ino),
                    target=f"{RESERVED_DIRECTORY}/{_SNAPSHOTS}/{target.name}",
                    target_file=target.file,
                    busy_seconds=BUSY_SECONDS,
                    is_asked_again=questions.with_content,
                    **worded(replace(questions, with_content=False)),
                )
                substitute = self._judged(path, answer, target.descriptor)
                self.answers[path] = answers_of(answer)
                if questions.with_content and answer.get("verdict") == "ok":
                    await self._read_on(path, child, opened, questions)
                return substitute
            finally:
                target.remove()
                if substitute is None:
                    self._close(target.descriptor)

    async def _shared_child(self) -> Child:
        """The one that makes one copy after the other."""
        if self._child is None:
            self._child = await self._opened.enter_async_context(started("snapshot", self._directory))
        return self._child

    async def _read_on(self, path: str, child: Child, opened: AsyncExitStack, questions: Questions) -> None:
        """Have a child read its copy's content from now on. That takes long: further copies are another one's work."""
        if child is self._child:
            self._child = None
        else:
            self._opened.push_async_exit(opened.pop_all())
        self._reading[path] = child
        await _tell(child, worded(Questions(with_content=True, without_columns=questions.without_columns)))

    async def _content(self, path: str) -> Mapping[str, str]:
        answer = await answer_of(self._reading[path])
        if "failed" in answer:
            raise _unreadable(path, answer)
        return answers_of(answer).content

    def _judged(self, path: str, answer: dict[str, Any], descriptor: int) -> Substitute | None:
        match answer.get("failed"):
            case None:
                if answer["verdict"] != "ok":
                    self.warnings.append(
                        f"SQLite finds the database {printable(path)} damaged ({answer['verdict']}); "
                        "it is archived as it is."
                    )
                return Substitute(descriptor, answer["size"], lambda: self._close(descriptor))
            case "not_a_database":
                self.warnings.append(
                    f"{printable(path)} begins as a SQLite database but SQLite cannot read it ({answer['text']}); "
                    "its file is archived as it is."
                )
                return None
            case "truncated":
                self.warnings.append(
                    f"The SQLite database {printable(path)} is cut off ({answer['text']}); "
                    "its file is archived as it is."
                )
                return None
            case "busy":
                raise SourceUnreadableError(
                    f"The database {printable(path)} cannot be copied: {answer['text']}.",
                    next_step="Try again when the app is less busy, or stop it for the export.",
                )
            case "no_space":
                raise NoSpaceError(f"There is no room for a copy of the database {printable(path)}.")
            case _:
                raise _unreadable(path, answer)

    def _close(self, descriptor: int) -> None:
        """Let go of a copy; once only, since the number may be another file's by then."""
        if descriptor in self._descriptors:
            self._descriptors.remove(descriptor)
            os.close(descriptor)

    def _empty_file(self, needed: int) -> _EmptyFile:
        """A file for a copy, in the first directory that takes it."""
        name = f"snapshot-{secrets.token_hex(6)}"
        for is_aside in (False, True):
            with contextlib.suppress(OSError):
                place = self._place(is_aside=is_aside)
                if free_bytes(place) - needed >= self._limits.free_bytes:
                    descriptor = os.open(name, _NEW, 0o600, dir_fd=place)
                    self._descriptors.add(descriptor)
                    return _EmptyFile(name, place, descriptor, is_aside)
        raise NoSpaceError(
            f"There is no room for a copy of a database of {needed} bytes, neither on the volume nor in the agent's "
            "state directory.",
            next_step="Make room, then export again.",
        )

    def _place(self, *, is_aside: bool) -> int:
        """A descriptor of a directory for copies: on the volume, or the agent's own aside."""
        if is_aside not in self._places:
            if is_aside:
                place = os.open(self._work_directory, DIRECTORY)
            else:
                with _reserved(self._directory, create=True) as reserved:
                    self._is_on_volume = True
                    remove_tree(_SNAPSHOTS, parent=reserved)
                    os.mkdir(_SNAPSHOTS, 0o700, dir_fd=reserved)
                    place = os.open(_SNAPSHOTS, DIRECTORY, dir_fd=reserved)
            self._descriptors.add(place)
            self._places[is_aside] = place
        return self._places[is_aside]

    def _clean_up(self) -> None:
        if self._is_on_volume:
            remove_snapshots(self._directory)


def remove_snapshots(directory: Path) -> None:
    """Remove from a volume what an export has there, or left there when its agent was killed."""
    with contextlib.suppress(OSError):
        with _reserved(directory, create=False) as reserved:
            remove_tree(_SNAPSHOTS, parent=reserved)
        # Not empty: an import has something in it.
        os.rmdir(directory / RESERVED_DIRECTORY)


async def ask_database(directory: Path, path: Path | str, questions: Questions) -> Answers:
    """Ask a database that an app is using.

    Args:
        directory: all that is in reach of whoever opens the database: of the app's.
        path: of the database, below it.
    Raises:
        SourceUnreadableError: it may not be opened, is locked, or is none.
    """
    async with started("ask", directory) as child:
        answer = await ask(child, live=str(path), busy_seconds=BUSY_SECONDS, **worded(questions))
    if "failed" in answer:
        raise _unreadable(os.path.basename(path), answer)
    return answers_of(answer)


def _unreadable(name: str, answer: dict[str, Any]) -> SourceUnreadableError:
    match answer["failed"]:
        case "no_memory" | "too_large":
            next_step = "Give the agent more memory, then try again."
        case "no_file":
            next_step = "Remove it: SQLite makes nothing but files there. Then try again."
        case "unfinished":
            next_step = (
                "Start the app, which finishes what it had begun in several databases at once; remove the journal if "
                "nobody knows where it comes from."
            )
        case _:
            next_step = "Run the agent under the app's uid, with the volume writable."
    return SourceUnreadableError(
        f"The database {printable(name)} cannot be read: {answer['text']}.", next_step=next_step
    )


@asynccontextmanager
async def started(task: str, directory: Path, *, aside: Path | None = None) -> AsyncIterator[Child]:
    """A child for one of the tasks that work with an app's databases, with nothing in reach but their directory.

    Args:
        aside: an empty file elsewhere, for the one copy that is made.
    Raises:
        SourceUnreadableError: the directory may not be opened.
    """
    directory = directory.resolve()
    try:
        descriptor = os.open(directory, DIRECTORY)
    except OSError as error:
        raise _unreadable(directory.name, {"failed": "refused", "text": error.strerror}) from error
    try:
        words = [task, str(descriptor), str(directory), *([str(aside)] if aside else [])]
        argv = ["agent.engines.sqlite.child", *words]
        async with start(Command(argv, jail=TOOL, pass_fds=(descriptor,), is_module=True)) as child:
            yield child
    finally:
        os.close(descriptor)


async def ask(child: Child, **request: object) -> dict[str, Any]:
    """Its answer to a request."""
    await _tell(child, request)
    return await answer_of(child)


async def _tell(child: Child, request: Mapping[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await child.write(json.dumps(request).encode() + b"\n")


@contextmanager
def _reserved(volume: Path, *, create: bool) -> Iterator[int]:
    """A descriptor of `.mathison-data` on a volume, which is no link."""
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(volume / RESERVED_DIRECTORY, 0o700)
    descriptor = os.open(volume / RESERVED_DIRECTORY, DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
