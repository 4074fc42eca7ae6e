"""SQLite databases: snapshots of those that an app is using, and checks of those in uploads.

Nothing of this opens a database in the agent's own process; see `sqlite_child` for why. Copying the files of a
database is no backup: under a writer every raw copy of 78 MB was torn, some of them passing quick_check (SQLite 3.40).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from agent.archives.members import printable
from agent.archives.writing import Substitute
from agent.engines.filesystem import DIRECTORY, free_bytes, remove_tree
from agent.engines.sqlite_bounds import (
    bounded,
    ended_early,
    needed_too_much,
    seconds_for,
    size_of,
    sqlite_needed_too_much,
    took_too_long,
)
from agent.engines.sqlite_questions import Answers as Answers
from agent.engines.sqlite_questions import Questions as Questions
from agent.engines.table_parts import Parts
from agent.jail import NOBODY, TOOL, Jail
from agent.limits import Limits
from agent.processes import Child, ChildKilledError, Command, start
from agent.rights import may_become_nobody
from common.errors import (
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    InternalError,
    NoSpaceError,
    SourceUnreadableError,
    ToolFailedError,
)
from common.seals import RESERVED_DIRECTORY

BUSY_SECONDS = 60.0
"""How long a locked database is waited for; apps hold their locks for milliseconds."""
_CHECK_JAIL_BYTES = 1 << 30
_SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class DatabaseFacts:
    """What a whole database of an upload says of itself."""

    tables: list[str]
    answers: Answers


class Snapshots:
    """Consistent copies of the databases below a directory, made while the app writes to them.

    A context manager. Each copy is a file without a name, so a kill leaves nothing behind but an empty directory, which
    the next one removes. Copies are made on the volume itself, or in the work directory where it has no room.

    Attributes:
        warnings: sentences about databases whose copy is not as it should be.
        answers: to the questions, from the very copies, by path; nothing of a damaged one.
    """

    def __init__(
        self, directory: Path, *, work_directory: Path, limits: Limits, questions: Questions | None = None
    ) -> None:
        self.warnings: list[str] = []
        self.answers: dict[str, Answers] = {}
        self._questions = questions or Questions()
        self._directory = directory.resolve()
        self._work_directory = work_directory
        self._limits = limits
        self._is_on_volume = False
        self._opened = AsyncExitStack()
        self._taking = asyncio.Lock()
        self._descriptors: set[int] = set()
        self._child: Child | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: Future[Substitute | None] | None = None

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
        if self._loop is None:
            raise RuntimeError("the snapshots are not open")
        self._asked = asyncio.run_coroutine_threadsafe(self.take(path, status), self._loop)
        return self._asked.result()

    def interrupt(self) -> None:
        """Let the thread go that waits in `substitute`."""
        if self._asked is not None:
            self._asked.cancel()

    async def take(self, path: str, status: os.stat_result) -> Substitute | None:
        """A copy of a database; None when SQLite says that it is none, so that the file itself has to do.

        Args:
            path: below the directory.
            status: of the file that was found there; another file is not copied.
        Raises:
            SourceUnreadableError: it may not be opened, or was locked all the time.
            NoSpaceError: there is no room for the copy.
        """
        async with self._taking:
            return await self._take(path, status)

    async def _take(self, path: str, status: os.stat_result) -> Substitute | None:
        if self._child is None:
            self._child = await self._opened.enter_async_context(_started("snapshot"))
        needed = status.st_size + size_of(self._directory / f"{path}-wal")
        target = self._make_room(needed)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._descriptors.add(descriptor)
        substitute = None
        try:
            answer = await _ask(
                self._child,
                source=str(self._directory / path),
                target=str(target),
                device=status.st_dev,
                inode=status.st_ino,
                busy_seconds=BUSY_SECONDS,
                **_worded(self._questions),
            )
            substitute = self._judged(path, answer, descriptor)
            self.answers[path] = _answers_of(answer)
            return substitute
        finally:
            target.unlink(missing_ok=True)
            if substitute is None:
                self._close(descriptor)

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

    def _make_room(self, needed: int) -> Path:
        """A name for a copy, in the first directory that takes it."""
        for place in (self._on_volume, self._in_work_directory):
            with contextlib.suppress(OSError):
                directory = place()
                if free_bytes(directory) - needed >= self._limits.free_bytes:
                    return directory / f"snapshot-{secrets.token_hex(6)}"
        raise NoSpaceError(
            f"There is no room for a copy of a database of {needed} bytes, neither on the volume nor in the agent's "
            "state directory.",
            next_step="Make room, then export again.",
        )

    def _on_volume(self) -> Path:
        if not self._is_on_volume:
            with _reserved(self._directory, create=True) as reserved:
                remove_tree(_SNAPSHOTS, parent=reserved)
                os.mkdir(_SNAPSHOTS, 0o700, dir_fd=reserved)
            self._is_on_volume = True
        return self._directory / RESERVED_DIRECTORY / _SNAPSHOTS

    def _in_work_directory(self) -> Path:
        return self._work_directory

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


async def ask_database(path: Path, questions: Questions) -> Answers:
    """Ask a database that an app is using.

    Raises:
        SourceUnreadableError: it may not be opened, is locked, or is none.
    """
    async with _started("ask") as child:
        answer = await _ask(child, live=str(path), busy_seconds=BUSY_SECONDS, **_worded(questions))
    if "failed" in answer:
        raise _unreadable(path.name, answer)
    return _answers_of(answer)


def _unreadable(name: str, answer: dict[str, Any]) -> SourceUnreadableError:
    is_memory = answer["failed"] in ("no_memory", "too_large")
    return SourceUnreadableError(
        f"The database {printable(name)} cannot be read: {answer['text']}.",
        next_step="Give the agent more memory, then try again."
        if is_memory
        else "Run the agent under the app's uid, with the volume writable.",
    )


async def absorb_changes(path: Path) -> None:
    """Take into an uploaded database what lies in files beside it: what was in its -wal when it was copied.

    Afterwards it is one file. Works in a jail that may write to the file's directory.

    Raises:
        ArchiveDamagedError: SQLite cannot do that.
        LimitExceededError: it takes longer than any honest one would.
        NoSpaceError: there is no room for it.
    """
    answer = await _ask_jailed("absorb", path, jail_writes_bytes=None)
    if answer.get("failed") == "no_space":
        raise NoSpaceError(f"There is no room to complete the database {printable(path.name)}.")
    if "failed" in answer:
        raise ArchiveDamagedError(
            f"The database {printable(path.name)} does not fit the files beside it: {answer['text']}.",
            next_step="Copy the files with the app stopped, or make the archive with this program.",
        )


async def check_database(
    path: Path, *, required_tables: Sequence[str] = (), questions: Questions | None = None
) -> DatabaseFacts:
    """Look at an uploaded database in a jail, and ask it something.

    Raises:
        ArchiveWrongKindError: no SQLite database, or an empty file.
        ArchiveTruncatedError: shorter than its header says.
        ArchiveDamagedError: quick_check finds something. (A flipped byte inside a value it does not: no page has a
            checksum. That is what an archive's digest is for.)
        ArchiveRefusedError: what has to be a table is something else, which could be work without end.
        LimitExceededError: it takes longer than any honest one would.
        ArchiveIncompatibleError: a required table is missing.
    """
    answer = await _ask_jailed("check", path, jail_writes_bytes=0, **_worded(questions or Questions()))
    text = f"The database {printable(path.name)} cannot be imported: {answer.get('text')}."
    match answer.get("failed"):
        case None:
            pass
        case "not_a_database":
            raise ArchiveWrongKindError(text)
        case "truncated":
            raise ArchiveTruncatedError(text, next_step="Send the whole file.")
        case "not_a_table":
            raise ArchiveRefusedError(f"{text.removesuffix('.')}; nothing was changed.")
        case _:
            raise ArchiveDamagedError(text)
    facts = DatabaseFacts(answer["tables"], _answers_of(answer))
    if missing := [table for table in required_tables if table not in facts.tables]:
        raise ArchiveIncompatibleError(
            f"The database {printable(path.name)} is not of this app: it lacks the tables {', '.join(missing)}."
        )
    return facts


@asynccontextmanager
async def _started(task: str) -> AsyncIterator[Child]:
    command = Command(["agent.engines.sqlite_child", task], jail=TOOL, is_module=True)
    async with start(command) as child:
        yield child


async def _ask_jailed(task: str, path: Path, *, jail_writes_bytes: int | None, **request: object) -> dict[str, Any]:
    """One request to a child that sees nothing but the database's directory."""
    path = path.resolve()
    directory = os.open(path.parent, DIRECTORY)
    try:
        seconds = seconds_for(path)
        text = json.dumps({"directory": directory, "path": str(path), "seconds": seconds, **request})
        jail = Jail(
            file_size_bytes=jail_writes_bytes,
            address_space_bytes=_CHECK_JAIL_BYTES,
            uid=NOBODY if may_become_nobody() else None,
        )
        command = Command(["agent.engines.sqlite_child", task, text], jail=jail, pass_fds=(directory,), is_module=True)
        async with bounded(path.name, seconds), start(command) as child:
            await child.close_stdin()
            answer = await _answer_of(child)
    except ToolFailedError as failure:
        raise ended_early(path.name, was_killed=isinstance(failure, ChildKilledError)) from failure
    finally:
        os.close(directory)
    match answer.get("failed"):
        case "too_long":
            raise took_too_long(path.name, seconds)
        case "too_large":
            raise needed_too_much(path.name)
        case "no_memory":
            raise sqlite_needed_too_much(path.name)
    return answer


async def _ask(child: Child, **request: object) -> dict[str, Any]:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await child.write(json.dumps(request).encode() + b"\n")
    return await _answer_of(child)


async def _answer_of(child: Child) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        piece = await child.read()
        if not piece:
            await child.check()
            raise InternalError("A SQLite child ended without an answer.")
        line += piece
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise InternalError("A SQLite child gave an answer that is none.")
    return answer


def _worded(questions: Questions) -> dict[str, Any]:
    return {
        "queries": dict(questions.queries),
        "tables": [*questions.tables, *(kind.table for kind in questions.kinds.values())],
        "with_content": questions.with_content,
        "without_columns": {table: list(columns) for table, columns in questions.without_columns.items()},
        "kinds": {name: [kind.table, list(kind.names)] for name, kind in questions.kinds.items()},
    }


def _answers_of(answer: dict[str, Any]) -> Answers:
    parts = msgspec.convert(answer.get("parts", {}), dict[str, Parts])
    return Answers(rows=answer.get("rows", {}), content=answer.get("content", {}), parts=parts)


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
