"""What can be done with an app's database now, and why not where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.engines.pg.exports.exporting import explain_unreadable
from agent.engines.pg.exports.not_importable import warnings_of_not_importable
from agent.engines.pg.imports.ways import make_plan
from agent.engines.pg.server.catalog import (
    count_objects,
    estimate_bytes,
    look_at_server,
    other_databases,
    unreadable_parts,
)
from agent.engines.pg.server.clients import Clients
from agent.engines.pg.server.connection import Connection, Login, connect
from agent.engines.pg.server.settings import PostgresSettings
from common.errors import ServiceError, ToolFailedError

MOST_OTHER_DATABASES = 20
"""Looked into for tables; a server with more is not one app's."""


@dataclass(frozen=True)
class Findings:
    """An app's database as it is now; an obstacle is empty where there is none."""

    export_obstacle: str
    import_obstacle: str
    version: str = ""
    estimated_bytes: int = 0
    warnings: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


async def describe(settings: PostgresSettings, clients: Clients) -> Findings:
    """Never raises for an app that does not answer: that is an obstacle."""
    try:
        login = settings.app_login()
        async with connect(login) as connection:
            return await _describe(connection, login, settings, clients)
    except ServiceError as failure:
        return Findings(failure.text, failure.text, details={"database": settings.database, "role": settings.user})


async def _describe(connection: Connection, login: Login, settings: PostgresSettings, clients: Clients) -> Findings:
    server = await look_at_server(connection)
    warnings = []
    import_obstacle, way, of_import = await _about_imports(settings)
    warnings += of_import
    export_obstacle = await _export_obstacle(connection, login, settings)
    try:
        client = await clients.for_server(server.version_num)
    except ToolFailedError as failure:
        export_obstacle, dumper = failure.text, ""
    else:
        dumper = client.version
        if not client.is_safe:
            warnings.append(
                f"pg_dump {client.version} can be harmed by a hostile server (CVE-2026-6477); update postgresql-client."
            )
    if server.is_superuser:
        warnings.append(
            f"Role {login.user} is a superuser: functions and triggers of an imported file will run with all rights."
        )
    if others := await _others_with_tables(connection, login):
        warnings.append(
            f"An export of this app does not contain the other databases of its server: {', '.join(others)}. "
            "Export one of them with the option database."
        )
    warnings += await warnings_of_not_importable(connection)
    counts = await count_objects(connection)
    return Findings(
        export_obstacle,
        import_obstacle,
        version=server.version,
        estimated_bytes=await estimate_bytes(connection),
        warnings=tuple(warnings),
        details={
            "database": login.database,
            "role": login.user,
            "pg_dump": dumper,
            "way_of_import": way,
            "tables": str(counts["tables"]),
        },
    )


async def _export_obstacle(connection: Connection, login: Login, settings: PostgresSettings) -> str:
    unreadable = await unreadable_parts(connection)
    if not unreadable:
        return ""
    if admin := settings.admin_login():
        async with connect(admin.to(login.database)) as as_admin:
            if not await unreadable_parts(as_admin):
                return ""
    return explain_unreadable(login, unreadable)


async def _about_imports(settings: PostgresSettings) -> tuple[str, str, list[str]]:
    """The obstacle, the way, and what to know of it."""
    try:
        plan = await make_plan(settings)
    except ServiceError as failure:
        return failure.text, "", []
    warnings = [plan.warning, "" if plan.loading_obstacle else plan.disk.warning]
    return plan.loading_obstacle, plan.way.value, [one for one in warnings if one]


async def _others_with_tables(connection: Connection, login: Login) -> list[str]:
    found = []
    for name in (await other_databases(connection, login.database))[:MOST_OTHER_DATABASES]:
        try:
            async with connect(login.to(name)) as other:
                if (await count_objects(other))["tables"]:
                    found.append(name)
        except ServiceError:
            # One that lets the app's role not in is not the app's.
            continue
    return found
