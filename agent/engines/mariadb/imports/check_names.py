"""Names of CHECK constraints, of which a schema of MySQL's may have each but once; MariaDB's are their table's own.

The one fact to know: MySQL gives one another name only by reading all rows again. So where two sides have one of the
same name, its tables cannot be in the app's schema together, as tables with triggers are for an exchange. Names that
the server makes (`t_chk_1`) follow their table in a RENAME by themselves.
"""

from __future__ import annotations

from agent.engines.mariadb.server.client import literal, query
from agent.engines.mariadb.server.settings import Login


async def with_names_of_both(admin: Login, one: str, other: str) -> tuple[set[str], set[str]]:
    """The tables of either schema that have a CHECK constraint called as one of the other's."""
    ours, theirs = await _named(admin, one), await _named(admin, other)
    both = ours.keys() & theirs.keys()
    return {ours[name] for name in both}, {theirs[name] for name in both}


async def _named(admin: Login, schema: str) -> dict[str, str]:
    """The tables of constraints, by name in lower case; on MariaDB none."""
    rows = await query(
        admin,
        "SELECT CONSTRAINT_NAME, TABLE_NAME FROM information_schema.TABLE_CONSTRAINTS"  # noqa: S608  # a literal
        f" WHERE CONSTRAINT_TYPE = 'CHECK' AND TABLE_SCHEMA = {literal(schema)} /*M! AND FALSE */;",
    )
    return {name.lower(): table for name, table in rows if not name.lower().startswith(f"{table}_chk_".lower())}
