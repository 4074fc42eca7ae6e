"""The column that a MySQL adds to each table without a primary key where `sql_generate_invisible_primary_key` is on.

An import makes tables as its file has them, so the account that loads has to do without. A session of MySQL may do that
only by a right, which the admin lends to that account, where it has it to give.
"""

from __future__ import annotations

from agent.engines.mariadb.names import account
from agent.engines.mariadb.server.client import query
from agent.engines.mariadb.server.settings import Login

NOT_ADDED = "sql_generate_invisible_primary_key = 0"
"""Of a session, to which it may be set by who has `RIGHT`."""
RIGHT = "SESSION_VARIABLES_ADMIN"
NEXT_STEP = (
    "Run that GRANT as a superuser, or SET GLOBAL sql_generate_invisible_primary_key = OFF for the time of the import; "
    "then try again."
)


async def obstacle(admin: Login) -> str:
    """Why nothing can be loaded into a server that adds them; empty when it can."""
    [[told], *grants] = await query(admin, "SELECT CURRENT_USER(); SHOW GRANTS;")
    if any(RIGHT in grant and grant.endswith("WITH GRANT OPTION") for (grant,) in grants):
        return ""
    return (
        "The server gives each table without a primary key a column for one (sql_generate_invisible_primary_key), so "
        "such tables of a file would have a column more, and the admin account may let nobody do without: "
        f"GRANT {RIGHT} ON *.* TO {account(told)} WITH GRANT OPTION."
    )
