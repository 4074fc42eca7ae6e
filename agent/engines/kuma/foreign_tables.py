"""What lies in the app's MariaDB database and is not the app's: people let several programs share one."""

from __future__ import annotations

from collections.abc import Collection

from agent.archives.members import printable
from agent.engines.mariadb.server.catalog import Schema
from common.wording import some_of

_APP_TABLES = frozenset({
    "api_key",
    "docker_host",
    "domain_expiry",
    "group",
    "heartbeat",
    "incident",
    "knex_migrations",
    "knex_migrations_lock",
    "maintenance",
    "maintenance_status_page",
    "maintenance_timeslot",
    "monitor",
    "monitor_group",
    "monitor_maintenance",
    "monitor_notification",
    "monitor_tag",
    "monitor_tls_info",
    "notification",
    "notification_sent_history",
    "proxy",
    "remote_browser",
    "setting",
    "stat_daily",
    "stat_hourly",
    "stat_minutely",
    "status_page",
    "status_page_cname",
    "tag",
    "user",
})  # fmt: skip
"""Those of 2.0 to 2.5."""
_NAMED = 10


def warnings_of_export(schema: Schema) -> list[str]:
    """What to know of an export of this database."""
    warnings = []
    if others := sorted(set(schema.tables) - _APP_TABLES):
        warnings.append(
            f"The database holds {_named(others)}, which Uptime Kuma up to 2.5 does not have. The export has it as "
            "well, and an import of it puts it in place of what is called so there."
        )
    if schema.programs:
        found = " and ".join(f"{count} {kind}" for kind, count in sorted(schema.programs.items()))
        warnings.append(
            f"The database holds {found}, which Uptime Kuma does not make: an import of this export is refused. Drop "
            "them, then export again."
        )
    return warnings


def warnings_of_import(present: Collection[str], new: Collection[str]) -> list[str]:
    """What goes from the database with an import that nobody may expect.

    Args:
        present: the tables that are there.
        new: those of the upload.
    """
    if lost := sorted(set(present) - set(new) - _APP_TABLES):
        return [
            f"The database holds {_named(lost)}, which the file does not have: it goes with the previous data, which "
            "an undo brings back and a confirmation drops for good."
        ]
    return []


def _named(tables: Collection[str]) -> str:
    names = some_of([printable(table) for table in tables], _NAMED)
    return f"{'the table' if len(tables) == 1 else 'tables'} {names}"
