"""Function libraries of a file: judged by their text, then loaded by the server once, before anything is swapped.

To load a library is to run its top level. FUNCTION LOAD ends that after 500 ms if it is Lua that takes so long; the
load of a snapshot never does (LOAD_TIMEOUT_MS in functions.c of Redis 7.0 and of Valkey). So what may take long at all
is kept from the server: see agent.engines.rdb.lua. The rest, whether it compiles and nothing of it stands twice, the
server says itself, in a transaction that puts back what was there: no client ever meets such a library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from agent.engines.rdb.content import Library
from agent.engines.redis.connection import Connection, NotAllowedError, Reply, ReplyError, connect
from common.errors import (
    AppUnavailableError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ServiceError,
    ToolFailedError,
)

RIGHTS = "+multi +exec +function|list +function|dump +function|flush +function|load +function|restore"
_FLUSH = ("FUNCTION", "FLUSH", "SYNC")
_MOST_REASON = 300


async def require_libraries(connection: Connection, libraries: Sequence[Library]) -> None:
    """See that the server can load libraries, all of them together.

    Those that it has already, with the same code, it has loaded before: they are not looked at.

    Raises:
        ArchiveRefusedError: one does more than to register when it is loaded; names it and what it does.
        ArchiveIncompatibleError: the server does not take one; names it and the server's reason.
        AppUnavailableError: it does not let them be tried; names the rights that are missing.
    """
    if not libraries:
        return
    codes = [library.code for library in libraries]
    present = await _present(connection)
    if len({*codes}) == len(codes) and {*codes} <= present:
        return
    for library in libraries:
        if library.beyond and library.code not in present:
            raise ArchiveRefusedError(
                f"The function library {library.name!r} of the file {library.beyond}. A server runs that while it "
                "loads the file and could stand still on it for ever, so only libraries are taken that just define and "
                "register functions there.",
                next_step="If you trust it, load it into this server yourself (FUNCTION LOAD) and import again; or "
                f"delete it where the file comes from (FUNCTION DELETE {library.name}) and export again.",
            )
    await _try(connection, libraries)


async def _present(connection: Connection) -> set[bytes]:
    """The code of those that the server has; none where it does not tell."""
    try:
        answer = await connection.call("FUNCTION", "LIST", "WITHCODE")
    except (ReplyError, NotAllowedError):
        return set()
    codes = set()
    for library in cast(list[list[Reply]], answer):
        told = dict(zip(library[::2], library[1::2], strict=True))
        codes.add(cast(bytes, told.get(b"library_code", b"")))
    return codes


async def _try(connection: Connection, libraries: Sequence[Library]) -> None:
    """Load libraries in the place of those that are there, and put those back, all in one transaction.

    Over a connection of its own: closing that drops a transaction that was refused half-way.
    """
    async with connect(connection.login, stays_awake=False) as trial:
        try:
            before = cast(bytes, await trial.call("FUNCTION", "DUMP"))
            # Alone: were it refused, what follows would be executed as it comes.
            await trial.call("MULTI")
        except (ReplyError, NotAllowedError) as refusal:
            raise _cannot_try(trial, refusal) from refusal
        loads = [("FUNCTION", "LOAD", library.code) for library in libraries]
        *queued, executed = await trial.calls(
            [("FUNCTION", "DUMP"), _FLUSH, *loads, _FLUSH, ("FUNCTION", "RESTORE", before), ("EXEC",)]
        )
        refused = next((answer for answer in (*queued, executed) if isinstance(answer, ReplyError)), None)
        if refused is not None:
            raise _cannot_try(trial, refused) from refused
        there, _, *loaded, _, restored = cast(list[Reply | ReplyError], executed)
        if there != before or isinstance(restored, ReplyError):
            # A client loaded one between the two looks.
            await _put_back(trial, cast(bytes, there))
    for library, answer in zip(libraries, loaded, strict=True):
        if isinstance(answer, ReplyError):
            raise _not_taken(library.name, answer) from answer


async def _put_back(trial: Connection, libraries: bytes) -> None:
    try:
        await trial.call("FUNCTION", "RESTORE", libraries, "FLUSH")
    except ReplyError as failure:
        error = ToolFailedError(
            f"The server's function libraries could not be put back: {failure.text}. Its data is unchanged.",
            next_step="Load them again, as the app does when it starts.",
        )
        error.says_what_changed = True
        raise error from failure


def _not_taken(name: str, refusal: ReplyError) -> ServiceError:
    reason = "".join(one for one in refusal.text[:_MOST_REASON] if one.isprintable()).rstrip(".")
    return ArchiveIncompatibleError(
        f"The server does not take the function library {name!r} of the file: {reason}.",
        next_step=f"Mend or delete the library where the file comes from (FUNCTION DELETE {name}) and export again.",
    )


def _cannot_try(trial: Connection, refusal: ReplyError | NotAllowedError) -> ServiceError:
    what = "The file has function libraries, which have to be tried on the server before the import"
    if isinstance(refusal, NotAllowedError) or "NOPERM" in refusal.text:
        user = trial.login.user or "default"
        return NotAllowedError(
            f"{what}, and user {user} of {trial.login.place} may not do that.",
            next_step=f"Allow it: ACL SETUSER {user} {RIGHTS}",
        )
    if refusal.is_of_unknown_command:
        return ArchiveIncompatibleError(
            f"{what}, and {trial.login.place} has no command FUNCTION.",
            next_step="Import it into Redis 7.0 or newer, or Valkey, where FUNCTION was not renamed.",
        )
    return AppUnavailableError(f"{what}, and {trial.login.place} refuses that: {refusal.text}.")
