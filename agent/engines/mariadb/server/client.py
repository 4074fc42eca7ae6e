"""SQL by the program `mariadb`, and what its errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.engines.mariadb.dumps import exact_rows
from agent.engines.mariadb.names import new_schema
from agent.engines.mariadb.names import quoted as quoted
from agent.engines.mariadb.server.kept_clients import kept_clients
from agent.engines.mariadb.server.sessions import SETTINGS
from agent.engines.mariadb.server.settings import Login
from agent.processes import Command, run
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    NoSpaceError,
    ServiceError,
    ToolFailedError,
)

WITHIN_SECONDS = (
    "SET @mathison = 1 /*M!100000 , max_statement_time = {seconds} */ /*!80000 , max_execution_time = {seconds}000 */;"
)
"""Ends a statement that takes longer; on MySQL a SELECT alone. Each server takes what is for the other as a comment."""
ANSWER_SECONDS = 10
"""Most time for a server to say its first word; a client program itself would wait for ever."""
LOCK_SECONDS = 10
"""Most time that a statement of ours waits for who uses a table; the server's own limit is a day."""
_BEGINNING = f"{SETTINGS}, lock_wait_timeout = {LOCK_SECONDS}"
"""What makes a session as ours are."""
ATTEMPTS = 3
PAUSE_SECONDS = 1.0
BACK_WITHIN_SECONDS = 30.0
"""Time for a server that ended in the middle of an exchange, in which nobody is told yet what came of it."""
_BACK_LOOK_SECONDS = 0.1
_ERROR = re.compile(r"ERROR (\d+)(?: \([0-9A-Z]{5}\))?(?: at line \d+)?: (.*)|(?:Got error:|Error) (\d+): (.*)")
_SILENT = re.compile(r"initial communication packet.*error: (?:110|11)\b")
_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\\\": "\\", "\\0": "\0"}
_ESCAPE = re.compile(r"\\[tn\\0]")

_UNREACHABLE = frozenset(
    {1040, 1044, 1045, 1049, 1053, 1203, 1226, 1698, 2002, 2003, 2005, 2006, 2013, 2026, 2061, 4151}
)
_LOCKED = frozenset({1205, 1213, 4178})
_NO_SPACE = frozenset({3, 28, 1021, 1114})
_TOO_LONG = 1969
_OPENING = frozenset({23, 24, 1005, 1016, 1017, 1030, 1033})
_TOO_MANY_FILES = re.compile(r"\b(?:error|errno|errcode):? 2[34]\b", re.IGNORECASE)
_NOT_ALLOWED = frozenset({1044, 1142, 1143, 1227, 1370, 1410})
_WITHOUT_KEY = frozenset({1173, 3750})
_BAD_DEFAULT = 1067
_AT_COMMIT = 1180
_BINARY_LOG = frozenset({1418, 1419})
_UNKNOWN_HERE = frozenset({1101, 1115, 1128, 1193, 1231, 1273, 1286, 1289, 1911, 3105, 4052, 4161})
"""Character sets, collations, engines, options, modes, defaults and types that other servers or releases have."""


CHANGED = frozenset({1242, 1263, 1264, 1265, 1292, 1300, 1366, 1406, 1411, 1441, 1525})
"""A value that the server would not keep as it is; 1242 is what `exact_rows` fails with."""
_NONE_OF_ENUM = 1242
_STAGED = re.compile(rf"`{new_schema('[0-9a-f]+')}`\.")
_ROW_NUMBER = re.compile(r" at row \d+$")

_T = TypeVar("_T")


async def patiently(act: Callable[[], Awaitable[_T]]) -> _T:
    """Do what may wait for a lock, again when it could not have it; AppBusyError when it never could."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(AppBusyError):
            return await act()
        await asyncio.sleep(PAUSE_SECONDS)
    return await act()


async def once_it_is_back(act: Callable[[], Awaitable[_T]]) -> _T:
    """Do what may be repeated, as soon as the server can be used; AppUnavailableError when it cannot be in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BACK_WITHIN_SECONDS
    while loop.time() < deadline:
        with contextlib.suppress(AppUnavailableError):
            return await act()
        await asyncio.sleep(_BACK_LOOK_SECONDS)
    return await act()


