"""How long SQLite may work on an upload, and what is said when that, or its memory, was not enough.

A view, a trigger or a column of an upload can be work without end. A child stops its own queries at their time, and is
ended a little later when it cannot: SQLite looks at the clock between two steps, and one step can be long. The same
holds for an upload that a server has loaded already.
"""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path

from agent.archives.members import SQLITE_SIDECARS, printable
from common.errors import ArchiveDamagedError, LimitExceededError, ServiceError, ToolFailedError

LEAST_SECONDS = 60.0
CHECK_BYTES_A_SECOND = 4 << 20
"""A tenth of what a slow drive gives: an honest database has to get through, however large it is."""
_STEPS_BETWEEN_LOOKS = 10_000
"""Of SQLite's virtual machine: a few milliseconds."""
_NO_PAGE = re.compile(
    rf"unable to get the page. error code=({sqlite3.SQLITE_NOMEM}|{sqlite3.SQLITE_IOERR_NOMEM})\b|failed to get page"
)
_NEXT_STEP = "Do not import it if you do not know where it comes from. A database that is yours: make it smaller first."


def seconds_for(database: Path, bytes_a_second: int = CHECK_BYTES_A_SECOND) -> float:
    """What a database may take, by its size and that of the files beside it."""
    size_bytes = sum(size_of(Path(f"{database}{ending}")) for ending in ("", *SQLITE_SIDECARS))
    return seconds_for_bytes(size_bytes, bytes_a_second)


def seconds_for_bytes(size_bytes: int, bytes_a_second: int) -> float:
    return LEAST_SECONDS + size_bytes / bytes_a_second


def stop_at(connection: sqlite3.Connection, ends_at: float) -> None:
    """Have all queries interrupted from a moment of the monotonic clock on."""
    connection.set_progress_handler(lambda: time.monotonic() > ends_at, _STEPS_BETWEEN_LOOKS)


def is_interrupted(failure: sqlite3.Error) -> bool:
    """Whether `stop_at` is why a query failed."""
    return getattr(failure, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT


def took_too_long(name: str, seconds: float, *, engine: str = "SQLite") -> LimitExceededError:
    return LimitExceededError(
        f"{engine} did not get through the database {printable(name)} in {seconds:.0f} seconds; nothing was changed.",
        next_step=_NEXT_STEP,
    )


def needed_too_much(name: str) -> LimitExceededError:
    return LimitExceededError(
        f"A row of the database {printable(name)} needs more memory than an upload may take; nothing was changed.",
        next_step=_NEXT_STEP,
    )


def is_short_of_memory(failure: sqlite3.Error) -> bool:
    """Whether SQLite had none left, which it tells as an error of reading, too."""
    return getattr(failure, "sqlite_errorcode", 0) in (sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR_NOMEM)


def is_verdict_of_short_memory(verdict: str) -> bool:
    """Whether quick_check did not get hold of a page that is there, which says nothing about the page.

    SQLite 3.40 tells it among what is wrong with the database, for a page of an overflow chain without its code.
    """
    return _NO_PAGE.search(verdict) is not None


def sqlite_needed_too_much(name: str) -> LimitExceededError:
    return LimitExceededError(
        f"SQLite needs more memory for the database {printable(name)} than an upload may take; nothing was changed.",
        next_step=_NEXT_STEP,
    )


def ended_early(name: str, *, was_killed: bool) -> ServiceError:
    """What is said when the child that reads an upload ended without an answer.

    Args:
        was_killed: by SIGKILL; see `processes.ChildKilledError`, which is more than a child wants to import.
    """
    if was_killed:
        return ToolFailedError(
            f"What reads the database {printable(name)} was killed, as the kernel does where memory is short; nothing "
            "was changed.",
            next_step="Give the agent more memory, then import again.",
        )
    return ArchiveDamagedError(
        f"The database {printable(name)} cannot be worked with: what reads it ended early, the agent's log has more; "
        "nothing was changed."
    )


def size_of(path: Path) -> int:
    """Bytes; 0 for what is not there."""
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
