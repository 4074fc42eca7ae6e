"""What can be done with a database, what stands against it, and what an import would change."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.engines.mariadb.exports import dump_sessions
from agent.engines.mariadb.server import added_keys, foreign_keys, hidden_parts, programs
from agent.engines.mariadb.server.accounts import Account, account_of
from agent.engines.mariadb.server.catalog import Schema, look
from agent.engines.mariadb.server.client import query
from agent.engines.mariadb.server.settings import Login, MariadbSettings
from common.errors import ArchiveIncompatibleError, ServiceError, ToolFailedError
from common.wording import counted, some_of

OLDEST = (10, 6)
OLDEST_MYSQL = (8, 0)
"""Older servers do not carry out a RENAME of several tables as one."""
FIRST_WITH_HISTORY = (10, 11)
FIRST_WITH_LIBRARIES = (9, 2)
"""Of MySQL's."""
END_OF_TIME_MOVED = (11, 5)
"""From 2038 to 2106; see --update-history of mariadb-dump."""
_NAMED = 5


@dataclass(frozen=True)
class Described:
    """For recipes.base.Description."""

    version: str = ""
    export_obstacle: str = ""
    import_obstacle: str = ""
    estimated_bytes: int = 0
    warnings: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


async def describe(settings: MariadbSettings) -> Described:
    """The database as it is now; obstacles are sentences."""
    try:
        schema = await look(settings.app_login(), settings.database)
    except ServiceError as error:
        return Described(export_obstacle=error.text, import_obstacle=error.text)
    obstacle, warning = await _about_exports(settings)
    return Described(
        version=schema.version,
        export_obstacle=obstacle,
        import_obstacle=await import_obstacle(settings),
        estimated_bytes=schema.size_bytes,
        warnings=(*warnings_of(schema), *([warning] if warning else [])),
        details={"database": settings.database, "charset": schema.charset, "collation": schema.collation},
    )


async def _about_exports(settings: MariadbSettings) -> tuple[str, str]:
    """The obstacle, and what to know; either may be empty."""
    try:
        app = settings.app_login()
        await dump_sessions.options_of(app)
        return await hidden_parts.obstacle_and_warning(app, settings.admin_if_readable(), settings.database)
    except ServiceError as error:
        return error.text, ""


async def import_obstacle(settings: MariadbSettings) -> str:
    """What stands against any import; empty when nothing does."""
    try:
        admin = settings.admin_login()
        if admin is None:
            return "An import needs the setting `admin_user`: an account that may make a schema and an account."
        schema = await look(admin, settings.database)
        found = await obstacle_with_programs(admin, settings.app_login(), settings.database, schema)
        found = found or await foreign_keys.obstacle_in_parents(admin, settings.database)
        return found or (await added_keys.obstacle(admin) if schema.adds_keys else "")
    except ServiceError as error:
        return error.text


async def obstacle_with_programs(admin: Login, app: Login, database: str, schema: Schema) -> str:
    """What in a database stands against exchanging it, views, triggers, routines and events included.

    Args:
        schema: the database as the admin sees it.
    """
    return (
        obstacle_in(schema, takes_programs=True)
        or await _obstacle_in_admin(admin, database)
        or await foreign_keys.obstacle_in_referrers(admin, database)
        or (await _obstacle_in_programs(admin, app, database) if schema.programs else "")
    )


async def _obstacle_in_programs(admin: Login, app: Login, database: str) -> str:
    account = await account_of(app, database)
    listed = await programs.list_all(admin, database)
    for found in listed:
        what = f"The {found.kind} {found.name}"
        if found.kind not in programs.KINDS:
            return f"{what} cannot be exchanged: packages are not supported."
        if found.definer != account.name:
            return (
                f"{what} belongs to {found.definer}, not to the app's account {account.name}, which could not put it "
                "back in an undo. Make it again as the app's account, or drop it."
            )
    if broken := await programs.broken_view(app, database, listed):
        return f"{broken} It could not be put back in an undo: drop or correct it."
    kinds = {found.kind for found in listed}
    if lacking := _lacking(account, database, kinds):
        return lacking
    if kinds & programs.LOGGED_KINDS and not account.may_be_super and await _trusts_superusers_alone(admin):
        return (
            "The server writes a binary log and takes triggers and functions from nobody but a superuser, so those of "
            "the database could not be put back in an undo: set log_bin_trust_function_creators=1."
        )
    try:
        seen = {program.key for program in await programs.read(app, database)}
    except ToolFailedError as failure:
        return f"{failure.text} It could not be put back in an undo."
    if hidden := [found for found in listed if found.key not in seen]:
        # What was dropped meanwhile is not hidden.
        there = await programs.list_all(admin, database)
        hidden = [found for found in hidden if found in there]
    if hidden:
        named = some_of([f"{found.kind} {found.name}" for found in hidden], _NAMED)
        return (
            f"The app's account {account.name} may not see what it would have to put back in an undo: {named}. "
            f"GRANT ALL PRIVILEGES ON `{database}`.* TO it."
        )
    return ""


