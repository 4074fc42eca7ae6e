"""The one transaction of an import within the app's own database: what runs before the file and after it."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from agent.engines.pg.belongings import WRAPPER, read_belongings
from agent.engines.pg.carry_over import gifts_of_things, special_things
from agent.engines.pg.catalog import USER_SCHEMA, DatabaseFacts, extension_tables, foreign_servers, no_member
from agent.engines.pg.connection import Connection
from agent.engines.pg.load_terms import Terms
from agent.engines.pg.moving import kept_prefix, take_aside

LOCK_WAIT_SECONDS = 20
"""For the app's open transactions to end; they hold what is to be moved."""
_NO_SEARCH_PATH = "SELECT pg_catalog.set_config('search_path', '', false)"
_SHARED_CATALOGS = ("pg_authid", "pg_auth_members", "pg_database", "pg_db_role_setting")
_CHANGES = (
    "pg_stat_get_xact_tuples_inserted({0}) + pg_stat_get_xact_tuples_updated({0})"
    " + pg_stat_get_xact_tuples_deleted({0}) <> 0"
)
_CHECK = """DO $check$
DECLARE
    relations oid[] := {relations};
    nodes oid[] := {nodes};
BEGIN
    IF EXISTS (
        SELECT FROM unnest(relations, nodes) AS was (number, node)
         WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                            WHERE c.oid = was.number AND c.relfilenode = was.node
                              AND starts_with(n.nspname, {prefix}))
            OR {changes_of_rows})
       OR {functions} <> (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                           WHERE starts_with(n.nspname, {prefix}))
    THEN
        RAISE EXCEPTION 'the file touched the previous data';
    END IF;
    IF EXISTS (SELECT FROM unnest({shared}::regclass[]) AS shared (number) WHERE {changes_of_shared}) THEN
        RAISE EXCEPTION 'the file changed roles or databases';
    END IF;
END $check$"""
_IF_THERE = """DO $do$ BEGIN {statement};
EXCEPTION WHEN undefined_table OR undefined_object OR undefined_function OR undefined_column OR invalid_schema_name
    OR wrong_object_type OR insufficient_privilege THEN NULL; END $do$"""


async def relations(connection: Connection) -> frozenset[int]:
    """The app's tables and their kin, by number; those stay what they are when they are moved."""
    return frozenset(number for number, _ in await _relations(connection))


async def _relations(connection: Connection) -> list[tuple[int, int]]:
    cursor = await connection.execute(f"""
        SELECT c.oid::bigint, c.relfilenode::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND {no_member("pg_class", "c.oid")}
    """)  # noqa: S608
    return await cursor.fetchall()


async def make_terms(connection: Connection, database: DatabaseFacts, key: str) -> Terms:
    """All statements, as the database is now. One that does not fit any more ends the transaction.

    Args:
        connection: to the app's database, of the role that will load.
    """
    belongings = await read_belongings(connection, database, app_role=connection.info.user)
    # A wrapper belongs to a superuser and stays where it is.
    things = [thing for thing in special_things(belongings) if thing.kind != WRAPPER]
    gifts = gifts_of_things(belongings, things)
    before = [
        sql.SQL("SET LOCAL lock_timeout = {}").format(f"{LOCK_WAIT_SECONDS}s"),
        # What was loaded has to be on the disk when its loader is told so.
        sql.SQL("SET LOCAL synchronous_commit = on"),
        *await take_aside(connection, key),
        sql.SQL("SET LOCAL lock_timeout = 0"),
    ]
    after = [
        # What waits for the commit runs now, before anyone looks at what it did.
        sql.SQL("SET CONSTRAINTS ALL IMMEDIATE"),
        await _check(connection, key),
        *(sql.SQL(_IF_THERE).format(statement=gift.statement) for gift in gifts),
    ]
    return Terms(
        is_restricted=True,
        before=("BEGIN", _NO_SEARCH_PATH, *_texts(connection, before)),
        after=(_NO_SEARCH_PATH, *_texts(connection, after), "COMMIT"),
        foreign_servers=frozenset(await foreign_servers(connection)),
        extension_tables=await extension_tables(connection),
    )


async def _check(connection: Connection, key: str) -> sql.Composed:
    there = await _relations(connection)
    cursor = await connection.execute(f"""
        SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE {USER_SCHEMA} AND {no_member("pg_proc", "p.oid")}
    """)  # noqa: S608
    row = await cursor.fetchone() or (0,)
    return sql.SQL(_CHECK).format(
        relations=_numbers(number for number, _ in there),
        nodes=_numbers(node for _, node in there),
        prefix=kept_prefix(key),
        functions=row[0],
        shared=sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(map(sql.Literal, _SHARED_CATALOGS))),
        changes_of_rows=sql.SQL(_CHANGES.format("was.number")),
        changes_of_shared=sql.SQL(_CHANGES.format("shared.number")),
    )


def _numbers(numbers: Iterable[int]) -> sql.Literal:
    return sql.Literal("{" + ",".join(map(str, numbers)) + "}")


def _texts(connection: Connection, statements: Iterable[sql.Composable]) -> list[str]:
    return [statement.as_string(connection) for statement in statements]
