"""Who may do what in a server, and so which way an import goes, or why none.

A throw-away role is what makes an upload harmless, so the best way needs the rights to make databases and roles.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agent.engines.pg.aside.moving import not_movable
from agent.engines.pg.server.catalog import (
    DatabaseFacts,
    ServerFacts,
    look_at_database,
    look_at_server,
    reaching_rights,
    tables_with_hidden_rows,
    unreadable_parts,
)
from agent.engines.pg.server.connection import Connection, Login, LoginRefusedError, connect
from agent.engines.pg.server.room import Disk, look_at_disk
from agent.engines.pg.server.settings import PostgresSettings
from common.errors import AppUnavailableError, NoSpaceError, ServiceError
from common.wording import some_of

_MOST_NAMES = 5
_PARAMETERS_SINCE = 150_000
"""The version that brought privileges on settings."""


class Way(enum.Enum):
    """How an import is done; the value stands in journals."""

    BESIDE = "beside"
    """A new database beside the app's; see beside.py."""
    SAME_DATABASE = "same_database"
    """New schemas in the app's own database; see same_database.py."""


@dataclass(frozen=True)
class Plan:
    """One way of an import, and who goes it.

    Attributes:
        login: of the role that does the work; for BESIDE into the maintenance database.
        app_role: the role that the app itself uses.
        has_own_rights: there can be no throw-away role, so an upload is loaded with the rights of `login`.
        obstacle: why no import is possible, with what to do about it; empty when it is.
        reach: why no file may be loaded, though what was is restored and undone: its code could reach too far.
        disk: the server's, as the agent sees it.
    """

    way: Way
    login: Login
    server: ServerFacts
    database: DatabaseFacts
    app_role: str
    has_own_rights: bool = False
    obstacle: str = ""
    reach: str = ""
    disk: Disk = field(default_factory=Disk)

    @property
    def loading_obstacle(self) -> str:
        """Why no file is taken; empty when one is."""
        return self.obstacle or self.reach

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """The lowest is the best."""
        return bool(self.loading_obstacle), self.way is not Way.BESIDE, self.has_own_rights

    @property
    def warning(self) -> str:
        """What a person should know of this way before an import; empty for the best one."""
        if self.loading_obstacle or not self.has_own_rights:
            return ""
        missing = _missing(self.login, self.server, self.database)
        if self.way is Way.SAME_DATABASE:
            return (
                f"Role {self.login.user} may not make databases, so an import goes into the app's own, and the app "
                f"waits while it is loaded. Only statements that pg_dump writes are run. Better: {missing} Or an "
                "admin_user for the agent."
            )
        return (
            f"Role {self.login.user} may not make a role to load imports with, so a file is loaded with the app's own "
            f"rights, and only statements that pg_dump writes are run. Safer: {missing} Or an admin_user for the agent."
        )


async def make_plan(settings: PostgresSettings) -> Plan:
    """Find the best way for an import.

    Raises:
        AppUnavailableError: the server does not answer or refuses a role.
        NoSpaceError: its disk is too full to let anybody in.
    """
    plans = []
    # The app's role into its own database: the other one may be closed to it.
    for login in (settings.admin_login(), settings.app_login()):
        if login is None:
            continue
        try:
            plan = await _look_from(login, login, settings)
        except (LoginRefusedError, NoSpaceError) as failure:
            # Each database writes a file before it lets somebody in, where there is none, and each has a limit of
            # sessions. An undo beside the app's database does not go there: it makes room, and ends the sessions.
            plan = await _look_from_elsewhere(login, settings, failure)
        plans.append(plan)
        if plan.rank == (False, False, False):
            break
    best = min(plans, key=lambda plan: plan.rank)
    return replace(best, disk=next((plan.disk for plan in plans if plan.disk.directories), best.disk))


async def _look_from_elsewhere(role: Login, settings: PostgresSettings, failure: ServiceError) -> Plan:
    """From the maintenance database; the failure of the way that a role usually takes, where that is no use either."""
    where = role.to(settings.safe_maintenance_database)
    if where == role:
        raise failure
    try:
        plan = await _look_from(where, role, settings)
    except ServiceError:
        raise failure from None
    if plan.way is not Way.BESIDE:
        raise failure
    return plan


async def _look_from(where: Login, role: Login, settings: PostgresSettings) -> Plan:
    async with connect(where) as connection:
        plan = await _plan_of(connection, role, settings)
        return replace(plan, disk=await look_at_disk(connection, role, settings, settings.database))


