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
        obstacle: why no import is possible, with what to do about it; empty when it is.
    """

    way: Way
    login: Login
    server: ServerFacts
    database: DatabaseFacts
    obstacle: str = ""


async def make_plan(settings: PostgresSettings) -> Plan:
    """Find the way for an import.

    Raises:
        AppUnavailableError: the server does not answer or refuses a role.
    """
    app = settings.app_login()
    candidates = [settings.admin_login(), app.to(settings.safe_maintenance_database)]
    plan = None
    for login in candidates:
        if login is None:
            continue
        async with connect(login) as connection:
            plan = await _plan_of(connection, login, app)
        if plan.way is Way.BESIDE and not plan.obstacle:
            return plan
    if plan is None:
        raise RuntimeError("no role to plan for")
    return plan


async def _plan_of(connection: Connection, login: Login, app: Login) -> Plan:
    server = await look_at_server(connection)
    database = await look_at_database(connection, app.database)
    if database is None:
        raise AppUnavailableError(f"{login.place} has no database {app.database}.")
    if server.is_replica:
        return Plan(
            Way.BESIDE, login, server, database, f"{login.place} is a read-only replica; import into its primary."
        )
    if server.is_superuser or (server.may_create_databases and server.may_create_roles and database.is_owned):
        return Plan(Way.BESIDE, login, server, database)
    return Plan(Way.SAME_DATABASE, login, server, database, _obstacle(login, server, database))


def _obstacle(login: Login, server: ServerFacts, database: DatabaseFacts) -> str:
    """What the role lacks, as the statements that give it."""
    lacking = []
    if not server.may_create_databases:
        lacking.append("CREATEDB")
    if not server.may_create_roles:
        lacking.append("CREATEROLE")
    statements = [f'ALTER ROLE "{login.user}" {" ".join(lacking)};'] if lacking else []
    if not database.is_owned:
        statements.append(f'ALTER DATABASE "{database.name}" OWNER TO "{login.user}";')
    return (
        f"Role {login.user} may not make a database beside {database.name} and a role to load it that can harm nothing "
        f"else. A superuser can allow it: {' '.join(statements)} Or give the agent an admin_user."
    )
