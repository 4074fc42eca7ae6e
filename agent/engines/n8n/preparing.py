"""Has the jailed child work on a database of n8n, and gives its answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent.engines.child_bounds import bounded
from agent.engines.filesystem import opened_directory
from agent.engines.n8n.preparations import Items, Prepared, Request
from agent.engines.sqlite.bounds import ended_early, seconds_for, seconds_for_bytes
from agent.jail import TOOL, Jail
from agent.processes import ChildKilledError, Command, run
from common.errors import InternalError, ToolFailedError, make_error

if TYPE_CHECKING:
    from agent.engines.pg.server.connection import Login

_MEMORY_BYTES = 2 << 30
"""A workflow's text is held while it is changed; n8n's own limit for one is far below."""

_BYTES_A_SECOND = 1 << 20
"""Each column that holds text is searched."""
LOCK_WAIT_SECONDS = 10
"""For a table that another session has locked: autovacuum lets go of one sooner."""
_LOOKING = "-c default_transaction_read_only=on -c default_transaction_isolation=repeatable\\ read"


async def prepare_file(database: Path, request: Request, *, most_bytes: int) -> Prepared:
    """Work on a SQLite file that was staged.

    Args:
        most_bytes: largest file that may be written.
    Raises:
        ArchiveIncompatibleError, ArchiveDamagedError: the database's fault, see `preparing_child.prepare`.
        LimitExceededError: it takes longer than any honest one would.
    """
    seconds = seconds_for(database, _BYTES_A_SECOND)
    try:
        with opened_directory(database.parent) as directory:
            request = msgspec.structs.replace(request, directory=directory, file=database.name, seconds=seconds)
            async with bounded(database.name, seconds):
                return await _ask(request, pass_fds=(directory,), jail=_jail(most_bytes))
    except ToolFailedError as failure:
        raise ended_early(database.name, was_killed=isinstance(failure, ChildKilledError)) from failure


async def look_at_file(database: Path, request: Request) -> Items:
    """What is in the SQLite file that an app has open."""
    with opened_directory(database.parent.resolve()) as directory:
        request = msgspec.structs.replace(request, directory=directory, file=database.name, is_live=True)
        return (await _ask(request, pass_fds=(directory,), jail=TOOL)).items


async def prepare_database(login: Login, request: Request, *, schema: str) -> Prepared:
    """Work on a PostgreSQL database that was loaded, or look at the app's own.

    Args:
        login: of the role that loaded it: triggers of the upload run with its rights.
    Raises:
        ArchiveIncompatibleError, LimitExceededError: as above.
        AppBusyError: another session has locked a table.
        ToolFailedError: the server refuses something.
    """
    # An n8n on SQLite needs none of it.
    from agent.engines.pg.imports.preview import size_of
    from agent.engines.pg.server.connection import connect

    async with connect(login) as connection:
        seconds = seconds_for_bytes(await size_of(connection), _BYTES_A_SECOND)
    # The server's own limit ends a query whose client was ended; what an upload calls may lift it, but not ours.
    limits = f"-c statement_timeout={seconds:.0f}s -c lock_timeout={LOCK_WAIT_SECONDS}s"
    parameters: dict[str, str | int | None] = {
        "host": login.host,
        "port": login.port,
        "dbname": login.database,
        "user": login.user,
        "password": login.password,
        "application_name": "mathison-data",
        "connect_timeout": 10,
        "gssencmode": "disable",
        "options": f"-c search_path= {limits} {'' if request.target_key else _LOOKING}",
    }
    request = msgspec.structs.replace(request, connection=parameters, schema=schema, seconds=seconds)
    async with bounded(login.database, seconds, engine="PostgreSQL"):
        return await _ask(request, pass_fds=(), jail=_jail(0))


def _jail(most_bytes: int) -> Jail:
    return Jail(file_size_bytes=most_bytes, address_space_bytes=_MEMORY_BYTES)


async def _ask(request: Request, *, pass_fds: tuple[int, ...], jail: Jail) -> Prepared:
    command = Command(["agent.engines.n8n.preparing_child"], jail=jail, pass_fds=pass_fds, is_module=True)
    answer = await run(command, input_bytes=msgspec.json.encode(request))
    try:
        prepared = msgspec.json.decode(answer, type=Prepared)
    except msgspec.DecodeError as failure:
        raise InternalError("The child that prepares n8n's database gave an answer that is none.") from failure
    if prepared.reason:
        raise make_error(prepared.reason, prepared.text, next_step=prepared.next_step)
    return prepared
