"""What of a database an account may not see, so that its dump lacks it.

The one fact to know: the server says nothing of that to the account. What it has no right on is not in the catalogs
that it reads, dump programs leave it out without a word, and so does a fingerprint. So what another account sees is
compared with what it sees; where there is none, rights on the whole database prove that nothing is hidden.
"""

from __future__ import annotations

import contextlib

from agent.engines.mariadb.server import programs
from agent.engines.mariadb.server.accounts import account_of
from agent.engines.mariadb.server.client import literal, query
from agent.engines.mariadb.server.settings import Login
from common.errors import ServiceError, SourceUnreadableError
from common.wording import some_of

_NAMED = 10


async def obstacle_and_warning(app: Login, admin: Login | None, database: str) -> tuple[str, str]:
    """Why a dump by the app's account would not be whole, or that nobody can tell whether it is; both may be empty."""
    account = await account_of(app, database)
    if admin is not None:
        # Whose passwords are wrong, exports do without.
        with contextlib.suppress(ServiceError):
            if hidden := await _hidden(app, admin, database):
                return _obstacle(app, database, hidden), ""
            if (await account_of(admin, database)).sees_all:
                return "", ""
    return "", "" if account.sees_all else _warning(app, database, account.lacks_to_see)


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
    """What an account may read. Tables are in its catalogs with any right on them, and their columns with what it may
    do with each."""
    rows = await query(
        login,
        "SELECT 'table', TABLE_NAME FROM information_schema.TABLES"  # noqa: S608  # a literal
        f" WHERE TABLE_SCHEMA = {literal(database)} AND TABLE_TYPE NOT LIKE '%VIEW';"
        " SELECT DISTINCT 'read', TABLE_NAME FROM information_schema.COLUMNS"
        f" WHERE TABLE_SCHEMA = {literal(database)} AND PRIVILEGES LIKE '%select%';",
    )
    tables, read = ({name for what, name in rows if what == kind} for kind in ("table", "read"))
    listed = await programs.list_all(login, database)
    return {f"table {name}" for name in tables & read} | {f"{found.kind} {found.name}" for found in listed}


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
