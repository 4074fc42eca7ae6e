"""What lies in n8n's PostgreSQL database and is not this n8n's: an import exchanges databases, so it would go along.

A second n8n in a schema of its own, a vector store that a workflow fills, another program. Only the catalogs are read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.archives.members import printable
from agent.engines.n8n.contents import MIGRATIONS, WORKFLOWS
from agent.engines.n8n.secret_rows import CREDENTIALS
from agent.engines.pg.server.catalog import USER_SCHEMA, WITHOUT_GRANTS, no_member
from agent.engines.pg.server.connection import Connection
from common.errors import AppUnavailableError, ArchiveIncompatibleError
from common.wording import some_of

_NAMED = 10
_OWN_TABLES = frozenset(
    """
    activity_event agent_background_job agent_channel_status agent_chat_attachments agent_chat_subscriptions
    agent_checkpoints agent_credential_dependency agent_eval_dataset agent_eval_rating agent_eval_result agent_eval_run
    agent_execution agent_execution_threads agent_files agent_history agent_published_version agent_task_definition
    agent_task_run_lock agent_task_snapshot agent_workflow_dependency agents agents_memory_entries
    agents_memory_entry_candidates agents_memory_entry_cursors agents_memory_entry_locks agents_memory_entry_sources
    agents_messages agents_observation_cursors agents_observation_locks agents_observations agents_resources
    agents_threads ai_builder_temporary_workflow ai_preference analytics_by_period analytics_metadata analytics_raw
    annotation_tag_entity auth_identity auth_provider_sync_history binary_data chat_hub_agent_tools chat_hub_agents
    chat_hub_messages chat_hub_session_tools chat_hub_sessions chat_hub_tools credential_dependency credential_usage
    credentials_entity data_store data_store_column data_table data_table_column deployment_key dynamic_credential_entry
    dynamic_credential_resolver dynamic_credential_user_entry evaluation_collection evaluation_config event_destinations
    execution_annotation_tags execution_annotations execution_data execution_entity execution_metadata
    execution_metadata_temp folder folder_tag git_connection git_connection_project insights_by_period insights_metadata
    insights_raw installed_nodes installed_packages instance_ai_checkpoints instance_ai_events
    instance_ai_iteration_logs instance_ai_mcp_registry_connections instance_ai_messages instance_ai_observation_cursors
    instance_ai_observation_locks instance_ai_observational_memory instance_ai_observations
    instance_ai_pending_confirmations instance_ai_resources instance_ai_run_snapshots instance_ai_thread_grants
    instance_ai_threads instance_ai_workflow_snapshots instance_credential_assignment instance_monitoring_report
    instance_version_history invalid_auth_token mcp_registry_server migrations oauth_access_tokens
    oauth_authorization_codes oauth_clients oauth_refresh_tokens oauth_user_consents poller_state processed_data project
    project_pool_settings project_relation project_secrets_provider_access promotion_config promotion_connection
    promotion_connection_project promotion_provider role role_mapping_rule role_mapping_rule_project role_scope
    scheduled_job scheduled_task scope secrets_provider_connection settings shared_credentials shared_credentials_2
    shared_workflow shared_workflow_2 tag_entity test_case_execution test_definition test_metric test_run
    tmp_dynamic_credential_entry tmp_mcp_registry_server token_exchange_jti trusted_key trusted_key_source
    type_availability_policy type_availability_policy_attachment type_availability_policy_scope user user_api_keys
    user_favorites variables webhook_entity workflow_builder_session workflow_dependency workflow_entity
    workflow_execution workflow_history workflow_publication_outbox workflow_publication_trigger_status
    workflow_publish_history workflow_published_version workflow_review_activity workflow_review_activity_comment
    workflow_review_request workflow_review_request_authors workflow_review_request_reviewers
    workflow_review_request_workflow workflow_statistics workflow_statistics_delta workflow_step_execution
    workflows_tags
    """.split()  # noqa: SIM905  # one a line would be the longest part of this module
)
"""All that n8n's migrations make up to 2.41, also those that a later one drops, and those of its engine
(N8N_ENGINE_DATABASE_URL)."""
_MIGRATIONS, _LAST_MIGRATION = 275, 1789995003141
"""How many 2.41 makes in PostgreSQL, and the number in the name of the last one. A later n8n has more, and not all of
their numbers are higher."""
_OF_PERSONS = ("data_table_user_", "data_store_user_")
"""How tables begin that n8n makes for data that people keep in it; the second are of its first versions with such."""
_KINDS = {"r": "table", "p": "table", "f": "table", "v": "view", "m": "view"}
_RELATIONS = f"""
    SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition
       AND {no_member("pg_class", "c.oid")}
     ORDER BY 1, 2
