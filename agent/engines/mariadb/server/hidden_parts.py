"""What of a database an account may not see, so that its dump lacks it.

The one fact to know: the server says nothing of that to the account. What it has no right on is not in the catalogs
that it reads, dump programs leave it out without a word, and so does a fingerprint. Rights on the whole database prove
that nothing is hidden; otherwise it takes another account to tell.
"""

from __future__ import annotations

from agent.engines.mariadb.server import programs
from agent.engines.mariadb.server.client import literal, query
from agent.engines.mariadb.server.settings import Login
from common.errors import ServiceError, SourceUnreadableError
from common.wording import some_of

_SEEING = ("SELECT", "TRIGGER", "EVENT")
_SEEING_ROUTINES = ("EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE")
"""One of them is enough."""
_NAMED = 10


async def obstacle_and_warning(app: Login, admin: Login | None, database: str) -> tuple[str, str]:
    """Why a dump by the app's account would not be whole, or that nobody can tell whether it is; both may be empty."""
    account = await programs.account_of(app, database)
    lacking = [right for right in _SEEING if right not in account.granted]
    if account.granted.isdisjoint(_SEEING_ROUTINES):
        lacking.append(_SEEING_ROUTINES[0])
    if not lacking:
        return "", ""
    if admin is not None:
        try:
            hidden = await _hidden(app, admin, database)
        except ServiceError:
            # Whose passwords are wrong, exports do without.
            pass
        else:
            return (_obstacle(app, database, hidden) if hidden else ""), ""
    # Roles are not looked into.
    return "", "" if "a role" in account.granted else _warning(app, database, lacking)


async def require_none(app: Login, admin: Login | None, database: str) -> str:
    """The warning of `obstacle_and_warning`; SourceUnreadableError for its obstacle."""
    obstacle, warning = await obstacle_and_warning(app, admin, database)
    if obstacle:
        raise SourceUnreadableError(
            obstacle, next_step=f"GRANT what is missing on `{database}`.* to it, or name another account as `user`."
        )
    return warning


async def _hidden(app: Login, admin: Login, database: str) -> list[str]:
    known = await _parts(admin, database)
    hidden = known - await _parts(app, database)
    # What was dropped meanwhile is not hidden.
    return sorted(hidden & await _parts(admin, database)) if hidden else []


async def _parts(login: Login, database: str) -> set[str]:
    tables = await query(
        login,
        "SELECT TABLE_NAME FROM information_schema.TABLES"  # noqa: S608  # a literal
        f" WHERE TABLE_SCHEMA = {literal(database)} AND TABLE_TYPE NOT LIKE '%VIEW';",
    )
    listed = await programs.list_all(login, database)
    return {f"table {name}" for (name,) in tables} | {f"{found.kind} {found.name}" for found in listed}


def _obstacle(app: Login, database: str, hidden: list[str]) -> str:
    return (
        f"The account {app.user} may not see all of database {database}, so an export would not be whole: "
        f"{some_of(hidden, _NAMED)}."
    )


def _warning(app: Login, database: str, lacking: list[str]) -> str:
    return (
        f"The account {app.user} may not see all of database {database} that there may be, and nobody can tell what an "
        f"export lacks: GRANT {', '.join(lacking)} ON `{database}`.* TO it, or set `admin_user`, which can tell."
    )
