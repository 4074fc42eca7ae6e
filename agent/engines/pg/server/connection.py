"""How one role reaches one database, and the errors of that way in the product's own classes.

A password goes to libpq programs in their environment (PGPASSWORD), which only their owner and root can read: a
password file would outlive a kill -9 of the agent. It never stands on argv, in a log or in an error text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import pq, sql

from agent.engines.pg.server.text_errors import DISK_FULL, OUT_OF_LOCKS, joined
from common.errors import AppBusyError, AppUnavailableError, NoSpaceError, ServiceError, ToolFailedError

CONNECT_TIMEOUT_SECONDS = 10
"""For a server beside us; one that takes longer to answer is not there."""
LOCK_WAIT_SECONDS = 120
"""For what somebody else holds, as long as a dump waits; a prepared transaction may hold it for ever."""
_CALM = {
    "search_path": "",
    "local_preload_libraries": "",
    "exit_on_error": "off",
    "standard_conforming_strings": "on",
    "row_security": "on",
    "quote_all_identifiers": "off",
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": f"{LOCK_WAIT_SECONDS}s",
    "idle_in_transaction_session_timeout": "0",
    "tcp_user_timeout": "0",
}
"""Settings of a role or database are made for the app, or by a file, and would cut our work short or keep us out. What
the first packet of a connection says goes before them; a server refuses it where it does not know a name."""
_CALM_SINCE = {"idle_session_timeout": 140_000, "transaction_timeout": 170_000}
"""By the version that brought them."""

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class LoginRefusedError(AppUnavailableError):
    """The server runs and does not let the role in."""


@dataclass(frozen=True)
class Login:
    """One role's way into one database.

    Attributes:
        host: a name, an address, or the directory of a unix socket.
        server_version_num: known from an earlier connection, so that no setting can end the next one; 0: not known.
    """

    host: str
    port: int
    database: str
    user: str
    password: str | None = field(default=None, repr=False)
    server_version_num: int = field(default=0, compare=False)

    @property
    def place(self) -> str:
        """The server, for texts."""
        return f"PostgreSQL at {self.host}:{self.port}"

    def to(self, database: str) -> Login:
        """The same role's way into another database of the server."""
        return replace(self, database=database)

    def environment(self, *, application_name: str) -> Mapping[str, str]:
        """The same as libpq's variables, for its programs. Holds the password."""
        variables = {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": self.database,
            "PGUSER": self.user,
            "PGAPPNAME": application_name,
            "PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT_SECONDS),
            "PGGSSENCMODE": "disable",
        }
        if self.password is not None:
            variables["PGPASSWORD"] = self.password
        return variables

    def conninfo(self, *, application_name: str) -> str:
        """The same as libpq's connection string. Holds the password.

        The search_path is empty from the first moment on, whatever role and database say: a database made from an
        upload may hold operators named like those of our queries.
        """
        settings = _CALM | _calm_since(self.server_version_num)
        return psycopg.conninfo.make_conninfo(
            host=self.host,
            port=self.port,
            dbname=self.database,
            user=self.user,
            password=self.password,
            application_name=application_name,
            client_encoding="UTF8",
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            gssencmode="disable",
            options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
        )


def _calm_since(server_version_num: int) -> dict[str, str]:
    return {name: "0" for name, since in _CALM_SINCE.items() if server_version_num >= since}


@asynccontextmanager
async def connect(login: Login, *, application_name: str = "mathison-data") -> AsyncIterator[Connection]:
    """A connection in autocommit mode with an empty search_path, whatever settings the role and the database have.

    Errors of psycopg that the block lets out become ours, see `server_errors`.

    Raises:
        AppUnavailableError: the server does not answer, or refuses the role or the database; the text says which.
        NoSpaceError: its disk is too full to let anybody in.
    """
    with server_errors(login):
        connection = await _open(login, application_name)
        try:
            if newer := _calm_since(connection.info.server_version).keys() - _calm_since(login.server_version_num):
                await connection.execute("; ".join(f"SET {name} = 0" for name in newer))
            yield connection
        finally:
            await connection.close()


