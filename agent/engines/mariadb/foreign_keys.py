"""Foreign keys that an exchange of tables would lead elsewhere.

The one fact to know: information_schema tells of a foreign key only who has rights on the table that has it, and so
nothing of another app's. InnoDB's own list tells of all, to who has PROCESS.
"""

from __future__ import annotations

from agent.engines.mariadb.client import query
from agent.engines.mariadb.names import quoted
from agent.engines.mariadb.settings import Login
from common.errors import ToolFailedError

_NAMED = 5
_LIST = "information_schema./*M! INNODB_SYS_FOREIGN */ /*!80000 INNODB_FOREIGN */"
_PART = (
    "/*M! CONVERT(CONVERT(CONVERT( */ SUBSTRING_INDEX({name}, '/', {at})"
    " /*M! USING binary) USING filename) USING utf8mb4) */"
)
"""MariaDB's list has names as those of files."""


async def obstacle_in_referrers(admin: Login, database: str) -> str:
    """Why a database's tables cannot be exchanged for what others have to do with them; empty when they can."""
    parts = [("FOR_NAME", 1), ("FOR_NAME", -1), ("REF_NAME", 1)]
    listed = ", ".join(_PART.format(name=name, at=at) for name, at in parts)
    try:
        rows = await query(admin, f"SELECT @@lower_case_table_names <> 0, {listed} FROM {_LIST};")  # noqa: S608
    except ToolFailedError as failure:
        # In any of the languages that a server speaks.
        if "PROCESS" not in failure.text:
            raise
        return await _lacking_process(admin)
    found = set()
    for folds_case, schema, table, target in rows:
        ours = database.lower() if folds_case == "1" else database
        if target == ours and schema != ours:
            found.add(f"{schema}.{table}")
    if not found:
        return ""
    return (
        f"Tables outside of the database have foreign keys into it: {_few(sorted(found))}. They would go on pointing "
        "at the previous tables."
    )


async def _lacking_process(admin: Login) -> str:
    [[account]] = await query(admin, "SELECT CURRENT_USER();")
    user, _, host = account.rpartition("@")
    return (
        "Whether tables of other databases have foreign keys into this one is not told to the admin account, and an "
        f"import would break them: GRANT PROCESS ON *.* TO {quoted(user)}@{quoted(host)}."
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