"""  # noqa: S608  # constants
_HOLDS_OTHERS = " ".join(
    f"OR EXISTS (SELECT FROM {catalog} x WHERE x.{prefix}namespace = n.oid AND {no_member(catalog, 'x.oid')})"
    for catalog, prefix in WITHOUT_GRANTS.values()
)
_SCHEMAS = f"""
    SELECT n.nspname FROM pg_namespace n
     WHERE {USER_SCHEMA} AND n.nspname <> %s
       AND (EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
                       AND {no_member("pg_class", "c.oid")})
         OR EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND {no_member("pg_proc", "p.oid")})
         OR EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
                     WHERE t.typnamespace = n.oid AND (t.typtype IN ('d', 'e', 'r') OR c.relkind = 'c')
                       AND {no_member("pg_type", "t.oid")})
         {_HOLDS_OTHERS})
     ORDER BY 1
"""  # noqa: S608  # constants
"""Types of rows and arrays are left out: before PostgreSQL 17 they belong to no extension."""
_OTHERS = " ".join(
    f"UNION SELECT {prefix}namespace, {prefix}name, '{kind.lower()}' FROM {catalog} x"  # noqa: S608
    f" WHERE {no_member(catalog, 'x.oid')}"
    for kind, (catalog, prefix) in WITHOUT_GRANTS.items()
    if kind != "STATISTICS"
)
"""Statistics are of a table, as its indexes are."""
_WITHOUT_ROWS = f"""
    SELECT n.nspname, found.name, found.kind FROM pg_namespace n JOIN (
        SELECT pronamespace, proname, 'function' FROM pg_proc p WHERE {no_member("pg_proc", "p.oid")}
        UNION
        SELECT typnamespace, typname, 'type' FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
         WHERE (t.typtype IN ('d', 'e', 'r') OR c.relkind = 'c') AND {no_member("pg_type", "t.oid")}
        UNION
        SELECT relnamespace, relname, 'sequence' FROM pg_class c
         WHERE relkind = 'S' AND {no_member("pg_class", "c.oid")}
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                               AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))
        {_OTHERS}
    ) AS found (schema, name, kind) ON found.schema = n.oid
     WHERE {USER_SCHEMA} ORDER BY 3, 2
"""  # noqa: S608  # constants
"""Sequences of columns are left out."""
_OWN_WITHOUT_ROWS = frozenset({"increment_workflow_version", *(f"{table}_id_seq" for table in _OWN_TABLES)})
"""All that n8n's migrations make up to 2.41, and sequences that may be left of columns that had numbers once."""
_LARGE_OBJECTS = "SELECT FROM pg_largeobject_metadata LIMIT 1"


@dataclass(frozen=True)
class Shared:
    """What is in a database besides one n8n.

    Attributes:
        others: what is not that n8n's, each thing by its name for a person.
        doubtful: what may be its own, since it is newer than what is known here.
    """

    others: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()


async def look_beside(connection: Connection, schema: str, migrations: Collection[str]) -> Shared:
    """What a database holds besides an n8n.

    Args:
        schema: that n8n's.
        migrations: that it has been through.
    """
    others = [f"schema {printable(name)}" for (name,) in await _rows(connection, _SCHEMAS, schema)]
    here = {name: kind for where, name, kind in await _rows(connection, _RELATIONS) if where == schema}
    prefixes = tuple(prefix for prefix in _prefixes(here) if prefix)
    others += [f"tables with the prefix {printable(prefix)}, of another n8n" for prefix in prefixes]
    unknown = {
        name: f"{_KINDS[kind]} {printable(name)}"
        for name, kind in here.items()
        if name not in _OWN_TABLES and not name.startswith((*_OF_PERSONS, *prefixes))
    }
    without_rows = [
        f"{kind} {printable(name)}"
        for where, name, kind in await _rows(connection, _WITHOUT_ROWS)
        if where == schema and name not in _OWN_WITHOUT_ROWS and not name.startswith(prefixes)
    ]
    made = [*(said for name, said in unknown.items() if here[name] in "rp"), *without_rows]
    doubtful = set(made) if _is_newer(migrations) else set()
    found = [*unknown.values(), *without_rows]
    others += [said for said in found if said not in doubtful]
    if await _rows(connection, _LARGE_OBJECTS):
        others.append("large objects")
    return Shared(tuple(others), tuple(said for said in found if said in doubtful))


async def require_n8n(connection: Connection, schema: str) -> None:
    """Say where an uploaded n8n has its tables, where that is not where this one has them.

    Raises:
        ArchiveIncompatibleError: in another schema, or with a prefix.
    """
    where, prefix = await _home_of(connection, schema)
    if prefix:
        raise ArchiveIncompatibleError(
            f"The archive is of an n8n whose tables have the prefix {printable(prefix)} (DB_TABLE_PREFIX), and this "
            "one has none.",
            next_step="Rename the tables in a copy of that database, dump it with pg_dump and import that with the "
            "option encryption_key.",
        )
    if where != schema:
        raise ArchiveIncompatibleError(
            f"The archive is of an n8n that keeps its tables in schema {printable(where)} (DB_POSTGRESDB_SCHEMA), and "
            f"this one keeps them in {schema}.",
            next_step="Rename the schema in a copy of that database (ALTER SCHEMA ... RENAME TO ...), dump it with "
            "pg_dump and import that with the option encryption_key.",
        )


