"""An upload that is loaded with the app's own rights leaves everything outside of its database as it was.

Statements are filtered (`restricted`), but a function of the upload may run while its rows are loaded, and could rename
a database that nobody uses, change the role's settings or its password. It cannot drop a database: that is not allowed
in a function. So what is outside is looked at before and after, and put back over a session that was open all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import msgspec
import psycopg
from psycopg import sql

from agent.engines.pg.imports.outside import Difference, Key, Outside, differences, look_outside, put_back
from agent.engines.pg.loading.loader_process import SESSION_NAME
from agent.engines.pg.server.connection import Connection, Login, LoginRefusedError, connect, translate
from common.errors import AppBusyError, ArchiveRefusedError, ServiceError

_MOST_NAMED = 6
_DATABASE_OWNER = "pg_database_owner"
"""The role, since PostgreSQL 14, whose only member is the owner of the database that a session is in."""
_ADVICE = "Do not import this file. With an admin_user for the agent no file can do that."

_AGAIN = "The agent looks again by itself, as soon as the server lets it in, and puts back what was changed."


class _Remembered(msgspec.Struct, frozen=True):
    """What was outside before a load, for the case that the agent is killed meanwhile."""

    role: str
    facts: list[tuple[Key, str]]
    server_version_num: int = 0


@asynccontextmanager
async def same_outside(
    login: Login, *, loads_into: str, session: str, remember: Callable[[str], None] | None = None
) -> AsyncIterator[None]:
    """What the block loads changes nothing outside.

    Args:
        login: of the role that loads, into a database that is not renamed.
        loads_into: the name of the database.
        session: what our own session is called.
        remember: keeps a text for `require_same_after_crash` beyond the end of the agent; empty: nothing any more.
    Raises:
        ArchiveRefusedError: at the end of the block: something was changed. Names it, and what could not be put back.
        ServiceError: at the end of the block: it could not be looked at; says so.
    """
    async with _session(login, session) as connection:
        before = await look_outside(connection)
        version = connection.info.server_version
        login = replace(login, server_version_num=version)
        if remember is not None:
            remember(msgspec.json.encode(_Remembered(login.user, list(before.items()), version)).decode())
        try:
            yield
        finally:
            try:
                await _require_same_at_end(connection, before, login, loads_into, session)
            except ArchiveRefusedError:
                raise
            except ServiceError as failure:
                _say_not_looked(failure, is_remembered=remember is not None)
                raise
    if remember is not None:
        remember("")


async def require_same_after_crash(
    remembered: str, logins: Sequence[Login], *, loads_into: str, session: str
) -> ArchiveRefusedError | None:
    """Put back what was changed while a load went on that an agent did not see the end of.

    Args:
        remembered: from `same_outside`.
        logins: of the agent, into a database that is not renamed.
    Returns:
        What was changed, and what could not be put back; None: nothing was, or its role is the agent's no more.
    Raises:
        ArchiveRefusedError: the role is not let in any more; what to do about it.
        AppUnavailableError, AppBusyError: not possible now.
    """
    known = msgspec.json.decode(remembered, type=_Remembered)
    login = next((one for one in logins if one.user == known.role), None)
    if login is None:
        return None
    login, before = replace(login, server_version_num=known.server_version_num), dict(known.facts)
    try:
        async with _session(login, session) as connection:
            try:
                await _require_same(connection, before, login, loads_into, when="as soon as the agent could")
            except ArchiveRefusedError as refusal:
                return refusal
    except LoginRefusedError as failure:
        raise _locked_out(login, failure, before) from failure
    return None


@asynccontextmanager
async def _session(login: Login, name: str = "mathison-data") -> AsyncIterator[Connection]:
    """Of the role itself: by a setting of it, sessions may begin as another role's."""
    async with connect(login, application_name=name) as connection:
        await connection.execute("SET ROLE NONE")
        yield connection


async def _require_same_at_end(
    connection: Connection, before: Outside, login: Login, loads_into: str, session: str
) -> None:
    try:
        await _require_same(connection, before, login, loads_into)
    except (psycopg.OperationalError, psycopg.InterfaceError):
        # A file can end its own role's sessions.
        try:
            async with _session(login, session) as another:
                await _require_same(another, before, login, loads_into)
        except LoginRefusedError as failure:
            raise _locked_out(login, failure, before) from failure
    except psycopg.Error as failure:
        raise translate(failure, login) from failure


def _say_not_looked(failure: ServiceError, *, is_remembered: bool) -> None:
    """Of an error for which nobody knows what the file changed."""
    failure.text = f"{failure.text} Whether the file changed anything outside of its database could not be seen."
    failure.args = (failure.text,)
    failure.says_what_changed = True
    if is_remembered:
        failure.next_step = f"{failure.next_step} {_AGAIN}".strip()


def _locked_out(login: Login, failure: LoginRefusedError, before: Outside) -> ArchiveRefusedError:
    """Of a load after which the role is not let in any more."""
    return _refusal(
        f"While the file was loaded, the agent's own session was ended, and now: {failure.text} What else the file "
        "changed outside of its database could not be seen.",
        next_step=f"{_let_in_again(login, before)}{_AGAIN} {_ADVICE}",
    )


def _let_in_again(login: Login, before: Outside) -> str:
    """What a superuser runs, by what the role could change; with a space at the end."""
    role, database = (sql.Identifier(name).as_string(None) for name in (login.user, login.database))
    statements = [f"where its password was changed, ALTER ROLE {role} PASSWORD '…';"]
    if any(key.kind == "name" and name == login.database for key, name in before.items()):
        statements.append(
            f"where its database was closed, ALTER DATABASE {database} ALLOW_CONNECTIONS true CONNECTION LIMIT -1; "
            f"GRANT CONNECT ON DATABASE {database} TO {role};"
        )
    return f"A superuser lets the role in again: {' '.join(statements)} "


