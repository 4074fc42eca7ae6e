"""Foreign keys that an exchange of tables would lead elsewhere.

The one fact to know: information_schema tells of a foreign key only who has rights on the table that has it, and so
nothing of another app's. InnoDB's own list tells of all, to who has PROCESS. And a key whose parent is not there stays
with the name of its parent, schema and all, when its table goes to another schema (10.11, 11.8, MySQL 9.7).
"""

from __future__ import annotations

from agent.engines.mariadb.names import account
from agent.engines.mariadb.server.client import literal, of_schema, query
from agent.engines.mariadb.server.settings import Login
from common.errors import ArchiveIncompatibleError, ToolFailedError
from common.wording import some_of

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
        f"Tables outside of the database have foreign keys into it: {some_of(sorted(found), _NAMED)}. They would "
        "go on pointing at the previous tables."
    )


async def obstacle_in_parents(login: Login, database: str) -> str:
    """Why a database's tables cannot be kept beside others for what their own keys lead to; empty when they can."""
    nowhere, _ = await _leading_out(login, database)
    if not nowhere:
        return ""
    return (
        f"The database has foreign keys to tables that are not there: {some_of(nowhere, _NAMED)}. They would lead "
        "from the previous tables, kept for an undo, to whatever comes in place under these names: make the tables, or "
        "drop the keys."
    )


async def require_parents(loader: Login, schema: str) -> None:
    """
    Raises:
        ArchiveIncompatibleError: keys of tables that were loaded lead to tables that were not.
    """
    nowhere, _ = await _leading_out(loader, schema)
    if nowhere:
        raise ArchiveIncompatibleError(
            f"The file has foreign keys to tables that are not in it: {some_of(nowhere, _NAMED)}. In place they "
            "would lead to none, whatever the app makes later.",
            next_step="Make these tables at its source, or drop the keys, then dump again.",
        )


async def warning_of_parents(login: Login, database: str) -> str:
    """What to know of an export; empty when an import takes its foreign keys."""
    nowhere, elsewhere = await _leading_out(login, database)
    if not nowhere and not elsewhere:
        return ""
    return (
        "The export cannot be imported: it has foreign keys to tables that are not there or are in other databases: "
        f"{some_of([*nowhere, *elsewhere], _NAMED)}."
    )


async def _leading_out(login: Login, schema: str) -> tuple[list[str], list[str]]:
    """Foreign keys to tables of the schema that are not there, and to other schemas, as "child to parent"."""
    name = literal(schema)
    rows = await query(
        login,
        "SELECT 'folds', @@lower_case_table_names <> 0;"  # noqa: S608  # a literal
        f" SELECT 'table', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name};"
        " SELECT 'key', TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME"
        f" FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE {of_schema('CONSTRAINT_SCHEMA', schema)};",
    )
    folds_case = ["folds", "1"] in rows

    def key_of(told: str) -> str:
        return told.lower() if folds_case else told

    tables = {key_of(row[1]) for row in rows if row[0] == "table"}
    nowhere, elsewhere = set(), set()
    for child, parent_schema, parent in (row[1:] for row in rows if row[0] == "key"):
        if key_of(parent_schema) != key_of(schema):
            elsewhere.add(f"{child} to {parent_schema}.{parent}")
        elif key_of(parent) not in tables:
            nowhere.add(f"{child} to {parent}")
    return sorted(nowhere), sorted(elsewhere)


async def _lacking_process(admin: Login) -> str:
    [[told]] = await query(admin, "SELECT CURRENT_USER();")
    return (
        "Whether tables of other databases have foreign keys into this one is not told to the admin account, and an "
        f"import would break them: GRANT PROCESS ON *.* TO {account(told)}."
    )
