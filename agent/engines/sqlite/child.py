"""The children of `snapshots` and `uploads`: a SQLite database is opened in a process of its own.

The one fact to know: POSIX locks belong to the process, and closing any descriptor of a file drops all of them. A
process that reads a database for an archive must therefore not be the one that has it open with SQLite.

Tasks are named by the first argument: `snapshot` and `ask` work with the app's databases, as the agent's user but
with nothing but their directory in reach, since what an app does there meanwhile must lead nowhere else; `check` and
`absorb` work with an upload and run in a jail. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from agent import rights
from agent.archives.members import SQLITE_MAGIC, printable
from agent.engines.sqlite import journals
from agent.engines.sqlite.bounds import is_interrupted, is_short_of_memory, is_verdict_of_short_memory, stop_at
from agent.engines.sqlite.questions import asked, not_a_table
from agent.jail import enter, parse_argv
from common.sqlite_tables import quick_check

_WRITE_VERSION_AT = 18
_HEADER_BYTES, _LARGEST_PAGE = 100, 65536
_ROLLBACK, _WAL = b"\1\1", b"\2\2"
_BUSY_SECONDS = 5.0
_RETRY_SECONDS = 0.05
_LOOK_SECONDS = 0.1
_MOST_OPEN = 256
_CODES = {
    sqlite3.SQLITE_NOTADB: "not_a_database",
    sqlite3.SQLITE_CORRUPT: "not_a_database",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_FULL: "no_space",
    sqlite3.SQLITE_INTERRUPT: "too_long",
    sqlite3.SQLITE_TOOBIG: "too_large",
}
_NO_MEMORY = "SQLite has no memory left"


class _FailedError(Exception):
    """An answer other than success."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def main() -> None:
    """Carry out requests from stdin until it ends; for those of a jail the only one is the second argument."""
    jail, parent_pid, (task, *arguments) = parse_argv(sys.argv[1:])
    if task in _JAILED:
        request = json.loads(arguments[0])
        if rights.lock_into(request["directory"]):
            request["path"] = f"/{os.path.basename(request['path'])}"
        enter(jail, parent_pid=parent_pid)
        rights.keep(rights.DAC_OVERRIDE)
        _answer(_JAILED[task], request)
        return
    work = _UNJAILED[task]
    enter(jail, parent_pid=parent_pid)
    descriptor, path, *aside = arguments
    # In a directory of the agent's, so before nothing but the app's is in reach.
    copy = _Copy.opened(aside[0]) if aside else None
    place = rights.keep_to(int(descriptor), path)
    os.close(int(descriptor))
    for line in sys.stdin:
        _answer(work, {**json.loads(line), "place": place, "copy": copy})


def _answer(work: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]) -> None:
    try:
        answer = work(request)
    except _FailedError as failure:
        answer = {"failed": failure.kind, "text": str(failure)}
    except sqlite3.Error as failure:
        # Extended codes have the primary one in their last byte.
        kind = _CODES.get(getattr(failure, "sqlite_errorcode", 0) & 0xFF, "refused")
        answer = {"failed": kind, "text": str(failure)}
        if is_short_of_memory(failure):
            answer = {"failed": "no_memory", "text": _NO_MEMORY}
    except OSError as failure:
        kind = "no_space" if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "refused"
        answer = {"failed": kind, "text": failure.strerror or str(failure)}
    except MemoryError:
        answer = {"failed": "too_large", "text": "a row of it needs more memory than there is"}
    except Exception as failure:  # whatever an upload brings about, it is no traceback for a person
        answer = {"failed": "refused", "text": f"it cannot be worked with ({type(failure).__name__})"}
    _say(answer)


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


@dataclass(frozen=True)
class _Copy:
    """An empty file without a name: as SQLite writes it, as SQLite reads it when it is complete, and as it is."""

    written: sqlite3.Connection
    read: sqlite3.Connection
    descriptor: int

    @classmethod
    def opened(cls, path: str) -> _Copy:
        """By its name, which is removed."""
        copy = cls(_connect(path, "rw"), _connect(path, "ro&nolock=1"), os.open(path, os.O_RDWR | os.O_CLOEXEC))
        os.unlink(path)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
            copy.written.execute(f"PRAGMA {pragma}")
        return copy

    def close(self) -> None:
        """All three."""
        self.written.close()
        self.read.close()
        os.close(self.descriptor)