async def _require_same(
    connection: Connection, before: Outside, login: Login, loads_into: str, *, when: str = "at once"
) -> None:
    await end_loaders(connection, loads_into)
    found = differences(before, await look_outside(connection, before))
    left = await put_back(connection, before) if found else []
    if any(one.key.kind == "owner" and one.now == _DATABASE_OWNER for one in left):
        left = await _put_back_within(login.to(loads_into), before, left)
    changed = [one.sentence for one in found]
    if await _take_back(connection, login, loads_into, before):
        changed.append(f"owner of database {loads_into}: {login.user} became {_DATABASE_OWNER}")
    if await _why_not_let_in(login):
        await _set_password(connection, login)
        if reason := await _why_not_let_in(login):
            raise _not_let_in(login, reason, changed, left)
        changed.append(f"password of role {login.user}")
    if left:
        raise _refusal(
            f"While the file was loaded, its code changed things outside of its database. This could not be put back: "
            f"{_listed([one.sentence for one in left])}.",
            next_step=f"{_remedies(left)}{_ADVICE}",
        )
    if changed:
        # Nothing is changed now, which is what the end of an import says.
        raise ArchiveRefusedError(
            "While the file was loaded, something outside of its database was changed, by its code as far as can be "
            f"seen, and was put back {when} ({_listed(changed)}).",
            next_step=_ADVICE,
        )


async def _put_back_within(login: Login, before: Outside, left: list[Difference]) -> list[Difference]:
    """A database that was given to pg_database_owner is its former owner's only as seen from another of that one's."""
    with suppress(ServiceError, psycopg.OperationalError):
        async with _session(login) as connection:
            return await put_back(connection, before)
    return left


async def _take_back(connection: Connection, login: Login, loads_into: str, before: Outside) -> bool:
    """Make the database that was loaded its loader's again, so that it can be dropped; whether it was given away."""
    cursor = await connection.execute(
        "SELECT FROM pg_database WHERE datname = %s AND pg_get_userbyid(datdba) = %s", [loads_into, _DATABASE_OWNER]
    )
    if await cursor.fetchone() is None:
        return False
    statement = sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(loads_into))
    for key, owner in before.items():
        if key.kind == "owner" and owner == login.user:
            database = before[Key("name", key.subject)]
            with suppress(ServiceError, psycopg.OperationalError):
                async with _session(login.to(database)) as own:
                    await own.execute(statement)
                    break
    return True


async def _why_not_let_in(login: Login) -> str:
    """What the server says; empty: it is."""
    try:
        async with connect(login):
            return ""
    except LoginRefusedError as failure:
        return failure.text


async def _set_password(connection: Connection, login: Login) -> None:
    """As the agent knows it, hashed here as the server would, so that a server that logs statements logs none."""
    if login.password is None:
        return
    cursor = await connection.execute("SELECT current_setting('password_encryption')")
    row = await cursor.fetchone()
    algorithm = b"md5" if row == ("md5",) else b"scram-sha-256"
    hashed = connection.pgconn.encrypt_password(login.password.encode(), login.user.encode(), algorithm).decode()
    with suppress(psycopg.errors.DatabaseError):
        await connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(login.user), sql.Literal(hashed))
        )


def _not_let_in(login: Login, reason: str, changed: Sequence[str], left: Sequence[Difference]) -> ArchiveRefusedError:
    put_back = [one for one in changed if one not in {other.sentence for other in left}]
    return _refusal(
        f"After the file was loaded: {reason}"
        + (f" Put back was: {_listed(put_back)}." if put_back else "")
        + (f" This could not be put back: {_listed([one.sentence for one in left])}." if left else ""),
        next_step=f'Where the password was changed, a superuser sets it again: ALTER ROLE "{login.user}" '
        f"PASSWORD '…'; {_remedies(left)}{_ADVICE}",
    )


def _listed(sentences: Sequence[str]) -> str:
    more = f"; and {len(sentences) - _MOST_NAMED} more" if len(sentences) > _MOST_NAMED else ""
    return "; ".join(sentences[:_MOST_NAMED]) + more


def _remedies(left: Sequence[Difference]) -> str:
    """What a person runs, with a space at the end."""
    statements = [f"{statement.as_string(None)};" for one in left for statement in one.remedy]
    return f"Run: {' '.join(statements[:_MOST_NAMED])} " if statements else ""


def _refusal(text: str, *, next_step: str) -> ArchiveRefusedError:
    error = ArchiveRefusedError(text, next_step=next_step)
    error.says_what_changed = True
    return error


async def end_loaders(connection: Connection, database: str) -> None:
    """End what still loads into a database: of an agent that was killed, or a statement that failed here only.

    Raises:
        AppBusyError: it does not end.
    """
    mine = (
        "FROM pg_stat_activity WHERE usename = session_user AND datname = %(database)s AND pid <> pg_backend_pid()"
        " AND (application_name = %(session)s OR datname ~ '^mathison_new_')"
    )
    values = {"session": SESSION_NAME, "database": database}
    await connection.execute(f"SELECT pg_terminate_backend(pid) {mine}", values)
    for _ in range(200):
        cursor = await connection.execute(f"SELECT pid {mine}", values)
        if await cursor.fetchone() is None:
            return
        await asyncio.sleep(0.05)
    raise AppBusyError(
        "A session of an earlier import does not end.",
        next_step=f"End it, it is called {SESSION_NAME} in pg_stat_activity, then try again.",
    )