async def explain_elsewhere(connection: Connection, schema: str) -> None:
    """Say where an n8n has its tables that were not found.

    Raises:
        AppUnavailableError: in another schema, or with a prefix.
    """
    where, prefix = await _home_of(connection, schema)
    if prefix:
        raise AppUnavailableError(
            f"n8n's tables in schema {printable(where)} have the prefix {printable(prefix)} (DB_TABLE_PREFIX), which "
            "this recipe does not support.",
            next_step="Move the database as a whole by recipe postgresql; the encryption key is not in it.",
        )
    if where != schema:
        raise AppUnavailableError(
            f"n8n's tables are in schema {printable(where)}, and by its settings the agent looks for them in {schema}.",
            next_step="Set `schema` to what n8n has as DB_POSTGRESDB_SCHEMA.",
        )


async def _home_of(connection: Connection, schema: str) -> tuple[str, str]:
    """Schema and prefix of an n8n's tables; as they were expected where there are none at all."""
    relations = await _rows(connection, _RELATIONS)
    homes = [
        (where, prefix)
        for where in sorted({found for found, _, _ in relations})
        for prefix in _prefixes([name for found, name, _ in relations if found == where])
    ]
    expected = (schema, "")
    return expected if expected in homes or not homes else homes[0]


def require_alone(shared: Shared) -> None:
    """Before an import that nobody wants to exchange the whole database.

    Raises:
        AppUnavailableError: it holds what is not this n8n's.
    """
    if shared.others:
        raise AppUnavailableError(
            f"n8n's database also holds {_named(shared.others)}, and an import exchanges the whole database.",
            next_step="Give n8n a database of its own. Where all of that may be exchanged along with n8n's data, "
            "import with the option whole_database=true: what is written to it afterwards goes with an undo, and what "
            "is there now with a confirmation.",
        )


def require_nothing_new(shared: Shared, known: Collection[str]) -> None:
    """Before an undo.

    Args:
        known: what else the database held as it was imported.
    Raises:
        AppUnavailableError: somebody else began to use the database that an undo drops.
    """
    if new := [name for name in shared.others if name not in known]:
        raise AppUnavailableError(
            f"Since the import n8n's database also holds {_named(new)}, and an undo would drop it.",
            next_step="Dump that with pg_dump and drop it, then undo; and give it a database of its own.",
        )


def warnings_of_description(shared: Shared) -> list[str]:
    """What to know before anything is done."""
    if not shared.others:
        return []
    return [
        f"n8n's database also holds {_named(shared.others)}. An export has it as well; an import would exchange it "
        f"along with n8n's data, so it is refused without the option whole_database=true."
    ]


def warnings_of_export(shared: Shared) -> list[str]:
    """What else an archive holds."""
    if not shared.others:
        return []
    return [
        f"n8n's database also holds {_named(shared.others)}, so the archive does too: an import brings it along, and "
        "encrypts nothing again of another n8n's."
    ]


def warnings_of_import(present: Shared, brought: Shared) -> list[str]:
    """What becomes of others with an import that exchanges the whole database.

    Args:
        brought: of the uploaded database.
    """
    warnings = []
    if present.others:
        warnings.append(
            f"Exchanged along with n8n's data: {_named(present.others)}. What is written to it after the import goes "
            "with an undo, and what is there now with a confirmation."
        )
    if lost := [name for name in present.doubtful if name not in (*brought.others, *brought.doubtful)]:
        warnings.append(
            f"The database holds {_named(lost)}, which the file does not have and n8n up to 2.41 does not make. Where "
            "it is not n8n's own, it goes with the previous data."
        )
    if brought.others:
        warnings.append(
            f"The file also holds {_named(brought.others)}, which comes into the database as it is: nothing is "
            "encrypted again of another n8n's."
        )
    return warnings


def _prefixes(tables: Collection[str]) -> list[str]:
    """Of the n8ns in a schema; "" for one without."""
    there = set(tables)
    found = [name.removesuffix(WORKFLOWS) for name in sorted(there) if name.endswith(WORKFLOWS)]
    return [prefix for prefix in found if {prefix + CREDENTIALS, prefix + MIGRATIONS} <= there]


def _is_newer(migrations: Collection[str]) -> bool:
    numbers = [int(name[-13:]) for name in migrations if name[-13:].isdecimal()]
    return len(migrations) > _MIGRATIONS or max(numbers, default=0) > _LAST_MIGRATION


def _named(names: Sequence[str]) -> str:
    return some_of(names, _NAMED)


async def _rows(connection: Connection, query: str, *values: object) -> list[tuple[str, ...]]:
    cursor = await connection.execute(query.encode(), values or None)
    return await cursor.fetchall()
