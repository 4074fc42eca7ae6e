"""SQLite databases in uploads: looked at, and completed, in a jail."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.archives.members import printable
from agent.engines.child_bounds import bounded
from agent.engines.filesystem import DIRECTORY
from agent.engines.sqlite.answers import answer_of, answers_of, worded
from agent.engines.sqlite.bounds import (
    ended_early,
    needed_too_much,
    seconds_for,
    sqlite_needed_too_much,
    took_too_long,
)
from agent.engines.sqlite.questions import Answers, Questions
from agent.jail import Jail
from agent.processes import ChildKilledError, Command, start
from common.errors import (
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    NoSpaceError,
    ToolFailedError,
)

_CHECK_JAIL_BYTES = 1 << 30


@dataclass(frozen=True)
class DatabaseFacts:
    """What a whole database of an upload says of itself."""

    tables: list[str]
    answers: Answers


async def absorb_changes(path: Path) -> None:
    """Take into an uploaded database what lies in files beside it: what was in its -wal when it was copied.

    Afterwards it is one file. Works in a jail that may write to the file's directory.

    Raises:
        ArchiveDamagedError: SQLite cannot do that.
        LimitExceededError: it takes longer than any honest one would.
        NoSpaceError: there is no room for it.
    """
    answer = await ask_jailed("absorb", path, jail_writes_bytes=None)
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
    answer = await ask_jailed("check", path, jail_writes_bytes=0, **worded(questions or Questions()))
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
    facts = DatabaseFacts(answer["tables"], answers_of(answer))
    if missing := [table for table in required_tables if table not in facts.tables]:
        raise ArchiveIncompatibleError(
            f"The database {printable(path.name)} is not of this app: it lacks the tables {', '.join(missing)}."
        )
    return facts


async def ask_jailed(task: str, path: Path, *, jail_writes_bytes: int | None, **request: object) -> dict[str, Any]:
    """One request to a child that sees nothing but the database's directory."""
    path = path.resolve()
    directory = os.open(path.parent, DIRECTORY)
    try:
        seconds = seconds_for(path)
        text = json.dumps({"directory": directory, "path": str(path), "seconds": seconds, **request})
        jail = Jail(file_size_bytes=jail_writes_bytes, address_space_bytes=_CHECK_JAIL_BYTES)
        command = Command(["agent.engines.sqlite.child", task, text], jail=jail, pass_fds=(directory,), is_module=True)
        async with bounded(path.name, seconds), start(command) as child:
            await child.close_stdin()
            answer = await answer_of(child)
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