async def _open(login: Login, application_name: str) -> Connection:
    try:
        return await psycopg.AsyncConnection.connect(
            login.conninfo(application_name=application_name), autocommit=True, prepare_threshold=None
        )
    except psycopg.OperationalError as failure:
        raise await _explain(login, failure) from failure


async def _explain(login: Login, failure: psycopg.OperationalError) -> ServiceError:
    """Why there is no connection. libpq gives no SQLSTATE then, and texts may be in any language: so ask the server."""
    public = replace(login, password=None).conninfo(application_name="mathison-data").encode()
    state = await asyncio.to_thread(pq.PGconn.ping, public)
    if state == pq.Ping.NO_RESPONSE:
        return AppUnavailableError(
            f"{login.place} does not answer.", next_step="See whether the server runs and where it listens."
        )
    if state == pq.Ping.REJECT:
        return AppUnavailableError(
            f"{login.place} is starting up or shutting down.", next_step="Try again in a moment."
        )
    said = joined(str(failure)).splitlines()[-1]
    reason = (said.rpartition("FATAL: ")[2] if "FATAL: " in said else said.rpartition(" failed: ")[2]).strip()
    if "No space left on device" in said:
        return NoSpaceError(
            f"The disk of {login.place} is full, and so it lets nobody into database {login.database}: {reason}",
            next_step=DISK_FULL,
        )
    return LoginRefusedError(
        f"{login.place} refuses role {login.user} for database {login.database}: {reason}",
        next_step=_to_be_let_in(login, reason),
    )


def _to_be_let_in(login: Login, reason: str) -> str:
    """What to do. A limit that was reached is known by its English text only, as the server's log mostly is."""
    if not _TAKEN.search(reason):
        return "Check user, password_file and database in the agent's settings."
    database, role = (sql.Identifier(name).as_string(None) for name in (login.database, login.user))
    if "connections for database" in reason:
        limit = f"of the database (ALTER DATABASE {database} CONNECTION LIMIT …;)"
    elif "connections for role" in reason:
        limit = f"of the role (ALTER ROLE {role} CONNECTION LIMIT …;)"
    else:
        limit = "of the server (max_connections in postgresql.conf, and a restart)"
    return (
        f"Stop the app, or end sessions that it does not need, or let a superuser raise the limit {limit}; try again."
    )


_TAKEN = re.compile(r"too many connections|too many clients|remaining connection slots")
"""What InitPostgres and InitProcess say where a limit of sessions is reached (PostgreSQL 13 to 18)."""


@contextmanager
def server_errors(login: Login) -> Iterator[None]:
    """Turn psycopg's errors into ours, see `translate`."""
    try:
        yield
    except psycopg.Error as failure:
        raise translate(failure, login) from failure


def translate(failure: psycopg.Error, login: Login) -> ServiceError:
    """AppUnavailableError, AppBusyError, NoSpaceError, or ToolFailedError with what the server said."""
    said = joined(failure.diag.message_primary or str(failure))
    match failure:
        case psycopg.errors.DiskFull():
            return NoSpaceError(
                f"The disk of {login.place} is full: {said}",
                next_step=DISK_FULL,
            )
        case psycopg.errors.LockNotAvailable():
            return AppBusyError(
                f"{login.place} did not let role {login.user} have a lock within {LOCK_WAIT_SECONDS} seconds: {said}",
                next_step="See in pg_locks and pg_prepared_xacts who holds it, end that, then try again.",
            )
        case psycopg.errors.OutOfMemory():
            return ToolFailedError(f"{login.place} reports: {said}", next_step=OUT_OF_LOCKS)
        case psycopg.errors.InsufficientPrivilege():
            return AppUnavailableError(
                f"{login.place} does not let role {login.user} do what is needed: {said}",
                next_step="Give the role the right, or the agent an admin_user.",
            )
        case psycopg.OperationalError() | psycopg.InterfaceError() if failure.sqlstate in _GONE:
            return AppUnavailableError(
                f"{login.place} went away: {said.splitlines()[-1]}", next_step="See whether the server runs."
            )
    return ToolFailedError(f"{login.place} reports: {said}")


_GONE = {None, "57P01", "57P02", "57P03", "08000", "08003", "08006"}
"""The connection broke, or an administrator, a crash or a start-up broke it."""