async def _plan_of(connection: Connection, role: Login, settings: PostgresSettings) -> Plan:
    login, app_role = role.to(settings.safe_maintenance_database), settings.user
    server = await look_at_server(connection)
    database = await look_at_database(connection, settings.database)
    if database is None:
        raise AppUnavailableError(
            f"{login.place} has no database {settings.database}.", next_step="Correct the setting `database`."
        )
    if server.is_replica:
        obstacle = f"{login.place} is a read-only replica; import into its primary."
        return Plan(Way.BESIDE, login, server, database, app_role, obstacle=obstacle)
    if server.is_superuser or (server.may_create_databases and server.may_create_roles and database.is_owned):
        return Plan(Way.BESIDE, login, server, database, app_role)
    if server.may_create_databases and database.is_owned:
        reach = await _why_too_far(connection, login, server, database, out_of_transaction=False)
        return Plan(Way.BESIDE, login, server, database, app_role, has_own_rights=True, reach=reach)
    obstacle = ""
    if reason := await _why_not_within(connection, role, settings):
        obstacle = (
            f"Role {login.user} may not exchange database {database.name} for a new one, nor import within it: "
            f"{reason} A superuser can allow it: {_missing(login, server, database)} Or give the agent an admin_user."
        )
    own = role.to(settings.database)
    reach = await _why_too_far(connection, login, server, database, out_of_transaction=True)
    return Plan(Way.SAME_DATABASE, own, server, database, app_role, has_own_rights=True, obstacle=obstacle, reach=reach)


async def _why_too_far(
    connection: Connection, login: Login, server: ServerFacts, database: DatabaseFacts, *, out_of_transaction: bool
) -> str:
    """What keeps a file from being loaded with a role's own rights; empty for nothing."""
    found = await reaching_rights(connection, out_of_transaction=out_of_transaction)
    if not found:
        return ""
    revoking = " ".join(statement for _, statement in found[:_MOST_NAMES] if statement)
    return (
        f"A file would be loaded with the rights of role {login.user}, and its code could do harm beyond what is that "
        f"role's own, unseen: it is {_some([what for what, _ in found])}. A superuser can give the role what it takes "
        f"to make another one for the file: {_missing(login, server, database)} Or give the agent an admin_user, or "
        f"take away from the role what it does not need{f': {revoking}' if revoking else '.'}"
    )


async def _why_not_within(connection: Connection, role: Login, settings: PostgresSettings) -> str:
    """What keeps a role from an import within the app's database; empty for nothing."""
    if role.database != settings.database:
        return "it is not the app's own role."
    cursor = await connection.execute("SELECT has_database_privilege(current_database(), 'CREATE')")
    if await cursor.fetchone() != (True,):
        return "it may not create schemas there."
    if reason := await why_not_counted(connection, role):
        return reason
    if others := await not_movable(connection):
        return f"not everything there can be moved by it ({_some(others)})."
    if hidden := await tables_with_hidden_rows(connection):
        commands = " ".join(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY;" for name in hidden[:_MOST_NAMES])
        return (
            f"row security keeps it from copying the previous data first ({_some(hidden)}). The tables' owner can lift "
            f"that on each of them: {commands} Or a superuser for the role: ALTER ROLE {_quoted(role.user)} BYPASSRLS;"
        )
    if unreadable := await unreadable_parts(connection):
        return f"it may not read the previous data to copy it first ({_some(unreadable)})."
    return ""


async def why_not_counted(connection: Connection, role: Login) -> str:
    """What keeps a role from knowing which rows its own transaction changed; empty for nothing."""
    cursor = await connection.execute("SELECT current_setting('track_counts')")
    if await cursor.fetchone() != ("on",):
        return (
            "track_counts is off in its sessions, and without it the server does not say whether code of a file "
            "changed rows of the previous data. Turn it on where it is turned off: in postgresql.conf, for the "
            "database (ALTER DATABASE ... RESET track_counts;) or for the role (ALTER ROLE ... RESET track_counts;)."
        )
    if connection.info.server_version < _PARAMETERS_SINCE:
        return ""
    cursor = await connection.execute("SELECT has_parameter_privilege('track_counts', 'SET')")
    if await cursor.fetchone() == (True,):
        return (
            "it may turn track_counts off, and so could code of a file, to change rows of the previous data unseen. "
            f"Take that away: REVOKE SET ON PARAMETER track_counts FROM {_quoted(role.user)};"
        )
    return ""


def _some(names: Sequence[str]) -> str:
    return some_of(names, _MOST_NAMES)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _missing(login: Login, server: ServerFacts, database: DatabaseFacts) -> str:
    """The statements that give a role what the best way needs."""
    lacking = [
        *(["CREATEDB"] if not server.may_create_databases else []),
        *(["CREATEROLE"] if not server.may_create_roles else []),
    ]
    user, name = _quoted(login.user), _quoted(database.name)
    statements = [f"ALTER ROLE {user} {' '.join(lacking)};"] if lacking else []
    if not database.is_owned:
        statements.append(f"ALTER DATABASE {name} OWNER TO {user};")
    return " ".join(statements)