class _Guard(threading.Thread):
    """Ends this process with an answer as soon as SQLite could wait for ever: it opens a fifo that somebody has put
    beside the database meanwhile, and no time limit of its own gets it out of that.

    A context manager: while SQLite has the database. Nobody else answers meanwhile.
    """

    def __init__(self, database: str) -> None:
        super().__init__(name=f"watch what lies beside {database}", daemon=True)
        self._database = database
        self._is_over = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        """Look until it is over."""
        while not self._is_over.wait(_LOOK_SECONDS):
            if name := journals.no_file_beside(self._database):
                _say({"failed": "no_file", "text": _no_file(name)})
                os._exit(0)


def _no_file(name: str) -> str:
    return f"{printable(name)} beside it is no file, and SQLite would wait for it"


def _snapshot(request: dict[str, Any]) -> dict[str, Any]:
    """Copy a live database, as it is at one moment, into an empty file, whose name is removed.

    A request that `is_asked_again` is followed by another, for answers from the same copy, unless that is damaged:
    nobody else can open it any more, and whoever reads its file need not wait for them.
    """
    source_path = os.path.join(request["place"], request["source"])
    with contextlib.ExitStack() as opened:
        busy_seconds = request.get("busy_seconds", _BUSY_SECONDS)
        begun = _begun_page(source_path)
        source = connect_live(source_path, busy_seconds=busy_seconds)
        opened.callback(source.close)
        copy = request["copy"] or _Copy.opened(os.path.join(request["place"], request["target"]))
        opened.callback(copy.close)
        if not {tuple(request["source_file"]), tuple(request["target_file"])} <= _opened_files():
            raise _FailedError("not_a_database", "it was exchanged for another file meanwhile")
        with _Guard(source_path):
            _backup(source, copy.written, seconds=busy_seconds)
            copy.written.close()
            source.close()
        if begun is not None and begun.is_all_of(copy.descriptor):
            copied = os.fstat(copy.descriptor).st_size
            raise _FailedError("truncated", f"it has {begun.end} bytes where its header says {copied}")
        os.pwrite(copy.descriptor, _ROLLBACK, _WRITE_VERSION_AT)
        verdict = _verdict(copy.read)
        answer = {"size": os.fstat(copy.descriptor).st_size, "verdict": verdict}
        if verdict != "ok":
            return answer
        answer |= asked(copy.read, request)
        if not request.get("is_asked_again"):
            return answer
        _say(answer)
        return asked(copy.read, json.loads(sys.stdin.readline()))


@dataclass(frozen=True)
class _BegunPage:
    """What a database's file has of its last page, when that is not all of it: SQLite reads the rest as zeros."""

    start: int
    content: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.content)

    def is_all_of(self, copy: int) -> bool:
        """Whether a copy of the database has nothing more of that page, from a -wal or a later write."""
        page = os.pread(copy, _LARGEST_PAGE, self.start)
        # The header counts writes, and a copy is one.
        after_header = max(_HEADER_BYTES - self.start, 0)
        return (
            len(page) > len(self.content)
            and page[after_header : len(self.content)] == self.content[after_header:]
            and not any(page[len(self.content) :])
        )


def _begun_page(path: str) -> _BegunPage | None:
    """None where the file has whole pages only. Closes it, so not while this process has the database open."""
    with _regular(path) as file:
        # Stated is 1 for 65536.
        page_size = int.from_bytes(os.pread(file, 2, 16), "big")
        page_size = _LARGEST_PAGE if page_size == 1 else page_size
        size = os.fstat(file).st_size
        if not page_size or not size % page_size:
            return None
        start = size - size % page_size
        return _BegunPage(start, os.pread(file, size - start, start))


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """Answers about a live database, all of one moment."""
    path = os.path.join(request["place"], request["live"])
    with contextlib.closing(connect_live(path, busy_seconds=request["busy_seconds"])) as live:
        live.execute("PRAGMA trusted_schema=OFF")
        with _Guard(path):
            live.execute("BEGIN")
            return asked(live, request)


def _absorb(request: dict[str, Any]) -> dict[str, Any]:
    """Take into an uploaded database what lies beside it in its own files, as SQLite does after a crash."""
    path = request["path"]
    with contextlib.suppress(FileNotFoundError):
        # An index of the -wal that only the processes which made it may trust.
        os.unlink(f"{path}-shm")
    with contextlib.closing(_connect(path, "rw")) as staged:
        staged.execute("PRAGMA trusted_schema=OFF")
        stop_at(staged, time.monotonic() + request["seconds"])
        staged.execute("PRAGMA journal_mode=DELETE").fetchone()
        staged.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return {}