async def query(
    login: Login, sql: str, *, database: str = "", is_apart: bool = False, is_plain: bool = False
) -> list[list[str]]:
    """Run statements and return the rows of all of them, as text; NULL is "NULL".

    Bytes that are no UTF-8 are surrogates, in what is sent and in what comes.

    Args:
        is_apart: in a session of its own, for what leaves more behind than settings that `SETTINGS` names: others, the
            time zone too, locks, open tables, or no server.
        is_plain: in a session of its own as anybody gets it, without settings of ours.
    Raises:
        AppUnavailableError: no server, or it refuses the account.
        AppBusyError: a lock could not be had in time.
        ToolFailedError: a statement failed; those before it were carried out.
    """
    try:
        text = sql.encode(errors="surrogateescape")
        if (clients := kept_clients()) and not is_apart and not is_plain:
            output = await clients.ask(
                login,
                _command(login, "", "--unbuffered", "--skip-reconnect"),
                # A session cannot be led back to where it is in no database.
                beginning=f"{_BEGINNING}; USE {quoted(database or 'information_schema')};",
                question=text,
                within_seconds=ANSWER_SECONDS,
            )
        else:
            if clients:
                await clients.release(login)
            options = [] if is_plain else [f"--init-command={_BEGINNING}"]
            output = await run(_command(login, database, *options), input_bytes=text)
    except ToolFailedError as failure:
        raise error_of_query(failure.text, login) from failure
    lines = output.decode(errors="surrogateescape").split("\n")[:-1]
    return [[_plain(cell) for cell in line.split("\t")] for line in lines]


def _command(login: Login, database: str, *options: str) -> Command:
    argv = [
        str(login.client),
        *login.options(),
        f"--connect-timeout={ANSWER_SECONDS}",
        "--batch",
        "--skip-column-names",
        "--binary-mode",
        # Those in routines, which clients of MySQL leave out by default.
        "--comments",
        # Not even if the server asks for a file of ours.
        "--local-infile=0",
        *options,
        *([f"--database={database}"] if database else []),
    ]
    return Command(argv, environment=login.environment())


def literal(text: str) -> str:
    """A string as SQL needs it, in any sql_mode without NO_BACKSLASH_ESCAPES or with it: without either character."""
    if "'" in text or "\\" in text:
        return "0x" + text.encode().hex()
    return f"'{text}'"


def of_schema(column: str, database: str) -> str:
    """The condition that a row of information_schema is of a database. Of routines and events MariaDB tells those of
    another one, too, whose name differs in case alone."""
    name = literal(database)
    return f"{column} = {name} AND (@@lower_case_table_names <> 0 OR CAST({column} AS BINARY) = {name})"


def error_of_query(text: str, login: Login) -> ServiceError:
    """The error for what a client program said while it worked on the app's behalf."""
    number, said = _parsed(text)
    if number in _UNREACHABLE and _SILENT.search(said):
        return AppUnavailableError(
            f"{login.place} took the connection and said nothing for {ANSWER_SECONDS} seconds.",
            next_step="See whether the server hangs, and whether it is MariaDB that listens there.",
        )
    if number in _UNREACHABLE:
        return AppUnavailableError(f"{login.place} cannot be used by {login.user}: {said}.")
    if number in _LOCKED:
        return AppBusyError(
            f"{login.place} did not give a lock in time: {said}.", next_step="Try again when the app is less busy."
        )
    if number == _TOO_LONG:
        return ToolFailedError(
            f"{login.place} was not done with a statement in the time for it, and was told to leave it.",
            next_step="See that the disk of the server is not full: it waits for room without a word. Then try again.",
        )
    if number in _NO_SPACE:
        return NoSpaceError(f"{login.place} has no room: {said}.")
    if _is_of_files(number, said):
        return AppUnavailableError(
            f"{login.place} cannot open any more files: {said}.",
            next_step="Raise open_files_limit of the server; each partition of a MyISAM or Aria table takes two.",
        )
    return ToolFailedError(f"{login.place} refused a statement: {said or text}.")


