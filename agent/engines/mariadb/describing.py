"""What can be done with a database, what stands against it, and what an import would change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.engines.mariadb.catalog import Schema, count_rows, look
from agent.engines.mariadb.settings import Login, MariadbSettings
from common.errors import ServiceError

OLDEST = (10, 6)
"""Older servers do not carry out a RENAME of several tables as one."""
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
    return Described(
        version=schema.version,
        import_obstacle=await import_obstacle(settings),
        estimated_bytes=schema.size_bytes,
        warnings=tuple(warnings_of(schema)),
        details={"database": settings.database, "charset": schema.charset, "collation": schema.collation},
    )


async def import_obstacle(settings: MariadbSettings) -> str:
    """What stands against any import; empty when nothing does."""
    try:
        admin = settings.admin_login()
        if admin is None:
            return "An import needs the setting `admin_user`: an account that may make a schema and an account."
        return obstacle_in(await look(admin, settings.database))
    except ServiceError as error:
        return error.text


def obstacle_in(schema: Schema) -> str:
    """What in a database stands against exchanging its tables; empty when nothing does."""
    if not schema.is_mariadb:
        return f"The server is MySQL ({schema.version}); imports are for MariaDB, exports work for both."
    if schema.release < OLDEST:
        return f"The server is MariaDB {schema.version}; an import needs {OLDEST[0]}.{OLDEST[1]} or later."
    if schema.programs:
        listed = ", ".join(f"{count} {kind}" for kind, count in schema.programs.items())
        return f"The database has {listed}; MariaDB cannot exchange the tables below them."
    if schema.referrers:
        return (
            f"Tables outside of the database have foreign keys into it: {', '.join(schema.referrers[:_NAMED])}. They "
            "would go on pointing at the previous tables."
        )
    return ""


def warnings_of(schema: Schema) -> list[str]:
    """What to know of an export."""
    if not schema.untransactional:
        return []
    listed = ", ".join(schema.untransactional[:_NAMED])
    more = ", …" if len(schema.untransactional) > _NAMED else ""
    return [f"{len(schema.untransactional)} tables are not InnoDB, so the app must not write to them: {listed}{more}."]


@dataclass(frozen=True)
class Compared:
    """For recipes.base.Preview."""

    changes: tuple[str, ...]
    counts_now: Mapping[str, int]
    counts_after: Mapping[str, int]


async def compare(admin: Login, database: str, new: str) -> Compared:
    """What an import would change: the app's schema and the loaded one side by side."""
    now, after = await look(admin, database), await look(admin, new)
    rows_now, rows_after = await count_rows(admin, database, now), await count_rows(admin, new, after)
    added, gone = after.tables.keys() - now.tables.keys(), now.tables.keys() - after.tables.keys()
    return Compared(
        changes=(
            f"{len(after.tables)} tables with {rows_after} rows take the place of {len(now.tables)} with {rows_now}.",
            f"Tables: {_named(added, 'new')}, {_named(gone, 'gone')}, {len(after.tables) - len(added)} in both.",
        ),
        counts_now={"tables": len(now.tables), "rows": rows_now},
        counts_after={"tables": len(after.tables), "rows": rows_after},
    )


def _named(tables: set[str], what: str) -> str:
    if not tables:
        return f"0 {what}"
    shown = ", ".join(sorted(tables)[:_NAMED])
    return f"{len(tables)} {what} ({shown}{', …' if len(tables) > _NAMED else ''})"