def _check(request: dict[str, Any]) -> dict[str, Any]:
    """The tables of an uploaded database and answers, or why it is none."""
    path = request["path"]
    with open(path, "rb", buffering=0) as file:
        head, size = file.read(100), os.fstat(file.fileno()).st_size
    if not head:
        raise _FailedError("not_a_database", "it is empty")
    if not head.startswith(SQLITE_MAGIC):
        raise _FailedError("not_a_database", "it is not a SQLite database")
    if head[_WRITE_VERSION_AT : _WRITE_VERSION_AT + 1] not in (_ROLLBACK[:1], _WAL[:1]):
        # SQLite reads one that it would have to be newer for to write.
        raise _FailedError("damaged", "its header says that this SQLite is too old to write to it")
    ends_at = time.monotonic() + request["seconds"]
    with contextlib.closing(_connect(path, "ro&immutable=1")) as checked:
        checked.execute("PRAGMA trusted_schema=OFF")
        stop_at(checked, ends_at)
        page_size = checked.execute("PRAGMA page_size").fetchone()[0]
        # Stated by the header when the program that changed the file last was younger than 2010.
        is_stated = head[24:28] == head[92:96]
        page_count = int.from_bytes(head[28:32], "big") if is_stated else -(-size // page_size)
        if size != page_size * page_count:
            kind = "truncated" if size < page_size * page_count else "damaged"
            raise _FailedError(kind, f"it has {size} bytes where its header says {page_size * page_count}")
        verdict = _verdict(checked)
        if verdict != "ok":
            raise _FailedError("damaged", verdict)
        if name := not_a_table(checked, request["tables"]):
            raise _FailedError("not_a_table", f"{name} is not a table in it")
        tables = [row[0] for row in checked.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {"tables": sorted(tables), **asked(checked, request, ends_at=ends_at)}


_JAILED = {"check": _check, "absorb": _absorb}
_UNJAILED = {"snapshot": _snapshot, "ask": _ask}


def connect_live(path: str, *, busy_seconds: float) -> sqlite3.Connection:
    """Open an app's database without leaving anything beside it that the app could not use."""
    status = os.lstat(path)
    with _regular(path) as file:
        is_wal = os.pread(file, 20, 0)[_WRITE_VERSION_AT:] == _WAL
    is_ours = os.geteuid() in (0, status.st_uid)
    if is_wal and not is_ours:
        raise _FailedError(
            "foreign_owner",
            f"it belongs to uid {status.st_uid} and this is uid {os.geteuid()}: opening it would leave files "
            "beside it that the app could not use",
        )
    return _connect(path, "rw" if is_ours else "ro", busy_seconds=busy_seconds)


@contextlib.contextmanager
def _regular(path: str) -> Iterator[int]:
    """A descriptor of a file, for the time of the block; whoever made it something else meanwhile holds nobody up."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _FailedError("refused", "it is no regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _connect(path: str, mode: str, *, busy_seconds: float = _BUSY_SECONDS) -> sqlite3.Connection:
    if name := journals.no_file_beside(path):
        raise _FailedError("no_file", _no_file(name))
    if journals.names_another_file(path):
        raise _FailedError("unfinished", journals.WORDS)
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=min(busy_seconds, _BUSY_SECONDS),
        isolation_level=None,
    )
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


def _backup(source: sqlite3.Connection, target: sqlite3.Connection, *, seconds: float) -> None:
    """Copy all pages in one step. In small steps it would begin anew with every write of the app (SQLite 3.40)."""
    ends_at = time.monotonic() + seconds

    def give_up(status: int, remaining: int, total: int) -> None:
        if status != sqlite3.SQLITE_DONE and time.monotonic() > ends_at:
            raise _FailedError("busy", f"it was locked for {seconds:.0f} seconds")

    source.backup(target, pages=-1, progress=give_up, sleep=_RETRY_SECONDS)


def _verdict(connection: sqlite3.Connection) -> str:
    """ "ok", or the first of what SQLite finds wrong."""
    connection.execute("PRAGMA trusted_schema=OFF")
    try:
        verdict = quick_check(connection)
    except sqlite3.Error as failure:
        if is_interrupted(failure) or is_short_of_memory(failure):
            raise
        return str(failure)
    if is_verdict_of_short_memory(verdict):
        raise _FailedError("no_memory", _NO_MEMORY)
    return verdict


def _opened_files() -> set[tuple[int, int]]:
    """(device, inode) of everything that this process has open; it has few files, and sees no /proc."""
    opened = set()
    for number in range(_MOST_OPEN):
        with contextlib.suppress(OSError):
            status = os.fstat(number)
            opened.add((status.st_dev, status.st_ino))
    return opened


if __name__ == "__main__":
    main()
