"""What n8n's database holds, told in numbers, and whether an n8n of a certain version can take it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from agent.engines.n8n.secret_rows import CREDENTIALS, is_rotating
from agent.engines.n8n.stores import Store, count
from common.errors import ArchiveIncompatibleError

WORKFLOWS = "workflow_entity"
MIGRATIONS = "migrations"
_AGENTS, _PUBLISHED_AGENTS = "agents", "agent_published_version"
"""The second is of the first n8ns that had agents."""
_ACTIVE_VERSION = "activeVersionId"
_EXECUTIONS = "execution_entity"
REQUIRED_TABLES = (WORKFLOWS, CREDENTIALS, MIGRATIONS)
_MOST_NAMES = 3


@dataclass
class Contents:
    """Counts by what they count; `migrations` as n8n names them, the oldest first."""

    counts: dict[str, int] = field(default_factory=dict)
    migrations: list[str] = field(default_factory=list)
    is_rotating: bool = False


def contents_of(store: Store) -> Contents:
    """
    Raises:
        ArchiveIncompatibleError: it is not n8n's.
    """
    if missing := [table for table in REQUIRED_TABLES if table not in store.tables()]:
        raise ArchiveIncompatibleError(
            f"The database in the archive is not n8n's: it lacks the tables {', '.join(missing)}."
        )
    return Contents(
        counts={
            "workflows": count(store, WORKFLOWS),
            "active_workflows": count(store, WORKFLOWS, "WHERE active"),
            "credentials": count(store, CREDENTIALS),
            "executions": count(store, _EXECUTIONS),
            "users": count(store, "user"),
        },
        migrations=[str(name) for (name,) in store.run("SELECT name FROM {table} ORDER BY id", table=MIGRATIONS)],
        is_rotating=is_rotating(store),
    )


def require_known(migrations: Sequence[str], known: Collection[str]) -> None:
    """n8n migrates older data when it starts, and does not notice newer.

    Args:
        known: those that the n8n has which is to take the data.
    Raises:
        ArchiveIncompatibleError: the data has been through migrations that it does not know.
    """
    if newer := [name for name in migrations if name not in known]:
        named = ", ".join(newer[-_MOST_NAMES:])
        raise ArchiveIncompatibleError(
            f"The data is of a newer n8n than this one: {len(newer)} of its migrations are not known here, the last of "
            f"them {named}.",
            next_step="Update n8n to the version that the data comes from, or a later one, start it once, then import.",
        )


def published_agents(store: Store) -> int:
    """Those that answer in chats and do their tasks by themselves (2.x)."""
    found = count(store, _PUBLISHED_AGENTS)
    if _ACTIVE_VERSION in store.columns(_AGENTS):
        found += count(store, _AGENTS, f'WHERE "{_ACTIVE_VERSION}" IS NOT NULL')
    return found


def deactivate(store: Store) -> None:
    """Switch all workflows and agents off and cancel what is in the queue, so that nothing fires here what still fires
    where it comes from.
    """
    tables = store.tables()
    store.run("UPDATE {table} SET active = false", table=WORKFLOWS)
    for table in (WORKFLOWS, _AGENTS):
        if table in tables and _ACTIVE_VERSION in store.columns(table):
            # Since 2.0 this is what says which version runs.
            store.run("UPDATE {table} SET {column} = NULL", table=table, column=_ACTIVE_VERSION)
    for table in ("webhook_entity", _PUBLISHED_AGENTS):
        if table in tables:
            store.run("DELETE FROM {table}", table=table)
    if enqueued_executions(store):
        store.run("UPDATE {table} SET status = 'canceled' WHERE status = 'new'", table=_EXECUTIONS)


def enqueued_executions(store: Store) -> int:
    """Those that n8n begins when it starts: there was no worker yet, or too many others (queue mode, limits)."""
    return count(store, _EXECUTIONS, "WHERE status = 'new'")


def waiting_executions(store: Store) -> int:
    """Those that n8n goes on with when it starts."""
    return count(store, _EXECUTIONS, "WHERE status = 'waiting'")