async def _obstacle_in_admin(admin: Login, database: str) -> str:
    account = await account_of(admin, database)
    if account.sees_all:
        return ""
    return (
        f"The account {account.name} may not see all of database {database}, so what it does not see would be lost: "
        f"GRANT {', '.join(account.lacks_to_see)} ON `{database}`.* TO it."
    )


async def _trusts_superusers_alone(admin: Login) -> bool:
    [[is_so]] = await query(admin, "SELECT @@log_bin AND NOT @@log_bin_trust_function_creators;")
    return is_so == "1"


async def obstacle_in_rights(app: Login, database: str, kinds: Collection[str]) -> str:
    """Why the app's account cannot make what is of these kinds; empty when it can."""
    return _lacking(await account_of(app, database), database, kinds) if kinds else ""


def _lacking(account: Account, database: str, kinds: Collection[str]) -> str:
    if missing := account.lacks(kinds):
        return (
            f"The app's account makes its {', '.join(f'{kind}s' for kind in sorted(kinds))} itself and lacks rights: "
            f"GRANT {', '.join(missing)} ON `{database}`.* TO it."
        )
    return ""


def obstacle_in(schema: Schema, *, takes_programs: bool = False) -> str:
    """What in a database stands against exchanging its tables; empty when nothing does."""
    oldest = OLDEST if schema.is_mariadb else OLDEST_MYSQL
    if schema.release < oldest:
        return f"The server is {schema.version}; an import needs {oldest[0]}.{oldest[1]} or later."
    if schema.read_only:
        named = " and ".join(schema.read_only)
        return (
            f"The server takes no changes ({named}), as a replica, and would take none from the account that loads a "
            "file: import into the server that it copies, or set that to OFF."
        )
    if schema.programs and not takes_programs:
        listed = ", ".join(f"{count} {kind}" for kind, count in schema.programs.items())
        return f"The database has {listed}; the tables below them cannot be exchanged."
    return ""


def warnings_of(schema: Schema, *, has_history: bool = False) -> list[str]:
    """What to know of an export."""
    warnings = []
    if tables := schema.untransactional:
        told = counted(len(tables), "tables are", "table is")
        warnings.append(f"{told} not InnoDB, so the app must not write to them: {some_of(tables, _NAMED)}.")
    if schema.versioned and not has_history:
        warnings.append(without_history(schema, "export"))
    return warnings


def without_history(schema: Schema, what: str) -> str:
    """What to know of an export or a file without the history that the schema's tables would have."""
    tables = schema.versioned
    told = counted(len(tables), "tables are", "table is")
    named = some_of(tables, _NAMED)
    return f"{told} system-versioned; the {what} holds their present rows without their history: {named}."


def with_foreign_sequences(tables: Sequence[str]) -> str:
    """What to know of an export with tables that need sequences of other databases."""
    return (
        f"The export cannot be imported: columns of {len(tables)} tables take their defaults from sequences of other "
        f"databases: {some_of(tables, _NAMED)}."
    )


async def warning_of_programs(login: Login, database: str, schema: Schema) -> str:
    """What to know of an export with definitions that no import takes; empty when there are none."""
    has_libraries = not schema.is_mariadb and schema.release >= FIRST_WITH_LIBRARIES
    if not schema.programs and not has_libraries:
        return ""
    refused = await programs.refused_by_imports(login, database, has_libraries=has_libraries)
    if not refused:
        return ""
    more = f" And {len(refused) - _NAMED:,} more." if len(refused) > _NAMED else ""
    return f"The export cannot be imported into a server as this one: {' '.join(refused[:_NAMED])}{more}"


def history_obstacle(schema: Schema) -> str:
    """Why an export cannot hold the history of the schema's tables; empty when it can."""
    if schema.is_mariadb and schema.release >= FIRST_WITH_HISTORY:
        return ""
    major, minor = FIRST_WITH_HISTORY
    return f"The server is {schema.version}; dumps with history need MariaDB {major}.{minor} or later."


def require_fitting_history(server: str, schema: Schema) -> None:
    """See that rows of a history have their end where the target's server has the end of time: what is present is told
    by it, so rows from the other side of 11.5 would be there as if they were deleted.

    Args:
        server: the version of the dump's server as the dump says it.
    Raises:
        ArchiveIncompatibleError
    """
    source = replace(schema, version=server)
    if (source.release >= END_OF_TIME_MOVED) != (schema.release >= END_OF_TIME_MOVED):
        raise ArchiveIncompatibleError(
            f"The file holds the history of system-versioned tables as {server or 'an unknown server'} writes it, in "
            f"which time ends on another day than in {schema.version}: their present rows would be taken for deleted.",
            next_step="Export without history, or import into a server of the same side of MariaDB 11.5.",
        )
