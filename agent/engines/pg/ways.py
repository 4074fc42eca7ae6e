"""Who may do what in a server, and so which way an import goes, or why none.

A throw-away role is what makes an upload harmless, so the best way needs the rights to make databases and roles.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from agent.engines.pg.catalog import DatabaseFacts, ServerFacts, look_at_database, look_at_server
from agent.engines.pg.connection import Connection, Login, connect
from agent.engines.pg.settings import PostgresSettings
from common.errors import AppUnavailableError


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
        has_own_rights: there can be no throw-away role, so an upload is loaded with the rights of `login`.
        obstacle: why no import is possible, with what to do about it; empty when it is.
    """

    way: Way
    login: Login
    server: ServerFacts
    database: DatabaseFacts
    has_own_rights: bool = False
    obstacle: str = ""

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """The lowest is the best."""
        return bool(self.obstacle), self.way is not Way.BESIDE, self.has_own_rights

    @property
    def warning(self) -> str:
        """What a person should know of this way before an import; empty for the best one."""
        if self.obstacle or not self.has_own_rights:
            return ""
        missing = _missing(self.login, self.server, self.database)
        return (
            f"Role {self.login.user} may not make a role to load imports with, so a file is loaded with the app's own "
            f"rights, and only statements that pg_dump writes are run. Safer: {missing} Or an admin_user for the agent."
        )


async def make_plan(settings: PostgresSettings) -> Plan:
    """Find the best way for an import.

    Raises:
        AppUnavailableError: the server does not answer or refuses a role.
    """
    app = settings.app_login()
    admin = settings.admin_login()
    plans = []
    for login in (admin, app.to(settings.safe_maintenance_database)):
        if login is None:
            continue
        async with connect(login) as connection:
            plans.append(await _plan_of(connection, login, app))
        if plans[-1].rank == (False, False, False):
            break
    return min(plans, key=lambda plan: plan.rank)


async def _plan_of(connection: Connection, login: Login, app: Login) -> Plan:
    server = await look_at_server(connection)
    database = await look_at_database(connection, app.database)
    if database is None:
        raise AppUnavailableError(f"{login.place} has no database {app.database}.")
    if server.is_replica:
        obstacle = f"{login.place} is a read-only replica; import into its primary."
        return Plan(Way.BESIDE, login, server, database, obstacle=obstacle)
    if server.is_superuser or (server.may_create_databases and server.may_create_roles and database.is_owned):
        return Plan(Way.BESIDE, login, server, database)
    if server.may_create_databases and database.is_owned:
        return Plan(Way.BESIDE, login, server, database, has_own_rights=True)
    obstacle = (
        f"Role {login.user} may not import: it has no right to make a database beside {database.name}. A superuser can "
        f"give it: {_missing(login, server, database)} Or give the agent an admin_user."
    )
    return Plan(Way.BESIDE, login, server, database, obstacle=obstacle)


def _missing(login: Login, server: ServerFacts, database: DatabaseFacts) -> str:
    """The statements that give a role what the best way needs."""
    lacking = [
        *(["CREATEDB"] if not server.may_create_databases else []),
        *(["CREATEROLE"] if not server.may_create_roles else []),
    ]
    user, name = (one.replace('"', '""') for one in (login.user, database.name))
    statements = [f'ALTER ROLE "{user}" {" ".join(lacking)};'] if lacking else []
    if not database.is_owned:
        statements.append(f'ALTER DATABASE "{name}" OWNER TO "{user}";')
    return " ".join(statements)