def error_of_load(text: str, login: Login, rows: str = "") -> ServiceError:
    """The error for what a client program said while it loaded an upload.

    Args:
        rows: for a person, which rows it was at, if any.
    """
    number, said = _parsed(text)
    # It is gone when somebody reads this.
    said = re.sub(rf"user '{re.escape(login.user)}'@'[^']*'", "the account that loads", said)
    if number in _NOT_ALLOWED:
        return ArchiveRefusedError(f"The file tries what an import may not do: {said}.")
    if number in _BINARY_LOG:
        return ArchiveIncompatibleError(
            f"The file has functions or triggers, which this server takes from nobody but a superuser: {said}.",
            next_step="Set log_bin_trust_function_creators=1 on the server, which writes a binary log, or dump without "
            "--routines and --triggers.",
        )
    if number in _UNKNOWN_HERE:
        return ArchiveIncompatibleError(
            f"The file needs what this server does not have: {said}.",
            next_step="Import it into a server of the kind and version that it comes from, or a later one.",
        )
    if number in _WITHOUT_KEY:
        return ArchiveIncompatibleError(
            f"The file has a table without a primary key, which this server does not take: {said}.",
            next_step="Set innodb_force_primary_key, which MySQL calls sql_require_primary_key, to OFF on the server "
            "while it is imported, or give the table a primary key at its source, then dump again.",
        )
    if number == _BAD_DEFAULT:
        return ArchiveIncompatibleError(
            f"The file has a column whose default this server does not take: {said}.",
            next_step="Correct the default at its source, then dump again. MySQL itself writes a character of four "
            "bytes in the list of an ENUM or SET as `?`, so that a default of that list is none: give it others there.",
        )
    if number in CHANGED:
        return error_of_change(number, said, rows)
    if number in _UNREACHABLE | _LOCKED | _NO_SPACE or not number or _is_of_files(number, said):
        return error_of_query(text, login)
    if number == _AT_COMMIT:
        return ArchiveDamagedError(
            f"{rows or 'The file'}: the server does not keep what is there: {said}. That is all it says of a value "
            "that is twice in a unique key, where the file sets unique_checks=0."
        )
    return ArchiveDamagedError(
        f"The server does not take what is in the file: {said}.",
        next_step="Take another copy of the file. If it is whole, the server that it comes from knows words which this "
        "one does not, as MySQL's keys on expressions: change that at its source, then dump again.",
    )


def error_of_change(number: int, said: str, rows: str) -> ArchiveIncompatibleError:
    """The error for a value of which the server says that it would keep another.

    Args:
        number, said: of the server's error or warning.
        rows: for a person, where it is.
    """
    # Counted within a part of a statement.
    why = "one is none of an ENUM's list" if number == _NONE_OF_ENUM else _STAGED.sub("", _ROW_NUMBER.sub("", said))
    return exact_rows.changed_value(rows or "The file", why)


def _is_of_files(number: int, said: str) -> bool:
    """Whether the server, or the machine for it, has as many files open as may be."""
    return number in _OPENING and _TOO_MANY_FILES.search(said) is not None


def _parsed(text: str) -> tuple[int, str]:
    """Number and words of the first error that a program printed; 0 when there is none."""
    found = _ERROR.search(text)
    if found is None:
        return 0, ""
    return int(found[1] or found[3]), (found[2] or found[4]).strip().rstrip(".")


def _plain(cell: str) -> str:
    return _ESCAPE.sub(lambda escape: _ESCAPES[escape[0]], cell)
